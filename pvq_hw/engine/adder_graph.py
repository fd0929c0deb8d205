"""A matrix of constants as two-input adders with shared sub-sums: weights that are wires.

Every weight is split into signed digits (its non-adjacent form, of fewest digits). The pair of
terms ``x_i +- (x_j << d)`` that most rows have in common becomes an adder, whose result is a term
like any other, until no pair is left that two sums share; what remains of a row is added as a
tree. That is two-term common subexpression elimination (R. Pasko et al., "A new algorithm for
elimination of common subexpressions", IEEE TCAD 18(1), 1999; in distributed-arithmetic networks
C. Sun et al., "da4ml", 2025). A term with a negative sign costs nothing: whoever takes it
subtracts, and a row whose sum comes out negative says so.

Widths are exact: inputs are independent, so the range of a sum follows from its coefficients.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import bits_for
from pvq_hw.errors import InputError

__all__ = [
    "MOST_PAIRS",
    "Adder",
    "AdderGraph",
    "Sum",
    "make_adder_graph",
    "pairs_of_digits",
    "signed_digits",
]

IntArray = npt.NDArray[np.int64]

MOST_PAIRS = 4_000_000
"""Pairs of terms within rows that are counted; a larger matrix is refused."""


@dataclass(frozen=True)
class Adder:
    """``a + (b << shift)``, or with ``subtract`` ``a - (b << shift)``.

    Parameters
    ----------
    a, b : int
        Nodes: inputs are numbered from 0, adders follow in order.
    shift : int
    subtract : bool
    low, high : int
        The result's range, both ends reached.
    level : int
        One more than the higher of its operands'; inputs have 0.
    """

    a: int
    b: int
    shift: int
    subtract: bool
    low: int
    high: int
    level: int

    @property
    def bits(self) -> int:
        """Bits of the result, signed where ``low`` is negative."""
        return bits_for(self.low, self.high)

    @property
    def cells(self) -> int:
        """Bits that are added: those of ``a`` below the shift are the result's as they are."""
        return max(1, self.bits - self.shift)


@dataclass(frozen=True)
class Sum:
    """A row's sum: ``node << shift``, or its negative; ``node`` is None where it is 0."""

    node: int | None
    shift: int = 0
    negative: bool = False


@dataclass(frozen=True)
class AdderGraph:
    """Adders in an order in which operands come before their sums.

    Parameters
    ----------
    inputs : tuple of (int, int)
        Lowest and highest value of each input.
    adders : tuple of Adder
    sums : tuple of Sum
        Of every row.
    """

    inputs: tuple[tuple[int, int], ...]
    adders: tuple[Adder, ...]
    sums: tuple[Sum, ...]

    def span(self, node: int) -> tuple[int, int]:
        """Lowest and highest value of a node."""
        if node < len(self.inputs):
            return self.inputs[node]
        adder = self.adders[node - len(self.inputs)]
        return adder.low, adder.high

    def bits(self, node: int) -> int:
        """Width of a node's value; signed where it can be negative."""
        return bits_for(*self.span(node))

    def level(self, node: int) -> int:
        """Adders on the longest way to a node: with a register behind each, cycles."""
        count = len(self.inputs)
        return 0 if node < count else self.adders[node - count].level

    def row_span(self, row: int) -> tuple[int, int]:
        """Lowest and highest value of a row's sum."""
        total = self.sums[row]
        if total.node is None:
            return 0, 0
        low, high = (end << total.shift for end in self.span(total.node))
        return (-high, -low) if total.negative else (low, high)

    @property
    def depth(self) -> int:
        """Levels of the deepest sum."""
        return max((self.level(s.node) for s in self.sums if s.node is not None), default=0)

    @property
    def adder_bits(self) -> int:
        """Bits that are added, over all adders."""
        return sum(adder.cells for adder in self.adders)

    @property
    def register_bits(self) -> int:
        """Bits of the registers behind the adders."""
        return sum(adder.bits for adder in self.adders)

    @cached_property
    def delays(self) -> dict[int, int]:
        """Registers by which a node's value must be delayed so that all operands of an adder, and
        all sums, are of the same frame when a frame comes every cycle; nodes without any left out.
        """
        last: dict[int, int] = {}
        for adder in self.adders:
            for node in (adder.a, adder.b):
                last[node] = max(last.get(node, 0), adder.level - 1)
        for total in self.sums:
            if total.node is not None:
                last[total.node] = self.depth
        waits = {node: time - self.level(node) for node, time in sorted(last.items())}
        return {node: count for node, count in waits.items() if count}

    @property
    def delay_bits(self) -> int:
        """Bits of all registers of `delays`."""
        return sum(count * self.bits(node) for node, count in self.delays.items())

    def evaluate(self, x: npt.ArrayLike) -> IntArray:
        """Every row's sum, adder by adder: (frames, inputs) -> (frames, rows), exact."""
        array = np.asarray(x, dtype=np.int64).reshape(-1, len(self.inputs))
        values = list(array.T)
        for adder in self.adders:
            b = values[adder.b] << adder.shift
            values.append(values[adder.a] - b if adder.subtract else values[adder.a] + b)
        result = np.zeros((len(array), len(self.sums)), dtype=np.int64)
        for row, total in enumerate(self.sums):
            if total.node is not None:
                value = values[total.node] << total.shift
                result[:, row] = -value if total.negative else value
        return result


