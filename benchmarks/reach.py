"""What ``pvq-hw compile`` reaches: accuracy lost, processor time and memory of the whole verb.

Run as ``python -m benchmarks.reach --models FOLDER --mnist FOLDER [--kws FOLDER] [--cifar FILE.npz]
[--ad FOLDER]``: each row is one run of ``compile`` in a process of its own, for a board, with codes
balanced over the lanes that the planner chooses, from four fifths of the calibration inputs without
labels, another draw for each seed; the test inputs are judged by the integer golden model of the
folder that came out. Results that the file already holds are not computed again, so the run may be
stopped at any time; rows whose data were not given are left out. ``--page FILE`` writes the page.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pvq_hw
from benchmarks.networks import folders, mnist, read, save
from pvq_hw.data.dataset import Data
from pvq_hw.evaluate.metrics import wilson
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.model.objects import model_file

__all__ = [
    "ROWS",
    "Row",
    "data_arguments",
    "enlarged",
    "judged",
    "judged_output",
    "main",
    "page",
    "row_data",
    "run_verb",
]

RESULTS = Path(__file__).parent / "results" / "reach.json"
_PART = 0.8  # of the calibration inputs, in each draw
_STARTER = """\
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
_SMALL = 300  # test inputs of the sine: a period


@dataclass(frozen=True)
class Row:
    """A network, a board and an N/K, what is asked of it and the other options of ``compile``.

    ``asked``: percent of right answers, or where ``by`` says so points lost, percent of answers as
    float's, or percent of the root mean squared error over the deviation of float's outputs.
    """

    name: str
    file: str
    data: str
    target: str
    ratio: float
    asked: float
    by: str = "right"
    options: str = ""

    @property
    def key(self) -> str:
        """Of its results in the file."""
        return " ".join(filter(None, (self.name, self.target, f"{self.ratio:g}", self.options)))


_SCALE = "--input-scale 255"
_DISTORTED = f"{_SCALE} --augment shift,rotate,scale,shear"
_KWS, _A = "kws_dscnn.onnx", "mnist_netA_mlp_784_512_512_10.onnx"
_TINY, _LENET = "mnist_tinycnn_8_16_bn.onnx", "mnist_lenet5_relu.onnx"
ROWS = (
    Row("DS-CNN (KWS)", _KWS, "kws", "ulx3s-25f", 2, 1.0, "lost"),
    Row("DS-CNN (KWS)", _KWS, "kws", "ulx3s-25f", 3, 2.0, "lost"),
    Row("DS-CNN (KWS)", _KWS, "kws", "ulx3s-25f", 5, 4.7, "lost"),
    Row("ResNet8", "pretrainedResnet.onnx", "cifar", "ulx3s-85f", 2, 1.0, "lost"),
    Row("ResNet8", "pretrainedResnet.onnx", "cifar", "ulx3s-85f", 3, 2.0, "lost"),
    Row("VWW", "vww96.onnx", "vww", "ulx3s-85f", 3, 90, "same"),
    Row("mnist-8", "mnist-8.onnx", "mnist", "ulx3s-25f", 5, 98.61),
    Row("LeNet-5", _LENET, "mnist", "ulx3s-25f", 5, 98.90, options=_SCALE),
    Row("LeNet-5", _LENET, "mnist", "ulx3s-25f", 10, 98.6, options=_SCALE),
    Row("tiny CNN", _TINY, "mnist", "ulx3s-25f", 2, 99.07, options=_SCALE),
    Row("tiny CNN", _TINY, "mnist", "ulx3s-25f", 3, 98.9, options=_SCALE),
    Row("network A", _A, "mnist", "ulx3s-25f", 5, 98.48, options=_DISTORTED),
    Row("network A", _A, "mnist", "ulx3s-25f", 10, 98.40, options=_DISTORTED),
    Row("network A", _A, "mnist", "ulx3s-25f", 20, 98.15, options=_DISTORTED),
    Row("ad01", "ad01.onnx", "ad", "ulx3s-25f", 5, 3, "error"),
    Row("hello_world", "hello_world_float.onnx", "sine", "icebreaker", 2, 2, "error"),
    Row("diabetes MLP", "", "diabetes", "icebreaker", 2, 2, "error"),
)


