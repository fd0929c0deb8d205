"""Results of V windows side by side, which come row by row, in the order of the map."""

from dataclasses import dataclass

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase

__all__ = ["MapOrder", "map_order"]

_LOGIC_BITS = 2048


@dataclass(frozen=True)
class MapOrder:
    """Gives all rows' results of a window before those of its neighbor.

    Parameters
    ----------
    x : IntFormat
        Of the results.
    rows : int
        M: results of a window.
    side : int
        V: windows that come side by side.
    columns : int
        Windows of a row of the map: of its last ones, those beyond it are dropped.
    memory : str
        ``"logic"`` or ``"block"``; of two times V windows' results, a row's V results a word.
    """

    x: IntFormat
    rows: int
    side: int
    columns: int
    memory: str = "block"

    @property
    def width(self) -> int:
        """Bits of a word of its memory."""
        return self.side * self.x.bits

    @property
    def depth(self) -> int:
        """Words of its memory: two halves, the second from a power of two on."""
        return (1 << max(1, (self.rows - 1).bit_length())) + self.rows

    @property
    def latency(self) -> int:
        """Cycles of a read of its memory."""
        return 1 if self.memory == "logic" else 2

    @property
    def delay(self) -> int:
        """Cycles from a read of its memory to the transfer, the output always ready."""
        return self.latency + 3

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows of every group of V in a row of the map: V, but maybe fewer at last."""
        groups = -(-self.columns // self.side)
        return (*(self.side,) * (groups - 1), self.columns - (groups - 1) * self.side)


def map_order(core: CoreBase) -> MapOrder | None:
    """What stands behind the results of a core of several windows; its memory is logic where it is
    small and the results wait in logic too."""
    if not core.row_windows:
        return None
    order = MapOrder(core.out, core.rows, core.frames, core.row_windows, "logic")
    if core.fifo_memory == "logic" and order.width * order.depth <= _LOGIC_BITS:
        return order
    return MapOrder(core.out, core.rows, core.frames, core.row_windows)
