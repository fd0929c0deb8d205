"""Whether ``--max-loss P`` keeps its word on inputs that it never saw.

Run as ``python -m benchmarks.promise [--models FOLDER --mnist FOLDER] [--kws FOLDER] [--cifar
FILE.npz]``: for every network, board and P the choice is made from labeled calibration inputs,
another draw for each seed, of which it holds a fifth out itself; then the test inputs are judged by
the integer golden model. The word is kept where the loss on them is at most P plus the 95 %
interval of that loss, which counts the inputs that are right in one model alone. ``--tune N`` lets
``tune`` search N trials for the same loss on the same inputs. Results that the file already holds
are not computed again, so the run may be stopped at any time; rows whose data were not given are
left out. ``--page FILE`` writes the page.
"""

import argparse
import math
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pvq_hw
from benchmarks.networks import folders, mnist, read, save
from benchmarks.reach import judged
from pvq_hw.bundled import DIGITS, DIGITS_DATA
from pvq_hw.data.dataset import Data, load_data
from pvq_hw.errors import CheckError
from pvq_hw.flow.choose import choose
from pvq_hw.flow.compile import compile_model, plan_for
from pvq_hw.flow.options import CompileOptions, load_options
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.target.boards import get_target
from pvq_hw.tune.search import TuneOptions, tune

__all__ = ["CASES", "RESULTS", "Case", "by_hand", "half_interval", "main", "measure", "page"]

RESULTS = Path(__file__).parent / "results" / "promise.json"
LOSSES = (0.3, 1.0, 3.0)
_EXAMPLES = Path(__file__).parents[1] / "examples"
_CONFIDENCE = 1.959963984540054
_MOST = 3000  # calibration inputs of a draw
_PART = 0.8  # of the calibration inputs, in each draw
_CHUNK = 250  # inputs that are predicted at a time


@dataclass(frozen=True)
class Case:
    """A network and a board; ``slow`` ones are measured for the first draw only, and not tuned."""

    name: str
    file: str
    data: str
    target: str
    input_scale: float = 1.0
    slow: bool = False


_BOTH = ("icebreaker", "ulx3s-25f")
_BIG = ("ulx3s-25f",)
_BIGGEST = ("ulx3s-85f",)
CASES = tuple(
    Case(name, file, data, board, scale, slow)
    for name, file, data, scale, boards, slow in (
        ("digits MLP", "", "digits", 1.0, _BOTH, False),
        ("JapaneseVowels CNN", "japanese_vowels_cnn.onnx", "japanese_vowels", 1.0, _BOTH, False),
        ("BasicMotions DS-CNN", "basic_motions_dscnn.onnx", "basic_motions", 1.0, _BOTH, False),
        ("MNIST MLP", "mnist_mlp_784_64_32_10.onnx", "mnist", 255.0, _BOTH, False),
        ("tiny CNN", "mnist_tinycnn_8_16_bn.onnx", "mnist", 255.0, _BIG, True),
        ("DS-CNN (KWS)", "kws_dscnn.onnx", "kws", 1.0, _BIG, True),
        ("ResNet8", "pretrainedResnet.onnx", "cifar", 1.0, _BIGGEST, True),
    )
    for board in boards
)


def half_interval(only_float: int, only_ours: int, frames: int) -> float:
    """Points on either side of a loss that hold it with 95 %, of two models judged on the same
    inputs."""
    changed, lost = only_float + only_ours, only_float - only_ours
    return 100 * _CONFIDENCE * math.sqrt(max(0.0, changed - lost**2 / frames)) / frames


def measure(case: Case, most: float, seed: int, path: Path, train: Data, test: Data) -> Any:
    """One choice, and what came of it on the test inputs; ``refused`` where there is none."""
    calibration = replace(_drawn(train, seed), input_scale=case.input_scale)
    model, board = load_model(path), get_target(case.target)
    options = CompileOptions(
        target=case.target, max_loss=most, seed=seed, input_scale=case.input_scale
    )
    start = time.process_time()
    try:
        choice = choose(model, board, options, calibration, plan_for)
    except CheckError as error:
        return {"refused": str(error)}
    seconds = time.process_time() - start
    trials = choice.document["trials"]
    taken = trials[choice.document["chosen"]]
    return {
        **_judged(model, choice.made.network, test, case.input_scale),
        "held": choice.document["frames"],
        "held_loss": taken["loss"],
        "reckoned_loss": taken["reckoned_loss"],
        "ratio": taken["ratio"],
        "int8_layers": taken["int8_layers"],
        "cycles": taken["interval_cycles"],
        "inferences_per_second": taken["inferences_per_second"],
        "int8_inferences_per_second": trials[0].get("inferences_per_second"),
        "trials": len(trials),
        "processor_seconds": round(seconds, 1),
        "versions": _versions(),
    }


