"""Random networks all the way: import, quantize, golden model, simulated RTL."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, seed, settings
from hypothesis import strategies as st
from onnx_graphs import save
from random_onnx import random_graphs

from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.model.load import load_model
from pvq_hw.model.own_graph import check_own_graph
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.target.boards import get_target
from sim.result import compare
from sim.run import simulate

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": CHECKS}
# Random files whose scales no layer can give, or whose constants leave a layer no weights.
REFUSED = ("must have an output scale of at least", "must have a finite value for every input")
LONG = 1500  # cycles of a frame above which one is enough
SHORT = 150  # cycles of a frame above which the short suite emits, but does not simulate


@st.composite
def choices(draw):
    """What a user might ask for, besides the model."""
    return {
        "target": draw(st.sampled_from(["icebreaker", "hx8k", "ulx3s-25f"])),
        "quantizer": draw(st.sampled_from(["plain", "plain", "calibrated"])),
        "ratio": draw(st.sampled_from([0.7, 1.0, 2.0, 4.0])),
        "bits": draw(st.sampled_from([8, 8, 4, 11])),
        "lanes": draw(st.integers(1, 6)),
        "int8": draw(st.sampled_from([False, False, True])),
        "stalls": draw(st.sampled_from(["none", "random:0.4", "random:0.9"])),
    }


def quantized(model, wanted, rng) -> Network:
    weights = [s.weight for s in network_steps(model) if s.weighted]
    least = sum(w.size for w in weights) / sum(len(w) for w in weights)  # a pulse a row
    return quantize(
        model,
        calibration=rng.standard_normal((16, *model.input_shape)),
        ratio=min(wanted["ratio"], least),
        quantizer=wanted["quantizer"],
        activation_bits=wanted["bits"],
    )


def with_int8(network: Network, rng) -> Network:
    """The same network with plain 8-bit weights in about every second layer."""
    layers = []
    for layer in network.layers:
        if layer.weights is not None and layer.mult.shape[1] == 1 and rng.random() < 0.5:
            y = rng.integers(-127, 128, layer.weights.shape)
            mult = np.maximum(layer.mult // 64, 1)
            layer = replace(layer, y=y, mult=mult, encoding="int8")
        layers.append(layer)
    changed = replace(network, layers=tuple(layers))
    changed.verify()
    return changed


def planned(network: Network, wanted) -> Plan:
    lanes = [min(wanted["lanes"], layer.dense.y.shape[1]) for layer in core_layers(network)]
    try:
        return plan(network, get_target(wanted["target"]), lanes=lanes)
    except InputError as error:  # what a small chip has no room for goes on a large one
        if "The network needs" not in str(error):
            raise
        return plan(network, get_target("ulx3s-85f"), lanes=lanes)


def run(tmp_path, case, wanted, longest=None) -> None:
    """The model is what onnxruntime computes; every layer's outputs, and without stalls the cycles
    of the first frame, are as they must."""
    path = save(tmp_path, case)
    model = load_model(path)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((8, *model.input_shape)).astype(np.float32)
    own = check_own_graph(path, model, Data(x))
    assert own is not None
    assert own.runtime == "onnxruntime"
    try:
        network = quantized(model, wanted, rng)
    except InputError as error:
        if any(text in str(error) for text in REFUSED):
            reject()
        raise
    if wanted["int8"] and wanted["bits"] <= 8:
        network = with_int8(network, rng)
    made = planned(network, wanted)
    assert Plan.from_json(made.to_json()) == made
    image = emit(network, made)
    if longest is not None and made.interval_cycles > longest:
        return
    form = network.input.format
    frames = 1 if made.interval_cycles > LONG else 2
    x = rng.integers(form.min, form.max + 1, (frames, *network.input.shape))
    names = [layer.name for layer in network.layers]
    result = simulate(
        made.graph,
        image.cores,
        x,
        "amaranth",
        names=names,
        idle=wanted["stalls"],
        stall=wanted["stalls"],
        settle=False,
    )
    compared = compare(result, network.trace(x))
    assert compared.outputs_compared >= frames * network.output.size
    if compared.mismatches:
        raise CheckError(str(compared.first))
    if wanted["stalls"] == "none":
        assert result.latency_cycles == made.latency_cycles


@settings(max_examples=40, **QUIET)
@given(random_graphs(), choices())
def test_random_networks_compute_what_their_golden_models_do(tmp_path, case, wanted):
    run(tmp_path, case, wanted, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(10))
def test_many_random_networks_compute_what_their_golden_models_do(tmp_path, shard):
    """500 in all, in parts that can be run one by one."""

    @seed(shard)
    @settings(max_examples=50, database=None, **(QUIET | {"derandomize": False}))
    @given(random_graphs(), choices())
    def check(case, wanted):
        run(tmp_path, case, wanted)

    check()
