"""A code from outside the packages, file 1 of 2: its words, and the maps to and from weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pvq_hw.engine.pulse_code import CODES, Code, pulse_digits
from pvq_hw.engine.schedule import Schedule
from pvq_hw.errors import InputError


@CODES.kind
@dataclass(frozen=True)
class AbsoluteCode(Code):
    """Lane codes name the address of a pulse, wherever the one before was; all ones name none."""

    kind: ClassVar[str] = "absolute"

    @property
    def idle(self) -> int:
        """The address that places no pulse."""
        return (1 << self.gap_bits) - 1

    @classmethod
    def fitting(cls, y: np.ndarray, lanes: int, groups: int = 1, shift_bits: int = 0) -> Self:
        return cls(lanes, (-(-y.shape[1] // lanes)).bit_length(), shift_bits)

    def places(self, gap: np.ndarray) -> np.ndarray:
        return gap != self.idle

    def encode(
        self, y: np.ndarray, groups: int = 1, min_slots: int = 1, slots: int = 0
    ) -> Schedule:
        if self.bank_depth(y.shape[1]) > self.idle:
            raise InputError(f"Addresses must have more than {self.gap_bits} bits")
        words: list[int] = []
        row_slots, pulses, width = [], 0, y.shape[1] // groups
        count = len(y) * groups
        for index, group in enumerate(y.reshape(count, width)):
            first = len(row_slots) % groups * width
            banks: list[list[int]] = [[] for _ in range(self.lanes)]
            for n in np.flatnonzero(group):
                address, lane = divmod(first + int(n), self.lanes)
                for sign, shift in pulse_digits(int(group[n]), self.shift_bits):
                    banks[lane].append(
                        address | (sign < 0) << self.gap_bits | shift << (self.gap_bits + 1)
                    )
            own = max(min_slots, *map(len, banks), slots - len(words) if index == count - 1 else 0)
            pulses += sum(map(len, banks))
            for slot in range(own):
                codes = [bank[slot] if slot < len(bank) else self.idle for bank in banks]
                word = sum(code << lane * self.lane_bits for lane, code in enumerate(codes))
                words.append(word | (slot == own - 1) << (self.word_bits - 1))
            row_slots.append(own)
        bits = len(words) * self.word_bits
        return Schedule(tuple(words), tuple(row_slots), pulses, bits, self.word_bits, self.lanes)

    def decode(self, words: Sequence[int], shape: tuple[int, int], groups: int = 1) -> np.ndarray:
        address, sign, shift, last = self.fields(words)
        slot, lane = np.nonzero(address != self.idle)
        row = (np.cumsum(last) - last)[slot] // groups
        y = np.zeros(shape, dtype=np.int64)
        value = (1 - 2 * sign[slot, lane]) << shift[slot, lane]
        np.add.at(y, (row, address[slot, lane] * self.lanes + lane), value)
        return y
