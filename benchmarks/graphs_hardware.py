"""Bitstreams of networks with convolutions, poolings and sums: what was built and simulated.

Run as ``python -m benchmarks.graphs_hardware OUT... [--page FILE]``: takes the figures of output
folders that were compiled, simulated and built, keeps them beside those of other networks in
``results/graphs-hardware.json``, and writes the tables into the page, between its marks.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pvq_hw.errors import InputError

__all__ = ["figures", "into_page", "main", "tables"]

_HERE = Path(__file__).parent
_MARKS = ("<!-- hardware of graphs: begin -->", "<!-- hardware of graphs: end -->")
_NAMES = {
    "luts": ("ICESTORM_LC", "TRELLIS_COMB"),
    "brams": ("ICESTORM_RAM", "DP16KD"),
    "dsps": ("ICESTORM_DSP", "MULT18X18D"),
}
_COLUMNS = (
    "network", "board", "accuracy, float", "accuracy, ours", "N/K", "cycles a frame",
    "Fmax MHz", "clock MHz", "inferences/s", "LUT (LC)", "block RAM", "DSP", "frames simulated",
    "outputs compared", "mismatches",
)  # fmt: skip
_PUBLISHED = (
    ("FINN (published)", "Zynq 7020", "661", ""),
    ("hls4ml (published)", "FPGA", "36.6", "44 mJ an inference"),
)
_RESNET = ("pretrainedResnet", "resnet8_tuned")


def figures(out: Path) -> dict[str, Any]:
    """One row: from an output folder's report.

    Raises
    ------
    InputError
        The folder was not compiled, simulated and built.
    """
    try:
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        compiled, simulated, built = (report[k] for k in ("compile", "simulate", "build"))
    except (OSError, ValueError, KeyError):
        raise InputError(f"{out} must be compiled, simulated and built") from None
    accuracy = compiled.get("accuracy") or {}
    used = built["utilization"]
    row = {
        "network": compiled["network"],
        "target": compiled["target"],
        "accuracy_float": accuracy.get("float"),
        "accuracy_pvq": accuracy.get("pvq"),
        "n_over_k": compiled["n_over_k"],
        "interval_cycles": built["interval_cycles"],
        "latency_cycles": built["latency_cycles"],
        "fmax_mhz": built["fmax_mhz"],
        "clock_mhz": built["clock_mhz"],
        "seed": built["seed"],
        "inferences_per_second": built["inferences_per_second"],
        "lanes": [layer["lanes"] for layer in compiled["layers"]],
        "simulated_frames": simulated["frames"],
        "outputs_compared": simulated["outputs_compared"],
        "mismatches": simulated["mismatches"],
    }
    for key, names in _NAMES.items():
        cell = next(n for n in names if n in used)
        row[key], row[f"{key}_available"] = used[cell]["used"], used[cell]["available"]
    return row


def tables(results: dict[str, dict[str, Any]]) -> str:
    """The figures as Markdown, with ResNet8 beside what others have published for its task."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *(_row(results[key]) for key in sorted(results))]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    ours = [r for r in results.values() if r["network"] in _RESNET]
    if ours:
        entries = [
            ("this project", r["target"], f"{r['inferences_per_second']:,.0f}", "not measured")
            for r in ours
        ]
        head = ("MLPerf Tiny image classification", "device", "inferences/s", "energy")
        rows = [head, ("---",) * 4, *entries, *_PUBLISHED]
        lines += ["", *("| " + " | ".join(row) + " |" for row in rows)]
    return "\n".join(lines) + "\n"


def _row(r: dict[str, Any]) -> tuple[str, ...]:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.2f} %"

    return (
        r["network"],
        r["target"],
        percent(r["accuracy_float"]),
        percent(r["accuracy_pvq"]),
        f"{r['n_over_k']:.2f}",
        f"{r['interval_cycles']:,}",
        f"{r['fmax_mhz']:.1f}",
        f"{r['clock_mhz']:g}",
        f"{r['inferences_per_second']:,.0f}",
        *(f"{r[k]:,} ({100 * r[k] / r[f'{k}_available']:.0f} %)" for k in _NAMES),
        f"{r['simulated_frames']:,}",
        f"{r['outputs_compared']:,}",
        str(r["mismatches"]),
    )


def into_page(page: Path, text: str) -> None:
    """Puts the tables between the page's marks, or at its end with new ones."""
    begin, end = _MARKS
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2] if rest else ""
    if not rest:
        before += "\n## Bitstreams\n\n"
    new = f"{before}{begin}\n{text}{end}{after or chr(10)}"
    page.write_text(new, encoding="utf-8", newline="\n")


def main() -> None:
    """Takes the figures of output folders and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("outs", type=Path, nargs="*", metavar="OUT")
    parser.add_argument("-o", type=Path, default=_HERE / "results" / "graphs-hardware.json")
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    results = json.loads(args.o.read_text(encoding="utf-8")) if args.o.exists() else {}
    for out in args.outs:
        row = figures(out)
        results[f"{row['network']} {row['target']}"] = row
    text = json.dumps(results, indent=1, sort_keys=True)
    args.o.write_text(text + "\n", encoding="utf-8", newline="\n")
    if args.page:
        into_page(args.page, tables(results))
    print(tables(results))


if __name__ == "__main__":
    main()
