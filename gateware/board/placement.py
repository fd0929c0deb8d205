"""What place and route did, for people: the slowest path, and which unit lies where."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["floorplan", "owner", "slowest_path"]

_LINK = "link"  # the serial line, the reset and the clock
_MOST = 9  # cells of a tile that are told apart


def owner(cell: str) -> str:
    """The unit of the accelerator that a cell of the board's top belongs to, by its name."""
    parts = cell.split(".")
    if "accelerator" in parts[:-1]:
        return parts[parts.index("accelerator") + 1].partition("_SB_")[0]
    return _LINK


def slowest_path(placed: Mapping[str, Any]) -> dict[str, Any] | None:
    """The path that bounds the clock, from nextpnr's report (``--report``): ``from`` and ``to``,
    the units that it begins and ends in; ``cells`` that it passes, ``logic_ns`` and ``routing_ns``.
    None where there is no path from clock to clock."""
    paths = [
        path["path"]
        for path in placed.get("critical_paths", ())
        if path["path"] and "<async>" not in (path["from"], path["to"])
    ]
    if not paths:
        return None
    steps = max(paths, key=lambda steps: sum(step["delay"] for step in steps))
    routing = sum(step["delay"] for step in steps if step["type"] == "routing")
    return {
        "from": owner(steps[0]["from"]["cell"]),
        "to": owner(steps[-1]["to"]["cell"]),
        "cells": sum(step["type"] == "logic" for step in steps),
        "logic_ns": round(sum(step["delay"] for step in steps) - routing, 2),
        "routing_ns": round(routing, 2),
    }


def floorplan(routed: Path) -> dict[str, Any]:
    """The unit that has most cells of each tile, in the design that nextpnr wrote (``--write``).

    Gives ``owners``, by their number of cells, and ``tiles``: a line for each row, the one
    of y = 0 last, with every column's owner by its number and how many cells the tile holds, 9 at
    most: ``"2:7"``, or ``"-"`` of an empty one.
    """
    tiles: defaultdict[tuple[int, int], Counter[str]] = defaultdict(Counter)
    document = json.loads(routed.read_text(encoding="utf-8"))
    for module in document["modules"].values():
        for name, cell in module["cells"].items():
            place = re.match(r"X(\d+)/Y(\d+)/", cell["attributes"].get("NEXTPNR_BEL", ""))
            if place:
                tiles[int(place[1]), int(place[2])][owner(name)] += 1
    totals: Counter[str] = sum(tiles.values(), Counter())
    owners = [name for name, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]
    width, height = (1 + max((place[axis] for place in tiles), default=-1) for axis in (0, 1))

    def shown(x: int, y: int) -> str:
        found = tiles.get((x, y))
        if not found:
            return ""
        first = min(found, key=lambda name: (-found[name], name))
        return f"{owners.index(first)}:{min(_MOST, found.total())}"

    rows = [" ".join(shown(x, y) or "-" for x in range(width)) for y in reversed(range(height))]
    return {"owners": owners, "tiles": rows}
