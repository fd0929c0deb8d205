"""The state of an import: values of the file's graph as views of channel-last tensors.

Flatten, Reshape, Transpose and the like make no node. A value of the file is a `View`: an array
in the file's shape that holds, at each place, the position of that activation in the flat
channel-last tensor behind it. Weights that follow are permuted by it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pvq_hw.model.model import Node, Outputs, Part
from pvq_hw.model.onnx.file import OnnxFile
from pvq_hw.model.onnx.graph import NodeError, Op
from pvq_hw.naming import Names, safe_name

__all__ = [
    "ENDS",
    "ML_KINDS",
    "PARTING",
    "LayoutError",
    "Lowering",
    "Op",
    "Steps",
    "View",
    "forget",
    "handlers",
    "handles",
    "is_known",
]

ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "Hardmax", "ZipMap")
"""Final operations that are left out: the accelerator gives what they read."""

PARTING = ("Split",)
"""Operators all of whose outputs may be used."""

ML_KINDS = ("Scaler", "ZipMap")
"""Operators of the domain ``ai.onnx.ml`` that are taken."""

ACTIVATIONS_LIMIT = 1 << 25  # of one frame, over all tensors
VIEWS_LIMIT = 1 << 26  # positions over all views, 8 bytes each
WEIGHTS_LIMIT = 1 << 26  # over all nodes and folded constants
Index = npt.NDArray[np.int64]
Constant = npt.NDArray[Any]


class LayoutError(NodeError):
    """The order of the activations isn't channel-last where it must be.

    Parameters
    ----------
    shape : tuple of int
        What was to be a map, (C, H, W) or (C, L), where that is known.
    """

    def __init__(self, op: Op, reason: str, shape: tuple[int, ...] = ()) -> None:
        super().__init__(op, reason)
        self.shape = shape


@dataclass(frozen=True)
class Steps:
    """How a file's integers stand for real values: ``scale * (integer - zero)``.

    Parameters
    ----------
    scale : float
    zero : int
    low, high : int
        Smallest and largest integer.
    """

    scale: float
    zero: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class View:
    """A value of the file's graph.

    Parameters
    ----------
    tensor : str
        The tensor behind it.
    index : int64 array
        Positions in the flat tensor, in the file's shape; the axis of the frames has length 1.
    batch : int
        Which axis that is.
    pads : tuple of (int, int)
        Zeros before and after every axis, which the next convolution or pooling takes over;
        empty for none.
    padded_by : Op, optional
        The last node that gave ``pads``.
    dropped : bool
        Whether it is the result of a final operation that was left out.
    steps : Steps, optional
        Where the file's values are integers; the tensor behind has what they stand for.
    """

    tensor: str
    index: Index
    batch: int = 0
    pads: tuple[tuple[int, int], ...] = ()
    padded_by: Op | None = None
    dropped: bool = False
    steps: Steps | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The file's shape, 1 for the frames."""
        return self.index.shape


STANDARD = ("", "ai.onnx")
"""Domain of the format's own operators, which has two names."""

Handler = Callable[["Lowering", Op], None]
_HANDLERS: dict[str, Handler] = {}
_DOMAINS: dict[str, tuple[str, ...]] = {}
_TAKEN: set[str] = set()
H = TypeVar("H", bound=Handler)


def handles(
    *kinds: str, domains: tuple[str, ...] = STANDARD, refused: bool = False
) -> Callable[[H], H]:
    """Decorator: the function lowers nodes of these operator types, of these domains; or says why
    they are ``refused``."""

    def register(function: H) -> H:
        for kind in kinds:
            _HANDLERS[kind] = function
            _DOMAINS[kind] = ("ai.onnx.ml",) if kind in ML_KINDS else domains
            if not refused:
                _TAKEN.add(kind)
        return function

    return register


def forget(kind: str) -> None:
    """Takes back what `handles` made of an operator type."""
    del _HANDLERS[kind], _DOMAINS[kind]
    _TAKEN.discard(kind)


def handlers() -> dict[str, Handler]:
    """The lowering functions by operator type."""
    return dict(_HANDLERS)


def standard_kinds() -> list[str]:
    """Operator types of the format's own domains that are taken, in alphabetical order."""
    return sorted(kind for kind in _TAKEN if {"", "ai.onnx.ml"} & {*_DOMAINS[kind]})


