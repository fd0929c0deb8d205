"""Accuracy at few pulses: post-training quantization of the MNIST networks, no training.

Run as ``python -m benchmarks.accuracy --models FOLDER --mnist FOLDER -o RESULTS.json``. Every row
of the table is quantized from a few calibration draws (training images only, no labels) and judged
by the integer golden model on the 10,000 test images: 8-bit activations, one gain per row, no int8
layers, mean N/K of the final codes. Results that the file already holds are not computed again, so
the run may be stopped at any time. ``--report`` only prints the table.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.data import Data, make_data
from pvq_hw.model import load_model
from pvq_hw.quantizer import quantize

NETWORKS = {
    "A": "mnist_netA_mlp_784_512_512_10.onnx",
    "B": "mnist_mlp_784_64_32_10.onnx",
}
# network, N/K, accuracy to reach (%), calibration frames, sweeps.
ROWS: tuple[tuple[str, float, float, int, int], ...] = (
    ("A", 5, 98.5, 20000, 2),
    ("A", 10, 98.4, 20000, 2),
    ("A", 20, 98.1, 20000, 2),
    ("A", 35, 97.3, 20000, 2),
    ("B", 2.5, 97.5, 50000, 2),
    ("B", 5, 97.4, 50000, 2),
    ("B", 8, 97.0, 50000, 2),
)
INPUT_SCALE = 255.0
_FILES = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")


def _accuracy(network: Any, data: Data) -> float:
    """Percent of right answers of the golden model."""
    outputs = network.predict(network.quantize_input(data.x, INPUT_SCALE))
    return 100.0 * float((outputs.argmax(axis=1) == data.y).mean())


def measure(
    row: tuple[str, float, float, int, int], seed: int, models: Path, train: Data, test: Data
) -> dict[str, Any]:
    """Quantizes one network once; returns what the table needs."""
    name, ratio, goal, frames, sweeps = row
    start = time.perf_counter()
    network = quantize(
        load_model(models / NETWORKS[name]),
        calibration=train.x,
        ratio=ratio,
        input_scale=INPUT_SCALE,
        max_frames=frames,
        sweeps=sweeps,
        seed=seed,
    )
    seconds = time.perf_counter() - start
    return {
        "network": name,
        "ratio": ratio,
        "goal_percent": goal,
        "calibration_frames": frames,
        "sweeps": sweeps,
        "seed": seed,
        "n_over_k": network.n_over_k,
        "layer_n_over_k": [
            float(x.weights.size / np.abs(x.weights).sum())
            for x in network.layers
            if x.weights is not None
        ],
        "accuracy_percent": _accuracy(network, test),
        "seconds": round(seconds, 1),
    }


def report(results: dict[str, Any]) -> str:
    """The table: median, all draws, goal."""
    lines = ["network  N/K   mean N/K  median  draws                 goal   frames  sweeps  s"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in results.values():
        key = (entry["network"], entry["ratio"], entry["calibration_frames"], entry["sweeps"])
        groups.setdefault(key, []).append(entry)
    for (name, ratio, frames, sweeps), entries in sorted(groups.items()):
        draws = [e["accuracy_percent"] for e in entries]
        lines.append(
            f"{name:<8} {ratio:<5g} {min(e['n_over_k'] for e in entries):<9.3f} "
            f"{statistics.median(draws):<7.2f} {' '.join(f'{d:.2f}' for d in draws):<21} "
            f"{entries[0]['goal_percent']:<6g} {frames:<7} {sweeps:<7} "
            f"{statistics.median(e['seconds'] for e in entries):.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the ONNX files")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--network", choices=sorted(NETWORKS), help="only this network")
    parser.add_argument("--ratio", type=float, help="only this N/K")
    parser.add_argument("--seeds", type=int, default=3, help="calibration draws a row")
    parser.add_argument("--frames", type=int, help="calibration frames instead of the table's")
    parser.add_argument("--sweeps", type=int, help="sweeps instead of the table's")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    if not args.report:
        if args.models is None or args.mnist is None:
            parser.error("--models and --mnist are needed to measure")
        train, test = (
            make_data([args.mnist / f"{part}-{what}" for what in _FILES])
            for part in ("train", "t10k")
        )
        rows = [
            (name, ratio, goal, args.frames or frames, args.sweeps or sweeps)
            for name, ratio, goal, frames, sweeps in ROWS
            if args.network in (None, name) and args.ratio in (None, ratio)
        ]
        for seed in range(args.seeds):
            for row in rows:
                key = f"{row[0]} ratio={row[1]:g} frames={row[3]} sweeps={row[4]} seed={seed}"
                if key not in results:
                    results[key] = measure(row, seed, args.models, train, test)
                    text = json.dumps(results, indent=1, sort_keys=True) + "\n"
                    args.output.with_suffix(".part").write_text(text)
                    args.output.with_suffix(".part").replace(args.output)
                    print(key, results[key]["accuracy_percent"], flush=True)
    print(report(results))


if __name__ == "__main__":
    main()
