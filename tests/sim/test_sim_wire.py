"""Activations as bit patterns: there and back for every format and number of frames."""

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat
from sim.agents.wire import from_wire, pack_frames, pack_words, to_wire, unpack_frames, unpack_words
from sim.result import interval_of

FORMATS = [IntFormat(b, s) for b in (1, 2, 5, 8, 13, 16) for s in (False, True) if s or b > 1]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("vector", [1, 2, 3, 5, 16])
def test_frames_come_back(form, vector):
    rng = np.random.default_rng(form.bits + vector)
    x = form.clamp(rng.integers(form.min, form.max + 1, size=(7, 4)))
    words = pack_words(x, form, vector)
    payloads = pack_frames(x, form, vector)
    batches = -(-7 // vector)
    assert words.shape == (4 * batches, -(-form.bits * vector // 32))
    assert max(payloads) < 1 << (form.bits * vector)
    for back in (unpack_words(words, form, vector, 4), unpack_frames(payloads, form, vector, 4)):
        assert np.array_equal(back[:7], x)
        assert np.array_equal(back[7:], np.repeat(x[-1:], len(back) - 7, axis=0))


def test_bit_patterns():
    assert to_wire(np.array([-1, 1]), IntFormat(1, True)).tolist() == [1, 0]
    assert to_wire(np.array([-2, 127]), IntFormat(8, True)).tolist() == [254, 127]
    assert from_wire(np.array([254, 127]), IntFormat(8, True)).tolist() == [-2, 127]
    assert from_wire(np.array([254]), IntFormat(8, False)).tolist() == [254]
    assert pack_frames(np.array([[1, 2], [3, 4]]), IntFormat(8, False), 2) == [0x301, 0x402]


def test_an_unfinished_batch_is_left_out():
    form = IntFormat(8, False)
    assert unpack_frames([1, 2, 3, 4, 5], form, 1, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("steps", "interval"),
    [
        ([9, 5, 5, 5, 5, 5, 5], 5),
        ([9, 1, 4, 1, 4, 1, 4], 3),
        ([1, 4, 1, 4, 1, 5], None),
        ([5, 5, 5, 5, 5], None),
        ([7, 1, 1, 4, 1, 1, 4], 2),
        ([], None),
    ],
)
def test_interval_is_the_mean_of_a_steady_pattern(steps, interval):
    assert interval_of([0, *np.cumsum(steps).tolist()]) == interval