def by_hand(
    case: Case, most: float, trials: int, path: Path, train: Data, test: Data, workers: int = 1
) -> dict[str, Any]:
    """What a search of ``tune`` finds for the same loss and inputs, and how long it takes."""
    drawn, model = _drawn(train, 0), load_model(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "d.npz", x=drawn.x, y=drawn.y)
        asked = TuneOptions(
            case.target, max_loss=most, trials=trials, input_scale=case.input_scale,
            workers=workers,
        )  # fmt: skip
        start, before = time.process_time(), _children()
        document = tune(path, folder / "d.npz", folder / "tuned", asked)
        seconds = time.process_time() - start + _children() - before
        options = load_options(folder / "tuned" / "config.toml", {})
        compile_model(
            path, folder / "out", options,
            calibration=load_data(folder / "d.npz", case.input_scale),
        )  # fmt: skip
        made = pvq_hw.load(folder / "out")
        network, planned = made.network, made.plan  # which read the folder
    return {
        **_judged(model, network, test, case.input_scale),
        "cycles": planned.interval_cycles,
        "met": document["met"]["validation"],
        "trials": len(document["trials"]),
        "processor_seconds": round(seconds, 1),
        "versions": _versions(),
    }


def _drawn(train: Data, seed: int) -> Data:
    order = np.random.default_rng(seed).permutation(len(train))
    drawn = np.sort(order[: min(_MOST, int(_PART * len(order)))])
    return replace(train, x=train.x[drawn], y=None if train.y is None else train.y[drawn])


def _judged(model: Model, network: Network, test: Data, scale: float) -> dict[str, Any]:
    parts = [test.x[i : i + _CHUNK] for i in range(0, len(test.x), _CHUNK)]
    exact = [model.predict(x, scale).reshape(len(x), -1) for x in parts]
    ours = [
        network.real(network.predict(network.quantize_input(x, scale))).reshape(len(x), -1)
        for x in parts
    ]
    return judged(np.concatenate(exact), np.concatenate(ours), test.y)


def _children() -> float:
    """Processor seconds of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _versions() -> dict[str, str]:
    return {
        "pvq-hw": pvq_hw.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


_ABOUT = """\
# Benchmark: does `--max-loss` keep its word?

<!-- Made by `python -m benchmarks.promise --page`: don't edit by hand. -->

Each row is one choice of `pvq-hw compile --max-loss P`: from up to 3,000 labeled calibration inputs
(four fifths of the training inputs where these are fewer: of KWS's 500, of ResNet8's 1,000 images), another draw
for each seed, of which it holds a fifth out and never calibrates with; *held out* is the loss there,
and the one reckoned with on other inputs, which decides. The test inputs took no part. *lost* is
their loss in points of accuracy, with its 95 % interval from the inputs that are right in one model
alone (*only float, only ours*). The word is kept where the loss is at most P plus that interval.
*int8*: inferences a second with all layers as 8-bit weights, with the same planner, where that fits.
Speeds are planned, at the board's clock; *CPU s* is the whole choice's, on a shared machine. Made by

    python -m benchmarks.promise --models FOLDER --mnist FOLDER --kws FOLDER --cifar FILE.npz \\
        --seeds 2 --tune 200 --page docs/benchmarks-promise.md

| network | board | P | draw | lost | only float, only ours (inputs) | kept | held out, reckoned (inputs) | N/K | 8-bit layers | inferences/s | int8 | trials | CPU s |
|---|---|---:|---:|---:|---:|---|---:|---:|---|---:|---:|---:|---:|
"""  # noqa: E501

_TUNED = """
## Beaten by a search?

`pvq-hw tune --max-loss P` for the same board, with as many trials as shown, on the inputs of draw 0,
starting from what `--max-loss` chooses; its choice is compiled and judged on the test inputs like
the others. *times as long*: processor seconds of the search over those of `--max-loss`. *cycles*:
between frames, of the search's choice and of `--max-loss`'s.

| network | board | P | trials | lost | lost by `--max-loss` | cycles | of `--max-loss` | CPU s | times as long |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""  # noqa: E501


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    lines, tuned, refused, kept = [], [], [], 0
    for key, found in results.items():
        name, target, most, seed = key.split(" | ")
        if "refused" in found:
            refused.append(f"- {name} on {target}, P {most}, draw {seed}: {found['refused']}")
        elif seed == "tune":
            tuned.append(_tuned_line(key, found, results[f"{name} | {target} | {most} | 0"]))
        else:
            lost, half = _lost(found)
            held = lost <= float(most) + half + 1e-9
            kept += held
            lines.append(_line(key, found, "yes" if held else "**no**"))
    text = _ABOUT + "\n".join(lines) + f"\n\nKept in {kept} of {len(lines)} cases.\n"
    if refused:
        text += "\n".join(["\nRefused, with exit status 1:\n", *refused]) + "\n"
    if tuned:
        text += _TUNED + "\n".join(tuned) + "\n"
    return text


