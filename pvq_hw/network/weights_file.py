"""The file ``weights.pvq``: integer matrices near their entropy, in integers only.

The format is in docs/weights-format.md. Short rows are numbered among the codewords of their K,
long ones go through a static entropy coder; each matrix takes what is smaller.
"""

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.network import rans
from pvq_hw.network.bits import BitReader, ByteReader, pack_bits, varint
from pvq_hw.pyramid.enumeration import codeword, index_of_list, volume

__all__ = ["MAGIC", "pack_weights", "unpack_weights"]

MAGIC = b"PVQ\x01"  # the last byte is the format's version

IntArray = npt.NDArray[np.int64]

_WHAT = "Packed weights"
_MAX_SIDE = (1 << 31) - 1
_WEIGHTS_PER_BYTE = 4096  # bounds what a file can make its reader allocate
_ENTROPY = 255  # the code byte of an entropy-coded matrix; smaller ones are widths of K
_MAX_WIDTH = 8
_NUMBERED_N = 256  # bounds of numbered matrices, so that their integers stay small
_NUMBERED_K = 256
_NUMBERED_WEIGHTS = 1 << 16
_BLOCK = 16  # rows that share one number
_DIRECT = 16  # magnitudes below have a symbol each, the others one per bit length
_SYMBOLS = _DIRECT + 60  # bit lengths 5 to 64
_STARTS = np.array([1 << b for b in range(4, 64)], dtype=np.uint64)


def pack_weights(matrices: Sequence[npt.ArrayLike]) -> bytes:
    """Packs integer matrices into one file.

    Parameters
    ----------
    matrices : sequence of integer arrays (M, N)
        At least one row and one column each; any values of int64.

    Returns
    -------
    bytes
        The same on every machine and version. For pyramid codewords about log2 V(N, K) bits per
        row or less, and 4 to 20 bytes per matrix.
    """
    out = bytearray(MAGIC)
    weights = 0
    for number, matrix in enumerate(matrices):
        y = _as_matrix(matrix, number)
        weights += y.size
        out += varint(y.shape[0]) + varint(y.shape[1]) + _smaller(y)
    out += bytes(max(0, _least_size(weights) - len(out) - 4))
    return bytes(out) + zlib.crc32(out).to_bytes(4, "little")


def unpack_weights(data: bytes) -> list[IntArray]:
    """Inverse of `pack_weights`: the matrices, int64.

    Time and memory are bounded by the length of the file: at most 4,096 weights per byte.

    Raises
    ------
    InputError
        Anything but a whole file of this format: one changed bit is always found.
    """
    if len(data) < len(MAGIC) + 4 or data[:3] != MAGIC[:3]:
        raise InputError(f"{_WHAT} must be a file of the PVQ format, not {len(data)} other bytes")
    if data[3] != MAGIC[3]:
        raise InputError(f"{_WHAT} must be of format version {MAGIC[3]}, not {data[3]}")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise InputError(f"{_WHAT} must match their checksum, but do not: the file is damaged")
    reader = ByteReader(bytes(data[4:-4]), _WHAT)
    matrices = []
    weights = 0
    while reader.left and reader.peek():
        shape = reader.varint(_MAX_SIDE), reader.varint(_MAX_SIDE)
        weights += shape[0] * shape[1]
        if not shape[1]:
            raise reader.fail("a matrix must have at least one column")
        if _least_size(weights) > len(data):
            raise reader.fail(f"a matrix of {shape[0]} x {shape[1]} can't be in {len(data)} bytes")
        matrices.append(_read(reader, *shape))
    content = len(data) - reader.left
    if any(reader.take(reader.left)) or len(data) != max(content, _least_size(weights)):
        raise reader.fail("nothing may follow the last matrix")
    return matrices


