"""Code words of the pulses: P lanes side by side, each walking its own bank by gaps.

Column n of a layer lies in bank ``n mod P`` at address ``n div P``. One *slot word* is what all
lanes do in one cycle. From the least significant bit: P lane codes, lane 0 first, then one bit
``last`` that ends a group (a row has one group by default). A lane code is, from the least
significant bit, ``gap`` (``gap_bits``), ``sign`` (1: negative) and ``shift`` (``shift_bits``).

At the start of a group every lane's address is the group's base, ``(g * N / G) div P``, which is
0 for the first group. A gap below ``2**gap_bits - 1`` adds to the address and places a pulse of
``+-2**shift`` there; the gap ``2**gap_bits - 1`` is the escape: it adds as much and places none.
An escape also is the idle code at the end of a group; its sign and shift are 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from pvq_hw.documents import Document
from pvq_hw.engine.schedule import Schedule
from pvq_hw.errors import InputError
from pvq_hw.registry import Registry

__all__ = ["CODES", "Code", "PulseCode", "choose_gap_bits", "choose_shift_bits", "pulse_digits"]

IntArray = npt.NDArray[np.int64]


@lru_cache(maxsize=4096)
def pulse_digits(value: int, shift_bits: int) -> tuple[tuple[int, int], ...]:
    """The fewest signed powers of two that sum to ``value``, as (sign, shift), shifts falling.

    Shifts are at most ``2**shift_bits - 1``. 7 with two shift bits is ``8 - 1``:
    ``((1, 3), (-1, 0))``; without shifts it is seven unit pulses.
    """
    top = (1 << shift_bits) - 1

    @cache
    def digits(v: int, shift: int) -> tuple[tuple[int, int], ...]:
        if v == 0:
            return ()
        if shift == top:
            return ((1 if v > 0 else -1, shift),) * abs(v)
        if v % 2 == 0:
            return digits(v // 2, shift + 1)
        low = digits((v - 1) // 2, shift + 1)
        high = digits((v + 1) // 2, shift + 1)
        return (*high, (-1, shift)) if len(high) < len(low) else (*low, (1, shift))

    return digits(value, 0)


@dataclass(frozen=True)
class Code(Document, ABC):
    """A format of the slot words: P lane codes of ``gap_bits`` that say where a pulse is, a sign
    and a shift, then ``last``. What the first means is the kind's; a core's decoder makes an
    address in the lane's bank of it, one a cycle.

    Parameters
    ----------
    lanes : int
        P, at least 1.
    gap_bits : int
        1 to 16.
    shift_bits : int
        0 for unit pulses; up to 3.
    """

    kind: ClassVar[str] = ""
    usual: ClassVar[str] = "pulse"

    lanes: int
    gap_bits: int
    shift_bits: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= 1024:
            raise InputError(f"Lanes must be 1 to 1024, not {self.lanes}")
        if not 1 <= self.gap_bits <= 16:
            raise InputError(f"Gap bits must be 1 to 16, not {self.gap_bits}")
        if not 0 <= self.shift_bits <= 3:
            raise InputError(f"Shift bits must be 0 to 3, not {self.shift_bits}")

    @property
    def lane_bits(self) -> int:
        """Bits of a lane code."""
        return self.gap_bits + 1 + self.shift_bits

    @property
    def word_bits(self) -> int:
        """Bits of a slot word."""
        return self.lanes * self.lane_bits + 1

    @property
    def max_shift(self) -> int:
        """Largest shift."""
        return (1 << self.shift_bits) - 1

    @classmethod
    @abstractmethod
    def fitting(cls, y: IntArray, lanes: int, groups: int = 1, shift_bits: int = 0) -> Self:
        """The code whose ``gap_bits`` suit the weights best."""

    @abstractmethod
    def encode(self, y: IntArray, groups: int = 1, min_slots: int = 1, slots: int = 0) -> Schedule:
        """Codes of the integer weights ``y`` (rows, N), each group in at least ``min_slots``, and
        the last one in as many more as there are to be of all (``slots``), if that is more."""

    @abstractmethod
    def decode(self, words: Sequence[int], shape: tuple[int, int], groups: int = 1) -> IntArray:
        """The weights (rows, N) of the words; raises InputError on words nothing encodes to."""

    @abstractmethod
    def places(self, gap: IntArray) -> npt.NDArray[np.bool_]:
        """Which lane codes place a pulse, by what they say first."""

    def placed(self, words: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which lane codes (slots, P) place a pulse."""
        return self.places(self.fields(words)[0])

    def bank_depth(self, n: int) -> int:
        """Addresses of a bank for ``n`` columns."""
        return -(-n // self.lanes)

    def bases(self, n: int, groups: int) -> tuple[int, ...]:
        """Every group's first address."""
        return tuple((g * (n // groups)) // self.lanes for g in range(groups))

    def fields(self, words: Sequence[int]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Splits words into gap, sign, shift (slots, P) and last (slots,)."""
        size = -(-self.word_bits // 8)
        if min(words, default=0) < 0 or max(words, default=0) >> self.word_bits:
            raise InputError(f"Code words must have {self.word_bits} bits")
        raw = b"".join(int(w).to_bytes(size, "little") for w in words)
        octets = np.frombuffer(raw, dtype=np.uint8).reshape(len(words), size)
        bits = np.unpackbits(octets, axis=1, count=self.word_bits, bitorder="little")
        lanes = bits[:, :-1].reshape(len(words), self.lanes, self.lane_bits).astype(np.int64)
        g = self.gap_bits
        gap = lanes[:, :, :g] @ (1 << np.arange(g))
        shift = lanes[:, :, g + 1 :] @ (1 << np.arange(self.shift_bits))
        return gap, lanes[:, :, g], shift.astype(np.int64), bits[:, -1].astype(np.int64)


CODES: Registry[Code] = Registry("code")
"""Every format of slot words. Its face: ``decoder`` (`gateware.core.decoder`); `sim.reference` has
another by the same names."""


@CODES.kind
@dataclass(frozen=True)
class PulseCode(Code):
    """Lane codes walk their banks by gaps, of pulses of 1 or of powers of two."""

    kind: ClassVar[str] = "pulse"

    @property
    def escape(self) -> int:
        """The gap that places no pulse."""
        return (1 << self.gap_bits) - 1

    @property
    def idle(self) -> int:
        """A word that places no pulse and ends no group."""
        return sum(self.escape << lane * self.lane_bits for lane in range(self.lanes))

    @property
    def max_gap(self) -> int:
        """Largest gap that needs no escape."""
        return self.escape - 1

    @classmethod
    def fitting(cls, y: IntArray, lanes: int, groups: int = 1, shift_bits: int = 0) -> Self:
        """The code whose ``gap_bits`` suit the weights best, see `choose_gap_bits`."""
        gap_bits = choose_gap_bits(y, lanes, groups=groups, shift_bits=shift_bits)
        return cls(lanes, gap_bits, shift_bits)

    def places(self, gap: IntArray) -> npt.NDArray[np.bool_]:
        """Which lane codes place a pulse: all but escapes."""
        return np.asarray(gap != self.escape)

    def encode(self, y: IntArray, groups: int = 1, min_slots: int = 1, slots: int = 0) -> Schedule:
        """See `Code.encode`."""
        pulses = _pulses(self, y, groups)
        row_slots = pulses.slots(self, min_slots)
        row_slots[-1] += max(0, slots - int(row_slots.sum()))
        return _assemble(self, pulses, row_slots)

    def decode(self, words: Sequence[int], shape: tuple[int, int], groups: int = 1) -> IntArray:
        """The weights (rows, N) of the words; raises InputError on words nothing encodes to."""
        rows, n = shape
        gap, sign, shift, last = self.fields(words)
        ends = np.flatnonzero(last)
        if len(ends) != rows * groups or (len(ends) and ends[-1] != len(words) - 1):
            raise InputError(f"Codes must hold {rows * groups} groups, not {len(ends)}")
        row_group = np.cumsum(last) - last
        bases = np.array(self.bases(n, groups), dtype=np.int64)
        walked = np.cumsum(gap, axis=0)
        starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
        before = walked[starts] - gap[starts] if len(ends) else walked
        address = walked - before[row_group] + bases[row_group % groups][:, None]
        slot, lane = np.nonzero(gap != self.escape)
        if np.any((sign | shift)[gap == self.escape]):
            raise InputError("Codes must have a sign and shift of 0 in idle lanes")
        column = address[slot, lane] * self.lanes + lane
        group = row_group[slot] % groups
        width = n // groups
        if np.any((column >= (group + 1) * width) | (column < group * width)):
            raise InputError("Codes must stay within the columns of their group")
        y = np.zeros((rows, n), dtype=np.int64)
        value = (1 - 2 * sign[slot, lane]) << shift[slot, lane]
        np.add.at(y, (row_group[slot] // groups, column), value)
        return y


class _Pulses:
    """The pulses of a layer in the order of their codes: by group, lane, address, shift falling.

    ``key`` numbers (group of row, lane) pairs; ``gap`` is the distance to the pulse before in the
    same pair, or to the group's base.
    """

    def __init__(self, code: PulseCode, y: IntArray, groups: int) -> None:
        if y.ndim != 2 or y.shape[1] < 1 or groups < 1 or y.shape[1] % groups:
            raise InputError(f"Weights must be (rows, columns in {groups} groups), not {y.shape}")
        self.count = y.shape[0] * groups
        row, column = np.nonzero(y)
        value = y[row, column]
        group = column // (y.shape[1] // groups)
        lane, address = column % code.lanes, column // code.lanes
        key = (row * groups + group) * code.lanes + lane
        if code.shift_bits:
            which, inverse = np.unique(value, return_inverse=True)
            digits = [pulse_digits(int(v), code.shift_bits) for v in which]
            sizes = np.array([len(d) for d in digits], dtype=np.int64)
            counts, starts = sizes[inverse], (np.cumsum(sizes) - sizes)[inverse]
            ends = np.cumsum(counts)
            each = np.arange(counts.sum()) + np.repeat(starts - (ends - counts), counts)
            flat = np.array([d for own in digits for d in own], dtype=np.int64).reshape(-1, 2)[each]
            sign, shift = (flat[:, 0] < 0).astype(np.int64), flat[:, 1]
        else:
            counts = np.abs(value)
            sign = np.repeat((value < 0).astype(np.int64), counts)
            shift = np.zeros(len(sign), dtype=np.int64)
        at = np.repeat(np.arange(len(value)), counts)
        order = np.argsort(key[at], kind="stable")
        at = at[order]
        self.key, self.sign, self.shift = key[at], sign[order], shift[order]
        self.lane = self.key % code.lanes
        self.row_group = self.key // code.lanes
        bases = np.array(code.bases(y.shape[1], groups), dtype=np.int64)
        first = np.ones(len(at), dtype=bool)
        first[1:] = self.key[1:] != self.key[:-1]
        self.first = first
        position = address[at]
        before = np.concatenate(([0], position[:-1]))[: len(at)]
        self.gap = position - np.where(first, bases[self.row_group % groups], before)

    def ordinals(self, escape: int) -> IntArray:
        """Every pulse's slot within its group, escapes before it counted."""
        steps = self.gap // escape + 1
        total = np.cumsum(steps)
        starts = np.flatnonzero(self.first)
        offset = (total - steps)[starts]
        runs = np.diff(np.append(starts, len(total)))
        return np.asarray(total - np.repeat(offset, runs) - 1, dtype=np.int64)

    def slots(self, code: PulseCode, min_slots: int) -> IntArray:
        """Words of every group."""
        slots = np.full(self.count, max(1, min_slots), dtype=np.int64)
        np.maximum.at(slots, self.row_group, self.ordinals(code.escape) + 1)
        return slots


def _pulses(code: PulseCode, y: IntArray, groups: int) -> _Pulses:
    """The pulses of weights in the order of their codes."""
    y = np.ascontiguousarray(y, dtype=np.int64)
    # Gaps' widths make no difference, and those that are tried follow one another.
    return _kept_pulses(replace(code, gap_bits=1), y.tobytes(), y.shape, groups)


@lru_cache(maxsize=4)
def _kept_pulses(code: PulseCode, y: bytes, shape: tuple[int, ...], groups: int) -> _Pulses:
    return _Pulses(code, np.frombuffer(y, dtype=np.int64).reshape(shape), groups)


def _assemble(code: PulseCode, pulses: _Pulses, row_slots: IntArray) -> Schedule:
    """Places the lane codes into words."""
    ends = np.cumsum(row_slots)
    slots = int(ends[-1]) if len(ends) else 0
    codes = np.full((slots, code.lanes), code.escape, dtype=np.int64)
    at = (ends - row_slots)[pulses.row_group] + pulses.ordinals(code.escape)
    rest = pulses.gap % code.escape
    codes[at, pulses.lane] = (
        rest | pulses.sign << code.gap_bits | pulses.shift << (code.gap_bits + 1)
    )
    bits = (codes[:, :, None] >> np.arange(code.lane_bits)) & 1
    last = np.zeros((slots, 1), dtype=np.uint8)
    last[ends - 1] = 1
    flat = np.concatenate((bits.reshape(slots, -1).astype(np.uint8), last), axis=1)
    packed = np.packbits(flat, axis=1, bitorder="little")
    raw, size = packed.tobytes(), packed.shape[1]
    return Schedule(
        words=tuple(
            int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)
        ),
        row_slots=tuple(int(s) for s in row_slots),
        pulses=len(pulses.key),
        code_bits=slots * code.word_bits,
        word_bits=code.word_bits,
        lanes=code.lanes,
    )


def choose_gap_bits(
    y: IntArray, lanes: int, *, groups: int = 1, shift_bits: int = 0, tolerance: float = 0.01
) -> int:
    """The gap width with the fewest stored bits among those within ``tolerance`` of fewest slots.

    A wide gap never needs an escape, a narrow one has fewer bits: cycles come first, bits second.
    """
    y = np.asarray(y, dtype=np.int64)
    depth = -(-y.shape[1] // lanes)
    widest = min(16, max(1, depth.bit_length() + 1))  # beyond 16 bits, escapes lengthen gaps
    pulses = _pulses(PulseCode(lanes, widest, shift_bits), y, groups)
    costs = []
    for bits in range(1, widest + 1):
        code = PulseCode(lanes, bits, shift_bits)
        slots = int(pulses.slots(code, 1).sum())
        costs.append((slots, slots * code.word_bits, bits))
    limit = min(c[0] for c in costs) * (1 + tolerance)
    return min((c[1], c[2]) for c in costs if c[0] <= limit)[1]


def choose_shift_bits(y: IntArray, lanes: int, *, groups: int = 1, tolerance: float = 0.01) -> int:
    """The narrowest shift, 1 to 3 bits, whose slots are within ``tolerance`` of the fewest."""
    y = np.asarray(y, dtype=np.int64)
    gap = min(16, max(1, (-(-y.shape[1] // lanes)).bit_length() + 1))
    slots = []
    for bits in (1, 2, 3):
        code = PulseCode(lanes, gap, bits)
        slots.append(int(_pulses(code, y, groups).slots(code, 1).sum()))
    return 1 + next(i for i, count in enumerate(slots) if count <= min(slots) * (1 + tolerance))
