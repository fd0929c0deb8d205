"""Static rANS coder over interleaved lanes (Duda 2013; Giesen 2014), integers only.

Symbol t goes through lane ``t mod L``; each lane is a state of 32 bits that takes in or gives off
words of 16. All lanes of a step are worked on at once.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["PRECISION", "decode", "encode", "lanes_for", "normalize"]

PRECISION = 14  # frequencies sum to 2**14
_TOTAL = 1 << PRECISION
_LOW = 1 << 16  # states are within [2**16, 2**32)

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint16]


def lanes_for(count: int) -> int:
    """L for so many symbols: one lane per 8,192, so that a lane's 32 bits cost next to nothing."""
    return max(1, -(-count // 8192))


def normalize(counts: Ints) -> Ints:
    """Frequencies that sum to 2**14, at least 1 where the count is.

    Parameters
    ----------
    counts : int64 array (S,)
        Occurrences; at most 2**14 of them nonzero, and at least one; their sum below 2**48.
    """
    total = int(counts.sum())
    scaled = (counts * _TOTAL) // total
    frequencies = np.where(counts > 0, np.maximum(scaled, 1), 0)
    excess = int(frequencies.sum()) - _TOTAL
    while excess:
        largest = int(np.argmax(frequencies))
        change = min(excess, int(frequencies[largest]) // 2)
        frequencies[largest] -= change
        excess -= change
    return frequencies


def encode(symbols: Ints, frequencies: Ints) -> tuple[npt.NDArray[np.uint32], Words]:
    """Codes symbols; every symbol's frequency must be at least 1.

    Returns
    -------
    states : uint32 array (L,)
        Where the decoder starts.
    words : uint16 array
        What it reads, in its order.
    """
    lanes = lanes_for(len(symbols))
    starts = np.cumsum(frequencies) - frequencies
    f, c = frequencies[symbols], starts[symbols]
    state = np.full(lanes, _LOW, dtype=np.int64)
    pieces: list[npt.NDArray[np.int64]] = []
    for begin in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        fs, cs = f[begin : begin + lanes], c[begin : begin + lanes]
        x = state[: len(fs)]
        # fs * 2**18 is the first state that would leave 32 bits.
        full = np.flatnonzero(x >= fs << (32 - PRECISION))
        if len(full):
            pieces.append(x[full] & 0xFFFF)
            x[full] >>= 16
        quotient = x // fs
        x += quotient * (_TOTAL - fs) + cs
    pieces.reverse()
    words = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    return state.astype(np.uint32), words.astype(np.uint16)


def decode(
    count: int, frequencies: Ints, states: npt.NDArray[np.uint32], words: Words
) -> Ints | None:
    """Inverse of `encode`: int64 array (count,), or None unless states and words end as they must.

    Parameters
    ----------
    count : int
    frequencies : int64 array (S,), their sum 2**14
    states : uint32 array (L,), L = `lanes_for` (count)
    words : uint16 array, all of them
    """
    lanes = lanes_for(count)
    symbol_of = np.repeat(np.arange(len(frequencies)), frequencies)
    frequency_of = frequencies[symbol_of]
    rest_of = np.arange(_TOTAL) - (np.cumsum(frequencies) - frequencies)[symbol_of]
    state = states.astype(np.int64)
    stream = words.astype(np.int64)
    slots = np.empty(count, dtype=np.int64)
    position = 0
    for begin in range(0, count, lanes):
        x = state[: count - begin]
        slot = x & (_TOTAL - 1)
        slots[begin : begin + lanes] = slot
        x >>= PRECISION
        x *= frequency_of[slot]
        x += rest_of[slot]
        empty = np.flatnonzero(x < _LOW)
        if len(empty):
            more = stream[position : position + len(empty)]
            if len(more) < len(empty):
                return None
            position += len(empty)
            x[empty] = x[empty] << 16 | more
    if position != len(stream) or not (state == _LOW).all():
        return None
    return symbol_of[slots]
