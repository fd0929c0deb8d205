"""Pulse codes: exact both ways, escapes, shifts, groups, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvq_hw.engine.pulse_code import PulseCode, choose_gap_bits, pulse_digits
from pvq_hw.errors import InputError


def _weights(seed: int, shape: tuple[int, int], density: float = 0.3, largest: int = 9):
    rng = np.random.default_rng(seed)
    return rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < density)


@pytest.mark.parametrize("lanes", [1, 3, 8, 40])
@pytest.mark.parametrize("gap_bits", [1, 2, 5])
@pytest.mark.parametrize("shift_bits", [0, 2, 3])
@pytest.mark.parametrize("groups", [1, 4])
def test_decode_inverts_encode(lanes, gap_bits, shift_bits, groups):
    y = _weights(lanes, (11, 40))
    y[4] = 0
    code = PulseCode(lanes, gap_bits, shift_bits)
    schedule = code.encode(y, groups)
    assert np.array_equal(code.decode(schedule.words, y.shape, groups), y)
    assert len(schedule.row_slots) == 11 * groups
    assert sum(schedule.row_slots) == schedule.slots == len(schedule.words)
    assert schedule.code_bits == schedule.slots * (lanes * (gap_bits + 1 + shift_bits) + 1)


def test_word_layout_is_as_documented():
    # Columns 0..7 over 2 lanes: lane 0 has +1 at address 1, lane 1 has -1 at addresses 0 and 3.
    y = np.array([[0, -1, 1, 0, 0, 0, 0, -1]])
    words = PulseCode(2, 2).encode(y).words
    # lane code = gap | sign << 2; last is bit 6.
    assert words == (
        1 | (0 | 1 << 2) << 3,
        3 | (3 | 0 << 2) << 3 | 0 << 6,
        3 | (0 | 1 << 2) << 3 | 1 << 6,
    )


def test_row_without_pulses_takes_one_idle_word():
    schedule = PulseCode(3, 2).encode(np.zeros((2, 9), dtype=int))
    assert schedule.row_slots == (1, 1)
    assert schedule.words == (0b1_011_011_011,) * 2
    assert schedule.utilization == 0


def test_min_slots_pads_every_group():
    y = _weights(3, (6, 24))
    assert min(PulseCode(8, 3).encode(y, 2, min_slots=7).row_slots) == 7


def test_balanced_pulses_within_the_gap_use_every_slot():
    y = np.zeros((4, 64), dtype=int)
    y[:, ::4] = np.random.default_rng(1).choice([-1, 1], (4, 16))
    y[:, 1::4] = 1
    y[:, 2::4] = -1
    y[:, 3::4] = 1
    assert PulseCode(4, 2).encode(y).utilization == 1


@given(st.integers(-300, 300), st.integers(0, 3))
def test_digits_sum_to_the_value(value, shift_bits):
    digits = pulse_digits(value, shift_bits)
    assert sum(sign << shift for sign, shift in digits) == value
    assert all(abs(sign) == 1 and 0 <= shift < 1 << shift_bits for sign, shift in digits)


def test_digits_are_the_fewest():
    assert pulse_digits(7, 2) == ((1, 3), (-1, 0))
    assert pulse_digits(-7, 2) == ((-1, 3), (1, 0))
    assert pulse_digits(3, 0) == ((1, 0),) * 3
    assert len(pulse_digits(11, 2)) == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 6), st.integers(1, 20), st.integers(1, 6))
def test_any_weights_survive(seed, rows, n, lanes):
    y = _weights(seed, (rows, n), density=0.5, largest=3)
    code = PulseCode(lanes, 1 + seed % 4, seed % 3)
    assert np.array_equal(code.decode(code.encode(y).words, y.shape), y)


def test_chosen_gap_costs_no_slots_and_few_bits():
    y = np.zeros((8, 256), dtype=int)
    y[:, ::5] = 1
    bits = choose_gap_bits(y, 4)
    slots = {b: PulseCode(4, b).encode(y).slots for b in range(1, 9)}
    assert slots[bits] <= 1.01 * min(slots.values())
    assert all(slots[b] > 1.01 * min(slots.values()) for b in range(1, bits))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:-1], "must hold"),
        (lambda w: (*w, w[-1]), "must hold"),
        (lambda w: (-1, *w[1:]), "must have 25 bits"),
        (lambda w: (1 << 25, *w[1:]), "must have 25 bits"),
        (lambda w: (0xFFFFFF, *w[1:]), "sign and shift of 0"),
        (lambda w: (0x666666, *(0x666666 for _ in range(9)), *w), "stay within"),
    ],
)
def test_broken_words_are_refused(change, message):
    code = PulseCode(6, 3)
    words = code.encode(_weights(5, (4, 30))).words
    with pytest.raises(InputError, match=message):
        code.decode(change(words), (4, 30))


@pytest.mark.parametrize("bad", [(0, 3, 0), (4, 0, 0), (4, 17, 0), (4, 3, 4), (1025, 3, 0)])
def test_bad_formats_are_refused(bad):
    with pytest.raises(InputError):
        PulseCode(*bad)
    assert PulseCode(1024, 16, 3).lane_bits == 20


def test_every_flipped_bit_is_seen():
    code = PulseCode(3, 2)
    y = _weights(9, (3, 12), largest=1)
    words = code.encode(y).words
    for index in range(len(words)):
        for bit in range(code.word_bits):
            changed = [w ^ (1 << bit) if i == index else w for i, w in enumerate(words)]
            try:
                same = np.array_equal(code.decode(changed, y.shape), y)
            except InputError:
                continue
            assert not same or list(code.encode(y).words) != changed


def test_gaps_of_very_wide_rows_have_escapes():
    """65,536 columns and more: the gap stops at 16 bits."""
    y = np.zeros((2, 200_000), dtype=np.int64)
    y[0, [3, 70_000, 199_999]] = 1, -1, 2
    y[1, 150_000] = 3
    bits = choose_gap_bits(y, 1)
    assert 1 <= bits <= 16
    code = PulseCode(1, bits)
    np.testing.assert_array_equal(code.decode(code.encode(y).words, y.shape), y)
