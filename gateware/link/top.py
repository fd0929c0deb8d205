"""The host link around an accelerator: from its pins to its streams and back."""

import math
from typing import Any, NamedTuple

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from gateware.device.live import LiveBus
from gateware.link.code_control import CodeControl, StreamControl
from gateware.link.control import COUNTERS, ControlReplies
from gateware.link.decision_pins import DecisionPins
from gateware.link.flash import FLASH_PINS, WAKE_SECONDS
from gateware.link.frames import TICKET, FrameLoader, ResultSender
from gateware.link.packet import PacketMux, PacketReceiver, PacketTransmitter
from gateware.link.repeat import Meter, RepeatLoader
from gateware.link.spi import SPI_PINS, SpiPeripheral
from gateware.link.uart import UartReceiver, UartTransmitter
from gateware.units.converter import ConverterUnit, Gatherer
from pvq_hw.choices import LINKS, SPI, UART, check_choice
from pvq_hw.engine.spram_image import FLASH_OFFSET
from pvq_hw.engine.units import link_converters
from pvq_hw.host.description import WINDOW, describe_board
from pvq_hw.host.protocol import (
    REPEAT_BYTES,
    TOP_BYTES,
    Counters,
    Description,
    ErrorCode,
    Kind,
    Measurement,
    WireFormat,
)
from pvq_hw.target.baud import BaudTiming
from pvq_hw.target.boards import Target, get_target

__all__ = ["IDLE_SECONDS", "Top", "make_top"]

IDLE_SECONDS = 0.05  # longer than the gaps that a USB adapter and a busy host leave


class _Repeats(NamedTuple):
    """REPEAT: whether the packet is one and has its length, and whether there is no room for it;
    from its start to its end; when its reply goes to be sent, when it is there, and its tag."""

    mine: Value
    sized: Value
    crowded: Value
    active: Value
    give: Value
    given: Value
    tag: Value


class _Line(NamedTuple):
    """Streams of bytes to the host and from it."""

    i: Any
    o: Any


_NO_REPEATS = _Repeats(*(Const(0, 1) for _ in _Repeats._fields))