def is_known(op: Op) -> bool:
    """Whether there is a handler for the operator type in its domain."""
    return op.kind in _HANDLERS and op.proto.domain in _DOMAINS.get(op.kind, STANDARD)


@dataclass
class Lowering:
    """What is known while the nodes of a file are lowered one after the other."""

    file: OnnxFile
    batch: int | None
    values: dict[str, View | Constant] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    nonnegative: set[str] = field(default_factory=set)
    ops: dict[str, Op] = field(default_factory=dict)
    refused: list[NodeError] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    judged: set[int] = field(default_factory=set)
    ends: set[str] = field(default_factory=set)
    _tensor_names: Names = field(default_factory=Names)
    _node_names: Names = field(default_factory=Names)
    _activations: int = 0
    _weights: int = 0
    _positions: int = 0

    # -- reading --------------------------------------------------------------------------------

    def given(self, op: Op, i: int) -> bool:
        """Whether the node has an input ``i``."""
        return len(op.proto.input) > i and bool(op.proto.input[i])

    def constant(self, op: Op, i: int) -> Constant | None:
        """Input ``i`` where it is a constant; None where it is missing or computed."""
        value = self.values[op.proto.input[i]] if self.given(op, i) else None
        return None if value is None or isinstance(value, View) else value

    def need_constant(self, op: Op, i: int, what: str) -> Constant:
        """Input ``i``, which must be a constant."""
        value = self.constant(op, i)
        if value is None:
            op.refuse(f"must have constant {what}")
        return value

    def weights(self, op: Op, i: int, what: str, rank: int | None = None) -> Constant:
        """Input ``i``: a constant of real numbers, finite, not empty, float64."""
        value = self.need_constant(op, i, what)
        if value.dtype != np.float64:
            op.refuse(f"must have floating-point {what}, not {value.dtype}")
        if not np.isfinite(value).all():
            op.refuse(f"must have finite {what}, but they hold NaN or infinities")
        if value.size == 0 or (rank is not None and value.ndim != rank):
            rule = "not be empty" if rank is None else f"have {rank} dimensions and not be empty"
            op.refuse(f"must have {what} that {rule}, not the shape {value.shape}")
        return value

    def view(self, op: Op, i: int = 0, *, pads: bool = False, dropped: bool = False,
             steps: bool = False) -> View:  # fmt: skip
        """Input ``i``, which must be computed; with pending pads, or integers, only for those who
        take them."""
        value = self.values[op.proto.input[i]] if self.given(op, i) else None
        if not isinstance(value, View):
            op.refuse(f"must read a computed value, but its input {i} is constant or missing")
        if value.dropped and not dropped:
            op.refuse(f"must not follow {self.dropped[-1]}, which is read as the network's end")
        if value.padded_by is not None and not pads:
            value.padded_by.refuse(f"must stand before a convolution or pooling, not {op.kind}")
        if value.steps is not None and not steps:
            op.refuse("must read real values, but reads integers; DequantizeLinear must be between")
        return value

    def as_map(self, op: Op, view: View, rule: str = "") -> tuple[int, int, int]:
        """(height, width, channels) of a value (1, C, H, W) or (1, C, L) stored channels last.

        Another order is a LayoutError that says ``rule``.
        """
        if view.batch != 0 or view.index.ndim not in (3, 4):
            op.refuse(f"must read (N, C, L) or (N, C, H, W), not the shape {_shown(view)}")
        last = np.moveaxis(view.index[0], 0, -1)
        if not np.array_equal(last.ravel(), np.arange(view.index.size)):
            text = rule or "must read activations whose order a Reshape kept"
            raise LayoutError(op, text, view.index.shape[1:])
        h, w, c = (1, *last.shape)[-3:]
        return h, w, c

    # -- writing --------------------------------------------------------------------------------

    def charge(self, op: Op, *, activations: int = 0, weights: int = 0, positions: int = 0) -> None:
        """Counts what is about to be allocated; refuses more than the limits."""
        self._activations += activations
        self._weights += weights
        self._positions += positions
        if self._activations > ACTIVATIONS_LIMIT:
            op.refuse(f"must keep a frame's activations below {ACTIVATIONS_LIMIT:,} in all")
        if self._weights > WEIGHTS_LIMIT:
            op.refuse(f"must keep the weights below {WEIGHTS_LIMIT:,} in all")
        if self._positions > VIEWS_LIMIT:
            op.refuse(f"must keep activations that are reordered below {VIEWS_LIMIT:,} in all")

    def tensor_name(self, text: str, shape: tuple[int, ...]) -> str:
        """A safe, unique name for a new tensor of the given shape."""
        name = safe_name(text, self._tensor_names, "tensor")
        self.shapes[name] = shape
        return name

    def emit(self, op: Op, cls: type[Node], inputs: tuple[str, ...], shape: tuple[int, ...],
             **fields: Any) -> str:  # fmt: skip
        """Adds a node; returns the name of its output tensor."""
        self.charge(op, activations=math.prod(shape))
        name = safe_name(op.name, self._node_names, op.kind.lower())
        output = self.tensor_name(op.proto.output[0], shape)
        self.nodes.append(cls(name=name, inputs=inputs, output=output, shape=shape, **fields))
        self.ops[output] = op
        return output

    def take_input(self, source: str, stream: str, start: int, shape: tuple[int, ...]) -> str:
        """Adds the node that takes one of several inputs; returns its tensor."""
        name = safe_name(source, self._node_names, "input")
        output = self.tensor_name(source, shape)
        size, whole = math.prod(shape), math.prod(self.shapes[stream])
        self.nodes.append(Part(name, (stream,), output, shape, start, size, whole))
        return output

    def given_tensors(self, source: str) -> set[str]:
        """The tensors of the file's inputs; ``source`` is the one, or all of them in one."""
        takers = (n for n in self.nodes if isinstance(n, Part) and n.inputs == (source,))
        return {source, *(node.output for node in takers)}

    def join_outputs(self, tensors: list[str]) -> str:
        """Adds the node that gives several outputs one after the other; returns its tensor."""
        sizes = tuple(math.prod(self.shapes[tensor]) for tensor in tensors)
        shape, op = (sum(sizes),), self.ops[tensors[-1]]
        self.charge(op, activations=sum(sizes))
        name = safe_name("outputs", self._node_names)
        output = self.tensor_name("outputs", shape)
        self.nodes.append(Outputs(name, tuple(tensors), output, shape, sizes))
        self.ops[output] = op
        return output

    def put(self, op: Op, value: View | Constant, which: int = 0) -> None:
        """Sets one of the node's outputs."""
        if isinstance(value, View):
            self.charge(op, positions=value.index.size)
        else:
            self.charge(op, weights=value.size)
        self.values[op.proto.output[which]] = value

    def put_map(self, op: Op, tensor: str, rank: int, steps: Steps | None = None) -> None:
        """Sets the node's output to a map (h, w, c) as (1, C, H, W), or (1, C, L) for rank 3."""
        h, w, c = self.shapes[tensor]
        index = np.arange(h * w * c).reshape(h, w, c).transpose(2, 0, 1)[None]
        self.put(op, View(tensor, index if rank == 4 else index[:, :, 0], steps=steps))

    def guess(self, op: Op, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Sets the outputs of a node that is refused, by their ``shapes`` (frames first) where
        these are known, so that what follows can be looked at too."""
        for name in filter(None, op.proto.output):
            _, *rest = shapes.get(name, ()) or (1,)
            try:
                self.charge(op, positions=math.prod(rest))
                last = np.arange(math.prod(rest)).reshape(*rest[1:], rest[0]) if rest else None
            except NodeError:
                last = None
            if last is None:
                self.unknown.add(name)
                continue
            tensor = self.tensor_name(name, last.shape)
            self.nonnegative.add(tensor)
            self.values[name] = View(tensor, np.moveaxis(last, -1, 0)[None])

    def put_same(self, op: Op, tensor: str, view: View) -> None:
        """Sets the node's output to a tensor with the layout of ``view``."""
        self.put(op, replace(view, tensor=tensor))


def _shown(view: View) -> str:
    dims = ["N" if i == view.batch else str(n) for i, n in enumerate(view.shape)]
    return f"({', '.join(dims)})"
