"""Activations as they are on the wires of a stream: plain bit patterns."""

import numpy as np
import numpy.typing as npt

from pvq_hw.numeric import IntFormat

__all__ = ["from_wire", "to_wire", "unpack_frames"]

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


def unpack_frames(payloads: list[int], form: IntFormat, vector: int) -> IntArray:
    """Payloads that each hold ``vector`` frames' activations -> (payloads, vector) activations.

    Frame 0 is in the lowest bits.
    """
    mask = (1 << form.bits) - 1
    lanes = [[payload >> (form.bits * v) & mask for v in range(vector)] for payload in payloads]
    return from_wire(np.array(lanes, dtype=np.int64).reshape(len(payloads), vector), form)
