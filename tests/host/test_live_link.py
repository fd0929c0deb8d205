"""Weights from the host to a board that runs: over good and bad lines, to its golden model."""

import random
import zlib

import numpy as np
import pytest
from live_board import LiveBoard

from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.code_link import code_status, load_live
from pvq_hw.host.code_state import CodeState
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import Description, Kind

BOARD = LiveBoard()
NEW = BOARD.networks[1]


class Line:
    """A port to a golden model; ``spoil`` is what becomes of each request."""

    def __init__(self, responder, spoil=bytes):
        self.responder, self._spoil, self._coming = responder, spoil, b""

    def write(self, data):
        self._coming += self.responder.feed(self._spoil(data))

    def read(self, seconds):
        if not self._coming:
            self._coming += self.responder.idle()
        data, self._coming = self._coming, b""
        return data

    def close(self):
        pass


def _link(board=BOARD, spoil=bytes, **options):
    return Link(Line(board.responder(), spoil), timeout=0.02, **options)


@pytest.mark.parametrize("family", ["up5k", "ecp5"])
def test_contents_carry_a_checksum_that_is_the_circuits(family):
    board = LiveBoard(family)
    for network in board.networks:
        data = b"".join(map(board.layout.encoded, board.words(network)))
        assert len(data) == board.layout.size
        assert zlib.crc32(data, board.layout.seed) == board.layout.right
        told = board.layout.told(network.contents, network.description.encode())
        size = board.layout.told_bytes
        text = b"".join(word.to_bytes(size, "little") for word in told)
        assert Description.decode(text[: Description.SIZE]) == network.description


@pytest.mark.parametrize("banks", [1, 2])
def test_a_board_takes_other_weights_and_its_own_again(banks):
    board, frames = LiveBoard(banks=banks), BOARD.frames(3)
    link, told = _link(board), []
    for network in (board.networks[1], board.networks[0], board.networks[1]):
        load_live(link, board.layout, board.words(network), lambda *at: told.append(at))
        link.forget()
        assert link.describe() == network.description
        assert np.array_equal(link.infer(frames), [network.compute(f) for f in frames])
    words = board.layout.size // board.layout.word_bytes
    assert told[-1] == (words, words)


def test_long_contents_go_in_pieces_over_a_bad_line(monkeypatch):
    monkeypatch.setattr("pvq_hw.host.code_link.CHUNK_WORDS", 7)
    chance = random.Random(3)

    def spoil(data):
        data = bytearray(data)
        if chance.random() < 0.2:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data)

    link = _link(spoil=spoil, retries=30)
    load_live(link, BOARD.layout, BOARD.words(NEW))
    assert link.statistics.retries > 0
    assert link.describe() == NEW.description


def test_another_circuits_weights_are_found_out():
    """Of the same memories, but with another table's size of shift in the logic."""
    link, words = _link(), [list(block) for block in BOARD.words(NEW)]
    other = LiveBoard()
    object.__setattr__(other.layout, "circuit", b"other")
    with pytest.raises(ToolError, match=r"checksum is wrong after 3 loads; is its bitstream this"):
        load_live(link, other.layout, other.words(other.networks[1]))
    assert code_status(link).state is CodeState.WRONG
    assert link.describe() == BOARD.networks[0].description  # which still answers
    words[0][0] ^= 1
    with pytest.raises(ToolError, match="checksum is wrong"):
        load_live(link, BOARD.layout, words)


def test_one_bank_refuses_until_it_is_right():
    board = LiveBoard(banks=1)
    link = _link(board)
    link.describe()
    link.ask(Kind.CODES_OPEN, Kind.CODES)
    with pytest.raises(InputError, match="Board must have its codes before INFER"):
        link.infer(BOARD.frames(1))
    with pytest.raises(InputError, match="Board must have its codes before DESCRIBE"):
        link.ask(Kind.DESCRIBE, Kind.DESCRIPTION)
