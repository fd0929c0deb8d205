"""Whole networks of unrolled layers: accuracy, simulated cycles, place and route.

Run as ``python -m benchmarks.unrolled_networks --models FOLDER --digits CAL.npz TEST.npz --mnist
CAL.npz TEST.npz --page docs/benchmarks-unrolled-networks.md``. Each row runs the verbs ``compile``
and ``simulate``, places the accelerator of some alone between shift registers on the board's chip,
and the board's whole bitstream by ``build``, with each seed. What the results hold already is not
run again, so the run may be stopped at any time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pvq_hw
from benchmarks.engine_place import DEVICES, place
from benchmarks.networks import read, save
from gateware.accelerator.accelerator import Accelerator

__all__ = ["ROWS", "Row", "main", "page"]

RESULTS = Path(__file__).parent / "results" / "unrolled_networks.json"
SEEDS = (1, 2, 3)
_WHOLE = "--engine unrolled --digit 0 --gain-digits 2 --input-width 64 --output-width 10"
_SERIAL = "--engine unrolled --digit 1"
_FRAMES = 500  # simulated
_SURE = 0.9, 0.6  # of the planned clock: nextpnr reaches less where less is asked
_CHIPS = {"ulx3s-25f": "LFE5U-25F", "icebreaker": "UP5K"}  # of rows that are placed alone
_SCALE = {"digits": "--input-scale 16", "mnist": ""}


@dataclass(frozen=True)
class Row:
    """A network on a board: its file and data, how it is compiled, whether it is placed alone too,
    between shift registers, and nextpnr's placer of the board's bitstream."""

    network: str
    file: str
    data: str
    board: str
    options: str
    alone: bool = False
    placer: str = "heap"

    @property
    def key(self) -> str:
        """In the results."""
        return f"{self.network}, {self.board}, {self.options}"


_DIGITS = ("digits 64-32-10", "digits_mlp_64_32_10.onnx", "digits")
_MLP = ("784-64-32-10", "mnist_mlp_784_64_32_10.onnx", "mnist")
_CNN = ("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "mnist")
ROWS = (
    Row(*_DIGITS, "ulx3s-25f", f"--ratio 5 {_WHOLE} --clock-mhz 150", alone=True),
    Row(*_DIGITS, "ulx3s-25f", f"--ratio 2 {_WHOLE} --clock-mhz 150", alone=True),
    Row(
        *_MLP,
        "ulx3s-85f",
        "--ratio 10 --engine unrolled --input-width 49 --clock-mhz 80",
        placer="static",
    ),
    Row(
        *_MLP,
        "ulx3s-25f",
        f"--ratio 10 --activation-bits 4 {_SERIAL} --input-width 14",
        placer="static",
    ),
    Row(*_CNN, "ulx3s-25f", "--ratio 2"),
    Row(*_DIGITS, "hx8k", f"--ratio 5 {_SERIAL}"),
    Row(
        *_DIGITS,
        "icebreaker",
        "--ratio 5 --engine h=unrolled,logits=folded --digit h=1",
        alone=True,
    ),
)


def _verb(*words: object) -> dict[str, Any]:
    """What a verb says in JSON; one that fails a check says so in it."""
    command = [sys.executable, "-m", "pvq_hw", *map(str, words), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        raise RuntimeError(found["error"])
    return found


def simulated(row: Row, out: Path, test: Path) -> dict[str, Any]:
    """Accuracy of the compiled network, and its cycles in simulation."""
    accelerator = pvq_hw.load(out)
    used = accelerator.plan.resources
    with np.load(test) as data:
        x, labels = data["x"], data["y"]
    frames = out.with_suffix(".npz")
    np.savez(frames, x=x[:_FRAMES], y=labels[:_FRAMES])
    said = _verb("simulate", out, "--data", frames)
    return {
        "frames": said["frames"],
        "mismatches": said["mismatches"],
        "interval": said["interval_cycles"],
        "latency": accelerator.plan.latency_cycles,
        "planned_luts": used.luts,
    }


def alone(row: Row, out: Path, seed: int) -> dict[str, Any]:
    """The accelerator between shift registers on the board's chip, placed and routed."""
    accelerator, chip = pvq_hw.load(out), DEVICES[_CHIPS[row.board]]
    core = Accelerator(accelerator.plan.graph, accelerator.image.cores, body=chip.body)
    found = place(core, chip, (seed,), out.parent)
    (run,) = found.pop("runs")
    return found | run


def board(row: Row, out: Path, seed: int) -> dict[str, Any]:
    """The board's bitstream, placed and routed near the planned clock, or at one that each seed
    meets; Fmax counts."""
    planned = pvq_hw.load(out).plan.clock_mhz
    for part in _SURE:
        clock = round(part * planned)
        try:
            how = ("--seeds", 1, "--seed", seed, "--clock", clock, "--placer", row.placer)
            said = _verb("build", out, *how)
        except RuntimeError as error:
            if part == _SURE[-1] or "is not met" not in str(error):
                raise
        else:
            break
    used = {name: row["used"] for name, row in said["utilization"].items()}
    (attempt,) = said["seeds"]
    return {
        "luts": next(used[name] for name in ("ICESTORM_LC", "TRELLIS_COMB") if name in used),
        "dsps": sum(used.get(name, 0) for name in ("MULT18X18D", "ICESTORM_DSP")),
        "fmax_mhz": attempt["fmax_mhz"],
    }


