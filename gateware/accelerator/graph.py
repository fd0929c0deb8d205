"""A network of any shape: units joined by streams."""

from collections.abc import Mapping

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.accelerator.cores import core_component
from gateware.arith.activation import activation_layout
from gateware.units.join import ForkUnit, JoinUnit
from gateware.units.pool import PoolUnit
from gateware.units.queue import StreamFifo
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.units import CoreUnit, Fifo, Fork, Join, Pool, Unit
from pvq_hw.errors import InputError

__all__ = ["GraphAccelerator"]


class GraphAccelerator(wiring.Component):
    """`GraphSpec.compute` as a circuit: every unit works on its own, streams join them.

    Parameters
    ----------
    spec : GraphSpec
    images : mapping of core name to CoreImage
    body : str
        Of memories and multipliers, see `gateware.device.memory.MEMORY_BODIES`.

    Members
    -------
    i, o : streams of activations, channels last

    Attributes
    ----------
    units : dict of component by unit name
        The submodules, which are called as the units are.
    """

    def __init__(
        self, spec: GraphSpec, images: Mapping[str, CoreImage], *, body: str = "behavioral"
    ) -> None:
        for core in spec.cores:
            if core.name not in images:
                raise InputError(f"Core {core.name!r} must have an image")
        self.spec, self.images, self.body = spec, dict(images), body
        self.units = {unit.name: self._component(unit) for unit in spec.units}
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x[1], 1))),
                "o": Out(stream.Signature(activation_layout(spec.out[1], 1))),
            }
        )

    def _component(self, unit: Unit) -> wiring.Component:
        if isinstance(unit, CoreUnit):
            image = self.images[unit.core.name]
            return core_component(unit.core, image, body=self.body, window=unit.window)
        if isinstance(unit, Join):
            return JoinUnit(unit, self.body)
        if isinstance(unit, Fork):
            return ForkUnit(unit)
        if isinstance(unit, Fifo):
            return StreamFifo(unit.x, unit.depth, unit.memory, self.body)
        if isinstance(unit, Pool):
            return PoolUnit(unit, self.body)
        raise InputError(f"Unit {unit.name!r} has no circuit: its kind {unit.kind!r} is not known")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        givers = {self.spec.input: flipped(self.i)}
        for unit in self.spec.units:
            component = self.units[unit.name]
            m.submodules[unit.name] = component
            numbered = isinstance(unit, Join)
            for k, wire in enumerate(unit.inputs):
                port = getattr(component, f"i{k}" if numbered else "i")
                connect(m, givers.pop(wire), port)
            numbered = isinstance(unit, Fork)
            for k, wire in enumerate(unit.outputs):
                givers[wire] = getattr(component, f"o{k}" if numbered else "o")
        connect(m, givers[self.spec.output], flipped(self.o))
        return m
