"""Replies that don't come from the accelerator: description, counters, codes and errors."""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.device.live import LiveBus
from gateware.device.memory import Rom
from gateware.link.packet import PACKETS
from gateware.link.repeat import MEASURED
from pvq_hw.host.code_state import CodeStatus
from pvq_hw.host.protocol import (
    DESCRIPTION_ROM,
    ERROR_BYTES,
    Counters,
    Description,
    Measurement,
)

__all__ = ["CODES", "COUNTERS", "REQUEST", "ControlReplies"]

# Byte by byte the payload of a COUNTERS, `pvq_hw.host.protocol.Counters`.
COUNTERS = data.StructLayout(
    {"frames": 16, "bad_crc": 16, "overruns": 16, "truncated": 16, "framing_errors": 16}
)

# Byte by byte the payload of a CODES, `pvq_hw.host.code_state.CodeStatus`.
CODES = data.StructLayout({"state": 8, "crc": 32})

# `kind` is the reply's; `code` and `offender`, the kind of the refused packet, are an ERROR's.
REQUEST = data.StructLayout({"kind": 8, "tag": 8, "code": 8, "offender": 8})


class ControlReplies(wiring.Component):
    """Sends one reply at a time.

    Parameters
    ----------
    description : Description
    stored : bool
        Whether it is read from block RAM: it names the network, so that other weights change it.
    body : str
        Of that, see `gateware.device.bodies.bodies`.
    live : LiveBus, optional
        Over which it is loaded.

    Members
    -------
    start : In(1), request : In(REQUEST)
        High for one cycle: send this. Ignored while busy.
    busy : Out(1)
    counters : In(COUNTERS)
    codes : In(CODES)
        Left alone where no codes are loaded.
    measured : In(MEASURED)
        Left alone where nothing is measured.
    packets : Out(PACKETS)
    """

    def __init__(
        self,
        description: Description,
        *,
        stored: bool = False,
        body: str = "behavioral",
        live: LiveBus | None = None,
    ) -> None:
        self._rom, self._stored, self._body = description.encode(), stored or bool(live), body
        self._live, self._measures = live, description.measures
        super().__init__(
            {
                "start": In(1),
                "request": In(REQUEST),
                "busy": Out(1),
                "counters": In(COUNTERS),
                "codes": In(CODES),
                "measured": In(MEASURED),
                "packets": Out(PACKETS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        head, body = self.packets.head, self.packets.body
        pending = Signal(REQUEST)
        place = Signal(range(max(len(self._rom), Counters.SIZE) + 1))
        length, byte = self._choose(m, pending, place)
        with m.If(~self.busy):
            m.d.sync += [pending.eq(self.request), self.busy.eq(self.start), place.eq(0)]
        with m.Elif(head.ready):
            m.d.sync += self.busy.eq(0)
        # Byte and length are registered: a byte is offered in every third cycle at most, and where
        # the description is in block RAM in every fourth.
        settled = [Signal(name=f"settled{n}") for n in range(2 if self._stored else 1)]
        m.d.sync += [
            *(later.eq(now) for now, later in zip((self.busy, *settled), settled, strict=False)),
            body.payload.eq(byte),
            body.valid.eq(settled[-1]),
            head.payload.length.eq(length),
            head.valid.eq(self.busy & ~head.ready),
        ]
        with m.If(body.valid & body.ready):
            m.d.sync += [place.eq(place + 1), Cat(settled).eq(0), body.valid.eq(0)]
        m.d.comb += [head.payload.kind.eq(pending.kind), head.payload.tag.eq(pending.tag)]
        return m

    def _choose(self, m: Module, pending: Any, place: Signal) -> tuple[Signal, Signal]:
        """Length of the pending reply and the byte at ``place``."""
        length, byte, counted, loaded = Signal(16), Signal(8), Signal(8), Signal(8)
        described = self._memory(m, place) if self._stored else self._lines(m, place)
        m.d.sync += [
            counted.eq(Value.cast(self.counters).word_select(place[:4], 8)),
            loaded.eq(Value.cast(self.codes).word_select(place[:3], 8)),
        ]
        # Told apart by what differs: DESCRIPTION is 0x81, COUNTERS 0x84, MEASURED 0x85, CODES 0x90,
        # ERROR 0xFF.
        told, any_ = Cat(pending.kind[0], pending.kind[2]), ""
        if self._measures:
            told, any_ = Cat(told, pending.kind[5]), "-"
        with m.Switch(told):
            if self._measures:
                timed = Signal(8)
                m.d.sync += timed.eq(Value.cast(self.measured).word_select(place[:4], 8))
                with m.Case("011"):
                    m.d.comb += [length.eq(Measurement.SIZE), byte.eq(timed)]
            with m.Case(any_ + "01"):
                m.d.comb += [length.eq(len(self._rom)), byte.eq(described)]
            with m.Case(any_ + "10"):
                m.d.comb += [length.eq(Counters.SIZE), byte.eq(counted)]
            with m.Case(any_ + "00"):
                m.d.comb += [length.eq(CodeStatus.SIZE), byte.eq(loaded)]
            with m.Default():
                m.d.comb += length.eq(ERROR_BYTES)
                m.d.comb += byte.eq(Mux(place[0], pending.offender, pending.code))
        return length, byte

    def _memory(self, m: Module, place: Signal) -> Value:
        """Byte ``place`` of the description, two cycles later."""
        if self._live is not None:
            return self._loaded(m, place, self._live)
        m.submodules.description = rom = Rom(
            DESCRIPTION_ROM, 8, len(self._rom), list(self._rom), latency=2, body=self._body
        )
        m.d.comb += rom.addr.eq(place)
        return rom.data

    def _loaded(self, m: Module, place: Signal, live: LiveBus) -> Value:
        """The same out of words of several bytes."""
        memory, size = live.layout.memories[-1], live.layout.told_bytes
        m.submodules.description = rom = Rom(
            memory.name,
            memory.width,
            memory.depth,
            live.told,
            latency=2,
            body=self._body,
            live=live,
        )
        low = (size - 1).bit_length()
        m.d.comb += rom.addr.eq(place[low:])
        return rom.data.word_select(place[:low], 8)

    def _lines(self, m: Module, place: Signal) -> Value:
        """The same in logic, a cycle later: a LUT for each bit of 16 bytes, a register, and then
        the choice."""
        return Array(self._text(m, place, i) for i in range(0, len(self._rom), 16))[place[4:]]

    def _text(self, m: Module, place: Signal, start: int) -> Signal:
        """Byte ``place`` of the description's 16 bytes from ``start`` on, registered."""
        text, now = Signal(8, name=f"text{start}"), Signal(8, name=f"now{start}")
        with m.Switch(place[:4]):
            for index, value in enumerate(self._rom[start : start + 16]):
                with m.Case(index):
                    m.d.comb += now.eq(value)
        m.d.sync += text.eq(now)
        return text