def enlarged(x: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    """Images (frames, height, width, channels) at ``size`` by ``size``, bilinear, by 255."""
    for axis in (1, 2):
        length = x.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, length - 1)
        part = (at - low).astype(np.float32).reshape(1, -1, *(1,) * (3 - axis))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return np.asarray(x / 255, dtype=np.float32)


def judged(
    exact: npt.NDArray[Any],
    ours: npt.NDArray[Any],
    y: npt.NDArray[Any] | None,
    x: npt.NDArray[Any] | None = None,
) -> dict[str, Any]:
    """What the page says of outputs (frames, C) beside the float model's.

    ``y``: labels, if there are any. ``x``: the inputs (frames, C) of an autoencoder, whose
    reconstruction errors are compared.
    """
    found: dict[str, Any] = {"frames": len(exact)}
    error = float(np.sqrt(np.square(ours - exact).mean()))
    found["error_percent"] = 100 * error / float((exact - exact.mean(axis=0)).std())
    if exact.shape[1] > 1:
        a, b = exact.argmax(axis=1), ours.argmax(axis=1)
        found["same"] = int((a == b).sum())
        if y is not None:
            found |= {
                "float_right": int((a == y).sum()),
                "right": int((b == y).sum()),
                "only_float": int(((a == y) & (b != y)).sum()),
                "only_ours": int(((a != y) & (b == y)).sum()),
            }
    if x is not None:
        scores = [np.square(out - x).mean(axis=1) for out in (exact, ours)]
        found["correlation"] = float(np.corrcoef(*scores)[0, 1])
        found["error_of_all_percent"] = 100 * error / float(exact.std())
    return found


def measure(row: Row, seed: int, model: Path, train: Data, test: Data) -> dict[str, Any]:
    """Compiles once and judges what came out.

    Raises
    ------
    RuntimeError
        With what ``compile`` said, where it refused.
    """
    order = np.random.default_rng(seed).permutation(len(train.x))
    chosen = np.sort(order[: int(_PART * len(order))])
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "calibration.npz", Path(folder) / "out"
        np.savez(data, x=train.x[chosen])
        command = [
            sys.executable, "-m", "pvq_hw", "compile", str(model), "--target", row.target,
            "--ratio", f"{row.ratio:g}", "--calibrate", str(data), "--seed", str(seed),
            "-o", str(out), "--quiet", *row.options.split(),
        ]  # fmt: skip
        used = run_verb(command)
        return judged_output(out, model, test, rebuilds=row.data == "ad") | used


def run_verb(command: Sequence[str]) -> dict[str, Any]:
    """Processor seconds and peak memory of a command.

    Raises
    ------
    RuntimeError
        With the last line of what it said, where it failed.
    """
    # Linux counts the memory of what starts a process as that process's, so a small one starts it.
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _STARTER, *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    seconds, kib = done.stdout.split()
    return {"processor_seconds": round(float(seconds), 1), "peak_mib": round(int(kib) / 1024)}


def judged_output(out: Path, model: Path, test: Data, *, rebuilds: bool) -> dict[str, Any]:
    """What `judged` says of a folder that ``compile`` made, and its plan's cycles; ``rebuilds``
    where the network is an autoencoder."""
    accelerator = pvq_hw.load(out)
    network, scale = accelerator.network, accelerator.input_scale
    exact = _outputs(load_model(model), test.x, scale)
    parts = [test.x[i : i + 250] for i in range(0, len(test.x), 250)]
    real = [
        network.real(network.predict(network.quantize_input(x, scale))).reshape(len(x), -1)
        for x in parts
    ]
    return {
        **judged(exact, np.concatenate(real), test.y, test.x if rebuilds else None),
        "n_over_k": network.n_over_k,
        "cycles": accelerator.plan.interval_cycles,
        "calibration_frames": int(network.meta["calibration_frames"]),
    }


