"""The four networks of MLPerf Tiny on boards: accuracy, simulated speed, place and route.

Run as ``python -m benchmarks.mlperf_tiny --models FOLDER --kws FOLDER --cifar FILE.npz --ad FOLDER
--page docs/mlperf-tiny.md``. Each row runs the verbs: ``compile`` with the file's calibration
inputs and without labels, ``simulate`` with some of the test inputs and, with ``--build``, ``build
--clock max`` with ``--seeds N``. What the results hold already is not run again, so the run may be
stopped at any time.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pvq_hw
from benchmarks.networks import read, save
from benchmarks.reach import Row, data_arguments, judged_output, row_data, run_verb
from pvq_hw.data.dataset import Data

__all__ = ["PUBLISHED", "ROWS", "TASKS", "Task", "main", "page", "task_table"]

RESULTS = Path(__file__).parent / "results" / "mlperf_tiny.json"


@dataclass(frozen=True)
class Task:
    """A task of MLPerf Tiny: its network's file and data (see `benchmarks.reach`), and how many
    frames are simulated."""

    name: str
    file: str
    data: str
    frames: int


TASKS = {
    "KWS": Task("keyword spotting, DS-CNN", "kws_dscnn.onnx", "kws", 20),
    "IC": Task("image classification, ResNet8", "pretrainedResnet.onnx", "cifar", 5),
    "VWW": Task("visual wake words, MobileNet 0.25 96 x 96", "vww96.onnx", "vww", 2),
    "AD": Task("anomaly detection, autoencoder", "ad01.onnx", "ad", 100),
}

_FIXED = {"KWS": "--ratio 3", "IC": "--ratio 3", "VWW": "--ratio 3", "AD": "--ratio 5"}
_QUALITY = {
    "KWS": "--max-loss 1",
    "IC": "--max-loss 1",
    "VWW": "--max-loss 1",
    "AD": "--max-loss 15",
}
"""Points of accuracy or, of AD, percent of error of the outputs, of which its 8-bit activations
alone leave more than ten."""
BOARDS = ("icebreaker", "hx8k", "ulx3s-25f", "ulx3s-85f")
_PACES = {
    ("KWS", "ulx3s-25f"): "--inferences-per-second 9000",
    ("KWS", "ulx3s-85f"): "--inferences-per-second 14000",
    ("IC", "ulx3s-85f"): "--clock-mhz 100 --inferences-per-second 8500",
}
ROWS = tuple(
    (task, board, options)
    for task, fixed in _FIXED.items()
    for board in BOARDS
    for options in (
        fixed,
        *(f"{fixed} {pace}" for place, pace in _PACES.items() if place == (task, board)),
        _QUALITY[task],
    )
)
"""(task, board, options of ``compile``)."""

PUBLISHED = {
    "KWS": (("ZedBoard (Zynq 7020)", 3088), ("Cora Z7 (Zynq 7007S)", 237), ("STM32U385", 21)),
    "IC": (
        ("Zynq 7045", 6790),
        ("Zynq 7020, fpgaConvNet", 2431),
        ("Agilex 3", 2178),
        ("Zynq 7020, FINN", 661),
        ("STM32U385", 5.5),
    ),
    "VWW": (("Zynq 7045", 1388), ("ZedBoard (Zynq 7020)", 105), ("STM32U385", 10)),
    "AD": (("STM32U385", 186), ("Titanium Ti180", 67)),
}
"""Inferences a second of published entries (MLPerf Tiny up to v1.4); the STM32U385 is a
Cortex-M33."""


def _key(task: str, board: str, options: str) -> str:
    return f"{task} {board} {options}"


def _verb(*words: object) -> list[str]:
    return [sys.executable, "-m", "pvq_hw", *map(str, words)]


def _document(*words: object) -> dict[str, Any]:
    """What a verb says in JSON.

    Raises RuntimeError with its last line where it failed.
    """
    done = subprocess.run(
        [*_verb(*words), "--json", "--quiet"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(
    task: Task,
    board: str,
    options: str,
    model: Path,
    data: tuple[Data, Data],
    seeds: int,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A row's figures; what a verb refuses is one of them.

    ``seeds`` of place and route, each of which takes minutes; what is ``known`` already, but for
    these, is not measured again where the plan has its cycles still.
    """
    train, test = data
    with tempfile.TemporaryDirectory(dir=".") as folder:
        calibration, frames, out = (Path(folder) / name for name in ("cal.npz", "x.npz", "out"))
        # Points of accuracy need labels; codes at a mean N/K are made without.
        given: dict[str, Any] = {"x": train.x}
        if "--max-loss" in options and train.y is not None:
            given["y"] = train.y
        np.savez(calibration, **given)
        np.savez(frames, x=test.x[: task.frames])
        command = _verb(
            "compile", model, "--target", board, *options.split(), "--calibrate", calibration,
            "-o", out, "--quiet",
        )  # fmt: skip
        try:
            found = run_verb(command)
        except RuntimeError as error:
            return {"refused": str(error).removeprefix("pvq-hw: ")}
        if known is None or known["simulated_cycles"] != pvq_hw.load(out).plan.interval_cycles:
            found |= judged_output(out, model, test, rebuilds=task.data == "ad")
            found |= _simulated(out, frames)
        else:
            found = dict(known)
        if seeds:
            try:
                found |= _built(out, seeds)
            except RuntimeError as error:
                found["not_built"] = str(error).removeprefix("pvq-hw: ")
        return found


