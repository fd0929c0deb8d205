"""``report.html`` of a search: fronts, figures against N/K, sensitivity; one page, no scripts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pvq_hw.evaluate.metrics import metric_text
from pvq_hw.output.chart import TEMPLATES, Panel, Scale, panel

__all__ = ["write_page"]

_COST_NAMES = {
    "interval_cycles": "cycles between frames",
    "code_bits": "code bits",
    "luts": "LUTs (estimate)",
    "energy_nj": "nJ per inference (model)",
}
_AGAINST = {
    "metric": "",
    "bits_per_weight": "bits per weight",
    "interval_cycles": "cycles between frames",
    "energy_nj": "nJ per inference (model)",
}
_COLORS = ("#2f6f9f", "#c9772b", "#2e7d4f", "#8a4fa3", "#b3382c", "#1b8a8f", "#7a6a1f", "#5b5f97")
_REASONS = 12  # kinds of failures that are listed

Document = Mapping[str, Any]


def write_page(
    path: Path, document: Document, write: Callable[[Path, str], None] | None = None
) -> None:
    """Writes the page of what ``trials.json`` holds; the template escapes every value."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    good = [trial for trial in document["trials"] if trial["state"] == "COMPLETE"]
    final = document["final"]
    page = environment.get_template("tune.html").render(
        title=f"{document['model']} on {document['options']['target']}: search",
        subtitle=_subtitle(document, len(good)),
        cards=_cards(document, good),
        met=document["met"],
        config=final["config"] if final else None,
        fronts=[_front(document, good, cost) for cost in _COST_NAMES],
        against=[_against(document, good, key) for key in _AGAINST],
        sensitivity=_sensitivity(document),
        legend=_legend(document),
        sensitivity_rows=_sensitivity_rows(document),
        front_rows=_front_rows(document, good),
        finalist_rows=_finalist_rows(document),
        reasons=_reasons(document),
        metric=document["metric"]["name"],
        bound=document["options"]["min_accuracy"],
        version=document["pvq_hw_version"],
    )
    (write or _plain)(path, page)


