"""Budgets of pulses: how many each row of each layer gets.

The network's output error is taken as the sum over rows of ``sensitivity * error(K)``: how much
the outputs change with the row's sum, and the row's own squared error with K pulses, measured by
quantizing the layer at a few K. The best split gives every pulse where it lowers that sum most.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.errors import InputError

__all__ = [
    "MOST_PULSES",
    "Curve",
    "allocate",
    "layer_shares",
    "round_to_multiple",
    "shared_total",
    "spread",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MOST_PULSES = 4
"""Of a weight, that calibration tries."""

_SHARE = 0.65  # a layer's pulses grow with this power of its weights


@dataclass(frozen=True, eq=False)
class Curve:
    """Output error of a layer's rows by their pulses.

    Parameters
    ----------
    k : int64 array (J,)
        The K tried, rising.
    error : float64 array (J, rows tried)
        Squared error of those rows at each K.
    scale : float64 array (M,)
        Error of every row relative to the rows tried, times its sensitivity.
    """

    k: IntArray
    error: FloatArray
    scale: FloatArray

    def benefits(self) -> FloatArray:
        """What one more pulse lowers the error by, for ``scale`` 1: entry i is for K = i + 1 to
        i + 2; never rising, up to the largest K tried. Where the error hardly falls and then falls
        more, the pulses on the way count by what they bring together."""
        log_k = exact.log(self.k)
        log_error = exact.log(np.maximum(self.error, 1e-30)).mean(axis=1)
        log_error = np.minimum.accumulate(log_error)
        if self.k[0] > 1:
            first = (log_error[1] - log_error[0]) / (log_k[1] - log_k[0]) if len(log_k) > 1 else -1
            log_error = np.concatenate([[log_error[0] - first * log_k[0]], log_error])
            log_k = np.concatenate([[0.0], log_k])
        grid = exact.log(np.arange(1, self.k[-1] + 1))
        # Written out, since interp rounds once or twice by processor.
        at = np.clip(np.searchsorted(log_k, grid, side="right"), 1, len(log_k) - 1)
        slope = (log_error[at] - log_error[at - 1]) / (log_k[at] - log_k[at - 1])
        value = exact.exp(log_error[at - 1] + slope * (grid - log_k[at - 1]))
        return _never_rising(value[:-1] - value[1:])


def _never_rising(benefit: FloatArray) -> FloatArray:
    """Means of neighbors, where later ones are larger: the slopes of the least convex curve."""
    means: list[float] = []
    counts: list[int] = []
    for value in benefit.tolist():
        mean, count = value, 1
        while means and means[-1] < mean:
            before = counts.pop()
            mean = (means.pop() * before + mean * count) / (before + count)
            count += before
        means.append(mean)
        counts.append(count)
    return np.repeat(np.array(means), counts)


def shared_total(layers: Mapping[str, tuple[int, int]], ratio: float) -> int:
    """Pulses of layers that share one mean N/K: all their weights over ``ratio``.

    Where that leaves too few, rows of one weight, which one pulse says exactly, have theirs
    without taking part.

    Parameters
    ----------
    layers : mapping of name to (rows, weights)

    Raises
    ------
    InputError
        Where rows are left without a pulse.
    """
    rows = sum(m for m, _ in layers.values())
    total = int(sum(size for _, size in layers.values()) / ratio + 1e-9)
    if total < rows:
        single = sum(m for m, size in layers.values() if size == m)
        rest = sum(size for m, size in layers.values() if size != m)
        total = single + int(rest / ratio + 1e-9)
    if total < rows:
        names = ", ".join(map(repr, list(layers)[:8]))
        raise InputError(
            f"N/K must leave each of {rows} rows of {names} a pulse, "
            f"but {ratio:g} leaves {total} in all"
        )
    return total


def layer_shares(
    layers: Mapping[str, tuple[int, int]],
    ratio: float,
    emphasis: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Pulses of layers (rows, weights) that share one mean N/K, without data.

    What is lost grows with a power of N/K whatever the layer, so small layers, whose pulses cost
    little, get more of them: K in proportion to ``weights ** 0.65``, at most one a weight.
    ``emphasis`` multiplies that by layer, to guess what calibration would give, which goes up to
    `MOST_PULSES` a weight.
    """
    total, more = shared_total(layers, ratio), emphasis or {}

    most = 1 if emphasis is None else MOST_PULSES

    def shares(price: float) -> dict[str, int]:
        return {n: _share(price * more.get(n, 1), *s, ratio, most) for n, s in layers.items()}

    low, high = 0.0, float(total) + 1
    for _ in range(100):
        middle = (low + high) / 2
        if sum(shares(middle).values()) > total:
            high = middle
        else:
            low = middle
    return shares(low)


def _share(price: float, rows: int, size: int, ratio: float, most: int) -> int:
    limit = most * max(size, int(size / ratio))
    return max(rows, min(limit, int(price * exact.exp(_SHARE * exact.log(size)))))


def allocate(curves: list[Curve], total: int) -> list[IntArray]:
    """K of every row of every layer, (M,) each, at least 1; they add up to ``total``, or to what
    the curves reach.

    Raises InputError where ``total`` leaves a row without a pulse.
    """
    rows = sum(len(curve.scale) for curve in curves)
    if total < rows:
        raise InputError(
            f"The ratio N/K must leave each of {rows} rows a pulse, but it leaves {total} in all"
        )
    benefits = [curve.benefits() for curve in curves]
    low, high = 0.0, max(
        float(c.scale.max(initial=0)) * float(b.max(initial=0))
        for c, b in zip(curves, benefits, strict=True)
    )  # fmt: skip
    for _ in range(100):
        price = (low + high) / 2
        if sum(int(k.sum()) for k in _at(curves, benefits, price)) > total:
            low = price
        else:
            high = price
    below, above = _at(curves, benefits, high), _at(curves, benefits, low)
    left = total - sum(int(k.sum()) for k in below)
    for k, more in zip(below, above, strict=True):
        take = np.minimum(more - k, np.maximum(left - np.cumsum(more - k) + (more - k), 0))
        k += take
        left -= int(take.sum())
    return below


def _at(curves: list[Curve], benefits: list[FloatArray], price: float) -> list[IntArray]:
    """K of every row where each pulse is worth more than ``price``."""
    result = []
    for curve, benefit in zip(curves, benefits, strict=True):
        worth = price / np.maximum(curve.scale, 1e-300)
        result.append(1 + np.searchsorted(-benefit, -worth, side="left").astype(np.int64))
    return result


def round_to_multiple(k: IntArray, multiple: int) -> IntArray:
    """Rounds the K of rows to multiples, at least one, with about the same sum and never more
    unless rows would be left without."""
    return spread((k - 1).astype(np.float64), int(k.sum()), multiple) if multiple > 1 else k


def spread(weight: FloatArray, total: int, multiple: int = 1) -> IntArray:
    """Splits ``total`` pulses in proportion to ``weight`` (M,), in multiples, at least one each.

    Largest remainders get what rounding leaves, earlier rows first; the sum is ``total`` rounded
    down to a multiple, or ``M * multiple`` where that is more.
    """
    rows = len(weight)
    units = max(total // multiple, rows)
    share = np.maximum(np.asarray(weight, dtype=np.float64), 0.0)
    share = share / share.sum() if share.sum() > 0 else np.full(rows, 1 / rows)
    ideal = 1 + share * (units - rows)
    k = np.floor(ideal).astype(np.int64)
    left = units - int(k.sum())
    order = np.argsort(-(ideal - k), kind="stable")
    k[order[:left]] += 1
    return k * multiple
