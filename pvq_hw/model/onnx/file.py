"""ONNX files that nobody vouches for: bytes -> a checked protobuf with its tensors inside.

External data is read from the model's own folder only: relative paths, no ``..``, no symbolic
links, regular files, within their length. Every size is compared with the bytes that are there
before memory is taken, and what the output does not need is not read.
"""

import hashlib
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, checker, numpy_helper

from pvq_hw.errors import InputError
from pvq_hw.model.file_kind import file_content
from pvq_hw.model.onnx.graph import tidy
from pvq_hw.naming import quoted

__all__ = ["OnnxFile", "read_onnx"]

_BYTES_LIMIT = 1 << 30  # of the file and its external data: protobuf itself ends at 2 GiB
VALUES_LIMIT = 1 << 26  # of all tensors: each value takes 8 bytes here, whatever it takes there
_RANK_LIMIT = 8
_FIRST_OPSET = 7
_FIELDS = {
    TensorProto.FLOAT: ("float_data", 4),
    TensorProto.DOUBLE: ("double_data", 8),
    TensorProto.FLOAT16: ("int32_data", 2),
    TensorProto.BFLOAT16: ("int32_data", 2),
    TensorProto.INT64: ("int64_data", 8),
    TensorProto.INT32: ("int32_data", 4),
    TensorProto.INT16: ("int32_data", 2),
    TensorProto.UINT16: ("int32_data", 2),
    TensorProto.INT8: ("int32_data", 1),
    TensorProto.UINT8: ("int32_data", 1),
    TensorProto.BOOL: ("int32_data", 1),
}
_HALVES = (TensorProto.INT4, TensorProto.UINT4)  # two values in a byte, or in an entry
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass
class OnnxFile:
    """A parsed and checked model file.

    Parameters
    ----------
    path : Path
    model : onnx.ModelProto
    sha256 : str
        Of the file and, after it, of the external data that is read, in the file's order.
    opset : int
        Of the standard operators.
    """

    path: Path
    model: Any
    sha256: str
    opset: int

    @cached_property
    def kinds(self) -> dict[str, int]:
        """Types of the constants, as `TensorProto` numbers them, by name."""
        graph = self.model.graph
        kinds = {t.name: int(t.data_type) for t in graph.initializer}
        for node in graph.node:
            for item in node.attribute:
                if node.op_type == "Constant" and item.HasField("t") and node.output:
                    kinds[node.output[0]] = int(item.t.data_type)
        return kinds

    def array(self, tensor: Any) -> npt.NDArray[Any]:
        """A tensor's values: float64, int64 or bool; NaN and infinities are refused."""
        where = f"{self.path}: tensor {quoted(tensor.name)}"
        try:
            raw = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{where} is broken: {_one_line(error)}") from None
        if tensor.data_type not in _FLOATS:
            return raw if raw.dtype == np.bool_ else raw.astype(np.int64)
        with np.errstate(invalid="ignore"):  # of NaN that signals
            values = raw.astype(np.float64)
        if np.isnan(values).any():
            raise InputError(f"{where} must be finite, but holds NaN")
        return values


def read_onnx(path: Path) -> OnnxFile:
    """Parses, tidies and checks a model file; raises InputError (one line) for anything wrong."""
    content = file_content(path, _BYTES_LIMIT)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path} must be an ONNX or npz file: {_one_line(error)}") from None
    if not model.ir_version or not model.HasField("graph") or not model.graph.node:
        raise InputError(f"{path} must be an ONNX or npz file, but holds no graph")
    opset = _opset(path, model)
    digest = hashlib.sha256(content)
    del content
    tidy(path, model.graph)
    budget = VALUES_LIMIT
    for tensor in _tensors(model.graph):
        budget -= _check_tensor(path, tensor, budget)
        if tensor.data_location == TensorProto.EXTERNAL:
            _read_external(path, tensor, digest)
    return OnnxFile(path, model, digest.hexdigest(), opset)


