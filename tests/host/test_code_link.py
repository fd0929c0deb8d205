"""Codes from the host to a board: over good and bad lines, to the golden model and to the pins."""

import random

import numpy as np
import pytest
from loaded import Loaded

from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.code_link import code_status, load_codes, require_codes
from pvq_hw.host.code_state import CodeState
from pvq_hw.host.link import Link, connect
from pvq_hw.host.protocol import ErrorCode, Kind, Packet
from sim.agents.pty_board import PtyBoard

LOADED = Loaded()


class Line:
    """A port to a `Responder`; ``spoil`` is what becomes of each request."""

    def __init__(self, board, spoil=bytes):
        self.board, self._spoil, self._coming = board, spoil, b""
        self.packets = []

    def write(self, data):
        self.packets.append(data)
        self._coming += self.board.feed(self._spoil(data))

    def read(self, seconds):
        if not self._coming:
            self._coming += self.board.idle()
        data, self._coming = self._coming, b""
        return data

    def close(self):
        pass


def _link(board, spoil=bytes, **options):
    return Link(Line(board, spoil), timeout=0.02, **options)


def _load(link, words=None, crc=None, progress=lambda done, total: None):
    load_codes(link, words or LOADED.words, LOADED.crc if crc is None else crc, progress)


def test_a_board_without_codes_takes_them_and_then_frames():
    link = _link(LOADED.responder(b""))
    frames, told = LOADED.frames(3), []
    assert code_status(link).state is CodeState.ABSENT
    with pytest.raises(InputError, match="its flash holds none of them; write them with"):
        require_codes(link)
    with pytest.raises(InputError, match="Board must have its codes before INFER"):
        link.infer(frames)
    _load(link, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (LOADED.layout.size // 2,) * 2
    require_codes(link)
    assert np.array_equal(link.infer(frames), [LOADED.compute(f) for f in frames])


def test_long_codes_go_in_pieces(monkeypatch):
    monkeypatch.setattr("pvq_hw.host.code_link.CHUNK_WORDS", 2)
    link = _link(LOADED.responder(b""))
    _load(link)
    writes = [p for p in link.port.packets if p[2] == Kind.CODES_WRITE]
    assert len(writes) == sum(-(-len(block) // 2) for block in LOADED.words)
    assert code_status(link).state is CodeState.READY


def test_a_bad_line_costs_time_but_no_bit():
    chance = random.Random(3)

    def spoil(data):
        data = bytearray(data)
        if chance.random() < 0.3:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data)

    link = _link(LOADED.responder(b""), spoil, retries=30)
    link.describe()
    _load(link)
    assert code_status(link).state is CodeState.READY
    assert link.statistics.retries > 0


def test_a_board_that_stays_wrong_is_given_up():
    board = LOADED.responder(b"")
    wrong = [[word ^ (number == 1) for word in block] for number, block in enumerate(LOADED.words)]
    link = _link(board)
    with pytest.raises(ToolError, match=r"Board must have codes of checksum \w{8}, but has"):
        _load(link, wrong)
    assert code_status(link).state is CodeState.WRONG
    with pytest.raises(InputError, match="their checksum is wrong"):
        require_codes(link)


def test_another_networks_board_is_told_apart():
    board = LOADED.responder(b"")
    board.codes.crc ^= 1
    with pytest.raises(InputError, match="The board holds another network, which wants"):
        _load(_link(board))


def test_a_load_that_was_cut_short_is_told():
    link = _link(LOADED.responder())
    link.ask(Kind.CODES_OPEN, Kind.CODES)
    with pytest.raises(InputError, match="a load was cut short"):
        require_codes(link)


def test_refusals_are_one_line():
    class Refuses:
        def feed(self, data):
            return Packet(Kind.ERROR, data[3], bytes((ErrorCode.BAD_KIND, data[2]))).encode()

        def idle(self):
            return b""

    with pytest.raises(InputError, match="must take CODES_OPEN, but refuses it: BAD_KIND"):
        _load(_link(Refuses()))


def test_loads_and_runs_from_pin_to_pin():
    frames = LOADED.frames(2)
    with PtyBoard(LOADED.top(), flash=LOADED.flash(b"")) as board:
        with connect(board.path, 1_000_000, timeout=30.0) as link:
            link.describe()
            with pytest.raises(InputError, match="its flash holds none"):
                require_codes(link)
            _load(link)
            assert np.array_equal(link.infer(frames), [LOADED.compute(f) for f in frames])
        assert board.error is None
