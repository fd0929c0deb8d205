"""Codes from the flash and over the line, from pin to pin, against the golden model."""

import struct
from functools import cache

import numpy as np
import pytest
from loaded import Loaded
from refused_component import refused

from gateware.link.flash import FlashReader, FlashStream
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import ErrorCode, Kind, Packet, PacketDecoder
from sim.agents.pins import PinSimulation

LOADED = Loaded()


@pytest.mark.parametrize("make", [
    lambda offset: refused(FlashReader, offset, 16),
    lambda offset: refused(FlashStream, offset, 8, 4, 0, 16),
])  # fmt: skip
def test_a_flash_has_addresses_of_24_bits(make):
    make((1 << 24) - 1)
    for offset in (1 << 24, -1):
        with pytest.raises(ValueError, match=rf"Flash offset must have 24 bits, not {offset:#x}"):
            make(offset)


def _talk(steps, flash, top=None, limit=400_000):
    """Waits for each step's replies before the next; a step is a packet, or cycles to wait."""
    pins = PinSimulation(top or LOADED.top(), limit=limit, flash=flash)
    queue, replies, until = list(steps), [], 0
    decoder = PacketDecoder()

    def each_cycle():
        nonlocal until
        found = decoder.feed(bytes(pins.line.received))
        pins.line.received.clear()
        replies.extend(found)
        if pins.cycle < until or not pins.line.empty or len(replies) < each_cycle.wanted:
            return False
        if not queue:
            return True
        step = queue.pop(0)
        if isinstance(step, int):
            until = pins.cycle + step
        else:
            pins.line.send(step.encode())
            each_cycle.wanted += 1
        return False

    each_cycle.wanted = 0
    pins.run(each_cycle)
    assert not decoder.bad
    return replies


def _infer(frame, tag, kind=Kind.INFER):
    return Packet(kind, tag, LOADED.input.encode(frame))


def _writes(words=None):
    for number, block in enumerate(words or LOADED.words):
        yield Packet(Kind.CODES_WRITE, 9, struct.pack(f"<{1 + len(block)}H", number << 14, *block))


def _expected(steps, board):
    found = []
    for step in steps:
        if not isinstance(step, int):
            found += PacketDecoder().feed(board.feed(step.encode()))
    return found


def _read_cycles():
    """Cycles until the flash is read and checked."""
    return 2 * 256 + 32 * (len(LOADED.file) + 10) + 4 * LOADED.layout.size // 2 + 100


def _header_cycles():
    """Cycles until the flash is known to hold nothing for this network."""
    return 2 * 256 + 32 * (16 + 10) + 100


STATUS = Packet(Kind.CODES_STATUS, 7)


FRAMES = LOADED.frames(3)
READY = [STATUS, _infer(FRAMES[1], 2), _infer(FRAMES[2], 3, Kind.CLASSIFY)]
MISPLACED = [
    *[Packet(Kind.CODES_CHECK, 1), *_writes(), Packet(0x15, 2)],
    *[Packet(Kind.CODES_STATUS, 3, b"x"), Packet(Kind.CODES_OPEN, 4, b"12")],
    *[Packet(Kind.CODES_OPEN, 5), Packet(Kind.CODES_WRITE, 6, b"123")],
    *[Packet(Kind.CODES_WRITE, 7, b"12"), _infer(FRAMES[0], 8)],
]
AGAIN = [Packet(Kind.CODES_WRITE, 2, bytes(8)), Packet(Kind.CODES_RELOAD, 3)]


@cache
def _with_right_flash():
    """(replies, flash) of one board: while it reads, when it is ready, when it is asked for what
    it can't do then, and when it reads again over words that were overwritten."""
    flash = LOADED.flash()
    steps = [_infer(FRAMES[0], 1), STATUS, _read_cycles(), *READY, *MISPLACED, *AGAIN]
    return _talk([*steps, _read_cycles(), STATUS], flash), flash


def test_frames_are_taken_once_the_flash_is_read_and_right():
    replies, _ = _with_right_flash()
    assert replies[0] == Packet(Kind.ERROR, 1, bytes((ErrorCode.NOT_READY, Kind.INFER)))
    assert CodeStatus.decode(replies[1].payload).state is CodeState.READING
    assert CodeStatus.decode(replies[2].payload) == CodeStatus(CodeState.READY, LOADED.crc)
    assert replies[2:5] == _expected(READY, LOADED.responder())


