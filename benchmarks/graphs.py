"""Accuracy of networks with convolutions, poolings and sums, as ``pvq-hw compile`` makes them.

Run as ``python -m benchmarks.graphs --models FOLDER --mnist FOLDER --cifar FILE.npz``. Each row is
quantized for a board, with the lanes that the planner chooses, from training images without their
labels, and judged once by the integer golden model: MNIST's 10,000 test images, or the file's ``x``
and ``y`` with ``x_calibration`` to calibrate. 8-bit activations, one gain a row. Results that the
file already holds are not computed again, so the run may be stopped at any time. ``--page FILE``
writes the table into that page, between its marks.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.data import Data, make_data
from pvq_hw.flow import quantize_for
from pvq_hw.model import load_model
from pvq_hw.options import CompileOptions
from pvq_hw.targets import get_target

__all__ = ["ROWS", "Row", "main", "measure", "table"]

RESULTS = Path(__file__).parent / "results" / "graphs.json"
_FILES = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
_MARKS = ("<!-- accuracy of graphs: begin -->", "<!-- accuracy of graphs: end -->")


@dataclass(frozen=True)
class Row:
    """A network, a board and an N/K; ``points`` may be lost, ``agreement`` is asked for (%)."""

    name: str
    file: str
    target: str
    ratio: float
    points: float
    agreement: float = 0.0
    input_scale: float = 255.0
    frames: int = 3000

    def key(self, seed: int) -> str:
        """Of a result in the file."""
        return f"{self.name} {self.target} {self.ratio:g} {self.frames} {seed}"


ROWS = (
    Row("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "ulx3s-25f", 2, 0.3),
    Row("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "icebreaker", 2, 0.3),
    Row("LeNet-5", "mnist_lenet5_relu.onnx", "ulx3s-25f", 5, 0.2),
    Row("mnist-8", "mnist-8.onnx", "ulx3s-25f", 5, 0.3, input_scale=1.0),
    Row("ResNet8", "pretrainedResnet.onnx", "ulx3s-85f", 3, 1.0, 93.0, 1.0, 1000),
)


def measure(row: Row, seed: int, models: Path, train: Any, test: Data) -> dict[str, Any]:
    """Quantizes one network once; returns what the table needs."""
    model = load_model(models / row.file)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(train), min(row.frames, len(train)), replace=False))
    options = CompileOptions(
        target=row.target, ratio=row.ratio, input_scale=row.input_scale, seed=seed
    )
    start = time.process_time()
    network, folding = quantize_for(model, get_target(row.target), options, Data(train[chosen]))
    seconds = time.process_time() - start
    exact, found = _answers(model, network, test, row.input_scale)
    return {
        **asdict(row),
        "seed": seed,
        "n_over_k": network.n_over_k,
        "layer_n_over_k": {
            layer.name: float(layer.weights.size / np.abs(layer.weights).sum())
            for layer in network.layers
            if layer.weights is not None
        },
        "lanes": list(folding.lanes),
        "calibration_frames": len(chosen),
        "float_percent": 100 * float((exact == test.y).mean()),
        "accuracy_percent": 100 * float((found == test.y).mean()),
        "agreement_percent": 100 * float((exact == found).mean()),
        "processor_seconds": round(seconds, 1),
    }


def _answers(model: Any, network: Any, test: Data, scale: float) -> tuple[Any, Any]:
    """Top-1 answers of the float model and of the golden model."""
    exact, found = [], []
    for start in range(0, len(test.x), 500):
        x = test.x[start : start + 500]
        exact.append(model.predict(x, scale).argmax(axis=1))
        real = network.predict(network.quantize_input(x, scale)).reshape(len(x), -1)
        found.append(real.argmax(axis=1))
    return np.concatenate(exact), np.concatenate(found)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown: the median of the seeds."""
    lines = [
        "| network | board | mean N/K | float | PVQ | asked | same answer as float | seeds | "
        "processor time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        found = [r for key, r in results.items() if key.rsplit(" ", 1)[0] == row.key(0)[:-2]]
        if not found:
            continue
        middle = {
            name: float(np.median([r[name] for r in found]))
            for name in (
                "n_over_k", "float_percent", "accuracy_percent", "agreement_percent",
                "processor_seconds",
            )
        }  # fmt: skip
        asked = f"{middle['float_percent'] - row.points:.2f}"
        if row.agreement:
            asked += f", {row.agreement:g} % the same"
        lines.append(
            f"| {row.name} | {row.target} | {middle['n_over_k']:.2f} "
            f"| {middle['float_percent']:.2f} % | {middle['accuracy_percent']:.2f} % | {asked} "
            f"| {middle['agreement_percent']:.2f} % | {len(found)} "
            f"| {middle['processor_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def _into_page(page: Path, text: str) -> None:
    """Replaces what stands between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    before, rest = whole.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    page.write_text(
        f"{before}{_MARKS[0]}\n{text}\n{_MARKS[1]}{after}", encoding="utf-8", newline="\n"
    )


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the ONNX files")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("--cifar", type=Path, help="npz with x, y and x_calibration")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="results, JSON")
    parser.add_argument("--network", help="only this network")
    parser.add_argument("--seeds", type=int, default=1, help="calibration draws a row")
    parser.add_argument("--page", type=Path, help="page to write the table into")
    args = parser.parse_args()
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for row in ROWS if args.models else ():
        for seed in range(args.seeds):
            if row.key(seed) in results or args.network not in (None, row.name):
                continue
            train, test = _data(row, args.mnist, args.cifar)
            print(f"{row.name} on {row.target}, seed {seed} ...", flush=True)
            results[row.key(seed)] = measure(row, seed, args.models, train, test)
            text = json.dumps(results, indent=1, sort_keys=True) + "\n"
            args.output.write_text(text, encoding="utf-8", newline="\n")
    print(table(results))
    if args.page:
        _into_page(args.page, table(results))


def _data(row: Row, mnist: Path, cifar: Path) -> tuple[Any, Data]:
    """Training inputs, and the test set."""
    if row.name == "ResNet8":
        with np.load(cifar) as file:
            return file["x_calibration"], Data(file["x"], file["y"])
    train, test = (make_data([mnist / f"{p}-{what}" for what in _FILES]) for p in ("train", "t10k"))
    return train.x, test


if __name__ == "__main__":
    main()
