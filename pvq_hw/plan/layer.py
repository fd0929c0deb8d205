"""One layer of a plan: its core and the figures that follow from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from pvq_hw.arith.formats import significant
from pvq_hw.documents import Document, line, write_fields
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.int8_core import WEIGHT_BITS, Int8Spec
from pvq_hw.engine.pulse_code import PulseCode, choose_gap_bits, choose_shift_bits
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted
from pvq_hw.network.layer import Dense
from pvq_hw.plan.resources import Resources, core_memories, core_resources
from pvq_hw.target.boards import Target
from pvq_hw.target.energy import Operations, energy_nj, int8_operations

__all__ = ["LayerPlan", "plan_layer"]

_LONGEST_REASON = 300
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,63}")  # of files and of Verilog modules


@dataclass(frozen=True)
class LayerPlan(Document):
    """A layer's core on a target.

    Parameters
    ----------
    layer : str
        The layer's name in the network.
    engine : str
        Key of `pvq_hw.target.families.FAMILIES`.
    spec : CoreBase
    pulses : int
        ``sum |y|``; 0 of a layer with plain 8-bit weights.
    codes : int
        Lane codes that place a pulse: as many as pulses, fewer with shifted ones. Of plain
        weights: how many there are. Of an unrolled layer: weights that are not 0.
    positions : int
        Frames of the core in one of the network: the window positions of a convolution.
    conv_groups : int
        Of a convolution: a row has weights for one group's columns.
    reason : str
        Why it has the code, or the engine, that it has.
    """

    derived: ClassVar[tuple[str, ...]] = (
        "encoding", "weights", "n_over_k", "lanes", "slots", "new_weights", "cycles",
        "utilization", "code_bits", "bits_per_weight", "parameter_bits", "memories", "resources",
        "energy_nj", "energy_int8_nj",
    )  # fmt: skip
    keys: ClassVar[Mapping[str, str]] = {"spec": "core"}

    layer: str
    engine: str
    spec: CoreBase
    pulses: int
    codes: int
    positions: int = 1
    conv_groups: int = 1
    reason: Annotated[str, line(_LONGEST_REASON)] = ""

    def __post_init__(self) -> None:
        if self.positions < 1 or not 1 <= self.conv_groups <= self.spec.n:
            raise InputError("A layer must have positions and groups of at least 1")
        if not _NAME.fullmatch(self.spec.name):
            raise InputError(f"A core's name must be an identifier, not {quoted(self.spec.name)}")
        core_resources(self.spec, self.engine)

    @property
    def weights(self) -> int:
        """N x M."""
        return self.spec.rows * self.spec.n // self.conv_groups

    @property
    def encoding(self) -> str:
        """``"pvq"`` or ``"int8"``."""
        pulses = isinstance(self.spec, CoreSpec) or (self.unrolled and self.pulses > 0)
        return "pvq" if pulses else "int8"

    @property
    def unrolled(self) -> bool:
        """Whether its weights are wires: other weights are another circuit."""
        return isinstance(self.spec, UnrolledSpec)

    @property
    def n_over_k(self) -> float | None:
        """Weights / pulses; None of plain 8-bit weights, which have no K."""
        return self.weights / max(1, self.pulses) if self.encoding == "pvq" else None

    @property
    def utilization(self) -> float | None:
        """Lane codes that place a pulse / all of them; None where there are none."""
        return None if self.unrolled else self.codes / (self.spec.lanes * self.spec.words)

    @property
    def code_bits(self) -> int:
        """Stored code bits: row ends, escapes and padding included."""
        return self.spec.weight_bits

    @property
    def parameter_bits(self) -> int:
        """Bits of multipliers and biases."""
        return self.spec.parameter_bits

    @property
    def cycles(self) -> int:
        """Of a frame (V: of a batch) while nothing waits: words, or activations in or out where
        they are more."""
        loaded = self.spec.n if self.positions == 1 else 0
        if isinstance(self.spec, UnrolledSpec):
            return self.positions * max(self.spec.sum_cycles, loaded)
        if self.spec.flush_cycles:
            loaded *= self.spec.frames
        return self.positions * max(self.spec.words, loaded, self.spec.rows)

    @property
    def resources(self) -> Resources:
        """What the core takes."""
        return core_resources(self.spec, self.engine)

    @property
    def operations(self) -> Operations:
        """Of one frame."""
        spec, requantize, times = self.spec, self._requantize(), self.positions
        if isinstance(spec, UnrolledSpec):
            return requantize + Operations(
                add_bits=times * spec.adder_bits, register_bits=self.resources.ffs * self.cycles
            )
        if isinstance(spec, Int8Spec):
            macs = times * self.codes
            return requantize + Operations(
                add_bits=macs * spec.acc_bits,
                multiply_bits2=macs * WEIGHT_BITS * spec.x.bits,
                read_bits=times * (self.code_bits + spec.words * spec.lanes * spec.x.bits),
                register_bits=times * self.resources.ffs * spec.words,
            )
        # V frames share the codes' reads and the cycles.
        codes = self.code_bits // spec.frames
        return requantize + Operations(
            add_bits=times * (self.codes + spec.rows * spec.groups) * spec.acc_bits,
            read_bits=times * (codes + spec.words * spec.lanes * spec.x.bits),
            register_bits=times * self.resources.ffs * spec.words // spec.frames,
        )

    def _requantize(self) -> Operations:
        spec, times = self.spec, self.positions
        products = 0 if spec.multiplier == "none" else spec.rows * spec.groups
        return Operations(
            add_bits=times * spec.rows * spec.sum_bits,
            multiply_bits2=times * products * spec.acc_bits * spec.mult_bits,
            read_bits=times * self.parameter_bits,
        )

    def energy_nj(self, target: Target) -> float:
        """Modelled; see `pvq_hw.target.energy`."""
        return energy_nj(self.operations, target, hard_multiplier=target.device.dsps > 0)

    def energy_int8_nj(self, target: Target) -> float:
        """The same model's figure with plain 8-bit weights."""
        spec = self.spec
        operations = int8_operations(
            spec.rows * self.positions,
            spec.n // self.conv_groups,
            spec.x.bits,
            spec.lanes,
            self.resources.ffs,
            self._requantize(),
        )
        return energy_nj(operations, target, hard_multiplier=target.device.dsps > 0)

    def document(self, target: Target) -> dict[str, Any]:
        """The layer as JSON values, with the figures that follow."""
        memories = {
            role: {"copies": copies, "width_bits": width, "depth": depth}
            for role, (copies, width, depth) in core_memories(self.spec).items()
        }
        return {
            **write_fields(self),
            "encoding": self.encoding,
            "weights": self.weights,
            "n_over_k": None if self.n_over_k is None else significant(self.n_over_k),
            "lanes": self.spec.lanes,
            "slots": self.spec.words,
            "new_weights": "synthesis" if self.unrolled else "memory contents",
            "cycles": self.cycles,
            "utilization": None if self.utilization is None else significant(self.utilization),
            "code_bits": self.code_bits,
            "bits_per_weight": significant(self.code_bits / self.weights),
            "parameter_bits": self.parameter_bits,
            "memories": memories,
            "resources": self.resources.to_json(),
            "energy_nj": significant(self.energy_nj(target)),
            "energy_int8_nj": significant(self.energy_int8_nj(target)),
        }


