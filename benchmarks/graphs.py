"""Accuracy of networks with convolutions, poolings and sums, as ``pvq-hw compile`` makes them.

Run as ``python -m benchmarks.graphs --models FOLDER --mnist FOLDER --cifar FILE.npz``. Each row is
quantized for a board, with the lanes that the planner chooses, from training images without their
labels, and judged once by the integer golden model: MNIST's 10,000 test images, or the file's ``x``
and ``y`` with ``x_calibration`` to calibrate. 8-bit activations, one gain a row. Rows that say so
are fine-tuned after that, on training images and labels: ResNet8 only where ``--cifar-train
FILE.npz`` gives some, else its result stays what it is. The first 2,000 of those images, and 10,000
of MNIST, are left out: recipes were chosen by them. Results that the file already holds are not
computed again, so the run may be stopped at any time. ``--page FILE`` writes the table into that
page, between its marks.
"""

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import mnist, read, save
from pvq_hw.data.dataset import Data, load_data
from pvq_hw.flow.options import CompileOptions
from pvq_hw.model.load import load_model
from pvq_hw.train.finetune import Training, finetune
from pvq_hw.train.flow import start_network

__all__ = ["ROWS", "Row", "main", "measure", "table"]

RESULTS = Path(__file__).parent / "results" / "graphs.json"
MARKS = ("<!-- accuracy of graphs: begin -->", "<!-- accuracy of graphs: end -->")


@dataclass(frozen=True)
class Row:
    """A network, a board and an N/K; ``points`` may be lost, ``agreement`` is asked for (%);
    ``training``: runs of fine-tuning, each from the last one's codes."""

    name: str
    file: str
    target: str
    ratio: float
    points: float
    agreement: float = 0.0
    input_scale: float = 255.0
    frames: int = 3000
    training: tuple[Training, ...] = ()

    def key(self, seed: int) -> str:
        """Of a result in the file."""
        tuned = " fine-tuned" if self.training else ""
        return f"{self.name} {self.target} {self.ratio:g} {self.frames}{tuned} {seed}"


_PAST = {"ResNet8": 2000, "mnist-8": 10_000}  # frames that recipes were chosen by
_MAPS = Training(
    epochs=12, batch=64, rate=1e-3, distill=0.7, mirror=True, half=True, project_every=16
)
_SIDES = Training(epochs=12, batch=200, rate=0, side_rate=1e-2, distill=0.05, half=True)
ROWS = (
    Row("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "ulx3s-25f", 2, 0.3),
    Row("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "icebreaker", 2, 0.3),
    Row("LeNet-5", "mnist_lenet5_relu.onnx", "ulx3s-25f", 5, 0.2),
    Row("mnist-8", "mnist-8.onnx", "ulx3s-25f", 5, 0.3, input_scale=1.0),
    Row("ResNet8", "pretrainedResnet.onnx", "ulx3s-85f", 3, 1.0, 93.0, 1.0, 1000),
    Row("mnist-8", "mnist-8.onnx", "ulx3s-25f", 5, 0.3, input_scale=1.0, training=(_SIDES,)),
    Row("ResNet8", "pretrainedResnet.onnx", "ulx3s-85f", 3, 1.0, 93.0, 1.0, 1000,
        (_MAPS, replace(_MAPS, epochs=4, batch=128, rate=0, side_rate=3e-3, distill=0.5))),
)  # fmt: skip


def measure(row: Row, seed: int, models: Path, train: Data, test: Data) -> dict[str, Any]:
    """Quantizes one network once, and fine-tunes it where the row says so; returns what the table
    needs."""
    model = load_model(models / row.file)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(train), min(row.frames, len(train)), replace=False))
    options = CompileOptions(
        target=row.target, ratio=row.ratio, input_scale=row.input_scale, seed=seed
    )
    start = time.process_time()
    calibration = Data(train.x[chosen])
    network, placements = start_network(model, options, calibration)
    for training in row.training:
        network = finetune(
            model, train.x, train.y, input_scale=row.input_scale, seed=seed, training=training,
            banks={name: p.banks for name, p in placements.items()}, start=network,
        ).network  # fmt: skip
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
        "| network | trained | board | mean N/K | float | PVQ | asked | same answer as float "
        "| seeds | processor time |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
            f"| {row.name} | {_told(row)} | {row.target} | {middle['n_over_k']:.2f} "
            f"| {middle['float_percent']:.2f} % | {middle['accuracy_percent']:.2f} % | {asked} "
            f"| {middle['agreement_percent']:.2f} % | {len(found)} "
            f"| {middle['processor_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def _told(row: Row) -> str:
    """What a row's network was trained on."""
    if not row.training:
        return "no"
    images = "48,000 CIFAR-10" if row.name == "ResNet8" else "50,000 MNIST"
    what = "" if any(t.rate for t in row.training) else ", gains and biases only"
    return f"fine-tuned, {images} images{what}"


def _into_page(page: Path, text: str) -> None:
    """Replaces what stands between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    before, rest = whole.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    page.write_text(
        f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8", newline="\n"
    )


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the ONNX files")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("--cifar", type=Path, help="npz with x, y and x_calibration")
    parser.add_argument("--cifar-train", type=Path, help="npz with x and y, to fine-tune ResNet8")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="results, JSON")
    parser.add_argument("--network", help="only this network")
    parser.add_argument("--seeds", type=int, default=1, help="calibration draws a row")
    parser.add_argument("--page", type=Path, help="page to write the table into")
    args = parser.parse_args()
    results = read(args.output)
    for row in ROWS if args.models else ():
        for seed in range(args.seeds):
            if row.key(seed) in results or args.network not in (None, row.name):
                continue
            data = bundled_data(row, args)
            if data is None:
                continue
            print(f"{row.name} on {row.target}, seed {seed} ...", flush=True)
            results[row.key(seed)] = measure(row, seed, args.models, *data)
            save(args.output, results)
    print(table(results))
    if args.page:
        _into_page(args.page, table(results))


def bundled_data(row: Row, args: argparse.Namespace) -> tuple[Data, Data] | None:
    """Training frames and the test set; none where the row needs frames that were not given."""
    past = _PAST.get(row.name, 0) if row.training else 0
    if row.name != "ResNet8":
        train, test = mnist(args.mnist)
        if past:  # in the order in which the recipe was chosen
            order = np.random.default_rng(0).permutation(len(train))[past:]
            train = Data(train.x[order], train.y[order])  # type: ignore[index]
        return train, test
    with np.load(args.cifar) as file:
        train, test = Data(file["x_calibration"]), Data(file["x"], file["y"])
    if not row.training:
        return train, test
    if args.cifar_train is None:
        return None
    whole = load_data(args.cifar_train)
    return Data(whole.x[past:], whole.y[past:]), test  # type: ignore[index]


if __name__ == "__main__":
    main()
