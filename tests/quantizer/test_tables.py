"""Tables: widths and scales by the error behind the function, entries, what layers refuse."""

from dataclasses import replace

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.units import Lookup
from pvq_hw.errors import InputError
from pvq_hw.model.curve import Curve, X, constant
from pvq_hw.model.model import Dense, Function, Model
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.table import MOST_ENTRIES, Table
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.quantizer.tables import table_entries, table_input, table_layer

TANH, SIGMOID = Curve("Tanh", (X,)), Curve("Sigmoid", (X,))
S8 = IntFormat(8, True)


def chosen(curve, real, bits=8):
    return table_input("t", (4,), curve, real, bits, 0.0, {})


def test_what_is_flat_far_out_saturates_there():
    """Of values up to 100, a tanh wants the few around 0 fine."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(1000, 4)) * 30
    tanh, straight = chosen(TANH, wide), chosen(Curve("LeakyRelu", (X,), (0.9,)), wide)
    assert tanh.scale * tanh.format.max < 20 < straight.scale * straight.format.max
    assert 8 <= tanh.format.bits <= 12
    assert straight.scale > 20 * tanh.scale
    assert chosen(SIGMOID, np.abs(wide)).format.signed is False
    assert chosen(TANH, wide / 30, bits=4).format.bits == 8
    assert chosen(TANH, wide / 30, bits=11).format.bits > 8


def test_a_wider_table_was_not_worth_it():
    """The rule, from the errors themselves."""
    z = np.random.default_rng(1).normal(size=(1000, 4)) * 2
    spec = chosen(TANH, z)

    def error(bits, scale):
        half = 1 << (bits - 1)
        lattice = np.clip(np.floor(z / scale + 0.5), -half, half - 1) * scale
        step = 1 / 127
        return np.square(np.floor(np.tanh(lattice) / step + 0.5) * step - np.tanh(z)).sum()

    def best(bits):
        return min(error(bits, s) for s in np.linspace(0.2, 1, 30) * 8 / (1 << (bits - 1)))

    assert error(spec.format.bits, spec.scale) < 1.5 * best(12)
    assert best(spec.format.bits - 1) > 1.2 * best(12)


def test_entries_are_the_function_rounded_to_nearest():
    x = TensorSpec("x", (3,), S8, 0.05)
    table = table_layer("t", TANH, x, "y", (3,), None, 8, False)
    assert table.output.format == S8
    v = np.arange(-128, 128)
    expected = np.floor(np.tanh(v * 0.05) / table.output.scale + 0.5)
    assert np.array_equal(table.entries[0], np.clip(expected, -128, 127))
    looked_up = table.compute(v[:, None].repeat(3, axis=1))
    assert np.array_equal(looked_up, table.entries[0][:, None].repeat(3, axis=1))
    positive = table_layer("t", SIGMOID, x, "y", (3,), None, 8, False)
    assert positive.output.format == IntFormat(8, False)
    assert positive.output.scale * 255 == pytest.approx(1 / (1 + np.exp(-127 * 0.05)))


def test_each_channel_has_its_own_table():
    curve = Curve("PRelu", (X, constant(0.0, 0.5, 1.0)))
    x = TensorSpec("x", (2, 3), S8, 1.0)
    table = table_layer("t", curve, x, "y", (2, 3), np.array([-128.0, 127.0]), 8, False)
    assert table.entries.shape == (3, 256)
    scale = table.output.scale
    given = table.compute(np.array([[[-100, -100, -100], [50, 50, 50]]]))
    assert np.abs(given[0] * scale - [[0, -50, -100], [50, 50, 50]]).max() <= scale / 2
    many = Curve("PRelu", (X, constant(*np.linspace(0, 1, 300))))
    with pytest.raises(InputError, match="constants for 300 channels; tables hold 256 at most"):
        table_input("y", (300,), many, None, 8, 0.0, {"y": (-1.0, 1.0)})
    some = Curve("PRelu", (X, constant(*np.linspace(0, 1, 100))))
    spec = table_input("y", (100,), some, None, 8, 0.0, {"y": (-1.0, 1.0)})
    assert 100 << spec.format.bits <= MOST_ENTRIES


def network() -> Network:
    rng = np.random.default_rng(2)
    model = Model("m", "", "x", (5,), (0,), (5,), (
        Dense("fc", ("x",), "z", (4,), rng.normal(size=(4, 5)), rng.normal(size=4)),
        Function("act", ("z",), "a", (4,), TANH),
        Dense("out", ("a",), "o", (2,), rng.normal(size=(2, 4)), np.zeros(2)),
    ))  # fmt: skip
    return quantize(model, calibration=rng.normal(size=(50, 5)), ratio=1.0, quantizer="plain")


def test_a_network_with_tables_is_saved_whole(tmp_path):
    made = network()
    made.save(tmp_path)
    again = Network.load(tmp_path)
    assert again == made
    assert np.array_equal(again.layers[1].entries, made.layers[1].entries)
    assert made.n_over_k >= 1.0  # entries are no weights


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"entries": np.zeros((1, 7), dtype=int)}, "entries a channel, not 7"),
        ({"entries": np.full((1, 256), 300)}, "entries of its output's format"),
        ({"entries": np.zeros((3, 256), dtype=int)}, "1 table or one a channel, not 3"),
        ({"x": IntFormat(8, False)}, "must read values of its input's format"),
        ({"function": "f\n"}, "name its function"),
        ({"output": TensorSpec("a", (5,), S8, 1.0)}, "give as many values as it reads, 4"),
    ],
)
def test_a_table_that_is_none_is_refused(change, text):
    x = TensorSpec("z", (4,), S8, 0.1)
    table = table_layer("act", TANH, x, "a", (4,), None, 8, False)
    assert np.array_equal(table_entries(TANH, x, table.output), table.entries)
    table.verify(x)
    with pytest.raises(InputError, match=text):
        replace(table, **change).verify(x)


def test_values_of_any_magnitude_give_the_same_integers():
    """Inputs and outputs far from 1 are divided by powers of two, and the function with them."""
    rng = np.random.default_rng(4)
    w, v, x = rng.normal(size=(4, 5)), rng.normal(size=(2, 4)), rng.normal(size=(60, 5))

    def quantized(unit):
        nodes = (
            Dense("fc", ("x",), "z", (4,), w * unit, np.zeros(4)),
            Function("act", ("z",), "a", (4,), Curve("Mul", (X, SIGMOID)).scaled(1 / unit, unit)),
            Dense("out", ("a",), "o", (2,), v, np.zeros(2)),
        )
        model = Model("m", "", "x", (5,), (0,), (5,), nodes)
        return quantize(model, calibration=x, ratio=1.0)

    plain, far = quantized(1.0), quantized(2.0**45)
    for a, b in zip(plain.layers, far.layers, strict=True):
        fields = ("entries",) if isinstance(a, Table) else ("y", "mult", "bias", "shift")
        for field in fields:
            assert np.array_equal(getattr(a, field), getattr(b, field)), (a.name, field)
        expected = a.output.scale * 2.0**45
        assert b.output.scale == expected
    assert "3.51844e+13" in far.layers[1].function


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"entries": ((0,) * 255,)}, "256 entries a table"),
        ({"entries": ((0,) * 256,) * 3}, "1 table or one for each channel"),
        ({"entries": ((200,) * 256,)}, "entries of 8 bits"),
        ({"x": IntFormat(1, True)}, "must not look binary activations up"),
        ({"latency": 0}, "memory of 1 to 6 cycles"),
        ({"memory": "tape"}, "logic, block or lines"),
    ],
)
def test_a_unit_that_cannot_be_is_refused(change, text):
    fields = {"x": S8, "out": S8, "size": 4, "entries": ((0,) * 256,)}
    Lookup("u", ("i",), ("o",), **fields)
    with pytest.raises(InputError, match=text):
        Lookup("u", ("i",), ("o",), **(fields | change))