def plan_layer(
    layer: Dense,
    spec: CoreBase,
    image: CoreImage,
    engine: str,
    positions: int = 1,
    conv_groups: int = 1,
    reason: str | None = None,
    engine_reason: str | None = None,
) -> LayerPlan:
    """The plan of a layer whose core is made; ``reason`` is what the codes say unless given, and
    ``engine_reason`` why it is folded or unrolled where the planner chose that."""
    pulses, codes = 0, layer.y.size
    text = _reason(layer, spec) if reason is None else reason
    if isinstance(spec, UnrolledSpec):
        codes = int(np.count_nonzero(layer.y))
        pulses = int(np.abs(layer.y).sum()) if layer.encoding == "pvq" else 0
    if isinstance(spec, CoreSpec):
        pulses, codes = int(np.abs(layer.y).sum()), int(spec.code.placed(image.codes).sum())
    return LayerPlan(
        layer=layer.name,
        engine=engine,
        spec=spec,
        pulses=pulses,
        codes=codes,
        positions=positions,
        conv_groups=conv_groups,
        reason="; ".join(filter(None, (text, engine_reason))),
    )


def _reason(layer: Dense, spec: CoreBase) -> str:
    """What speaks for pulses of 1 or of powers of two, in slots of a window or frame."""
    if isinstance(spec, UnrolledSpec):
        return (
            f"{spec.adders:,} adders in {spec.levels} levels; its weights are wires, so new ones "
            "need synthesis"
        )
    if not isinstance(spec, CoreSpec):
        return "8-bit weights were asked for"
    ours = spec.code
    if not isinstance(ours, PulseCode):
        return f"{ours.kind} codes were asked for: {spec.words:,} slots"
    bits = 0 if ours.shift_bits else choose_shift_bits(layer.y, ours.lanes, groups=layer.groups)
    gap = choose_gap_bits(layer.y, ours.lanes, groups=layer.groups, shift_bits=bits)
    other = PulseCode(ours.lanes, gap, bits).encode(layer.y, layer.groups).slots
    plain = layer.y.shape[0] * -(-layer.y.shape[1] // ours.lanes)
    this, that = ("powers of two", "pulses of 1") if not bits else ("pulses of 1", "powers of two")
    return (
        f"{this}: {spec.words:,} slots; {that} would take {other:,}, "
        f"8-bit weights {plain:,} with as many lanes"
    )
