"""An engine from outside the packages, file 1 of 2: its core's numbers, timing, cost and choices.

One multiplier goes through all weights of a frame that waits in registers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pvq_hw.arith.formats import bits_for
from pvq_hw.engine.core import CORES, CoreBase, CoreImage, core_stem
from pvq_hw.engine.engines import ENGINES, Engine
from pvq_hw.engine.kinds import Made, engine_core, remade
from pvq_hw.engine.timing import Process, Wire, Work, core_timing
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.plan.candidates import (
    Choice,
    FoldLayer,
    Question,
    core_options,
    engine_choices,
    synthetic_rows,
)
from pvq_hw.plan.layer import LayerPlan, core_counts, core_cycles, core_energy, core_reason
from pvq_hw.plan.resources import Resources, core_cost, core_memories, core_resources
from pvq_hw.target.energy import Operations


@ENGINES.kind
@dataclass(frozen=True)
class Sequential(Engine):
    """A weight a cycle."""

    kind: ClassVar[str] = "sequential"


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class SequentialSpec(CoreBase):
    """Takes a frame, then gives a row's result every N + 1 cycles."""

    kind: ClassVar[str] = "sequential"
    engine: ClassVar[str] = "sequential"
    weight_memory: ClassVar[str] = "weights"
    code_memories: ClassVar[tuple[str, ...]] = ("logic",)

    weight_width: int
    multiplier: str = "serial"
    params_memory: str = "logic"
    code_memory: str = "logic"
    lanes: ClassVar[int] = 1
    address_bits: ClassVar[int] = 0
    bank_words: ClassVar[int] = 0
    sum_stage: ClassVar[int] = 0

    @property
    def word_bits(self) -> int:
        """Width of a weight."""
        return self.weight_width

    @property
    def words(self) -> int:
        """Weights."""
        return self.rows * self.n

    @property
    def frame_cycles(self) -> int:
        """Cycles between two frames while nothing waits."""
        return self.n + self.rows * (self.n + 1)

    def compute(self, image: CoreImage, x: Any) -> np.ndarray:
        """(frames, n) -> (frames, rows)."""
        acc = np.asarray(x, dtype=np.int64).reshape(-1, self.n) @ self.decode(image).T
        total = acc * self.multipliers(image)[:, 0] + np.array(image.bias)
        return self.out.clamp(total >> self.shift)

    def decode(self, image: CoreImage) -> np.ndarray:
        """The weights (rows, n)."""
        half = 1 << (self.word_bits - 1)
        return ((np.array(image.codes) ^ half) - half).reshape(self.rows, self.n)

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row."""
        return (self.n,) * self.rows


def make(layer: Dense, x: TensorSpec, name: str) -> Made:
    """Specification and contents of a layer's core."""
    if x.format.binary or layer.output.format.binary or layer.groups > 1:
        raise InputError(f"Layer {layer.name!r} can't be sequential: it has signs or groups")
    y, mult = layer.y, layer.mult[:, 0]
    ends = np.stack([y * end for end in x.format.limits])
    acc = np.stack([ends.min(axis=0).sum(axis=1), ends.max(axis=0).sum(axis=1)])
    bias = layer.bias + (1 << (layer.shift - 1))
    total = np.concatenate([(acc * mult + bias).ravel(), bias])

    def width(values: np.ndarray) -> int:
        return max(2, bits_for(min(-1, int(values.min())), max(0, int(values.max()))))

    spec = SequentialSpec(
        name=name, n=y.shape[1], rows=len(y), x=x.format, out=layer.output.format,
        acc_bits=width(acc), mult_bits=bits_for(0, int(mult.max())), bias_bits=width(bias),
        sum_bits=width(total), shift=layer.shift, weight_width=width(y),
    )  # fmt: skip
    words = y.ravel() & ((1 << spec.word_bits) - 1)
    return spec, CoreImage(*(tuple(map(int, part)) for part in (words, mult, bias)))


@engine_core.of(Sequential)
def _core(engine, layer, x, lanes, gap_bits, geometry, options) -> Made:
    if geometry is not None:
        raise InputError(f"Layer {layer.name!r} can't be sequential: it has windows")
    return make(layer, x, options.get("name") or core_stem(layer.name))


@remade.of(SequentialSpec)
def _remade(spec: SequentialSpec, layer: Dense, x: TensorSpec, family: str) -> Made:
    return make(layer, x, spec.name)


@engine_choices.of(Sequential)
def _choices(engine, layer: FoldLayer, lanes: Sequence[int], question: Question) -> list[Choice]:
    if layer.geometry is not None:
        raise InputError(f"Layer {layer.name!r} can't be sequential: it is a convolution")
    spec, _ = make(*(layer.given or synthetic_rows(layer)), "core")
    cost = core_resources(spec, question.target.engine)
    return [Choice(question.turns * spec.frame_cycles, cost, spec)]


@core_timing.of(SequentialSpec)
def _timing(spec: SequentialSpec, unit: CoreUnit, work: Work) -> list[Process]:
    return [_steps(spec, work.inputs[0], work.outputs[0], work.frames)]


def _steps(spec: SequentialSpec, i: Wire, o: Wire, frames: int) -> Process:
    free = 0
    for frame in range(1, frames + 1):
        i.readies += [free] * spec.n
        while len(i.moved) < frame * spec.n:
            yield
        last = i.moved[-1]
        for _ in range(spec.rows):
            o.offers.append(last + spec.n + 1)
            while len(o.moved) < len(o.offers):
                yield
            last = o.moved[-1]
        free = last + 1


@core_memories.of(SequentialSpec)
def _memories(spec: SequentialSpec) -> dict[str, tuple[int, int, int]]:
    return {}


@core_cost.of(SequentialSpec)
def _cost(spec: SequentialSpec, device) -> Resources:
    stored = spec.weight_bits + spec.parameter_bits
    return Resources(luts=200 + stored // 8, ffs=spec.n * spec.x.bits + spec.acc_bits)


@core_counts.of(SequentialSpec)
def _counts(spec: SequentialSpec, layer: Dense, image: CoreImage) -> tuple[int, int]:
    return int(np.abs(layer.y).sum()), layer.y.size


@core_cycles.of(SequentialSpec)
def _cycles(spec: SequentialSpec, plan: LayerPlan) -> int:
    return plan.positions * spec.frame_cycles


@core_energy.of(SequentialSpec)
def _energy(spec: SequentialSpec, plan: LayerPlan) -> Operations:
    bits = spec.word_bits * spec.x.bits
    return Operations(add_bits=spec.words * spec.acc_bits, multiply_bits2=spec.words * bits)


@core_reason.of(SequentialSpec)
def _reason(spec: SequentialSpec, layer: Dense) -> str:
    return f"{spec.words:,} weights, one a cycle"


@core_options.of(SequentialSpec)
def _options(spec: SequentialSpec) -> dict[str, Any]:
    return {}
