"""The host's end of the link, against the simulated pins behind a pseudo-terminal."""

import os
import pty
import random
import threading
import time
import tty
from dataclasses import replace

import numpy as np
import pytest
from stand_in import IDENTITY, S8, S16, U8, small_top

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import CheckError, InputError, ToolError
from pvq_hw.host.board_model import Responder
from pvq_hw.host.link import Link, LinkStatistics
from pvq_hw.host.protocol import (
    Counters,
    Description,
    ErrorCode,
    Kind,
    Packet,
    PacketDecoder,
    WireFormat,
)
from pvq_hw.host.serial_port import open_port
from sim.agents.paced_board import PacedBoard
from sim.agents.pty_board import PtyBoard

X, OUT = WireFormat(6, U8), WireFormat(3, S16)


def _frames(wire, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(wire.format.min, wire.format.max + 1, (count, wire.count))


def _golden(top, frames):
    return np.array([top.accelerator.compute(f) for f in frames])


class Wire:
    """A line to a `Responder`, with whatever happens to bytes on it; idle when there is nothing."""

    def __init__(self, predict, *, spoil=bytes, spoil_reply=bytes, window=4, x=X, out=OUT):
        self.board = Responder(Description(x, out, 36_000_000, 10**6, window, IDENTITY), predict)
        self._spoil, self._spoil_reply = spoil, spoil_reply
        self._coming = b""
        self.closed = False
        self.sent = b""

    def write(self, data):
        self.sent += data
        self._coming += self._spoil_reply(self.board.feed(self._spoil(data)))

    def read(self, seconds):
        if not self._coming:
            self._coming += self.board.idle()
        data, self._coming = self._coming[:5], self._coming[5:]
        return data

    def close(self):
        self.closed = True


def _sum(frame):
    return np.array([frame.sum(), frame[0], -frame[-1]])


def test_frames_reach_the_simulated_pins_and_come_back():
    top = small_top(X, OUT)
    frames = _frames(X, 8)
    seen = []
    with (
        PtyBoard(top) as board,
        Link(open_port(board.path, 115_200), timeout=120) as link,
    ):
        assert link.describe() == top.description
        results = link.infer(frames, lambda done, total: seen.append((done, total)))
        index, value = link.classify(frames[:3])
        counters = link.counters()
    assert board.error is None
    golden = _golden(top, frames)
    assert np.array_equal(results, golden)
    assert np.array_equal(index, golden[:3].argmax(axis=1))
    assert np.array_equal(value, golden[:3].max(axis=1))
    assert counters == Counters(11, 0, 0, 0, 0)
    assert seen == [(n + 1, 8) for n in range(8)]
    assert link.statistics.retries == 0


def test_a_bad_line_to_the_simulated_pins_costs_time_and_nothing_else(monkeypatch):
    top = small_top(X, OUT, idle_clocks=256)
    # A bit of the payload, which the CRC tells; then of the length, which swallows what follows
    # until the line has been idle.
    damage = {40: 1, 47: 0x80}
    seen, described = 0, False

    def spoil(data):
        nonlocal seen
        if not described:
            return data
        out = bytearray(data)
        for i in range(len(out)):
            out[i] ^= damage.get(seen + i, 0)
        seen += len(out)
        return bytes(out)

    frames = _frames(X, 6)
    # Time is the board's own: no load on the machine makes a reply late.
    board = PacedBoard(top, top.description.clock_hz, spoil)
    monkeypatch.setattr("pvq_hw.host.link.time", board)
    with Link(board, timeout=0.001, retries=3) as link:
        link.describe()
        described = True
        results = link.infer(frames)
    assert np.array_equal(results, _golden(top, frames))
    # A description and six frames; again the two with an error, and four that the wrong length
    # swallowed.
    assert link.statistics == LinkStatistics(sent=13, retries=6, errors=2, timeouts=4)


def test_wide_activations_and_signs_survive():
    x, out = WireFormat(5, IntFormat(12, True)), WireFormat(4, S8)
    wire = Wire(lambda f: np.clip(f[:4] >> 4, -128, 127), x=x, out=out)
    frames = _frames(x, 9)
    with Link(wire) as link:
        assert np.array_equal(link.infer(frames), frames[:, :4] >> 4)
        index, value = link.classify(frames)
    assert np.array_equal(index, (frames[:, :4] >> 4).argmax(axis=1))
    assert np.array_equal(value, (frames[:, :4] >> 4).max(axis=1))
    assert wire.closed


def test_many_frames_over_a_line_that_spoils_both_directions():
    rng = random.Random(7)

    def spoil(data):
        out = bytearray(data)
        for i in range(len(out)):
            if rng.random() < 0.004:
                out[i] ^= 1 << rng.randrange(8)
        return bytes(out)

    wire = Wire(_sum, spoil=spoil, spoil_reply=spoil)
    frames = _frames(X, 400)
    link = Link(wire, timeout=0.02, retries=20)
    assert np.array_equal(link.infer(frames), [_sum(f) for f in frames])
    assert link.statistics.retries > 10
    assert link.statistics.errors > 0
    assert link.statistics.damaged > 0


def test_never_more_frames_under_way_than_the_window():
    class Counting(Wire):
        under_way = most = 0

        def write(self, data):
            super().write(data)
            kinds = [p.kind for p in PacketDecoder().feed(data)]
            self.under_way += kinds.count(Kind.INFER)
            self.most = max(self.most, self.under_way)

        def read(self, seconds):
            data = self._coming[: OUT.frame_bytes + 8]
            self._coming = self._coming[len(data) :]
            self.under_way -= [p.kind for p in PacketDecoder().feed(data)].count(Kind.RESULTS)
            return data

    wire = Counting(_sum, window=3)
    link = Link(wire)
    # A description is longer than a reply: let it through first.
    wire.read = lambda seconds: Wire.read(wire, seconds)
    link.describe()
    del wire.read
    assert np.array_equal(link.infer(_frames(X, 20)), [_sum(f) for f in _frames(X, 20)])
    assert wire.most == 3


def test_an_overrun_narrows_the_window_and_the_frame_goes_again():
    class Overrun(Wire):
        refused = 0

        def write(self, data):
            for packet in PacketDecoder().feed(data):
                if packet.kind == Kind.INFER and self.refused < 9:
                    self.refused += 1
                    reply = Packet(Kind.ERROR, packet.tag, bytes((ErrorCode.OVERRUN, Kind.INFER)))
                    self._coming += reply.encode()
                else:
                    super().write(data)

    link = Link(Overrun(_sum), retries=2)
    assert np.array_equal(link.infer(_frames(X, 5)), [_sum(f) for f in _frames(X, 5)])
    assert link.statistics.overruns == 9


def test_no_frames_give_no_results():
    assert Link(Wire(_sum)).infer(np.zeros((0, 6), dtype=int)).shape == (0, 3)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 5), dtype=int), r"Frames must be integers of shape \(frames, 6\), not int64"),
        (np.zeros((2, 6)), r"not float64 \(2, 6\)"),
        (np.zeros(6, dtype=int), r"not int64 \(6,\)"),
        (np.full((1, 6), 256), r"Frame must be within 0\.\.255"),
    ],
)
def test_refuses_frames_that_are_not_the_boards(frames, message):
    with pytest.raises(InputError, match=message):
        Link(Wire(_sum)).infer(frames)


