"""One layer of a plan: its core and the figures that follow from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from pvq_hw.arith.formats import significant
from pvq_hw.documents import Document, line, write_fields
from pvq_hw.engine.core import CORES, CoreBase, CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.int8_core import WEIGHT_BITS, Int8Spec
from pvq_hw.engine.pulse_code import PulseCode, choose_gap_bits, choose_shift_bits
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted
from pvq_hw.network.layer import Dense
from pvq_hw.plan.resources import Resources, core_memories, core_resources
from pvq_hw.registry import Face
from pvq_hw.target.boards import Target
from pvq_hw.target.energy import Operations, energy_nj, int8_operations

__all__ = [
    "LayerPlan",
    "core_counts",
    "core_cycles",
    "core_energy",
    "core_parts",
    "core_reason",
    "plan_layer",
    "shared_reason",
]

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
        Lane codes that place a pulse: as many as pulses, fewer with shifted ones. For plain
        weights, how many there are; for an unrolled or a depthwise layer, those that are not 0.
    positions : int
        Frames of the core in one of the network: the window positions of a convolution.
    conv_groups : int
        Groups of a convolution: a row has weights for one group's columns.
    reason : str
        Why it has the code, or the engine, that it has.
    """

    derived: ClassVar[tuple[str, ...]] = (
        "encoding", "weights", "n_over_k", "lanes", "slots", "windows", "stream_width",
        "new_weights", "cycles", "utilization", "code_bits", "bits_per_weight", "parameter_bits",
        "memories", "resources", "energy_nj", "energy_int8_nj",
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
        """N x M, where a row of a convolution has the columns of its own group only."""
        return self.spec.weights // self.conv_groups

    @property
    def encoding(self) -> str:
        """``"pvq"`` or ``"int8"``."""
        return self.spec.encoding or ("pvq" if self.pulses else "int8")

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The network's layers that it computes, for tables: ``name``, ``rows``, ``columns``,
        ``pulses``, ``n_over_k``, ``slots``, ``utilization``, ``bits_per_weight``, and ``cycles``
        of a frame."""
        return core_parts(self.spec, self)

    @property
    def unrolled(self) -> bool:
        """Whether its weights are wires: other weights are another circuit."""
        return self.spec.code_memory == "wires"

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
        """Cycles of a frame (V: of a batch) while nothing waits: words, or activations in or out
        where they are more."""
        return core_cycles(self.spec, self)

    @property
    def resources(self) -> Resources:
        """What the core takes."""
        return core_resources(self.spec, self.engine)

    @property
    def operations(self) -> Operations:
        """What happens in one frame."""
        return self._requantize() + core_energy(self.spec, self)

    def _requantize(self) -> Operations:
        spec, times = self.spec, self.positions
        products = 0 if not spec.multiplies.stored else spec.all_rows * spec.groups
        return Operations(
            add_bits=times * spec.all_rows * spec.sum_bits,
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
            spec.all_rows * self.positions,
            self.weights // spec.all_rows,
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
            "windows": self.spec.frames if self.spec.row_windows else 1,
            "stream_width": self.spec.out_width,
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
    pulses, codes = core_counts(spec, layer, image)
    text = core_reason(spec, layer) if reason is None else reason
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


# -- what the kinds of cores differ in ----------------------------------------------------------

core_parts: Face[[LayerPlan], list[dict[str, Any]]] = CORES.face("parts")
"""The network's layers that a core computes, see `LayerPlan.parts`."""

core_counts: Face[[Dense, CoreImage], tuple[int, int]] = CORES.face("counts")
"""``sum |y|`` of a layer, where that is of pulses, and what places them or how many weights there
are, as `LayerPlan` has both."""

core_cycles: Face[[LayerPlan], int] = CORES.face("cycles")
"""Cycles of a frame (V: of a batch) of the network while nothing waits."""

core_energy: Face[[LayerPlan], Operations] = CORES.face("energy")
"""What happens in one frame of the network besides the requantizer's work."""

core_reason: Face[[Dense], str] = CORES.face("reason")
"""What speaks for the way in which a core stores a layer's weights."""


@core_parts.of(CoreBase)
def _one_layer(spec: CoreBase, plan: LayerPlan) -> list[dict[str, Any]]:
    return [
        {
            "name": plan.layer,
            "rows": spec.rows,
            "columns": spec.n,
            "pulses": plan.pulses,
            "n_over_k": plan.n_over_k,
            "slots": spec.words,
            "utilization": plan.utilization,
            "bits_per_weight": plan.code_bits / plan.weights,
            "cycles": plan.cycles,
        }
    ]


@core_parts.of(SharedSpec)
def _several_layers(spec: SharedSpec, plan: LayerPlan) -> list[dict[str, Any]]:
    """What only moves maps has no weights, and isn't among them."""
    return [
        {
            "name": layer.name,
            "rows": layer.rows,
            "columns": layer.n,
            "pulses": layer.pulses,
            "n_over_k": layer.weights / max(1, layer.pulses),
            "slots": layer.words,
            "utilization": layer.codes / (layer.words * spec.lanes),
            "bits_per_weight": layer.words * spec.word_bits / layer.weights,
            "cycles": cycles,
        }
        for layer, cycles in zip(spec.layers, spec.step_cycles(), strict=True)
        if layer.weights
    ]


@core_counts.of(CoreSpec)
def _pulses(spec: CoreSpec, layer: Dense, image: CoreImage) -> tuple[int, int]:
    return int(np.abs(layer.y).sum()), int(spec.code.placed(image.codes).sum())


@core_counts.of(SharedSpec)
def _all_pulses(spec: SharedSpec, layer: Dense, image: CoreImage) -> tuple[int, int]:
    return sum(x.pulses for x in spec.layers), sum(x.codes for x in spec.layers)


@core_counts.of(Int8Spec)
def _plain_weights(spec: Int8Spec, layer: Dense, image: CoreImage) -> tuple[int, int]:
    return 0, layer.y.size


@core_counts.of(UnrolledSpec, DepthwiseSpec)
def _not_zero(spec: CoreBase, layer: Dense, image: CoreImage) -> tuple[int, int]:
    pulses = int(np.abs(layer.y).sum()) if layer.encoding == "pvq" else 0
    return pulses, int(np.count_nonzero(layer.y))


@core_cycles.of(CoreSpec, Int8Spec)
def _folded_cycles(spec: CoreBase, plan: LayerPlan) -> int:
    """Words, or activations in or out where they are more."""
    if spec.row_windows:
        groups = plan.positions // spec.row_windows * -(-spec.row_windows // spec.frames)
        return max(groups * spec.words, plan.positions * spec.rows // spec.out_width)
    loaded = spec.n if plan.positions == 1 else 0
    if spec.flush_cycles:
        loaded *= spec.frames
    return plan.positions * max(spec.words, loaded, spec.rows)


@core_cycles.of(SharedSpec)
def _shared_cycles(spec: SharedSpec, plan: LayerPlan) -> int:
    return max(spec.frame_cycles, spec.n, spec.rows)


@core_cycles.of(UnrolledSpec)
def _unrolled_cycles(spec: UnrolledSpec, plan: LayerPlan) -> int:
    loaded = spec.n // spec.in_width if plan.positions == 1 else 0
    return plan.positions * max(spec.sum_cycles, loaded)


@core_cycles.of(DepthwiseSpec)
def _depthwise_cycles(spec: DepthwiseSpec, plan: LayerPlan) -> int:
    return spec.frame_cycles


@core_energy.of(DepthwiseSpec)
def _depthwise_energy(spec: DepthwiseSpec, plan: LayerPlan) -> Operations:
    words = plan.positions * spec.rows
    return Operations(
        add_bits=words * sum(spec.magnitudes) * spec.leaf_bits,
        read_bits=words * (spec.word_bits + spec.lanes * spec.x.bits),
        register_bits=plan.resources.ffs * spec.frame_cycles,
    )


@core_energy.of(SharedSpec)
def _shared_energy(spec: SharedSpec, plan: LayerPlan) -> Operations:
    times = [layer.times for layer in spec.layers]
    pairs = list(zip(times, spec.layers, strict=True))
    words = sum(t * layer.words for t, layer in pairs)
    adds = sum(t * (layer.codes + layer.rows) for t, layer in pairs)
    return Operations(
        add_bits=adds * spec.acc_bits,
        read_bits=words * (spec.word_bits + spec.lanes * spec.bank_bits),
        register_bits=plan.resources.ffs * spec.frame_cycles,
    )


@core_energy.of(CoreSpec)
def _pulse_energy(spec: CoreSpec, plan: LayerPlan) -> Operations:
    """V frames share the codes' reads and the cycles."""
    times, codes = plan.positions, plan.code_bits // spec.frames
    return Operations(
        add_bits=times * (plan.codes + spec.rows * spec.groups) * spec.acc_bits,
        read_bits=times * (codes + spec.words * spec.lanes * spec.x.bits),
        register_bits=times * plan.resources.ffs * spec.words // spec.frames,
    )


@core_energy.of(Int8Spec)
def _int8_energy(spec: Int8Spec, plan: LayerPlan) -> Operations:
    times, macs = plan.positions, plan.positions * plan.codes
    return Operations(
        add_bits=macs * spec.acc_bits,
        multiply_bits2=macs * WEIGHT_BITS * spec.x.bits,
        read_bits=times * (plan.code_bits + spec.words * spec.lanes * spec.x.bits),
        register_bits=times * plan.resources.ffs * spec.words,
    )


@core_energy.of(UnrolledSpec)
def _unrolled_energy(spec: UnrolledSpec, plan: LayerPlan) -> Operations:
    return Operations(
        add_bits=plan.positions * (spec.adders * spec.digits * spec.digit or spec.adder_bits),
        register_bits=plan.resources.ffs * plan.cycles,
    )


@core_reason.of(UnrolledSpec)
def _why_wires(spec: UnrolledSpec, layer: Dense) -> str:
    piped = ", which frames follow one another into" if spec.pipelined else ""
    if spec.by_pixel:
        piped = ", a window with each pixel that comes"
    if spec.digit:
        bits = f"{spec.digit} bit{'s' * (spec.digit > 1)}"
        piped = f" that add {bits} of {spec.acc_bits} a cycle{piped * spec.by_pixel}"
    return (
        f"{spec.adders:,} adders in {spec.levels} levels{piped}; its weights are wires, so new "
        "ones need synthesis"
    )


@core_reason.of(DepthwiseSpec)
def _why_taps(spec: DepthwiseSpec, layer: Dense) -> str:
    return (
        f"a row of {spec.taps} weights a cycle, in words of {spec.word_bits} bits, up to "
        f"{(1 << spec.planes) - 1} times an activation"
    )


@core_reason.of(SharedSpec)
def _why_shared(spec: SharedSpec, layer: Dense) -> str:
    return shared_reason(spec)


def shared_reason(spec: SharedSpec) -> str:
    """What is said of the layers of an engine."""
    count = len(spec.shared_by)
    after = ", one layer after the other" if count > 1 else ""
    return f"{count} layer{'s' * (count > 1)} on {spec.lanes} lanes{after}"


@core_reason.of(Int8Spec)
def _why_plain(spec: Int8Spec, layer: Dense) -> str:
    return "8-bit weights were asked for"


@core_reason.of(CoreSpec)
def _why_pulses(spec: CoreSpec, layer: Dense) -> str:
    """Pulses of 1 against powers of two, in slots of a window or frame."""
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
