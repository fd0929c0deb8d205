"""Tables that lie on two lines: found from the entries alone, and the same values."""

from dataclasses import replace

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.adder_graph import signed_digits
from pvq_hw.engine.lines import LINES_DELAY, Lines, lines_near, lines_of
from pvq_hw.engine.units import Lookup
from pvq_hw.errors import InputError
from pvq_hw.model.curve import Curve, X, constant
from pvq_hw.network.layer import TensorSpec
from pvq_hw.plan.unit_resources import unit_resources
from pvq_hw.quantizer.scales import error_minimizing_scale
from pvq_hw.quantizer.tables import table_input, table_layer

LEAKY = Curve("LeakyRelu", (X,), (0.1,))


def entries(x, out, below, above):
    """Of ``above * x`` and ``below * x``, rounded."""
    values = np.arange(x.limits[0], x.limits[1] + 1)
    real = np.where(values < 0, below, above) * values
    return tuple(out.clamp(np.floor(real + 0.5)).astype(int).tolist())


@pytest.mark.parametrize("bits", [4, 8, 10, 12])
@pytest.mark.parametrize("slopes", [(0.1, 1.0), (0.01, 0.25), (-1.0, 1.0), (0.3, 0.0), (0.2, 2.0)])
def test_lines_are_found_again_from_their_entries(bits, slopes):
    x, out = IntFormat(bits, True), IntFormat(8, True)
    near = lines_near(*slopes, x, out)
    values = np.arange(x.min, x.max + 1)
    assert near is not None
    table = tuple(near.compute(values).tolist())
    real = out.clamp(np.where(values < 0, *slopes) * values)
    assert np.abs(np.array(table) - real).max() <= 0.5 + 1 / 16
    found = lines_of(table, x, out)
    assert found is not None
    assert tuple(found.compute(values).tolist()) == table
    assert found.adders <= near.adders
    products = values * np.where(values < 0, found.below, found.above) + (1 << found.shift)
    assert np.abs(products).max() < 1 << found.sum_bits - 1


def test_the_simplest_slope_is_taken():
    x, out = IntFormat(10, True), IntFormat(8, True)
    assert lines_of(entries(x, out, 0.03125, 0.25), x, out) == Lines(x, out, 1, 8, 5)
    one = IntFormat(4, False)
    assert lines_of(entries(one, out, 0, 0.5), one, out) == Lines(one, out, 0, 1, 1)
    assert lines_near(0.0, 1 / 3, IntFormat(16, True), IntFormat(16, True)) is None


def test_what_is_no_line_is_none():
    x, out = IntFormat(8, True), IntFormat(8, True)
    bent = tuple(np.round(100 * np.tanh(np.arange(-128, 128) / 50)).astype(int).tolist())
    assert lines_of(bent, x, out) is None
    right = entries(x, out, 0.25, 1.0)
    assert lines_of(right, x, out) is not None
    wrong = (*right[:3], right[3] + 1, *right[4:])
    assert lines_of(wrong, x, out) is None
    assert lines_of((*right[:128], 1, *right[129:]), x, out) is None
    unit = Lookup("t", ("a",), ("b",), x, out, 6, (right,), memory="lines", latency=LINES_DELAY)
    assert unit.tables == ()
    assert replace(unit, memory="block", latency=2).tables == ("table",)
    for change in ({"entries": (wrong,)}, {"latency": 2}, {"entries": (right, right)}):
        with pytest.raises(InputError, match="must have entries on two lines, in 5 cycles"):
            replace(unit, **change)
    for engine in ("hx8k", "ecp5"):
        taken = unit_resources(unit, engine)
        assert taken.brams < unit_resources(replace(unit, memory="block"), engine).brams


@pytest.mark.parametrize(
    "curve",
    [
        LEAKY,
        Curve("PRelu", (X, constant(0.25))),
        Curve("Max", (X, Curve("Mul", (X, constant(0.02))))),
    ],
)
def test_scales_of_slopes_differ_by_a_power_of_two(curve):
    """So that what is 1 is a shift; with about the error that free scales have."""
    z = np.random.default_rng(0).normal(size=(900, 6)) * 3
    x = table_input("x", (6,), curve, z, 8, 0.0, {})
    table = table_layer("t", curve, x, "y", (6,), curve(z), 8, False)
    ratio = np.log2(table.output.scale / x.scale)
    assert ratio == round(ratio)
    lines = lines_of(tuple(table.entries[0].tolist()), x.format, table.output.format)
    assert lines is not None
    assert len(signed_digits(lines.above)) == 1
    real = table.compute(np.clip(np.floor(z / x.scale + 0.5), x.format.min, x.format.max))
    error = np.square(real * table.output.scale - curve(z)).mean()
    straight = np.square(np.clip(np.floor(curve(z) / table.output.scale + 0.5), -128, 127)
                         * table.output.scale - curve(z)).mean()  # fmt: skip
    assert error < 1.5 * straight


def test_a_scale_that_multipliers_leave_no_room_for_is_kept():
    z = np.random.default_rng(0).normal(size=(900, 6))
    x = table_input("x", (6,), LEAKY, z, 8, 0.5, {})
    assert x.scale >= 0.5
    other = TensorSpec("x", (6,), IntFormat(8, True), 0.0113)
    table = table_layer("t", LEAKY, other, "y", (6,), z, 8, False)
    ratio = np.log2(table.output.scale / 0.0113)
    best = error_minimizing_scale(z, IntFormat(8, True))
    assert table.output.scale == best or (ratio == round(ratio) and 2**ratio * 0.0113 / best > 0.85)
