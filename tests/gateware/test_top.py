"""The top from serial pin to serial pin, against the golden model of its protocol."""

import random

import numpy as np
import pytest
from amaranth.hdl import Fragment
from stand_in import IDENTITY, S8, S16, U8, StandIn, Through, small_top

from gateware.link.top import make_top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.host.board_model import Responder
from pvq_hw.host.description import describe_board
from pvq_hw.host.protocol import (
    OVERHEAD,
    Counters,
    Description,
    ErrorCode,
    Kind,
    Packet,
    PacketDecoder,
    WireFormat,
)
from sim.agents.pins import PinSimulation


def _frames(top, count, seed=0):
    wire = top.description.input
    rng = np.random.default_rng(seed)
    if wire.format.binary:
        return rng.choice([-1, 1], (count, wire.count))
    return rng.integers(wire.format.min, wire.format.max + 1, (count, wire.count))


def _compute(top, frame):
    return top.accelerator.compute(frame)


def _replies(data):
    decoder = PacketDecoder()
    packets = decoder.feed(bytes(data))
    assert not decoder.bad
    assert decoder.started is None
    return packets


def _error(tag, code, kind=Kind.INFER):
    return Packet(Kind.ERROR, tag, bytes((code, kind)))


def _infer(top, frame, tag, kind=Kind.INFER):
    return Packet(kind, tag, top.description.input.encode(frame))


def _result(top, frame, tag):
    return Packet(Kind.RESULTS, tag, top.description.output.encode(_compute(top, frame)))


def _talk(top, steps, limit=400_000):
    """Sends each step's bytes, then waits for its number of replies; gives all replies.

    A step may be an integer instead: bits of idle line.
    """
    pins = PinSimulation(top, limit=limit)
    queue = list(steps)
    waiting = 0

    def each_cycle():
        nonlocal waiting
        if pins.cycle % 16 or not pins.line.empty:
            return False
        if waiting and len(_whole(pins.line.received)) < waiting:
            return False
        if not queue:
            return True
        step = queue.pop(0)
        if isinstance(step, int):
            pins.line.pause(step)
        else:
            pins.line.send(step[0])
            waiting += step[1]
        return False

    pins.run(each_cycle)
    return _replies(pins.line.received)


def _whole(received):
    return PacketDecoder().feed(bytes(received))


@pytest.mark.parametrize(
    ("x", "out"),
    [
        (WireFormat(6, U8), WireFormat(3, S16)),
        (WireFormat(1, S8), WireFormat(1, U8)),
        (WireFormat(3, IntFormat(12, True)), WireFormat(5, IntFormat(3, False))),
        (WireFormat(4, IntFormat(16, False)), WireFormat(2, IntFormat(11, True))),
        (WireFormat(9, IntFormat(1, True)), WireFormat(4, IntFormat(1, True))),
        (WireFormat(7, IntFormat(5, False)), WireFormat(11, S8)),
    ],
)
def test_answers_as_the_golden_model_does(x, out):
    top = small_top(x, out)
    board = Responder(top.description, lambda frame: np.array(_compute(top, frame)))
    steps, expected = [], []
    rng = random.Random(1)
    for tag, frame in enumerate(_frames(top, 2)):
        packets = [_infer(top, frame, tag), _infer(top, frame, 100 + tag, Kind.CLASSIFY)]
        packets += [Packet(rng.choice([Kind.DESCRIBE, Kind.STATUS, 0x10, 0x82]), 50 + tag)]
        for packet in packets:
            data = packet.encode()
            expected += _replies(board.feed(data))
            steps.append((data, 1))
    replies = _talk(top, steps)
    assert replies == expected
    assert len(replies) == 6


def test_a_description_in_block_ram_reads_alike():
    top = small_top(stored=True)
    board = Responder(top.description, lambda frame: np.array(_compute(top, frame)))
    packets = [Packet(kind, tag) for tag, kind in enumerate((Kind.DESCRIBE, Kind.STATUS) * 2)]
    expected = [reply for packet in packets for reply in _replies(board.feed(packet.encode()))]
    assert _talk(top, [(packet.encode(), 1) for packet in packets]) == expected
    assert len(expected) == 4


