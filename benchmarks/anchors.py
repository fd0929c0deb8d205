"""PVQ beside uniform codes of the same networks, calibrated on the same inputs.

Run as ``python -m benchmarks.anchors --models FOLDER --mnist FOLDER [--kws FOLDER]``: every network
through PVQ at several N/K and through round-to-nearest, GPTQ-class and AdaRound-class codes of 8,
4 and 3 bits and ternary ones (`benchmarks.uniform`); right answers of the integer golden model on
the test inputs, beside the entropy of the codes in bits a weight and the additions of an inference.
Results that the file already holds are not computed again, so the run may be stopped at any time.
``--page FILE`` writes the page. KWS needs the folder with ``kws_cal.npz`` and ``kws_test.npz``.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.networks import folders, mnist, read, save
from benchmarks.uniform import METHODS, uniform_network
from pvq_hw.bundled import DIGITS_DATA
from pvq_hw.data.dataset import Data
from pvq_hw.evaluate.metrics import wilson
from pvq_hw.model.load import load_model
from pvq_hw.network.network import Network
from pvq_hw.quantizer.quantize import quantize

__all__ = ["SUBJECTS", "Subject", "additions", "bits_a_weight", "judged", "main", "page", "verdict"]

RESULTS = Path(__file__).parent / "results" / "anchors.json"
_BITS = {"int8": 8.0, "int4": 4.0, "int3": 3.0, "ternary": 1.6}


@dataclass(frozen=True)
class Subject:
    """A network: its file, its data and how many frames of it calibrate, and PVQ's N/K."""

    name: str
    file: str
    data: str
    frames: int
    ratios: tuple[float, ...]
    input_scale: float = 1.0


