"""onnx's own node cases for the operators that are taken: none is wrong, and those that the
quantizer takes too go through golden model and simulated RTL."""

import numpy as np
import pytest
from onnx_graphs import save
from onnx_node_cases import node_cases

from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.target.boards import get_target
from sim.result import compare
from sim.run import simulate

LEAST = 205  # of 332 that can have frames are right; the others are refused
LEAST_RTL = 200  # the quantizer refuses six more by name: a sign of an input, logarithms of 0

pytestmark = pytest.mark.slow  # the generators alone take 5 seconds


def right_cases(tmp_path):
    """(case, Model) of those that are taken, each in the first way that is; fails where one is
    wrong, in whatever way."""
    seen = set()
    for case in node_cases():
        try:
            model = load_model(save(tmp_path, case.model))
        except InputError:
            continue
        error = float(np.abs(model.predict(case.x) - case.expected).max())
        assert error <= case.bound, (case.name, error)
        if case.name not in seen:
            seen.add(case.name)
            yield case, model


def test_no_node_case_is_wrong(tmp_path):
    assert sum(1 for _ in right_cases(tmp_path)) >= LEAST


def test_every_right_node_case_runs_on_simulated_rtl(tmp_path):
    """Every layer's outputs; whole maps of the large cases take a frame, the others two."""
    done = 0
    for case, model in right_cases(tmp_path):
        try:
            network_steps(model)
        except InputError:
            continue
        try:
            network = quantize(
                model, calibration=np.repeat(case.x, 16, axis=0), ratio=1, quantizer="plain"
            )
        except InputError as error:
            if "must have a finite value for every input" not in str(error):
                raise
            continue
        lanes = [min(4, layer.dense.y.shape[1]) for layer in core_layers(network)]
        made = plan(network, get_target("ulx3s-85f"), lanes=lanes)
        image = emit(network, made)
        x = network.quantize_input(case.x[: 1 if made.interval_cycles > 1500 else 2])
        names = [layer.name for layer in network.layers]
        result = simulate(made.graph, image.cores, x, "amaranth", names=names, settle=False)
        compared = compare(result, network.trace(x))
        assert compared.mismatches == 0, (case.name, compared.first)
        assert compared.outputs_compared >= len(x) * network.output.size, case.name
        done += 1
    assert done >= LEAST_RTL