def signed_digits(value: int) -> list[tuple[int, int]]:
    """The non-adjacent form of an integer as (shift, sign), lowest first: fewest digits."""
    digits = []
    shift = 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            digits.append((shift, sign))
            value -= sign
        value >>= 1
        shift += 1
    return digits


def pairs_of_digits(matrix: npt.NDArray[np.integer[Any]]) -> int:
    """Pairs of signed digits in the rows of an integer matrix: the time to share sub-sums grows
    with them."""
    digits = np.zeros(len(matrix), dtype=np.int64)
    left = np.abs(np.asarray(matrix, dtype=np.int64))
    left ^= 3 * left  # a bit for each signed digit
    while left.any():
        digits += (left & 1).sum(axis=1)
        left >>= 1
    return int((digits * (digits - 1) // 2).sum())


def make_adder_graph(
    matrix: npt.ArrayLike,
    spans: Sequence[tuple[int, int]],
    *,
    share: bool = True,
    keep: bool = True,
) -> AdderGraph:
    """The adders of ``matrix @ x``; the same for the same numbers, everywhere.

    Parameters
    ----------
    matrix : int array (rows, inputs)
    spans : sequence of (int, int)
        Lowest and highest value of each input.
    share : bool
        False: a tree for every row, and no sub-sum of two.
    keep : bool
        Whether it may be asked for again: those of many are kept.

    Raises
    ------
    InputError
        The matrix has more than `MOST_PAIRS` pairs of terms in its rows.
    """
    y = np.asarray(matrix, dtype=np.int64)
    if y.ndim != 2 or y.shape[1] != len(spans):
        raise InputError(f"A matrix must have {len(spans)} columns, one an input, not {y.shape}")
    # Single constants are made at once, and would take the place of what took long.
    make = _graph if keep and len(y) > 1 else _graph.__wrapped__
    return make(y.tobytes(), y.shape, tuple(spans), share)


@lru_cache(maxsize=32)
def _graph(
    data: bytes, shape: tuple[int, int], spans: tuple[tuple[int, int], ...], share: bool
) -> AdderGraph:
    """Plan, circuit and check ask for the same graph in turn."""
    y = np.frombuffer(data, dtype=np.int64).reshape(shape)
    builder = _Builder(spans, share)
    rows = [
        {
            (int(column), shift): sign
            for column in np.flatnonzero(row)
            for shift, sign in signed_digits(int(row[column]))
        }
        for row in y
    ]
    pairs = pairs_of_digits(y)
    if pairs > MOST_PAIRS:
        raise InputError(
            f"A matrix must have at most {MOST_PAIRS:,} pairs of digits in its rows, not {pairs:,}"
        )
    if share:
        rows = _Sharing(builder, rows).run()
    sums = tuple(builder.tree(row) for row in rows)
    return AdderGraph(spans, tuple(builder.adders), sums)


Term = tuple[int, int]  # a node and its shift; with a sign, a part of a sum
Pair = tuple[int, int, int, int]  # x_i + sign * (x_j << d) as (i, j, d, sign)


def _pair(p: Term, p_sign: int, q: Term, q_sign: int) -> tuple[Pair, int, int]:
    """The pair of two terms, and its shift and sign in their sum."""
    if (p[1], p[0]) > (q[1], q[0]):
        p, p_sign, q, q_sign = q, q_sign, p, p_sign
    return (p[0], q[0], q[1] - p[1], p_sign * q_sign), p[1], p_sign


class _Builder:
    """Adders so far, each pair's once."""

    def __init__(self, spans: Sequence[tuple[int, int]], share: bool) -> None:
        self.spans, self.share = list(spans), share
        self.count = len(spans)
        self.adders: list[Adder] = []
        self.levels = [0] * self.count
        self.parts: list[dict[int, int]] = [{n: 1} for n in range(self.count)]
        self.known: dict[Pair, int] = {}

    def span(self, pair: Pair) -> tuple[int, int, dict[int, int]]:
        """The range of a pair's sum, from its coefficients, and these."""
        i, j, shift, sign = pair
        parts = dict(self.parts[i])
        for column, value in self.parts[j].items():
            parts[column] = parts.get(column, 0) + sign * (value << shift)
        low = high = 0
        for column, value in parts.items():
            a, b = (value * end for end in self.spans[column])
            low, high = low + min(a, b), high + max(a, b)
        return low, high, parts

    def add(self, pair: Pair) -> int:
        """The node of a pair's sum."""
        if self.share and pair in self.known:
            return self.known[pair]
        i, j, shift, sign = pair
        low, high, parts = self.span(pair)
        level = 1 + max(self.levels[i], self.levels[j])
        self.adders.append(Adder(i, j, shift, sign < 0, low, high, level))
        self.levels.append(level)
        self.parts.append(parts)
        self.known[pair] = node = self.count + len(self.adders) - 1
        return node

    def tree(self, row: dict[Term, int]) -> Sum:
        """The sum of a row's terms: those of the lowest levels and the fewest bits first."""
        heap = [self._ranked(term, sign) for term, sign in row.items()]
        heapify(heap)
        while len(heap) > 1:
            *_, p, p_sign = heappop(heap)
            *_, q, q_sign = heappop(heap)
            pair, shift, sign = _pair(p, p_sign, q, q_sign)
            heappush(heap, self._ranked((self.add(pair), shift), sign))
        if not heap:
            return Sum(None)
        *_, (node, shift), sign = heap[0]
        return Sum(node, shift, sign < 0)

    def _ranked(self, term: Term, sign: int) -> tuple[int, int, Term, int]:
        node, shift = term
        low, high = self.spans[node] if node < self.count else self._adder_span(node)
        return self.levels[node], bits_for(low, high) + shift, term, sign

    def _adder_span(self, node: int) -> tuple[int, int]:
        adder = self.adders[node - self.count]
        return adder.low, adder.high


_NODE, _SHIFT = 24, 7  # bits that hold a node and a shift: at most `MOST_PAIRS` adders, 64 bits
_MASK = (1 << _NODE) - 1
_PAIR = 2 * _NODE + _SHIFT + 1


class _Sharing:
    """Takes the pair that occurs most often, as long as one occurs twice. Of those as frequent,
    the one of the lowest level, then of the smallest numbers.

    Terms and pairs are packed into integers that sort as they do, since large matrices have
    millions: a term as (shift, node), a pair as (i, j, d, sign), an entry of the heap as (-count,
    level, pair). Each pair that occurs twice has an entry of its count or, where it has become
    rarer since, of a higher one.
    """

    def __init__(self, builder: _Builder, rows: list[dict[Term, int]]) -> None:
        self.builder = builder
        self.rows = [
            {shift << _NODE | node: sign for (node, shift), sign in r.items()} for r in rows
        ]
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.where: defaultdict[int, set[int]] = defaultdict(set)
        for number, row in enumerate(self.rows):
            left = dict(row)
            for term, sign in row.items():
                self.where[term & _MASK].add(number)
                del left[term]
                for pair in _packed_pairs(term, sign, left):
                    self.counts[pair] += 1
        self.heap = [self._entry(pair, count) for pair, count in self.counts.items() if count > 1]
        heapify(self.heap)

    def _entry(self, pair: int, count: int) -> int:
        i, j, *_ = _unpacked(pair)
        levels = self.builder.levels
        return max(levels[i], levels[j]) - (count << _NODE) << _PAIR | pair

    def run(self) -> list[dict[Term, int]]:
        """Replaces pairs in the rows by their sums; gives the rows."""
        while self.heap:
            entry = heappop(self.heap)
            pair, noted = entry & (1 << _PAIR) - 1, -(entry >> _PAIR + _NODE)
            count = self.counts[pair]
            if count != noted:
                if 1 < count < noted:
                    heappush(self.heap, self._entry(pair, count))
                continue
            i, j, shift, sign = _unpacked(pair)
            rows = sorted(self.where[i] & self.where[j])
            found = [(row, *terms) for row in rows for terms in self._at(row, i, j, shift, sign)]
            if len(found) < 2:
                continue
            node = self.builder.add((i, j, shift, sign))
            for row, p, q in found:
                self._replace(row, p, q, node)
        return [{(term & _MASK, term >> _NODE): s for term, s in r.items()} for r in self.rows]

    def _at(self, number: int, i: int, j: int, shift: int, sign: int) -> Iterator[tuple[int, int]]:
        """Where a row has a pair, each term in one of them."""
        row = self.rows[number]
        used: set[int] = set()
        for term in sorted(t for t in row if t & _MASK == i):
            other = (term >> _NODE) + shift << _NODE | j
            if other not in row or other == term or term in used or other in used:
                continue
            if row[term] * row[other] == sign:
                used |= {term, other}
                yield term, other

    def _replace(self, number: int, p: int, q: int, node: int) -> None:
        """A row's terms ``p`` and ``q``, the lower first, become one of their sum."""
        row, counts = self.rows[number], self.counts
        p_sign, q_sign = row.pop(p), row.pop(q)
        for pair in _packed_pairs(p, p_sign, row):
            counts[pair] -= 1
        for pair in _packed_pairs(q, q_sign, row):
            counts[pair] -= 1
        for pair in _packed_pairs(p, p_sign, {q: q_sign}):
            counts[pair] -= 1
        new = p & ~_MASK | node
        for pair in _packed_pairs(new, p_sign, row):
            counts[pair] = count = counts[pair] + 1
            if count > 1:
                heappush(self.heap, self._entry(pair, count))
        row[new] = p_sign
        self.where[node].add(number)


def _packed_pairs(term: int, sign: int, others: dict[int, int]) -> list[int]:
    """The pairs of a term with each of others."""
    node, shift = term & _MASK, term >> _NODE
    pairs = []
    for other, own in others.items():
        if term < other:
            i, j, d = node, other & _MASK, (other >> _NODE) - shift
        else:
            i, j, d = other & _MASK, node, shift - (other >> _NODE)
        pairs.append(((i << _NODE | j) << _SHIFT | d) << 1 | (own == sign))
    return pairs


def _unpacked(pair: int) -> Pair:
    i, j = pair >> _PAIR - _NODE, pair >> _SHIFT + 1 & _MASK
    return i, j, pair >> 1 & (1 << _SHIFT) - 1, 1 if pair & 1 else -1
