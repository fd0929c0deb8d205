"""Lowering of functions of one value, and the pass that makes one of a chain or pattern of them.

Each operator becomes a node of its own first; what only reads one tensor, along whatever branches
(``x * sigmoid(x)``, ``0.5 * x * (1 + erf(x / sqrt(2)))``), is one `Curve` of that tensor then.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.model.activation import saturates
from pvq_hw.model.curve import MOST_OPERATIONS, PRIMITIVES, Curve, X, constant
from pvq_hw.model.model import Add, Affine, Clip, Function, Node, Quantize, Relu, Sign
from pvq_hw.model.onnx.lowering import Lowering, Op, View, handles

__all__ = ["lower_function", "merged_curves"]

Array = npt.NDArray[Any]
_ELSEWHERE = {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sign", "Sigmoid"}


@dataclass(frozen=True, eq=False)
class _Pair(Node):
    """An operator of two computed values, as long as it isn't known to be a function of one."""

    op: ClassVar[str] = "Pair"

    kind: str

    def compute(self, *x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(PRIMITIVES[self.kind].function(*x))


@handles(*sorted({p.name for p in PRIMITIVES.values()} - _ELSEWHERE))
def lower_function(low: Lowering, op: Op) -> None:
    """Lowers an operator of `PRIMITIVES`: one computed operand, constants besides; or two
    computed ones, which `merged_curves` must find to be functions of one tensor."""
    kind = _kind(op)
    known = PRIMITIVES[kind]
    if len(op.proto.input) != known.operands:
        op.refuse(f"must have {known.operands} operands, not {len(op.proto.input)}")
    values = tuple(op.attribute(n, d) for n, d in known.attributes.items())
    if not all(isinstance(v, float) and math.isfinite(v) for v in values):
        op.refuse(f"must have finite numbers for {', '.join(known.attributes)}")
    constants = [low.constant(op, i) for i in range(known.operands)]
    if all(c is not None for c in constants):
        arrays = [_numbers(low, op, i) for i in range(known.operands)]
        low.put(op, _folded(low, op, Curve(kind, (X,) * known.operands, values), arrays))
        return
    views = [low.view(op, i) for i, c in enumerate(constants) if c is None]
    shape = low.shapes[views[0].tensor]
    if len(views) == 1:
        args = tuple(X if c is None else _operand(low, op, i, views[0])
                     for i, c in enumerate(constants))  # fmt: skip
        bound = next((a.values[0] for a in args if len(a.values) == 1), None)
        if kind in ("Min", "Max") and bound is not None:
            low.put_same(op, _one_bound(low, op, views[0], bound), views[0])
            return
        output = low.emit(op, Function, (views[0].tensor,), shape, curve=Curve(kind, args, values))
    else:
        a, b = views
        if a.shape != b.shape or not np.array_equal(a.index, b.index):
            op.refuse(f"must have two operands of one shape, not {a.shape[1:]} and {b.shape[1:]}")
        output = low.emit(op, _Pair, (a.tensor, b.tensor), shape, kind=kind)
    low.put_same(op, output, views[0])


def _one_bound(low: Lowering, op: Op, x: View, bound: float) -> str:
    """Emits the larger or smaller of a tensor and a number."""
    fields = (x.tensor,), low.shapes[x.tensor]
    if op.kind == "Min":
        return low.emit(op, Clip, *fields, low=-math.inf, high=bound)
    if bound == 0:
        output = low.emit(op, Relu, *fields)
    else:
        output = low.emit(op, Clip, *fields, low=bound, high=math.inf)
    if bound >= 0:
        low.nonnegative.add(output)
    return output


def _kind(op: Op) -> str:
    """The key of `PRIMITIVES`: ONNX's name, by the attributes that tell several apart."""
    for key, known in PRIMITIVES.items():
        if known.name != op.kind or not known.spelling:
            continue
        found = {name: op.attribute(name, b"") for name in known.spelling}
        if {n: v.decode() if isinstance(v, bytes) else v for n, v in found.items()} == dict(
            known.spelling
        ):
            return key
    return op.kind


def _folded(low: Lowering, op: Op, curve: Curve, arrays: list[Array]) -> Array:
    """An operator of constants alone."""
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    low.charge(op, weights=math.prod(shape))
    known = PRIMITIVES[curve.kind]
    attributes = dict(zip(known.attributes, curve.values, strict=True))
    with np.errstate(all="ignore"):
        return np.asarray(known.function(*arrays, **attributes), dtype=np.float64)


def _numbers(low: Lowering, op: Op, i: int) -> Array:
    """A constant operand, float64; whole numbers may be stored as such."""
    value = low.need_constant(op, i, "operands")
    return value.astype(np.float64) if value.dtype.kind in "iu" else low.weights(op, i, "operands")


def _operand(low: Lowering, op: Op, i: int, x: View) -> Curve:
    """A constant operand, one value or one for each channel."""
    value = _numbers(low, op, i)
    if value.size == 1:
        return constant(float(value.reshape(-1)[0]))
    try:
        wide = np.broadcast_to(value, x.shape)
    except ValueError:
        op.refuse(f"must have a constant that broadcasts to {x.shape}, not {value.shape}")
    low.charge(op, activations=x.index.size)
    vector = np.empty(x.index.size)
    vector[x.index.ravel()] = wide.ravel()
    rows = vector.reshape(-1, low.shapes[x.tensor][-1])
    if not (rows == rows[0]).all():
        op.refuse("must have one constant, or one for each channel")
    return constant(*(rows[0][:1] if (rows == rows[0, 0]).all() else rows[0]))


# -- chains and patterns --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Function:
    """What a tensor is of an earlier one; ``bent`` where that takes a table."""

    curve: Curve
    bent: bool


_Origins = dict[str, _Function]
"""Every tensor that a tensor is a function of, the earliest first, itself last."""


def merged_curves(low: Lowering, nodes: list[Node]) -> list[Node]:
    """Every tensor that is a function of an earlier one, and takes a table, as one node of it.

    ReLU, bounds around 0, signs and scalar factors alone stay as they are: layers do them.
    """
    origins: dict[str, _Origins] = {}
    result: list[Node] = []
    rounded = _only_rounded(nodes)
    for node in nodes:
        if isinstance(node, Clip) and node.output in rounded:
            result.append(node)  # the rounding's bounds carry it out
            continue
        found = _origins_of(node, origins)
        if not found and isinstance(node, _Pair) and node.kind == "Sub":
            other = _negated(low, node)
            result.append(other)
            node = Add(node.name, (node.inputs[0], other.output), node.output, node.shape)
        elif not found and isinstance(node, _Pair):
            low.ops[node.output].refuse(
                "must have one constant operand, or two that are functions of one tensor; "
                "two branches can only be added or subtracted"
            )
        base = next((name for name, function in found.items() if function.bent), None)
        if base is not None:
            fields = (node.name, (base,), node.output, node.shape)
            node = Function(*fields, found[base].curve)
        origins[node.output] = found | {node.output: _Function(X, False)}
        result.append(node)
    return result


def _negated(low: Lowering, pair: _Pair) -> Node:
    """The second operand of a difference, times -1."""
    op, shape = low.ops[pair.output], low.shapes[pair.inputs[1]]
    factors = np.full(shape[-1], -1.0)
    low.emit(op, Affine, (pair.inputs[1],), shape, scale=factors, offset=np.zeros(shape[-1]))
    return low.nodes[-1]


def _only_rounded(nodes: list[Node]) -> set[str]:
    """Tensors that nothing reads but a rounding to a quantized file's steps."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return {n for n, after in readers.items() if all(isinstance(a, Quantize) for a in after)}


def _origins_of(node: Node, origins: dict[str, _Origins]) -> _Origins:
    """What a node's output is of earlier tensors, as far as that is one curve."""
    inputs = [origins.get(name, {name: _Function(X, False)}) for name in node.inputs]
    own = _own_curve(node)
    found: _Origins = {}
    if own is not None:
        bends = isinstance(node, Function) or (isinstance(node, Clip) and not saturates(node))
        for base, inner in inputs[0].items():
            found[base] = _Function(own.of(inner.curve), inner.bent or bends)
    elif isinstance(node, _Pair | Add):
        kind = node.kind if isinstance(node, _Pair) else "Add"
        for base, first in inputs[0].items():
            if base in inputs[1]:
                second = inputs[1][base]
                bent = isinstance(node, _Pair) or first.bent or second.bent
                if bent:
                    found[base] = _Function(Curve(kind, (first.curve, second.curve)), bent)
    return {base: f for base, f in found.items() if _is_whole(f.curve, node)}


def _own_curve(node: Node) -> Curve | None:
    """The function that a node is of its input; None where it is none of single values."""
    if isinstance(node, Function):
        return node.curve
    if isinstance(node, Relu | Sign):
        return Curve(node.op, (X,))
    if isinstance(node, Clip):
        return Curve("Clip", (X, constant(node.low), constant(node.high)))
    if isinstance(node, Affine):
        scale, offset = node.scale, node.offset
        if (scale == scale[0]).all() and (offset == offset[0]).all():
            curve = Curve("Mul", (X, constant(scale[0]))) if scale[0] != 1 else X
            return Curve("Add", (curve, constant(offset[0]))) if offset[0] else curve
    return None


def _is_whole(curve: Curve, node: Node) -> bool:
    """Whether a curve is small enough, and its channels are the node's."""
    return curve.operations <= MOST_OPERATIONS and curve.channels in (1, node.shape[-1])
