"""A model file, operation by operation: what is taken, what isn't, and what helps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.model.file_kind import is_onnx, is_tflite
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Node
from pvq_hw.naming import quoted

__all__ = ["Examination", "Operation", "examine_model"]


@dataclass(frozen=True)
class Operation:
    """A node of a model file.

    Parameters
    ----------
    name, kind : str
        Safe to show.
    taken : bool, optional
        None where it can't be told, since it reads what only a refused node gives.
    reason, remedy : str
        Why it isn't taken, and what to do instead.
    macs, parameters : int
        Of a frame, and weights with biases; 0 where it isn't taken.
    """

    name: str
    kind: str
    taken: bool | None
    reason: str = ""
    remedy: str = ""
    macs: int = 0
    parameters: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Examination:
    """What a model file holds.

    Parameters
    ----------
    model : Model, optional
        Where nothing stops it.
    operations : tuple of Operation
        In order; constants, and what no output needs, are left out.
    faults : tuple of str
        What is wrong besides single operations, one line each.
    """

    model: Model | None
    operations: tuple[Operation, ...]
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the file becomes a model."""
        return self.model is not None and not self.faults

    @property
    def macs(self) -> int:
        """Multiplications of a frame, of the operations that are taken."""
        return sum(operation.macs for operation in self.operations)

    @property
    def parameters(self) -> int:
        """Weights and biases of the operations that are taken."""
        return sum(operation.parameters for operation in self.operations)


def examine_model(path: Path) -> Examination:
    """Reads a model file without stopping at what is refused.

    Raises InputError where the file is broken, or of another format.
    """
    from pvq_hw.model.onnx.read import examine_graph, examine_onnx

    if is_tflite(path):
        from pvq_hw.model.tflite.read import read_translated

        found = examine_graph(read_translated(path))
        model = found.model
    elif is_onnx(path):
        found, model = examine_onnx(path), None
    else:
        model = load_model(path)
    if model is not None:
        return Examination(model, tuple(_of(n, n.name, n.op) for n in model.nodes))
    nodes: dict[int, list[Node]] = {}
    for place, node in found.nodes:
        nodes.setdefault(place, []).append(node)
    refusals = {r.place: r for r in found.refusals if r.place >= 0}
    operations = []
    for op in found.ops:
        refusal = refusals.get(op.place)
        if op.kind == "Constant" and refusal is None:
            continue
        name, kind = quoted(op.name)[1:-1], quoted(op.kind)[1:-1]
        taken = None if op.place not in found.judged and found.model is None else refusal is None
        made = nodes.get(op.place, [])
        operations.append(
            Operation(
                name, kind, taken, refusal.reason if refusal else "",
                refusal.remedy if refusal else "", sum(n.macs for n in made),
                sum(n.parameters for n in made),
            )
        )  # fmt: skip
    faults = tuple(f"The model {r.reason}" if r.reason.startswith("must") else r.reason
                   for r in found.refusals if r.place < 0)  # fmt: skip
    return Examination(found.model, tuple(operations), faults + _later(found.model))


def _later(model: Model | None) -> tuple[str, ...]:
    """What stops a model on its way to integers."""
    from pvq_hw.quantizer.fused import network_steps

    try:
        if model is not None:
            network_steps(model)
    except InputError as error:
        return (str(error),)
    return ()


def _of(node: Node, name: str, kind: str) -> Operation:
    return Operation(name, kind, True, macs=node.macs, parameters=node.parameters)
