"""The adder graph against the matrix product, and what it says of its adders."""

from itertools import pairwise

import numpy as np
import pytest

from pvq_hw.engine.adder_graph import Sum, make_adder_graph, pairs_of_digits, signed_digits
from pvq_hw.errors import InputError
from pvq_hw.pyramid.nearest import nearest

SPANS = [(0, 255), (-128, 127), (-1, 1), (0, 3), (-32768, 32767)]


def _matrices():
    rng = np.random.default_rng(5)
    yield np.zeros((3, 4), dtype=np.int64)
    yield np.array([[-1, -1, 0], [1, 1, 0], [0, 0, -4], [0, 0, 8], [0, 0, 0]])
    yield np.full((2, 6), -128)
    yield np.full((3, 5), 85)  # 1010101 in a row: pairs that overlap
    for rows, n, top in ((1, 1, 7), (7, 3, 127), (20, 12, 2), (9, 30, 40), (16, 16, 1)):
        yield rng.integers(-top - 1, top + 1, (rows, n))
    yield nearest(rng.laplace(size=(24, 40)), 30)


def _frames(y, low, high):
    rng = np.random.default_rng(6)
    ends = [np.where(y > 0, high, low), np.where(y > 0, low, high)]
    return np.concatenate([*ends, rng.integers(low, high + 1, (20, y.shape[1]))])


@pytest.mark.parametrize("share", [True, False])
def test_sums_are_the_matrix_product_and_reach_their_range(share):
    for number, y in enumerate(_matrices()):
        low, high = SPANS[number % len(SPANS)]
        graph = make_adder_graph(y, [(low, high)] * y.shape[1], share=share)
        x = _frames(y, low, high)
        sums = graph.evaluate(x)
        assert np.array_equal(sums, x @ y.T)
        for row, own in enumerate(sums.T):
            assert graph.row_span(row) == (own.min(), own.max())


def test_every_adder_has_the_width_of_its_values():
    rng = np.random.default_rng(7)
    y = rng.integers(-9, 10, (8, 5))
    spans = [(0, 15), (-8, 7), (-1, 1), (3, 3), (-5, 0)]
    graph = make_adder_graph(y, spans)
    corners = np.array(np.meshgrid(*spans)).reshape(5, -1).T
    values = list(corners.T)
    for adder in graph.adders:
        b = values[adder.b] << adder.shift
        values.append(values[adder.a] + (-b if adder.subtract else b))
        assert (values[-1].min(), values[-1].max()) == (adder.low, adder.high)
        assert adder.level == 1 + max(graph.level(adder.a), graph.level(adder.b))
        assert adder.bits >= adder.cells > 0


def test_sums_that_rows_have_in_common_are_added_once():
    graph = make_adder_graph([[1, 1, 1, 0], [1, 1, 0, 1], [-2, -2, 0, 0]], [(0, 255)] * 4)
    assert len(graph.adders) == 3
    assert graph.sums[2] == Sum(4, 1, True)
    assert (graph.depth, graph.adder_bits) == (2, 9 + 10 + 10)
    # The third row's sum waits a cycle, and so do the two inputs that are added at last.
    assert graph.delays == {2: 1, 3: 1, 4: 1}
    assert graph.delay_bits == 8 + 8 + 9
    plain = make_adder_graph(
        [[1, 1, 1, 0], [1, 1, 0, 1], [-2, -2, 0, 0]], [(0, 255)] * 4, share=False
    )
    assert len(plain.adders) == 5


def _most_frequent_first(y):
    """The pairs that are taken, each after counting all pairs of all rows anew."""
    rows = [
        {(c, s): sign for c in np.flatnonzero(row) for s, sign in signed_digits(int(row[c]))}
        for row in y
    ]
    levels, taken = [0] * y.shape[1], []
    while True:
        found = {}
        for number, row in enumerate(rows):
            terms = sorted(row, key=lambda term: term[::-1])
            for at, p in enumerate(terms):
                for q in terms[at + 1 :]:
                    pair = p[0], q[0], q[1] - p[1], row[p] * row[q]
                    found.setdefault(pair, []).append((number, p, q))
        ranked = sorted((-len(v), max(levels[k[0]], levels[k[1]]), k) for k, v in found.items())
        for count, _, pair in ranked:
            apart, used = [], set()
            for number, p, q in sorted(found[pair]):
                if not used & {(number, p), (number, q)}:
                    apart.append((number, p, q))
                    used |= {(number, p), (number, q)}
            if len(apart) > 1 or count == -1:
                break
        if not ranked or len(apart) < 2:
            return taken
        for number, p, q in apart:
            rows[number][len(levels), p[1]] = rows[number].pop(p)
            del rows[number][q]
        levels.append(1 + max(levels[pair[0]], levels[pair[1]]))
        taken.append(pair)


def test_the_pair_that_occurs_most_often_is_added_first():
    rng = np.random.default_rng(8)
    large = rng.integers(-9, 10, (5, 3)) * (2**40 + 5)
    for y in [*[*_matrices()][:6], large, rng.integers(-1, 2, (12, 18))]:
        spans = [(0, 255)] * y.shape[1]
        taken = _most_frequent_first(y)
        adders = make_adder_graph(y, spans).adders[: len(taken)]
        assert [(a.a, a.b, a.shift, -1 if a.subtract else 1) for a in adders] == taken


def test_the_graph_is_the_same_again_and_smaller_than_trees():
    y = nearest(np.random.default_rng(1).laplace(size=(32, 32)), 16)
    graph = make_adder_graph(y, [(0, 255)] * 32)
    make_adder_graph.__globals__["_graph"].cache_clear()
    assert make_adder_graph(y, [(0, 255)] * 32) == graph
    trees = make_adder_graph(y, [(0, 255)] * 32, share=False)
    assert len(graph.adders) < 0.75 * len(trees.adders)


def test_signed_digits_are_few_and_of_the_value():
    for value in (*range(-300, 301), -(1 << 40), 0x5555):
        digits = signed_digits(value)
        assert sum(sign << shift for shift, sign in digits) == value
        shifts = [shift for shift, _ in digits]
        assert all(b - a > 1 for a, b in pairwise(shifts))


def test_a_matrix_that_does_not_suit_is_refused():
    with pytest.raises(InputError, match="must have 3 columns, one an input"):
        make_adder_graph([[1, 2]], [(0, 1)] * 3)
    with pytest.raises(InputError, match="at most 4,000,000 pairs of digits"):
        make_adder_graph(np.ones((2, 2100), dtype=np.int64), [(0, 1)] * 2100)


def test_pairs_of_digits_are_counted_as_they_are():
    y = np.random.default_rng(4).integers(-300, 301, size=(7, 23))
    digits = [sum(len(signed_digits(int(value))) for value in row) for row in y]
    assert pairs_of_digits(y) == sum(count * (count - 1) // 2 for count in digits)
