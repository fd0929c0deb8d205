"""The report's pictures as numbers: places, sizes and shares for a template. Draws nothing."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from pvq_hw.engine.units import CoreUnit, Unit
from pvq_hw.network.layer import Layer
from pvq_hw.network.network import Network
from pvq_hw.output.chart import Panel, Scale, panel
from pvq_hw.output.sizes import limit_bits
from pvq_hw.plan.core_layers import unit_names
from pvq_hw.plan.layer import LayerPlan
from pvq_hw.plan.plan import Plan
from pvq_hw.plan.resources import Resources, budget
from pvq_hw.plan.shared import ENGINE
from pvq_hw.plan.unit_resources import unit_resources

__all__ = [
    "choice_chart",
    "code_bars",
    "confusion",
    "diagram",
    "floorplan_shapes",
    "picture_data",
    "resource_bars",
    "resource_keys",
    "schedule_rows",
]

_BARS = 4  # of a histogram on either side of 0
_BOX, _GAP = (208, 62), (22, 26)  # of the diagram, in the drawing's units
_NAMES = {"luts": "LUTs", "brams": "block RAMs", "dsps": "multipliers", "sprams": "SPRAMs"}
_HUES = 6
_TILE = re.compile(r"(\d{1,4}):(\d)")
_LONGEST = 22  # characters of a name in a picture
_CHART = 380, 260  # of the choice's chart, in the drawing's units
_SHOWN = 3  # times the loss asked for, or taken, that the chart shows


# -- what the report's document holds -------------------------------------------------------------


def picture_data(network: Network, plan: Plan) -> dict[str, Any]:
    """JSON values: ``units`` in order, with what each takes of the device and which units it
    reads; ``codes``, of the layers with weights; ``budget``, of the device."""
    titles = dict(zip(unit_names(network.layers), (x.name for x in network.layers), strict=True))
    titles |= {
        unit.name: "shared engine" if spec.name == ENGINE else spec.name.replace("_", " ")
        for unit in plan.graph.units
        for spec in unit.cores
        if spec.shared_by
    }
    planned = {layer.spec.name: layer for layer in plan.layers}
    givers: dict[str, list[str]] = {plan.graph.input: []}
    units: list[dict[str, Any]] = []
    for unit in plan.graph.units:
        reads = [name for wire in unit.inputs for name in givers[wire]]
        givers |= dict.fromkeys(unit.outputs, reads if unit.passes else [unit.name])
        if unit.passes:
            continue
        layer = next((planned[core.name] for core in unit.cores), None)
        taken = unit_resources(unit, plan.target.engine)
        units.append(
            {
                "name": unit.name,
                "title": titles.get(unit.name, unit.name),
                "about": _about(unit, layer),
                "reads": reads,
                "cycles": unit.cycles if layer is None else layer.cycles,
                **_shares(taken if layer is None else taken + layer.resources),
            }
        )
    whole, rest = budget(plan.target), plan.resources
    for found in units:
        rest -= Resources(**{key: found[key] for key in _NAMES})
    return {
        "units": units,
        "others": _shares(rest),
        "budget": _shares(whole),
        "codes": [_codes(layer, plan) for layer in network.layers if layer.weights is not None],
    }


def _shares(taken: Resources) -> dict[str, int]:
    return {key: getattr(taken, key) for key in _NAMES}


def _about(unit: Unit, layer: LayerPlan | None) -> str:
    """A line for people."""
    if layer is None or not isinstance(unit, CoreUnit):
        taken, given = unit.sizes()
        return (
            f"{unit.kind.replace('_', ' ')}, {' and '.join(f'{n:,}' for n in taken)} to {given:,}"
        )
    core = unit.core
    side = f" x {core.output_frames}" if core.output_frames > 1 else ""
    work = "unrolled" if layer.unrolled else f"{core.lanes} lanes{side}"
    where = f", {unit.positions:,} places" if unit.maps else ""
    return f"{core.rows} x {core.n}{where}, {work}"


def _codes(layer: Layer, plan: Plan) -> dict[str, Any]:
    """Counts of the integer weights: of pulses one value a bar, the outer ones and all beyond; of
    8-bit weights as many values each as it takes."""
    y, encoding = np.asarray(layer.weights), getattr(layer, "encoding", "pvq")
    own = [x for x in plan.layers if x.layer == layer.name]  # none on a shared engine
    width = 1
    if encoding == "int8":
        width = max(1, -(-int(np.abs(y).max(initial=0)) // _BARS))
    place = np.clip(np.round(y / width), -_BARS, _BARS).astype(np.int64) + _BARS
    return {
        "layer": layer.name,
        "encoding": encoding,
        "width": width,
        "counts": np.bincount(place.ravel(), minlength=2 * _BARS + 1).tolist(),
        "bits_per_weight": own[0].code_bits / own[0].weights if own else plan.bits_per_weight,
        "limit": 8.0 if encoding == "int8" else limit_bits(y) / y.size,
    }


# -- what the template draws ----------------------------------------------------------------------


def diagram(pictures: Mapping[str, Any]) -> dict[str, Any]:
    """Boxes of the units, each below all that it reads, and lines between them."""
    units = pictures["units"]
    ranks: dict[str, int] = {}
    rows: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for unit in units:
        ranks[unit["name"]] = 1 + max((ranks[name] for name in unit["reads"]), default=-1)
        rows[ranks[unit["name"]]].append(unit)
    (wide, high), (across, down) = _BOX, _GAP
    width = max(len(row) for row in rows.values()) * (wide + across) + 2 * across
    slowest = max((unit["cycles"] for unit in units), default=1) or 1
    boxes, places = [], {}
    for rank, row in rows.items():
        left = (width - len(row) * (wide + across) + across) / 2
        for k, unit in enumerate(row):
            x, y = left + k * (wide + across), rank * (high + down) + down
            places[unit["name"]] = x + wide / 2, y
            boxes.append(
                {
                    "x": x,
                    "y": y,
                    "title": _short(unit["title"]),
                    "about": unit["about"],
                    "takes": _takes(unit),
                    "cycles": f"{unit['cycles']:,} cycles",
                    "share": round(wide * unit["cycles"] / slowest, 1),
                    "slowest": unit["cycles"] == slowest,
                }
            )
    lines = [
        {"from": (places[name][0], places[name][1] + high), "to": places[unit["name"]],
         "middle": places[unit["name"]][1] - down / 2}
        for unit in units for name in unit["reads"]
    ]  # fmt: skip
    lines += [
        {"from": (places[unit["name"]][0], places[unit["name"]][1] - down),
         "to": places[unit["name"]], "middle": places[unit["name"]][1] - down / 2}
        for unit in units if not unit["reads"]
    ]  # fmt: skip
    bottom = max(y for _, y in places.values()) + high + 4
    return {"width": width, "height": bottom, "wide": wide, "high": high,
            "boxes": boxes, "lines": lines}  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\u2026"


def _takes(unit: Mapping[str, Any]) -> str:
    names = zip(_NAMES, ("LUT", "RAM", "DSP", "SPRAM"), strict=True)
    return ", ".join(f"{unit[key]:,} {name}" for key, name in names if unit[key])


def schedule_rows(
    spans: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any]
) -> dict[str, Any]:
    """A strip for each unit, in percent of the cycles shown: while it takes before its first
    result, and while it gives."""
    titles = {unit["name"]: unit["title"] for unit in pictures["units"]}
    last = max((span["end"] for span in spans), default=0) + 1
    rows: dict[str, dict[str, Any]] = {}
    for span in spans:
        row = rows.setdefault(
            span["unit"], {"title": titles.get(span["unit"], span["unit"]), "bars": []}
        )
        start, first, end = span["start"], span["first"], span["end"] + 1
        row["bars"].append(
            {
                "left": round(100 * start / last, 2),
                "wait": round(100 * (first - start) / last, 2),
                "give": round(100 * (end - first) / last, 2),
                "frame": span["frame"],
                "title": f"frame {span['frame'] + 1}: takes from {start:,}, gives {first:,} to "
                f"{end - 1:,}",
            }
        )
    return {"rows": list(rows.values()), "cycles": f"{last:,}"}


def resource_bars(pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each unit takes of every kind of resource, in percent of the budget."""
    bars = []
    for key, name in _NAMES.items():
        whole = pictures["budget"][key]
        if not whole:
            continue
        parts = [
            {"title": f"{unit['title']}: {unit[key]:,}", "hue": k % _HUES,
             "percent": round(100 * unit[key] / whole, 2)}
            for k, unit in enumerate(pictures["units"]) if unit[key] > 0
        ]  # fmt: skip
        used = sum(unit[key] for unit in pictures["units"])
        rest = pictures["others"][key]
        if rest > 0:
            parts.append({"title": f"link and control: {rest:,}",
                          "percent": round(100 * rest / whole, 2), "hue": -1})  # fmt: skip
        if used + rest > 0:
            bars.append({"name": name, "used": f"{used + max(0, rest):,}", "whole": f"{whole:,}",
                         "parts": parts})  # fmt: skip
    return bars


