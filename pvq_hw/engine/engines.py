"""Engines: how the layers with weights may be computed, and what each of them can carry."""

from dataclasses import dataclass
from typing import ClassVar

from pvq_hw.choices import check_choice
from pvq_hw.registry import Registry

__all__ = [
    "AUTO",
    "ENGINES",
    "Depthwise",
    "Engine",
    "Folded",
    "Shared",
    "Unrolled",
    "check_engine",
    "engine_named",
]

AUTO = "auto"
"""What is asked for where the planner chooses the engine."""


@dataclass(frozen=True)
class Engine:
    """A way to compute layers with weights; all that is asked of it is a class attribute or a face.

    Attributes
    ----------
    kind : str
        What it is asked for by, and what it is called where there is no more to say.
    laned : bool
        Whether it computes in lanes: only then a layer has lanes, a code and its memory, and frames
        or windows side by side.
    wired : bool
        Whether weights are a part of the circuit, so that new ones need synthesis. The planner
        takes it only where that makes the network much faster.
    for_all, for_one : bool
        Whether it may be asked of all layers of a network at once, and of a single one.
    weights : str
        What the weights of such a layer are, after "it has".
    """

    kind: ClassVar[str]
    laned: ClassVar[bool] = False
    wired: ClassVar[bool] = False
    for_all: ClassVar[bool] = False
    for_one: ClassVar[bool] = True
    weights: ClassVar[str] = "weights that no lanes read"


ENGINES: Registry[Engine] = Registry("engine")
"""Every engine. Its faces: ``core`` (`pvq_hw.engine.kinds`), ``choices``, ``offer``
and ``limit`` (`pvq_hw.plan.candidates`). The kinds of cores that it makes are
in `pvq_hw.engine.core.CORES`."""


@ENGINES.kind
@dataclass(frozen=True)
class Folded(Engine):
    """Word after word, in lanes."""

    kind: ClassVar[str] = "folded"
    laned: ClassVar[bool] = True
    for_all: ClassVar[bool] = True


@ENGINES.kind
@dataclass(frozen=True)
class Unrolled(Engine):
    """All rows at once, weights as wires."""

    kind: ClassVar[str] = "unrolled"
    wired: ClassVar[bool] = True
    for_all: ClassVar[bool] = True
    weights: ClassVar[str] = "weights that are wires"


@ENGINES.kind
@dataclass(frozen=True)
class Depthwise(Engine):
    """Channel after channel, a row a word."""

    kind: ClassVar[str] = "depthwise"


@ENGINES.kind
@dataclass(frozen=True)
class Shared(Engine):
    """All layers one after the other, in the lanes of one core; see `pvq_hw.plan.shared`."""

    kind: ClassVar[str] = "shared"
    laned: ClassVar[bool] = True
    for_all: ClassVar[bool] = True
    for_one: ClassVar[bool] = False


def engine_named(name: str) -> Engine:
    """The engine of that name; raises InputError where there is none."""
    return ENGINES.named(name, "Engine")()


def check_engine(name: object, what: str = "Engine", *also: str) -> None:
    """Raises InputError unless there is an engine of that name, or it is among ``also``."""
    check_choice(what, name, (*ENGINES.kinds(), *also))
