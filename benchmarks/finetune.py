"""Accuracy at few pulses after fine-tuning: with recipes that are given, and without options.

Run as ``python -m benchmarks.finetune --models FOLDER --mnist FOLDER [--cifar FILE.npz]
[-o RESULTS.json]``. Every row is quantized and trained on the training inputs only, and judged once
by the integer golden model on the test inputs: 8-bit activations, one gain a row, no int8 layers,
codes anywhere, mean N/K of the final codes. First those of `PICKED`, through what ``pvq-hw finetune
MODEL --data`` does without other options, one seed; then those of `ROWS`, whose recipe is given.
Results that the file already holds are not computed again, so the run may be stopped at any time.
``--report`` only prints the tables. Needs PyTorch (``pvq-hw[train]``).
"""

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pvq_hw
from benchmarks.networks import INPUT_SCALES, NETWORKS, arguments, mnist, parse, read, save
from benchmarks.promise import Case, case_data
from pvq_hw.data.dataset import Data
from pvq_hw.evaluate.accuracy import evaluate_network
from pvq_hw.flow.options import CompileOptions
from pvq_hw.model.load import load_model
from pvq_hw.progress import Steps
from pvq_hw.train.finetune import Training, finetune
from pvq_hw.train.flow import finetune_file
from pvq_hw.train.torch_extra import require_torch

# network, N/K, accuracy to reach (%), training.
_LONG = Training(
    epochs=40,
    batch=500,
    rate=2e-3,
    project_every=4,
    distill=0.1,
    temperature=4,
    shift=1,
    by_row=True,
)
ROWS: tuple[tuple[str, float, float, Training], ...] = (
    ("A", 20, 98.5, Training(epochs=12, rate=2e-3, distill=0.2, temperature=2, shift=1)),
    ("A", 40, 98.2, Training(epochs=12, rate=2e-3, temperature=2, shift=1)),
    ("B", 8, 97.5, _LONG),
    ("B", 15, 97.0, _LONG),
)


@dataclass(frozen=True)
class Goal:
    """A network and an N/K without a recipe, and what it is to reach on the test inputs: percent
    of right answers, or so many points above the codes that it starts from."""

    case: Case
    ratio: float
    percent: float | None = None
    above: float = 0.0

    @property
    def key(self) -> str:
        """Of its results in the file."""
        return f"{self.case.name} ratio={self.ratio:g} picked seed=0"

    def to_reach(self, start: float) -> float:
        """Percent, of a network that starts from so many."""
        return start + self.above if self.percent is None else self.percent


def _goal(
    name: str, file: str, data: str, ratio: float, scale: float = 1.0, **reach: float
) -> Goal:
    return Goal(Case(name, file, data, "", scale), ratio, **reach)