def resource_keys(pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The colors of `resource_bars`."""
    keys = [{"title": u["title"], "hue": k % _HUES} for k, u in enumerate(pictures["units"])
            if any(u[key] for key in _NAMES)]  # fmt: skip
    return [*keys, {"title": "link and control", "hue": -1}]


def code_bars(pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A histogram of the integers of each layer with weights, and stored bits beside the limit."""
    found = []
    for codes in pictures["codes"]:
        most = max(codes["counts"]) or 1
        bars = [
            {
                "height": round(100 * count / most, 1),
                "title": f"{_range(k - _BARS, codes['width'])}: {count:,}",
            }
            for k, count in enumerate(codes["counts"])
        ]
        bits, limit = codes["bits_per_weight"], codes["limit"]
        scale = max(bits, limit, 1e-9)
        found.append(
            {
                "layer": codes["layer"],
                "bars": bars,
                "text": f"{bits:.2f} bits a weight, limit {limit:.2f}" if bits
                else f"no memory; {limit:.2f} bits a weight would number the codes",
                "bits": round(100 * bits / scale, 1),
                "limit": round(100 * limit / scale, 1),
            }
        )  # fmt: skip
    return found


def choice_chart(choice: Mapping[str, Any] | None) -> Panel | None:
    """Loss against cycles of all choices that fit, each with its number and name, the one that was
    taken with a ring; None where fewer than two fit."""
    steps = [(n, t) for n, t in enumerate((choice or {}).get("trials", ()), 1) if t["fits"]]
    if choice is None or len(steps) < 2:
        return None
    taken = choice["trials"][choice["chosen"]]
    bound = choice["max_loss"]
    # A few that lose everything would flatten the rest.
    most = _SHOWN * max(bound, taken["reckoned_loss"])
    losses = [loss for _, trial in steps if (loss := trial["reckoned_loss"]) <= most]
    x = Scale.over((trial["interval_cycles"] for _, trial in steps), log=True)
    made = panel(f"loss reckoned with, {choice['unit']}", "cycles between frames", x,
                 Scale.over([0.0, bound, *losses]), _CHART)  # fmt: skip
    made.level(bound, "bound")
    for number, trial in steps:
        place = trial["interval_cycles"], trial["reckoned_loss"]
        made.point(*place, "full" if trial["full"] else "quick", _step(number, trial, choice))
    made.name([f"{number} {_step_name(trial)}" for number, trial in steps])
    made.point(taken["interval_cycles"], taken["reckoned_loss"], "chosen", "chosen")
    return made


def _step_name(trial: Mapping[str, Any]) -> str:
    """What a trial chose, in few letters."""
    if not trial["ratio"]:
        return "8-bit"
    plain = len(trial["int8_layers"])
    return f"N/K {trial['ratio']:g}" + (f" + {plain} in 8-bit" if plain else "")


def _step(number: int, trial: Mapping[str, Any], choice: Mapping[str, Any]) -> str:
    """A trial in a line."""
    return (
        f"{number} {_step_name(trial)}, {'full' if trial['full'] else 'quick'}: "
        f"{trial['reckoned_loss']:.2f} {choice['unit']}, {trial['interval_cycles']:,} cycles"
    )


def _range(place: int, width: int) -> str:
    """The values of a bar."""
    if width == 1:
        more = {-_BARS: " and less", _BARS: " and more"}.get(place, "")
        return f"{place}{more}"
    low = place * width - width // 2
    return f"{low} to {low + width - 1}"


def floorplan_shapes(
    built: Mapping[str, Any] | None, pictures: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Runs of tiles of one unit as paths, each in the unit's color of `resource_bars`, fainter
    where tiles hold few cells; None where nothing is built."""
    plan = (built or {}).get("floorplan")
    if not plan or not plan["tiles"]:
        return None
    hues = {unit["name"]: k % _HUES for k, unit in enumerate(pictures["units"])}
    paths: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    rows = [row.split(" ") for row in plan["tiles"]]
    for y, row in enumerate(rows):
        for tile, run in groupby(enumerate(row), key=itemgetter(1)):
            known = _TILE.fullmatch(tile)
            if not known or int(known[1]) >= len(plan["owners"]):
                continue
            number, cells = int(known[1]), int(known[2])
            columns = [x for x, _ in run]
            key = hues.get(plan["owners"][number], -1), 1 + cells // 4
            paths[key].append(f"M{columns[0]} {y}h{len(columns)}v1h-{len(columns)}z")
    shapes = [
        {"hue": hue, "opacity": round(level / 3, 2), "path": "".join(parts)}
        for (hue, level), parts in sorted(paths.items())
    ]
    return {"width": max(map(len, rows)), "height": len(rows), "shapes": shapes}


def confusion(accuracy: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Rows of what the integer network answers, by class, with shares of the row, and the float
    model's right answers beside; None where there is no such table."""
    table = (accuracy or {}).get("confusion")
    if not table:
        return None
    rows = []
    for k, (exact, pvq) in enumerate(zip(table["float"], table["pvq"], strict=True)):
        total = sum(pvq) or 1
        rows.append(
            {
                "name": k,
                "cells": [
                    {"count": count, "share": round(100 * count / total), "right": k == n}
                    for n, count in enumerate(pvq)
                ],
                "frames": sum(pvq),
                "pvq": f"{100 * pvq[k] / total:.1f} %",
                "float": f"{100 * exact[k] / total:.1f} %",
            }
        )
    return {"rows": rows, "classes": range(len(rows))}