def _simulated(out: Path, frames: Path) -> dict[str, Any]:
    plan = pvq_hw.load(out).plan
    said = _document("simulate", out, "--data", frames)
    used = plan.resources
    return {
        "energy_uj": plan.energy_nj / 1000,
        "clock_mhz": plan.clock_mhz,
        "planned": {"luts": used.luts, "block_rams": used.brams, "dsps": used.dsps},
        "int8_layers": sum(layer.encoding == "int8" for layer in plan.layers),
        "layers": len(plan.layers),
        "simulated_frames": said["frames"],
        "mismatches": said["mismatches"],
        "simulated_cycles": said["interval_cycles"],
    }


def _built(out: Path, seeds: int) -> dict[str, Any]:
    said = _document("build", out, "--seeds", seeds, "--best", "--clock", "max")
    used = {name: row["used"] for name, row in said["utilization"].items()}
    luts = next(used[name] for name in ("ICESTORM_LC", "TRELLIS_COMB") if name in used)
    rates = sorted(attempt["fmax_mhz"] for attempt in said["seeds"])
    return {"built": {"clock_mhz": said["clock_mhz"], "luts": luts, "fmax_mhz": rates}}


_ABOUT = """\
# MLPerf Tiny

The four tasks' networks through `pvq-hw compile`, `simulate` and `build`, from the ONNX files with
the files' own float weights: calibrated without labels on the calibration inputs (500 of KWS, 1,000
CIFAR-10 images, of VWW 500 of them enlarged to 96 x 96, 1,996 windows of ad01), once with a mean
N/K (of two tasks once more with a pace asked for, which takes the smallest that keeps it), once
with `--max-loss`, and labels where there are any: as fast as it goes for a point lost by inputs
held out, or, of ad01, 15 % of error of its outputs. Test inputs are judged by the integer golden
model; those of VWW are no photographs of the task (its data may not be passed on), so only answers
like float's count, and ad01 is judged by its reconstruction errors.
*Cycles* are simulated, every layer's outputs compared with the golden model (*frames*, and
how many outputs differed). *Clock*: the highest that a seed met after place and route of the whole
board, and how many seeds were tried, or what they met where that is too slow for the pace that was
asked for, and `build` refuses; *planned* where the row was not built: the board's usual
clock, and LUTs by estimate. *Energy* is modelled (adds, reads, multiplications; no idle power), not
measured. Nothing here has run on a real board yet; entries of others are measured ones, of their
submitters. The row of KWS on the ULX3S-25F with `--max-loss 1` is of a plan from before
[carry chains were shortened](decisions/carry-chains.md), that on the iCEBreaker with it from before
[some layers could share an engine](decisions/shared.md#some-layers-on-an-engine).

This is no submission: the runner's energy and latency rules were not followed. Made by

    python -m benchmarks.mlperf_tiny --models FOLDER --kws FOLDER --cifar FILE.npz --ad FOLDER \\
        [--build] --page docs/mlperf-tiny.md
"""

