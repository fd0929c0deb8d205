"""How near `pvq-hw check` is to the plan.

Run as ``python -m benchmarks.estimates --models FOLDER --mnist FOLDER [--kws FOLDER] [--cifar FILE]
-o RESULTS.json``: cycles, LUTs and block RAMs that are estimated from shapes alone, over those of
the plan after a quick quantization of some frames, calibrated unless ``--quantizer plain`` is
given. Prints a table. ``--again`` estimates anew beside plans that are there, ``--report`` only
prints.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.networks import SCALE, mnist, read, save
from benchmarks.reach import enlarged
from pvq_hw.data.dataset import Data
from pvq_hw.errors import PvqError
from pvq_hw.flow.check import RATIOS, estimate
from pvq_hw.flow.compile import plan_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.quantize import quantize_for
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.target.boards import get_target

__all__ = ["estimated", "planned", "table"]

FloatArray = npt.NDArray[np.float64]

BOARDS = ("icebreaker", "hx8k", "ulx3s-25f", "ulx3s-85f")
NETWORKS = {
    "784-64-32-10": ("mnist_mlp_784_64_32_10", "mnist"),
    "784-512-512-10": ("mnist_netA_mlp_784_512_512_10", "mnist"),
    "tiny CNN": ("mnist_tinycnn_8_16_bn", "mnist"),
    "LeNet-5": ("mnist_lenet5_relu", "mnist"),
    "KWS": ("kws_dscnn", "kws"),
    "ResNet8": ("pretrainedResnet", "cifar"),
    "VWW": ("vww96", "vww"),
}
INPUT_SCALES = {"mnist": SCALE}


def estimated(model: Model, board: str, ratio: float) -> dict[str, Any]:
    """What `check` says, and the processor seconds that it took."""
    start = time.process_time()
    guess = estimate(model, get_target(board), ratio)
    return {"seconds": time.process_time() - start, "estimated": guess.to_json()}


def planned(model: Model, x: FloatArray, board: str, options: CompileOptions) -> dict[str, Any]:
    """What is planned, or an error's text where it is refused."""
    target = get_target(board)
    try:
        network, folding = quantize_for(model, target, options, Data(x), quick=True)
        made = plan_for(network, target, options, folding)
    except PvqError as error:
        return {"refused": str(error)}
    cost = made.resources
    return {
        "planned": {"interval_cycles": made.interval_cycles, "luts": cost.luts,
                    "brams": cost.brams},
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """Cycles estimated over those planned, a row for a network on a board."""
    lines = ["| network | board | " + " | ".join(f"N/K = {r:g}" for r in RATIOS) + " |",
             "|---|---|" + "---|" * len(RATIOS)]  # fmt: skip
    for network, board in itertools.product(NETWORKS, BOARDS):
        runs = [results.get(f"{network} {board} {ratio:g}") for ratio in RATIOS]
        if any(runs):
            lines.append(f"| {network} | {board} | " + " | ".join(map(_cell, runs)) + " |")
    return "\n".join(lines)


def _cell(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    fits = run["estimated"]["fits"]
    if "planned" not in run:
        return "both refuse" if not fits else "fits, and is refused"
    share = run["estimated"]["interval_cycles"] / run["planned"]["interval_cycles"]
    return f"{share:.2f}" if fits else f"{share:.2f}, said not to fit"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the ONNX files")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument("--kws", type=Path, help="folder of kws_cal.npz")
    parser.add_argument("--cifar", type=Path, help="cifar10_jpeg.npz")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--quantizer", choices=("calibrated", "plain"), default="calibrated")
    parser.add_argument("--network", choices=sorted(NETWORKS), help="only this one")
    parser.add_argument("--board", choices=BOARDS, help="only this one")
    parser.add_argument("--ratio", type=float, choices=RATIOS, help="only this N/K")
    parser.add_argument("-o", "--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--again", action="store_true", help="estimate anew beside plans")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    args = parser.parse_args()
    results = read(args.output)
    for name in () if args.report else [args.network] if args.network else NETWORKS:
        _measure(args, name, results)
    print(table(results))


def _frames(args: argparse.Namespace, data: str) -> FloatArray | None:
    """Calibration inputs; none where they were not given."""
    if data == "mnist":
        return None if args.mnist is None else mnist(args.mnist)[0].x[: args.frames]
    if data == "kws":
        return None if args.kws is None else np.load(args.kws / "kws_cal.npz")["x"][: args.frames]
    if args.cifar is None:
        return None
    x = np.load(args.cifar)["x_calibration"][: args.frames]
    return x if data == "cifar" else enlarged(x, 96)


def _measure(args: argparse.Namespace, name: str, results: dict[str, Any]) -> None:
    """Compares one network on all boards, and saves after each."""
    file, data = NETWORKS[name]
    x = None if args.again else _frames(args, data)
    if args.models is None or (x is None and not args.again):
        print(f"{name}: no data was given", file=sys.stderr)
        return
    model = load_model(args.models / f"{file}.onnx")
    for board, ratio in itertools.product(BOARDS, RATIOS):
        key = f"{name} {board} {ratio:g}"
        if args.board not in (None, board) or args.ratio not in (None, ratio):
            continue
        if args.again and key in results:
            results[key] |= estimated(model, board, ratio)
        elif x is not None and key not in results:
            options = CompileOptions(
                ratio=ratio, input_scale=INPUT_SCALES.get(data, 1.0), quantizer=args.quantizer
            )
            frames = x.reshape(-1, *model.input_shape)
            results[key] = estimated(model, board, ratio) | planned(model, frames, board, options)
        else:
            continue
        save(args.output, results)
        print(f"{key}: {_cell(results[key])}", flush=True)


if __name__ == "__main__":
    main()