def test_refuses_another_network():
    description = Link(Wire(_sum)).describe()
    with pytest.raises(
        CheckError, match="must hold network 0000000000000000, not 0123456789abcdef"
    ):
        description.require(replace(description, identity=bytes(8)))


class Silent:
    """Nothing answers."""

    def read(self, seconds):
        return b""

    def write(self, data):
        pass

    def close(self):
        pass


def test_a_class_that_there_is_not_is_no_answer():
    wire = Wire(_sum, out=WireFormat(5, S16))
    wire.board.predict = lambda frame: np.arange(5)
    with Link(wire) as link:
        assert link.classify(_frames(X, 2))[0].tolist() == [4, 4]
        wire.board.predict = lambda frame: np.arange(9)
        with pytest.raises(ToolError, match="Board's largest must be one of 5, not number 8"):
            link.classify(_frames(X, 2))


def test_a_silent_board_is_given_up():
    with pytest.raises(ToolError, match="Board must answer, but nothing came"):
        Link(Silent(), timeout=0.01, retries=2).describe()


def test_a_board_that_goes_silent_is_given_up():
    wire = Wire(_sum)
    link = Link(wire, timeout=0.01, retries=3)
    link.describe()
    wire.board.feed = lambda data: b""
    with pytest.raises(ToolError, match="Board must answer frame 0, but did not in 4 tries"):
        link.infer(_frames(X, 3))


class Full(Wire):
    """Answers OVERRUN to every frame; with ``deaf`` only to the first ones."""

    frames, deaf = 0, 1 << 30

    def write(self, data):
        for packet in PacketDecoder().feed(data):
            if packet.kind == Kind.DESCRIBE:
                super().write(data)
            elif self.frames < self.deaf:
                self.frames += 1
                error = Packet(Kind.ERROR, packet.tag, bytes((ErrorCode.OVERRUN, packet.kind)))
                self._coming += error.encode()


def test_a_board_that_has_never_room_is_given_up():
    wire = Full(_sum)
    link = Link(wire, timeout=0.04, retries=2)
    with pytest.raises(ToolError, match=r"^The board had no room for frame \d in 0\.12\d? s$"):
        link.infer(_frames(X, 50))
    # All of the window, then a frame in every pause.
    assert 4 < wire.frames == link.statistics.overruns <= 4 + 3 * 8 + 1


def test_overruns_and_silence_in_turn_are_given_up():
    wire = Full(_sum)
    wire.deaf = 6
    with pytest.raises(ToolError, match=r"Board must answer frame \d, but did not in 4 tries"):
        Link(wire, timeout=0.02, retries=3).infer(_frames(X, 2))


def test_the_lines_rate_is_not_what_the_board_says():
    slow = Wire(_sum)
    slow.board = Responder(Description(X, OUT, 36_000_000, 1, 4, IDENTITY), _sum)
    link = Link(slow, timeout=0.01, retries=1, baud=1_000_000)
    assert link.describe().baud == 1
    slow.board.feed = lambda data: b""
    started = time.monotonic()
    with pytest.raises(ToolError, match="Board must answer frame 0"):
        link.infer(_frames(X, 3))
    with pytest.raises(ToolError, match="Board must answer, but nothing came"):
        link.counters()
    assert time.monotonic() - started < 60  # at one bit a second minutes


def test_ports_that_cannot_be_opened(tmp_path):
    plain = tmp_path / "file"
    plain.write_bytes(b"")
    for path in (str(tmp_path / "none"), str(plain), str(tmp_path), "a\0b"):
        with pytest.raises(InputError, match=r"Port .* cannot be opened") as caught:
            open_port(path, 115_200)
        assert "\n" not in str(caught.value)


def test_a_port_that_goes_away_is_one_line():
    board, host = pty.openpty()
    tty.setraw(host)
    port = open_port(os.ttyname(host), 115_200)
    os.close(host)
    threading.Timer(0.05, os.close, (board,)).start()
    with pytest.raises(ToolError, match=r"Port .* is gone; is the board still plugged in\?"):
        Link(port, timeout=2).describe()
    port.close()
