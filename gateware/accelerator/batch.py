"""Batches of V frames between streams that carry one frame after the other."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.accelerator.accelerator import Accelerator
from gateware.arith.activation import activation_layout
from gateware.device.memory import Ram
from gateware.device.spram import CODE_PORT
from gateware.units.queue import Credits, ResultQueue, StreamFifo
from pvq_hw.engine.batch import UNPACKER_QUEUE, batch_places, last_frame_format, unpacker_memory
from pvq_hw.engine.core import CoreBase, CoreImage

__all__ = ["BatchAccelerator", "Unpacker"]


class Unpacker(wiring.Component):
    """Gives the results of a batch frame after frame; those that no frame came for are dropped.

    Takes a row of V results a cycle as long as a half of its memory is free. A batch's first
    result is offered ``6`` (memory of logic) or ``7`` cycles after its last row came, if the batch
    before has left; then one a cycle, with two cycles between batches.

    Parameters
    ----------
    spec : CoreBase
        The last core, whose results come.

    Members
    -------
    i : stream of V results
    batch : stream of the number of a batch's last frame, before its results are complete
    o : stream of results
    """

    def __init__(self, spec: CoreBase, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        number = activation_layout(last_frame_format(spec.frames), 1)
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.out, spec.frames))),
                "batch": In(stream.Signature(number)),
                "o": Out(stream.Signature(activation_layout(spec.out, 1))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        memory = unpacker_memory(spec)
        m.submodules.ram = ram = Ram(
            memory.width, memory.depth, latency=memory.latency, kind=memory.kind, body=self.body
        )
        m.submodules.queue = queue = ResultQueue(spec.out, UNPACKER_QUEUE, body=self.body)
        m.submodules.credits = credits = Credits(UNPACKER_QUEUE)
        connect(m, queue.o, flipped(self.o))
        release = Signal()
        written = self._write(m, ram, release)
        read, frame = self._read(m, ram, credits.some, written, release)
        # What is read is chosen and kept behind the memory.
        for i in range(memory.latency):
            later = Signal(name=f"read_{i}"), Signal(len(frame), name=f"frame_{i}", reset_less=True)
            m.d.sync += [later[0].eq(read), later[1].eq(frame)]
            read, frame = later
        chosen, value = Signal(), Signal(spec.out.bits, reset_less=True)
        m.d.sync += [chosen.eq(read), value.eq(ram.r_data.word_select(frame, spec.out.bits))]
        m.d.comb += [
            queue.w_en.eq(chosen),
            queue.w_data.eq(value),
            credits.returned.eq(queue.popped),
        ]
        m.d.comb += credits.claim.eq(self._issued)
        return m

    def _write(self, m: Module, ram: Ram, release: Signal) -> Signal:
        """Takes rows; gives the strobe of a batch's last one."""
        rows = self.spec.rows
        free, left, ready = Signal(2, init=2), Signal(2), Signal(init=1)
        row, half = Signal(max(1, (rows - 1).bit_length())), Signal()
        take, written = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(ready),
            take.eq(self.i.valid & ready),
            written.eq(take & (row == rows - 1)),
            left.eq(free + release - written),
            ram.w_en.eq(take),
            ram.w_addr.eq(Cat(row, half)),
            ram.w_data.eq(self.i.payload.as_value()),
        ]
        m.d.sync += [free.eq(left), ready.eq(left != 0), half.eq(half ^ written)]
        with m.If(take):
            m.d.sync += row.eq(Mux(written, 0, row + 1))
        return written

    def _read(
        self, m: Module, ram: Ram, some: Signal, written: Signal, release: Signal
    ) -> tuple[Signal, Signal]:
        """Reads whole batches; gives the strobe of a read and its frame."""
        spec = self.spec
        row, half = Signal(max(1, (spec.rows - 1).bit_length())), Signal()
        frame, last = (Signal(range(spec.frames)) for _ in range(2))
        whole, run, start = Signal(range(3)), Signal(), Signal()
        self._issued = issued = Signal()
        at_row, at_frame = row == spec.rows - 1, frame == last
        m.d.comb += [
            start.eq(~run & (whole != 0) & self.batch.valid),
            self.batch.ready.eq(start),
            issued.eq(run & some),
            release.eq(issued & at_row & at_frame),
            ram.r_addr.eq(Cat(row, half)),
        ]
        m.d.sync += [
            whole.eq(whole + written - start),
            run.eq(start | (run & ~release)),
            half.eq(half ^ release),
        ]
        with m.If(start):
            m.d.sync += [last.eq(self.batch.payload.as_value()), frame.eq(0)]
        with m.If(issued):
            m.d.sync += row.eq(Mux(at_row, 0, row + 1))
            with m.If(at_row):
                m.d.sync += frame.eq(frame + 1)
        return issued, frame


class BatchAccelerator(wiring.Component):
    """An `Accelerator` of V > 1 whose frames come and go one after the other.

    Parameters
    ----------
    specs : sequence of CoreBase
        The first with ``flush_cycles``.
    images : sequence of CoreImage
    body : str
        Of memories and multipliers, see `gateware.device.memory.MEMORY_BODIES`.

    Members
    -------
    i, o : streams of activations
    codes : In(`gateware.device.spram.CODE_PORT`), only where a core's codes are loaded

    Attributes
    ----------
    chain : Accelerator
    batches : StreamFifo
        Tells the unpacker each batch's last frame.
    unpacker : Unpacker
    """

    def __init__(
        self, specs: Sequence[CoreBase], images: Sequence[CoreImage], *, body: str = "behavioral"
    ) -> None:
        self.chain = Accelerator(specs, images, body=body)
        self.specs, self.images = self.chain.specs, self.chain.images
        form = last_frame_format(specs[0].frames)
        self.layout = self.chain.layout
        loaded = {"codes": In(CODE_PORT)} if self.layout.blocks else {}
        self.batches = StreamFifo(form, batch_places(specs), body=body)
        self.unpacker = Unpacker(specs[-1], body)
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(specs[0].x, 1))),
                "o": Out(stream.Signature(activation_layout(specs[-1].out, 1))),
                **loaded,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.layout.blocks:
            connect(m, flipped(self.codes), self.chain.codes)
        m.submodules.chain = self.chain
        m.submodules.batches = self.batches
        m.submodules.unpacker = self.unpacker
        first: Any = self.chain.cores[0]
        connect(m, flipped(self.i), self.chain.i)
        connect(m, self.chain.o, self.unpacker.i)
        connect(m, self.batches.o, self.unpacker.batch)
        connect(m, self.unpacker.o, flipped(self.o))
        # There is a place for every batch that can be under way.
        m.d.comb += [
            self.batches.i.valid.eq(first.batch.valid),
            self.batches.i.payload.eq(first.batch.payload),
            first.batch.ready.eq(1),
        ]
        return m
