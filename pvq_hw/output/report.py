"""``report.json`` and ``report.html``: what an output folder holds, for programs and for people."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import pvq_hw
from pvq_hw.arith.formats import significant
from pvq_hw.choices import LINK_WORDS, UART
from pvq_hw.documents import OPEN, Format, document_text, load_json, read
from pvq_hw.engine.shared_listing import listing
from pvq_hw.engine.units import Lookup
from pvq_hw.errors import InputError
from pvq_hw.evaluate.agreement import agreement_lines
from pvq_hw.evaluate.metrics import metric_text
from pvq_hw.network.network import Network
from pvq_hw.network.table import Table
from pvq_hw.output.pictures import (
    choice_chart,
    code_bars,
    confusion,
    diagram,
    floorplan_shapes,
    picture_data,
    resource_bars,
    resource_keys,
    schedule_rows,
)
from pvq_hw.output.proof_record import ProofPart, proof_lines
from pvq_hw.output.sizes import sizes
from pvq_hw.plan.core_layers import unit_names
from pvq_hw.plan.plan import Plan

__all__ = [
    "compile_document",
    "document_of",
    "load_report",
    "read_report",
    "table_place",
    "write_report",
]

FORMAT = Format("a report", "pvq-hw report")
_REPORT = "report.json"


class Simulated(TypedDict):
    """What the page reads of a simulation."""

    mismatches: int
    outputs_compared: int
    frames: int
    simulator: str


class Proven(TypedDict):
    """What the page reads of a proof."""

    complete: bool
    parts: list[ProofPart]


class Used(TypedDict):
    """How many of a kind of cell a circuit takes."""

    used: int
    available: int


SlowestPath = TypedDict(
    "SlowestPath",
    {"from": str, "to": str, "cells": int, "logic_ns": float, "routing_ns": float},
)
"""The path that bounds a build's clock."""


class Floorplan(TypedDict):
    """Where each unit lies, see `gateware.board.placement.floorplan`."""

    owners: list[str]
    tiles: list[str]


class Built(TypedDict):
    """What the page reads of a build."""

    fmax_mhz: float
    clock_mhz: float
    inferences_per_second: float
    seed: int
    utilization: dict[str, Annotated[Used, OPEN]]
    slowest_path: NotRequired[SlowestPath | None]
    floorplan: NotRequired[Floorplan]


_LEFT: dict[str, Any] = {
    "simulate": Annotated[Simulated, OPEN],
    "prove": Annotated[Proven, OPEN],
    "build": Annotated[Built, OPEN],
}


class Report(TypedDict):
    """What a report holds besides its header: figures of verbs, which can all be made again."""

    pvq_hw_version: str
    compile: NotRequired[dict[str, Any]]
    simulate: NotRequired[Annotated[Simulated, OPEN]]
    prove: NotRequired[Annotated[Proven, OPEN]]
    build: NotRequired[Annotated[Built, OPEN]]


def compile_document(
    network: Network,
    plan: Plan,
    manifest: Mapping[str, Any],
    accuracy: Mapping[str, Any] | None,
    sizes: Mapping[str, Any],
) -> dict[str, Any]:
    """What `compile` says, as JSON values; units are in the names."""
    value = plan.to_json()
    losses = manifest["extra"].get("losses") or {}
    document = {
        "network": network.name,
        "target": plan.target.name,
        "n_over_k": manifest["n_over_k"],
        "int8_layers": network.int8_layers,
        "bits_per_weight": value["bits_per_weight"],
        "parameter_bits_per_weight": value["parameter_bits_per_weight"],
        "bits_per_weight_limit": sizes["limit_bits_per_weight"],
        "weights_file": dict(sizes),
        "clock_mhz": plan.clock_mhz,
        "frames_side_by_side": plan.frames,
        "interval_cycles": plan.interval_cycles,
        "latency_cycles": plan.latency_cycles,
        "latency_us": value["latency_us"],
        "asked_for": plan.goal.text(),
        "limit": plan.limit,
        "updatable": plan.updatable,
        "live": plan.live,
        "measure": plan.measure,
        "code_stream": value.get("code_stream"),
        "link": plan.link if plan.top else None,
        "inferences_per_second": value["inferences_per_second"],
        # A core without the board's top has no link.
        "inferences_per_second_over_link": value["inferences_per_second_over_link"]
        if plan.top
        else None,
        "resources": value["resources"],
        "energy": value["energy"],
        "quantization": dict(network.meta),
        "layers": _layers(plan, value, manifest),
        "tables": _tables(network, plan),
        "program": [x.to_json() for spec in plan.specs if spec.shared_by for x in listing(spec)],
        "pictures": picture_data(network, plan),
        "schedule": list(manifest["extra"].get("schedule") or ()),
    }
    if network.inputs:
        document["inputs"] = network.input_documents()
    if network.outputs:
        document["outputs"] = network.output_documents()
    if accuracy:
        document["accuracy"] = dict(accuracy)
    document |= {
        key: dict(manifest["extra"][key])
        for key in ("agreement", "choice")
        if key in manifest["extra"]
    }
    if losses:
        document["losses"] = {key: value for key, value in losses.items() if key != "layers"}
    return document


