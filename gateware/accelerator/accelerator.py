"""A network: cores joined by streams."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from amaranth.hdl import Const, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.accelerator.cores import core_component
from gateware.arith.activation import activation_layout
from gateware.device.spram import CODE_PORT
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.spram_image import code_layout
from pvq_hw.errors import InputError

__all__ = ["Accelerator", "check_chain"]


def check_chain(specs: Sequence[CoreBase], images: Sequence[CoreImage]) -> None:
    """Raises InputError unless each core takes what the one before it gives."""
    if not specs or len(specs) != len(images):
        raise InputError("An accelerator must have a specification and an image per core")
    for before, after in pairwise(specs):
        if (before.rows, before.out, before.frames) != (after.n, after.x, after.frames):
            raise InputError(f"Core {after.name!r} must take what {before.name!r} gives")


class Accelerator(wiring.Component):
    """Layer cores in a chain; each works on a frame of its own.

    Parameters
    ----------
    specs : sequence of CoreBase
        Each core's output format and rows are the next one's input format and columns.
    images : sequence of CoreImage
    body : str
        Of memories and multipliers, see `gateware.device.memory.MEMORY_BODIES`.

    Members
    -------
    i, o : streams of activations, see `LayerCore`
    codes : In(`gateware.device.spram.CODE_PORT`), only where a core's codes are loaded
        No activation is taken while it loads.

    Attributes
    ----------
    layout : CodeLayout
        What is loaded.
    cores : list of LayerCore
        The submodules ``core0``, ``core1``, ...; simulations watch their streams.
    """

    def __init__(
        self, specs: Sequence[CoreBase], images: Sequence[CoreImage], *, body: str = "behavioral"
    ) -> None:
        check_chain(specs, images)
        self.specs, self.images, self.body = tuple(specs), tuple(images), body
        self.cores = [core_component(s, i, body=body) for s, i in zip(specs, images, strict=True)]
        first, last = specs[0], specs[-1]
        self.layout = code_layout(specs)
        loaded = {"codes": In(CODE_PORT)} if self.layout.blocks else {}
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(first.x, first.input_frames))),
                "o": Out(stream.Signature(activation_layout(last.out, last.frames))),
                **loaded,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        before = flipped(self.i)
        for index, core in enumerate(self.cores):
            m.submodules[f"core{index}"] = core
            if index or not self.layout.blocks:
                connect(m, before, core.i)
            before = core.o
        connect(m, before, flipped(self.o))
        if self.layout.blocks:
            self._load(m)
        return m

    def _load(self, m: Module) -> None:
        """Joins the code memories, and holds the input while they are loaded."""
        port: Any = self.codes
        first = self.cores[0].i
        m.d.comb += [
            first.payload.eq(self.i.payload),
            first.valid.eq(self.i.valid & ~port.load),
            self.i.ready.eq(first.ready & ~port.load),
        ]
        r_data: Value = Const(0)
        for index, core in enumerate(self.cores):
            if core.spec.code_memory == "spram":
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
