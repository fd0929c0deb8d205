"""Packets out of bytes and bytes out of packets; the format is `pvq_hw.protocol`'s."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.crc import make_crc16
from pvq_hw.protocol import MAGIC

__all__ = ["HEADER", "PACKETS", "PacketMux", "PacketReceiver", "PacketTransmitter"]

HEADER = data.StructLayout({"kind": 8, "tag": 8, "length": 16})

PACKETS = wiring.Signature(
    {
        # Held until the whole packet is sent: its transfer is the end of the packet.
        "head": Out(stream.Signature(HEADER)),
        # The payload; exactly `length` bytes are taken.
        "body": Out(stream.Signature(8)),
    }
)


class PacketReceiver(wiring.Component):
    """Takes bytes apart into packets and checks them.

    Outside a packet it hunts for the magic. A packet under way in which no byte comes for the idle
    time-out is given up, which puts both ends in step again. Bytes must be at least 3 cycles apart.

    Parameters
    ----------
    idle_clocks : int
        The time-out is the next power of two, in cycles.

    Members
    -------
    i : In(stream of 8 bits), always ready
    header : Out(HEADER)
        Of the packet under way; it holds until the next packet's magic.
    write, address, data : Out
        Payload bytes as they come: ``data`` is byte ``address`` while ``write``.
    done, good : Out(1)
        ``done`` is high for one cycle after each whole packet; then ``good`` says if its CRC fits.
    truncated : Out(1)
        High for one cycle when a packet was given up after its magic.
    active : Out(1)
        A packet is under way.
    """

    def __init__(self, idle_clocks: int) -> None:
        self._idle_bits = max(4, (idle_clocks - 1).bit_length())
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "header": Out(HEADER),
                "write": Out(1),
                "address": Out(16),
                "data": Out(8),
                "done": Out(1),
                "good": Out(1),
                "truncated": Out(1),
                "active": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = make_crc16()
        byte, arrived, first, second = Signal(8), Signal(), Signal(), Signal()
        expired = self._idle_timer(m)
        complete = Signal()
        m.d.sync += [
            arrived.eq(self.i.valid),
            byte.eq(self.i.payload),
            first.eq(self.i.payload == MAGIC[0]),
            second.eq(self.i.payload == MAGIC[1]),
            complete.eq(self.address == self.header.length),
            self.good.eq(crc.match_detected),
        ]
        m.d.comb += [crc.data.eq(byte), crc.valid.eq(arrived), self.data.eq(byte)]

        with m.FSM():
            with m.State("HUNT"):
                m.d.comb += crc.start.eq(1)
                with m.If(arrived & first):
                    m.next = "MAGIC"
            with m.State("MAGIC"):
                m.d.comb += [crc.start.eq(1), crc.valid.eq(0)]
                with m.If(arrived & second):
                    m.d.sync += [self.header.eq(0), self.address.eq(0)]
                    m.next = "KIND"
                with m.Elif(expired | (arrived & ~first)):
                    m.next = "HUNT"
            fields = (
                ("KIND", "TAG", self.header.kind),
                ("TAG", "LENGTH", self.header.tag),
                ("LENGTH", "LENGTH_HIGH", self.header.length[:8]),
                ("LENGTH_HIGH", "PAYLOAD", self.header.length[8:]),
            )
            for state, following, field in fields:
                with m.State(state):
                    self._give_up_if(m, expired)
                    with m.If(arrived):
                        m.d.sync += field.eq(byte)
                        m.next = following
            with m.State("PAYLOAD"):
                self._give_up_if(m, expired)
                with m.If(arrived & complete):
                    m.next = "CRC"
                with m.Elif(arrived):
                    m.d.comb += self.write.eq(1)
                    m.d.sync += self.address.eq(self.address + 1)
            with m.State("CRC"):
                self._give_up_if(m, expired)
                with m.If(arrived):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "HUNT"
        return m

    def _give_up_if(self, m: Module, expired: Signal) -> None:
        m.d.comb += self.active.eq(1)
        with m.If(expired):
            m.d.comb += self.truncated.eq(1)
            m.next = "HUNT"

    def _idle_timer(self, m: Module) -> Signal:
        count = Signal(self._idle_bits + 1)
        with m.If(self.i.valid | count[-1]):
            m.d.sync += count.eq(0)
        with m.Else():
            m.d.sync += count.eq(count + 1)
        # A byte that comes in the same cycle as the time-out begins something new.
        return count[-1]


class PacketTransmitter(wiring.Component):
    """Makes the bytes of packets: magic, header, payload, CRC. At most one byte in 3 cycles.

    Members
    -------
    i : In(PACKETS)
        ``head`` is taken with the last byte.
    o : Out(stream of 8 bits)
        From registers.
    """

    def __init__(self) -> None:
        super().__init__({"i": In(PACKETS), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = make_crc16()
        head, body, o = self.i.head, self.i.body, self.o
        left = Signal(16)
        empty, covered, asking = Signal(), Signal(), Signal()
        m.d.sync += empty.eq(left == 0)
        m.d.comb += [
            body.ready.eq(asking),
            crc.data.eq(o.payload),
            crc.valid.eq(covered & o.valid & o.ready),
        ]
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)

        def give(state: str, following: str, value: Any, cover: bool) -> None:
            with m.State(state), m.If(~o.valid):
                m.d.sync += [o.valid.eq(1), o.payload.eq(value), covered.eq(cover)]
                m.next = following

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += left.eq(head.payload.length)
                with m.If(head.valid):
                    m.next = "MAGIC_0"
            give("MAGIC_0", "MAGIC_1", MAGIC[0], False)
            give("MAGIC_1", "KIND", MAGIC[1], False)
            give("KIND", "TAG", head.payload.kind, True)
            give("TAG", "LENGTH_0", head.payload.tag, True)
            give("LENGTH_0", "LENGTH_1", head.payload.length[:8], True)
            give("LENGTH_1", "PAYLOAD", head.payload.length[8:], True)
            with m.State("PAYLOAD"):
                with m.If(asking & body.valid):
                    m.d.sync += [o.valid.eq(1), left.eq(left - 1), asking.eq(0)]
                with m.Elif(~asking & ~o.valid):
                    # `empty` is a cycle behind `left`, and so is this state behind each byte.
                    m.d.sync += asking.eq(~empty)
                    with m.If(empty):
                        m.next = "CRC_0"
                with m.If(asking):
                    m.d.sync += [o.payload.eq(body.payload), covered.eq(1)]
            give("CRC_0", "CRC_1", crc.crc[8:], False)
            give("CRC_1", "END", crc.crc[:8], False)
            with m.State("END"), m.If(~o.valid):
                m.d.comb += head.ready.eq(1)
                m.next = "IDLE"
        return m


class PacketMux(wiring.Component):
    """Lets one of two sources send at a time, whole packets each; both waiting, ``a`` goes first.

    Members
    -------
    a, b : In(PACKETS)
    o : Out(PACKETS)
    """

    def __init__(self) -> None:
        super().__init__({"a": In(PACKETS), "b": In(PACKETS), "o": Out(PACKETS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        chosen = Signal()
        busy = Signal()
        sources: Sequence[Any] = (self.a, self.b)
        with m.If(~busy):
            m.d.sync += [
                chosen.eq(~self.a.head.valid),
                busy.eq(self.a.head.valid | self.b.head.valid),
            ]
        with m.Elif(self.o.head.ready):
            m.d.sync += busy.eq(0)
        for index, source in enumerate(sources):
            with m.If(chosen == index):
                m.d.comb += [
                    self.o.head.valid.eq(busy),
                    self.o.head.payload.eq(source.head.payload),
                    self.o.body.valid.eq(busy & source.body.valid),
                    self.o.body.payload.eq(source.body.payload),
                    source.head.ready.eq(busy & self.o.head.ready),
                    source.body.ready.eq(busy & self.o.body.ready),
                ]
        return m
