"""Memories of two halves, of which one is written while the other is read."""

from typing import TYPE_CHECKING

from pvq_hw.arith.formats import IntFormat

__all__ = ["Halves"]


class Halves:
    """What takes V results side by side and gives them one after the other, out of two halves of
    a memory and through a queue.

    A specification that is one has the fields ``x`` and ``memory`` (``"logic"`` or ``"block"``).
    """

    if TYPE_CHECKING:  # fields

        @property
        def x(self) -> IntFormat:
            """Format of the results."""

        @property
        def memory(self) -> str:
            """What the memory is made of."""

        @property
        def side(self) -> int:
            """V."""

        @property
        def words(self) -> int:
            """Words of a half."""

    @property
    def width(self) -> int:
        """Bits of a word: V results."""
        return self.side * self.x.bits

    @property
    def depth(self) -> int:
        """Words of the memory: the second half begins at a power of two."""
        return (1 << max(1, (self.words - 1).bit_length())) + self.words

    @property
    def latency(self) -> int:
        """Cycles of a read."""
        return 1 if self.memory == "logic" else 2

    @property
    def delay(self) -> int:
        """Cycles from a read to the transfer, the output always ready."""
        return self.latency + 3
