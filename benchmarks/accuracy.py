"""Accuracy at few pulses: post-training quantization of dense networks, no training.

Run as ``python -m benchmarks.accuracy --models FOLDER --mnist FOLDER -o RESULTS.json``. Every row
of the table is quantized from a few calibration draws (training images only, no labels; slightly
distorted copies where they are images of a size that bears it) and judged by the integer golden
model on the test images: 8-bit activations, one gain per row, no int8 layers, mean N/K of the
final codes. Results that the file already holds are not computed again, so the run may be stopped
at any time. ``--report`` only prints the table and writes what ``--page`` and ``--chart`` name.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy_page import chart, page
from benchmarks.networks import INPUT_SCALES, NETWORKS, arguments, mnist, parse, read, save
from pvq_hw.data.dataset import Data
from pvq_hw.flow.compile import quantize_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.target.boards import get_target

TITLES = {
    "A": "MNIST 784-512-512-10",
    "B": "MNIST 784-64-32-10",
    "D": "UCI digits 64-32-10",
}
# network, N/K, accuracy to reach (%; 0 where none was set), calibration frames, sweeps.
Row = tuple[str, float, float, int, int]
ROWS: tuple[Row, ...] = (
    ("A", 5, 98.5, 30000, 2),
    ("A", 10, 98.4, 10000, 1),
    ("A", 20, 98.1, 6000, 1),
    ("A", 35, 97.3, 6000, 1),
    ("B", 2.5, 97.5, 40000, 4),
    ("B", 5, 97.4, 40000, 4),
    ("B", 8, 97.0, 20000, 2),
    ("D", 2, 0, 1000, 2),
    ("D", 5, 0, 1000, 2),
    ("D", 8, 0, 1000, 2),
)
# What balance over the lanes costs, by the defaults of the flow.
BALANCED: tuple[Row, ...] = (("A", 5, 0, 6000, 1), ("A", 20, 0, 6000, 1))
TEST_FRAMES = {"A": 10_000, "B": 10_000, "D": 500}
KINDS = ("plain", "calibrated", "unbalanced", "balanced")
LANES, BOARD = 16, "ulx3s-85f"
_DIGITS = Path(__file__).parents[1] / "pvq_hw" / "bundled" / "digits.npz"
# On training images held out, distorted copies help where there are more weights than the images
# pin down, not where pulses are what lacks.
AUGMENT = {"A": "shift,rotate,scale,shear", "B": "", "D": ""}
_PLAIN_FRAMES = 2000


def _accuracy(network: Any, data: Data, scale: float) -> float:
    """Percent of right answers of the golden model."""
    outputs = network.predict(network.quantize_input(data.x, scale))
    return 100.0 * float((outputs.argmax(axis=1) == data.y).mean())


def measure(
    row: Row,
    seed: int,
    models: Path,
    train: Data,
    test: Data,
    quantizer: str = "calibrated",
) -> dict[str, Any]:
    """Quantizes one network once; returns what the table needs."""
    name, ratio, goal, frames, sweeps = row
    model, scale = load_model(models / NETWORKS[name]), INPUT_SCALES[name]
    if quantizer == "plain":
        frames = min(frames, _PLAIN_FRAMES)  # they only decide scales
    x = train.x
    start = time.process_time()
    if quantizer == "balanced":
        network = _balanced(row, model, x, scale, seed)
    else:
        network = quantize(
            model,
            calibration=x,
            ratio=ratio,
            quantizer="plain" if quantizer == "plain" else "calibrated",
            input_scale=scale,
            max_frames=frames,
            augment=AUGMENT[name],
            sweeps=sweeps,
            seed=seed,
        )
    seconds = time.process_time() - start
    exact = model.predict(test.x, scale).argmax(axis=1) == test.y
    return {
        "network": name,
        "quantizer": quantizer,
        "ratio": ratio,
        "goal_percent": goal,
        "calibration_frames": network.meta["calibration_frames"],
        "augment": AUGMENT[name],
        "sweeps": sweeps,
        "seed": seed,
        "n_over_k": network.n_over_k,
        "layer_n_over_k": [
            float(x.weights.size / np.abs(x.weights).sum())
            for x in network.layers
            if x.weights is not None
        ],
        "float_percent": 100.0 * float(exact.mean()),
        "accuracy_percent": _accuracy(network, test, scale),
        "processor_seconds": round(seconds, 1),
    }


def _balanced(row: Row, model: Model, x: Any, scale: float, seed: int) -> Network:
    """As `compile` has it with `LANES` lanes in every layer."""
    name, ratio, _, frames, sweeps = row
    options = CompileOptions(
        ratio=ratio, input_scale=scale, seed=seed, augment=AUGMENT[name],
        calibration_frames=frames, sweeps=sweeps,
        lanes=(LANES,) * sum(1 for node in model.nodes if hasattr(node, "weight")),
    )  # fmt: skip
    return quantize_for(model, get_target(BOARD), options, Data(x, None, scale))[0]


def _data(name: str, folder: Path, digits: Path) -> tuple[Data, Data]:
    """Training and test set of a network."""
    if name != "D":
        return mnist(folder)
    with np.load(digits) as file:
        train, test = (Data(file[f"x_{p}"], file[f"y_{p}"]) for p in ("train", "test"))
    return train, test


def points(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The draws of every network, quantizer and N/K together: median, all of them, the goal."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in results.values():
        key = (entry["network"], entry["ratio"], entry["quantizer"])
        groups.setdefault(key, []).append(entry)
    found = []
    for (name, ratio, quantizer), entries in sorted(groups.items()):
        entries.sort(key=lambda e: int(e["seed"]))
        draws = [e["accuracy_percent"] for e in entries]
        found.append(
            {
                "network": name,
                "ratio": ratio,
                "quantizer": quantizer,
                "n_over_k": min(e["n_over_k"] for e in entries),
                "median": statistics.median(draws),
                "draws": draws,
                "goal": entries[0]["goal_percent"],
                "test_frames": TEST_FRAMES[name],
                # Until the quantizer of all networks, results said which part was distorted.
                "earlier": any("distorted_part" in e for e in entries),
                "float": entries[0]["float_percent"],
                "frames": entries[0]["calibration_frames"],
                "sweeps": entries[0]["sweeps"],
                "seconds": statistics.median(e["processor_seconds"] for e in entries),
            }
        )
    return found


def report(results: dict[str, Any]) -> str:
    """The table as text."""
    lines = ["network  N/K   quantizer   mean N/K  median  draws                goal   frames  s"]
    for p in points(results):
        lines.append(
            f"{p['network']:<8} {p['ratio']:<5g} {p['quantizer']:<11} {p['n_over_k']:<9.3f} "
            f"{p['median']:<7.2f} {' '.join(f'{d:.2f}' for d in p['draws']):<20} "
            f"{p['goal'] or '':<6} {p['frames']:<7} {p['seconds']:.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--digits", type=Path, default=_DIGITS, help="the digits, npz")
    parser.add_argument("--quantizer", choices=KINDS, help="only this one")
    parser.add_argument("--page", type=Path, help="Markdown page to write")
    parser.add_argument("--chart", type=Path, help="SVG picture to write")
    args = parse(parser)
    results = read(args.output)
    if not args.report:
        _measure_all(args, results)
    print(report(results))
    if args.page:
        args.page.write_text(page(points(results), TITLES), encoding="utf-8", newline="\n")
    if args.chart:
        args.chart.write_text(chart(points(results), TITLES), encoding="utf-8", newline="\n")


def _measure_all(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measures what ``results`` lacks, and saves after every point."""
    data: dict[str, tuple[Data, Data]] = {}
    for kind in [args.quantizer] if args.quantizer else KINDS:
        for seed in range(1 if kind == "plain" else args.seeds):
            for row in ROWS if kind in ("plain", "calibrated") else BALANCED:
                name, ratio = row[:2]
                key = f"{name} {kind} ratio={ratio:g} seed={seed}"
                if key in results or args.network not in (None, name):
                    continue
                if args.ratio not in (None, ratio):
                    continue
                if name not in data:
                    data[name] = _data(name, args.mnist, args.digits)
                results[key] = measure(row, seed, args.models, *data[name], quantizer=kind)
                save(args.output, results)
                print(key, results[key]["accuracy_percent"], flush=True)


if __name__ == "__main__":
    main()
