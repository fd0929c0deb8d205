"""Activations as they are on the wires of a stream: plain bit patterns."""

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat

__all__ = ["from_wire", "pack_frames", "pack_words", "to_wire", "unpack_frames", "unpack_words"]

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


def pack_words(x: IntArray, form: IntFormat, vector: int, width: int = 1) -> npt.NDArray[np.uint32]:
    """Frames (frames, n) -> payloads of ``vector`` frames each, or of ``width`` activations of one,
    in the order of the stream.

    Frame 0 of a batch is in the lowest bits; the last batch is filled up with its last frame.
    Gives the payloads' 32-bit words, lowest first: (payloads, words).
    """
    wires = to_wire(x, form)
    if width > 1:
        # Every W-th activation, as if it were a frame of its own.
        split = wires.reshape(len(wires), -1, width).transpose(0, 2, 1)
        wires, vector = split.reshape(-1, split.shape[2]), width
    if len(wires) % vector:
        wires = np.concatenate([wires, np.repeat(wires[-1:], -len(wires) % vector, axis=0)])
    lanes = wires.reshape(-1, vector, wires.shape[1]).transpose(0, 2, 1).reshape(-1, vector)
    words = np.zeros((len(lanes), -(-form.bits * vector // 32) + 1), dtype=np.uint64)
    for v in range(vector):
        word, bit = divmod(v * form.bits, 32)
        lane = lanes[:, v].astype(np.uint64) << np.uint64(bit)
        words[:, word] |= lane & np.uint64(0xFFFFFFFF)
        words[:, word + 1] |= lane >> np.uint64(32)
    return words[:, :-1].astype(np.uint32)


def pack_frames(x: IntArray, form: IntFormat, vector: int, width: int = 1) -> list[int]:
    """`pack_words` as integers, one a payload."""
    words = pack_words(x, form, vector, width)
    if words.shape[1] == 1:
        return [int(word) for word in words[:, 0]]
    return [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in words]


def unpack_frames(
    payloads: list[int], form: IntFormat, vector: int, rows: int, width: int = 1
) -> IntArray:
    """Inverse of `pack_frames`: payloads -> (frames, rows); an unfinished batch is left out."""
    size = -(-form.bits * vector * width // 32)
    octets = b"".join(payload.to_bytes(4 * size, "little") for payload in payloads)
    return unpack_words(np.frombuffer(octets, "<u4").reshape(-1, size), form, vector, rows, width)


def unpack_words(
    words: npt.NDArray[np.uint32], form: IntFormat, vector: int, rows: int, width: int = 1
) -> IntArray:
    """`unpack_frames` from the payloads' 32-bit words, (payloads, words)."""
    if width > 1:
        parts = unpack_words(words, form, width, rows // width)
        split = parts.reshape(-1, width, rows // width).transpose(0, 2, 1)
        return split.reshape(len(split), rows)
    words = words[: len(words) // rows * rows]
    wide = np.concatenate([words, np.zeros_like(words[:, :1])], axis=1).astype(np.uint64)
    lanes = []
    for v in range(vector):
        word, bit = divmod(v * form.bits, 32)
        lane = (wide[:, word] | wide[:, word + 1] << np.uint64(32)) >> np.uint64(bit)
        lanes.append((lane & np.uint64((1 << form.bits) - 1)).astype(np.int64))
    frames = np.stack(lanes, axis=1).reshape(-1, rows, vector).transpose(0, 2, 1)
    return from_wire(frames.reshape(-1, rows), form)
