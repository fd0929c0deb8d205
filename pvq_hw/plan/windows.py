"""How many windows of a map a convolution takes side by side, and how long that takes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.map_order import map_order
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry

__all__ = ["check_side", "loaded_cycles", "map_cycles", "sides", "with_side", "with_sides"]

_MOST_SIDES = 16
_LOAD = 9  # cycles from a free half of the banks to a window in it, besides its words
_MOVE = 3  # cycles from the last result of V windows in a half to the first one that leaves


def check_side(name: str, geometry: Geometry | None, kind: str, side: int) -> None:
    """Raises InputError, with what the layer lacks, unless it can take so many windows at once.

    Parameters
    ----------
    name : str
    geometry : Geometry, optional
        None of a dense layer.
    kind : str
        What computes it: ``"pulses"``, or something else that takes one window at a time.
    side : int
    """
    where = f"Layer {name!r} must take one window at a time, not {side}"
    if side > 1 and geometry is None:
        raise InputError(f"{where}: it is dense")
    if side > 1 and kind != "pulses":
        raise InputError(f"{where}: it has {kind}")
    most = min(_MOST_SIDES, geometry.output_size[1] if geometry else 1)
    if not 1 <= side <= most:
        raise InputError(f"Layer {name!r}: windows side by side must be 1 to {most}, not {side}")


def sides(geometry: Geometry, wanted: int | None) -> list[int]:
    """V that are worth a try: the one that is asked for, as far as a row of the map has windows, or
    the least for every number of groups that a row can be taken in."""
    columns = geometry.output_size[1]
    if wanted is not None:
        return [min(wanted, columns)]
    found = sorted({-(-columns // groups) for groups in range(1, columns + 1)})
    return [v for v in found if v <= _MOST_SIDES]


def with_side(spec: CoreBase, geometry: Geometry, side: int) -> CoreBase:
    """The core with V windows side by side."""
    columns = geometry.output_size[1] if side > 1 else 0
    return replace(spec, frames=side, row_windows=columns)


def with_sides(
    spec: CoreBase, geometry: Geometry | None, wanted: int | None, width: int | None = None
) -> Iterator[CoreBase]:
    """The core as it is, or with every number of windows that is worth a try; more of them only
    while its words, rather than its results, are what takes long. With more results than cycles
    they leave as many a transfer as it takes, or ``width``; and one too where that is free."""
    if geometry is None or not spec.takes_windows:
        if width in (None, 1):
            yield spec
        return
    for side in sides(geometry, wanted):
        wide = with_side(spec, geometry, side)
        if side == 1:
            if width in (None, 1):
                yield wide
            continue
        least = -(-side * spec.rows // spec.words) if width is None else width
        if width is None:
            least = next(
                w for w in range(min(least, spec.rows), spec.rows + 1) if spec.rows % w == 0
            )
            if least > 1:
                yield wide
        yield replace(wide, out_width=least)
        if side * spec.rows >= spec.words * (width or spec.rows):
            break


def map_cycles(spec: CoreBase, geometry: Geometry) -> int:
    """About the cycles that a convolution's core takes for a map.

    Of the two halves of the banks one is loaded while the other is read. Results under way wait for
    places: no more of them than credits.
    """
    rows, columns = geometry.output_size
    load, groups = _loads(geometry, spec.x, spec.lanes, spec.frames)
    places = -(-spec.rows * (spec.flight + 1) // spec.credits)
    each = max(spec.words, (spec.words + load + _LOAD) // 2, places, load)
    return rows * max(groups * each, _row_cycles(spec, columns))


def _row_cycles(spec: CoreBase, columns: int) -> int:
    """About the cycles in which the results of a row of windows leave.

    V windows side by side leave from one of two halves of a memory while the next V are written
    into the other, which waits until it is empty. The results of as many rows as there are credits
    wait for that moment; the others are computed after it. Where V windows take less time to leave
    than these to come, as the last few of a row of the map may, the output pauses.
    """
    order = map_order(spec)
    if order is None:
        return columns * spec.rows
    behind = max(0, spec.rows - spec.credits)
    written = spec.rows + _MOVE
    if behind:
        written = max(written, spec.flight + behind * spec.words // spec.rows)
    *whole, last = (count * order.words for count in order.counts)
    if not whole:
        return last + max(0, written - last) // 2
    pauses = max(0, written - whole[0]) * len(whole) // 2 + max(0, written - last)
    return sum(whole) + last + pauses


@lru_cache(maxsize=8192)
def loaded_cycles(geometry: Geometry, x: IntFormat, lanes: int, wanted: int | None) -> int:
    """The fewest cycles in which all windows of a map can be loaded."""
    rows = geometry.output_size[0]
    loads = (_loads(geometry, x, lanes, v) for v in sides(geometry, wanted))
    return min(rows * groups * words for words, groups in loads)


@lru_cache(maxsize=8192)
def _loads(geometry: Geometry, x: IntFormat, lanes: int, side: int) -> tuple[int, int]:
    """Words that are read for V windows, and how often in a row of positions."""
    window = make_window(geometry, x, lanes, side=side)
    return window.segment.unit_words, window.groups
