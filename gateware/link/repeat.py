"""One frame again and again, as fast as the accelerator takes it, and how long that takes."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from gateware.device.memory import Ram
from gateware.link.frames import loader_ports, stream_of
from pvq_hw.host.protocol import WireFormat

__all__ = ["MEASURED", "Meter", "RepeatLoader"]

# Byte by byte the payload of a MEASURED, `pvq_hw.host.protocol.Measurement`.
MEASURED = data.StructLayout({"further": 16, "cycles": 32, "total": 16, "weighted": 16})

_AHEAD = 4  # activations read before they are taken: a read takes as many cycles to come back


class RepeatLoader(wiring.Component):
    """A `gateware.link.frames.FrameLoader` that gives an activation a cycle, and a frame several
    times, without a pause between.

    Parameters
    ----------
    tensor : WireFormat
    body : str
        Of the buffer, see `gateware.device.bodies.bodies`.

    Members
    -------
    write, address, data, blocked, start, ticket, busy, tickets, o
        As those of a `FrameLoader`.
    again : In(1)
        With ``start``: no ticket, and ``further`` frames more.
    further : Out(16)
        The two bytes behind the frame's, low byte first; kept while `hold`.
    hold : In(1)
    """

    def __init__(self, tensor: WireFormat, body: str = "behavioral") -> None:
        self._tensor = tensor
        self._body = body
        super().__init__(
            loader_ports(tensor)
            | {
                "again": In(1),
                "further": Out(16),
                "hold": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth, wide = self._tensor.count, self._tensor.value_bytes
        m.submodules.buffer = buffer = Ram(8 * wide, depth, latency=2, body=self._body)
        m.submodules.ahead = ahead = SyncFIFO(width=8 * wide, depth=_AHEAD)
        # The next activation to be read.
        position = Signal(range(depth + 1))
        self._write(m, buffer, position)
        idle, ticket, run = Signal(init=1), Signal(), Signal()
        left, more = Signal(16), Signal()
        under_way, coming, ended = Signal(range(_AHEAD + 1)), Signal(2), Signal()
        issue, moved = Signal(), Signal()
        m.d.comb += [
            self.busy.eq(~idle),
            self.tickets.valid.eq(ticket),
            issue.eq(run & ~under_way[-1] & ~ended),
            moved.eq(self.o.valid & self.o.ready),
            buffer.r_addr.eq(position),
            ahead.w_data.eq(buffer.r_data),
            ahead.w_en.eq(coming[-1]),
            ahead.r_en.eq(self.o.ready),
            self.o.valid.eq(ahead.r_rdy),
            Value.cast(self.o.payload).eq(ahead.r_data),
        ]
        last = position == depth - 1
        over = run & ended & (under_way == 0)
        m.d.sync += [
            idle.eq((idle & ~self.start) | over),
            ticket.eq((idle & self.start & ~self.again) | (ticket & ~self.tickets.ready)),
            run.eq(
                (idle & self.start & self.again) | (ticket & self.tickets.ready) | (run & ~over)
            ),
            under_way.eq(under_way + issue - moved),
            coming.eq(Cat(issue, coming)[:2]),
        ]
        with m.If(idle):
            m.d.sync += [
                position.eq(0),
                ended.eq(0),
                self.tickets.payload.eq(self.ticket),
                left.eq(Mux(self.again, self.further, 0)),
                more.eq(self.again & (self.further != 0)),
            ]
        with m.Elif(issue):
            m.d.sync += position.eq(Mux(last & more, 0, position + 1))
            with m.If(last):
                m.d.sync += [left.eq(left - 1), more.eq(more & (left != 1)), ended.eq(~more)]
        m.d.sync += self.blocked.eq(self.busy & (more | ((self.address >> (wide - 1)) >= position)))
        return m

    def _write(self, m: Module, buffer: Ram, position: Signal) -> None:
        """Bytes become activations in the buffer; those behind the frame say how often."""
        depth, wide = self._tensor.frame_bytes, self._tensor.value_bytes
        inside, beyond, low = Signal(), Signal(2), Signal(8)
        m.d.sync += [
            inside.eq(self.address < depth),
            *(beyond[n].eq(self.address == depth + n) for n in range(2)),
        ]
        m.d.comb += buffer.w_addr.eq(self.address >> (wide - 1))
        whole: Value = self.address[0] if wide == 2 else inside
        m.d.comb += [
            buffer.w_data.eq(Cat(low, self.data) if wide == 2 else self.data),
            buffer.w_en.eq(self.write & inside & whole & ~self.blocked),
        ]
        with m.If(self.write):
            m.d.sync += low.eq(self.data)
            for n in range(2):
                with m.If(beyond[n] & ~self.busy & ~self.hold):
                    m.d.sync += self.further.word_select(n, 8).eq(self.data)


class Meter(wiring.Component):
    """Takes the outputs of frames that are run again and again, and measures.

    Parameters
    ----------
    tensor : WireFormat
        Of the outputs.

    Members
    -------
    start : In(1), further : In(16)
        High for one cycle: measure ``further + 1`` frames, which must hold.
    entered : In(1)
        An activation goes into the accelerator.
    i : In(`gateware.link.frames.stream_of` tensor)
        The outputs, one a cycle.
    active : Out(1)
        From ``start`` to ``done``.
    done : Out(1)
        Strobe.
    measured : Out(MEASURED)
        ``cycles`` from the first activation's transfer to the last output's, modulo 2**32;
        ``total`` and ``weighted`` are `pvq_hw.host.protocol.output_sums`. It holds until the next
        start.
    """

    def __init__(self, tensor: WireFormat) -> None:
        self._tensor = tensor
        super().__init__(
            {
                "start": In(1),
                "further": In(16),
                "entered": In(1),
                "i": In(stream_of(tensor)),
                "active": Out(1),
                "done": Out(1),
                "measured": Out(MEASURED),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = Shape(self._tensor.format.bits, self._tensor.format.signed)
        measured: Any = self.measured
        # What is counted is a cycle old, so that nothing hangs on the handshakes.
        entered, moved, added, value = Signal(), Signal(), Signal(), Signal(form)
        running, final, ended = Signal(), Signal(), Signal(2)
        place = Signal(range(self._tensor.count))
        low = Signal(17)  # and its carry
        high = Signal(16)
        last = place == self._tensor.count - 1
        m.d.comb += [
            self.i.ready.eq(self.active),
            final.eq(moved & last & (measured.further == self.further)),
            measured.cycles.eq(Cat(low[:16], high)),
            self.done.eq(ended[-1]),
        ]
        m.d.sync += [
            entered.eq(self.entered & self.active),
            moved.eq(self.i.valid & self.active),
            value.eq(self.i.payload[0]),
            added.eq(moved),
            running.eq((running | entered) & ~final),
            ended.eq(Cat(final, ended)[:2]),
            self.active.eq(self.start | (self.active & ~self.done)),
            low.eq(low[:16] + running),
            high.eq(high + low[16]),
        ]
        with m.If(moved):
            m.d.sync += [
                place.eq(Mux(last, 0, place + 1)),
                measured.further.eq(measured.further + (last & ~final)),
                measured.total.eq(measured.total + value),
            ]
        with m.If(added):
            m.d.sync += measured.weighted.eq(measured.weighted + measured.total)
        with m.If(self.start):
            m.d.sync += [measured[key].eq(0) for key in ("further", "total", "weighted")]
            m.d.sync += [low.eq(0), high.eq(0)]
        return m
