"""Networks of every kind on two revisions, side by side: what a change of the compiler cost.

Run as ``python -m benchmarks.baselines old --tree FOLDER --models FOLDER --mnist FOLDER ...``:
compiles the networks with the ``pvq-hw`` of a checkout, by its command line alone, and keeps what
came out as that side's in ``results/baselines.json``. Rows that ask for it are built too, with
three seeds of place and route. What the file already holds is not measured again, so the run may
be stopped at any time; rows whose model or data are not there are left out. Without a name,
``--page FILE`` writes both sides' table into that page, between its marks.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.networks import mnist, read, save
from pvq_hw.bundled import DIGITS_DATA
from pvq_hw.data.dataset import Data, load_data, make_data

__all__ = ["ROWS", "Row", "figures", "main", "measure", "table"]

RESULTS = Path(__file__).parent / "results" / "baselines.json"
_ROOT = Path(__file__).parents[1]
MARKS = ("<!-- baselines: begin -->", "<!-- baselines: end -->")
_FRAMES = 3000  # to calibrate with
_SEEDS = (0, 1, 2)
_USED = {
    "luts": ("ICESTORM_LC", "TRELLIS_COMB"),
    "brams": ("ICESTORM_RAM", "DP16KD"),
    "dsps": ("ICESTORM_DSP", "MULT18X18D"),
}


@dataclass(frozen=True)
class Row:
    """A network, a board and the options of ``compile``; ``build``: placed with three seeds."""

    name: str
    file: str
    data: str
    target: str
    options: str = ""
    build: bool = False

    @property
    def key(self) -> str:
        """Of a result in the file."""
        return " ".join(filter(None, (self.name, self.target, self.options)))


_DIGITS, _SIGNS = "digits_mlp_64_32_10.onnx", "digits_signs_64_96_10.onnx"
_B, _A = "mnist_mlp_784_64_32_10.onnx", "mnist_netA_mlp_784_512_512_10.onnx"
_TINY, _VOWELS = "mnist_tinycnn_8_16_bn.onnx", "japanese_vowels_cnn.onnx"
ROWS = (
    Row("digits", _DIGITS, "digits", "icebreaker", "--ratio 5", build=True),
    Row("digits", _DIGITS, "digits", "hx8k", "--ratio 2", build=True),
    Row("digits", _DIGITS, "digits", "hx8k", "--ratio 2 --quantizer plain"),
    Row("digits, 8-bit", _DIGITS, "digits", "ulx3s-25f", "--int8 h,logits"),
    Row("digits, 4-bit", _DIGITS, "digits", "icebreaker", "--ratio 3 --activation-bits 4"),
    Row("digits, signs", _SIGNS, "digits", "hx8k", "--ratio 3"),
    Row("MLP B", _B, "mnist", "icebreaker", "--ratio 5", build=True),
    Row("MLP B", _B, "mnist", "hx8k", "--ratio 5"),
    Row("MLP B", _B, "mnist", "ulx3s-25f", "--ratio 2", build=True),
    Row("MLP B, 4 frames", _B, "mnist", "ulx3s-85f", "--ratio 5 --frames 4"),
    Row("MLP A", _A, "mnist", "ulx3s-25f", "--ratio 10"),
    Row("MLP A, SPRAM", _A, "mnist", "icebreaker", "--ratio 10"),
    Row("tiny CNN", _TINY, "mnist", "icebreaker", "--ratio 2"),
    Row("tiny CNN", _TINY, "mnist", "ulx3s-25f", "--ratio 2"),
    Row("LeNet-5", "mnist_lenet5_relu.onnx", "mnist", "orangecrab-25f", "--ratio 5"),
    Row("mnist-8", "mnist-8.onnx", "bytes", "ulx3s-25f", "--ratio 5"),
    Row("JapaneseVowels", _VOWELS, "vowels", "ulx3s-25f", "--ratio 6", build=True),
    Row("JapaneseVowels", _VOWELS, "vowels", "icebreaker", "--ratio 6"),
    Row("ResNet8", "pretrainedResnet.onnx", "cifar", "ulx3s-85f", "--ratio 3"),
)


def measure(row: Row, tree: Path, model: Path, data: Path, place: Path) -> dict[str, Any]:
    """Compiles, and builds where the row says so, with the code of a checkout.

    Raises
    ------
    RuntimeError
        With what ``compile`` said, where it refused.
    """
    out = place / "out"
    scale = ("--input-scale", "255") if row.data == "mnist" else ()
    arguments = (
        "compile", model, "--target", row.target, "--calibrate", data / "train.npz",
        "--evaluate", data / "test.npz", "-o", out, *row.options.split(), *scale,
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = _run(tree, arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:
        raise RuntimeError(ran.stderr.strip().splitlines()[-1])
    found = figures(out)
    found["compile_seconds"] = round(after.ru_utime - before.ru_utime, 1)
    if row.build:
        found |= _built(tree, out)
    return found


def figures(out: Path) -> dict[str, Any]:
    """What a row needs of an output folder, whichever revision wrote it."""
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))["compile"]
    used = plan["resources"]
    return {
        "accuracy_percent": report["accuracy"]["pvq"],
        "float_percent": report["accuracy"]["float"],
        "n_over_k": report["n_over_k"],
        "interval_cycles": plan["interval_cycles"],
        "latency_cycles": plan["latency_cycles"],
        "frames": plan.get("frames", 1),
        "lanes": [layer["lanes"] for layer in plan["layers"]],
        "code_bits": plan["code_bits"],
        **{f"estimated_{key}": used[key] for key in ("luts", "brams", "dsps", "sprams")},
    }


def _built(tree: Path, out: Path) -> dict[str, Any]:
    """Fmax of each seed, and the cells that were placed."""
    fmax, cells = [], {}
    for seed in _SEEDS:
        ran = _run(tree, ("build", out, "--seeds", 1, "--seed", seed))
        if ran.returncode == 0:
            built = json.loads(ran.stdout)
            fmax.append(built["fmax_mhz"])
            used = built["utilization"]
            cells = {
                key: next((used[name]["used"] for name in names if name in used), 0)
                for key, names in _USED.items()
            }
        else:  # the clock is not met; the message says what was reached
            found = re.search(rf"seed {seed}: ([0-9.]+)", ran.stdout + ran.stderr)
            if found is None:
                raise RuntimeError(ran.stderr.strip().splitlines()[-1])
            fmax.append(float(found[1]))
    return {"fmax_mhz": fmax, **{f"placed_{key}": value for key, value in cells.items()}}


def _run(tree: Path, arguments: Sequence[Any]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pvq_hw", *map(str, arguments), "--json", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def _data(args: argparse.Namespace, place: Path) -> dict[str, Path]:
    """Folders of ``train.npz`` and ``test.npz``, as far as there is data."""
    digits = [make_data([DIGITS_DATA], keys=[f"x_{p}", f"y_{p}"]) for p in ("train", "test")]
    found = {"digits": tuple(digits)}
    if args.mnist:
        found["mnist"] = found["bytes"] = mnist(args.mnist)
    if args.cifar:
        with np.load(args.cifar) as file:
            found["cifar"] = Data(file["x_calibration"]), Data(file["x"], file["y"])
    names = [_ROOT / "examples" / f"japanese_vowels_{part}.npz" for part in ("train", "test")]
    if all(name.exists() for name in names):
        found["vowels"] = tuple(load_data(name) for name in names)
    folders = {}
    for name, (train, test) in found.items():
        folders[name] = place / name
        folders[name].mkdir()
        order = np.random.default_rng(0).permutation(len(train.x))[:_FRAMES]
        np.savez(folders[name] / "train.npz", x=train.x[np.sort(order)])
        np.savez(folders[name] / "test.npz", x=test.x, y=test.y)  # type: ignore[arg-type]
    return folders


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Both sides' figures as Markdown, ``old -> new``."""
    old, new = results.get("old", {}), results.get("new", {})
    rows = [row for row in ROWS if row.key in old and row.key in new]
    lines = [
        "| network | board | options | accuracy | cycles (latency) | LUTs, estimated | block RAMs "
        "| code bits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        a, b = old[row.key], new[row.key]
        cycles = [f"{r['interval_cycles']:,} ({r['latency_cycles']:,})" for r in (a, b)]
        cells = (
            row.name, row.target, f"`{row.options}`",
            _pair(*(f"{r['accuracy_percent']:.2f} %" for r in (a, b))), _pair(*cycles),
            *(_pair(*(f"{r[key]:,}" for r in (a, b)))
              for key in ("estimated_luts", "estimated_brams", "code_bits")),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "", "Placed, seeds 0, 1 and 2:", "",
        "| network | board | cycles | LUTs | block RAMs | multipliers | Fmax MHz | median |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        a, b = old[row.key], new[row.key]
        if "fmax_mhz" not in a or "fmax_mhz" not in b:
            continue
        seeds = [", ".join(f"{f:.1f}" for f in r["fmax_mhz"]) for r in (a, b)]
        cells = (
            row.name, row.target, _pair(*(f"{r['interval_cycles']:,}" for r in (a, b))),
            *(_pair(*(f"{r.get(f'placed_{key}', 0):,}" for r in (a, b))) for key in _USED),
            _pair(*seeds), _pair(*(f"{median(r['fmax_mhz']):.1f}" for r in (a, b))),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _pair(old: str, new: str) -> str:
    return old if old == new else f"{old} → {new}"


def main() -> None:
    """Measures a side, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", nargs="?", choices=("old", "new"), help="what is measured")
    parser.add_argument("--tree", type=Path, default=_ROOT, help="the checkout to run")
    parser.add_argument(
        "--models", type=Path, action="append", default=[], help="folders of models"
    )
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("--cifar", type=Path, help="npz with x, y and x_calibration")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="results, JSON")
    parser.add_argument("--only", default="", help="only rows whose key begins so")
    parser.add_argument("--plan-only", action="store_true", help="build nothing")
    parser.add_argument("--page", type=Path, help="page to write the table into")
    args = parser.parse_args()
    if args.side:
        _measure_side(args)
    if args.page:
        before, rest = args.page.read_text(encoding="utf-8").split(MARKS[0])
        text = f"{before}{MARKS[0]}\n{table(read(args.output))}{MARKS[1]}"
        args.page.write_text(text + rest.split(MARKS[1])[1], encoding="utf-8", newline="\n")


def _measure_side(args: argparse.Namespace) -> None:
    # Tools that run in a sandbox see no absolute paths below the system's temporary folder.
    with tempfile.TemporaryDirectory(dir=_ROOT, prefix="baselines-") as folder:
        data = _data(args, Path(folder))
        for number, row in enumerate(ROWS):
            results = read(args.output)
            models = [path / row.file for path in (*args.models, _ROOT / "examples")]
            model = next((path for path in models if path.exists()), None)
            build = row.build and not args.plan_only
            found = results.get(args.side, {}).get(row.key)
            known = found is not None and ("fmax_mhz" in found or not build)
            if known or model is None or row.data not in data or not row.key.startswith(args.only):
                continue
            print(f"{args.side}: {row.key} ...", flush=True)
            place = Path(folder) / str(number)
            place.mkdir()
            try:
                found = measure(
                    replace(row, build=build), args.tree.resolve(), model, data[row.data], place
                )
            except RuntimeError as error:
                print(f"{args.side}: {row.key}: {error}", flush=True)
                continue
            results = read(args.output)
            results.setdefault(args.side, {})[row.key] = found
            save(args.output, results)


if __name__ == "__main__":
    main()