def check(file: OnnxFile) -> None:
    """Runs the format's own checker over the model; an output's type may be missing."""
    for output in file.model.graph.output:
        if output.type.WhichOneof("value") in (None, "tensor_type"):
            kind = output.type.tensor_type
            kind.shape.SetInParent()
            kind.elem_type = kind.elem_type or TensorProto.FLOAT
    try:
        checker.check_model(file.model)
    except (checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{file.path} must be a valid ONNX model: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    text = " ".join(ascii(str(error))[1:-1].replace("\\n", " ").split())
    return text[:200] or type(error).__name__


def _opset(path: Path, model: Any) -> int:
    versions = list({o.version: 0 for o in model.opset_import if o.domain in ("", "ai.onnx")})
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not _FIRST_OPSET <= versions[0] <= newest:
        shown = ", ".join(map(str, versions[:4])) or "none"
        raise InputError(
            f"{path} must use one operator set of {_FIRST_OPSET} to {newest}, not {shown}; "
            "export it again with opset_version=17"
        )
    return int(versions[0])


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that carries values: initializers and attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_tensor(path: Path, tensor: Any, budget: int) -> int:
    """Compares what a tensor claims with what is there; returns its number of values."""
    where = f"{path}: tensor {quoted(tensor.name)}"
    if tensor.data_type not in (*_FIELDS, *_HALVES):
        known = {v: k for k, v in TensorProto.DataType.items()}
        name = known.get(tensor.data_type, tensor.data_type)
        raise InputError(f"{where} must be float16, float, double or integer, not {name}")
    if len(tensor.dims) > _RANK_LIMIT or any(n < 0 for n in tensor.dims):
        raise InputError(
            f"{where} must have at most {_RANK_LIMIT} dimensions, none negative, "
            f"not {str(list(tensor.dims))[:60]}"
        )
    if tensor.HasField("segment"):
        raise InputError(f"{where} must be whole, not a segment")
    field_name = _FIELDS.get(tensor.data_type, ("int32_data",))[0]
    count = math.prod(tensor.dims)
    if count > budget:
        raise InputError(f"{where} claims {count:,} values; at most {budget:,} are read")
    if tensor.data_location == TensorProto.EXTERNAL:
        return count
    if tensor.HasField("raw_data"):
        held, wanted, unit = len(tensor.raw_data), _bytes(tensor), "bytes"
    else:
        wanted = _bytes(tensor) if tensor.data_type in _HALVES else count
        held, unit = len(getattr(tensor, field_name)), "values"
    if held != wanted:
        raise InputError(
            f"{where} must hold {wanted:,} {unit} for its shape {tuple(tensor.dims)}, not {held:,}"
        )
    return count


def _bytes(tensor: Any) -> int:
    """Bytes of a tensor's values."""
    count = math.prod(tensor.dims)
    if tensor.data_type in _HALVES:
        return (count + 1) // 2
    return count * _FIELDS[tensor.data_type][1]


def _read_external(path: Path, tensor: Any, digest: Any) -> None:
    """Moves a tensor's external data into the tensor."""
    where = f"{path}: external data of tensor {quoted(tensor.name)}"
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    size = _bytes(tensor)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size)
    except ValueError:
        raise InputError(f"{where} must have an offset and a length that are numbers") from None
    if length != size or offset < 0:
        raise InputError(f"{where} must be {size:,} bytes, not {length:,} at {offset:,}")
    target = _external_path(path.parent, location, where)
    try:
        descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{where} must be in a regular file, not {quoted(location)}")
            if offset + size > status.st_size:
                raise InputError(
                    f"{where} must lie within {quoted(location)} ({status.st_size:,} bytes), "
                    f"not at {offset:,} to {offset + size:,}"
                )
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise InputError(f"{where} must be in {quoted(location)}: {error.strerror}") from None
    digest.update(data)
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT


def _external_path(folder: Path, location: str, where: str) -> Path:
    """The file that ``location`` names inside ``folder``; refuses every way out of it."""
    parts = PurePosixPath(location).parts
    unsafe = "\\" in location or "\0" in location or ":" in location or location.startswith("/")
    if not parts or unsafe or ".." in parts:
        raise InputError(
            f"{where} must be in the model's folder, given by a relative path, "
            f"not {quoted(location)}"
        )
    target = folder
    for part in parts:
        target = target / part
        if target.is_symlink():
            raise InputError(f"{where} must not be a symbolic link: {quoted(location)}")
    if target.exists() and not target.is_file():
        raise InputError(f"{where} must be in a regular file, not {quoted(location)}")
    return target
