"""A multilayer perceptron from an npz file of ordered arrays.

Layout: ``<i>.weight``, float, (rows, columns) = (outputs, inputs), and optionally ``<i>.bias``,
(rows,), for increasing whole numbers i, as PyTorch's ``Sequential`` numbers its modules (gaps
are fine). ReLU is between the layers, none after the last. The file may hold nothing else, and
each layer must take as many inputs as the one before gives: anything else would be a guess.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import LARGEST
from pvq_hw.data.arrays import read_npz
from pvq_hw.errors import InputError
from pvq_hw.model.model import Dense, Model, Node, Relu
from pvq_hw.naming import quoted, safe_name

__all__ = ["import_npz"]

_KEY = re.compile(r"(0|[1-9][0-9]{0,5})\.(weight|bias)", re.ASCII)
BYTES_LIMIT = 8 << 26  # of the arrays, 8 for each value, as for ONNX
_LAYOUT = "the layout is 0.weight, 0.bias, 1.weight, ... with ReLU between"


def import_npz(path: Path) -> Model:
    """Reads an npz of ordered weights; raises InputError where it is broken or ambiguous."""
    arrays = read_npz(path, limit=BYTES_LIMIT)
    for key in arrays:
        if not _KEY.fullmatch(key):
            raise InputError(
                f"{path}: array {quoted(key)} must be <number>.weight or .bias: {_LAYOUT}"
            )
    numbers = sorted({int(key.split(".")[0]) for key in arrays})
    if not numbers:
        raise InputError(f"{path} must hold weights: {_LAYOUT}")
    nodes: list[Node] = []
    tensor, width = "input", None
    for number in numbers:
        dense = _dense(path, number, arrays, tensor, width)
        nodes.append(dense)
        tensor, width = dense.output, len(dense.bias)
        if number != numbers[-1]:
            nodes.append(Relu(f"relu{number}", (tensor,), f"r{number}", (width,)))
            tensor = f"r{number}"
    shape = arrays[f"{numbers[0]}.weight"].shape[1:]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = safe_name(path.stem, default="model")
    return Model(name, digest, "input", shape, (0,), shape, tuple(nodes))


def _dense(
    path: Path, number: int, arrays: dict[str, npt.NDArray[Any]], tensor: str, width: int | None
) -> Dense:
    key = f"{number}.weight"
    if key not in arrays:
        raise InputError(f"{path} must hold {key!r} beside '{number}.bias'")
    weight = _finite(path, key, arrays[key])
    if weight.ndim != 2 or weight.size == 0:
        raise InputError(
            f"{path}: {key!r} must have the shape (outputs, inputs), not {weight.shape}; "
            "convolutions come as ONNX"
        )
    rows, columns = weight.shape
    if width is not None and columns != width:
        hint = "; it looks transposed" if rows == width else ""
        raise InputError(f"{path}: {key!r} must have {width} columns, not {columns}{hint}")
    bias = _finite(path, f"{number}.bias", arrays.get(f"{number}.bias", np.zeros(rows)))
    if bias.shape != (rows,):
        raise InputError(f"{path}: '{number}.bias' must have the shape ({rows},), not {bias.shape}")
    return Dense(f"fc{number}", (tensor,), f"d{number}", (rows,), weight, bias)


def _finite(path: Path, key: str, array: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if array.dtype.kind != "f":
        raise InputError(f"{path}: {key!r} must be floating point, not {array.dtype}")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: {key!r} must be finite, but holds NaN or infinities")
    if float(np.abs(array).max(initial=0.0)) > LARGEST:
        raise InputError(f"{path}: {key!r} must be at most {LARGEST:g} in magnitude")
    return array.astype(np.float64)
