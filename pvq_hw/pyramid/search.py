"""Best cosine on the pyramid, for batches of sorted magnitudes.

For a fixed scale alpha the y >= 0 with ``sum y = K`` nearest to ``alpha * a`` minimizes
``q - 2 * alpha * s`` with ``s = <a, y>``, ``q = <y, y>``; over all alpha these points are the
corners of the lower convex hull of the points (s, q). The codeword of the best cosine is one of
them: with ``alpha = q* / s*`` every y has ``q - 2 alpha s >= q - 2 sqrt(q q*) >= -q*``, which the
best one attains.

So the search walks the hull. Between two corners the hull lies inside the triangle of their chord
and their tangents, and ``s**2 / q`` is quasi-convex, so it is bounded by its value at the
triangle's corners: intervals that can't hold a better point are dropped, the others are cut at
the slope of their chord. When none is left, the best corner seen is the optimum, to the rounding
of float64. That takes about 10 to 20 codewords per row, whatever N.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

__all__ = ["allocate", "best_scale"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_EPSILON = 1e-15  # relative differences of s**2 / q below this are rounding
_ROUNDS = 3  # alternations of gain and codeword before the search proper
_BLOCK = 1 << 16  # elements of a temporary array


def allocate(a: Floats, alpha: Floats, k: Ints) -> Floats:
    """Nearest codewords ``y >= 0`` to ``alpha * a``, ``sum y = K`` in every row.

    ``y = max(0, round(alpha * a - theta))``, with theta found by bisection until one more pulse
    each, for those with the largest remainders, makes the sum right. Of equal remainders the
    first one gets the pulse.

    Parameters
    ----------
    a : float64 array (R, C)
        Magnitudes, descending along each row.
    alpha : float64 array (R,)
    k : int64 array (R,)

    Returns
    -------
    float64 array (R, C) of integers.
    """
    v = a * alpha[:, None]
    high = v[:, 0] + 0.5  # no pulse at all
    low = (v.sum(axis=1) - k) / v.shape[1] - 1.0  # K pulses or more
    settled = np.zeros(len(v), dtype=bool)
    theta = high
    while True:
        t = v - (theta - 0.5)[:, None]
        y = np.maximum(t, 0.0)
        np.floor(y, out=y)
        count = y.sum(axis=1)
        settled |= (count <= k) & (k - count <= np.count_nonzero(t >= 0.0, axis=1))
        if settled.all():
            break
        low = np.where(count > k, theta, low)
        high = np.where(count > k, high, theta)
        theta = np.where(settled, theta, 0.5 * (low + high))
    missing = (k - count).astype(np.int64)
    if missing.any():
        # Those in reach (t >= 0) have a remainder within [0, 1): each gets one pulse at most.
        del v
        t -= y
        np.negative(t, out=t)
        order = np.argsort(t, axis=1, kind="stable")
        order = order[:, : int(missing.max())]
        more = np.arange(order.shape[1]) < missing[:, None]
        row, j = np.nonzero(more)
        y[row, order[row, j]] += 1.0
    return y


@dataclass
class _Points:
    """Corners of the hulls: ``row``, and ``s``, ``q`` of the codeword found at ``alpha``."""

    row: npt.NDArray[np.intp]
    alpha: Floats
    s: Floats
    q: Floats

    def take(self, index: npt.NDArray[np.generic]) -> "_Points":
        return _Points(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def score(self) -> Floats:
        """``s**2 / q``, proportional to the square of the cosine."""
        return self.s * self.s / self.q


def _join(first: _Points, second: _Points) -> _Points:
    return _Points(
        *(np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in fields(first))
    )


def _evaluate(a: Floats, k: Ints, row: npt.NDArray[np.intp], alpha: Floats) -> _Points:
    s = np.empty(len(row))
    q = np.empty(len(row))
    step = max(1, _BLOCK // a.shape[1])
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        rows = a[row[part]]
        y = allocate(rows, alpha[part], k[row[part]])
        s[part] = (rows * y).sum(axis=1)
        q[part] = (y * y).sum(axis=1)
    return _Points(row, alpha, s, q)


def _bound(left: _Points, right: _Points) -> Floats:
    """Upper bound of ``s**2 / q`` between two corners: its value where their tangents meet."""
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (left.q - right.q - 2.0 * (left.alpha * left.s - right.alpha * right.s)) / (
            2.0 * (right.alpha - left.alpha)
        )
    s = np.clip(np.where(np.isfinite(s), s, right.s), left.s, right.s)
    q = left.q + 2.0 * left.alpha * (s - left.s)
    return s * s / q


def best_scale(a: Floats, k: Ints) -> Floats:
    """The alpha of each row whose nearest codeword has the best cosine with the row.

    Parameters
    ----------
    a : float64 array (R, C)
        Magnitudes, descending along each row, of norm 1.
    k : int64 array (R,)

    Returns
    -------
    float64 array (R,), to be given to `allocate`.
    """
    rows = np.arange(len(a))
    pulses = k.astype(np.float64)
    # alpha = q / s = |y| / cosine, and |y|**2 is K, or K**2 / C, at least and K**2 at most.
    left = _evaluate(a, k, rows, np.sqrt(np.maximum(pulses, pulses**2 / a.shape[1])))
    middle = left
    for _ in range(_ROUNDS):
        middle = _evaluate(a, k, rows, middle.q / middle.s)
    right = _evaluate(a, k, rows, pulses * np.sqrt(middle.q) / middle.s)
    best = np.maximum(middle.score, right.score)
    scale = np.where(right.score > middle.score, right.alpha, middle.alpha)
    left, right = _join(left, middle), _join(middle, right)
    while True:
        live = (
            (right.s > left.s)
            & (right.q > left.q)
            & (right.alpha > left.alpha)
            & (_bound(left, right) > best[left.row] * (1.0 + _EPSILON))
        )
        if not live.any():
            return scale
        left, right = left.take(live), right.take(live)
        chord = np.clip((right.q - left.q) / (2.0 * (right.s - left.s)), left.alpha, right.alpha)
        found = _evaluate(a, k, left.row, chord)
        better = np.flatnonzero(found.score > best[found.row])
        # The best of each row: sorted by score, the last one written stays.
        better = better[np.argsort(found.score[better], kind="stable")]
        best[found.row[better]] = found.score[better]
        scale[found.row[better]] = chord[better]
        below = left.q - found.q - 2.0 * chord * (left.s - found.s)
        new = below > 1e-13 * left.q
        left, found, right = left.take(new), found.take(new), right.take(new)
        left, right = _join(left, found), _join(found, right)
