"""Packets: the format, the golden model, and the circuits that take them apart and make them."""

import random
import zlib
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.crc import catalog
from amaranth.sim import Simulator

from gateware.link.control import COUNTERS
from gateware.link.crc import Crc32
from gateware.link.packet import PacketMux, PacketReceiver, PacketTransmitter
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.patterns import Pattern
from pvq_hw.errors import CheckError, InputError
from pvq_hw.host.board_model import Responder
from pvq_hw.host.protocol import (
    CRC_INIT,
    CRC_POLYNOMIAL,
    MAX_PAYLOAD,
    OVERHEAD,
    Counters,
    Description,
    ErrorCode,
    Kind,
    Packet,
    PacketDecoder,
    WireFormat,
    crc16,
)
from sim.agents.bench import Bench
from sim.agents.streams import Sink, Source

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)
DESCRIPTION = Description(
    WireFormat(784, U8), WireFormat(10, S16), 36_000_000, 1_000_000, 4, bytes(range(8))
)


def _bytes_to_stream(data: bytes, idle_clocks: int, gaps: dict[int, int] | None = None):
    """Runs the receiver: a byte every 4 cycles, ``gaps`` cycles more before some; its events."""
    dut = PacketReceiver(idle_clocks)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    events: list[tuple] = []

    async def testbench(ctx):
        payload = bytearray()

        async def step(cycles):
            for _ in range(cycles):
                _, _, header, write, address, byte, done, good, truncated = (
                    await ctx.tick().sample(
                        dut.header, dut.write, dut.address, dut.data, dut.done, dut.good,
                        dut.truncated,
                    )
                )  # fmt: skip
                if write:
                    assert address == len(payload)
                    payload.append(byte)
                if done:
                    events.append((bool(good), Packet(header.kind, header.tag, bytes(payload))))
                    assert not good or header.length == len(payload)
                if truncated:
                    events.append(("truncated", Packet(header.kind, header.tag)))
                if done or truncated:
                    payload.clear()
                ctx.set(dut.i.valid, 0)

        for index, byte in enumerate(data):
            await step((gaps or {}).get(index, 0))
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, byte)
            await step(4)
        await step(4 * idle_clocks)

    simulator.add_testbench(testbench)
    simulator.run()
    return events


def _head(packet: Packet) -> int:
    """A packet's header as a bit pattern."""
    return packet.kind | packet.tag << 8 | len(packet.payload) << 16


def test_crc_is_the_catalog_entry_of_that_name():
    known = catalog.CRC16_IBM_3740
    assert (known.polynomial, known.initial_crc) == (CRC_POLYNOMIAL, CRC_INIT)
    assert crc16(b"123456789") == 0x29B1 == known(8).compute(b"123456789")


@pytest.mark.parametrize("before", [b"", b"before"])
def test_crc_32_is_that_of_zlib_from_any_start_and_anew(before):
    start = zlib.crc32(before)
    dut, pieces = Crc32(start), (b"123456789", b"", bytes(range(200, 256)))

    async def bench(ctx):
        for piece in pieces:
            for byte in piece:
                ctx.set(dut.valid, 1)
                ctx.set(dut.data, byte)
                await ctx.tick()
                ctx.set(dut.valid, 0)
                await ctx.tick()
            assert ctx.get(dut.crc) == zlib.crc32(piece, start)
            ctx.set(dut.clear, 1)
            ctx.set(dut.valid, 1)  # is ignored meanwhile
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.valid, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_packet_bytes_are_as_documented():
    assert Packet(2, 7, b"\x01\x02\x03").encode() == bytes.fromhex("5056 02 07 0300 010203 d68f")
    assert len(Packet(1, 0).encode()) == OVERHEAD
    with pytest.raises(InputError, match="Payload must have at most 65,535 bytes, not 65,536"):
        Packet(2, 0, bytes(MAX_PAYLOAD + 1)).encode()


def test_decoder_finds_packets_between_noise_in_pieces_of_any_size():
    rng = random.Random(1)
    packets = [Packet(2, i, rng.randbytes(rng.randrange(30))) for i in range(50)]
    line = b"".join(rng.choice([b"", b"P", b"PPQ", b"\x00V"]) + p.encode() for p in packets)
    for size in (1, 2, 7, 1000):
        decoder = PacketDecoder()
        found = []
        for start in range(0, len(line), size):
            found += decoder.feed(line[start : start + size])
        assert found == packets
        assert decoder.bad == []


def test_decoder_reports_a_wrong_crc_and_goes_on():
    bad = bytearray(Packet(2, 9, b"abc").encode())
    bad[7] ^= 1
    decoder = PacketDecoder()
    assert decoder.feed(bytes(bad) + Packet(3, 4).encode()) == [Packet(3, 4)]
    assert decoder.bad == [Packet(2, 9)]
    assert decoder.feed(b"PV\x02\x05\xff\xff") == []
    assert decoder.started == Packet(2, 5)
    decoder.idle()
    assert decoder.started is None


