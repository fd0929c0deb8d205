"""Frames from the packets to the accelerator, and its results back to packets."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.device.memory import Ram
from gateware.link.packet import PACKETS
from pvq_hw.host.protocol import TOP_BYTES, Kind, WireFormat

__all__ = ["TICKET", "FrameLoader", "ResultSender", "loader_ports", "stream_of"]

# What a frame in the accelerator needs for its reply.
TICKET = data.StructLayout({"tag": 8, "top": 1})


def stream_of(tensor: WireFormat) -> stream.Signature:
    """The accelerator's stream for a tensor: one activation per transfer."""
    shape = Shape(tensor.format.bits, tensor.format.signed)
    return stream.Signature(data.ArrayLayout(shape, 1))


def loader_ports(tensor: WireFormat) -> dict[str, Any]:
    """Members of what takes a frame's bytes and hands its activations over, see `FrameLoader`."""
    return {
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


class FrameLoader(wiring.Component):
    """Buffers one frame and, once told that it is whole and right, hands it to the accelerator.

    A byte takes 4 cycles, far less than the line needs for one. The next frame may come in behind
    the reader: `blocked` says that the byte to be written is still unread.

    Parameters
    ----------
    tensor : WireFormat
    body : str
        Of the buffer, see `gateware.device.bodies.bodies`.

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
        super().__init__(loader_ports(tensor))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth, wide = self._tensor.frame_bytes, self._tensor.value_bytes
        m.submodules.buffer = buffer = Ram(8, depth, latency=2, body=self._body)
        position = Signal(range(depth + 1))
        inside = Signal()
        activation = Signal(8 * wide)
        # Addresses that need more bits than `position` are of no frame, blocked or not.
        low, high = self.address[: len(position)], self.address[len(position) :]
        m.d.sync += [
            inside.eq((low < depth) & ~high.any()),
            self.blocked.eq(self.busy & (low >= position)),
        ]
        m.d.comb += [
            buffer.w_addr.eq(self.address),
            buffer.w_data.eq(self.data),
            buffer.w_en.eq(self.write & inside & ~self.blocked),
            buffer.r_addr.eq(position),
            Value.cast(self.o.payload).eq(activation),
        ]
        # The steps of a byte, one flip-flop each.
        idle, ticket, read, wait, keep, send = (Signal(init=i == 0) for i in range(6))
        # Whether the activation has a byte to come, and whether it is the frame's last.
        more, last = Signal(), Signal()
        here = send & self.o.ready
        m.d.comb += [
            self.busy.eq(~idle),
            self.tickets.valid.eq(ticket),
            self.o.valid.eq(send),
            more.eq((position[0] == 0) if wide == 2 else 0),
        ]
        m.d.sync += [
            idle.eq((idle & ~self.start) | (here & last)),
            ticket.eq((idle & self.start) | (ticket & ~self.tickets.ready)),
            read.eq((ticket & self.tickets.ready) | (here & ~last) | (keep & more)),
            wait.eq(read),
            keep.eq(wait),
            send.eq((keep & ~more) | (send & ~self.o.ready)),
        ]
        with m.If(idle):
            m.d.sync += [position.eq(0), self.tickets.payload.eq(self.ticket)]
        with m.If(keep):
            m.d.sync += [
                activation.eq(Cat(activation, buffer.r_data)[8:]),
                position.eq(position + 1),
                last.eq(position == depth - 1),
            ]
        return m


class ResultSender(wiring.Component):
    """Makes a reply of each frame's outputs: all of them, or the index and value of the largest.

    Of equal outputs the first counts. Takes an output every 3 cycles at most; when all of them are
    sent, not before the one before is on the line.

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
        count = self._tensor.count
        form = Shape(self._tensor.format.bits, self._tensor.format.signed)
        ticket = Signal(TICKET)
        # The output at hand, and the one to be sent: the largest so far, or just the last.
        candidate, value = (Signal(form) for _ in range(2))
        index, seen = (Signal(max(1, (count - 1).bit_length())) for _ in range(2))
        first, last, larger = Signal(), Signal(), Signal()
        # Bytes 0 and 1 are those of the index, 2 and 3 those of the value, sign-extended.
        place = Signal(2)
        final = Mux(ticket.top, 3, 1 + self._tensor.value_bytes)
        # The steps of an output, one flip-flop each, and whether the packet has begun.
        idle, taking, compare, keep, send, sent = (Signal(init=i == 0) for i in range(6))
        begun = Signal()
        wide = Signal(Shape(16, form.signed))
        m.d.comb += [
            head.payload.kind.eq(Mux(ticket.top, Kind.TOP, Kind.RESULTS)),
            head.payload.tag.eq(ticket.tag),
            head.payload.length.eq(Mux(ticket.top, TOP_BYTES, self._tensor.frame_bytes)),
            self.busy.eq(~idle),
            self.tickets.ready.eq(idle),
            # No header before the first output: errors may overtake until then.
            head.valid.eq(begun),
            body.valid.eq(send),
            self.i.ready.eq(taking),
            wide.eq(value),
            body.payload.eq(Cat(index, Const(0, 16 - len(index)), wide).word_select(place, 8)),
        ]
        whole = send & body.ready & (place == final)
        m.d.sync += [
            idle.eq((idle & ~self.tickets.valid) | (sent & head.ready)),
            taking.eq(
                (idle & self.tickets.valid)
                | (taking & ~self.i.valid)
                | (keep & ticket.top & ~last)
                | (whole & ~last)
            ),
            compare.eq(taking & self.i.valid),
            keep.eq(compare),
            send.eq((keep & (last | ~ticket.top)) | (send & ~whole)),
            sent.eq((whole & last) | (sent & ~head.ready)),
            begun.eq(send | (begun & ~head.ready)),
        ]
        with m.If(idle):
            m.d.sync += [ticket.eq(self.tickets.payload), seen.eq(0), first.eq(1)]
        with m.If(taking):
            m.d.sync += candidate.eq(self.i.payload[0])
        # A subtraction is one carry chain; binary activations compare as they are: +1 is 0, -1 -1.
        difference = Signal(Shape(form.width + 1, signed=True))
        m.d.comb += difference.eq(value - candidate)
        with m.If(compare):
            m.d.sync += [
                larger.eq(difference[-1] | first | ~ticket.top),
                last.eq(seen == count - 1),
            ]
        with m.If(keep):
            m.d.sync += [first.eq(0), seen.eq(seen + 1), place.eq(Mux(ticket.top, 0, 2))]
            with m.If(larger):
                m.d.sync += [index.eq(seen), value.eq(candidate)]
        with m.If(send & body.ready):
            m.d.sync += place.eq(place + 1)
        return m
