"""Balanced pulses: every bank of a row holds as many, and none further from the last than a gap.

Column n of a row is in bank ``n mod P``, at position ``n div P``. When each bank of a row holds
exactly K/P pulses, P lanes in lock step never idle; when positions never advance by more than the
largest gap, counted from 0 at the start of each row, their code needs no escapes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = [
    "COLUMNS_PER_BANK",
    "PLAIN_COLUMNS_PER_BANK",
    "WINDOW_PULSES",
    "Placement",
    "balance",
    "can_balance",
    "meets",
    "nearest_even",
]

COLUMNS_PER_BANK = 4
"""With fewer columns in a bank, pulses are not balanced."""
PLAIN_COLUMNS_PER_BANK = 12
"""The same for codes that no data refines: they do not recover what balance takes from them, see
docs/decisions/plain-banks.md."""

WINDOW_PULSES = 8
"""With fewer pulses of a convolution's row in a bank, balancing them takes the best places."""

_ROUNDS = 20  # of scale and pulses by turns; most rows take 2 to 6
_CHUNK = 1 << 16  # weights that are worked on at a time

Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Placement:
    """Where pulses may be.

    Parameters
    ----------
    banks : int
        P; K of every row is a multiple of it.
    max_gap : int, optional
        Largest advance within a bank; at least 1.
    """

    banks: int
    max_gap: int | None = None

    def __post_init__(self) -> None:
        if self.banks < 1:
            raise InputError(f"Banks must be at least 1, not {self.banks}")
        if self.max_gap is not None and self.max_gap < 1:
            raise InputError(f"The largest gap must be at least 1, not {self.max_gap}")


