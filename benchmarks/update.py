"""How networks trained again fit into one placed design.

``python -m benchmarks.update OUT`` trains the bundled digits network ten times, each from other
random weights, and puts each into the updatable accelerator in OUT, a copy of which it works on.
With ``--model FILE --mnist FOLDER`` it is a network for MNIST.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.networks import SCALE, mnist
from pvq_hw.bundled import DIGITS, DIGITS_DATA
from pvq_hw.data.dataset import Data, make_data
from pvq_hw.errors import PvqError
from pvq_hw.flow.update import update_output
from pvq_hw.output.accelerator import load
from pvq_hw.progress import Steps

__all__ = ["Task", "digits", "images", "retrained", "updates"]

_BATCH, _RATE, _DECAY = 32, 0.003, 1e-4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """A network of dense layers with ReLUs between, and its data.

    Parameters
    ----------
    model : Path
    train, test : Data
    reach : float
        Largest input; training sees inputs up to 1.
    epochs : int
    """

    model: Path
    train: Data
    test: Data
    reach: float
    epochs: int


def digits(epochs: int = 60) -> Task:
    """The bundled network; its inputs are 0 to 16."""
    train, test = (make_data([DIGITS_DATA], keys=[f"x_{p}", f"y_{p}"]) for p in ("train", "test"))
    return Task(DIGITS, train, test, 16, epochs)


def images(model: Path, folder: Path, epochs: int = 8, frames: int = 20_000) -> Task:
    """A network for MNIST, trained on the first images."""
    train, test = (replace(part, input_scale=SCALE) for part in mnist(folder))
    return Task(model, train.head(frames), test, 1, epochs)


def _outputs(x: Floats, values: list[list[Floats]]) -> list[Floats]:
    """The inputs of each layer, and the last one's outputs."""
    found = [x]
    for number, (weight, bias) in enumerate(values):
        out = found[-1] @ weight.T + bias
        found.append(out if number == len(values) - 1 else np.maximum(out, 0))
    return found


def _slopes(x: Floats, y: npt.NDArray[Any], values: list[list[Floats]]) -> Iterator[list[Floats]]:
    """Derivatives of the cross entropy by weights and biases, from the last layer on."""
    *inputs, out = _outputs(x, values)
    slope = np.exp(out - out.max(axis=1, keepdims=True))
    slope /= slope.sum(axis=1, keepdims=True)
    slope[np.arange(len(x)), y] -= 1
    slope /= len(x)
    for before, (weight, _) in zip(reversed(inputs), reversed(values), strict=True):
        yield [slope.T @ before, slope.sum(axis=0)]
        slope = (slope @ weight) * (before > 0)


def _trained(
    x: Floats, y: npt.NDArray[Any], sizes: Iterable[int], seed: int, epochs: int
) -> list[list[Floats]]:
    """Weights and biases of layers of these sizes, by Adam on the cross entropy."""
    rng = np.random.default_rng(seed)
    values = [[rng.normal(0, np.sqrt(2 / n), (m, n)), np.zeros(m)] for n, m in pairwise(sizes)]
    flat = [value for layer in values for value in layer]
    means, squares = ([np.zeros_like(v) for v in flat] for _ in range(2))
    step = 0
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // _BATCH):
            found = [*_slopes(x[batch], y[batch], values)]
            slopes = [slope for layer in reversed(found) for slope in layer]
            step += 1
            for value, grad, mean, square in zip(flat, slopes, means, squares, strict=True):
                grad = grad + _DECAY * value
                mean += 0.1 * (grad - mean)
                square += 0.001 * (grad * grad - square)
                fresh = square / (1 - 0.999**step)
                value -= _RATE * mean / (1 - 0.9**step) / (np.sqrt(fresh) + 1e-8)
    return values


class _Notes(Steps):
    """Keeps what is said of pulses that don't fit."""

    def __init__(self) -> None:
        self.given_up: list[str] = []

    def note(self, line: str) -> None:
        if line.endswith("to fit"):
            self.given_up.append(line)


def retrained(task: Task, path: Path, seed: int) -> None:
    """Writes the task's network with weights trained from other random ones."""
    model = onnx.load(task.model)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [node.input[1:3] for node in model.graph.node if node.op_type == "Gemm"]
    x = task.train.real().reshape(len(task.train), -1) / task.reach
    labels = np.asarray(task.train.y, dtype=np.int64)
    sizes = [x.shape[1], *(kept[weight].dims[0] for weight, _ in names)]
    values = _trained(x, labels, sizes, seed, task.epochs)
    values[0][0] /= task.reach
    for layer, arrays in zip(names, values, strict=True):
        for name, array in zip(layer, arrays, strict=True):
            found = array.astype(np.float32).reshape(kept[name].dims)
            kept[name].CopyFrom(onnx.numpy_helper.from_array(found, name))
    onnx.save(model, path)


def updates(task: Task, out: Path, networks: int) -> Iterator[dict[str, Any]]:
    """Puts networks of the seeds from 0 one after the other into ``out``, which changes.

    Gives the documents of ``update`` with ``processor_seconds`` (those of packing left out) and
    ``given_up``, what it said of pulses that didn't fit; or ``refused``, what was said.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        model = Path(place, "model.onnx")
        for seed in range(networks):
            retrained(task, model, seed)
            started, steps = time.process_time(), _Notes()
            try:
                found = update_output(
                    load(out), model, calibration=task.train, evaluation=task.test, steps=steps
                )
            except PvqError as error:
                found = {"refused": str(error)}
            taken = time.process_time() - started
            yield found | {"processor_seconds": taken, "given_up": steps.given_up}


def _row(seed: int, found: dict[str, Any]) -> str:
    if "refused" in found:
        return f"| {seed} | refused | | | {found['refused']} | |"
    right, layers = found["accuracy"], found["layers"]
    pulses = ", ".join(f"{part['pulses']:,}" for part in layers)
    return (
        f"| {seed} | {right['float']:.2f} | {right['pvq']:.2f} | {pulses} "
        f"| {' '.join(found['given_up']) or 'none'} | {found['processor_seconds']:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--model", type=Path, help="ONNX file of a network for MNIST")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    args = parser.parse_args()
    if (args.model is None) != (args.mnist is None):
        parser.error("--model and --mnist go together")
    task = digits() if args.model is None else images(args.model, args.mnist)
    print("| seed | float % | PVQ % | pulses | given up | seconds |")
    print("|---:|---:|---:|---|---|---:|")
    with tempfile.TemporaryDirectory(dir=".") as place:
        out = Path(shutil.copytree(args.out, Path(place, "out")))
        for seed, found in enumerate(updates(task, out, args.networks)):
            print(_row(seed, found), flush=True)


if __name__ == "__main__":
    main()
