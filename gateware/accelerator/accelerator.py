"""A network: units joined by streams."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Const, Module, ResetInserter, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.accelerator.circuits import unit_circuit
from gateware.arith.activation import activation_layout, stream_ports
from gateware.device.live import LiveBus
from gateware.device.spram import CODE_PORT
from gateware.link.flash import flash_pins
from pvq_hw.engine.code_stream import flash_width, has_stream
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.spram_image import code_layout
from pvq_hw.engine.units import Unpack

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """`GraphSpec.compute` as a circuit: every unit works on its own, streams join them.

    Parameters
    ----------
    spec : GraphSpec
    images : sequence of CoreImage
        Of its cores, in order.
    body : str
        How memories and multipliers are built, see
        `gateware.device.bodies.bodies`.
    live : LiveBus, optional
        Over which the memories of updatable cores are loaded. With one bank, units are in reset
        while they are.

    Members
    -------
    i, o : streams of activations, channels last
    codes : In(`gateware.device.spram.CODE_PORT`), only where a core's codes are loaded
        While it loads, and a cycle longer, no activation is taken and all units are in reset:
        frames under way are forgotten.

    flash, codes_right, codes_wrong : as of `gateware.core.shared_core.SharedCore`, only where a
        core's codes come from the flash for every frame

    Attributes
    ----------
    layout : CodeLayout
        What is loaded.
    units : dict of component by unit name
        The submodules, which are called as the units are; simulations watch their streams.
    """

    def __init__(
        self,
        spec: GraphSpec,
        images: Sequence[CoreImage],
        *,
        body: str = "behavioral",
        live: LiveBus | None = None,
    ) -> None:
        self.spec, self.images, self.body = spec, spec.named(images), body
        self.layout = code_layout(spec.cores)
        self.units = {unit.name: unit_circuit(unit, self.images, body) for unit in spec.units}
        self.live = live
        for unit in self.units.values():
            if hasattr(unit, "live"):
                unit.live = live
        taken, given = spec.together
        loaded: dict[str, Any] = {"codes": In(CODE_PORT)} if self.layout.blocks else {}
        if has_stream(spec.cores):
            pins = flash_pins(flash_width(spec.cores))
            loaded = {"flash": Out(pins), "codes_right": Out(1), "codes_wrong": Out(1)}
        super().__init__(stream_ports(spec.x[1], spec.out[1], taken, given) | loaded)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = activation_layout(self.spec.x[1], self.spec.together[0])
        first = stream.Signature(shape).create()
        clear = None
        if self.layout.blocks:
            clear = self._closed(m, first, self._load(m))
        elif self.live is not None and self.live.banks == 1:
            clear = self._closed(m, first, self.live.load)
        givers: dict[str, Any] = {self.spec.input: flipped(self.i) if clear is None else first}
        for unit in self.spec.units:
            component = self.units[unit.name]
            m.submodules[unit.name] = (
                component if clear is None else ResetInserter(clear)(component)
            )
            taken, given = unit.ports
            for wire, port in zip(unit.inputs, taken, strict=True):
                connect(m, givers.pop(wire), getattr(component, port))
            for wire, port in zip(unit.outputs, given, strict=True):
                givers[wire] = getattr(component, port)
            if isinstance(unit, Unpack):
                maker = self.spec.batched(unit)[0]
                connect(m, self.units[maker.name].batch, component.batch)
        connect(m, givers[self.spec.output], flipped(self.o))
        for unit in self.spec.units:
            if has_stream(unit.cores):
                core = self.units[unit.name]
                connect(m, core.flash, flipped(self.flash))
                m.d.comb += [
                    self.codes_right.eq(core.codes_right), self.codes_wrong.eq(core.codes_wrong),
                ]  # fmt: skip
        return m

    def _closed(self, m: Module, first: Any, load: Value) -> Signal:
        """Holds ``first``, the input, while memories are loaded, and gives the units' reset."""
        clear, open_ = Signal(), Signal()
        m.d.sync += clear.eq(load)
        m.d.comb += [
            open_.eq(~(load | clear)),
            first.payload.eq(self.i.payload),
            first.valid.eq(self.i.valid & open_),
            self.i.ready.eq(first.ready & open_),
        ]
        return clear

    def _load(self, m: Module) -> Value:
        """Joins the code memories; gives whether they are being loaded."""
        port: Any = self.codes
        r_data: Value = Const(0)
        laid = [(unit.name, core) for unit in self.spec.units for core in unit.cores]
        for index, (name, spec) in enumerate(laid):
            if spec.code_memory == "spram":
                core = self.units[name]
                core.first_block = self.layout.first(index)
                inner: Any = core.codes
                m.d.comb += [
                    inner.load.eq(port.load),
                    inner.w_en.eq(port.w_en),
                    inner.addr.eq(port.addr),
                    inner.w_data.eq(port.w_data),
                ]
                r_data = r_data | inner.r_data
        m.d.comb += port.r_data.eq(r_data)
        loading: Value = port.load
        return loading
