"""TensorFlow Lite files that nobody vouches for: bytes -> checked tensors and operators.

Field numbers are those of the schema, ``tensorflow/compiler/mlir/lite/schema/schema.fbs``,
version 3.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.model.file_kind import file_content
from pvq_hw.model.tflite.flatbuffer import Buffer, FlatbufferError, Table
from pvq_hw.naming import quoted

__all__ = ["Operator", "Tensor", "TfliteFile", "read_tflite"]

_BYTES_LIMIT = 1 << 30
_TABLES_LIMIT = 2000  # operators; tensors and buffers ten times as many
_RANK_LIMIT = 8
_TYPES = {0: "f4", 1: "f2", 2: "i4", 3: "u1", 4: "i8", 7: "i2", 9: "i1", 10: "f8", 17: "int4"}
"""Types of tensors whose values are read; int4 has two values in a byte, the first one low."""

_QUANTIZED = ("u1", "i1", "i2", "i4", "int4")
_KINDS = {
    0: "Add", 1: "AveragePool2D", 2: "Concatenation", 3: "Conv2D", 4: "DepthwiseConv2D",
    6: "Dequantize", 9: "FullyConnected", 14: "Logistic", 17: "MaxPool2D", 18: "Mul", 19: "Relu",
    20: "ReluN1To1", 21: "Relu6", 22: "Reshape", 25: "Softmax", 28: "Tanh", 34: "Pad",
    39: "Transpose", 40: "Mean", 41: "Sub", 43: "Squeeze", 50: "LogSoftmax", 54: "PRelu",
    60: "PadV2", 70: "ExpandDims", 98: "LeakyRelu", 111: "Elu", 114: "Quantize",
    117: "HardSwish", 150: "Gelu",
}  # fmt: skip
_PLACEHOLDER = 127  # of operator codes that no longer fit a byte
_CUSTOM = 32
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file.

    Parameters
    ----------
    name : str
        As the file has it: any text, perhaps empty, perhaps given twice.
    shape : tuple of int
        Each 1 or more; () for a scalar.
    kind : str
        ``f4``, ``i1``, ... as numpy names them, or ``int4``.
    data : uint8 array, optional
        Its bytes, as many as its shape asks for; None where it is computed.
    scale, zero : arrays, optional
        Scales and zero points, one or one for each index of ``axis``; None where the values are
        not quantized.
    axis : int
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    data: npt.NDArray[np.uint8] | None
    scale: npt.NDArray[np.float32] | None
    zero: npt.NDArray[np.int64] | None
    axis: int

    @property
    def size(self) -> int:
        """Values of the tensor."""
        return math.prod(self.shape)

    def values(self) -> npt.NDArray[Any]:
        """A constant's values, float64 (dequantized where there are scales) or int64."""
        assert self.data is not None
        if self.kind == "int4":
            halves = np.stack((self.data & 15, self.data >> 4), axis=-1).ravel()[: self.size]
            raw = (halves.astype(np.int64) ^ 8) - 8
        else:
            raw = self.data.view("<" + self.kind)
        raw = raw.reshape(self.shape)
        if self.scale is None or self.zero is None:
            with np.errstate(invalid="ignore"):  # of NaN that signals
                return raw.astype(np.float64 if self.kind[0] == "f" else np.int64)
        line = [1] * len(self.shape)
        if len(self.scale) > 1:
            line[self.axis] = -1
        scale, zero = self.scale.astype(np.float64).reshape(line), self.zero.reshape(line)
        return np.asarray((raw.astype(np.int64) - zero) * scale).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator: its kind, tensors by index (-1: left out), and its options."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None

    def option(self, number: int, code: str = "b", default: Any = 0) -> Any:
        """A scalar option by its number in the schema."""
        return default if self.options is None else self.options.scalar(number, code, default)


@dataclass(frozen=True, eq=False)
class TfliteFile:
    """A parsed and checked file of one subgraph."""

    path: Path
    sha256: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def guarded(path: Path, function: Callable[[], T]) -> T:
    """What ``function`` gives, a broken flatbuffer being an InputError."""
    try:
        return function()
    except FlatbufferError as error:
        raise InputError(f"{path} must be a whole TensorFlow Lite file: {error}") from None


def read_tflite(path: Path) -> TfliteFile:
    """Parses and checks a file; raises InputError (one line) for anything wrong."""
    content = file_content(path, _BYTES_LIMIT)
    return guarded(path, lambda: _parse(path, content))