def test_damage_noise_and_lengths_are_answered_as_by_the_golden_model():
    top = small_top()
    board = Responder(top.description, lambda frame: np.array(_compute(top, frame)))
    rng = random.Random(6)
    steps, expected = [], []
    for tag, frame in enumerate(_frames(top, 16)):
        good = _infer(top, frame, tag).encode()
        bad = bytearray(good)
        bad[rng.choice([2, 3, *range(6, len(bad))])] ^= 1 << rng.randrange(8)
        data = rng.choice(
            [
                good,
                bytes(bad),
                rng.randbytes(5).replace(b"V", b"") + good,
                b"PP" + good,
                Packet(Kind.INFER, tag, bytes(rng.randrange(12))).encode(),
                Packet(Kind.STATUS, tag, b"x").encode(),
            ]
        )
        answer = _replies(board.feed(data))
        expected += answer
        steps.append((data, len(answer)))
    steps.append((Packet(Kind.STATUS, 77).encode(), 1))
    expected += _replies(board.feed(Packet(Kind.STATUS, 77).encode()))
    assert _talk(top, steps) == expected
    codes = {p.payload[0] for p in expected if p.kind == Kind.ERROR}
    assert codes >= {ErrorCode.BAD_CRC, ErrorCode.BAD_LENGTH}


def test_a_bad_crc_never_reaches_the_accelerator():
    top = small_top()
    frame, other = _frames(top, 2)
    bad = bytearray(_infer(top, frame, 1).encode())
    bad[-1] ^= 0x80
    replies = _talk(
        top,
        [(bytes(bad), 1), (_infer(top, other, 2).encode(), 1), (Packet(4, 3).encode(), 1)],
    )
    assert replies == [
        _error(1, ErrorCode.BAD_CRC),
        _result(top, other, 2),
        Packet(Kind.COUNTERS, 3, Counters(1, 1, 0, 0, 0).encode()),
    ]


def test_back_to_back_frames_within_the_window_are_all_answered_in_order():
    top = small_top()
    frames = _frames(top, 12)
    pins = PinSimulation(top)
    sent = 0

    def each_cycle():
        nonlocal sent
        done = len(pins.line.received) // (OVERHEAD + 6)
        while sent < len(frames) and sent < done + top.description.window:
            pins.line.send(_infer(top, frames[sent], sent).encode())
            sent += 1
        return done == len(frames)

    pins.run(each_cycle)
    assert _replies(pins.line.received) == [_result(top, f, t) for t, f in enumerate(frames)]
    # The line is never idle for longer than the circuit needs for a frame: at most 5 % lost.
    assert pins.cycle < 1.05 * len(frames) * (OVERHEAD + 6) * 40 + 1200


# Room may come in the middle of a frame that began without: it is refused all the same.
@pytest.mark.parametrize("wait", [400, 1800])
def test_frames_beyond_what_fits_are_refused_counted_and_nothing_else_is_harmed(wait):
    # The accelerator is busy for a while; it and the buffer hold one frame each.
    top = small_top(wait=wait)
    frames = _frames(top, 6)
    data = b"".join(_infer(top, f, t).encode() for t, f in enumerate(frames))
    replies = _talk(top, [(data, 6), (Packet(Kind.STATUS, 9).encode(), 1)])
    refused = [p.tag for p in replies if p.kind == Kind.ERROR]
    answered = [t for t in range(6) if t not in refused]
    assert refused
    assert len(answered) >= 3
    assert [p for p in replies if p.kind == Kind.ERROR] == [
        _error(t, ErrorCode.OVERRUN) for t in refused
    ]
    assert [p for p in replies if p.kind == Kind.RESULTS] == [
        _result(top, frames[t], t) for t in answered
    ]
    counters = Counters.decode(replies[-1].payload)
    assert counters == Counters(len(answered), 0, len(refused), 0, 0)


def test_in_step_again_after_the_idle_time_out():
    top = small_top(idle_clocks=512)
    frame, other = _frames(top, 2)
    cut = _infer(top, frame, 1).encode()[:-3]
    longer = bytearray(_infer(top, frame, 2).encode())
    longer[5] = 0xFF  # the length claims 65 thousand bytes
    replies = _talk(
        top,
        [
            (cut, 0),
            200,
            (_infer(top, other, 3).encode(), 2),
            (bytes(longer), 0),
            200,
            (_infer(top, other, 4).encode(), 2),
            (Packet(Kind.STATUS, 5).encode(), 1),
        ],
    )
    assert replies == [
        _error(1, ErrorCode.TRUNCATED),
        _result(top, other, 3),
        _error(2, ErrorCode.TRUNCATED),
        _result(top, other, 4),
        Packet(Kind.COUNTERS, 5, Counters(2, 0, 0, 2, 0).encode()),
    ]


