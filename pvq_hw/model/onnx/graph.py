"""The graph of an ONNX file before any tensor is read: what the output needs, in order."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from onnx import helper

from pvq_hw.errors import InputError
from pvq_hw.naming import quoted

__all__ = ["NodeError", "Op", "tidy"]

_NODES_LIMIT = 2000
_LIST_LIMIT = 1 << 20  # numbers in one attribute


class NodeError(InputError):
    """A node that can't be taken as it is.

    Parameters
    ----------
    op : Op
    reason : str
        Begins as "must ...".
    """

    def __init__(self, op: "Op", reason: str) -> None:
        super().__init__(f"{op.file}: node {quoted(op.name)} ({op.kind}) {reason}")
        self.op, self.reason = op, reason


@dataclass(frozen=True)
class Op:
    """A node of the file; ``place`` is its index there once nodes are sorted."""

    proto: Any
    file: str
    place: int = 0

    @property
    def kind(self) -> str:
        """Operator type."""
        return str(self.proto.op_type)

    @property
    def name(self) -> str:
        """Name in the file, or its output's."""
        return str(self.proto.name or (self.proto.output[0] if self.proto.output else ""))

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute: int, float, bytes, lists of them, or a tensor."""
        for item in self.proto.attribute:
            if item.name == name:
                return helper.get_attribute_value(item)
        return default

    def integers(self, name: str, count: int, default: int) -> tuple[int, ...]:
        """An attribute of ``count`` integers >= ``min(default, 1)``."""
        values = tuple(self.attribute(name, [default] * count))
        least = min(default, 1)
        if len(values) != count or any(not least <= v < 1 << 31 for v in values):
            self.refuse(f"must have {count} {name} of {least} or more, not {str(values)[:60]}")
        return values

    def refuse(self, text: str) -> NoReturn:
        """Raises the one-line error for this node."""
        raise NodeError(self, text)


def tidy(path: Path, graph: Any) -> None:
    """Sorts the nodes, and takes out nodes and initializers that no output needs.

    Nodes stay in the file's order where that has every node after those it reads. Time and
    memory grow with the file, whatever it holds.

    Raises
    ------
    InputError
        Too many nodes, a name that is given twice, a cycle, an input that nothing gives, or a
        name that is not UTF-8.
    """
    if len(graph.node) > _NODES_LIMIT:
        raise InputError(f"{path} must have at most {_NODES_LIMIT} nodes")
    _check_names(path, graph)
    _drop_labels(graph)
    order = _order(path, graph)
    place = {name: i for i, node in enumerate(order) for name in graph.node[node].output if name}
    read = {name for node in order for name in graph.node[node].input}
    read.update(o.name for o in graph.output)
    unread = {t.name for t in graph.initializer} - read
    _arrange(graph.node, lambda n: min((place[o] for o in n.output if o in place), default=-1))
    _arrange(graph.initializer, lambda t: 0 if t.name in read else -1)
    _arrange(graph.sparse_initializer, lambda t: 0 if t.values.name in read else -1)
    _arrange(graph.input, lambda i: -1 if i.name in unread else 0)
    del graph.value_info[:], graph.quantization_annotation[:]
    if not _is_text(graph):
        raise InputError(f"{path} must have names and texts in UTF-8")
    for node in graph.node:
        if any(
            max(len(a.ints), len(a.floats), len(a.strings)) > _LIST_LIMIT for a in node.attribute
        ):
            Op(node, str(path)).refuse(f"must have at most {_LIST_LIMIT:,} numbers an attribute")


_LABELS = ("ArrayFeatureExtractor", "Cast", "Reshape", "Identity", "ArgMax")


def _drop_labels(graph: Any) -> None:
    """Takes out an output of labels beside another output, as scikit-learn's converter gives it:
    which of the classes has the largest score. An accelerator gives the scores."""
    makers = {name: node for node in graph.node for name in node.output if name}
    inputs = {i.name for i in graph.input}
    labels = []
    for output in graph.output:
        name, seen = output.name, set()
        while name in makers and name not in seen and makers[name].op_type in _LABELS:
            node = makers[name]
            seen.add(name)
            if node.op_type == "ArgMax":
                labels.append(output.name)
                break
            computed = [n for n in node.input if n in makers or n in inputs]
            name = computed[-1] if computed else ""
    if labels and len(labels) == len(graph.output) - 1:
        kept = [o for o in graph.output if o.name not in labels]
        del graph.output[:]
        graph.output.extend(kept)


def _arrange(items: Any, place: Callable[[Any], int]) -> None:
    """Sorts a repeated field by ``place``, and cuts off what has a negative one."""
    keep = sum(place(item) >= 0 for item in items)
    items.sort(key=lambda item: place(item) if place(item) >= 0 else len(items))
    del items[keep:]


def _check_names(path: Path, graph: Any) -> None:
    initializers = [t.name for t in graph.initializer]
    initializers += [t.values.name for t in graph.sparse_initializer]
    inputs = [i.name for i in graph.input]
    if len(inputs) != len(set(inputs)):
        raise InputError(f"{path} must name each graph input once")
    constants = set(initializers)
    given = [*initializers, *(n for p in graph.node for n in p.output if n)]
    seen: set[str] = set()
    for name in [*given, *(n for n in inputs if n not in constants)]:
        if name in seen:
            raise InputError(f"{path}: tensor {_shown(name)} must be given once, not twice")
        seen.add(name)


def _shown(name: str | bytes) -> str:
    """A name as it may be shown; protobuf gives bytes where it is not UTF-8."""
    return quoted(name.decode(errors="replace") if isinstance(name, bytes) else name)


def _order(path: Path, graph: Any) -> list[int]:
    """Indices of the nodes that the outputs need, each after those it reads."""
    needs = _needs(path, graph)
    readers: dict[int, list[int]] = {}
    for node, makers in needs.items():
        for maker in makers:
            readers.setdefault(maker, []).append(node)
    waits = {node: len(makers) for node, makers in needs.items()}
    ready = sorted(node for node, count in waits.items() if not count)
    order = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        del waits[node]
        for reader in readers.get(node, ()):
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if waits:
        _refuse_cycle(path, graph, needs, waits)
    return order


def _needs(path: Path, graph: Any) -> dict[int, set[int]]:
    """The nodes that each node reads, for every node that the outputs need."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    known = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    known.update(t.values.name for t in graph.sparse_initializer)
    for output in graph.output:
        if output.name not in makers and output.name not in known:
            raise InputError(
                f"{path}: output {_shown(output.name)} must be computed from the input"
            )
    needs: dict[int, set[int]] = {}
    waiting = [makers[o.name] for o in graph.output if o.name in makers]
    while waiting:
        node = waiting.pop()
        if node in needs:
            continue
        names = [name for name in graph.node[node].input if name not in known]
        for name in names:
            if name not in makers:
                op = Op(graph.node[node], str(path))
                op.refuse(f"reads {_shown(name)}, which nothing gives")
        needs[node] = {makers[name] for name in names}
        waiting.extend(needs[node])
    return needs


def _refuse_cycle(
    path: Path, graph: Any, needs: dict[int, set[int]], left: Iterable[int]
) -> NoReturn:
    """Names a node of a cycle; every node of ``left`` reads another one of ``left``."""
    stuck, passed = set(left), set()
    node = min(stuck)
    while node not in passed:
        passed.add(node)
        node = min(needs[node] & stuck)
    outputs = {o for i in needs[node] & stuck for o in graph.node[i].output if o}
    name = next(n for n in graph.node[node].input if n in outputs)
    op = Op(graph.node[node], str(path))
    op.refuse(f"reads {_shown(name)} before it is computed: the graph has a cycle")


def _is_text(message: Any) -> bool:
    """Whether all strings of a message are UTF-8; protobuf gives bytes for others."""
    waiting = [message]
    while waiting:
        for field, value in waiting.pop().ListFields():
            items = value if hasattr(value, "append") else (value,)
            if field.type == field.TYPE_STRING:
                if any(isinstance(item, bytes) for item in items):
                    return False
            elif field.type == field.TYPE_MESSAGE:
                waiting.extend(items)
    return True