def _parse(path: Path, content: bytes) -> TfliteFile:
    root = Buffer(content).root()
    version = root.scalar(0, "I")
    if version != 3:
        raise InputError(f"{path} must have version 3 of the TensorFlow Lite schema, not {version}")
    graphs = root.tables(2, "subgraphs", _TABLES_LIMIT)
    if len(graphs) != 1:
        raise InputError(f"{path} must have one subgraph, not {len(graphs)}")
    kinds = [_kind(code) for code in root.tables(1, "operator codes", _TABLES_LIMIT)]
    buffers = root.tables(4, "buffers", 10 * _TABLES_LIMIT)
    graph = graphs[0]
    tables = graph.tables(0, "tensors", 10 * _TABLES_LIMIT)
    tensors = tuple(_tensor(path, i, t, buffers) for i, t in enumerate(tables))
    operators = graph.tables(3, "operators", _TABLES_LIMIT)
    if not operators:
        raise InputError(f"{path} has no operators")
    count = len(tensors)
    return TfliteFile(
        path,
        hashlib.sha256(content).hexdigest(),
        tensors,
        tuple(_operator(path, table, kinds, count) for table in operators),
        _indices(path, graph.vector(1, "i4"), count),
        _indices(path, graph.vector(2, "i4"), count),
    )


def _kind(table: Table) -> str:
    """An operator's name; a number where it is none of those that are known here."""
    old, new = table.scalar(0, "b"), table.scalar(3, "i")
    code = new if old == _PLACEHOLDER else max(old, new)
    if code == _CUSTOM:
        return table.text(1) or "custom"
    return _KINDS.get(code, f"operator {code}")


def _indices(path: Path, vector: npt.NDArray[Any], count: int, least: int = 0) -> tuple[int, ...]:
    """Indices of tensors."""
    if len(vector) > count + 8 or any(not least <= i < count for i in vector):
        raise InputError(f"{path} must name tensors from 0 to {count - 1}, not another one")
    return tuple(int(i) for i in vector)


def _operator(path: Path, table: Table, kinds: list[str], count: int) -> Operator:
    code = table.scalar(0, "I")
    if code >= len(kinds):
        raise InputError(f"{path} must have operator codes below {len(kinds)}, not {code}")
    return Operator(
        kinds[code],
        _indices(path, table.vector(1, "i4"), count, -1),
        _indices(path, table.vector(2, "i4"), count),
        table.table(4),
    )


def _tensor(path: Path, index: int, table: Table, buffers: list[Table]) -> Tensor:
    name = table.text(3)
    where = f"{path}: tensor {quoted(name or str(index))}"
    shape = tuple(int(n) for n in table.vector(0, "i4")[: _RANK_LIMIT + 1])
    if len(shape) > _RANK_LIMIT or any(n < 1 for n in shape):
        raise InputError(
            f"{where} must have at most {_RANK_LIMIT} dimensions of 1 or more, not {shape}"
        )
    number = table.scalar(1, "b")
    kind = _TYPES.get(number, f"type {number}")
    scale, zero, axis = _scales(where, table.table(4), shape, kind)
    data = _data(where, table, buffers)
    if data is not None:
        if kind not in _TYPES.values():
            raise InputError(f"{where} must be of floats or integers, not of {kind}")
        size = math.prod(shape)
        wanted = (size + 1) // 2 if kind == "int4" else size * np.dtype(kind).itemsize
        if len(data) != wanted:
            raise InputError(
                f"{where} must hold {wanted:,} bytes for its shape {shape}, not {len(data):,}"
            )
    return Tensor(name, shape, kind, data, scale, zero, axis)


def _data(
    where: str, table: Table, buffers: list[Table]
) -> npt.NDArray[np.uint8] | None:  # fmt: skip
    """The bytes of a tensor; None where it has none."""
    number = table.scalar(2, "I")
    if number >= max(1, len(buffers)):
        raise InputError(f"{where} must have a buffer below {len(buffers)}, not {number}")
    if not buffers:
        return None
    if buffers[number].scalar(1, "Q") > 1 or table.scalar(10, "I"):
        raise InputError(f"{where} must have its data inside the flatbuffer, not after it")
    data = buffers[number].vector(0, "u1", charged=False)
    if len(data) and table.table(6) is not None:
        raise InputError(f"{where} must have dense data, not sparse")
    return data if len(data) else None


def _scales(where: str, table: Table | None, shape: tuple[int, ...], kind: str) -> Any:
    """Scales, zero points and their axis."""
    scale = np.zeros(0, dtype="<f4") if table is None else table.vector(2, "f4")
    if table is None or not len(scale) or kind not in _QUANTIZED:
        return None, None, 0
    zero, axis = table.vector(3, "i8"), table.scalar(6, "i")
    if len(scale) > 1 and (not 0 <= axis < len(shape) or len(scale) != shape[axis]):
        raise InputError(f"{where} must have one scale, or one for each index of an axis")
    if len(zero) not in (0, 1, len(scale)):
        raise InputError(f"{where} must have a zero point for each of its scales")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise InputError(f"{where} must have scales that are positive numbers")
    zero = np.broadcast_to(zero if len(zero) else np.zeros(1, dtype=np.int64), scale.shape)
    if np.abs(zero).max() > 1 << 16:
        raise InputError(f"{where} must have zero points within its type, not {zero.max()}")
    return scale, zero, axis
