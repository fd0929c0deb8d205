"""The packed weights file: round trips, size, a second reader, damaged and hostile files."""

import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from pvq_hw.errors import InputError
from pvq_hw.network.bits import varint
from pvq_hw.network.weights_file import MAGIC, pack_weights, unpack_weights
from pvq_hw.pyramid.nearest import codeword, log2_volume, quantize, volume

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
NETWORK_A = [(512, 784), (512, 512), (10, 512)]


def seal(body: bytes) -> bytes:
    """A file with a right checksum around any body."""
    data = MAGIC + body
    return data + zlib.crc32(data).to_bytes(4, "little")


def limit_bytes(matrices):
    """log2 V(N, K) over all rows, in bytes."""
    return sum(log2_volume(y.shape[1], int(k)) for y in matrices for k in np.abs(y).sum(axis=1)) / 8


def read_plainly(data: bytes) -> list[list[list[int]]]:
    """A second reader, written from docs/weights-format.md with plain integers and no checks."""
    data, at = data[4:-4], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value |= (data[at - 1] & 127) << shift
            shift += 7
            if data[at - 1] < 128:
                return value

    def string(start, size):
        return "".join(f"{b:08b}" for b in data[start : start + size])

    out = []
    while at < len(data) and data[at]:
        rows, n, code = number(), number(), data[at]
        at += 1
        flat: list[int] = []
        if code != 255:
            least, bits, used = number(), string(at, len(data) - at), 0

            def field(width):
                nonlocal used
                used += width
                return int(bits[used - width : used] or "0", 2)  # noqa: B023

            pulses = [least + field(code) for _ in range(rows)]
            for start in range(0, rows, 16):
                sizes = [volume(n, k) for k in pulses[start : start + 16]]
                value = field((math.prod(sizes) - 1).bit_length())
                block = []
                for k, size in reversed(list(zip(pulses[start : start + 16], sizes, strict=True))):
                    value, index = divmod(value, size)
                    block.append(codeword(n, k, index).tolist())
                flat += [v for row in reversed(block) for v in row]
            at += -(-used // 8)
        else:
            at += 1
            frequencies = [number() for _ in range(data[at - 1])]
            lanes = max(1, -(-rows * n // 8192))
            states = [
                int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "little") for i in range(lanes)
            ]
            at += 4 * lanes
            count = number()
            words = [
                int.from_bytes(data[at + 2 * i : at + 2 * i + 2], "little") for i in range(count)
            ]
            at += 2 * count
            symbols, word = [], iter(words)
            for t in range(rows * n):
                x = states[t % lanes]
                slot, s, c = x % 2**14, 0, 0
                while slot >= c + frequencies[s]:
                    c += frequencies[s]
                    s += 1
                x = frequencies[s] * (x >> 14) + slot - c
                states[t % lanes] = x if x >= 2**16 else x * 2**16 + next(word)
                symbols.append(s)
            sizes = [b - 1 for b in range(5, 65) for s in symbols if s == 11 + b]
            total = sum(s > 0 for s in symbols) + sum(sizes)
            raw = iter(string(at, -(-total // 8)))
            at += -(-total // 8)
            signs = [-1 if s and next(raw) == "1" else 1 for s in symbols]
            flat = list(symbols)
            for b in range(5, 65):
                where = [t for t, s in enumerate(symbols) if s == 11 + b]
                for t in where:
                    flat[t] = 1 << (b - 1)
                for j in range(b - 1):
                    for t in where:
                        flat[t] |= int(next(raw)) << j
            flat = [sign * m for sign, m in zip(signs, flat, strict=True)]
        out.append([flat[r * n : (r + 1) * n] for r in range(rows)])
    return out


def assert_round_trip(matrices):
    data = pack_weights(matrices)
    back = unpack_weights(data)
    assert len(back) == len(matrices)
    for got, want in zip(back, matrices, strict=True):
        assert got.dtype == np.int64
        assert np.array_equal(got, want)
    return data


def special_matrices():
    rng = np.random.default_rng(5)
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    return {
        "one zero": np.zeros((1, 1), dtype=np.int64),
        "one": np.array([[-7]]),
        "extremes": np.array([[low, high, 0, -1, 1, low + 1, high - 1]]),
        "only the lowest": np.full((3, 4), low),
        "zeros": np.zeros((300, 700), dtype=np.int64),
        "one pulse": np.eye(1, 5000, 4999, dtype=np.int64),
        "zero rows": quantize(rng.standard_normal((9, 30)), k=4).y * (np.arange(9) % 2)[:, None],
        "three blocks": quantize(rng.standard_normal((40, 9)), k=rng.integers(2, 6, 40)).y,
        "rows of many K": rng.integers(-2, 3, (40, 12)),
        "int8": rng.integers(-128, 128, (64, 300), dtype=np.int8),
        "unsigned": rng.integers(0, 65536, (30, 30), dtype=np.uint16),
        "all widths": (np.int64(1) << rng.integers(0, 63, (50, 20))) - rng.integers(0, 2, (50, 20)),
        "constant": np.full((200, 200), -15),
        "16 on": np.arange(-40, 41).reshape(3, 27),
        "column": rng.integers(-3, 4, (500, 1)),
        "slice": rng.integers(-3, 4, (50, 60))[::2, ::3],
    }


@pytest.mark.parametrize("name", special_matrices())
def test_round_trip_and_second_reader(name):
    matrix = special_matrices()[name]
    data = assert_round_trip([matrix])
    assert read_plainly(data) == [matrix.tolist()]


def test_round_trip_of_many_matrices_and_of_none():
    matrices = list(special_matrices().values())
    data = assert_round_trip(matrices)
    assert read_plainly(data) == [m.tolist() for m in matrices]
    assert_round_trip([])


@settings(max_examples=40, deadline=None)
@example(0, 1, 1, 63)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 400), st.integers(0, 63))
def test_round_trip_of_random_matrices(seed, rows, n, bits):
    rng = np.random.default_rng(seed)
    matrix = np.rint(rng.laplace(size=(rows, n)) ** 3).astype(np.int64) & ((1 << bits) - 1)
    matrix *= rng.integers(-1, 2, (rows, n))
    assert_round_trip([matrix, matrix.T])


def test_bytes_are_pinned():
    """Whatever changes these bytes changes the format, and needs another version."""
    y = np.array([[1, 0, -1, 0], [0, 2, 0, 0], [0, 0, 0, -2]])
    assert pack_weights([y]).hex() == "5056510103040002708efff98231"
    t = np.arange(40_000)
    y = (((t * t) % 1009) % 7 - 3).reshape(100, 400) // 2
    data = pack_weights([y, y[:4, :9], 1000 * y])
    assert (
        hashlib.sha256(data).hexdigest()
        == "05164bcc96d42fcebfe3aca5279cde3699da2de29a3c361b57b38f316fd91e29"
    )


@pytest.mark.parametrize("ratio", [1, 2, 5, 10, 20])
def test_network_a_is_within_its_share_of_the_limit(ratio):
    rng = np.random.default_rng(ratio)
    matrices = [quantize(rng.standard_normal(s), ratio=ratio).y for s in NETWORK_A]
    data = assert_round_trip(matrices)
    assert len(data) <= 1.05 * limit_bytes(matrices)


def weight_matrices(path):
    """The dense and convolutional weights of a model, one row per output."""
    graph = onnx.load(path).graph
    reader = {name: node for node in graph.node for name in node.input}
    for tensor in graph.initializer:
        w = numpy_helper.to_array(tensor)
        node = reader[tensor.name]
        if (
            w.dtype != np.float32
            or w.ndim < 2
            or node.op_type == "Add"
            or w.shape[1] == 1 == w.ndim
        ):
            continue
        rows_first = node.op_type == "Conv" or any(a.name == "transB" for a in node.attribute)
        yield w.reshape(len(w), -1) if rows_first else w.reshape(-1, w.shape[-1]).T


@pytest.mark.skipif(not MODELS.is_dir(), reason="the trained models are not there")
@pytest.mark.parametrize(
    ("model", "at_most"),
    [
        ("mnist_netA_mlp_784_512_512_10", 1.05),
        ("mnist_mlp_784_64_32_10", 1.05),
        ("mnist_lenet5_relu", 1.05),
        ("pretrainedResnet", 1.10),
        ("mnist-8", 1.15),
        ("mnist_tinycnn_8_16_bn", 1.15),
        ("digits_mlp_64_32_10", 1.20),  # 104 bytes at N/K = 20, of which 16 are headers
    ],
)
def test_real_networks_are_within_their_share_of_the_limit(model, at_most):
    weights = list(weight_matrices(MODELS / f"{model}.onnx"))
    assert weights
    for ratio in (1, 2, 5, 10, 20):
        matrices = [quantize(w, ratio=ratio).y for w in weights]
        data = assert_round_trip(matrices)
        assert len(data) <= at_most * limit_bytes(matrices), ratio


def test_a_tiny_layer_costs_a_dozen_bytes_more_than_its_limit():
    rng = np.random.default_rng(4)
    y = quantize(rng.standard_normal((10, 32)), ratio=2).y
    assert len(pack_weights([y])) <= math.ceil(limit_bytes([y])) + 13


def test_int8_weights_are_within_two_percent_of_their_entropy():
    rng = np.random.default_rng(4)
    y = np.rint(rng.standard_normal((300, 500)) * 30).clip(-127, 127).astype(np.int64)
    share = np.unique(y, return_counts=True)[1] / y.size
    assert 8 * len(pack_weights([y])) <= 1.02 * y.size * -(share * np.log2(share)).sum()


def two_files():
    rng = np.random.default_rng(6)
    numbered = pack_weights([quantize(rng.standard_normal((5, 9)), k=3).y])
    coded = pack_weights([rng.integers(-90, 90, (9, 9))])
    assert numbered[6] == 0
    assert coded[6] == 255
    return [numbered, coded]


@pytest.mark.parametrize("which", [0, 1])
def test_every_flipped_bit_and_every_truncation_is_found(which):
    data = two_files()[which]
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError, match=r"^Packed weights [^\n]*\Z"):
            unpack_weights(bytes(broken))
    for size in range(len(data)):
        with pytest.raises(InputError, match=r"^Packed weights [^\n]*\Z"):
            unpack_weights(data[:size])
    with pytest.raises(InputError, match="checksum"):
        unpack_weights(data + b"\0")


def test_hostile_files_with_a_right_checksum_give_one_line_or_matrices():
    rng = np.random.default_rng(7)
    bodies = [data[4:-4] for data in two_files()] + [pack_weights([np.full((2, 9), 1 << 62)])[4:-4]]
    refused = 0
    for trial in range(3000):
        body = bytearray(bodies[trial % 3])
        if trial % 5 == 4:
            body = bytearray(rng.bytes(rng.integers(1, 60)))
        elif trial % 5 == 3:
            body = body[: rng.integers(len(body))]
        else:
            for _ in range(rng.integers(1, 4)):
                body[rng.integers(len(body))] = rng.integers(256)
        try:
            for y in unpack_weights(seal(bytes(body))):
                assert y.dtype == np.int64
                assert y.size <= 4096 * (len(body) + 8)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 200  # noqa: PT017
    assert refused > 1500


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (varint(1 << 20) + varint(1 << 20) + b"\x00", "a matrix of 1048576 x 1048576 can't be in"),
        (varint((1 << 31) - 1) + varint((1 << 31) - 1) + b"\xff\x01", "can't be in"),
        (varint(1 << 31), "a number must be at most 2147483647"),
        (b"\xff" * 40, "a number must be at most"),
        (b"\x81\x00\x01\x00", "a number must be written in its shortest form"),
        (b"\x01\x00\x00", "a matrix must have at least one column"),
        (b"\x01\x01\x09\x00", "code 9 of a matrix is unknown"),
        (varint(2) + varint(257) + b"\x00\x01", "a matrix of 2 x 257 can't be numbered"),
        (b"\x01\x02\x00" + varint(257), "a number must be at most 256"),
        (b"\x01\x02\x08" + varint(2) + b"\xff", "K must be at most 256, not 257"),
        (b"\x01\x03\x00\x02\xff", "the number of the rows from 0 must be less than 18"),
        (b"\x01\x03\x00\x02\x01", "padding must be 0"),
        (b"\x01\x03\x00\x02", "1 bytes must follow, but 0 do"),
        (b"\x01\x01\xff\x00", "a table must have 1 to 76 symbols, not 0"),
        (b"\x01\x01\xff\x4d", "a table must have 1 to 76 symbols, not 77"),
        (b"\x01\x01\xff\x02\x01\x02", "frequencies must sum to 16384"),
        (b"\x01\x01\xff\x01\x80\x80\x01" + bytes(4) + b"\x00", "don't end where they must"),
        (b"\x01\x01\xff\x01\x80\x80\x01\x00\x00\x01\x00\x01ab", "don't end where they must"),
        (b"\x01\x03\x00\x02\x00\x00", "nothing may follow the last matrix"),
        (b"\x00", "nothing may follow the last matrix"),
    ],
)
def test_hostile_files_name_what_is_wrong(body, message):
    with pytest.raises(InputError) as error:
        unpack_weights(seal(body))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_values_beyond_int64_are_refused():
    data = bytearray(pack_weights([np.array([[np.iinfo(np.int64).min]])]))
    assert data[-12:-4] == b"\x80" + bytes(7)  # the sign, then 63 low bits
    data[-12] = 0
    with pytest.raises(InputError, match="weights must be within int64"):
        unpack_weights(seal(bytes(data[4:-4])))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be a file of the PVQ format"),
        (b"PK\x03\x04" + bytes(100), "must be a file of the PVQ format"),
        (b"PVQ\x02" + bytes(100), "must be of format version 1, not 2"),
        (MAGIC + bytes(100), "must match their checksum"),
    ],
)
def test_other_files_are_refused(data, message):
    with pytest.raises(InputError, match=f"^Packed weights {message}"):
        unpack_weights(data)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 2)), "must be integers, not float64"),
        (np.zeros((0, 2), dtype=int), r"must have the shape \(M >= 1, N >= 1\), not \(0, 2\)"),
        (np.zeros(2, dtype=int), r"must have the shape \(M >= 1, N >= 1\), not \(2,\)"),
        (np.zeros((), dtype=int), r"must have the shape \(M >= 1, N >= 1\), not \(\)"),
        (np.full((1, 1), 1 << 63, dtype=np.uint64), "must be less than 2\\*\\*63"),
        (np.array([["a"]], dtype=object), "must be integers, not object"),
    ],
)
def test_what_is_not_an_integer_matrix_is_refused(matrix, message):
    with pytest.raises(InputError, match=f"^Weights of matrix 1 {message}"):
        pack_weights([np.ones((1, 1), dtype=int), matrix])
