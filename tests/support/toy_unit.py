"""A layer without weights from outside the packages, file 3 of 4: the unit, its timing and cost."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from toy_layer import RunningSum

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.timing import Process, Work, streamed, timing
from pvq_hw.engine.units import UNITS, Queued
from pvq_hw.plan.lowering import Site, layer_unit
from pvq_hw.plan.resources import Resources
from pvq_hw.plan.unit_resources import queue_resources, unit_cost


@UNITS.kind
@dataclass(frozen=True)
class RunningSumUnit(Queued):
    """Adds every activation to those before it."""

    kind: ClassVar[str] = "running_sum"

    x: IntFormat
    out: IntFormat
    size: int
    depth: int = 16
    queue_memory: str = "logic"

    def compute(self, *x: np.ndarray) -> np.ndarray:
        """(frames, ...) -> (frames, size)."""
        return np.cumsum(np.asarray(x[0], dtype=np.int64).reshape(len(x[0]), -1), axis=1)

    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Activations of a frame: of the input, and of the output."""
        return (self.size,), self.size

    def formats(self) -> tuple[tuple[IntFormat, ...], IntFormat]:
        """Of the input, and of the output."""
        return (self.x,), self.out


@layer_unit.of(RunningSum)
def _unit(layer: RunningSum, site: Site) -> RunningSumUnit:
    return RunningSumUnit(
        site.name, site.inputs, site.outputs, site.x[0].format, layer.output.format,
        layer.output.size, queue_memory=site.queue_memory,
    )  # fmt: skip


@timing.of(RunningSumUnit)
def _timing(unit: RunningSumUnit, work: Work) -> list[Process]:
    return [streamed(work, unit.size, 1, unit.depth)]


@unit_cost.of(RunningSumUnit)
def _cost(unit: RunningSumUnit, family) -> Resources:
    adder = Resources(luts=2 * unit.out.bits, ffs=unit.out.bits)
    return adder + queue_resources(unit.out.bits, unit.depth, family, unit.queue_memory)
