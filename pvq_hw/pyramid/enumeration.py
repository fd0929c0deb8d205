"""Codewords of the pyramid, counted and numbered (Fischer 1986), with exact integers.

The order of the numbering: by the number i of nonzero elements, ascending; then by their
positions, then by their magnitudes, then by their signs. Sets of positions are in the order of
the combinatorial number system (``rank = sum C(p_j, j + 1)`` over the ascending positions p_j);
magnitudes are the set of the i - 1 partial sums below K, less 1, in the same order; signs are an
i-bit number whose bit j is 1 where the j-th nonzero element is negative.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["codeword", "index_of", "log2_volume", "volume"]


def _check(n: int, k: int) -> tuple[int, int]:
    for name, value, low in (("N", n, 1), ("K", k, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise InputError(f"{name} must be an integer of at least {low}, not {value!r}")
    return int(n), int(k)


def _classes(n: int, k: int) -> Iterator[tuple[int, int, int]]:
    """Yields (i, C(N, i), C(K - 1, i - 1)) for i nonzero elements out of N that sum to K."""
    if k == 0:
        yield 0, 1, 1
        return
    places, parts = n, 1
    for i in range(1, min(n, k) + 1):
        yield i, places, parts
        places = places * (n - i) // (i + 1)
        parts = parts * (k - i) // i


def volume(n: int, k: int) -> int:
    """V(N, K): the number of integer vectors of N elements with ``sum |y| = K``, exact."""
    n, k = _check(n, k)
    return sum((places * parts) << i for i, places, parts in _classes(n, k))


def log2_volume(n: int, k: int) -> float:
    """log2 V(N, K) in bits, in time O(min(N, K)); relative error below 1e-12."""
    n, k = _check(n, k)
    if min(n, k) <= 64:
        return math.log2(volume(n, k))
    i = np.arange(1, min(n, k), dtype=np.float64)
    # The terms 2**i C(N, i) C(K - 1, i - 1) by their ratios.
    ratio = np.log2(n - i) + np.log2(k - i) - np.log2(i + 1) - np.log2(i) + 1.0
    terms = np.concatenate([[0.0], np.cumsum(ratio)])
    top = float(terms.max())
    return top + math.log2(float(np.exp2(terms - top).sum())) + math.log2(2 * n)


def _rank(positions: list[int], size: int, places: int) -> int:
    """Rank of ascending positions below ``size``; ``places = C(size, len(positions))``."""
    count = len(positions)
    rank, here = 0, places
    for p in range(size - 1, -1, -1):
        if not count:
            break
        # here = C(p + 1, count): of these sets C(p, count) do without p.
        without = here * (p + 1 - count) // (p + 1)
        if p == positions[count - 1]:
            rank += without
            here -= without
            count -= 1
        else:
            here = without
    return rank


def _unrank(rank: int, size: int, count: int, places: int) -> list[int]:
    """The ``count`` ascending positions below ``size`` of this rank; places = C(size, count)."""
    positions: list[int] = []
    here = places
    for p in range(size - 1, -1, -1):
        if not count:
            break
        without = here * (p + 1 - count) // (p + 1)  # as in _rank
        if rank >= without:
            rank -= without
            here -= without
            count -= 1
            positions.append(p)
        else:
            here = without
    positions.reverse()
    return positions


def index_of(y: npt.ArrayLike) -> int:
    """Number of a codeword among the V(N, K) of its N and K, in the order of this module.

    Parameters
    ----------
    y : integer array (N,)
    """
    array = np.asarray(y)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise InputError(
            f"A codeword must be a vector of integers, not {array.dtype} {array.shape}"
        )
    return index_of_list(array.tolist())


def index_of_list(values: list[int]) -> int:
    """`index_of` for a list of Python integers that isn't checked."""
    positions = [p for p, v in enumerate(values) if v]
    k = 0
    cuts = []
    signs = 0
    for j, p in enumerate(positions):
        k += abs(values[p])
        cuts.append(k - 1)
        signs |= (values[p] < 0) << j
    count = len(positions)
    index = 0
    for i, places, parts in _classes(len(values), k):
        if i == count:
            place = _rank(positions, len(values), places)
            part = _rank(cuts[:-1], k - 1, parts) if i else 0
            index += ((place * parts + part) << i) + signs
            break
        index += (places * parts) << i
    return index


def codeword(n: int, k: int, index: int) -> npt.NDArray[np.int64]:
    """The codeword of this number, inverse of `index_of`: int64 array (N,), ``sum |y| = K``."""
    n, k = _check(n, k)
    if k >= 1 << 63:
        raise InputError(f"K must be less than 2**63, not {k}")
    y = np.zeros(n, dtype=np.int64)
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
        raise InputError(f"The index of a codeword must be an integer from 0 up, not {index!r}")
    index = int(index)
    for i, places, parts in _classes(n, k):
        size = (places * parts) << i
        if index < size:
            signs = index & ((1 << i) - 1)
            place, part = divmod(index >> i, parts)
            positions = _unrank(place, n, i, places)
            cuts = _unrank(part, k - 1, i - 1, parts) if i else []
            before = -1
            for j, (p, cut) in enumerate(zip(positions, [*cuts, k - 1], strict=False)):
                y[p] = before - cut if signs >> j & 1 else cut - before
                before = cut
            return y
        index -= size
    raise InputError(f"The index of a codeword of N = {n}, K = {k} must be less than V(N, K)")
