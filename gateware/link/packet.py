"""Packets out of bytes and bytes out of packets; the format is `pvq_hw.host.protocol`'s."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gateware.link.crc import Crc16
from pvq_hw.host.protocol import MAGIC, MAX_PAYLOAD

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
    time-out is given up, which puts both ends in step again. Bytes must be at least 4 cycles apart,
    and ``i.payload`` must hold each for 2 cycles more.

    Parameters
    ----------
    idle_clocks : int
        The time-out is the next power of two, in cycles, or up to a quarter more.

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
    tick : Out(1)
        High for one cycle in every quarter of the time-out.
    """

    def __init__(self, idle_clocks: int) -> None:
        self.idle_bits = max(4, (idle_clocks - 1).bit_length())
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
                "tick": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc16()
        arrived, first, second = Signal(), Signal(), Signal()
        expired = self._idle_timer(m)
        # One flip-flop for each thing that the next byte may be; hunting, `magic` says that the
        # first byte of the magic is there.
        names = ("magic", "kind", "tag", "low", "high", "payload", "check")
        magic, kind, tag, low, high, payload, check = (Signal(name=name) for name in names)
        start, complete, whole = Signal(), Signal(), Signal()
        same = Signal(4)
        m.d.sync += [
            arrived.eq(self.i.valid),
            first.eq(self.i.payload == MAGIC[0]),
            second.eq(self.i.payload == MAGIC[1]),
            *(
                same[i].eq(self.address.word_select(i, 4) == self.header.length.word_select(i, 4))
                for i in range(4)
            ),
            complete.eq(same.all()),
        ]
        m.d.sync += start.eq(arrived & magic & second)
        with m.If(expired):
            m.d.sync += [s.eq(0) for s in (magic, kind, tag, low, high, payload, check)]
            m.d.sync += self.active.eq(0)
        with m.Elif(arrived):
            m.d.sync += [
                magic.eq(~self.active & first),
                kind.eq(magic & second),
                tag.eq(kind),
                low.eq(tag),
                high.eq(low),
                payload.eq(high | (payload & ~complete)),
                check.eq(payload & complete),
                self.active.eq((magic & second) | (self.active & ~check)),
            ]
        m.d.comb += self.data.eq(self.i.payload)
        m.d.sync += [
            self.truncated.eq(expired & self.active),
            self.write.eq(arrived & payload & ~complete),
            # The CRC takes the last byte, then it is compared, then the verdict is out.
            whole.eq(arrived & check),
            self.done.eq(whole),
            self.good.eq(crc.crc == 0),
        ]
        m.d.comb += [crc.clear.eq(~self.active), crc.valid.eq(arrived), crc.data.eq(self.i.payload)]
        fields = self.header.kind, self.header.tag, self.header.length[:8], self.header.length[8:]
        with m.If(start):
            m.d.sync += [self.header.eq(0), self.address.eq(0)]
        with m.Else():
            for state, field in zip((kind, tag, low, high), fields, strict=True):
                with m.If(arrived & state):
                    m.d.sync += field.eq(self.i.payload)
            with m.If(self.write):
                m.d.sync += self.address.eq(self.address + 1)
        return m

    def _idle_timer(self, m: Module) -> Signal:
        """High when the quarters of the time-out that began since the last byte are 5."""
        # Two counters, the carry of one registered before it counts in the other.
        half = self.idle_bits // 2
        fine, coarse = Signal(half), Signal(self.idle_bits - half)
        quarters, expired = Signal(3), Signal()
        m.d.sync += [
            fine.eq(fine[:-1] + 1),
            coarse.eq(coarse[:-1] + fine[-1]),
        ]
        m.d.comb += [self.tick.eq(coarse[-1]), expired.eq(quarters[2] & quarters[0])]
        with m.If(self.i.valid | expired):
            m.d.sync += quarters.eq(0)
        with m.Elif(self.tick):
            m.d.sync += quarters.eq(quarters + 1)
        # A byte that comes in the same cycle as the time-out begins something new.
        return expired