_MISSED = re.compile(r"but has ([\d,]+) inferences a second")
_HEAD = """
| board | options | mean N/K, 8-bit layers | float | right | as float's | cycles | frames, wrong | clock, MHz | inferences/s | LUTs | energy, uJ |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    parts = [_ABOUT]
    for key, task in TASKS.items():
        rows = [row for row in ROWS if row[0] == key]
        missing = [f"{b} `{o}`" for _, b, o in rows if _key(key, b, o) not in results]
        parts.append(f"\n## {key}: {task.name}\n")
        parts.append(task_table(key, results))
        if missing:
            parts.append(f"\nNot measured: {', '.join(missing)}.\n")
        others = ", ".join(f"{name} {rate:,g}" for name, rate in PUBLISHED[key])
        parts.append(f"\nPublished, inferences a second: {others}.\n")
    return "".join(parts)


def task_table(key: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of a task's rows that were measured, in Markdown; empty without any."""
    lines = [_line(*row[1:], results[_key(*row)]) for row in ROWS
             if row[0] == key and _key(*row) in results]  # fmt: skip
    return _HEAD + "\n".join(lines) + "\n" if lines else ""


def _line(board: str, options: str, found: Mapping[str, Any]) -> str:
    if "refused" in found:
        return f"| {board} | `{options}` | refused: {_cell(found['refused'])} |{' |' * 9}"
    frames, built = found["frames"], found.get("built")
    clock = built["clock_mhz"] if built else found["clock_mhz"]
    tried = len(built["fmax_mhz"]) if built else 0
    whose = f" of {tried} seed{'s' * (tried > 1)}" if built else ", planned"
    missed = _MISSED.search(found.get("not_built", ""))
    if missed:  # as the pace that was reached says
        clock = int(missed[1].replace(",", "")) * found["simulated_cycles"] / 1e6
        whose = ", too slow for that pace"
    rate = 1e6 * clock / found["simulated_cycles"]
    same = f"{100 * found['same'] / frames:.1f} %" if "same" in found else ""
    if "correlation" in found:
        same = f"errors correlate {found['correlation']:.3f}"
    labeled = "right" in found
    cells = (
        board, f"`{options}`", f"{found['n_over_k']:.2f}, {found['int8_layers']} of "
        f"{found['layers']}",
        f"{100 * found['float_right'] / frames:.1f}" if labeled else "",
        f"{100 * found['right'] / frames:.1f}" if labeled else "",
        same, f"{found['simulated_cycles']:,}",
        f"{found['simulated_frames']}, {found['mismatches']}",
        f"{clock:.4g}{whose}", f"{rate:,.0f}",
        f"{built['luts']:,}" if built else f"{found['planned']['luts']:,} planned",
        f"{found['energy_uj']:.2f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "/")


def main(words: Sequence[str] | None = None) -> None:
    """Runs what is missing, and writes the page."""
    parser = data_arguments(__doc__, RESULTS)
    parser.add_argument(
        "--only", default="", help="only rows whose key begins so; a dollar sign is its end"
    )
    parser.add_argument("--build", action="store_true", help="place and route too")
    parser.add_argument("--seeds", type=int, default=3, help="of place and route (default 3)")
    parser.add_argument("--page", type=Path, help="page to write")
    args = parser.parse_args(words)
    for key, board, options in ROWS if args.models else ():
        name, task = _key(key, board, options), TASKS[key]
        known = read(args.output).get(name)
        done = known is not None and (not args.build or {"built", "refused"} & set(known))
        data = None if done or not f"{name}$".startswith(args.only) else _data(task, args)
        if data is None:
            continue
        print(f"{name} ...", flush=True)
        seeds = args.seeds if args.build else 0
        found = measure(task, board, options, args.models / task.file, data, seeds, known)
        save(args.output, read(args.output) | {name: found})
        print(found, flush=True)
    if args.page:
        args.page.write_text(page(read(args.output)), encoding="utf-8", newline="\n")


def _data(task: Task, args: argparse.Namespace) -> tuple[Data, Data] | None:
    return row_data(Row(task.name, task.file, task.data, "", 1, 0), args)


if __name__ == "__main__":
    main()