SUBJECTS = (
    Subject("digits 64-32-10", "digits_mlp_64_32_10.onnx", "digits", 1000, (0.5, 1, 2, 5)),
    Subject("784-64-32-10", "mnist_mlp_784_64_32_10.onnx", "mnist", 6000, (0.5, 1, 2, 5), 255),
    Subject("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "mnist", 1500, (0.5, 1, 2, 3), 255),
    Subject("DS-CNN (KWS)", "kws_dscnn.onnx", "kws", 500, (0.5, 1, 2, 3)),
)


def bits_a_weight(network: Network) -> float:
    """Entropy of the codes, each layer with a distribution of its own, over all weights."""
    total = size = 0.0
    for y in _weights(network):
        part = np.unique(y, return_counts=True)[1] / y.size
        total -= y.size * float((part * np.log2(part)).sum())
        size += y.size
    return total / size


def _weights(network: Network) -> list[npt.NDArray[np.int64]]:
    return [layer.weights for layer in network.layers if layer.weights is not None]


def additions(network: Network, *, pulses: bool) -> int:
    """Additions and subtractions of an inference: one for each pulse, or for each digit other than
    0 of the weights as signed binary numbers of the fewest digits (shifts are free)."""
    total = 0
    for layer in network.layers:
        if layer.weights is not None:
            count = np.abs(layer.weights) if pulses else _digits(np.abs(layer.weights))
            windows = layer.output.size // len(layer.weights)
            total += windows * int(count.sum())
    return total


def _digits(value: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Digits other than 0 of the non-adjacent form: those of ``3 v`` that differ from ``v``'s."""
    differing = value ^ (3 * value)
    return np.array([int(v).bit_count() for v in differing.ravel()]).reshape(value.shape)


def judged(
    network: Network, reference: npt.NDArray[Any], test: Data, scale: float, *, pulses: bool
) -> dict[str, Any]:
    """What the page says of one network; ``reference`` are the float model's outputs."""
    outputs = _outputs(
        lambda x: network.real(network.predict(network.quantize_input(x, scale))), test.x
    )
    exact, answers = reference.argmax(axis=1), outputs.argmax(axis=1)
    wanted = reference - reference.mean(axis=1, keepdims=True)
    lost = outputs - outputs.mean(axis=1, keepdims=True) - wanted
    return {
        "error": float(np.square(lost).sum() / np.square(wanted - wanted.mean(axis=0)).sum()),
        "right": int((answers == test.y).sum()),
        "float_right": int((exact == test.y).sum()),
        "only_float": int(((exact == test.y) & (answers != test.y)).sum()),
        "only_ours": int(((exact != test.y) & (answers == test.y)).sum()),
        "frames": len(test.x),
        "same": int((answers == exact).sum()),
        "bits": bits_a_weight(network),
        "adds": additions(network, pulses=pulses),
    }


def _outputs(predict: Callable[[Any], Any], x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    parts = [predict(x[i : i + 500]) for i in range(0, len(x), 500)]
    return np.concatenate([p.reshape(len(p), -1) for p in parts]).astype(np.float64)


def verdict(ours: list[Mapping[str, Any]], other: Mapping[str, Any], by: str) -> str:
    """Points that PVQ lies above the other code at equal ``by`` (negative: below), linearly between
    its neighbors; as text, and nothing where the other lies outside of what PVQ was measured at."""
    line = sorted((p[by], 100 * p["right"] / p["frames"]) for p in ours)
    at = [a for a, _ in line]
    if not at[0] <= other[by] <= at[-1]:
        return "more than any PVQ here" if other[by] > at[-1] else "fewer than any PVQ here"
    difference = float(np.interp(other[by], at, [p for _, p in line]))
    return f"{difference - 100 * other['right'] / other['frames']:+.2f}"


_ABOUT = """\
# Benchmark: PVQ beside uniform codes

The same networks, calibration inputs (no labels), 8-bit activations and integer golden model; only
the codes of the weights differ. *RTN* rounds to the nearest, each row with the scale of the least
squared error; *GPTQ* and *AdaRound* are calibrated codes of these classes, written for this
benchmark (`benchmarks/uniform.py`): symmetric, a scale a row, layer by layer on the integer
network's own inputs, gains solved anew and biases corrected at the end. PVQ is `pvq_hw.quantize`
with its defaults, pulses wherever they are best. No weights are trained; of
networks with maps PVQ learns gains and biases of all layers together, without labels, where the
others' are solved layer by layer. *bits*: entropy of the codes
a weight, each layer with a distribution of its own, for all alike. *adds*: additions of one
inference, of PVQ a pulse each; of the others a digit each of the weights as signed binary numbers
of the fewest digits, with shifts for nothing, which is less than a multiplier costs. *PVQ at equal
bits* (*adds*): points that PVQ's accuracy, drawn as a line between its measured points, lies above;
a minus says that it lies below. Right answers of the test inputs with their 95 % interval (Wilson);
*only*: right in the float model alone, and right in the quantized network alone. *error*: squared,
of the outputs with their mean taken away, relative to the variance of the float model's. One draw.
Made by

    python -m benchmarks.anchors --models FOLDER --mnist FOLDER --kws FOLDER \\
        --page docs/benchmarks-codes.md
"""
_HEAD = """\
| codes | right, % | 95 % | only float, ours | error, % | bits | adds | PVQ at equal bits | adds |
|---|---|---|---|---|---|---|---|---|"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    lines, missing = [_ABOUT], []
    for subject in SUBJECTS:
        found = {
            key.removeprefix(f"{subject.name}: "): value
            for key, value in results.items()
            if key.startswith(f"{subject.name}: ")
        }
        ours = [value for key, value in found.items() if key.startswith("PVQ")]
        if not ours:
            missing.append(subject.name)
            continue
        frames, right = ours[0]["frames"], ours[0]["float_right"]
        low, high = wilson(right, frames)
        lines += [
            f"## {subject.name}", "",
            f"{subject.frames:,} inputs to calibrate, {frames:,} to test; float "
            f"{100 * right / frames:.2f} % ({low:.2f} to {high:.2f}).", "", _HEAD,
        ]  # fmt: skip
        for key, value in sorted(found.items(), key=lambda item: -float(item[1]["bits"])):
            lines.append(_row(key, value, ours))
        lines += ["", *_below(found, ours)]
    if missing:
        lines.append(f"Not measured: {', '.join(missing)}.")
    return "\n".join(lines).rstrip() + "\n"


def _row(key: str, value: Mapping[str, Any], ours: list[Mapping[str, Any]]) -> str:
    low, high = wilson(value["right"], value["frames"])
    mine = key.startswith("PVQ")
    cells = (
        f"**{key}**" if mine else key,
        f"{100 * value['right'] / value['frames']:.2f}",
        f"{low:.2f} to {high:.2f}", f"{value['only_float']}, {value['only_ours']}",
        f"{100 * value['error']:.2f}",
        f"{value['bits']:.2f}", f"{value['adds']:,}",
        *("" if mine else verdict(ours, value, by) for by in ("bits", "adds")),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _below(found: Mapping[str, Mapping[str, Any]], ours: list[Mapping[str, Any]]) -> list[str]:
    """A line for each axis that says where PVQ lies below."""
    lines = []
    for by in ("bits", "adds"):
        below = [
            f"{key} ({text})"
            for key, value in found.items()
            if not key.startswith("PVQ") and (text := verdict(ours, value, by)).startswith("-")
        ]
        what = f"below {', '.join(below)}" if below else "on or above all of the others within it"
        lines += [f"At equal {by} PVQ lies {what}.", ""]
    return lines


def _data(subject: Subject, args: argparse.Namespace) -> tuple[Data, Data] | None:
    if subject.data == "kws":
        if args.kws is None:
            return None
        parts = [np.load(args.kws / f"kws_{part}.npz") for part in ("cal", "test")]
        train, test = (Data(p["x"], p["y"]) for p in parts)
        return train, test
    if subject.data == "digits":
        with np.load(DIGITS_DATA) as file:
            train, test = (Data(file[f"x_{p}"], file[f"y_{p}"]) for p in ("train", "test"))
        return train, test
    return mnist(args.mnist)


def measure(subject: Subject, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Measures what ``results`` lacks of a network, and saves after each."""
    wanted = [f"PVQ at {ratio:g}" for ratio in subject.ratios]
    wanted += [f"{method} {bits}" for bits in _BITS for method in METHODS]
    wanted = [k for k in wanted if f"{subject.name}: {k}" not in results and k not in _UNSEEN]
    data = _data(subject, args) if wanted else None
    if data is None:
        return
    train, test = data
    model, scale = load_model(args.models / subject.file), subject.input_scale
    order = np.random.default_rng(0).permutation(len(train.x))[: subject.frames]
    x = train.x[np.sort(order)]
    reference = _outputs(lambda part: model.predict(part, scale), test.x)
    for key in wanted:
        start = time.process_time()
        method, _, kind = key.partition(" ")
        if method == "PVQ":
            ratio = float(kind.removeprefix("at "))
            network = quantize(model, calibration=x, ratio=ratio, input_scale=scale)
        else:
            network = uniform_network(model, x, _BITS[kind], method, input_scale=scale)
        found = judged(network, reference, test, scale, pulses=method == "PVQ")
        found["processor_seconds"] = round(time.process_time() - start, 1)
        results[f"{subject.name}: {key}"] = found
        save(args.output, results)
        print(f"{subject.name}: {key}", found, flush=True)


_UNSEEN = ("GPTQ int8", "AdaRound int8")  # nothing is left to gain there


def main() -> None:
    """Runs what is missing, and writes the page."""
    parser = folders(__doc__, RESULTS)
    parser.add_argument("--kws", type=Path, help="folder of kws_cal.npz and kws_test.npz")
    parser.add_argument("--network", help="only this network")
    parser.add_argument("--page", type=Path, help="page to write")
    args = parser.parse_args()
    results = read(args.output)
    for subject in SUBJECTS if args.models and args.mnist else ():
        if args.network in (None, subject.name):
            measure(subject, args, results)
    if args.page:
        args.page.write_text(page(results), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