@pytest.mark.parametrize(
    ("form", "values", "payload"),
    [
        (U8, [0, 1, 255], "0001ff"),
        (IntFormat(5, False), [0, 31], "001f"),
        (S8, [-128, -1, 127], "80ff7f"),
        (IntFormat(4, True), [-8, 7], "f807"),
        (IntFormat(9, False), [256, 511], "0001ff01"),
        (S16, [-32768, -2, 32767], "0080feffff7f"),
        (IntFormat(1, True), [-1, 1], "ff00"),
    ],
)
def test_wire_format_of_frames(form, values, payload):
    wire = WireFormat(len(values), form)
    assert wire.encode(values) == bytes.fromhex(payload)
    assert wire.decode(bytes.fromhex(payload)).tolist() == values
    assert wire.frame_bytes == len(payload) // 2


def test_wire_format_refuses_what_it_cannot_carry():
    with pytest.raises(InputError, match="Frame must have 1 to 32,767 values, not 32,768"):
        WireFormat(32768, S16)
    with pytest.raises(InputError, match="Frame must have 3 values, not 2"):
        WireFormat(3, U8).encode([1, 2])
    with pytest.raises(InputError, match=r"Frame must be within 0\.\.255"):
        WireFormat(2, U8).encode([1, 256])
    with pytest.raises(InputError, match="Payload must have 4 bytes, not 3"):
        WireFormat(2, S16).decode(b"abc")


def test_description_and_counters_survive_the_line():
    assert Description.decode(DESCRIPTION.encode()) == DESCRIPTION
    assert len(DESCRIPTION.encode()) == Description.SIZE == 26
    counters = Counters(1, 2, 3, 4, 65535)
    assert Counters.decode(counters.encode()) == counters
    assert len(counters.encode()) == Counters.SIZE == COUNTERS.size // 8


def test_a_board_with_another_network_or_protocol_is_refused():
    DESCRIPTION.require(DESCRIPTION)
    with pytest.raises(CheckError, match="must hold network 0000000000000000, not 00010203"):
        DESCRIPTION.require(replace(DESCRIPTION, identity=bytes(8)))
    with pytest.raises(CheckError, match="Board's input must be"):
        DESCRIPTION.require(replace(DESCRIPTION, input=WireFormat(783, U8)))
    with pytest.raises(CheckError, match=rf"^Board's baud must be {DESCRIPTION.baud}, not 1$"):
        replace(DESCRIPTION, baud=1).require(DESCRIPTION)
    with pytest.raises(InputError, match="must speak version 1 or 2 of the protocol, not 3"):
        Description.decode(b"\x03" + DESCRIPTION.encode()[1:])
    silent = replace(DESCRIPTION, baud=0).encode()
    with pytest.raises(InputError, match=r"Board's clock and baud must be positive, not .* and 0"):
        Description.decode(silent)
    with pytest.raises(InputError, match="Description must have 26 bytes, not 25"):
        Description.decode(DESCRIPTION.encode()[:-1])
    with pytest.raises(InputError, match="Identity must have 8 bytes, not 3"):
        Description(DESCRIPTION.input, DESCRIPTION.output, 1, 1, 4, b"abc")


def test_rate_is_that_of_the_slowest_of_request_reply_and_circuit():
    assert DESCRIPTION.frames_per_second() == pytest.approx(1e5 / 792)
    assert DESCRIPTION.frames_per_second(360_000) == pytest.approx(100)
    wide = Description(WireFormat(2, U8), WireFormat(100, S16), 10**7, 10**6, 4, bytes(8))
    assert wide.frames_per_second() == pytest.approx(1e5 / 208)
    assert wide.frames_per_second(top=True) == pytest.approx(1e5 / 12)


def test_responder_answers_each_kind_and_each_mistake():
    tiny = Description(WireFormat(2, U8), WireFormat(3, S16), 10**7, 10**6, 1, bytes(8))
    board = Responder(tiny, lambda x: np.array([x[0], -x[1], x[0]]))
    wrong = bytearray(Packet(Kind.INFER, 3, b"\x05\x06").encode())
    wrong[-1] ^= 4

    def ask(data):
        return PacketDecoder().feed(board.feed(data))

    assert ask(Packet(Kind.DESCRIBE, 1).encode()) == [Packet(0x81, 1, tiny.encode())]
    assert ask(Packet(Kind.INFER, 2, b"\x05\x06").encode()) == [
        Packet(0x82, 2, bytes.fromhex("0500faff0500"))
    ]
    assert ask(Packet(Kind.CLASSIFY, 3, b"\x05\x06").encode()) == [
        Packet(0x83, 3, bytes.fromhex("00000500"))
    ]
    assert ask(bytes(wrong)) == [Packet(0xFF, 3, bytes((ErrorCode.BAD_CRC, 2)))]
    assert ask(Packet(0x10, 4).encode()) == [Packet(0xFF, 4, bytes((ErrorCode.BAD_KIND, 0x10)))]
    assert ask(Packet(2, 5, b"a").encode()) == [Packet(0xFF, 5, bytes((ErrorCode.BAD_LENGTH, 2)))]
    assert ask(Packet(1, 6, b"a").encode()) == [Packet(0xFF, 6, bytes((ErrorCode.BAD_LENGTH, 1)))]
    assert ask(b"PV\x02\x08\x02") == []
    assert board.idle() == Packet(0xFF, 8, bytes((ErrorCode.TRUNCATED, 2))).encode()
    assert board.idle() == b""
    counters = Counters(2, 1, 0, 1, 0)
    assert ask(Packet(Kind.STATUS, 7).encode()) == [Packet(0x84, 7, counters.encode())]