class Top(wiring.Component):
    """Frames in packets over a serial line or SPI, through an accelerator, replies back.

    A request is checked whole before anything of it reaches the accelerator. Requests that are not
    right, and frames that come before there is room, are answered by an ERROR with a code. Results
    leave in the order of their frames; errors, counters and descriptions may overtake them.

    One frame is buffered. A host that keeps to the window never overruns an accelerator which is
    faster than the line, or which takes a frame while it computes another; `overruns` counts frames
    refused for want of room, and replies dropped because another was still being sent.

    Parameters
    ----------
    accelerator : Component
        With streams ``i`` and ``o`` of activations of the tensors, one or several a transfer,
        nothing else.
    description : Description
        Clock, baud rate, tensors, window and identity; and whether it measures, which takes a
        `gateware.link.repeat.Meter`.
    idle_clocks : int
        Time-out of a packet under way in which no byte comes, cycles (the next power of two).
    body : str
        Of the frame buffer, see `gateware.device.bodies.bodies`.
    codes_crc : int, optional
        CRC-32 of the codes that an accelerator with a port ``codes`` is loaded with, from the
        flash or by the host, or that one with a port ``flash`` reads. Until they are right, frames
        are refused.
    flash_offset : int
        Of the codes' file.
    stored : bool
        Whether the description is in block RAM, as what an update of the weights may change.
    live : LiveBus, optional
        Over which the accelerator's memories and the description are loaded by the host. While
        there is no bank in service, frames and DESCRIBE are refused.
    decision : (int, bool), optional
        Pins that show what the accelerator decides, and whether that is a place; see
        `gateware.link.decision_pins.DecisionPins`.
    link : str
        One of `pvq_hw.choices.LINKS`.

    Members
    -------
    rx, tx : In(1), Out(1), where the link is a UART
        The serial line, 8N1, high when idle; ``rx`` may be asynchronous.
    spi : In(`gateware.link.spi.SPI_PINS`), where it is SPI
    busy : Out(1)
        A packet comes in or a frame is in the accelerator.
    heartbeat : Out(1)
        Blinks at 0.5 to 1 Hz.
    flash : Out(`gateware.link.flash.FLASH_PINS`), only where codes are loaded; where they come
        from the flash for every frame, the accelerator's
    decision : Out(pins), only where there are any

    Attributes
    ----------
    description, link
    timing : BaudTiming, where the link is a UART
    """

    def __init__(
        self,
        accelerator: Any,
        description: Description,
        idle_clocks: int,
        *,
        body: str = "behavioral",
        codes_crc: int | None = None,
        flash_offset: int = FLASH_OFFSET,
        stored: bool = False,
        live: LiveBus | None = None,
        decision: tuple[int, bool] | None = None,
        link: str = UART,
    ) -> None:
        check_choice("Link", link, LINKS)
        self.link = link
        self.accelerator, self.live = accelerator, live
        self.decision_pins = decision
        self.codes_crc, self._flash_offset = codes_crc, flash_offset
        self._idle_clocks = idle_clocks
        self._body, self._stored = body, stored
        self.description = description
        if link == UART:
            self.timing = BaudTiming(description.clock_hz, description.baud)
        line: dict[str, Any] = {"rx": In(1, init=1), "tx": Out(1, init=1)}
        super().__init__(
            {
                **({"spi": In(SPI_PINS)} if link == SPI else line),
                "busy": Out(1),
                "heartbeat": Out(1),
                **({} if codes_crc is None else {"flash": self._flash_pins()}),
                **({} if decision is None else {"decision": Out(decision[0])}),
            }
        )

    def _flash_pins(self) -> Any:
        """Those that load codes, or the accelerator's own."""
        members = self.accelerator.signature.members
        return members["flash"] if "flash" in members else Out(FLASH_PINS)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        line, framing_error = self._line(m)
        m.submodules.packets = packets = PacketReceiver(self._idle_clocks)
        kind = RepeatLoader if self.description.measures else FrameLoader
        m.submodules.loader = loader = kind(self.description.input, self._body)
        m.submodules.accelerator = self.accelerator
        m.submodules.results = results = ResultSender(self.description.output)
        m.submodules.control = control = ControlReplies(
            self.description, stored=self._stored, body=self._body, live=self.live
        )
        m.submodules.tickets = tickets = SyncFIFO(width=TICKET.size, depth=self.description.window)
        connect(m, line.o, packets.i)
        taken, given = streams = self._streams(m)
        connect(m, loader.o, taken)
        repeats = self._repeats(m, packets, loader, results, tickets.r_rdy, control, streams)
        self._reply_path(m, control, results, line.i)
        self._show(m, given)
        m.d.comb += [
            loader.write.eq(packets.write),
            loader.address.eq(packets.address),
            loader.data.eq(packets.data),
            tickets.w_en.eq(loader.tickets.valid),
            tickets.w_data.eq(loader.tickets.payload),
            loader.tickets.ready.eq(tickets.w_rdy),
            results.tickets.valid.eq(tickets.r_rdy),
            results.tickets.payload.eq(tickets.r_data),
            tickets.r_en.eq(results.tickets.ready),
        ]
        codes = self._codes(m, packets, control)
        busy = loader.busy | results.busy | tickets.r_rdy | repeats.active
        if isinstance(codes, CodeControl):
            m.d.comb += codes.quiet.eq(~(busy | (control.busy & (self.live is not None))))
        overrun = self._judge(m, packets, loader, control, codes, repeats)
        self._count(m, packets, loader, framing_error, control, overrun)
        at_work = loader.busy | results.busy | repeats.active
        m.d.sync += self.busy.eq(packets.active | at_work)
        ticks = (self.description.clock_hz - 1).bit_length() - (packets.idle_bits - 2)
        beat = Signal(max(1, ticks))
        m.d.sync += beat.eq(beat + packets.tick)
        m.d.comb += self.heartbeat.eq(beat[-1])
        return m

    def _line(self, m: Module) -> tuple[_Line, Signal]:
        """The link's bytes, and its strobe of broken ones."""
        if self.link == SPI:
            m.submodules.receiver = spi = SpiPeripheral()
            connect(m, flipped(self.spi), spi.pins)
            return _Line(spi.i, spi.o), spi.framing_error
        m.submodules.receiver = receiver = UartReceiver(self.timing)
        m.submodules.transmitter = transmitter = UartTransmitter(self.timing)
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        return _Line(transmitter.i, receiver.o), receiver.framing_error

    def _streams(self, m: Module) -> tuple[Any, Any]:
        """The accelerator's, of one activation a transfer: wider ones behind converters."""
        x, out = self.description.input, self.description.output
        wide, given = (
            len(port.payload.as_value()) // tensor.format.bits
            for port, tensor in ((self.accelerator.i, x), (self.accelerator.o, out))
        )
        taken: Any = self.accelerator.i
        leaves: Any = self.accelerator.o
        widen, narrow = link_converters((x.count, x.format), (out.count, out.format), (wide, given))
        if widen is not None:
            m.submodules.widen = gatherer = Gatherer(widen)
            connect(m, gatherer.o, taken)
            taken = gatherer.i
        if narrow is not None:
            m.submodules.narrow = converter = ConverterUnit(narrow)
            connect(m, leaves, converter.i)
            leaves = converter.o
        return taken, leaves

    def _repeats(
        self,
        m: Module,
        packets: PacketReceiver,
        loader: Any,
        results: ResultSender,
        awaited: Value,
        control: ControlReplies,
        streams: tuple[Any, Any],
    ) -> _Repeats:
        """The accelerator's outputs go to the results, and to the meter while it measures."""
        if not self.description.measures:
            connect(m, streams[1], results.i)
            return _NO_REPEATS
        m.submodules.meter = meter = Meter(self.description.output)
        i, o = streams
        mine, sized, waiting, give, given = (Signal() for _ in range(5))
        tag, header = Signal(8), packets.header
        m.d.sync += [
            mine.eq(header.kind == Kind.REPEAT),
            sized.eq(header.length == self.description.input.frame_bytes + REPEAT_BYTES),
            waiting.eq(meter.done | (waiting & ~give)),
            given.eq(give),
        ]
        with m.If(meter.start):
            m.d.sync += tag.eq(header.tag)
        m.d.comb += [
            # Replies to packets go first.
            give.eq(waiting & ~(control.busy | control.start | packets.done | packets.truncated)),
            meter.start.eq(loader.start & mine),
            meter.further.eq(loader.further),
            meter.entered.eq(i.valid & i.ready),
            meter.i.valid.eq(o.valid),
            meter.i.payload.eq(o.payload),
            results.i.valid.eq(o.valid & ~meter.active),
            results.i.payload.eq(o.payload),
            o.ready.eq(meter.active | results.i.ready),
            loader.again.eq(mine),
            loader.hold.eq(meter.active),
            control.measured.eq(meter.measured),
        ]
        crowded = mine & (results.busy | awaited | control.busy)
        return _Repeats(mine, sized, crowded, meter.active | waiting, give, given, tag)

    def _show(self, m: Module, given: Any) -> None:
        """What is decided, on pins."""
        if self.decision_pins is None:
            return
        pins, place = self.decision_pins
        output = self.description.output
        m.submodules.decision = shown = DecisionPins(output.format.bits, output.count, pins, place)
        m.d.comb += [
            shown.value.eq(given.payload.as_value()),
            shown.moved.eq(given.valid & given.ready),
            self.decision.eq(shown.pins),
        ]

    def _reply_path(
        self, m: Module, control: ControlReplies, results: ResultSender, line: Any
    ) -> None:
        m.submodules.mux = mux = PacketMux()
        longest = max(
            Description.SIZE, Counters.SIZE, Measurement.SIZE, TOP_BYTES,
            self.description.output.frame_bytes,
        )  # fmt: skip
        m.submodules.framer = framer = PacketTransmitter(longest)
        connect(m, control.packets, mux.a)
        connect(m, results.packets, mux.b)
        connect(m, mux.o, framer.i)
        connect(m, framer.o, line)

    def _codes(
        self, m: Module, packets: PacketReceiver, control: ControlReplies
    ) -> CodeControl | StreamControl | None:
        """What loads the memories, where they are loaded; what tells of codes that the accelerator
        reads itself."""
        if self.codes_crc is not None and "flash" in self.accelerator.signature.members:
            return self._streamed(m, packets, control, self.codes_crc)
        wake_clocks = math.ceil(WAKE_SECONDS * self.description.clock_hz)
        if self.live is not None:
            layout, banks = self.live.layout, self.live.banks
            codes = CodeControl(layout, layout.right, self._flash_offset, wake_clocks, banks)
            port: Any = codes.codes
            m.d.comb += [
                self.live.load.eq(port.load),
                self.live.bank.eq(codes.bank),
                self.live.w_en.eq(port.w_en),
                self.live.addr.eq(port.addr),
                self.live.w_data.eq(port.w_data),
                port.r_data.eq(self.live.answer),
            ]
        elif self.codes_crc is not None:
            codes = CodeControl(
                self.accelerator.layout, self.codes_crc, self._flash_offset, wake_clocks
            )
            connect(m, codes.codes, self.accelerator.codes)
            connect(m, codes.flash, flipped(self.flash))
        else:
            return None
        m.submodules.codes = codes
        m.d.comb += [
            codes.header.eq(packets.header),
            codes.write.eq(packets.write),
            codes.address.eq(packets.address),
            codes.data.eq(packets.data),
            codes.right.eq(packets.done & packets.good),
            control.codes.eq(codes.status),
        ]
        return codes

    def _streamed(
        self, m: Module, packets: PacketReceiver, control: ControlReplies, crc: int
    ) -> StreamControl:
        m.submodules.codes = codes = StreamControl(crc)
        connect(m, flipped(self.flash), self.accelerator.flash)
        m.d.comb += [
            codes.codes_right.eq(self.accelerator.codes_right),
            codes.codes_wrong.eq(self.accelerator.codes_wrong),
            codes.header.eq(packets.header),
            control.codes.eq(codes.status),
        ]
        return codes

    def _judge(
        self,
        m: Module,
        packets: PacketReceiver,
        loader: FrameLoader,
        control: ControlReplies,
        codes: CodeControl | StreamControl | None,
        repeats: _Repeats,
    ) -> Signal:
        """What becomes of a packet: a place for further kinds. Gives the overrun strobe.

        The header is steady long before its packet is done: all that follows from it alone stands
        in registers by then, and the verdict is one too.
        """
        header, request = packets.header, control.request
        infer, classify, describe, status, whole, bare = (Signal() for _ in range(6))
        frame, answer, code, kind = Signal(), Signal(), Signal(ErrorCode), Signal(8)
        ready: Value
        ready, mine, fine, error = Const(1, 1), Const(0, 1), Const(0, 1), Const(0, 8)
        waiting: Value = Const(0, 1)
        if codes is not None:
            ready, mine, fine, error = codes.ready, codes.mine, codes.fine, codes.error
            waiting = codes.waiting
        # What the board says of itself may be among what is loaded.
        told = ready if self.live is not None else Const(1, 1)
        unready = Mux(bare & describe, ErrorCode.NOT_READY, ErrorCode.BAD_LENGTH)
        short = unready if self.live is not None else Const(ErrorCode.BAD_LENGTH, 8)
        other = Mux(mine, error, ErrorCode.BAD_KIND)
        refused = Mux(whole, ErrorCode.NOT_READY, ErrorCode.BAD_LENGTH)
        some = infer | classify | repeats.mine
        m.d.sync += [
            infer.eq(header.kind == Kind.INFER),
            classify.eq(header.kind == Kind.CLASSIFY),
            describe.eq(header.kind == Kind.DESCRIBE),
            status.eq(header.kind == Kind.STATUS),
            whole.eq(
                (~repeats.mine & (header.length == self.description.input.frame_bytes))
                | (repeats.mine & repeats.sized)
            ),
            bare.eq(header.length == 0),
            frame.eq(some & whole & ready),
            answer.eq((((describe & told) | status) & bare) | fine),
            code.eq(Mux(some, refused, Mux(describe | status, short, other))),
            kind.eq(Mux(mine, Kind.CODES, Mux(status, Kind.COUNTERS, Kind.DESCRIPTION))),
        ]
        lost, crowded, overrun = Signal(), Signal(), Signal()
        # A byte that found its place unread makes the packet's frame useless.
        with m.If(packets.write & loader.blocked):
            m.d.sync += lost.eq(1)
        with m.Elif(packets.done | packets.truncated):
            m.d.sync += lost.eq(0)
        m.d.comb += [
            crowded.eq(lost | loader.busy | waiting | repeats.active | repeats.crowded),
            request.tag.eq(Mux(repeats.given, repeats.tag, header.tag)),
            request.offender.eq(header.kind),
            loader.ticket.tag.eq(header.tag),
            loader.ticket.top.eq(classify),
        ]
        right = packets.done & packets.good
        m.d.sync += [
            loader.start.eq(right & frame & ~crowded),
            overrun.eq(right & frame & crowded),
            control.start.eq(packets.truncated | (packets.done & ~(right & frame & ~crowded))),
            request.kind.eq(Mux(right & answer, kind, Kind.ERROR)),
        ]
        with m.If(packets.truncated):
            m.d.sync += request.code.eq(ErrorCode.TRUNCATED)
        with m.Elif(~packets.good):
            m.d.sync += request.code.eq(ErrorCode.BAD_CRC)
        with m.Elif(frame):
            m.d.sync += request.code.eq(ErrorCode.OVERRUN)
        with m.Else():
            m.d.sync += request.code.eq(code)
        with m.If(repeats.give):
            m.d.sync += [control.start.eq(1), request.kind.eq(Kind.MEASURED)]
        return overrun

    def _count(
        self,
        m: Module,
        packets: PacketReceiver,
        loader: FrameLoader,
        framing_error: Signal,
        control: ControlReplies,
        overrun: Signal,
    ) -> None:
        counters = Signal(COUNTERS)
        m.d.comb += control.counters.eq(counters)
        for field, strobe in (
            (counters.frames, loader.start),
            (counters.bad_crc, packets.done & ~packets.good),
            (counters.overruns, overrun | (control.start & control.busy)),
            (counters.truncated, packets.truncated),
            (counters.framing_errors, framing_error),
        ):
            event = Signal()
            m.d.sync += event.eq(strobe)
            with m.If(event):
                m.d.sync += field.eq(field + 1)


