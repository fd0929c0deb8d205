"""ONNX import: file -> checked protobuf -> views and nodes -> folded `Model`."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import shape_inference

from pvq_hw.errors import InputError
from pvq_hw.inputs import MOST_INPUTS, Input
from pvq_hw.model.model import Model, Node
from pvq_hw.model.onnx import elementwise as onnx_ops  # noqa: F401  they register
from pvq_hw.model.onnx import parts as onnx_parts  # noqa: F401  they register
from pvq_hw.model.onnx import pointwise as onnx_pointwise  # noqa: F401  they register
from pvq_hw.model.onnx import qonnx as onnx_qonnx  # noqa: F401  they register
from pvq_hw.model.onnx import quantized as onnx_quantized  # noqa: F401  they register
from pvq_hw.model.onnx import shapes as onnx_shapes  # noqa: F401  they register
from pvq_hw.model.onnx import windows as onnx_windows  # noqa: F401  they register
from pvq_hw.model.onnx.file import OnnxFile, check, read_onnx
from pvq_hw.model.onnx.folding import fold
from pvq_hw.model.onnx.graph import NodeError
from pvq_hw.model.onnx.lowering import (
    ACTIVATIONS_LIMIT,
    ENDS,
    PARTING,
    LayoutError,
    Lowering,
    Op,
    View,
    handlers,
    is_known,
    standard_kinds,
)
from pvq_hw.model.onnx.refusals import Refusal, RefusalError, remedy
from pvq_hw.naming import Names, quoted, safe_name
from pvq_hw.outputs import MOST_OUTPUTS, Output

__all__ = ["Examined", "examine_graph", "examine_onnx", "import_graph", "import_onnx"]

_RELABELS = {
    "Identity",
    "Cast",
    "Dropout",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
}
Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape in which an input is taken, and the order of its axes in which it is stored."""

