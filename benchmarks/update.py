"""How networks trained again fit into one placed design.

``python -m benchmarks.update OUT`` trains the bundled digits network ten times, each from other
random weights, and puts each into the updatable accelerator in OUT, a copy of which it works on.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from pvq_hw.bundled import DIGITS, DIGITS_DATA
from pvq_hw.data.dataset import make_data
from pvq_hw.errors import PvqError
from pvq_hw.flow.update import update_output
from pvq_hw.output.accelerator import load

__all__ = ["retrained"]

_EPOCHS, _BATCH, _RATE, _DECAY = 60, 32, 0.003, 1e-4
_WEIGHTS = ("W0", "W1", "b0", "b1")

Floats = npt.NDArray[np.float64]


def _trained(x: Floats, y: npt.NDArray[np.int64], seed: int, epochs: int) -> list[Floats]:
    """Weights and biases of 64-32-10 with a ReLU between, by Adam on the cross entropy."""
    rng = np.random.default_rng(seed)
    sizes = ((32, x.shape[1]), (10, 32))
    values = [rng.normal(0, np.sqrt(2 / n), (m, n)) for m, n in sizes]
    values += [np.zeros(m) for m, _ in sizes]
    means, squares = ([np.zeros_like(v) for v in values] for _ in range(2))
    step = 0
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // _BATCH):
            hidden = np.maximum(x[batch] @ values[0].T + values[2], 0)
            out = hidden @ values[1].T + values[3]
            slope = np.exp(out - out.max(axis=1, keepdims=True))
            slope /= slope.sum(axis=1, keepdims=True)
            slope[np.arange(len(batch)), y[batch]] -= 1
            slope /= len(batch)
            back = (slope @ values[1]) * (hidden > 0)
            slopes = [back.T @ x[batch], slope.T @ hidden, back.sum(axis=0), slope.sum(axis=0)]
            step += 1
            for value, grad, mean, square in zip(values, slopes, means, squares, strict=True):
                grad = grad + _DECAY * value
                mean += 0.1 * (grad - mean)
                square += 0.001 * (grad * grad - square)
                fresh = square / (1 - 0.999**step)
                value -= _RATE * mean / (1 - 0.9**step) / (np.sqrt(fresh) + 1e-8)
    return values


def retrained(path: Path, seed: int, epochs: int = _EPOCHS) -> None:
    """Writes the bundled digits network with weights trained from other random ones."""
    with np.load(DIGITS_DATA) as data:
        x, y = data["x_train"].reshape(-1, 64) / 16, data["y_train"].astype(np.int64)
    values = _trained(x, y, seed, epochs)
    values[0] = values[0] / 16  # the model's inputs are 0 to 16
    model = onnx.load(DIGITS)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in zip(_WEIGHTS, values, strict=True):
        array = value.astype(np.float32).reshape(kept[name].dims)
        kept[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", type=int, default=10)
    args = parser.parse_args()
    train = make_data([DIGITS_DATA], keys=["x_train", "y_train"])
    test = make_data([DIGITS_DATA], keys=["x_test", "y_test"])
    with tempfile.TemporaryDirectory(dir=".") as place:
        out, model = Path(place, "out"), Path(place, "model.onnx")
        shutil.copytree(args.out, out)
        print(
            "| seed | float % | PVQ % | words of h, logits | seconds |\n|---:|---:|---:|---|---:|"
        )
        for seed in range(args.networks):
            retrained(model, seed)
            started = time.process_time()
            try:
                found = update_output(load(out), model, calibration=train, evaluation=test)
            except PvqError as error:
                print(f"| {seed} | refused | | {error} | |")
                continue
            accuracy, taken = found["accuracy"], time.process_time() - started
            words = ", ".join(f"{layer['slots']}" for layer in found["layers"])
            print(
                f"| {seed} | {accuracy['float']:.1f} | {accuracy['pvq']:.1f} | {words} "
                f"| {taken:.1f} |"
            )


if __name__ == "__main__":
    main()