def _lost(found: Mapping[str, Any]) -> tuple[float, float]:
    """Points lost, and half their interval."""
    frames = found["frames"]
    lost = 100 * (found["float_right"] - found["right"]) / frames
    return lost, half_interval(found["only_float"], found["only_ours"], frames)


def _line(key: str, found: Mapping[str, Any], kept: str) -> str:
    lost, half = _lost(found)
    fast = found["int8_inferences_per_second"]
    cells = (
        key,
        f"{lost:.2f} ± {half:.2f}",
        f"{found['only_float']}, {found['only_ours']} ({found['frames']:,})",
        kept,
        f"{found['held_loss']:.2f}, {found['reckoned_loss']:.2f} ({found['held']})",
        f"{found['ratio'] or ''}",
        "all" if not found["ratio"] else ", ".join(f"`{n}`" for n in found["int8_layers"]),
        f"{found['inferences_per_second']:,.0f}",
        f"{fast:,.0f}" if fast else "does not fit",
        f"{found['trials']}",
        f"{found['processor_seconds']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _tuned_line(key: str, found: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    lost, half = _lost(found)
    cells = (
        key.rpartition(" | ")[0],
        f"{found['trials']}",
        f"{lost:.2f} ± {half:.2f}",
        "{:.2f} ± {:.2f}".format(*_lost(ours)),
        f"{found['cycles']:,}",
        f"{ours['cycles']:,}",
        f"{found['processor_seconds']:.0f}",
        f"{found['processor_seconds'] / ours['processor_seconds']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def case_data(case: Case, args: argparse.Namespace) -> tuple[Path, Data, Data] | None:
    """Model file, calibration and test inputs; none where they were not given."""
    if case.data == "digits":
        with np.load(DIGITS_DATA) as file:
            train, test = (Data(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test"))
        return DIGITS, train, test
    if case.file and (_EXAMPLES / case.file).exists():
        parts = [np.load(_EXAMPLES / f"{case.data}_{part}.npz") for part in ("train", "test")]
        train, test = (Data(p["x"], p["y"]) for p in parts)
        return _EXAMPLES / case.file, train, test
    source = {"kws": args.kws, "cifar": args.cifar, "mnist": args.mnist}[case.data]
    if source is None or args.models is None:
        return None
    return args.models / case.file, *_READERS[case.data](source)


def _kws(folder: Path) -> tuple[Data, Data]:
    parts = [np.load(folder / f"kws_{part}.npz") for part in ("cal", "test")]
    train, test = (Data(p["x"], p["y"]) for p in parts)
    return train, test


def _cifar(path: Path) -> tuple[Data, Data]:
    with np.load(path) as file:
        return Data(file["x_calibration"], file["y_calibration"]), Data(file["x"], file["y"])


_READERS: Mapping[str, Callable[[Path], tuple[Data, Data]]] = {
    "mnist": mnist,
    "kws": _kws,
    "cifar": _cifar,
}


def _runs(seeds: int, trials: int) -> Iterator[tuple[Case, float, str]]:
    """What is measured: draws first, then searches."""
    for seed in range(seeds):
        for case in CASES:
            for most in LOSSES if not (case.slow and seed) else ():
                yield case, most, str(seed)
    for case in CASES if trials else ():
        if not case.slow and case.target == "icebreaker":
            yield case, 1.0, "tune"


def main() -> None:
    """Runs what is missing, and writes the page."""
    parser = folders(__doc__, RESULTS)
    parser.add_argument("--kws", type=Path, help="folder of kws_cal.npz and kws_test.npz")
    parser.add_argument("--cifar", type=Path, help="npz with x, y, x_calibration, y_calibration")
    parser.add_argument("--only", default="", help="only cases whose key begins so")
    parser.add_argument("--seeds", type=int, default=2, help="draws a case")
    parser.add_argument("--tune", type=int, default=0, help="trials of the searches")
    parser.add_argument("--page", type=Path, help="page to write")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    for case, most, seed in () if args.report else _runs(args.seeds, args.tune):
        key = f"{case.name} | {case.target} | {most:g} | {seed}"
        if key in read(args.output) or not key.startswith(args.only):
            continue
        given = case_data(case, args)
        if given is None:
            continue
        if seed == "tune":
            found = by_hand(case, most, args.tune, *given)
        else:
            found = measure(case, most, int(seed), *given)
        save(args.output, read(args.output) | {key: found})
        print(key, found, flush=True)
    if args.page:
        args.page.write_text(page(read(args.output)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
