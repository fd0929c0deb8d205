"""The networks of the accuracy benchmarks, and what their command lines share."""

import argparse
import json
from pathlib import Path
from typing import Any

from pvq_hw.data.dataset import Data, make_data

__all__ = [
    "INPUT_SCALES",
    "NETWORKS",
    "SCALE",
    "arguments",
    "folders",
    "mnist",
    "parse",
    "read",
    "save",
]

NETWORKS = {
    "A": "mnist_netA_mlp_784_512_512_10.onnx",
    "B": "mnist_mlp_784_64_32_10.onnx",
    "D": "digits_mlp_64_32_10.onnx",
}
INPUT_SCALES = {"A": 255.0, "B": 255.0, "D": 1.0}
SCALE = 255.0
"""What MNIST's bytes are divided by."""

_FILES = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")


def folders(text: str, output: Path | None = None) -> argparse.ArgumentParser:
    """Where models and images come from and results go.

    Parameters
    ----------
    text : str
        The module's description; its first line is shown.
    output : path, optional
        Of the results, where none is named; without it one must be.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the ONNX files")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx.gz files")
    parser.add_argument(
        "-o", "--output", type=Path, default=output, required=output is None, help="results, JSON"
    )
    return parser


def arguments(text: str, output: Path | None = None) -> argparse.ArgumentParser:
    """What the benchmarks of dense networks take, with `folders`."""
    parser = folders(text, output)
    parser.add_argument("--network", choices=sorted(NETWORKS), help="only this network")
    parser.add_argument("--ratio", type=float, help="only this N/K")
    parser.add_argument("--seeds", type=int, default=3, help="draws a row")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; without a folder that measuring needs, a message and exit status 2."""
    args = parser.parse_args()
    if not args.report and (args.models is None or args.mnist is None):
        parser.error("--models and --mnist are needed to measure")
    return args


def mnist(folder: Path) -> tuple[Data, Data]:
    """Training and test images, as bytes."""
    train, test = (
        make_data([folder / f"{part}-{what}" for what in _FILES]) for part in ("train", "t10k")
    )
    return train, test


def read(path: Path) -> dict[str, Any]:
    """Results so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, results: dict[str, Any]) -> None:
    """Writes results whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    part.replace(path)