def test_pauses_shorter_than_the_time_out_are_borne():
    top = small_top(idle_clocks=512)
    frame = _frames(top, 1)[0]
    data = _infer(top, frame, 1).encode()
    steps = []
    for index in range(len(data)):
        steps += [(data[index : index + 1], 0), 60]
    steps.append((b"", 1))
    assert _talk(top, steps) == [_result(top, frame, 1)]


def test_framing_errors_and_a_break_are_counted():
    top = small_top()
    frame = _frames(top, 1)[0]
    pins = PinSimulation(top)
    pins.line.send_levels([0] * 30 + [1] * 4)
    pins.line.send(_infer(top, frame, 1).encode() + Packet(Kind.STATUS, 2).encode())
    pins.run(lambda: len(_whole(pins.line.received)) == 2)
    replies = _replies(pins.line.received)
    assert sorted(replies, key=lambda p: p.tag) == [
        _result(top, frame, 1),
        Packet(Kind.COUNTERS, 2, Counters(1, 0, 0, 0, 1).encode()),
    ]


def test_reset_in_mid_frame_leaves_nothing_behind():
    top = small_top()
    frame, other = _frames(top, 2)
    pins = PinSimulation(top)
    pins.line.send(_infer(top, frame, 1).encode() * 2 + _infer(top, frame, 2).encode()[:9])
    stages = iter([_infer(top, other, 3).encode()])

    def each_cycle():
        # The reset falls into the third frame and, 37 bits on, into the reply of the first.
        if pins.cycle == 1500:
            pins.line.received.clear()
            pins.line.forget()
            pins.line.pause(40)
            pins.line.send(next(stages))
        return pins.cycle > 1500 and len(_whole(pins.line.received)) == 1

    pins.run(each_cycle, resets=frozenset(range(1480, 1500)))
    assert _replies(pins.line.received) == [_result(top, other, 3)]


@pytest.mark.parametrize("values", [[3, 9, 9, 1], [-5, -7, -5, -9], [0, 0, 0, 0], [-1, -2, -3, 7]])
def test_the_first_of_the_largest_outputs_is_found(values):
    wire = WireFormat(4, S16)
    top = small_top(wire, wire, kind=Through)
    replies = _talk(top, [(_infer(top, values, 1, Kind.CLASSIFY).encode(), 1)])
    index = int(np.argmax(values))
    payload = index.to_bytes(2, "little") + int(values[index]).to_bytes(2, "little", signed=True)
    assert replies == [Packet(Kind.TOP, 1, payload)]


def test_make_top_states_the_achieved_clock_and_a_baud_rate_that_fits():
    x, out = WireFormat(6, U8), WireFormat(3, S16)
    top = make_top(StandIn(x, out), "icebreaker", 17.0, None, x, out, IDENTITY)
    Fragment.get(top, None)
    assert top.description == Description(x, out, 16_875_000, 1_000_000, 4, IDENTITY)
    assert describe_board("icebreaker", 16.6, None, x, out, IDENTITY) == Description(
        x, out, 16_500_000, 921_600, 4, IDENTITY
    )
    top = make_top(StandIn(x, out), "ulx3s-85f", 100, 2_000_000, x, out, IDENTITY)
    Fragment.get(top, None)
    assert (top.description.clock_hz, top.timing.divisor) == (100_000_000, 50)


def test_impossible_boards_are_refused_before_any_circuit():
    x, out = WireFormat(6, U8), WireFormat(3, S16)
    for target, clock, baud, message in (
        ("icebreaker", 16.6, 1_000_000, "Baud error must be at most 2%, but 1,000,000 is off by"),
        ("arty", 16.6, None, "Target 'arty' is unknown"),
        ("hx8k", 300, None, "Clock of hx8k must be 12 to 275 MHz, not 300"),
        ("hx8k", float("nan"), None, "Clock of hx8k must be 12 to 275 MHz, not nan"),
    ):
        with pytest.raises(InputError, match=message):
            describe_board(target, clock, baud, x, out, IDENTITY)
