"""Accuracy at few pulses after fine-tuning: the MNIST networks.

Run as ``python -m benchmarks.finetune --models FOLDER --mnist FOLDER [-o RESULTS.json]``. Every row
of the table is quantized and trained on the training images only, and judged once by the integer
golden model on the 10,000 test images: 8-bit activations, one gain a row, no int8 layers, mean N/K
of the final codes. Results that the file already holds are not computed again, so the run may be
stopped at any time. ``--report`` only prints the table. Needs PyTorch (``pvq-hw[train]``).
"""

import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.networks import INPUT_SCALES, NETWORKS, arguments, mnist, parse, read, save
from pvq_hw.data.dataset import Data
from pvq_hw.evaluate.accuracy import evaluate_network
from pvq_hw.model.load import load_model
from pvq_hw.train.finetune import Training, finetune

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


def report(results: dict[str, Any]) -> str:
    """The table: goal, medians, all seeds."""
    lines = [
        "| network | N/K | mean N/K | float | calibrated | fine-tuned | seeds | to reach | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for entry in results.values():
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


def main() -> None:
    """Runs what is missing and prints the table."""
    args = parse(arguments(__doc__, RESULTS))
    if not args.report:
        train, test = mnist(args.mnist)
        for seed in range(args.seeds):
            for row in ROWS:
                key = f"{row[0]} ratio={row[1]:g} seed={seed}"
                if args.network not in (None, row[0]) or args.ratio not in (None, row[1]):
                    continue
                results = read(args.output)
                if key in results:
                    continue
                results[key] = measure(row, seed, args.models, train, test)
                save(args.output, results)
                print(key, *(results[key][f"{n}_percent"] for n in ("start", "tuned")), flush=True)
    print(report(read(args.output)))


if __name__ == "__main__":
    main()
