"""ONNX import: file -> checked protobuf -> views and nodes -> folded `Model`."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.errors import InputError
from pvq_hw.model.model import Conv, Dense, Model
from pvq_hw.model.onnx import elementwise as onnx_ops  # noqa: F401  they register
from pvq_hw.model.onnx import shapes as onnx_shapes  # noqa: F401  they register
from pvq_hw.model.onnx import windows as onnx_windows  # noqa: F401  they register
from pvq_hw.model.onnx.file import OnnxFile, check, read_onnx
from pvq_hw.model.onnx.folding import fold
from pvq_hw.model.onnx.lowering import ACTIVATIONS_LIMIT, LayoutError, Lowering, Op, View, handlers
from pvq_hw.naming import quoted, safe_name

__all__ = ["import_onnx"]

_WINDOWS = {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}


def import_onnx(path: Path) -> Model:
    """Reads an ONNX file; raises InputError, with the node's name where one is at fault."""
    file = read_onnx(path)
    _scan(file)
    batch, shape = _input(file)
    check(file)
    graph = file.model.graph
    constants = {t.name: file.array(t) for t in graph.initializer}
    windows = any(n.op_type in _WINDOWS for n in graph.node)
    waiting = [(shape, axes) for axes in _orders(len(shape), windows)]
    tried, text, most = set(waiting), "", -1
    while waiting:
        layout = waiting.pop(0)
        low = Lowering(file, batch)
        try:
            return _lower(low, constants, shape, *layout)
        except LayoutError as error:  # of which none is kept: they hold what was lowered
            if len(low.values) > most:
                text, most = str(error), len(low.values)
            if math.prod(error.shape) == math.prod(shape):  # a map, given flat or otherwise
                unfolded = (error.shape, _last(len(error.shape)))
                waiting += [unfolded] if unfolded not in tried else []
                tried.add(unfolded)
    raise InputError(text)


def _orders(rank: int, windows: bool) -> Iterator[tuple[int, ...]]:
    """Orders of the input's axes to try: channel-last, the file's own, then all others."""
    own = tuple(range(rank))
    last = _last(rank)
    first = last if windows or rank > 2 else own
    every = itertools.permutations(own) if windows and rank <= 3 else ()
    return iter(dict.fromkeys([first, own, last, *every]))


def _last(rank: int) -> tuple[int, ...]:
    """The order of axes that has the first one last."""
    return (*range(1, rank), 0)


# -- before any work ----------------------------------------------------------------------------


def _scan(file: OnnxFile) -> None:
    """Refuses operations that aren't supported."""
    graph, known = file.model.graph, handlers()
    if len(graph.sparse_initializer):
        raise InputError(f"{file.path} must have dense weights, not sparse initializers")
    for proto in graph.node:
        op = Op(proto, str(file.path))
        if proto.op_type not in known or proto.domain not in ("", "ai.onnx"):
            domain = f" of {quoted(proto.domain)}" if proto.domain else ""
            raise InputError(
                f"{file.path}: node {quoted(op.name)} has the operation "
                f"{quoted(proto.op_type)}{domain}, which isn't supported; "
                f"supported are {', '.join(sorted(known))}"
            )
        if not proto.output[0]:
            op.refuse("must have an output")


def _input(file: OnnxFile) -> tuple[int | None, tuple[int, ...]]:
    """The fixed number of frames, if any, and the shape of a frame."""
    graph = file.model.graph
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    for what, items in (("input", inputs), ("output", list(graph.output))):
        if len(items) != 1:
            names = ", ".join(quoted(i.name) for i in items[:8]) or "none"
            raise InputError(f"{file.path} must have one {what}, not {len(items)}: {names}")
    where = f"{file.path}: input {quoted(inputs[0].name)}"
    kind = inputs[0].type
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        raise InputError(f"{where} must be a tensor with a shape")
    dims = kind.tensor_type.shape.dim
    if not 2 <= len(dims) <= 8:
        raise InputError(f"{where} must have frames first and 1 to 7 more axes, not {len(dims)}")
    for axis, dim in enumerate(dims):
        fixed = dim.HasField("dim_value")
        if (fixed and dim.dim_value < 1) or (axis and not fixed):
            shown = dim.dim_value if fixed else quoted(dim.dim_param or "?")
            raise InputError(
                f"{where} must have a fixed size of 1 or more on axis {axis}, not {shown}"
            )
    shape = tuple(int(d.dim_value) for d in dims[1:])
    if math.prod(shape) > ACTIVATIONS_LIMIT:
        raise InputError(f"{where} must have at most {ACTIVATIONS_LIMIT:,} values, not {shape}")
    return (int(dims[0].dim_value) if dims[0].HasField("dim_value") else None), shape


# -- the work -----------------------------------------------------------------------------------


def _lower(
    low: Lowering,
    constants: dict[str, Any],
    given: tuple[int, ...],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> Model:
    """Lowers all nodes; the input, ``given`` in the file, is taken as ``shape`` and stored in the
    order ``axes``."""
    file, graph = low.file, low.file.model.graph
    source = next(i.name for i in graph.input if i.name not in constants)
    inner = tuple(shape[a] for a in axes)
    if len(inner) == 2 and axes == (1, 0):
        inner = (1, *inner)  # 1-D maps have height 1
    tensor = low.tensor_name(source, inner)
    stored = np.arange(math.prod(shape)).reshape([shape[a] for a in axes])
    low.values = dict(constants)
    low.values[source] = View(tensor, stored.transpose(np.argsort(axes)).reshape(1, *given))
    known, read = handlers(), {name for p in graph.node for name in p.input}
    for proto in graph.node:
        op = Op(proto, str(file.path))
        for name in proto.output[1:]:
            if name and name in read:
                op.refuse(f"must have one output that is used, but {quoted(name)} is read too")
        known[proto.op_type](low, op)
    result = low.values.get(graph.output[0].name)
    where = f"{file.path}: output {quoted(graph.output[0].name)}"
    if not isinstance(result, View):
        raise InputError(f"{where} must be computed from the input")
    _check_output(where, low, result)
    inner, nodes = fold(low, tensor, result.tensor) if low.nodes else (inner, ())
    if not any(isinstance(n, Dense | Conv) for n in nodes):
        raise InputError(f"{file.path} must have a Gemm, MatMul or Conv on the way to its output")
    name = safe_name(file.path.stem, default="model")
    return Model(
        name, file.sha256, tensor, shape, axes, inner, nodes, dropped=tuple(low.dropped)
    )  # fmt: skip


def _check_output(where: str, low: Lowering, result: View) -> None:
    """The outputs must be in the file's order or channel-last."""
    if result.pads:
        raise InputError(f"{where} must not be the result of a Pad")
    order = np.arange(result.index.size)
    last = np.moveaxis(result.index, 1, -1) if result.index.ndim > 2 else result.index
    if not (np.array_equal(result.index.ravel(), order) or np.array_equal(last.ravel(), order)):
        raise InputError(f"{where} must not be reordered by a Transpose or Reshape")