def _least_size(weights: int) -> int:
    return -(-weights // _WEIGHTS_PER_BYTE)


def _as_matrix(matrix: npt.ArrayLike, number: int) -> IntArray:
    array = np.asarray(matrix)
    what = f"Weights of matrix {number}"
    if array.dtype.kind not in "iu":
        raise InputError(f"{what} must be integers, not {array.dtype}")
    if array.ndim != 2 or not 1 <= min(array.shape) <= max(array.shape) <= _MAX_SIDE:
        raise InputError(f"{what} must have the shape (M >= 1, N >= 1), not {array.shape}")
    if array.dtype.kind == "u" and int(array.max()) >= 1 << 63:
        raise InputError(f"{what} must be less than 2**63, not {int(array.max())}")
    return array.astype(np.int64)


def _smaller(y: IntArray) -> bytes:
    coded = _entropy_coded(y)
    if y.shape[1] > _NUMBERED_N or y.size > _NUMBERED_WEIGHTS:
        return coded
    magnitude = np.abs(y)
    # The second test makes the sums safe; it is on the most negative int64 as well.
    if magnitude.min() < 0 or magnitude.max() > _NUMBERED_K:
        return coded
    if magnitude.sum(axis=1).max() > _NUMBERED_K:
        return coded
    numbered = _numbered(y)
    return numbered if len(numbered) <= len(coded) else coded


def _read(reader: ByteReader, rows: int, n: int) -> IntArray:
    code = reader.take(1)[0]
    if code == _ENTROPY:
        return _read_entropy_coded(reader, rows, n)
    if code > _MAX_WIDTH:
        raise reader.fail(f"code {code} of a matrix is unknown")
    if n > _NUMBERED_N or rows * n > _NUMBERED_WEIGHTS:
        raise reader.fail(f"a matrix of {rows} x {n} can't be numbered")
    return _read_numbered(reader, rows, n, code)


# -- numbered rows --------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _volume(n: int, k: int) -> int:
    return volume(n, k)


def _numbered(y: IntArray) -> bytes:
    n = y.shape[1]
    pulses: list[int] = np.abs(y).sum(axis=1).tolist()
    least = min(pulses)
    width = (max(pulses) - least).bit_length()
    fields = [(k - least, width) for k in pulses]
    rows = y.tolist()
    for start in range(0, len(rows), _BLOCK):
        total, number = 1, 0
        for row, k in zip(
            rows[start : start + _BLOCK], pulses[start : start + _BLOCK], strict=True
        ):
            size = _volume(n, k)
            number = number * size + index_of_list(row)
            total *= size
        fields.append((number, (total - 1).bit_length()))
    return bytes([width]) + varint(least) + pack_bits(fields)


def _read_numbered(reader: ByteReader, rows: int, n: int, width: int) -> IntArray:
    least = reader.varint(_NUMBERED_K)
    if width * rows > 8 * reader.left:
        raise reader.fail(f"K of {rows} rows must follow")
    bits = BitReader(reader)
    pulses = [least + bits.take(width) for _ in range(rows)]
    if max(pulses) > _NUMBERED_K:
        raise reader.fail(f"K must be at most {_NUMBERED_K}, not {max(pulses)}")
    y = np.zeros((rows, n), dtype=np.int64)
    for start in range(0, rows, _BLOCK):
        block = pulses[start : start + _BLOCK]
        total = math.prod(_volume(n, k) for k in block)
        number = bits.take((total - 1).bit_length())
        if number >= total:
            raise reader.fail(f"the number of the rows from {start} must be less than {total}")
        for row in range(start + len(block) - 1, start - 1, -1):
            number, index = divmod(number, _volume(n, pulses[row]))
            if pulses[row]:
                y[row] = codeword(n, pulses[row], index)
    bits.close()
    return y


# -- entropy-coded matrices -----------------------------------------------------------------------


def _planes(symbols: IntArray) -> list[tuple[npt.NDArray[np.intp], int]]:
    """Where the symbols stand for a bit length b, and b - 1, the low bits that follow; b rising."""
    top = int(symbols.max())
    return [(np.flatnonzero(symbols == s), s - _DIRECT + 4) for s in range(_DIRECT, top + 1)]


def _entropy_coded(y: IntArray) -> bytes:
    flat = y.ravel()
    magnitude = np.abs(flat).view(np.uint64)
    symbols = np.minimum(magnitude, _DIRECT - 1).astype(np.int64)
    symbols += np.searchsorted(_STARTS, magnitude, side="right")
    frequencies = rans.normalize(np.bincount(symbols))
    states, words = rans.encode(symbols, frequencies)
    raw = [(flat[symbols > 0] < 0).astype(np.uint8)]
    for where, width in _planes(symbols):
        values = magnitude[where]
        raw += [(values >> np.uint64(j) & np.uint64(1)).astype(np.uint8) for j in range(width)]
    return b"".join(
        [
            bytes([_ENTROPY, len(frequencies)]),
            *(varint(int(f)) for f in frequencies),
            states.astype("<u4").tobytes(),
            varint(len(words)),
            words.astype("<u2").tobytes(),
            np.packbits(np.concatenate(raw)).tobytes(),
        ]
    )


def _read_entropy_coded(reader: ByteReader, rows: int, n: int) -> IntArray:
    count = rows * n
    size = reader.take(1)[0]
    if not 1 <= size <= _SYMBOLS:
        raise reader.fail(f"a table must have 1 to {_SYMBOLS} symbols, not {size}")
    frequencies = np.array([reader.varint(1 << rans.PRECISION) for _ in range(size)])
    if int(frequencies.sum()) != 1 << rans.PRECISION or not frequencies[-1]:
        raise reader.fail(f"frequencies must sum to {1 << rans.PRECISION}")
    states = np.frombuffer(reader.take(4 * rans.lanes_for(count)), dtype="<u4")
    words = np.frombuffer(reader.take(2 * reader.varint(count)), dtype="<u2")
    symbols = rans.decode(count, frequencies, states, words)
    if symbols is None:
        raise reader.fail("the entropy-coded symbols don't end where they must")
    return _magnitudes_and_signs(reader, symbols).reshape(rows, n)


def _magnitudes_and_signs(reader: ByteReader, symbols: IntArray) -> IntArray:
    nonzero = np.flatnonzero(symbols)
    planes = _planes(symbols)
    total = len(nonzero) + sum(len(where) * width for where, width in planes)
    bits = np.unpackbits(np.frombuffer(reader.take(-(-total // 8)), dtype=np.uint8))
    if bits[total:].any():
        raise reader.fail("padding must be 0")
    magnitude = symbols.astype(np.uint64)
    position = len(nonzero)
    for where, width in planes:
        values = np.full(len(where), 1 << width, dtype=np.uint64)
        for j in range(width):
            plane = bits[position : position + len(where)].astype(np.uint64)
            values |= plane << np.uint64(j)
            position += len(where)
        magnitude[where] = values
    negative = np.zeros(len(symbols), dtype=np.uint64)
    negative[nonzero] = bits[: len(nonzero)]
    if (magnitude > np.uint64((1 << 63) - 1) + negative).any():
        raise reader.fail("weights must be within int64")
    y = magnitude.view(np.int64)
    return np.negative(y, out=y, where=negative.astype(bool))
