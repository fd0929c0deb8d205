"""What a network loses by quantization, by its activation function.

Run as ``python -m benchmarks.activations --mnist FOLDER -o RESULTS.json``: two networks on MNIST,
784-64-32-10 and a small convolutional one, trained from scratch with each activation function by
one recipe (Adam, cosine decay, no augmentation), then quantized at N/K = 3 with the defaults and
judged by the integer golden model on every second test image. Every run is written at once with
its versions and recipe, and not measured again while these stay the same. ``--report`` only prints
the table. The convolutional network needs PyTorch (extra ``train``).
"""

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pvq_hw
from benchmarks.activations_cnn import train_cnn
from benchmarks.networks import SCALE, mnist, read, save
from pvq_hw.data.dataset import Data
from pvq_hw.model.curve import Curve, X, constant
from pvq_hw.model.model import Dense, Function, Model, Node, Relu
from pvq_hw.network.table import Table
from pvq_hw.quantizer.quantize import quantize

__all__ = ["ACTIVATIONS", "Trained", "measure", "tables", "train"]

FloatArray = npt.NDArray[np.float64]

ACTIVATIONS = {
    "Relu": Curve("Relu", (X,)),
    "LeakyRelu": Curve("LeakyRelu", (X,), (0.1,)),
    "Elu": Curve("Elu", (X,), (1.0,)),
    "Tanh": Curve("Tanh", (X,)),
    "HardTanh": Curve("Clip", (X, constant(-1), constant(1))),
    "Sigmoid": Curve("Sigmoid", (X,)),
    "Gelu": Curve("Gelu", (X,)),
    "Silu": Curve("Mul", (X, Curve("Sigmoid", (X,)))),
    "HardSwish": Curve("HardSwish", (X,)),
    "Mish": Curve("Mish", (X,)),
}
RATIO = 3.0
NETWORKS = {"cnn": "three convolutions and a dense layer", "mlp": "784-64-32-10"}
_HIDDEN = (64, 32)
_EPOCHS, _BATCH, _RATE = 5, 256, 3e-3
_RECIPES = {
    "cnn": {"images": 12_000, "epochs": 3, "calibration_frames": 600},
    "mlp": {"images": 60_000, "epochs": _EPOCHS, "calibration_frames": 3_000},
}


@dataclass
class Trained:
    """Weights and biases of a chain of dense layers."""

    weights: list[FloatArray]
    biases: list[FloatArray]

    def model(self, name: str) -> Model:
        """As a float model of images of bytes / 255."""
        nodes: list[Node] = []
        tensor = "x"
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            nodes.append(Dense(f"fc{i}", (tensor,), f"z{i}", (len(w),), w, b))
            tensor = f"z{i}"
            if i + 1 < len(self.weights):
                fields = (f"act{i}", (tensor,), f"a{i}", (len(w),))
                curve = ACTIVATIONS[name]
                nodes.append(Relu(*fields) if name == "Relu" else Function(*fields, curve))
                tensor = f"a{i}"
        size = self.weights[0].shape[1]
        return Model(name.lower(), "0" * 64, "x", (size,), (0,), (size,), tuple(nodes))


