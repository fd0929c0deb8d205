"""What a network loses by quantization, by its activation function.

Run as ``python -m benchmarks.activations --mnist FOLDER -o RESULTS.json``: 784-64-32-10 on MNIST,
trained from scratch with each activation function by one recipe (Adam, cosine decay, no
augmentation), then quantized at N/K = 3 with the defaults and judged by the integer golden model.
All but ReLU are tables. Results that the file already holds are not computed again; ``--report``
only prints the table.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.networks import mnist, read, save
from pvq_hw.data.dataset import Data
from pvq_hw.model.curve import Curve, X, constant
from pvq_hw.model.model import Dense, Function, Model, Node, Relu
from pvq_hw.network.table import Table
from pvq_hw.quantizer.quantize import quantize

__all__ = ["ACTIVATIONS", "Trained", "measure", "table", "train"]

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
RATIO, SCALE = 3.0, 255.0
_HIDDEN = (64, 32)
_EPOCHS, _BATCH, _RATE = 8, 256, 3e-3


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
            values, _gradients(net, curve, x[batch], y[batch]), first, second, strict=True
        ):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            value -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return net


def _batches(count: int, epochs: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    for _ in range(epochs):
        order = rng.permutation(count)
        yield from (order[i : i + _BATCH] for i in range(0, count, _BATCH))


def _gradients(
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


def measure(name: str, seed: int, training: Data, test: Data) -> dict[str, Any]:
    """Trains and quantizes one network; what the table needs."""
    start = time.process_time()
    assert training.y is not None
    assert test.y is not None
    x = training.x.reshape(len(training.x), -1)
    model = train(ACTIVATIONS[name], x / SCALE, training.y, seed).model(name)
    middle = time.process_time()
    network = quantize(model, calibration=x, ratio=RATIO, input_scale=SCALE, seed=seed)
    seconds = time.process_time() - middle
    images = test.x.reshape(len(test.x), -1)
    exact = model.predict(images, SCALE).argmax(axis=1) == test.y
    outputs = network.predict(network.quantize_input(images, SCALE)).argmax(axis=1)
    return {
        "float_percent": 100 * float(exact.mean()),
        "pvq_percent": 100 * float((outputs == test.y).mean()),
        "n_over_k": network.n_over_k,
        "table_bits": [layer.x.bits for layer in network.layers if isinstance(layer, Table)],
        "training_seconds": middle - start,
        "quantizing_seconds": seconds,
    }


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, by the mean over the seeds."""
    lines = ["| activation | float | N/K = 3 | loss | more than ReLU's | table reads |"]
    lines.append("|---|---|---|---|---|---|")
    mean = {
        name: {
            key: statistics.mean(run[key] for run in runs)
            for key in ("float_percent", "pvq_percent")
        }
        for name in ACTIVATIONS
        if (runs := [v for k, v in sorted(results.items()) if k.split(" ")[0] == name])
    }
    loss = {name: m["float_percent"] - m["pvq_percent"] for name, m in mean.items()}
    for name, figures in mean.items():
        runs = [v for k, v in results.items() if k.split(" ")[0] == name]
        bits = sorted({b for run in runs for b in run["table_bits"]})
        more = f"{loss[name] - loss['Relu']:+.2f}" if "Relu" in loss else ""
        reads = f"{bits[0]} to {bits[-1]} bits" if bits else ""
        lines.append(
            f"| {name} ({len(runs)}) | {figures['float_percent']:.2f} % | "
            f"{figures['pvq_percent']:.2f} % | {loss[name]:.2f} | {more} | {reads} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--activation", choices=sorted(ACTIVATIONS), help="only this one")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    results = read(args.output)
    if not args.report:
        if args.mnist is None:
            parser.error("--mnist is needed to measure")
        training, test = mnist(args.mnist)
        for seed in range(args.seeds):
            for name in [args.activation] if args.activation else ACTIVATIONS:
                key = f"{name} {seed}"
                if key not in results:
                    results[key] = measure(name, seed, training, test)
                    save(args.output, results)
                    print(key, results[key], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