@pytest.mark.parametrize(
    "slow",
    [
        {"delay": 2, "wake_cycles": 200},
        pytest.param({"asleep": False}, marks=pytest.mark.slow),
    ],
)
def test_reads_flashes_that_are_slower_or_awake(slow):
    replies = _talk([_read_cycles(), STATUS], LOADED.flash(**slow))
    assert CodeStatus.decode(replies[0].payload).state is CodeState.READY


def _spoiled(place, bit=0):
    data = bytearray(LOADED.file)
    data[place] ^= 1 << bit
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "state"),
    [
        pytest.param(_spoiled(16), CodeState.WRONG, marks=pytest.mark.slow),
        (_spoiled(len(LOADED.file) - 1, 7), CodeState.WRONG),
        pytest.param(LOADED.file[:-1], CodeState.WRONG, marks=pytest.mark.slow),
        pytest.param(_spoiled(0), CodeState.ABSENT, marks=pytest.mark.slow),
        (_spoiled(15), CodeState.ABSENT),
        pytest.param(b"", CodeState.ABSENT, marks=pytest.mark.slow),
        (Loaded(seed=5).file, CodeState.ABSENT),
    ],
    ids=["first", "last", "short", "magic", "crc", "empty", "another network"],
)
def test_refuses_frames_with_wrong_codes(data, state):
    cycles = _read_cycles() if state is CodeState.WRONG else _header_cycles()
    steps = [cycles, STATUS, _infer(LOADED.frames(1)[0], 3)]
    replies = _talk(steps, LOADED.flash(data))
    assert CodeStatus.decode(replies[0].payload).state is state
    assert replies[1] == Packet(Kind.ERROR, 3, bytes((ErrorCode.NOT_READY, Kind.INFER)))
    assert replies == _expected(steps, LOADED.responder(data))


@cache
def _with_empty_flash():
    """(replies, those expected) of one board: the host loads it; then a word is overwritten by a
    wrong one, and mended."""
    frame = FRAMES[0]
    opened, check = Packet(Kind.CODES_OPEN, 1), Packet(Kind.CODES_CHECK, 3)
    right = LOADED.words[1][3]
    wrong, mended = (
        Packet(Kind.CODES_WRITE, 5, struct.pack("<2H", 1 << 14 | 3, word))
        for word in (right ^ 0x8000, right)
    )
    steps = [_header_cycles(), opened, *_writes(), _infer(frame, 2)]
    steps += [check, 400, STATUS, _infer(frame, 4)]
    steps += [opened, wrong, check, 400, STATUS, _infer(frame, 2)]
    steps += [opened, mended, check, 400, STATUS, _infer(frame, 4)]
    return _talk(steps, LOADED.flash(b"")), _expected(steps, LOADED.responder(b""))


def test_host_loads_what_the_flash_lacks():
    replies, expected = _with_empty_flash()
    assert CodeStatus.decode(replies[0].payload).state is CodeState.OPEN
    assert replies[4].payload == bytes((ErrorCode.NOT_READY, Kind.INFER))
    assert replies[6:8] == expected[6:8]
    assert replies[7].kind == Kind.RESULTS
    assert np.array_equal(LOADED.output.decode(replies[7].payload), LOADED.compute(FRAMES[0]))


def test_a_wrong_word_from_the_host_is_found_and_mended():
    replies, expected = _with_empty_flash()
    assert CodeStatus.decode(replies[11].payload).state is CodeState.WRONG
    assert CodeStatus.decode(replies[16].payload) == CodeStatus(CodeState.READY, LOADED.crc)
    for at in (11, 12, 16, 17):
        assert replies[at] == expected[at]


def test_requests_out_of_place_are_refused():
    replies = _with_right_flash()[0][5:-3]
    assert replies == _expected([*READY, *MISPLACED], LOADED.responder())[3:]
    codes = [r.payload[0] for r in replies if r.kind == Kind.ERROR]
    not_ready, length = ErrorCode.NOT_READY, ErrorCode.BAD_LENGTH
    assert codes == [*[not_ready] * 4, ErrorCode.BAD_KIND, *[length] * 4, not_ready]


def test_reads_the_flash_again_when_told_to():
    replies, flash = _with_right_flash()
    assert CodeStatus.decode(replies[-1].payload) == CodeStatus(CodeState.READY, LOADED.crc)
    assert flash.commands == [0xAB, 0x03, 0xAB, 0x03]


def test_boards_without_codes_to_load_know_none_of_this():
    from stand_in import small_top

    pins = PinSimulation(small_top())
    pins.exchange(STATUS.encode(), 10)
    reply = PacketDecoder().feed(bytes(pins.line.received))
    assert reply == [Packet(Kind.ERROR, 7, bytes((ErrorCode.BAD_KIND, Kind.CODES_STATUS)))]
