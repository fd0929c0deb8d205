"""Codes that come from the flash for every frame: the file, its checksum, when words arrive."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from pvq_hw.engine.code_stream import (
    Arrivals,
    first_word,
    pass_cycles,
    sent_bits,
    stream_crc,
    stream_cycles,
    stream_file,
)


def core(width, words, depth=4, runs=None, params=0, flash_bits=1):
    runs = runs or ((0, words),)
    return SimpleNamespace(
        word_bits=width, stream_words=sum(map(sum, runs)), stream_runs=runs, code_buffer=depth,
        params_places=params, flash_bits=flash_bits,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("width", "words", "flash_bits", "sent"),
    [(1, 1, 1, 1), (7, 3, 1, 7), (13, 8, 1, 13), (57, 40, 1, 57),
     (7, 3, 2, 8), (8, 5, 2, 8), (8, 5, 4, 8), (13, 8, 4, 16), (57, 41, 4, 60), (57, 41, 2, 58)],
)  # fmt: skip
def test_the_file_has_the_words_bits_and_their_checksum(width, words, flash_bits, sent):
    spec = core(width, words, flash_bits=flash_bits)
    rng = np.random.default_rng(width)
    codes = [int.from_bytes(rng.bytes(8), "big") >> (64 - width) for _ in range(words)]
    data = stream_file(spec, codes)
    bits = "".join(f"{byte:08b}" for byte in data[16:])
    # Zeros before a word, so that each begins with a clock of the flash.
    assert [int(bits[k * sent : (k + 1) * sent], 2) for k in range(words)] == codes
    assert (set(bits[words * sent :]) <= {"0"}, sent_bits(spec)) == (True, sent)
    assert (data[:4], data[4], int.from_bytes(data[8:12], "little")) == (b"PVQC", 2, len(data) - 16)
    assert int.from_bytes(data[12:16], "little") == stream_crc(spec, codes)


def test_the_checksum_is_crc_32_of_the_bits_in_their_order():
    whole = [0x12, 0x80, 0xFF, 0x01]
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in whole)
    assert stream_crc(core(8, 4), whole) == zlib.crc32(turned)
    # Of a part of a byte: the polynomial's division, bit by bit.
    state = 0xFFFFFFFF
    for bit in "101011110":
        state ^= int(bit)
        state = state >> 1 ^ (0xEDB88320 if state & 1 else 0)
    assert stream_crc(core(3, 3), [0b101, 0b011, 0b110]) == state ^ 0xFFFFFFFF


# Cycles of a word, and from a pass's end to the next one's first word: a pause of 8, a command of 8
# clocks, 24 of the address, 8 of the dummy byte of fast reads, two cycles each.
@pytest.mark.parametrize(("flash_bits", "word", "between"), [(1, 10, 72), (2, 6, 88), (4, 4, 88)])
def test_words_come_one_after_the_other_as_far_as_there_is_room(flash_bits, word, between):
    spec = core(5, 3, 4, flash_bits=flash_bits)
    arrivals = Arrivals(spec)
    start = between - 4
    assert (first_word(flash_bits), pass_cycles(flash_bits)) == (start, between)
    assert arrivals.ready() == start + word + 3
    assert arrivals.ready(3) == start + 3 * word + 3
    assert arrivals.ready(4) == start + 4 * word + between + 3
    # The fifth word has no place before the first is given back.
    late = 5000
    assert arrivals.take(late) == late
    assert arrivals.ready(3) == start + 4 * word + between + 3
    assert arrivals.ready(4) == late + 1 + word + 3
    assert stream_cycles(spec) == 3 * word + between


def test_words_of_rows_come_before_the_codes_of_their_layer():
    spec = core(5, 0, 4, ((2, 1), (1, 3)), 3)
    arrivals, word = Arrivals(spec), 10
    assert arrivals.ready() == first_word(1) + 3 * word + 3
    assert arrivals.ready(4) == first_word(1) + 7 * word + 3
    # The next pass's first word of a row has no place, and neither has its first code word.
    arrivals.free(3000)
    arrivals.free_params(4000, 2)
    arrivals.free(5000, 3)
    assert arrivals.ready() == 4001 + 3 * word + 3
    arrivals.free(6000)
    arrivals.free_params(6010, 1)
    assert arrivals.ready(3) == 6011 + 4 * word + 3
    assert stream_cycles(spec) == 7 * word + pass_cycles(1)
