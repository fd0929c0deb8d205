"""Results of V windows side by side, which come row by row, in the order of the map."""

from dataclasses import dataclass, replace

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.halves import Halves

__all__ = ["MapOrder", "map_order"]

_LOGIC_BITS = 2048
_LOGIC_WORDS = 16  # a piece of distributed RAM


@dataclass(frozen=True)
class MapOrder(Halves):
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
    out_width : int
        W: results that leave in a transfer; divides the rows. Every W-th row is in a memory of its
        own.
    """

    x: IntFormat
    rows: int
    side: int
    columns: int
    memory: str = "block"
    out_width: int = 1

    @property
    def words(self) -> int:
        """Transfers of a window's results, which are words of a half."""
        return self.rows // self.out_width

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
    order = MapOrder(core.out, core.rows, core.frames, core.row_windows, "logic", core.out_width)
    bits = order.width * order.depth * order.out_width
    if core.fifo_memory == "logic" and (bits <= _LOGIC_BITS or order.depth <= _LOGIC_WORDS):
        return order
    return replace(order, memory="block")