def make_top(
    accelerator: Any,
    target: str | Target,
    clock_mhz: float,
    baud: int | None,
    input: WireFormat,
    output: WireFormat,
    identity: bytes,
    *,
    window: int = WINDOW,
    measure: bool = False,
    body: str | None = None,
    codes_crc: int | None = None,
    stored: bool = False,
    live: LiveBus | None = None,
    decision: tuple[int, bool] | None = None,
    link: str = UART,
) -> Top:
    """The top of an accelerator for a board, at the clock that the board's PLL achieves.

    Parameters
    ----------
    accelerator : Component
        See `Top`.
    target, clock_mhz, baud, input, output, identity, window, measure
        See `pvq_hw.host.description.describe_board`, which also raises what is wrong with them.
        Call it before the accelerator is made: Amaranth warns of circuits that are never used.
    body : str, optional
        Of the frame buffer; by default the target family's, which Amaranth cannot simulate.
    codes_crc, stored, live, decision, link : optional
        See `Top`.
    """
    description = describe_board(
        target, clock_mhz, baud, input, output, identity, window=window, measure=measure,
        link=link,
    )  # fmt: skip
    idle_clocks = round(IDLE_SECONDS * description.clock_hz)
    body = body or get_target(target).family
    return Top(
        accelerator, description, idle_clocks,
        body=body, codes_crc=codes_crc, stored=stored, live=live, decision=decision,
        link=link,
    )  # fmt: skip