def test_receiver_equals_the_decoder_on_packets_noise_and_damage():
    rng = random.Random(5)
    line = b""
    for tag in range(40):
        packet = bytearray(
            Packet(rng.randrange(256), tag, rng.randbytes(rng.randrange(9))).encode()
        )
        if tag % 3 == 0:
            # Not the length: the decoder has no time-out.
            packet[rng.choice([0, 1, 2, 3, *range(6, len(packet))])] ^= 1 << rng.randrange(8)
        line += rng.choice([b"", b"P", b"PP", b"V", b"\x00PX"]) + packet
    line += Packet(1, 99).encode()
    decoder = PacketDecoder()
    good = decoder.feed(line)
    events = _bytes_to_stream(line, idle_clocks=64)
    assert [p for ok, p in events if ok is True] == good
    assert [Packet(p.kind, p.tag) for ok, p in events if ok is False] == decoder.bad
    assert len(decoder.bad) > 4
    assert good[-1] == Packet(1, 99)


@pytest.mark.parametrize("cut", range(2, OVERHEAD + 3))
def test_receiver_gives_up_a_packet_after_the_idle_time_and_takes_the_next(cut):
    whole = Packet(0x22, 0x33, b"abc").encode()
    line = whole[:cut] + Packet(4, 5).encode()
    events = _bytes_to_stream(line, idle_clocks=16, gaps={cut: 40})
    kind = 0x22 if cut > 2 else 0
    tag = 0x33 if cut > 3 else 0
    assert events == [("truncated", Packet(kind, tag)), (True, Packet(4, 5))]


def test_receiver_bears_gaps_shorter_than_the_idle_time_and_a_lone_first_magic_byte():
    whole = Packet(0x22, 0x33, b"abc").encode()
    gaps = dict.fromkeys(range(len(whole)), 10)
    assert _bytes_to_stream(whole, idle_clocks=16, gaps=gaps) == [
        (True, Packet(0x22, 0x33, b"abc"))
    ]
    # "P", a long pause, "V": no packet begins here, and nothing is reported.
    assert _bytes_to_stream(b"P" + b"V\x01\x02" + whole, 16, {1: 40}) == [
        (True, Packet(0x22, 0x33, b"abc"))
    ]


@pytest.mark.parametrize("idle", ["none", "random:0.4", "bursts:5"])
@pytest.mark.parametrize("stall", ["none", "random:0.6"])
def test_transmitter_makes_the_bytes_of_the_format(idle, stall):
    rng = random.Random(7)
    packets = [Packet(rng.randrange(256), i, rng.randbytes(n)) for i, n in enumerate((0, 1, 2, 9))]
    idle, stall = Pattern.parse(idle), Pattern.parse(stall)
    dut = PacketTransmitter()
    bench = Bench(dut)
    heads = [_head(p) for p in packets]
    head = bench.source(dut.i.head, Source(heads, idle, 1), "head")
    bench.source(dut.i.body, Source(b"".join(p.payload for p in packets), idle, 2), "body")
    out = bench.sink(dut.o, Sink(stall, 3))
    bench.run(lambda: len(head.payloads) == len(packets))
    assert bytes(out.payloads) == b"".join(p.encode() for p in packets)


def test_mux_sends_whole_packets_of_both_sources():
    rng = random.Random(8)
    a = [Packet(1, i, rng.randbytes(3)) for i in range(3)]
    b = [Packet(2, i, rng.randbytes(5)) for i in range(3)]
    mux, framer = PacketMux(), PacketTransmitter()
    m = Module()
    m.submodules.mux, m.submodules.framer = mux, framer
    wiring.connect(m, mux.o, framer.i)
    bench = Bench(m)
    for source, packets in ((mux.a, a), (mux.b, b)):
        heads = [_head(p) for p in packets]
        bench.source(source.head, Source(heads), "head")
        bench.source(source.body, Source(b"".join(p.payload for p in packets)), "body")
    out = bench.sink(framer.o, Sink())
    total = sum(OVERHEAD + len(p.payload) for p in a + b)
    bench.run(lambda: len(out.payloads) == total)
    found = PacketDecoder().feed(bytes(out.payloads))
    assert [p for p in found if p.kind == 1] == a
    assert [p for p in found if p.kind == 2] == b
