"""What a layer carries out itself: one value with all its faces."""

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.model.activation import LINEAR, Activation, activation_of
from pvq_hw.model.nodes import Clip, MaxPool, Relu, Sign

Z = np.array([[-2.0, 0.0, 0.5, 3.0]], dtype=np.float32)
RELU, SIX, SIGN = Activation("bounds"), Activation("bounds", 6.0), Activation("sign")


@pytest.mark.parametrize(
    ("kind", "values", "passes", "form"),
    [
        (LINEAR, [-2, 0, 0.5, 3], [1, 1, 1, 1], IntFormat(8, True)),
        (Activation("linear", 2.0), [-2, 0, 0.5, 2], [1, 1, 1, 0], IntFormat(8, True)),
        (RELU, [0, 0, 0.5, 3], [0, 0, 1, 1], IntFormat(8, False)),
        (Activation("bounds", 1.0), [0, 0, 0.5, 1], [0, 0, 1, 0], IntFormat(8, False)),
        (Activation("linear", 2.0, -1.0), [-1, 0, 0.5, 2], [0, 1, 1, 0], IntFormat(8, True)),
        (SIGN, [-1, 1, 1, 1], [1, 1, 1, 1], IntFormat(1, True)),
    ],
)
def test_values_slopes_and_formats(kind, values, passes, form):
    found = kind.compute(Z)
    assert found.dtype == np.float32
    assert found[0].tolist() == values
    assert kind.passes(Z)[0].tolist() == [bool(p) for p in passes]
    assert kind.format(8) == form
    assert kind.format(8, signed=False).signed == kind.binary
    assert kind.largest_scale(IntFormat(8, False)) == kind.high / 255


def test_two_in_a_row_are_one_where_there_is_one():
    assert RELU.then(SIX) == SIX
    assert SIX.then(Activation("bounds", 9.0)) == SIX
    assert LINEAR.then(SIX) == SIX
    assert RELU.then(LINEAR) == RELU
    assert Activation(high=2.0).then(RELU) == Activation("bounds", 2.0)
    both = Activation("linear", 2.0, -3.0)
    assert both.then(Activation(low=-1.0)) == Activation("linear", 2.0, -1.0)
    assert both.then(SIX) == Activation("bounds", 2.0)
    assert RELU.is_relu
    assert not SIX.is_relu


def test_nodes_say_which_they_are():
    fields = ("n", ("x",), "y", (3,))
    assert activation_of(Relu(*fields)) == RELU
    assert activation_of(Clip(*fields, 0.0, 6.0)) == SIX
    assert activation_of(Sign(*fields)) == SIGN
    assert activation_of(MaxPool(*fields, (1, 1, 3), (1, 1))) is None
    assert activation_of(Clip(*fields, -1.0, 6.0)) == Activation("linear", 6.0, -1.0)
    for bounds in ((0.5, 6.0), (-2.0, -1.0), (-1.0, 0.0)):
        with pytest.raises(InputError, match="Layer 'n' must clip from 0 or less upwards"):
            activation_of(Clip(*fields, *bounds))


@pytest.mark.parametrize(
    ("ends", "scale", "low", "high"),
    [
        ((1.0, -1.0), 1 / 127, -127, 127),
        ((3.0, -1.0), 3 / 127, -42, 127),
        ((0.25, -2.0), 2 / 128, -128, 16),
        ((np.inf, -0.5), 0.1, -5, 127),
        ((6.0, -np.inf), 0.1, -128, 60),
        ((1.0, -1.0), 1 / 1000, -128, 127),  # the data ends before the bounds
    ],
)
def test_bounds_around_0_are_what_the_format_saturates_at(ends, scale, low, high):
    kind, width = Activation("linear", *ends), IntFormat(8, True)
    assert scale <= kind.largest_scale(width) * (1 + 1e-12)
    assert np.isinf(kind.largest_scale(width)) == (not np.isfinite(ends).all())
    found = kind.within(width, scale)
    assert (found.min, found.max) == (low, high)
    assert found.bounded == ((low, high) != (-128, 127))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("cubic",), "must be linear, bounds, sign, not 'cubic'"),
        (("bounds", 0.0), "of kind 'bounds' must not end at 0"),
        (("sign", 1.0), "of kind 'sign' must not end at 1"),
        (("linear", 1.0, 0.0), "of kind 'linear' must not begin at 0"),
        (("bounds", 1.0, -1.0), "of kind 'bounds' must not begin at -1"),
    ],
)
def test_an_unknown_activation_is_refused_by_name(fields, text):
    with pytest.raises(InputError, match=text):
        Activation(*fields)