def _plain(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _value(document: Document, value: float) -> str:
    return metric_text(document["metric"]["name"], value)


def _subtitle(document: Document, good: int) -> str:
    frames, start = document["frames"], document["start"]
    first = f", the first as compile --max-loss {start['max_loss']:g} chooses" if start else ""
    return (
        f"{len(document['trials'])} configurations{first}, {good} of them fit; judged on "
        f"{frames['validation']:,} frames that the quantizer did not see "
        f"({frames['calibration']:,} to calibrate with)"
    )


def _cards(document: Document, good: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    name = document["metric"]["name"]
    cards = [
        {
            "name": f"float {name}",
            "value": _value(document, document["float"]),
            "note": "validation frames",
        }
    ]
    chosen = next((trial for trial in good if trial["number"] == document["chosen"]), None)
    final = document["final"]
    if chosen is None or final is None:
        return cards
    figures = final["figures"]
    value = _value(document, chosen["figures"]["metric"])
    cards.append({"name": f"chosen: {name}", "value": value, "note": "validation frames"})
    judged = final["evaluation"]
    if judged is not None:
        note = f"float {_value(document, judged['float'])}, {judged['frames']:,} test frames"
        value = _value(document, judged["pvq"])
        cards.append({"name": f"chosen: {name} on test", "value": value, "note": note})
    for title, text, note in (
        ("cycles a frame", f"{figures['interval_cycles']:,}", "steady state"),
        ("mean N/K", _ratio(figures["n_over_k"]), "weights / pulses"),
        ("code bits a weight", f"{figures['bits_per_weight']:.2f}", f"{figures['code_bits']:,}"),
        ("LUTs", f"{figures['luts']:,}", "estimate"),
        ("nJ an inference", f"{figures['energy_nj']:,.1f}",
         f"int8 {figures['energy_int8_nj']:,.1f} (model)"),
    ):  # fmt: skip
        cards.append({"name": title, "value": text, "note": note})
    return cards


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value else "all int8"


# -- figures ----------------------------------------------------------------------------------


def _metric_scale(document: Document, good: Sequence[Mapping[str, Any]]) -> Scale:
    """Over the better four fifths of the trials: a few that lost everything would flatten it."""
    higher = document["metric"]["higher_is_better"]
    values = sorted((trial["figures"]["metric"] for trial in good), reverse=higher)
    kept = values[: max(3, len(values) * 4 // 5)]
    bound = document["options"]["min_accuracy"]
    return Scale.over([*kept, document["float"], *([] if bound is None else [bound])])


def _hint(document: Document, trial: Mapping[str, Any]) -> str:
    figures = trial["figures"]
    return (
        f"trial {trial['number']}: {_value(document, figures['metric'])}, "
        f"N/K {_ratio(figures['n_over_k'])}, {figures['interval_cycles']:,} cycles, "
        f"{figures['bits_per_weight']:.2f} bits/weight, {figures['energy_nj']:,.1f} nJ"
    )


def _levels(document: Document, made: Panel) -> None:
    made.level(document["float"], "float")
    if document["options"]["min_accuracy"] is not None:
        made.level(document["options"]["min_accuracy"], "bound")


def _front(document: Document, good: Sequence[Mapping[str, Any]], cost: str) -> Panel:
    """The metric against one cost, the front as a line."""
    x = Scale.over((trial["figures"][cost] for trial in good), log=True)
    made = panel(document["metric"]["name"], _COST_NAMES[cost], x, _metric_scale(document, good))
    _levels(document, made)
    by_number = {trial["number"]: trial for trial in good}
    front = [by_number[number]["figures"] for number in document["fronts"][cost]]
    made.steps([(figures[cost], figures["metric"]) for figures in front], "front")
    for trial in good:
        kind = "on" if trial["number"] in document["fronts"][cost] else "off"
        figures = trial["figures"]
        made.point(figures[cost], figures["metric"], kind, _hint(document, trial))
    _ring(document, by_number, made, cost, "metric")
    return made


def _against(document: Document, good: Sequence[Mapping[str, Any]], key: str) -> Panel:
    """A figure against the mean N/K."""
    good = [trial for trial in good if trial["figures"]["n_over_k"] > 0]  # else all is int8
    x = Scale.over((trial["figures"]["n_over_k"] for trial in good), log=True)
    if key == "metric":
        made = panel(document["metric"]["name"], "mean N/K", x, _metric_scale(document, good))
        _levels(document, made)
    else:
        y = Scale.over((trial["figures"][key] for trial in good), log=True)
        made = panel(_AGAINST[key], "mean N/K", x, y)
    for trial in good:
        figures = trial["figures"]
        made.point(figures["n_over_k"], figures[key], "on", _hint(document, trial))
    _ring(document, {trial["number"]: trial for trial in good}, made, "n_over_k", key)
    return made


def _ring(
    document: Document, by_number: Mapping[int, Mapping[str, Any]], made: Panel, x: str, y: str
) -> None:
    trial = by_number.get(document["chosen"])
    if trial is not None:
        figures = trial["figures"]
        made.point(figures[x], figures[y], "chosen", f"chosen, {_hint(document, trial)}")


def _sensitivity(document: Document) -> list[Panel]:
    """Metric and output error with only one layer at N/K."""
    layers = document["sensitivity"]
    points = [point for found in layers.values() for point in found]
    x = Scale.over((point["asked"] for point in points), log=True)
    metric = Scale.over([*(point["metric"] for point in points), document["float"]])
    error = Scale.over((point["output_error"] for point in points), log=True)
    panels = [
        panel(document["metric"]["name"], "N/K of this layer alone", x, metric),
        panel("output error (relative RMS)", "N/K of this layer alone", x, error),
    ]
    panels[0].level(document["float"], "float")
    for made, key in zip(panels, ("metric", "output_error"), strict=True):
        for i, (name, found) in enumerate(layers.items()):
            color = _COLORS[i % len(_COLORS)]
            made.line([(point["asked"], point[key]) for point in found], "layer", color)
            for point in found:
                text = f"{name}, N/K {point['asked']:g}: {point[key]:.4g}"
                made.point(point["asked"], point[key], "layer", text, color)
    return panels


def _legend(document: Document) -> list[dict[str, str]]:
    names = list(document["sensitivity"])
    return [{"name": name, "color": _COLORS[i % len(_COLORS)]} for i, name in enumerate(names)]


# -- tables -----------------------------------------------------------------------------------


def _sensitivity_rows(document: Document) -> list[list[str]]:
    rows = []
    for name, found in document["sensitivity"].items():
        for point in found:
            value = _value(document, point["metric"])
            rows.append([name, f"{point['asked']:g}", value, f"{point['output_error']:.4f}"])
    return rows


def _front_rows(document: Document, good: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_number = {trial["number"]: trial for trial in good}
    rows = []
    for number in document["fronts"]["interval_cycles"]:
        trial = by_number[number]
        figures = trial["figures"]
        layers = ", ".join(
            "int8" if layer["n_over_k"] is None else f"{layer['n_over_k']:.3g}"
            for layer in trial["layers"]
        )
        lanes = ", ".join(str(layer["lanes"]) for layer in trial["layers"])
        cells = [
            str(number),
            _value(document, figures["metric"]),
            f"{figures['interval_cycles']:,}",
            f"{figures['bits_per_weight']:.2f}",
            f"{figures['luts']:,}",
            f"{figures['energy_nj']:,.1f}",
            layers,
            str(trial["params"]["activation_bits"]),
            lanes,
        ]
        rows.append({"cells": cells, "chosen": number == document["chosen"]})
    return rows


def _finalist_rows(document: Document) -> list[list[str]]:
    """What place and route made of the finalists; one cell with the reason where it refused."""
    by_number = {trial["number"]: trial for trial in document["trials"]}
    rows = []
    for built in document["finalists"]:
        figures = by_number[built["number"]]["figures"]
        start = [str(built["number"]), _value(document, figures["metric"])]
        if "reason" in built:
            rows.append([*start, built["reason"]])
            continue
        parts = (
            f"{built['used'][key]:,} ({built['estimated'][key]:,})"
            for key in ("luts", "brams", "dsps")
        )
        seeds = ", ".join(f"{attempt['fmax_mhz']:.1f}" for attempt in built["seeds"])
        rows.append(
            [
                *start,
                f"{built['interval_cycles']:,}",
                f"{built['clock_mhz']:g}",
                f"{built['fmax_mhz']:.1f} ({seeds})",
                f"{built['inferences_per_second']:,.0f}",
                *parts,
            ]
        )
    return rows


def _reasons(document: Document) -> list[tuple[str, int]]:
    """Why trials failed, the most frequent first."""
    found = Counter(t["reason"] for t in document["trials"] if t["state"] == "FAIL")
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:_REASONS]
