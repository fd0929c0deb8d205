"""A network: cores joined by streams."""

from collections.abc import Sequence
from itertools import pairwise

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.activation import activation_layout
from gateware.layer_core import LayerCore
from pvq_hw.core import CoreImage, CoreSpec
from pvq_hw.errors import InputError

__all__ = ["Accelerator", "check_chain"]


def check_chain(specs: Sequence[CoreSpec], images: Sequence[CoreImage]) -> None:
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
    specs : sequence of CoreSpec
        Each core's output format and rows are the next one's input format and columns.
    images : sequence of CoreImage
    body : str
        Of memories and multipliers, see `gateware.memory.MEMORY_BODIES`.

    Members
    -------
    i, o : streams of activations, see `LayerCore`

    Attributes
    ----------
    cores : list of LayerCore
        The submodules ``core0``, ``core1``, ...; simulations watch their streams.
    """

    def __init__(
        self, specs: Sequence[CoreSpec], images: Sequence[CoreImage], *, body: str = "behavioral"
    ) -> None:
        check_chain(specs, images)
        self.specs, self.images, self.body = tuple(specs), tuple(images), body
        self.cores = [LayerCore(s, i, body=body) for s, i in zip(specs, images, strict=True)]
        first, last = specs[0], specs[-1]
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(first.x, first.frames))),
                "o": Out(stream.Signature(activation_layout(last.out, last.frames))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        before = flipped(self.i)
        for index, core in enumerate(self.cores):
            m.submodules[f"core{index}"] = core
            connect(m, before, core.i)
            before = core.o
        connect(m, before, flipped(self.o))
        return m