def _by_bank(array: npt.NDArray[np.generic], banks: int) -> npt.NDArray[np.generic]:
    """(M, N) -> (M, P, ceil(N/P)), padded with zeros (False)."""
    m, n = array.shape
    depth = -(-n // banks)
    padded = np.zeros((m, depth * banks), dtype=array.dtype)
    padded[:, :n] = array
    return padded.reshape(m, depth, banks).transpose(0, 2, 1)


def meets(y: IntArray, placement: Placement) -> bool:
    """Whether ``y`` (M, N) is balanced and escape-free."""
    banked = np.abs(_by_bank(y, placement.banks))
    counts = banked.sum(axis=2)
    if not np.all(counts == counts[:, :1]):
        return False
    if placement.max_gap is None:
        return True
    index = np.arange(banked.shape[2])
    last = np.maximum.accumulate(np.where(banked > 0, index, 0), axis=2)
    before = np.concatenate([np.zeros_like(last[..., :1]), last[..., :-1]], axis=2)
    return bool(np.all((index - before)[banked > 0] <= placement.max_gap))


def can_balance(k: int, n: int, banks: int, columns: int = COLUMNS_PER_BANK) -> bool:
    """Whether every bank of a row may be given as many pulses: it has pulses, and ``columns`` at
    least to choose from. With one column each, all weights would get the same magnitude."""
    return k >= banks and n >= columns * banks


def nearest_even(w: npt.NDArray[np.float64], k: int, banks: int) -> IntArray:
    """Codewords (M, N) of weights that no calibration follows, as near as evenness allows.

    Every bank of a row has ``k // banks`` pulses or one more, and all banks of it one scale, which
    is found by turns with the pulses. Rows that are 0 in all of a bank, whose pulses there would
    stand for nothing, get the nearest point wherever it has its pulses.
    """
    from pvq_hw.pyramid.nearest import nearest

    y = nearest(w, k)
    filled = np.stack([(w[:, b::banks] != 0).any(axis=1) for b in range(banks)])
    live: npt.NDArray[np.bool_] = np.all(filled, axis=0)
    rows = np.flatnonzero(live)
    step = max(1, _CHUNK // w.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        even = _even(np.abs(w[part]), np.abs(y[part]).astype(np.float64), k, banks)
        y[part] = np.where(w[part] < 0, -even, even)
    return y


def _even(a: Floats, y: Floats, k: int, banks: int) -> Floats:
    """Even pulses of magnitudes (M, N), from any pulses that there are to start with."""
    a = a / a.max(axis=1, keepdims=True)
    orders = [np.argsort(-a[:, b::banks], axis=1, kind="stable") for b in range(banks)]
    for _ in range(_ROUNDS):
        before = y
        y = _even_at(a, (y * y).sum(axis=1) / (a * y).sum(axis=1), k, orders)
        if np.array_equal(y, before):
            break
    return y


def _even_at(a: Floats, alpha: Floats, k: int, orders: list[IntArray]) -> Floats:
    """The even pulses nearest to ``alpha * a``."""
    from pvq_hw.pyramid.search import allocate

    banks = len(orders)
    each = np.full(len(a), k // banks, dtype=np.int64)
    y = np.zeros_like(a)
    for b, order in enumerate(orders):
        falling = np.take_along_axis(a[:, b::banks], order, axis=1)
        np.put_along_axis(y[:, b::banks], order, allocate(falling, alpha, each), axis=1)
    left = k % banks
    if left:
        missing = alpha[:, None] * a - y
        best = np.stack([b + banks * missing[:, b::banks].argmax(axis=1) for b in range(banks)], 1)
        first = np.argsort(-np.take_along_axis(missing, best, axis=1), axis=1, kind="stable")
        column = np.take_along_axis(best, first[:, :left], axis=1)
        np.put_along_axis(y, column, np.take_along_axis(y, column, axis=1) + 1, axis=1)
    return y


def balance(score: npt.NDArray[np.float64], k: IntArray, placement: Placement) -> IntArray:
    """Projects rows onto balanced codewords, then mends gaps that are too long.

    Parameters
    ----------
    score : float64 array (M, N)
        The real weights; larger magnitudes are kept first.
    k : int64 array (M,)
        Multiples of the number of banks.

    Returns
    -------
    int64 array (M, N): nearest point of every bank, with pulses moved where a gap asks for it.
    """
    from pvq_hw.pyramid.nearest import nearest

    m, n = score.shape
    if np.any(k % placement.banks):
        raise InputError(f"K must be a multiple of the {placement.banks} banks in every row")
    if placement.banks > n:
        raise InputError(f"Banks must be at most the {n} columns, not {placement.banks}")
    y = np.zeros((m, n), dtype=np.int64)
    for width in {-(-n // placement.banks), n // placement.banks}:
        # Banks of one width together: one call for each would take most of the time.
        banks = [b for b in range(placement.banks) if len(range(b, n, placement.banks)) == width]
        columns = np.add.outer(banks, placement.banks * np.arange(width))
        part = score[:, columns].reshape(-1, width)
        dead = ~np.asarray(part != 0).any(axis=1, keepdims=True)
        counts = np.repeat(k // placement.banks, len(banks))
        found = nearest(np.where(dead, 1.0, part), counts)
        y[:, columns] = found.reshape(m, len(banks), width)
    if placement.max_gap is not None:
        for row in range(m):
            for bank in range(placement.banks):
                column = slice(bank, None, placement.banks)
                _mend(y[row, column], score[row, column], placement.max_gap)
    return y


def _mend(y: IntArray, score: npt.NDArray[np.float64], gap: int) -> None:
    """Moves pulses of one bank, in place, until no advance is longer than ``gap``.

    Works from the start: puts a pulse at the best place within reach and takes the cheapest
    removable one that lies further on, or one of several at the same place. Taking the last pulse
    never opens a gap, so this ends.
    """
    while True:
        used = np.flatnonzero(y)
        steps = np.diff(np.concatenate([[0], used]))
        late = np.flatnonzero(steps > gap)
        if not late.size:
            return
        first = int(late[0])
        start = 0 if first == 0 else int(used[first - 1])
        goal = int(used[first])
        low = max(start + 1, goal - gap if goal - start <= 2 * gap else start + (gap + 1) // 2)
        reach = np.abs(score[low : start + gap + 1])
        new = low + int(reach.argmax())
        spare = _spare(y, score, first, gap)
        y[spare] -= np.sign(y[spare])
        y[new] += 1 if score[new] >= 0 else -1


def _spare(y: IntArray, score: npt.NDArray[np.float64], first: int, gap: int) -> int:
    """The pulse of a bank that is cheapest to take: one of several at a place, or one beyond the
    first gap whose going opens no other, else the last."""
    used = np.flatnonzero(y)
    value = np.abs(score[used]).astype(np.float64)
    before = np.concatenate([[0], used[:-1]])
    after = np.concatenate([used[1:], [-1]])
    fine = (np.abs(y[used]) > 1) | (after < 0)
    fine |= (np.arange(len(used)) > first) & (after - before <= gap)
    value[~fine] = np.inf
    return int(used[value.argmin()])