def train(
    curve: Curve, x: FloatArray, y: npt.NDArray[np.int64], seed: int, epochs: int = _EPOCHS
) -> Trained:
    """Cross entropy by Adam, the rate falling as a cosine; inputs (frames, n), labels."""
    rng = np.random.default_rng(seed)
    sizes = (x.shape[1], *_HIDDEN, int(y.max()) + 1)
    net = Trained(
        [rng.normal(size=(m, n)) * np.sqrt(2 / n) for n, m in itertools.pairwise(sizes)],
        [np.zeros(m) for m in sizes[1:]],
    )
    values = [*net.weights, *net.biases]
    first, second = ([np.zeros_like(v) for v in values] for _ in range(2))
    steps = epochs * -(-len(x) // _BATCH)
    for step, batch in enumerate(_batches(len(x), epochs, rng), 1):
        rate = _RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
        for value, gradient, m, v in zip(
            values, gradients(net, curve, x[batch], y[batch]), first, second, strict=True
        ):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            value -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return net


def _batches(count: int, epochs: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    for _ in range(epochs):
        order = rng.permutation(count)
        yield from (order[i : i + _BATCH] for i in range(0, count, _BATCH))


def gradients(
    net: Trained, curve: Curve, x: FloatArray, y: npt.NDArray[np.int64]
) -> list[FloatArray]:
    """Of the mean cross entropy, by all weights, then by all biases."""
    inputs, sums = [x], []
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        sums.append(inputs[-1] @ w.T + b)
        if i + 1 < len(net.weights):
            inputs.append(curve(sums[-1]))
    p = np.exp(sums[-1] - sums[-1].max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    back = p / len(y)
    weights, biases = [], []
    for i in reversed(range(len(net.weights))):
        weights.insert(0, back.T @ inputs[i])
        biases.insert(0, back.sum(axis=0))
        if i:
            back = (back @ net.weights[i]) * curve.slope(sums[i - 1])
    return weights + biases


def measure(network: str, name: str, seed: int, training: Data, test: Data) -> dict[str, Any]:
    """Trains and quantizes one network; what the tables need."""
    start = time.process_time()
    assert training.y is not None
    assert test.y is not None
    recipe = _RECIPES[network]
    training = Data(training.x[: recipe["images"]], training.y[: recipe["images"]])
    if network == "cnn":
        model = train_cnn(name, training, seed, recipe["epochs"])
    else:
        x = training.x.reshape(len(training.x), -1) / SCALE
        model = train(ACTIVATIONS[name], x, training.y, seed, recipe["epochs"]).model(name)
    middle = time.process_time()
    x, images = (d.x.reshape(len(d.x), *model.input_shape) for d in (training, test))
    made = quantize(
        model,
        calibration=x,
        ratio=RATIO,
        input_scale=SCALE,
        seed=seed,
        max_frames=recipe["calibration_frames"],
    )
    seconds = time.process_time() - middle
    exact = model.predict(images, SCALE).argmax(axis=1)
    outputs = made.predict(made.quantize_input(images, SCALE)).reshape(len(images), -1)
    answers = outputs.argmax(axis=1)
    return {
        "float_percent": 100 * float((exact == test.y).mean()),
        "pvq_percent": 100 * float((answers == test.y).mean()),
        "disagreements": int((exact != answers).sum()),
        "n_over_k": made.n_over_k,
        "table_bits": [layer.x.bits for layer in made.layers if isinstance(layer, Table)],
        "training_seconds": middle - start,
        "quantizing_seconds": seconds,
        "stamp": stamp(network),
    }


def stamp(network: str) -> dict[str, Any]:
    """What a run depends on: versions and recipe."""
    named = {"numpy": np.__version__, "pvq-hw": pvq_hw.__version__}
    if network == "cnn":
        named["torch"] = metadata.version("torch")
    versions = named | {"python": platform.python_version()}
    return {"versions": versions, "recipe": _RECIPES[network]}


def tables(results: dict[str, Any]) -> str:
    """The results as a Markdown table, a row for each activation: by the mean over the seeds."""
    lines = [
        "| network | activation | float | N/K = 3 | loss | more than ReLU's, by seed | "
        "table reads |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, name in itertools.product(NETWORKS, ACTIVATIONS):
        runs = _runs(results, network, name)
        if not runs:
            continue
        exact, loss = (
            statistics.mean(float(value(run)) for run in runs.values())
            for value in (lambda run: run["float_percent"], _loss)
        )
        relu = _runs(results, network, "Relu")
        more = [_loss(run) - _loss(relu[seed]) for seed, run in runs.items() if seed in relu]
        told = ""
        if more and name != "Relu":
            told = f"{statistics.mean(more):+.2f} ({', '.join(f'{m:+.2f}' for m in more)})"
        bits = sorted({b for run in runs.values() for b in run["table_bits"]})
        reads = f"{bits[0]} to {bits[-1]} bits" if bits else ""
        lines.append(
            f"| {network} | {name} | {exact:.2f} % | {exact - loss:.2f} % | {loss:.2f} | "
            f"{told} | {reads} |"
        )
    return "\n".join(lines)


def _runs(results: dict[str, Any], network: str, name: str) -> dict[int, dict[str, Any]]:
    """The runs of one network with one activation, by their seeds."""
    found = {tuple(key.split(" ")): run for key, run in results.items()}
    return {int(k[2]): run for k, run in sorted(found.items()) if k[:2] == (network, name)}


def _loss(run: dict[str, Any]) -> float:
    return float(run["float_percent"] - run["pvq_percent"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--network", choices=sorted(NETWORKS), help="only this one")
    parser.add_argument("--activation", choices=sorted(ACTIVATIONS), help="only this one")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    results = read(args.output)
    if not args.report:
        if args.mnist is None:
            parser.error("--mnist is needed to measure")
        _measure_all(args, results)
    print(tables(results))


def _measure_all(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measures what ``results`` lacks, and saves after every run."""
    training, test = mnist(args.mnist)
    assert test.y is not None
    test = Data(test.x[::2], test.y[::2])
    networks = [args.network] if args.network else NETWORKS
    names = [args.activation] if args.activation else ACTIVATIONS
    for network, seed, name in itertools.product(networks, range(args.seeds), names):
        key = f"{network} {name} {seed}"
        if results.get(key, {}).get("stamp") == stamp(network):
            continue
        results[key] = run = measure(network, name, seed, training, test)
        save(args.output, results)
        print(f"{key}: {run['float_percent']:.2f} % float, {run['pvq_percent']:.2f} % "
              f"at N/K {run['n_over_k']:.2f}, {run['training_seconds']:.0f} s of training, "
              f"{run['quantizing_seconds']:.0f} s of quantizing", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
