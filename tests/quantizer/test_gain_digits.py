"""Gains of unrolled layers rounded to few signed digits."""

import numpy as np
import pytest

from pvq_hw.data.dataset import Data
from pvq_hw.engine.adder_graph import signed_digits
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.flow.quantize import quantize_for
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Dense, Relu
from pvq_hw.quantizer.requantization import few_digits
from pvq_hw.target.boards import get_target


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_the_nearest_number_of_few_digits_is_found(digits):
    values = np.arange(301)
    few = np.array([n for n in range(301) if len(signed_digits(n)) <= digits])
    near = np.abs(values[:, None] - few).min(axis=1)
    found = few_digits(values, digits, 300)
    assert set(found) <= set(few)
    assert np.array_equal(np.abs(values - found), near)


def _network(gain_digits):
    rng = np.random.default_rng(0)
    nodes = (
        Dense("a", ("x",), "s", (12,), rng.laplace(size=(12, 10)), rng.normal(size=12)),
        Relu("r", ("s",), "t", (12,)),
        Dense("b", ("t",), "u", (6,), rng.laplace(size=(6, 12)), np.zeros(6)),
    )
    model = Model("net", "", "x", (10,), (0,), (10,), nodes)
    data = Data(rng.random((200, 10)).astype(np.float32))
    options = CompileOptions(
        target="ulx3s-25f",
        ratio=1.0,
        sweeps=0,
        layers={"a": LayerChoice(engine="unrolled"), "b": LayerChoice(engine="folded")},
        gain_digits=gain_digits,
    )
    network, _ = quantize_for(model, get_target("ulx3s-25f"), options, data)
    exact = model.predict(data.x)
    off = network.real(network.predict(network.quantize_input(data.x))) - exact
    return network, np.sqrt(np.square(off).mean()) / exact.std()


def test_compile_rounds_the_gains_of_wires_alone():
    (plain, error), (rounded, more) = _network(0), _network(2)
    first, last = rounded.layers
    assert max(len(signed_digits(int(m))) for m in first.mult.ravel()) <= 2
    assert max(len(signed_digits(int(m))) for m in last.mult.ravel()) > 2
    assert max(len(signed_digits(int(m))) for m in plain.layers[0].mult.ravel()) > 2
    assert np.array_equal(first.y, plain.layers[0].y)
    real = first.mult * (first.output.scale / 2.0**first.shift)
    assert np.allclose(first.gain * rounded.input.scale, real, rtol=1e-4)
    assert more < error + 0.1
    for wrong in (-1, 5):
        with pytest.raises(InputError, match="Gain digits must be 1 to 4, or 0 for all"):
            CompileOptions(gain_digits=wrong)