def _placed(
    run: Callable[[Row, Path, int], dict[str, Any]], row: Row, out: Path, seed: int
) -> dict[str, Any]:
    """What a seed gives; without a clock where nextpnr finds no place for every cell."""
    try:
        return run(row, out, seed)
    except RuntimeError as error:
        if "legal placement" not in str(error):
            raise
        return {"fmax_mhz": None}


def measure(
    row: Row, found: dict[str, Any], folder: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """A row's figures that are missing, of the parts asked for."""
    calibration, test = (path.resolve() for path in getattr(args, row.data))
    out = folder / "out"
    said = _verb(
        "compile", args.models / row.file, "--target", row.board, "--calibrate", calibration,
        "--evaluate", test, *_SCALE[row.data].split(), *row.options.split(), "-o", out,
    )  # fmt: skip
    if "simulated" not in found:
        judged = said["accuracy"]
        found["accuracy"] = {k: judged[k] for k in ("float", "pvq")}
        found["simulated"] = simulated(row, out, test)
    for part, run in (("alone", alone), ("board", board)):
        if part not in args.parts or (part == "alone" and not row.alone):
            continue
        runs = found.setdefault(part, {})
        for seed in args.seeds:
            if str(seed) not in runs:
                runs[str(seed)] = _placed(run, row, out, seed)
                save(args.output, read(args.output) | {row.key: found})
    return found


_ABOUT = """\
# Networks of unrolled layers

Whole networks with their weights as wires, through `pvq-hw compile`, `simulate` and `build`: codes
calibrated without labels, accuracy on test inputs by the integer golden model. *Cycles* are
simulated, every layer's outputs compared with the golden model, which folded layers give too; a
latency is that of the accelerator, from a frame's first transfer to its last result, at the median
*clock* of the seeds that have a legal placement (*none*: nextpnr finds none). *Alone*: the
accelerator between shift registers on the board's chip (an LFE5U-25F of speed grade 6, a UP5K),
their registers and about one LUT a bit counted in; *board*: the board's whole bitstream with its
serial link, with nine tenths of the planned clock as nextpnr's goal, or with six where that is not
met. 784-64-32-10 on the ULX3S-85F was placed by `build --placer static`. The rows of that network
on the ULX3S-25F and of the HX8K are of earlier code (the former by the analytical placer, which found
no end there this time). Calibrated on the digits' 1,297 training inputs, and on 2,000 of MNIST's.
Nothing here has run on a real board yet. Made by

    python -m benchmarks.unrolled_networks --models FOLDER --digits CAL.npz TEST.npz \\
        --mnist CAL.npz TEST.npz --page docs/benchmarks-unrolled-networks.md

| network | options of `compile` | right, float's | cycles a frame, latency | frames, wrong | placed as | clock of the seeds, MHz | inferences/s | latency, ns | LUTs | DSP blocks |
|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown: a line for every way in which a network was placed."""
    lines = []
    for row in ROWS:
        found = results.get(row.key, {})
        if "simulated" in found:
            ways = [way for way in ("alone", "board") if found.get(way)] or [""]
            lines += [_line(row, found, way) for way in ways]
    missing = [f"{r.network} on {r.board}, `{r.options}`" for r in ROWS if r.key not in results]
    tail = f"\nNot measured: {'; '.join(missing)}.\n" if missing else ""
    return _ABOUT + "\n".join(lines) + "\n" + tail


def _line(row: Row, found: Mapping[str, Any], way: str) -> str:
    said, right = found["simulated"], found["accuracy"]
    cells = [
        row.network, f"`--target {row.board} {row.options}`",
        f"{right['pvq']:g} % of {right['float']:g} %",
        f"{said['interval']:,}, {said['latency']:,}", f"{said['frames']}, {said['mismatches']}",
    ]  # fmt: skip
    if not way:
        cells += ["not placed", "", "", "", f"{said['planned_luts']:,} planned", ""]
        return f"| {' | '.join(cells)} |"
    runs = found[way]
    rates = [runs[seed]["fmax_mhz"] for seed in sorted(runs)]
    placed = [run for run in runs.values() if run["fmax_mhz"]]
    if not placed:
        cells += ["no legal placement", "", "", "", f"{said['planned_luts']:,} planned", ""]
        return f"| {' | '.join(cells)} |"
    clock, first = statistics.median_low(run["fmax_mhz"] for run in placed), placed[0]
    cells += [
        way if way == "alone" else row.board,
        ", ".join(f"{rate:.1f}" if rate else "none" for rate in rates),
        f"{1e6 * clock / said['interval']:,.0f}",
        f"{1e3 * said['latency'] / clock:,.0f}",
        f"{first['luts']:,}", str(first["dsps"]),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> None:
    """Runs what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the ONNX files")
    for name in _SCALE:
        parser.add_argument(
            f"--{name}", type=Path, nargs=2, help="inputs to calibrate with, and to test"
        )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="results, JSON")
    parser.add_argument("--only", default="", help="only rows whose key has this in it")
    parser.add_argument("--parts", nargs="*", default=["alone", "board"], help="what is placed")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="1 2 3 unless given")
    parser.add_argument("--page", type=Path, help="page to write")
    args = parser.parse_args(words)
    for row in ROWS if args.models else ():
        if args.only not in row.key or getattr(args, row.data) is None:
            continue
        print(f"{row.key} ...", flush=True)
        with tempfile.TemporaryDirectory(dir=".", prefix="networks-") as folder:
            found = measure(row, read(args.output).get(row.key, {}), Path(folder), args)
        save(args.output, read(args.output) | {row.key: found})
        print(json.dumps(found), flush=True)
    if args.page:
        args.page.write_text(page(read(args.output)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
