"""Activations as they are on the wires of a stream: plain bit patterns."""

import numpy as np
import numpy.typing as npt

from pvq_hw.numeric import IntFormat

__all__ = ["from_wire", "pack_frames", "to_wire", "unpack_frames", "unpack_words"]

IntArray = npt.NDArray[np.int64]


def to_wire(values: IntArray, form: IntFormat) -> IntArray:
    """Activations -> unsigned bit patterns of ``form.bits``; binary: 1 stands for -1."""
    if form.binary:
        return (np.asarray(values) < 0).astype(np.int64)
    return np.asarray(values, dtype=np.int64) & ((1 << form.bits) - 1)


def from_wire(words: IntArray, form: IntFormat) -> IntArray:
    """Inverse of `to_wire`."""
    words = np.asarray(words, dtype=np.int64)
    if form.binary:
        return 1 - 2 * words
    if not form.signed:
        return words
    return words - ((words >> (form.bits - 1)) << form.bits)


def pack_frames(x: IntArray, form: IntFormat, vector: int) -> list[int]:
    """Frames (frames, n) -> payloads of ``vector`` frames each, in the order of the stream.

    Frame 0 of a batch is in the lowest bits; the last batch is filled up with its last frame.
    """
    words = to_wire(x, form)
    if len(words) % vector:
        words = np.concatenate([words, np.repeat(words[-1:], -len(words) % vector, axis=0)])
    batches = words.reshape(-1, vector, words.shape[1]).transpose(0, 2, 1).reshape(-1, vector)
    if vector == 1:
        return [int(word) for word in batches[:, 0]]
    return [sum(int(w) << form.bits * v for v, w in enumerate(lanes)) for lanes in batches]


def unpack_frames(payloads: list[int], form: IntFormat, vector: int, rows: int) -> IntArray:
    """Inverse of `pack_frames`: payloads -> (frames, rows); an unfinished batch is left out."""
    size = -(-form.bits * vector // 32)
    octets = b"".join(payload.to_bytes(4 * size, "little") for payload in payloads)
    return unpack_words(np.frombuffer(octets, "<u4").reshape(-1, size), form, vector, rows)


def unpack_words(
    words: npt.NDArray[np.uint32], form: IntFormat, vector: int, rows: int
) -> IntArray:
    """`unpack_frames` from the payloads' 32-bit words, (payloads, words)."""
    words = words[: len(words) // rows * rows]
    wide = np.concatenate([words, np.zeros_like(words[:, :1])], axis=1).astype(np.uint64)
    lanes = []
    for v in range(vector):
        word, bit = divmod(v * form.bits, 32)
        lane = (wide[:, word] | wide[:, word + 1] << np.uint64(32)) >> np.uint64(bit)
        lanes.append((lane & np.uint64((1 << form.bits) - 1)).astype(np.int64))
    frames = np.stack(lanes, axis=1).reshape(-1, rows, vector).transpose(0, 2, 1)
    return from_wire(frames.reshape(-1, rows), form)
