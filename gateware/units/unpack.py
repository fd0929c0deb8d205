"""From batches of V frames back to one frame after the other."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.arith.activation import activation_layout
from gateware.device.memory import Ram
from gateware.units.queue import Credits, ResultQueue, StreamFifo
from pvq_hw.engine.batch import UNPACKER_QUEUE, last_frame_format
from pvq_hw.engine.units import Unpack

__all__ = ["UnpackUnit", "read_frame", "take_rows"]


class UnpackUnit(wiring.Component):
    """Gives the results of a batch frame after frame; those that no frame came for are dropped.

    Takes a row of V results a cycle as long as a half of its memory is free. A batch's first
    result is offered ``6`` (memory of logic) or ``7`` cycles after its last row came, if the batch
    before has left; then one a cycle, with two cycles between batches.

    Parameters
    ----------
    spec : Unpack
    body : str
        How memories are built, see `gateware.device.bodies.bodies`.

    Members
    -------
    i : stream of V results
    batch : stream of numbers, each that of a batch's last frame
        A number comes before its batch's results are complete. The stream never waits: there is a
        place for every batch that can be under way.
    o : stream of results

    Attributes
    ----------
    batches : StreamFifo
        Where those numbers wait.
    """

    def __init__(self, spec: Unpack, body: str = "behavioral") -> None:
        self.spec, self.body = spec, body
        form = last_frame_format(spec.batch)
        self.batches = StreamFifo(form, spec.places, body=body)
        super().__init__(
            {
                "i": In(stream.Signature(activation_layout(spec.x, spec.batch))),
                "batch": In(stream.Signature(activation_layout(form, 1))),
                "o": Out(stream.Signature(activation_layout(spec.x, 1))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spec = self.spec
        m.submodules.ram = ram = Ram(
            spec.width, spec.depth, latency=spec.latency, kind=spec.memory, body=self.body
        )
        m.submodules.batches = self.batches
        m.submodules.queue = queue = ResultQueue(spec.x, UNPACKER_QUEUE, body=self.body)
        m.submodules.credits = credits = Credits(UNPACKER_QUEUE)
        connect(m, queue.o, flipped(self.o))
        release = Signal()
        # Results before batches, so that they keep their names in Verilog.
        written = take_rows(m, self.i, [ram], spec.size, release)
        connect(m, flipped(self.batch), self.batches.i)
        read, frame = self._read(m, ram, credits.some, written, release)
        read_frame(m, [ram], read, frame, spec.batch, queue)
        m.d.comb += [credits.claim.eq(read), credits.returned.eq(queue.popped)]
        return m

    def _read(
        self, m: Module, ram: Ram, some: Signal, written: Signal, release: Signal
    ) -> tuple[Signal, Signal]:
        """Reads whole batches; gives the strobe of a read and its frame."""
        spec = self.spec
        row, half = Signal(max(1, (spec.size - 1).bit_length())), Signal()
        frame, last = (Signal(range(spec.batch)) for _ in range(2))
        whole, run, start = Signal(range(3)), Signal(), Signal()
        issued = Signal()
        at_row, at_frame = row == spec.size - 1, frame == last
        m.d.comb += [
            start.eq(~run & (whole != 0) & self.batches.o.valid),
            self.batches.o.ready.eq(start),
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
            m.d.sync += [last.eq(self.batches.o.payload.as_value()), frame.eq(0)]
        with m.If(issued):
            m.d.sync += row.eq(Mux(at_row, 0, row + 1))
            with m.If(at_row):
                m.d.sync += frame.eq(frame + 1)
        return issued, frame


def take_rows(m: Module, i: Any, rams: Sequence[Ram], rows: int, release: Signal) -> Signal:
    """Writes rows of V results from a stream into the two halves of memories in turn, as long as
    one is free, a row in each memory; gives the strobe of a half's last row."""
    words = rows // len(rams)
    free, left, ready = Signal(2, init=2, name="free"), Signal(2), Signal(init=1)
    row = Signal(max(1, (words - 1).bit_length()), name="write_row")
    which: Value = Const(1, 1)
    half, take, written = Signal(name="write_half"), Signal(), Signal()
    if len(rams) > 1:
        which = Signal(len(rams), init=1, name="write_memory")
        with m.If(take):
            m.d.sync += which.eq(which.rotate_left(1))
    m.d.comb += [
        i.ready.eq(ready),
        take.eq(i.valid & ready),
        written.eq(take & which[-1] & (row == words - 1)),
        left.eq(free + release - written),
    ]
    for k, ram in enumerate(rams):
        m.d.comb += [
            ram.w_en.eq(take & which[k]),
            ram.w_addr.eq(Cat(row, half)),
            ram.w_data.eq(i.payload.as_value()),
        ]
    m.d.sync += [free.eq(left), ready.eq(left != 0), half.eq(half ^ written)]
    with m.If(take & which[-1]):
        m.d.sync += row.eq(Mux(written, 0, row + 1))
    return written


def read_frame(
    m: Module, rams: Sequence[Ram], read: Signal, frame: Signal, frames: int, queue: ResultQueue
) -> None:
    """Behind the memories: one frame's result of each word that is read goes to the queue."""
    for i in range(rams[0].latency):
        later = Signal(name=f"read_{i}"), Signal(len(frame), name=f"frame_{i}", reset_less=True)
        m.d.sync += [later[0].eq(read), later[1].eq(frame)]
        read, frame = later
    results = []
    for ram in rams:
        bits = ram.width // frames
        values: list[Value] = [ram.r_data.word_select(v, bits) for v in range(frames)]
        for bit in frame:
            pairs = [values[k : k + 2] for k in range(0, len(values), 2)]
            values = [Mux(bit, *pair[::-1]) if len(pair) > 1 else pair[0] for pair in pairs]
        results.append(values[0])
    chosen, value = Signal(), Signal(len(queue.w_data), reset_less=True)
    m.d.sync += [chosen.eq(read), value.eq(Cat(*results))]
    m.d.comb += [queue.w_en.eq(chosen), queue.w_data.eq(value)]