_SCALE = 255.0
PICKED = (
    _goal("digits MLP", "", "digits", 10),
    _goal("JapaneseVowels CNN", "japanese_vowels_cnn.onnx", "japanese_vowels", 10),
    _goal("BasicMotions DS-CNN", "basic_motions_dscnn.onnx", "basic_motions", 5),
    _goal("ResNet8", "pretrainedResnet.onnx", "cifar", 3, above=2),
    _goal("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "mnist", 4, _SCALE, percent=99.0),
    _goal("mnist-8", "mnist-8.onnx", "mnist", 5, percent=98.75),
    _goal("LeNet-5", "mnist_lenet5_relu.onnx", "mnist", 10, _SCALE, percent=98.9),
    _goal("network A", NETWORKS["A"], "mnist", 20, _SCALE, percent=98.55),
)
RESULTS = Path(__file__).parent / "results" / "finetune.json"


def measure(
    row: tuple[str, float, float, Training], seed: int, models: Path, train: Data, test: Data
) -> dict[str, Any]:
    """Fine-tunes one network once; returns what the table needs."""
    name, ratio, goal, training = row
    scale = INPUT_SCALES[name]
    train, test = (Data(d.x, d.y, scale) for d in (train, test))
    model = load_model(models / NETWORKS[name])
    wall, cpu = time.perf_counter(), time.process_time()
    tuned = finetune(
        model, train.x, train.y, ratio=ratio, input_scale=scale, seed=seed, training=training
    )
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    start, final = (evaluate_network(model, n, test) for n in (tuned.start, tuned.network))
    return {
        "network": name,
        "ratio": ratio,
        "goal_percent": goal,
        "seed": seed,
        "training": asdict(training),
        "n_over_k": tuned.network.n_over_k,
        "layer_n_over_k": [
            float(x.weights.size / abs(x.weights).sum())
            for x in tuned.network.layers
            if x.weights is not None
        ],
        "float_percent": start.exact,
        "start_percent": start.pvq,
        "tuned_percent": final.pvq,
        "losses": [round(loss, 4) for loss in tuned.losses],
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
    }


class _Told(Steps):
    """Prints what recipes reach on inputs held out."""

    def note(self, text: str) -> None:
        print(f"  {text}", flush=True)


def measure_picked(goal: Goal, path: Path, train: Data, test: Data) -> dict[str, Any]:
    """What the verb does without options, once; returns what the table needs."""
    scale = goal.case.input_scale
    train, test = (replace(d, input_scale=scale) for d in (train, test))
    options = CompileOptions(ratio=goal.ratio, input_scale=scale)
    cpu = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        document = finetune_file(
            path, Path(folder) / "tuned.onnx", train, options, {}, evaluation=test, steps=_Told()
        )
    seconds = time.process_time() - cpu
    found, recipes = document["accuracy"], document["recipes"]
    return {
        "network": goal.case.name,
        "ratio": goal.ratio,
        "n_over_k": document["n_over_k"],
        "to_reach_percent": round(goal.to_reach(found["start"]), 4),
        "float_percent": found["float"],
        "start_percent": found["start"],
        "tuned_percent": found["tuned"],
        "frames": found["frames"],
        "training_frames": len(train),
        "held": recipes["held"],
        "recipe": recipes["tried"][recipes["chosen"]]["name"],
        "tried": recipes["tried"],
        "seed": 0,
        "processor_seconds": round(seconds, 1),
        "versions": {
            "pvq-hw": pvq_hw.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": require_torch().__version__,
        },
    }


def picked_report(results: dict[str, Any]) -> str:
    """The table of what was picked."""
    lines = [
        "| network | N/K | trained on | held out | float | calibrated | fine-tuned | to reach "
        "| recipe picked | test inputs | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for goal in PICKED:
        found = results.get(goal.key)
        if found is None:
            continue
        best = max(t["figure"] for t in found["tried"])
        lines.append(
            f"| {found['network']} | {found['n_over_k']:.2f} | {found['training_frames']:,} "
            f"| {found['tried'][0]['figure']:.2f} to {best:.2f} of {found['held']:,} "
            f"| {found['float_percent']:.2f} | {found['start_percent']:.2f} "
            f"| {found['tuned_percent']:.2f} | {found['to_reach_percent']:.2f} "
            f"| {found['recipe']} | {found['frames']:,} | {found['processor_seconds']:.0f} |"
        )
    return "\n".join(lines)


def report(results: dict[str, Any]) -> str:
    """The table: goal, medians, all seeds."""
    lines = [
        "| network | N/K | mean N/K | float | calibrated | fine-tuned | seeds | to reach | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for entry in results.values():
        if "recipe" in entry:
            continue
        groups.setdefault((entry["network"], entry["ratio"]), []).append(entry)
    for (name, ratio), entries in sorted(groups.items()):
        tuned = [e["tuned_percent"] for e in entries]
        lines.append(
            f"| {name} | {ratio:g} | {min(e['n_over_k'] for e in entries):.2f} "
            f"| {entries[0]['float_percent']:.2f} "
            f"| {statistics.median(e['start_percent'] for e in entries):.2f} "
            f"| {statistics.median(tuned):.2f} | {', '.join(f'{t:.2f}' for t in tuned)} "
            f"| {entries[0]['goal_percent']:g} "
            f"| {statistics.median(e['seconds']['cpu'] for e in entries):.0f} |"
        )
    return "\n".join(lines)


def _run_picked(args: argparse.Namespace) -> None:
    for goal in PICKED:
        if goal.key in read(args.output) or not goal.key.startswith(args.only):
            continue
        source = case_data(goal.case, args)
        if source is None:
            continue
        print(f"{goal.key} ...", flush=True)
        found = measure_picked(goal, *source)
        save(args.output, read(args.output) | {goal.key: found})
        print(*(found[f"{n}_percent"] for n in ("start", "tuned", "to_reach")), flush=True)


def _run_given(args: argparse.Namespace) -> None:
    train, test = mnist(args.mnist)
    for seed in range(args.seeds):
        for row in ROWS:
            key = f"{row[0]} ratio={row[1]:g} seed={seed}"
            if args.network not in (None, row[0]) or args.ratio not in (None, row[1]):
                continue
            results = read(args.output)
            if key in results or not key.startswith(args.only):
                continue
            results[key] = measure(row, seed, args.models, train, test)
            save(args.output, results)
            print(key, *(results[key][f"{n}_percent"] for n in ("start", "tuned")), flush=True)


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--cifar", type=Path, help="npz with x, y, x_calibration, y_calibration")
    parser.add_argument("--only", default="", help="only rows whose key begins so")
    parser.set_defaults(kws=None)
    args = parse(parser)
    if not args.report:
        _run_picked(args)
        _run_given(args)
    results = read(args.output)
    print(picked_report(results), report(results), sep="\n\n")


if __name__ == "__main__":
    main()
