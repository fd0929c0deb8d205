"""Activations of 2 to 16 bits, from the float model to the circuit."""

from functools import cache

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL

import sim
from pvq_hw.model.load import load_model
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.quantizer.quantize import LayerOptions, quantize

DATA = np.load(BUNDLED / "digits.npz")
PLAIN = {"logits": LayerOptions(encoding="int8")}


@cache
def quantized(bits, plain=False):
    layers = PLAIN if plain else None
    return quantize(
        load_model(MODEL),
        calibration=DATA["x_train"][:400].astype(float),
        ratio=2,
        activation_bits=bits,
        layers=layers,
    )


def accuracy(network):
    x = network.quantize_input(DATA["x_test"].astype(float))
    return float((network.predict(x).argmax(axis=1) == DATA["y_test"]).mean())


def test_scales_cost_little_down_to_four_bits():
    found = {bits: accuracy(quantized(bits)) for bits in (2, 3, 4, 8, 12, 16)}
    assert found[2] > 0.85
    assert found[3] > 0.92
    assert min(found[bits] for bits in (4, 8, 12, 16)) > 0.94


@pytest.mark.parametrize(("bits", "plain"), [(2, False), (4, True), (12, True), (16, False)])
def test_circuits_of_every_width(bits, plain):
    network = quantized(bits, plain)
    assert network.input.format.bits == network.layers[0].output.format.bits == bits
    # Without a multiplier as wide as the activations, lanes multiply in LUTs.
    planned = plan(network, "icebreaker" if plain else "hx8k", lanes=(16, 4), top=False)
    image = emit(network, planned)
    x = network.quantize_input(DATA["x_test"][:2].astype(float))
    assert len(np.unique(x)) > min(3, bits)
    settle = bits == 4  # the interval takes many frames more
    result = sim.simulate(planned.graph, image.cores, x, "amaranth", settle=settle)
    trace = network.trace(x)
    for layer, spec in zip(network.layers, planned.specs, strict=True):
        assert np.array_equal(result.outputs[spec.name], trace[layer.name])
    if settle:
        assert result.interval_cycles == planned.interval_cycles
    assert result.latency_cycles == planned.latency_cycles