_MOST_LAYOUTS = 64
_WINDOWS = {
    "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean",
    "ReduceMax", "ReduceMin", "ReduceSum",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Examined:
    """A file as far as it could be read.

    Parameters
    ----------
    path : Path
    model : Model, optional
        None where something stops it.
    refusals : tuple of Refusal
        All that stops it, in the order of its nodes.
    ops : tuple of Op
        The nodes that its outputs need, in order.
    judged : set of int
        Those that are taken or refused; the others read what only an unknown operation gives.
    nodes : tuple of (int, Node)
        What was made of the nodes, with their places.
    """

    path: Path
    model: Model | None
    refusals: tuple[Refusal, ...]
    ops: tuple[Op, ...]
    judged: frozenset[int] = frozenset()
    nodes: tuple[tuple[int, Node], ...] = ()


def import_onnx(path: Path) -> Model:
    """Reads an ONNX file; raises InputError, with all nodes that are at fault."""
    return import_graph(read_onnx(path))


def import_graph(file: OnnxFile) -> Model:
    """The model of a file that was read; raises InputError likewise."""
    found = examine_graph(file)
    if found.model is None:
        raise RefusalError(file.path, found.refusals, standard_kinds())
    return found.model


def examine_onnx(path: Path) -> Examined:
    """Reads an ONNX file, and all that stops it from being a Model.

    Raises InputError where the file is broken rather than refused.
    """
    return examine_graph(read_onnx(path))


def examine_graph(file: OnnxFile) -> Examined:
    """The same of a file that was read."""
    path = file.path
    ops = tuple(Op(p, str(path), i) for i, p in enumerate(file.model.graph.node))
    refusals = _scan(file, ops)
    unknown = {refusal.place for refusal in refusals}
    wrong = _ends(file)
    if not wrong:
        batch, given, wrong = _given(file)
    refusals = [*wrong, *refusals]
    try:
        check(file)
    except InputError:
        if not refusals:
            raise
        return Examined(path, None, tuple(refusals), ops, frozenset(unknown))
    if wrong:
        return Examined(path, None, tuple(refusals), ops, frozenset(unknown))
    low, end, model = _try_layouts(file, ops, unknown, batch, given)
    held = low.refused + ([end] if end else [])
    refusals += [Refusal(e.op.name, e.op.kind, e.reason, "", e.op.place) for e in held]
    judged = unknown | low.judged | {e.op.place for e in held}
    places = [(low.ops[node.output].place, node) for node in low.nodes if node.output in low.ops]
    ordered = sorted(set(refusals), key=lambda r: r.place)
    return Examined(path, model, tuple(ordered), ops, frozenset(judged), tuple(places))


def _try_layouts(
    file: OnnxFile, ops: tuple[Op, ...], unknown: set[int], batch: int | None,
    given: dict[str, tuple[int, ...]],
) -> tuple[Lowering, NodeError | None, Model | None]:  # fmt: skip
    """Lowers with one order of the inputs' axes after the other.

    Gives the first that comes to an end, with the model where nothing was refused; or the one
    that went furthest, with what stopped it.
    """
    graph = file.model.graph
    constants = {t.name: file.array(t) for t in graph.initializer}
    windows = any(n.op_type in _WINDOWS for n in graph.node)
    shapes = _Shapes(file, batch)
    each = [[(shape, axes) for axes in _orders(len(shape), windows)] for shape in given.values()]
    waiting = list(itertools.islice(itertools.product(*each), _MOST_LAYOUTS))
    tried = set(waiting)
    best: tuple[Lowering, NodeError | None] | None = None
    most = -1
    while waiting:
        layout = waiting.pop(0)
        low = Lowering(file, batch)
        try:
            return low, None, _lower(low, ops, unknown, shapes, constants, given, layout)
        except LayoutError as error:
            if len(low.judged) > most:
                most = len(low.judged)
                low.values.clear()
                best = low, error
            for place, shape in enumerate(given.values()):
                if math.prod(error.shape) == math.prod(shape):  # a map, given flat or otherwise
                    unfolded = (error.shape, _last(len(error.shape)))
                    other = (*layout[:place], unfolded, *layout[place + 1 :])
                    waiting += [other] if other not in tried else []
                    tried.add(other)
        except NodeError as error:  # in folding, by when all nodes have been looked at
            return low, error, None
    assert best is not None
    return (*best, None)


class _Shapes(dict[str, tuple[int, ...]]):
    """Shapes of a file's values as the format infers them, frames first; found when asked for."""

    def __init__(self, file: OnnxFile, batch: int | None) -> None:
        super().__init__()
        self._file: OnnxFile | None = file
        self._batch = batch

    def get(self, name: str, default: Any = ()) -> Any:
        """The shape with 1 for the frames, or () where it isn't known."""
        if self._file is not None:
            self._infer(self._file.model)
            self._file = None
        return super().get(name, default)

    def _infer(self, model: Any) -> None:
        try:
            inferred = shape_inference.infer_shapes(model)
        except Exception:  # it refuses in many ways, none of which is news here
            return
        for value in inferred.graph.value_info:
            dims = value.type.tensor_type.shape.dim
            frames, *rest = [int(d.dim_value) for d in dims] or [0]
            if 1 <= len(rest) < 8 and all(rest) and frames in (0, self._batch or 0):
                self[value.name] = (1, *rest)


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


def _scan(file: OnnxFile, ops: tuple[Op, ...]) -> list[Refusal]:
    """The operations that aren't supported."""
    if len(file.model.graph.sparse_initializer):
        raise InputError(f"{file.path} must have dense weights, not sparse initializers")
    refusals = []
    for op in ops:
        if not is_known(op):
            domain = f", of {quoted(op.proto.domain)}" if op.proto.domain else ""
            refusals.append(
                Refusal(
                    op.name, op.kind, f"isn't supported{domain}",
                    remedy(op.kind), op.place, True,
                )
            )  # fmt: skip
        elif not op.proto.output[0]:
            refusals.append(Refusal(op.name, op.kind, "must have an output", "", op.place))
    return refusals


def _ends(file: OnnxFile) -> list[Refusal]:
    """What is wrong with the numbers of inputs and outputs."""
    found = []
    inputs, outputs = _inputs(file), [o.name for o in file.model.graph.output]
    if not 1 <= len(inputs) <= MOST_INPUTS:
        names = ", ".join(quoted(i.name) for i in inputs[:8]) or "none"
        found.append(
            Refusal("", "", f"must have 1 to {MOST_INPUTS} inputs, not {len(inputs)}: {names}")
        )
    read = {name for node in file.model.graph.node for name in node.input}
    for source in inputs if len(inputs) > 1 else ():
        if source.name not in read:
            found.append(Refusal("", "", f"must use its input {quoted(source.name)} or lack it"))
    if not 1 <= len(outputs) <= MOST_OUTPUTS:
        found.append(Refusal("", "", f"must have 1 to {MOST_OUTPUTS} outputs, not {len(outputs)}"))
    for name in dict.fromkeys(name for name in outputs if outputs.count(name) > 1):
        found.append(Refusal("", "", f"must have outputs of different names, not {quoted(name)} "
                                     "again"))  # fmt: skip
    return found


def _inputs(file: OnnxFile) -> list[Any]:
    weights = {t.name for t in file.model.graph.initializer}
    return [i for i in file.model.graph.input if i.name not in weights]


def _given(file: OnnxFile) -> tuple[int | None, dict[str, tuple[int, ...]], list[Refusal]]:
    """The fixed number of frames, if any, the shape of every input's frame by its name, and what is
    wrong with them."""
    found: dict[str, tuple[int, ...]] = {}
    batches, wrong = set(), []
    for source in _inputs(file):
        batch, shape, refusals = _input(source)
        batches.add(batch)
        found[source.name] = shape
        wrong += refusals
    if len(batches) > 1 and not wrong:
        shown = ", ".join("any number" if b is None else str(b) for b in batches)
        wrong.append(Refusal("", "", f"must have as many frames in all inputs, not {shown}"))
    if sum(map(math.prod, found.values())) > ACTIVATIONS_LIMIT:
        wrong.append(Refusal("", "", f"must have inputs of at most {ACTIVATIONS_LIMIT:,} values"))
    return (batches.pop() if batches else None), found, wrong


def _input(source: Any) -> tuple[int | None, tuple[int, ...], list[Refusal]]:
    """The fixed number of frames, if any, the shape of a frame, and what is wrong with it."""

    def wrong(text: str) -> tuple[None, tuple[int, ...], list[Refusal]]:
        return None, (), [Refusal("", "", f"input {quoted(source.name)} {text}")]

    kind = source.type
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return wrong("must be a tensor with a shape")
    dims = kind.tensor_type.shape.dim
    if not 2 <= len(dims) <= 8:
        return wrong(f"must have frames first and 1 to 7 more axes, not {len(dims)}")
    for axis, dim in enumerate(dims):
        fixed = dim.HasField("dim_value")
        if (fixed and dim.dim_value < 1) or (axis and not fixed):
            shown = dim.dim_value if fixed else quoted(dim.dim_param or "?")
            return wrong(f"must have a fixed size of 1 or more on axis {axis}, not {shown}")
    shape = tuple(int(d.dim_value) for d in dims[1:])
    if math.prod(shape) > ACTIVATIONS_LIMIT:
        return wrong(f"must have at most {ACTIVATIONS_LIMIT:,} values, not {shape}")
    return (int(dims[0].dim_value) if dims[0].HasField("dim_value") else None), shape, []


# -- the work -----------------------------------------------------------------------------------


def _lower(
    low: Lowering,
    ops: tuple[Op, ...],
    unknown: set[int],
    shapes: _Shapes,
    constants: dict[str, Any],
    given: dict[str, tuple[int, ...]],
    layouts: tuple[Layout, ...],
) -> Model | None:
    """Lowers all nodes; each input, ``given`` in the file, is taken as another shape and stored in
    another order of its axes. None where nodes were refused."""
    file, graph = low.file, low.file.model.graph
    low.values = dict(constants)
    tensor, inner = _put_inputs(low, given, layouts)
    known, read = handlers(), {name for p in graph.node for name in p.input}
    finals = _final_operations(graph)
    low.ends = set().union(*finals.values())
    for op in ops:
        if op.place in unknown or not low.unknown.isdisjoint(op.proto.input):
            low.guess(op, shapes)
            continue
        try:
            for name in op.proto.output[1:] if op.kind not in PARTING else ():
                if name and name in read:
                    op.refuse(f"must have one output that is used, but {quoted(name)} is read too")
            known[op.kind](low, op)
        except LayoutError:
            raise
        except NodeError as error:
            low.refused.append(error)
            low.guess(op, shapes)
        low.judged.add(op.place)
    if low.refused or unknown:
        return None
    results = [_result(low, output.name, tensor) for output in graph.output]
    tensors = list(dict.fromkeys(result.tensor for result in results))
    joined = low.join_outputs(tensors) if len(tensors) > 1 else tensors[0]
    inner, nodes = fold(low, tensor, joined) if low.nodes else (inner, ())
    if len(given) > 1:
        inner = (sum(map(math.prod, given.values())),)
    if not any(node.macs for node in nodes):
        raise InputError(f"{file.path} must have a Gemm, MatMul or Conv on the way to its output")
    name = safe_name(file.path.stem, default="model")
    shape, axes = layouts[0] if len(given) == 1 else (inner, (0,))
    model = Model(name, file.sha256, tensor, shape, axes, inner, nodes)
    if len(given) > 1:
        model = replace(model, inputs=_named_inputs(given, layouts))
    if len(results) == 1:
        return replace(model, dropped=tuple(low.dropped))
    return replace(model, outputs=_outputs(low, finals, results, tensors))


def _put_inputs(
    low: Lowering, given: dict[str, tuple[int, ...]], layouts: tuple[Layout, ...]
) -> tuple[str, tuple[int, ...]]:
    """Sets the inputs' values; gives the tensor of the stream, and its shape inside."""
    stream, start = "", 0
    if len(given) > 1:
        stream = low.tensor_name("inputs", (sum(map(math.prod, given.values())),))
    for (source, own), (shape, axes) in zip(given.items(), layouts, strict=True):
        inner = tuple(shape[a] for a in axes)
        if len(inner) == 2 and axes == (1, 0):
            inner = (1, *inner)  # 1-D maps have height 1
        if stream:
            tensor = low.take_input(source, stream, start, inner)
        else:
            tensor = low.tensor_name(source, inner)
        stored = np.arange(math.prod(shape)).reshape([shape[a] for a in axes])
        low.values[source] = View(tensor, stored.transpose(np.argsort(axes)).reshape(1, *own))
        start += stored.size
    return (stream, (start,)) if stream else (tensor, inner)


def _named_inputs(
    given: dict[str, tuple[int, ...]], layouts: tuple[Layout, ...]
) -> tuple[Input, ...]:
    """Which values of a frame are which input's, in the file's order; ``y`` names labels."""
    used, start, found = Names(("y",)), 0, []
    for source, (shape, axes) in zip(given, layouts, strict=True):
        found.append(Input(safe_name(source, used, "input"), shape, axes, start))
        start += math.prod(shape)
    return tuple(found)


def _result(low: Lowering, name: str, source: str) -> View:
    """What an output of the file is; ``source`` is the tensor of the input, or of several."""
    result, where = low.values.get(name), f"{low.file.path}: output {quoted(name)}"
    several = len(low.file.model.graph.output) > 1
    given = isinstance(result, View) and result.tensor in low.given_tensors(source)
    if not isinstance(result, View) or (several and given):
        raise InputError(f"{where} must be computed from the input")
    _check_output(where, low, result)
    return result


def _outputs(
    low: Lowering, finals: dict[str, set[str]], results: list[View], tensors: list[str]
) -> tuple[Output, ...]:
    """Which values are which output's, in the file's order; one tensor has one place."""
    sizes = [math.prod(low.shapes[tensor]) for tensor in tensors]
    starts = dict(zip(tensors, itertools.accumulate((0, *sizes)), strict=False))
    makers = {name: proto for proto in low.file.model.graph.node for name in proto.output}
    names = Names()
    found = []
    for (name, ends), view in zip(finals.items(), results, strict=True):
        shape = view.shape[1:]
        if len(low.shapes[view.tensor]) == 3 and len(shape) > 1:  # of a map, channels last
            last = np.moveaxis(view.index, 1, -1)
            in_order = np.array_equal(last.ravel(), np.arange(last.size))
            shape = last.shape[1:] if in_order else shape
        kinds = [makers[end].op_type for end in makers if end in ends]
        found.append(Output(safe_name(name, names, "output"), shape, starts[view.tensor],
                            tuple(kinds)))  # fmt: skip
    return tuple(found)


def _final_operations(graph: Any) -> dict[str, set[str]]:
    """What the final operations of every output give: nothing follows them but such as only
    relabel, and other final ones."""
    kinds = {*ENDS, *_RELABELS}
    readers: dict[str, list[Any]] = {}
    for proto in graph.node:
        for name in proto.input:
            readers.setdefault(name, []).append(proto)
    final: dict[str, bool] = {}
    for proto in reversed(graph.node):
        after = readers.get(proto.output[0], [])
        final[proto.output[0]] = all(p.op_type in kinds and final[p.output[0]] for p in after)
    makers = {name: proto for proto in graph.node for name in proto.output}
    found: dict[str, set[str]] = {}
    for output in graph.output:
        tensor, ends = output.name, found.setdefault(output.name, set())
        while tensor in makers and makers[tensor].op_type in kinds and final.get(tensor):
            if makers[tensor].op_type in ENDS:
                ends.add(tensor)
            tensor = makers[tensor].input[0] if makers[tensor].input else ""
    return found


def _check_output(where: str, low: Lowering, result: View) -> None:
    """The outputs must be in the file's order or channel-last."""
    if result.pads:
        raise InputError(f"{where} must not be the result of a Pad")
    if result.batch:
        raise InputError(f"{where} must have the frames first")
    order = np.arange(result.index.size)
    last = np.moveaxis(result.index, 1, -1) if result.index.ndim > 2 else result.index
    if not (np.array_equal(result.index.ravel(), order) or np.array_equal(last.ravel(), order)):
        raise InputError(f"{where} must not be reordered by a Transpose or Reshape")
