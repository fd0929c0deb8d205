"""Pulse moves: coordinate descent on a layer's output error, with ``sum |y|`` kept.

For a row with the real weights ``v = rho * y``, inputs x of the quantized network and the
reference's output t (both centered), the mean squared error of the output is ``v'Gv - 2 T.v`` plus
a constant, with ``G = E[x x']`` and ``T = E[t x']``. A move takes one pulse away and puts one down
elsewhere; its exact effect follows from the gradient and one entry of G, so a step costs O(N) a
row, for all rows of the layer at once. All products are exact (`pvq_hw.arith.exact`), so the codes
do not depend on the library or the number of threads that computed them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import grid, grid_bits, product
from pvq_hw.quantizer.banks import Placement

__all__ = [
    "WIDE",
    "Moments",
    "column_means",
    "improve",
    "moments",
    "output_error",
    "ridge_weights",
    "solve_gains",
    "within",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating]

WIDE = 12_288
"""Columns of a row beyond which its codes are the plain ones: moments would take 20 N**2 bytes,
here 3 GB. Biases still follow the data."""

_BLOCK = 1 << 16  # weights between two reports of progress
_PIECE = 4096  # frames at a time
_ROUNDS = 24  # of conjugate gradients towards the ridge solution, where a projection starts


@dataclass(frozen=True, eq=False)
class Moments:
    """What the error of a layer's output depends on.

    Parameters
    ----------
    gram : float32 array (N, N)
        ``E[x x']`` of the centered inputs, damped on its diagonal.
    cross : float32 array (M, N)
        ``E[t x']``, with the same damping towards the original weights.
    power : float64 array (M,)
        ``E[t t]``, so that the error has no unknown constant.
    weight : float array (M, N), optional
        The original weights, where a solution starts from.
    """

    gram: FloatArray
    cross: FloatArray
    power: npt.NDArray[np.float64]
    weight: FloatArray | None = None

    def rows(self, chosen: IntArray) -> "Moments":
        """The same of some rows only."""
        weight = None if self.weight is None else self.weight[chosen]
        return Moments(self.gram, self.cross[chosen], self.power[chosen], weight)


def moments(
    x: FloatArray, reference: FloatArray, weight: FloatArray, damping: float = 1e-3
) -> Moments:
    """Moments of inputs ``x`` (frames, N) and reference outputs (frames, M), both centered here.

    ``damping`` (a part of G's mean diagonal) pulls to the original weights where the data says
    nothing, for instance at pixels that are always black.

    Memory: G takes 4 N**2 bytes, and 16 N**2 more while it is summed (64 and 256 MiB at
    N = 4,096); the frames are read in pieces of 4,096.
    """
    frames, n = x.shape
    mean_x, mean_t = column_means(x), reference.mean(axis=0)
    gram = np.zeros((n, n))
    cross = np.zeros((reference.shape[1], n))
    power = np.zeros(reference.shape[1])
    for start in range(0, frames, _PIECE):
        piece = x[start : start + _PIECE] - mean_x
        target = reference[start : start + _PIECE] - mean_t
        bits = grid_bits(len(piece))
        piece = grid(piece, bits)
        gram += piece.T @ piece
        cross += grid(target, bits).T @ piece
        power += np.square(target, dtype=np.float64).sum(axis=0)
    gram /= frames
    cross /= frames
    ridge = damping * max(float(np.diag(gram).sum()) / n, 1e-12)
    gram[np.diag_indices(n)] += ridge
    cross += ridge * weight
    power = power / frames + ridge * np.square(weight).sum(axis=1)
    return Moments(gram.astype(np.float32), cross.astype(np.float32), power, weight)


def column_means(x: FloatArray, dtype: npt.DTypeLike | None = None) -> FloatArray:
    """``x.mean(axis=0, dtype=dtype)`` of rows (frames, N), to the last bit."""
    from pvq_hw.quantizer import kernels

    if x.dtype != np.float32 or not x.flags.c_contiguous or x.shape[1] == 1:  # 1: added in pairs
        return np.asarray(x.mean(axis=0, dtype=dtype))
    total = np.zeros(x.shape[1], dtype=dtype or x.dtype)
    kernels.add_rows(x, total)
    total /= len(x)
    return total


def ridge_weights(m: Moments) -> npt.NDArray[np.float64]:
    """Real weights (M, N) of nearly the least error: where a projection starts from.

    Conjugate gradients from the original weights, for all rows at once.
    """
    gram = grid(m.gram, grid_bits(len(m.gram)))
    v = np.zeros(m.cross.shape) if m.weight is None else np.array(m.weight, dtype=np.float64)
    scale = 1 / np.diag(m.gram).astype(np.float64)
    residual = m.cross - _by_gram(v, gram)
    step = residual * scale
    length = (residual * step).sum(axis=1)
    for _ in range(_ROUNDS):
        image = _by_gram(step, gram)
        curve = (step * image).sum(axis=1)
        part = np.where(curve > 0, length / np.where(curve > 0, curve, 1), 0)[:, None]
        v += part * step
        residual -= part * image
        conditioned = residual * scale
        after = (residual * conditioned).sum(axis=1)
        step = conditioned + (after / np.where(length > 0, length, 1))[:, None] * step
        length = after
    return v


def _by_gram(v: npt.NDArray[np.float64], gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``v @ gram`` with every row of v on a grid of its own; ``gram`` is on one already."""
    largest = np.maximum(np.abs(v).max(axis=1, keepdims=True, initial=0.0), 1e-300)
    _, exponent = np.frexp(largest)
    unit = np.ldexp(1.0, np.maximum(exponent - grid_bits(len(gram)), -1000))
    return np.asarray((np.rint(v / unit) @ gram) * unit)


def output_error(m: Moments, y: IntArray, gain: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean squared (damped) output error of every row, (M,)."""
    v = _expand(gain, y.shape[1]) * y
    gv = product(v, m.gram)
    return np.asarray((v * gv).sum(axis=1) - 2 * (v * m.cross).sum(axis=1) + m.power)


def _expand(gain: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Gains (M, G) as gains of the columns: (M, N), or (M, 1) for one group."""
    return gain if gain.shape[1] == 1 else np.repeat(gain, n // gain.shape[1], axis=1)


def within(y: IntArray, allowed: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> IntArray:
    """``y`` with the pulses that are not where they may be put at the row's largest score."""
    stray = np.abs(np.where(allowed, 0, y)).sum(axis=1)
    y = np.where(allowed, y, 0)
    best = np.where(allowed, np.abs(score), -1.0).argmax(axis=1)
    row = np.flatnonzero((stray > 0) & allowed.any(axis=1))
    sign = np.where(score[row, best[row]] < 0, -1, 1)
    y[row, best[row]] += sign * stray[row]
    return y


def solve_gains(
    gram: FloatArray,
    cross: FloatArray,
    y: IntArray,
    groups: int = 1,
    shared: bool = False,
) -> npt.NDArray[np.float64]:
    """Gains of the least error for given codewords, (M, G); never negative.

    ``shared``: one gain for the whole layer. A row or group without a positive answer gets 0.
    """
    m, n = y.shape
    parts = y.reshape(m, groups, n // groups)
    by = (cross.reshape(parts.shape) * parts).sum(axis=2, dtype=np.float64)
    if groups == 1:
        quad = (y * product(y, gram)).sum(axis=1)
        if shared:
            by, quad = by.sum(axis=0, keepdims=True), quad.sum(keepdims=True)
        gain = by[:, 0] / np.where(quad > 0, quad, 1.0)
        return np.asarray(np.broadcast_to(np.maximum(gain, 0.0)[:, None], (m, 1))).copy()
    size = n // groups
    square = np.empty((m, groups, groups))
    for g in range(groups):
        rows = product(parts[:, g], gram[g * size : (g + 1) * size])
        square[:, g] = (rows.reshape(m, groups, size) * parts).sum(axis=2)
    diagonal = np.einsum("mgg->mg", square)
    diagonal += 1e-6 * diagonal.mean(axis=1, keepdims=True) + 1e-30
    return np.maximum(_eliminate(square, by), 0.0)


def _eliminate(
    matrix: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Solutions (M, G) of positive definite systems (M, G, G), by elimination in this order."""
    a, x = matrix.copy(), right.copy()
    size = a.shape[1]
    for i in range(size):
        factor = a[:, i + 1 :, i] / a[:, i, i, None]
        a[:, i + 1 :] -= factor[:, :, None] * a[:, i, None]
        x[:, i + 1 :] -= factor * x[:, i, None]
    for i in reversed(range(size)):
        x[:, i] = (x[:, i] - (a[:, i, i + 1 :] * x[:, i + 1 :]).sum(axis=1)) / a[:, i, i]
    return x


def improve(
    m: Moments,
    y: IntArray,
    *,
    groups: int = 1,
    shared: bool = False,
    placement: Placement | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    patience: int = 16,
    progress: Callable[[float], None] | None = None,
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Moves single pulses while a row's output error falls; returns codewords and gains.

    Parameters
    ----------
    m : Moments
    y : int64 array (M, N)
        Where to start. ``sum |y|`` of every row, group and bank stays what it is.
    placement : Placement, optional
        Banks and largest gap; ``y`` must meet it already, and so does the result.
    allowed : bool array (M, N), optional
        Where pulses may be put; everywhere by default.
    patience : int
        A row is done when this many of its cheapest pulses in turn have nowhere better to go.
    """
    from pvq_hw.quantizer import kernels

    y = np.ascontiguousarray(y, dtype=np.int64).copy()
    rows, n = y.shape
    closed = np.zeros((1, n), dtype=bool) if allowed is None else np.ascontiguousarray(~allowed)
    banks, gap = (1, 0) if placement is None else (placement.banks, placement.max_gap or 0)
    gram, cross = m.gram.astype(np.float32), np.ascontiguousarray(m.cross, dtype=np.float32)
    if shared:
        _improve_shared(m, gram, y, closed, banks, gap, patience)
    step = max(1, rows if shared else _BLOCK // n)
    for start in range(0, 0 if shared else rows, step):
        part = slice(start, start + step)
        kernels.improve_rows(
            gram, cross[part], m.power[part], y[part],
            closed if allowed is None else closed[part], groups, banks, gap, patience,
        )  # fmt: skip
        if progress:
            progress(min(1.0, (start + step) / rows))
    return y, solve_gains(m.gram, m.cross, y, groups, shared)


def _improve_shared(
    m: Moments,
    gram: FloatArray,
    y: IntArray,
    closed: npt.NDArray[np.bool_],
    banks: int,
    gap: int,
    patience: int,
) -> None:
    """`improve` of rows that share a gain, in place."""
    from pvq_hw.quantizer import kernels

    rows, n = y.shape
    barred, failures = np.zeros(y.shape, dtype=bool), np.zeros(rows, dtype=np.int64)
    active = np.flatnonzero(y.any(axis=1))
    for _ in range(40 * patience + 4 * int(np.abs(y).sum(axis=1).max(initial=0))):
        if not active.size:
            return
        gain = solve_gains(m.gram, m.cross, y, 1, True)[0, 0] or 1e-30
        r = np.full(n, gain, dtype=np.float32)
        gradient = (gain * product(y, m.gram) - m.cross).astype(np.float32)
        done = []
        for row in active:
            moved, exhausted = kernels.search_row(
                gram, gradient[row], y[row], r, closed[row % len(closed)], 1, banks, gap,
                barred[row],
            )  # fmt: skip
            # The gain of rows that moved is new, so only what failed since then counts.
            failures[row] = 0 if moved else failures[row] + kernels.TRIES
            barred[row] &= not moved
            done.append(failures[row] >= patience or (exhausted and not moved))
        active = active[~np.array(done)]