def _outputs(model: Model, x: npt.NDArray[Any], scale: float) -> npt.NDArray[np.float64]:
    parts = [model.predict(x[i : i + 250], scale) for i in range(0, len(x), 250)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts]).astype(np.float64)


_ABOUT = """\
# Benchmark: what `compile` reaches

One run of `pvq-hw compile MODEL --target BOARD --ratio N/K --calibrate TRAIN.npz` and the options
shown a row and draw: integer golden model with 8-bit activations, codes balanced over the lanes
that the planner chooses, calibrated without labels on four fifths of the calibration inputs (KWS:
500, CIFAR-10: 1,000, for VWW 500 of them enlarged bilinearly to 96 x 96; MNIST's training images,
of which `compile` takes 6,000; ad01: 1,996 windows; 1,000 points of a sine; diabetes: 342 patients,
MLPRegressor with hidden layers of 32 and 16). Medians of the draws, where there is more than one.
*right* with its 95 % interval (Wilson); *only*: inputs right in the float model alone, and in the
quantized network alone; *same*: answers as float's; *error*: root mean squared, over the standard
deviation of float's outputs around the mean of each. *CPU s* and *MiB*: processor seconds and peak
memory of the whole `compile`, on a machine with more work than cores. Bold: what is asked is
reached. An asterisk: measured with an earlier quantizer, and not again. What stops rows that miss
what is asked: [limits](benchmarks-limits.md). Made by

    python -m benchmarks.reach --models FOLDER --mnist FOLDER --kws FOLDER --cifar FILE.npz \\
        --ad FOLDER --page docs/benchmarks-reach.md

| network | board | N/K | options | float | right | 95 % | only float, only ours | same | error | asked | frames | draws | cycles | CPU s | MiB |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    lines, missing = [], []
    for row in ROWS:
        found = [value for key, value in results.items() if key.rpartition(" #")[0] == row.key]
        if found:
            lines.append(_line(row, found))
        else:
            missing.append(f"{row.name} at {row.ratio:g}")
    if missing:
        lines += ["", f"Not measured: {', '.join(missing)}."]
    return _ABOUT + "\n".join(lines) + "\n"


def _line(row: Row, found: list[Mapping[str, Any]]) -> str:
    earlier = any(f.get("earlier") for f in found)
    middle = {k: float(np.median([f[k] for f in found])) for k in found[0] if k != "earlier"}
    frames = int(middle["frames"])

    def percent(key: str) -> str:
        return f"{100 * middle[key] / frames:.2f}" if key in middle else ""

    labeled = "right" in middle
    low, high = wilson(round(middle["right"]), frames) if labeled else (0, 0)
    value = {
        "right": 100 * middle["right"] / frames if labeled else 0,
        "lost": 100 * (middle["float_right"] - middle["right"]) / frames if labeled else 0,
        "same": 100 * middle.get("same", 0) / frames,
        "error": middle["error_percent"],
    }[row.by]
    least = row.by in ("right", "same")
    reached = value >= row.asked - 1e-9 if least else value <= row.asked + 1e-9
    asked = {
        "right": f"{row.asked:g} % right",
        "lost": f"{value:.2f} lost, {row.asked:g} asked",
        "same": f"{row.asked:g} % the same",
        "error": f"error {row.asked:g} %",
    }[row.by]
    error = f"{middle['error_percent']:.2f}"
    if "correlation" in middle:
        alike = middle.get("error_of_all_percent")
        error += f" ({alike:.2f} of that of all values alike; " if alike else " ("
        error += f"reconstruction errors correlate {middle['correlation']:.4f})"
    cells = (
        row.name + ("*" if earlier else ""), row.target, f"{middle['n_over_k']:.2f}",
        f"`{row.options}`" if row.options else "", percent("float_right"), percent("right"),
        f"{low:.2f} to {high:.2f}" if labeled else "",
        f"{middle['only_float']:g}, {middle['only_ours']:g}" if labeled else "",
        percent("same"), error, f"**{asked}**" if reached else asked, f"{frames:,}",
        f"{len(found)}", f"{middle['cycles']:,.0f}", f"{middle['processor_seconds']:.0f}",
        f"{middle['peak_mib']:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def row_data(row: Row, args: argparse.Namespace) -> tuple[Data, Data] | None:
    """Calibration and test inputs; none where they were not given."""
    if row.data in ("kws", "ad"):
        folder, name = (args.kws, "kws") if row.data == "kws" else (args.ad, "ad01")
        if folder is None:
            return None
        parts = [np.load(folder / f"{name}_{part}.npz") for part in ("cal", "test")]
        train, test = (Data(p["x"], p.get("y")) for p in parts)
        return train, test
    if row.data in ("cifar", "vww"):
        if args.cifar is None:
            return None
        with np.load(args.cifar) as file:
            train = Data(file["x_calibration"], file["y_calibration"])
            test = Data(file["x"], file["y"])
        if row.data == "vww":
            return Data(enlarged(train.x[::2], 96)), Data(enlarged(test.x, 96))
        return train, test
    if row.data == "sine":
        points = np.random.default_rng(0).uniform(0, 2 * np.pi, (1000, 1)).astype(np.float32)
        return Data(points), Data(np.linspace(0, 2 * np.pi, _SMALL, dtype=np.float32)[:, None])
    if row.data == "diabetes":
        x = _diabetes()[1]
        return Data(x[:342]), Data(x[342:])
    return mnist(args.mnist) if args.mnist else None


def _diabetes() -> tuple[Any, npt.NDArray[np.float32]]:
    """The regressor, and all patients in a random order; the last 100 are for tests."""
    from sklearn.datasets import load_diabetes
    from sklearn.neural_network import MLPRegressor

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    network = MLPRegressor(hidden_layer_sizes=(32, 16), random_state=0, max_iter=2000)
    return network.fit(x[:342], y[:342]), x


def data_arguments(text: str, output: Path) -> argparse.ArgumentParser:
    """Models, all data, and where results go."""
    parser = folders(text, output)
    parser.add_argument("--kws", type=Path, help="folder of kws_cal.npz and kws_test.npz")
    parser.add_argument("--cifar", type=Path, help="npz with x, y, x_calibration and y_calibration")
    parser.add_argument("--ad", type=Path, help="folder of ad01_cal.npz and ad01_test.npz")
    return parser


def main() -> None:
    """Runs what is missing, and writes the page."""
    parser = data_arguments(__doc__, RESULTS)
    parser.add_argument("--only", default="", help="only rows whose key begins so")
    parser.add_argument("--seeds", type=int, default=1, help="draws a row")
    parser.add_argument("--page", type=Path, help="page to write")
    args = parser.parse_args()
    for seed in range(args.seeds):
        for row in ROWS if args.models else ():
            key = f"{row.key} #{seed}"
            if key in read(args.output) or not row.key.startswith(args.only):
                continue
            data = row_data(row, args)
            if data is None:
                continue
            print(f"{key} ...", flush=True)
            given: Any = args.models / row.file if row.file else _diabetes()[0]
            try:
                with model_file(given) as path:
                    found = measure(row, seed, path, *data)
            except RuntimeError as error:
                print(f"{key}: {error}", flush=True)
                continue
            save(args.output, read(args.output) | {key: found})
            print(found, flush=True)
    if args.page:
        args.page.write_text(page(read(args.output)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
