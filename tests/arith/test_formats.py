"""Integer formats that saturate within their width."""

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat, requantize
from pvq_hw.errors import InputError


@pytest.mark.parametrize(
    ("low", "high", "bits", "signed", "bounded"),
    [
        (0, 255, 8, False, False),
        (-128, 127, 8, True, False),
        (-127, 127, 8, True, True),
        (-125, 130, 9, True, True),
        (-255, 0, 9, True, True),
        (0, 1, 2, False, True),
        (-7, 8, 5, True, True),
    ],
)
def test_narrowest_format_between_two_bounds(low, high, bits, signed, bounded):
    fmt = IntFormat.between(low, high)
    assert (fmt.min, fmt.max) == (low, high)
    assert (fmt.bits, fmt.signed, fmt.bounded) == (bits, signed, bounded)
    assert IntFormat.from_json(fmt.to_json()) == fmt
    assert fmt.clamp(np.array([-(1 << 20), 1 << 20])).tolist() == [low, high]
    # Streams carry the width: what adds such values up must have room for all of it.
    assert fmt.max_abs == (1 << bits - 1 if signed else (1 << bits) - 1)
    assert requantize(np.array([-9999, 9999]), 1, 0, 1, fmt).tolist() == [low, high]


@pytest.mark.parametrize(("low", "high"), [(-9, 3), (-8, 8), (1, 7), (-3, -1)])
def test_bounds_beyond_the_width_or_without_zero_are_refused(low, high):
    with pytest.raises(InputError, match="must saturate between -8 and 7, around 0"):
        IntFormat(4, True, low, high)
    with pytest.raises(InputError):
        IntFormat(1, True, -1, 1)