def _layers(
    plan: Plan, value: Mapping[str, Any], manifest: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What `compile` says of each layer, from its plan (``value``: its JSON) and how near its codes
    come."""
    figures = {layer["name"]: layer for layer in manifest["layers"]}
    losses = manifest["extra"].get("losses") or {}
    lost = {layer["name"]: layer for layer in losses.get("layers", ())}
    layers = []
    pairs = zip(value["layers"], plan.layers, strict=True)
    for part, own in ((part, own) for part, layer in pairs for own in layer.parts):
        about = figures.get(own["name"], {})
        layers.append(
            {
                "name": own["name"],
                "rows": own["rows"],
                "columns": own["columns"],
                "lanes": part["lanes"],
                "windows": part["windows"],
                "stream_width": part["stream_width"],
                "encoding": part["encoding"],
                "kind": part["core"]["kind"],
                "gap_bits": part["core"].get("code", {}).get("gap_bits"),
                "reason": part["reason"],
                "shift_bits": part["core"].get("code", {}).get("shift_bits"),
                "pulses": own["pulses"],
                "n_over_k": _figure(own["n_over_k"]),
                "slots": own["slots"],
                "new_weights": part["new_weights"],
                "utilization": _figure(own["utilization"]),
                "bits_per_weight": _figure(own["bits_per_weight"]),
                "cosine": about.get("cosine"),
                "relative_error": about.get("relative_error"),
                **_loss(about, lost.get(own["name"], {})),
            }
        )
    return layers


def _figure(value: float | None) -> float | None:
    return None if value is None else significant(value)


def _tables(network: Network, plan: Plan) -> list[dict[str, Any]]:
    """The functions that are looked up: what they read and give, and where their tables are."""
    names = dict(zip(unit_names(network.layers), network.layers, strict=True))
    lookups = [u for u in plan.graph.units if isinstance(u, Lookup)]
    found = []
    for unit in lookups:
        layer = names[unit.name]
        assert isinstance(layer, Table)
        found.append(
            {
                "name": layer.name,
                "function": layer.function,
                "input_bits": unit.x.bits,
                "output_bits": unit.out.bits,
                "tables": len(unit.entries),
                "entries": len(unit.entries[0]),
                "memory": unit.memory,
            }
        )
    return found


def document_of(
    folder: Path, network: Network, planned: Plan, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON document of `compile`, from what lies in an output folder."""
    accuracy = manifest["extra"].get("accuracy")
    return compile_document(network, planned, manifest, accuracy, sizes(folder, network))


def _loss(about: Mapping[str, Any], lost: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's part in what is lost, and each row's: lists by row, where they are known."""
    rows = {
        name: source[f"row_{name}"]
        for source, names in (
            (about, ("k", "cosine", "relative_error")),
            (lost, ("output_error", "share")),
        )
        for name in names
        if f"row_{name}" in source
    }
    return {k: v for k, v in lost.items() if not k.startswith("row_")} | {"row_figures": rows}


def read_report(folder: Path) -> dict[str, Any]:
    """The parts that other verbs have left in an output's report, where they did: each that can be
    read, whatever else the file holds."""
    found: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # a report can be made again from the rest
        found = load_json(folder / _REPORT, FORMAT)
    parts = {}
    for name, kind in _LEFT.items():
        if name in found:
            with contextlib.suppress(InputError):
                parts[name] = read(kind, found[name], f"{_REPORT} {name}")
    return parts


def load_report(folder: Path) -> dict[str, Any]:
    """The parts of an output's report; raises InputError where it is none."""
    path = folder / _REPORT
    found: dict[str, Any] = read(Report, load_json(path, FORMAT), str(path))
    return found


def write_report(folder: Path, parts: Mapping[str, Any]) -> None:
    """Writes ``report.json`` and ``report.html`` into a folder."""
    document = {**FORMAT.header, "pvq_hw_version": pvq_hw.__version__, **parts}
    (folder / _REPORT).write_text(document_text(document), encoding="utf-8", newline="\n")
    page = _page(parts)
    (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")


def _page(parts: Mapping[str, Any]) -> str:
    """The page; the template escapes every value."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    compiled = parts["compile"]
    ratio = compiled["n_over_k"]
    return environment.get_template("report.html").render(
        title=f"{compiled['network']} on {compiled['target']}",
        subtitle=f"pyramid-vector-quantized at a mean N/K of {ratio:.2f}",
        cards=_cards(parts),
        checks=_checks(parts),
        layer_heads=_LAYER_HEADS,
        loss=compiled.get("losses"),
        loss_heads=_LOSS_HEADS,
        loss_rows=_loss_rows(compiled["layers"]),
        worst_rows=_worst_rows(compiled["layers"]),
        layer_rows=_layer_rows(compiled["layers"]),
        limit=compiled.get("limit"),
        asked_for=compiled.get("asked_for"),
        choice=compiled.get("choice"),
        choice_rows=_choice_rows(compiled.get("choice")),
        choice_chart=choice_chart(compiled.get("choice")),
        reasons=[[x["name"], x["reason"]] for x in compiled["layers"] if x.get("reason")],
        table_rows=_table_rows(compiled.get("tables", [])),
        program_rows=_program_rows(compiled.get("program", [])),
        size_rows=_size_rows(compiled),
        resource_rows=_resource_rows(parts.get("build")),
        energy_rows=_energy_rows(compiled["energy"]),
        energy_note=compiled["energy"]["label"],
        version=pvq_hw.__version__,
        slowest_path=_path_text(parts.get("build")),
        floorplan=floorplan_shapes(parts.get("build"), compiled["pictures"]),
        planned=_planned_rows(compiled, parts.get("build")),
        **_pictures(compiled),
    )


def _path_text(built: Mapping[str, Any] | None) -> str:
    """The path that bounds the clock, in words."""
    path = (built or {}).get("slowest_path")
    if not path:
        return ""
    where = f"within {path['from']}"
    if path["from"] != path["to"]:
        where = f"from {path['from']} to {path['to']}"
    total = path["logic_ns"] + path["routing_ns"]
    share = 100 * path["routing_ns"] / max(total, 1e-9)
    return (
        f"The slowest path is {where}: {total:.1f} ns through {path['cells']} cells, "
        f"{share:.0f} % of it on wires"
    )


_PLANNED = {
    "luts": ("ICESTORM_LC", "TRELLIS_COMB"),
    "brams": ("ICESTORM_RAM", "DP16KD"),
    "dsps": ("ICESTORM_DSP", "MULT18X18D"),
    "sprams": ("ICESTORM_SPRAM",),
}


def _planned_rows(compiled: Mapping[str, Any], built: Mapping[str, Any] | None) -> dict[str, str]:
    """What was planned of each of a build's resources, by the tools' names."""
    used = (built or {}).get("utilization", {})
    return {
        name: f"{compiled['resources'][key]:,}"
        for key, names in _PLANNED.items()
        for name in names
        if name in used
    }


def _pictures(compiled: Mapping[str, Any]) -> dict[str, Any]:
    pictures, spans = compiled["pictures"], compiled["schedule"]
    return {
        "confusion": confusion(compiled.get("accuracy")),
        "diagram": diagram(pictures),
        "schedule": schedule_rows(spans, pictures) if spans else None,
        "resources": resource_bars(pictures),
        "codes": code_bars(pictures),
        "keys": resource_keys(pictures),
    }


def _choice_rows(choice: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The choices that were tried, in order: cells, and whether it is the one that was taken."""
    rows = []
    for number, trial in enumerate((choice or {}).get("trials", ())):
        figures = ["does not fit", "", "", "", ""]
        if trial["fits"]:
            figures = [
                f"{trial['loss']:.2f}",
                f"{trial['reckoned_loss']:.2f}",
                f"{trial['inferences_per_second']:,.0f}",
                f"{trial['luts']:,}",
                f"{trial['energy_nj']:,.0f}" if "energy_nj" in trial else "",
            ]
        cells = [
            f"{number + 1}",
            f"{trial['ratio']:g}" if trial["ratio"] else "",
            ", ".join(trial["int8_layers"]),
            "full" if trial["full"] else "quick",
            *figures,
        ]
        rows.append({"cells": cells, "chosen": choice is not None and number == choice["chosen"]})
    return rows


_LAYER_HEADS = (
    "layer",
    "rows x columns",
    "N/K",
    "lanes",
    "slots used",
    "bits/weight",
    "cosine",
    "relative error",
)


_LOSS_HEADS = (
    "layer",
    "output error, this layer alone",
    "all but this",
    "score, this layer alone",
    "all but this",
    "share of the loss",
)
_WORST = 12


def _loss_rows(layers: list[dict[str, Any]]) -> list[list[str]]:
    """What each layer loses, where it was measured."""
    rows = []
    for layer in layers:
        if "share" in layer:
            scores = [layer["score_alone"], layer["score_without"]]
            rows.append(
                [
                    layer["name"],
                    f"{layer['output_error_alone']:.2e}",
                    f"{layer['output_error_without']:.2e}",
                    *("" if value is None else f"{value:.2f}" for value in scores),
                    f"{100 * layer['share']:.1f} %",
                ]
            )
    return rows


def _worst_rows(layers: list[dict[str, Any]]) -> list[list[str]]:
    """The rows of the whole network that lose most."""
    rows = [
        (figures["share"][i], layer["name"], i, figures)
        for layer in layers
        if "share" in (figures := layer.get("row_figures", {}))
        for i in range(len(figures["share"]))
    ]
    rows.sort(key=lambda row: (-row[0], row[1], row[2]))
    return [
        [
            f"{name}, row {i}",
            f"{figures['k'][i]:,}",
            f"{figures['cosine'][i]:.4f}" if "cosine" in figures else "",
            f"{figures['output_error'][i]:.2e}",
            f"{100 * share:.2f} %",
        ]
        for share, name, i, figures in rows[:_WORST]
    ]


def table_place(table: Mapping[str, Any]) -> str:
    """How a function is carried out, in words."""
    if table["memory"] == "lines":
        return "two slopes, no table"
    where = {"block": "block RAM", "logic": "logic"}[table["memory"]]
    return f"{table['tables']} x {table['entries']:,} entries in {where}"


def _program_rows(steps: list[dict[str, Any]]) -> list[list[str]]:
    """A shared engine's steps, with the share of each one's cycles in which ports are busy."""
    whole = sum(step["cycles"] for step in steps)
    rows = []
    for step in steps:
        cycles = max(1, step["cycles"])
        busy = [f"{100 * step[key] / cycles:.0f} %" for key in ("words", "fetched", "written")]
        rows.append(
            [
                step["name"], step["kind"], f"{step['cycles']:,}", f"{100 * cycles / whole:.1f} %",
                *busy, f"{step['adds'] / cycles:.1f}", step["reads"], step["gives"],
                f"{step['program']:x}",
            ]
        )  # fmt: skip
    return rows


def _table_rows(tables: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each function that is looked up."""
    return [
        [
            table["name"],
            table["function"],
            f"{table['input_bits']} to {table['output_bits']} bits",
            table_place(table),
        ]
        for table in tables
    ]


def _card(name: str, value: str, note: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _cards(parts: Mapping[str, Any]) -> list[dict[str, str]]:
    compiled, built = parts["compile"], parts.get("build")
    cards = []
    if "accuracy" in compiled:
        a = compiled["accuracy"]
        pvq, exact = (metric_text(a["metric"], a[name]) for name in ("pvq", "float"))
        note = f"{a.get('reference', 'float')} {exact}"
        if a.get("pvq_interval"):
            low, high = a["pvq_interval"]
            note += f"; {a['frames']:,} frames: {low:.1f} to {high:.1f} with 95 % confidence"
        cards.append(_card(a["metric"], pvq, note))
    speed = (built or compiled)["inferences_per_second"]
    note = "at the met clock" if built else "planned"
    cards.append(_card("inferences a second", f"{speed:,.0f}", note))
    link = compiled["inferences_per_second_over_link"]
    if link is not None:
        over = LINK_WORDS[compiled.get("link") or UART]
        cards.append(_card(f"over {over}", f"{link:,.0f}", "inferences a second"))
    batch = compiled.get("frames_side_by_side", 1)
    unit = "cycles a frame" if batch == 1 else f"cycles for {batch} frames"
    cards.append(_card(unit, f"{compiled['interval_cycles']:,}", "steady state"))
    note = "first in to last out"
    if "latency_us" in compiled:
        note += f", {compiled['latency_us']:,.4g} us planned"
    cards.append(_card("latency", f"{compiled['latency_cycles']:,} cycles", note))
    clock = (built or compiled)["clock_mhz"]
    reached = f"reaches {built['fmax_mhz']:.1f} MHz" if built else "planned"
    cards.append(_card("clock", f"{clock:g} MHz", reached))
    plain = compiled["int8_layers"]
    note = f"without {', '.join(plain)} (int8)" if plain else "weights for each pulse"
    cards.append(_card("mean N/K", f"{compiled['n_over_k']:.2f}", note))
    if stream := compiled.get("code_stream"):
        note = f"a frame from the flash, {stream.get('bits_per_clock', 1)} a clock, "
        note += f"{100 * stream['flash_busy']:.0f} % of its time"
        cards.append(_card("codes read", f"{stream['bits_per_frame']:,} bits", note))
    bits, limit = compiled["bits_per_weight"], compiled["bits_per_weight_limit"]
    cards.append(_card("code bits a weight", f"{bits:.2f}", f"log2 V(N,K)/N {limit:.2f}"))
    return cards


def _checks(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    judged = parts["compile"].get("accuracy")
    if judged and judged["metric"] != "rmse" and judged["disagreements"] is not None:
        text = f"{judged['disagreements']} of {judged['frames']} answers differ"
        if judged.get("only_float") is not None:
            text += (
                f"; right only in {judged.get('reference', 'float')} on {judged['only_float']}, "
                f"only in PVQ on {judged['only_pvq']}"
            )
        rows.append({"name": "float model and golden model", "ok": None, "text": text})
    for name, text in agreement_lines(parts["compile"].get("agreement")):
        rows.append({"name": name, "ok": None, "text": text})
    simulated = parts.get("simulate")
    if simulated:
        wrong = simulated["mismatches"]
        text = (
            f"{wrong} mismatches in {simulated['outputs_compared']:,} outputs of "
            f"{simulated['frames']} frames ({simulated['simulator']})"
        )
        rows.append({"name": "golden model = simulated gateware", "ok": wrong == 0, "text": text})
    else:
        rows.append({"name": "simulation", "ok": None, "text": "not run yet"})
    rows += _proof_rows(parts.get("prove"))
    built = parts.get("build")
    if built:
        ok = built["fmax_mhz"] >= built["clock_mhz"]
        text = (
            f"reaches {built['fmax_mhz']:.1f} MHz where {built['clock_mhz']:g} MHz are needed "
            f"(seed {built['seed']})"
        )
        rows.append({"name": "timing", "ok": ok, "text": text})
    else:
        rows.append({"name": "bitstream", "ok": None, "text": "not built yet"})
    return rows


_PROOF_NAMES = {
    "proven": ("proven for all inputs", True),
    "shown": ("shown on frames", None),
    "open": ("not proven", None),
    "wrong": ("proof", False),
}


def _proof_rows(proof: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each state that parts of a proof are in."""
    lines = proof_lines(proof["parts"]) if proof else []
    rows = []
    for state, (name, ok) in _PROOF_NAMES.items():
        texts = [text for found, text in lines if found == state]
        if texts:
            rows.append({"name": name, "ok": ok, "text": "; ".join(texts)})
    return rows


def _layer_rows(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    longest = max(1, *(layer["slots"] for layer in layers))
    return [
        {
            "cells": _layer_row(layer),
            "slots": f"{layer['slots']:,}",
            "percent": round(100 * layer["slots"] / longest, 1),
        }
        for layer in layers
    ]


def _lanes(layer: Mapping[str, Any]) -> str:
    side = f" x {layer['windows']}" if layer["windows"] > 1 else ""
    return f"{layer['lanes']}{side}"


def _layer_row(layer: Mapping[str, Any]) -> list[str]:
    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return [
        layer["name"],
        f"{layer['rows']} x {layer['columns']}",
        "int8" if layer["encoding"] == "int8" else number(layer["n_over_k"], 2),
        "" if layer["utilization"] is None else _lanes(layer),
        layer["kind"] if layer["utilization"] is None else f"{100 * layer['utilization']:.1f} %",
        number(layer["bits_per_weight"], 3),
        number(layer["cosine"], 4),
        number(layer["relative_error"], 4),
    ]


def _size_rows(compiled: Mapping[str, Any]) -> list[list[str]]:
    size = compiled["weights_file"]
    count = size["weights"]
    rows: list[list[str]] = []
    for name, key in (
        ("float32", "float32_bytes"),
        ("int8", "int8_bytes"),
        ("integers as a zipped npz", "zipped_npz_bytes"),
        ("weights.pvq, the form to distribute", "packed_bytes"),
    ):
        rows.append([name, f"{8 * size[key] / count:.3f}", f"{size[key]:,}"])
    codes = compiled["bits_per_weight"]
    memory = "on-chip RAM" if compiled["resources"]["sprams"] else "block RAM"
    rows.append([f"codes in {memory}", f"{codes:.3f}", f"{round(codes * count / 8):,}"])
    limit = compiled["bits_per_weight_limit"]
    rows.append(["limit, log2 V(N,K)/N", f"{limit:.3f}", f"{round(limit * count / 8):,}"])
    return rows


_WORDS = {
    "DCCA": "clock buffers",
    "DP16KD": "block RAM",
    "EHXPLLL": "PLL",
    "ICESTORM_DSP": "multipliers",
    "ICESTORM_LC": "logic cells",
    "ICESTORM_PLL": "PLL",
    "ICESTORM_RAM": "block RAM",
    "ICESTORM_SPRAM": "single-port RAM",
    "MULT18X18D": "multipliers",
    "SB_GB": "global buffers",
    "SB_IO": "pins",
    "TRELLIS_COMB": "LUTs",
    "TRELLIS_FF": "flip-flops",
    "TRELLIS_IO": "pins",
    "TRELLIS_RAMW": "distributed RAM write ports",
}
_PLENTY = 8  # of fewer, all may well be used


def _resource_rows(built: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    rows = []
    for name, part in sorted((built or {}).get("utilization", {}).items()):
        used, available = part["used"], part["available"]
        if used and available:
            percent = round(100 * used / available)
            rows.append(
                {
                    "name": name,
                    "words": _WORDS.get(name, name),
                    "used": f"{used:,}",
                    "available": f"{available:,}",
                    "free": f"{available - used:,}",
                    "percent": percent,
                    "scarce": percent > 90 and available > _PLENTY,
                }
            )
    return rows


def _energy_rows(energy: Mapping[str, Any]) -> list[list[str]]:
    ours, other = energy["nj_per_inference"], energy["int8_nj_per_inference"]
    return [["nJ per inference", f"{ours:,.1f}", f"{other:,.1f}"]]
