"""The component of every kind of unit and of core."""

from typing import Any

from gateware.core.depthwise_core import DepthwiseCore
from gateware.core.int8_core import Int8Core
from gateware.core.map_core import MapCore
from gateware.core.pulse_core import LayerCore
from gateware.core.shared_core import SharedCore
from gateware.core.unrolled_core import UnrolledCore
from gateware.units.converter import ConverterUnit
from gateware.units.decision import AboveCircuit, LargestCircuit, SmoothedCircuit
from gateware.units.join import ForkUnit, JoinUnit
from gateware.units.lookup import LookupUnit
from gateware.units.pick import PickUnit
from gateware.units.pool import PoolUnit
from gateware.units.queue import DeepFifo, StreamFifo
from gateware.units.unpack import UnpackUnit
from pvq_hw.engine.core import CORES, CoreBase, CoreImage
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.units import (
    UNITS,
    CoreUnit,
    Fifo,
    Fork,
    Join,
    Lookup,
    Pick,
    Pool,
    Unpack,
    WidthConverter,
)
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.registry import Face

__all__ = ["core_circuit", "core_component", "unit_circuit"]

Images = dict[str, CoreImage]

unit_circuit: Face[[Images, str], Any] = UNITS.face("circuit")
"""A unit's component, given the contents of the cores by their names and the body of memories; its
streams are called as `Unit.ports` says."""

core_circuit: Face[[CoreImage, str, WindowSpec | None], Any] = CORES.face("circuit")
"""A core's component, given its contents, the body of memories and the windows that it reads."""


@core_circuit.of(CoreSpec)
def _pulses(spec: CoreSpec, image: CoreImage, body: str, window: WindowSpec | None) -> LayerCore:
    return LayerCore(spec, image, body=body, window=window)


@core_circuit.of(Int8Spec)
def _int8(spec: Int8Spec, image: CoreImage, body: str, window: WindowSpec | None) -> Int8Core:
    return Int8Core(spec, image, body=body, window=window)


@core_circuit.of(UnrolledSpec)
def _unrolled(
    spec: UnrolledSpec, image: CoreImage, body: str, window: WindowSpec | None
) -> UnrolledCore:
    return UnrolledCore(spec, image, body=body, window=window)


@core_circuit.of(DepthwiseSpec)
def _depthwise(
    spec: DepthwiseSpec, image: CoreImage, body: str, window: WindowSpec | None
) -> DepthwiseCore:
    return DepthwiseCore(spec, image, body=body)


@core_circuit.of(SharedSpec)
def _shared(spec: SharedSpec, image: CoreImage, body: str, window: WindowSpec | None) -> SharedCore:
    return SharedCore(spec, image, body=body)


@core_circuit.of(MapSpec)
def _maps(spec: MapSpec, image: CoreImage, body: str, window: WindowSpec | None) -> MapCore:
    return MapCore(spec, image, body=body)


@unit_circuit.of(CoreUnit)
def _core(unit: CoreUnit, images: Images, body: str) -> Any:
    return core_circuit(unit.core, images[unit.core.name], body, unit.window)


@unit_circuit.of(Pool)
def _pool(unit: Pool, images: Images, body: str) -> PoolUnit:
    return PoolUnit(unit, body)


@unit_circuit.of(Join)
def _join(unit: Join, images: Images, body: str) -> JoinUnit:
    return JoinUnit(unit, body)


@unit_circuit.of(Lookup)
def _lookup(unit: Lookup, images: Images, body: str) -> LookupUnit:
    return LookupUnit(unit, body)


@unit_circuit.of(Pick)
def _pick(unit: Pick, images: Images, body: str) -> PickUnit:
    return PickUnit(unit)


@unit_circuit.of(Fork)
def _fork(unit: Fork, images: Images, body: str) -> ForkUnit:
    return ForkUnit(unit)


@unit_circuit.of(Fifo)
def _fifo(unit: Fifo, images: Images, body: str) -> StreamFifo:
    own = unit.x, unit.depth, unit.memory, body, unit.width
    return DeepFifo(*own, latency=unit.latency) if unit.latency > 1 else StreamFifo(*own)


@unit_circuit.of(WidthConverter)
def _converter(unit: WidthConverter, images: Images, body: str) -> ConverterUnit:
    return ConverterUnit(unit)


@unit_circuit.of(LargestUnit)
def _largest(unit: LargestUnit, images: Images, body: str) -> LargestCircuit:
    return LargestCircuit(unit)


@unit_circuit.of(SmoothedUnit)
def _smoothed(unit: SmoothedUnit, images: Images, body: str) -> SmoothedCircuit:
    return SmoothedCircuit(unit)


@unit_circuit.of(AboveUnit)
def _above(unit: AboveUnit, images: Images, body: str) -> AboveCircuit:
    return AboveCircuit(unit, body)


@unit_circuit.of(Unpack)
def _unpack(unit: Unpack, images: Images, body: str) -> UnpackUnit:
    return UnpackUnit(unit, body)


def core_component(
    spec: CoreBase,
    image: CoreImage,
    *,
    body: str = "behavioral",
    window: WindowSpec | None = None,
) -> Any:
    """`core_circuit` with the arguments that most cores don't need left out."""
    return core_circuit(spec, image, body, window)
