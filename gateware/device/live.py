"""The wires on which a loader reaches block RAMs that are loaded while a board runs."""

from functools import reduce
from operator import or_

from amaranth.hdl import Signal, Value

from pvq_hw.engine.live_image import LiveLayout

__all__ = ["LiveBus"]

_WORD_BITS = 14  # of a block's address


class LiveBus:
    """One loader, many memories, which reach it by name wherever in the circuit they are.

    With one bank the loader has the memories while ``load`` is high, and nothing else may read
    them. With two, it always has the bank that is not in service.

    Parameters
    ----------
    layout : LiveLayout
    banks : int
        1, or 2: sets of memories.
    told : tuple of int
        Contents of the memory that describes the board.

    Attributes
    ----------
    load, bank : Signal
        ``bank`` is the one in service.
    w_en, addr, w_data : Signal
        A block's number above the 14 bits of the word in it. ``addr`` is steady for 3 cycles
        before a write, and until ``answer`` is that word, 6 cycles later.
    """

    def __init__(self, layout: LiveLayout, banks: int, told: tuple[int, ...]) -> None:
        self.layout, self.banks, self.told = layout, banks, told
        self.load, self.bank = Signal(name="live_load"), Signal(name="live_bank")
        self.w_en = Signal(name="live_w_en")
        self.addr = Signal(_WORD_BITS + layout.block_bits, name="live_addr")
        self.w_data = Signal(layout.word_bits, name="live_w_data")
        self._answers = {
            memory.name: Signal(layout.word_bits, name=f"live_{memory.name}", reset_less=True)
            for memory in layout.memories
        }

    @property
    def word(self) -> Value:
        """The number of the word in its block."""
        return self.addr[:_WORD_BITS]

    def chosen(self, number: int) -> Value:
        """Whether the loader is at that block."""
        return self.addr[_WORD_BITS:] == number

    def of(self, memory: str) -> Signal:
        """The register with a memory's answer: 0 unless the loader is at one of its blocks."""
        return self._answers[memory]

    @property
    def answer(self) -> Value:
        """The word at ``addr``."""
        return reduce(or_, self._answers.values())
