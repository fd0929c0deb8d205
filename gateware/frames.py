"""Frames from the packets to the accelerator, and its results back to packets."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.memory import Ram
from gateware.packet import PACKETS
from pvq_hw.protocol import TOP_BYTES, Kind, WireFormat

__all__ = ["TICKET", "FrameLoader", "ResultSender", "stream_of"]

# What a frame in the accelerator needs for its reply.
TICKET = data.StructLayout({"tag": 8, "top": 1})


def stream_of(tensor: WireFormat) -> stream.Signature:
    """The accelerator's stream for a tensor: one activation per transfer."""
    shape = Shape(tensor.format.bits, tensor.format.signed)
    return stream.Signature(data.ArrayLayout(shape, 1))


class FrameLoader(wiring.Component):
    """Buffers one frame and, once told that it is whole and right, hands it to the accelerator.

    A byte takes 4 cycles, far less than the line needs for one. The next frame may come in behind
    the reader: `blocked` says that the byte to be written is still unread.

    Parameters
    ----------
    tensor : WireFormat
    body : str
        Of the buffer, see `gateware.memory.MEMORY_BODIES`.

    Members
    -------
    write, address, data : In
        A payload byte; addresses past the frame are ignored. ``address`` must be steady for a cycle
        before ``write``.
    blocked : Out(1)
        The byte at ``address``, as it was one cycle ago, is still unread.
    start : In(1), ticket : In(TICKET)
        High for one cycle: hand the frame over. Only while not busy.
    busy : Out(1)
    tickets : Out(stream of TICKET)
        Goes out before the frame's first activation.
    o : Out(`stream_of` tensor)
    """

    def __init__(self, tensor: WireFormat, body: str = "behavioral") -> None:
        self._tensor = tensor
        self._body = body
        super().__init__(
            {
                "write": In(1),
                "address": In(16),
                "data": In(8),
                "blocked": Out(1),
                "start": In(1),
                "ticket": In(TICKET),
                "busy": Out(1),
                "tickets": Out(stream.Signature(TICKET)),
                "o": Out(stream_of(tensor)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth, wide = self._tensor.frame_bytes, self._tensor.value_bytes
        m.submodules.buffer = buffer = Ram(8, depth, latency=2, body=self._body)
        position = Signal(range(depth + 1))
        inside = Signal()
        activation = Signal(8 * wide)
        m.d.sync += [
            inside.eq(self.address < depth),
            self.blocked.eq(self.busy & (self.address >= position)),
        ]
        m.d.comb += [
            buffer.w_addr.eq(self.address),
            buffer.w_data.eq(self.data),
            buffer.w_en.eq(self.write & inside & ~self.blocked),
            buffer.r_addr.eq(position),
            Value.cast(self.o.payload).eq(activation),
        ]
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [position.eq(0), self.tickets.payload.eq(self.ticket)]
                with m.If(self.start):
                    m.next = "TICKET"
            with m.State("TICKET"):
                m.d.comb += self.tickets.valid.eq(1)
                with m.If(self.tickets.ready):
                    m.next = "READ_0"
            for index in range(wide):
                with m.State(f"READ_{index}"):
                    m.next = f"WAIT_{index}"
                with m.State(f"WAIT_{index}"):
                    m.next = f"KEEP_{index}"
                with m.State(f"KEEP_{index}"):
                    m.d.sync += [
                        activation[8 * index : 8 * index + 8].eq(buffer.r_data),
                        position.eq(position + 1),
                    ]
                    m.next = "SEND" if index == wide - 1 else f"READ_{index + 1}"
            with m.State("SEND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "READ_0"
                    with m.If(position == depth):
                        m.next = "IDLE"
        return m


class ResultSender(wiring.Component):
    """Makes a reply of each frame's outputs: all of them, or the index and value of the largest.

    Of equal outputs the first counts. Takes an output every 3 cycles at most, and not before the
    line takes it, when all of them are sent.

    Parameters
    ----------
    tensor : WireFormat

    Members
    -------
    i : In(`stream_of` tensor)
    tickets : In(stream of TICKET)
    busy : Out(1)
        A frame's results are awaited or being sent.
    packets : Out(PACKETS)
    """

    def __init__(self, tensor: WireFormat) -> None:
        self._tensor = tensor
        super().__init__(
            {
                "i": In(stream_of(tensor)),
                "tickets": In(stream.Signature(TICKET)),
                "busy": Out(1),
                "packets": Out(PACKETS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        head, body = self.packets.head, self.packets.body
        ticket = Signal(TICKET)
        m.d.comb += [
            head.payload.kind.eq(Mux(ticket.top, Kind.TOP, Kind.RESULTS)),
            head.payload.tag.eq(ticket.tag),
            head.payload.length.eq(Mux(ticket.top, TOP_BYTES, self._tensor.frame_bytes)),
        ]
        index, value = (
            Signal(16),
            Signal(Shape(self._tensor.format.bits, self._tensor.format.signed)),
        )
        place = Signal(2)
        with m.FSM() as fsm:
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.comb += self.tickets.ready.eq(1)
                m.d.sync += [place.eq(0), ticket.eq(self.tickets.payload)]
                with m.If(self.tickets.valid):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                # No header before the first output: errors may overtake until then.
                with m.If(ticket.top):
                    m.next = "FIRST"
                with m.Elif(self.i.valid):
                    m.next = "ALL"
            with m.State("ALL"):
                m.d.comb += head.valid.eq(1)
                self._stream_values(m, place)
                with m.If(head.ready):
                    m.next = "IDLE"
            self._find_top(m, index, value)
            with m.State("TOP"):
                wide = Signal(Shape(16, self._tensor.format.signed))
                m.d.comb += [
                    wide.eq(value),
                    head.valid.eq(1),
                    body.valid.eq(1),
                    body.payload.eq(Cat(index, wide).word_select(place, 8)),
                ]
                with m.If(body.ready):
                    m.d.sync += place.eq(place + 1)
                with m.If(head.ready):
                    m.next = "IDLE"
        return m

    def _stream_values(self, m: Module, place: Signal) -> None:
        """Passes outputs on, sign-extended to bytes, low byte first."""
        body, wide = self.packets.body, self._tensor.value_bytes
        extended = Signal(Shape(8 * wide, self._tensor.format.signed))
        m.d.comb += [
            extended.eq(self.i.payload[0]),
            body.valid.eq(self.i.valid),
            body.payload.eq(extended.as_unsigned().word_select(place[: wide - 1], 8)),
            self.i.ready.eq(body.ready & (place == wide - 1)),
        ]
        with m.If(body.valid & body.ready):
            m.d.sync += place.eq(Mux(place == wide - 1, 0, place + 1))

    def _find_top(self, m: Module, index: Signal, value: Signal) -> None:
        """States FIRST to KEEP: the largest of all outputs, one in 3 cycles."""
        # Binary activations compare as they are: +1 is 0, -1 is -1.
        count = self._tensor.count
        candidate, larger = Signal.like(value), Signal()
        seen = Signal(16)
        with m.State("FIRST"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [index.eq(0), seen.eq(1), value.eq(self.i.payload[0])]
            with m.If(self.i.valid):
                m.next = "TOP" if count == 1 else "NEXT"
        with m.State("NEXT"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += candidate.eq(self.i.payload[0])
            with m.If(self.i.valid):
                m.next = "COMPARE"
        with m.State("COMPARE"):
            m.d.sync += larger.eq(candidate > value)
            m.next = "KEEP"
        with m.State("KEEP"):
            with m.If(larger):
                m.d.sync += [index.eq(seen), value.eq(candidate)]
            m.d.sync += seen.eq(seen + 1)
            m.next = "NEXT"
            with m.If(seen == count - 1):
                m.next = "TOP"