class PacketTransmitter(wiring.Component):
    """Makes the bytes of packets: magic, header, payload, CRC. At most one byte in 5 cycles.

    Parameters
    ----------
    longest : int
        Of the packets' payloads, bytes.

    Members
    -------
    i : In(PACKETS)
        ``head`` is taken after the last byte.
    o : Out(stream of 8 bits)
        From registers.
    """

    def __init__(self, longest: int = MAX_PAYLOAD) -> None:
        self._longest = longest
        super().__init__({"i": In(PACKETS), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc16()
        head, body, o = self.i.head, self.i.body, self.o
        fields = head.payload
        # Steps 0 to 5 are magic and header, then the body's bytes, then twice the CRC's upper half.
        step = Signal(3)
        left = Signal(range(self._longest + 1))
        active, empty, asking, second, over = (Signal() for _ in range(5))
        sources = (
            *(Const(b, 8) for b in MAGIC),
            fields.kind,
            fields.tag,
            fields.length[:8],
            fields.length[8:],
            body.payload,
            crc.crc[8:],
        )
        # A byte that is taken goes into the CRC a cycle later; `go` is the turn of the next.
        taken, go, at_body, at_crc = (Signal() for _ in range(4))
        m.d.sync += [
            at_body.eq(step == 6),
            at_crc.eq(step == 7),
            empty.eq(left == 0),
            taken.eq(o.valid & o.ready),
            go.eq(~(o.valid | taken | go | asking)),
            head.ready.eq(go & over),
        ]
        m.d.comb += [
            body.ready.eq(asking),
            crc.data.eq(o.payload),
            crc.clear.eq(~active),
            crc.valid.eq((step[2] | step[:2].all()) & taken),
        ]
        with m.If(go | asking):
            m.d.sync += o.payload.eq(Array(sources)[step])
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(asking & body.valid):
            m.d.sync += [o.valid.eq(1), left.eq(left - 1), asking.eq(0)]
        with m.If(~active):
            m.d.sync += [active.eq(head.valid & ~head.ready), left.eq(fields.length), step.eq(0)]
            m.d.sync += [second.eq(0), over.eq(0)]
        with m.Elif(go):
            with m.If(over):
                m.d.sync += active.eq(0)
            with m.Elif(at_body):
                m.d.sync += [asking.eq(~empty), step[0].eq(empty)]
            with m.Else():
                m.d.sync += o.valid.eq(1)
                with m.If(at_crc):
                    m.d.sync += [second.eq(1), over.eq(second)]
                with m.Else():
                    m.d.sync += step.eq(step + 1)
        return m


class PacketMux(wiring.Component):
    """Lets one of two sources send at a time, whole packets each; both waiting, ``a`` goes first.

    Headers and bytes pass a register: a byte in 3 cycles at most, taken as soon as it is asked for.
    ``o.body.ready`` must hold until a byte comes.

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
        head, body = self.o.head, self.o.body
        with m.If(~busy):
            m.d.sync += [
                chosen.eq(~self.a.head.valid),
                busy.eq(self.a.head.valid | self.b.head.valid),
            ]
        with m.Elif(head.ready & head.valid):
            m.d.sync += busy.eq(0)
        m.d.sync += head.valid.eq(busy & ~(head.ready & head.valid))
        m.d.sync += body.valid.eq(0)
        for index, source in enumerate(sources):
            # A byte is fetched once the other end asks for it: none beyond the packet's.
            fetch, mine = source.body.ready, busy & (chosen == index)
            arrives = fetch & source.body.valid
            m.d.comb += source.head.ready.eq(mine & head.ready & head.valid)
            m.d.sync += fetch.eq(mine & body.ready & ~body.valid & ~arrives)
            with m.If(arrives):
                m.d.sync += body.valid.eq(1)
            with m.If(chosen == index):
                m.d.sync += [
                    head.payload.eq(source.head.payload),
                    body.payload.eq(source.body.payload),
                ]
        return m
