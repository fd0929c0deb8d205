"""Nearest codewords against every codeword, volumes and numbering against enumeration."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvq_hw.errors import InputError
from pvq_hw.pyramid.nearest import (
    MAX_K,
    codeword,
    cosine,
    gain,
    index_of,
    log2_volume,
    nearest,
    pulses_for,
    quantize,
    volume,
)


def all_codewords(n, k):
    """Every integer vector of n elements with sum |y| = k, by plain recursion."""
    if n == 1:
        return [(k,), (-k,)] if k else [(0,)]
    return [(v, *rest) for v in range(-k, k + 1) for rest in all_codewords(n - 1, k - abs(v))]


def greedy(w, k):
    """Pulse by pulse, then single moves while the cosine rises: a plain reference for large N."""
    a = np.abs(w)
    y = np.floor(a * (max(0, k - 1) / a.sum()))
    s, q = a @ y, y @ y
    for _ in range(int(k - y.sum())):
        i = int(np.argmax((s + a) ** 2 / (q + 2 * y + 1)))
        s, q = s + a[i], q + 2 * y[i] + 1
        y[i] += 1
    while True:
        out = np.where(y > 0, -2 * y + 1, np.inf)
        table = (s - a[:, None] + a) ** 2 / (q + out[:, None] + 2 * y + 1)
        np.fill_diagonal(table, 0)
        i, j = np.unravel_index(np.argmax(table), table.shape)
        if table[i, j] <= s * s / q * (1 + 1e-12):
            return s / math.sqrt(q) / np.linalg.norm(a)
        s, q = s - a[i] + a[j], q - 2 * y[i] + 2 * y[j] + 2
        y[i] -= 1
        y[j] += 1


CASES = [(n, k) for n in range(1, 7) for k in range(1, 9) if volume(n, k) < 6000]


@pytest.mark.parametrize(("n", "k"), CASES)
def test_nearest_is_the_best_of_all_codewords(n, k):
    rng = np.random.default_rng(100 * n + k)
    w = np.concatenate(
        [
            rng.standard_normal((25, n)),
            rng.laplace(size=(25, n)) ** 3,
            rng.integers(-3, 4, (25, n)),  # ties and zeros
            rng.exponential(size=(5, n)) * 10.0 ** rng.integers(-9, 9, (5, n)),
        ]
    )
    w = w[np.abs(w).max(axis=1) > 0]
    points = np.array(all_codewords(n, k))
    assert len(points) == volume(n, k)
    every = (w @ points.T) / np.sqrt((points**2).sum(axis=1))
    best = every.max(axis=1) / np.sqrt((w**2).sum(axis=1))
    y = nearest(w, k)
    assert y.dtype == np.int64
    assert (np.abs(y).sum(axis=1) == k).all()
    np.testing.assert_allclose(cosine(w, y), best, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("n", "k"), [(20, 7), (48, 48), (64, 13), (64, 200)])
def test_nearest_is_never_below_a_scan_of_all_scales(n, k):
    rng = np.random.default_rng(n * k)
    w = rng.standard_normal((4, n))
    best = cosine(w, nearest(w, k))
    for row, reached in zip(w, best, strict=True):
        a = np.abs(row)
        # Each step of alpha moves single pulses: the codewords by "K largest of alpha a - j + 1/2".
        for alpha in np.linspace(0.2, 3.0, 1500) * k / a.sum():
            marginal = alpha * a[:, None] - np.arange(k)[None, :]
            y = np.bincount(np.argsort(-marginal, axis=None)[:k] // k, minlength=n)
            found = a @ y / math.sqrt(y @ y) / np.linalg.norm(a)
            assert reached >= found * (1 - 1e-13)


@pytest.mark.parametrize("ratio", [1, 5, 20])
@pytest.mark.parametrize("n", [100, 300])
def test_nearest_is_not_below_greedy_refinement(n, ratio):
    rng = np.random.default_rng(n + ratio)
    w = rng.standard_normal((4, n))
    k = n // ratio
    reached = cosine(w, nearest(w, k))
    assert all(c >= greedy(row, k) * (1 - 1e-12) for c, row in zip(reached, w, strict=True))


def test_sum_of_magnitudes_is_k_in_every_corner():
    rng = np.random.default_rng(7)
    for n, k in itertools.product([1, 2, 3, 17, 500], [1, 2, 5, 499, 100_000, MAX_K]):
        w = rng.standard_normal((3, n))
        y = nearest(w, k)
        assert (np.abs(y).sum(axis=1) == k).all(), (n, k)
        assert ((y == 0) | (np.sign(y) == np.sign(w))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(1024, 205), (64, 64), (4, 1)])
def test_memory_is_below_ten_times_the_weights(n, k, dtype):
    w = np.random.default_rng(0).standard_normal((2**18 // n, n)).astype(dtype)
    tracemalloc.start()
    try:
        nearest(w, k)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Besides the result, work that does not grow with the rows: for 1,024 x 1,024 float32 weights
    # 8 + 8 MB in all, and 10 times the weights are 40 MB.
    assert peak < 8 * w.size + 8_000_000


def test_k_may_differ_from_row_to_row_and_rows_are_independent():
    rng = np.random.default_rng(8)
    w = rng.standard_normal((300, 31))
    w[::7] = 0
    k = rng.integers(1, 90, 300)
    y = nearest(w, k)
    assert np.array_equal(np.abs(y).sum(axis=1), np.where(np.arange(300) % 7 == 0, 0, k))
    for row in (1, 2, 3, 299):
        assert np.array_equal(nearest(w[row : row + 1], k[row : row + 1]), y[row : row + 1])
    assert np.array_equal(nearest(-3.0 * w, k), -y)


def test_ties_get_their_pulses_from_the_left():
    assert nearest(np.ones((1, 5)), 3).tolist() == [[1, 1, 1, 0, 0]]
    assert nearest([[1.0, -2.0, 2.0, -2.0]], 2).tolist() == [[0, -1, 1, 0]]
    assert nearest([[-4.0]], 9).tolist() == [[-9]]
    assert nearest([[1.0, 0.0]], 3).tolist() == [[3, 0]]
    assert nearest(np.zeros((2, 3)), 4).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_scale_and_dtype_do_not_matter():
    rng = np.random.default_rng(9)
    w = rng.integers(-100, 100, (5, 40))
    y = nearest(w, 12)
    for same in (w * 2.0**900, w * 2.0**-1040, w.astype(np.float32), w.astype(np.int8)):
        assert np.array_equal(nearest(same, 12), y)


@pytest.mark.parametrize(
    ("w", "k", "message"),
    [
        ([[1.0, math.nan]], 1, "Weights must be finite"),
        ([[1.0, -math.inf]], 1, "Weights must be finite"),
        (np.zeros((2, 0)), 1, "Weights must have the shape"),
        ([1.0, 2.0], 1, "Weights must have the shape"),
        ([["a"]], 1, "Weights must be real numbers"),
        ([[1j]], 1, "Weights must be real numbers"),
        ([[1.0]], 0, "K must be 1 to 2147483647, not 0"),
        ([[1.0]], -5, "K must be 1 to 2147483647, not -5"),
        ([[1.0]], 1 << 31, "K must be 1 to 2147483647, not 2147483648"),
        ([[1.0]], 1.5, "K must be an integer"),
        ([[1.0]], True, "K must be an integer"),
        ([[1.0], [2.0]], [1, 2, 3], "K must be an integer or one for each of 2 rows"),
    ],
)
def test_bad_input_is_refused_in_one_line(w, k, message):
    with pytest.raises(InputError, match=f"^{message}") as error:
        nearest(w, k)
    assert "\n" not in str(error.value)


def test_gains():
    w = np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0]])
    y = np.array([[1, -1], [0, 0], [2, 0]])
    assert gain(w, y).tolist() == [3.5, 0.0, 0.5]
    np.testing.assert_allclose(gain(w, y, "norm"), [5 / math.sqrt(2), 0, math.sqrt(2) / 2])
    rng = np.random.default_rng(1)
    w = rng.standard_normal((6, 50))
    y = nearest(w, 10)
    error = [((w - (f * gain(w, y))[:, None] * y) ** 2).sum() for f in (0.999, 1.0, 1.001)]
    assert min(error) == error[1]
    kept = gain(w, y, "norm")[:, None] * y
    np.testing.assert_allclose((kept**2).sum(axis=1), (w**2).sum(axis=1))
    with pytest.raises(InputError, match=r"^Gain rule must be"):
        gain(w, y, "best")


def test_units_rows_groups_and_layers():
    rng = np.random.default_rng(2)
    w = rng.standard_normal((6, 40))
    rows = quantize(w, ratio=5)
    assert np.array_equal(rows.y, nearest(w, 8))
    assert rows.gain.shape == (6, 1)
    assert rows.n_over_k == 5.0
    groups = quantize(w, ratio=5, unit=10)
    assert np.array_equal(groups.y, nearest(w.reshape(24, 10), 2).reshape(6, 40))
    assert groups.gain.shape == (6, 4)
    layer = quantize(w, k=48, unit="layer", rule="norm")
    assert int(np.abs(layer.y).sum()) == 48
    assert len(set(layer.gain.ravel())) == 1
    np.testing.assert_allclose((layer.weights**2).sum(), (w**2).sum())
    assert groups.weights.shape == w.shape
    each = quantize(w, k=np.arange(1, 7))
    assert np.abs(each.y).sum(axis=1).tolist() == [1, 2, 3, 4, 5, 6]


def test_units_refuse_what_does_not_divide():
    w = np.ones((2, 6))
    for bad, message in [
        ({"ratio": 2, "unit": 4}, "Group size must be a divisor of N = 6, not 4"),
        ({"ratio": 2, "unit": "column"}, "Unit must be"),
        ({}, "Give K or the ratio"),
        ({"ratio": 2, "k": 3}, "Give K or the ratio"),
        ({"ratio": 0}, "The ratio N/K must be greater than 0, not 0"),
        ({"ratio": math.nan}, "The ratio N/K must be greater than 0, not nan"),
        ({"ratio": 1e-300}, "K must be 1 to"),
    ]:
        with pytest.raises(InputError, match=f"^{message}"):
            quantize(w, **bad)
    assert pulses_for(10, 100) == 1
    assert pulses_for(784, 5) == 157


def test_volume():
    assert [volume(3, 2), volume(5, 5), volume(9, 9)] == [18, 1002, 864146]
    assert volume(4, 0) == 1
    for n, k in itertools.product(range(2, 40), range(1, 40)):
        assert volume(n, k) == volume(n - 1, k) + volume(n - 1, k - 1) + volume(n, k - 1)


@pytest.mark.parametrize(
    ("n", "k"), [(1, 7), (64, 3), (65, 65), (66, 5000), (784, 157), (5000, 4000), (3000, 70)]
)
def test_log2_volume(n, k):
    assert log2_volume(n, k) == pytest.approx(math.log2(volume(n, k)), rel=1e-13)


def test_log2_volume_of_a_whole_layer():
    assert log2_volume(401_408, 80_282) / 401_408 == pytest.approx(0.945, abs=0.01)


@pytest.mark.parametrize(("n", "k"), [(1, 0), (1, 4), (3, 2), (2, 7), (5, 5), (6, 3), (4, 0)])
def test_numbering_is_a_bijection(n, k):
    points = [tuple(codeword(n, k, i).tolist()) for i in range(volume(n, k))]
    assert sorted(points) == sorted(all_codewords(n, k))
    assert [index_of(np.array(p)) for p in points] == list(range(volume(n, k)))


def test_order_of_the_numbering():
    assert [codeword(2, 2, i).tolist() for i in range(8)] == [
        [2, 0], [-2, 0], [0, 2], [0, -2], [1, 1], [-1, 1], [1, -1], [-1, -1],
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=200))
def test_numbering_round_trip(values):
    y = np.array(values)
    k = int(np.abs(y).sum())
    index = index_of(y)
    assert 0 <= index < volume(len(y), k)
    assert np.array_equal(codeword(len(y), k, index), y)


def test_numbering_of_large_codewords():
    rng = np.random.default_rng(3)
    y = nearest(rng.standard_normal((1, 2000)), 400)[0]
    assert np.array_equal(codeword(2000, 400, index_of(y)), y)
    last = codeword(2000, 400, volume(2000, 400) - 1)
    assert int(np.abs(last).sum()) == 400


def test_numbering_refuses_what_is_out_of_range():
    for call, message in [
        (lambda: codeword(3, 2, 18), "The index of a codeword of N = 3, K = 2 must be less"),
        (lambda: codeword(3, 2, -1), "The index of a codeword must be an integer from 0 up"),
        (lambda: codeword(0, 2, 0), "N must be an integer of at least 1, not 0"),
        (lambda: volume(3, -1), "K must be an integer of at least 0, not -1"),
        (lambda: index_of(np.ones(3)), "A codeword must be a vector of integers"),
        (lambda: index_of(np.ones((3, 1), int)), "A codeword must be a vector of integers"),
    ]:
        with pytest.raises(InputError, match=f"^{message}"):
            call()
