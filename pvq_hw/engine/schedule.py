"""What an encoder gives: the code words of a layer and what they cost."""

from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Code words of a layer in the order in which they are read, one per cycle.

    Parameters
    ----------
    words : tuple of int
        Slot words, ``word_bits`` wide each; see `pvq_hw.engine.pulse_code.PulseCode`.
    row_slots : tuple of int
        Words of every group of every row, in order (rows x groups entries, each at least 1).
    pulses : int
        Pulses in all words.
    code_bits : int
        Stored bits: ``len(words) * word_bits``, row ends, escapes and padding included.
    word_bits : int
    lanes : int
    """

    words: tuple[int, ...]
    row_slots: tuple[int, ...]
    pulses: int
    code_bits: int
    word_bits: int
    lanes: int

    @property
    def slots(self) -> int:
        """Words, which is cycles per frame of a core that never waits."""
        return len(self.words)

    @property
    def utilization(self) -> float:
        """Pulses / (lanes x slots): the part of the lanes' cycles that does work."""
        return self.pulses / (self.lanes * max(1, self.slots))
