"""Pulse moves: coordinate descent on a layer's output error, with ``sum |y|`` kept.

For a row with the real weights ``v = rho * y``, inputs x of the quantized network and the
reference's output t (both centered), the mean squared error of the output is ``v'Gv - 2 T.v`` plus
a constant, with ``G = E[x x']`` and ``T = E[t x']``. A move takes one pulse away and puts one down
elsewhere; its exact effect follows from the gradient and one entry of G, so a step costs O(N) a
row, for all rows of the layer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.quantizer_balance import Placement, allowed_additions, removable

__all__ = ["Moments", "improve", "moments", "output_error", "ridge_weights", "solve_gains"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating]

_CHUNK = 1 << 21  # elements of one (rows, N) work array
_REFRESH = 12  # moves between two solutions of the gains, which also sweep out rounding


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
    """

    gram: FloatArray
    cross: FloatArray
    power: npt.NDArray[np.float64]


def moments(
    x: FloatArray, reference: FloatArray, weight: FloatArray, damping: float = 1e-3
) -> Moments:
    """Moments of inputs ``x`` (frames, N) and reference outputs (frames, M), both centered here.

    ``damping`` (a part of G's mean diagonal) pulls to the original weights where the data says
    nothing, for instance at pixels that are always black.

    Memory: G takes 4 N**2 bytes (64 MB at N = 4,096); the frames are read in pieces of 4,096.
    """
    frames, n = x.shape
    mean_x, mean_t = x.mean(axis=0), reference.mean(axis=0)
    gram = np.zeros((n, n), dtype=np.float32)
    cross = np.zeros((reference.shape[1], n), dtype=np.float32)
    power = np.zeros(reference.shape[1])
    for start in range(0, frames, 4096):
        piece = (x[start : start + 4096] - mean_x).astype(np.float32)
        target = (reference[start : start + 4096] - mean_t).astype(np.float32)
        gram += piece.T @ piece
        cross += target.T @ piece
        power += np.square(target, dtype=np.float64).sum(axis=0)
    gram /= frames
    cross /= frames
    ridge = np.float32(damping * max(float(np.trace(gram)) / n, 1e-12))
    gram[np.diag_indices(n)] += ridge
    cross += ridge * weight.astype(np.float32)
    return Moments(gram, cross, power / frames + float(ridge) * np.square(weight).sum(axis=1))


def ridge_weights(m: Moments) -> npt.NDArray[np.float64]:
    """The real weights (M, N) of the least error: where a projection starts from."""
    solution = np.linalg.solve(m.gram.astype(np.float64), m.cross.T.astype(np.float64))
    return np.asarray(solution.T)


def output_error(m: Moments, y: IntArray, gain: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean squared (damped) output error of every row, (M,)."""
    v = _expand(gain, y.shape[1]) * y
    gv = (v.astype(np.float32) @ m.gram).astype(np.float64)
    return np.asarray((v * gv).sum(axis=1) - 2 * (v * m.cross).sum(axis=1) + m.power)


def _expand(gain: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Gains (M, G) as gains of the columns: (M, N), or (M, 1) for one group."""
    return gain if gain.shape[1] == 1 else np.repeat(gain, n // gain.shape[1], axis=1)


def solve_gains(
    gram: FloatArray, cross: FloatArray, y: IntArray, groups: int = 1, shared: bool = False
) -> npt.NDArray[np.float64]:
    """Gains of the least error for given codewords, (M, G); never negative.

    ``shared``: one gain for the whole layer. A row or group without a positive answer gets 0.
    """
    m, n = y.shape
    parts = y.reshape(m, groups, n // groups).astype(np.float32)
    by = (cross.reshape(m, groups, n // groups) * parts).sum(axis=2).astype(np.float64)
    if groups == 1:
        yf = parts[:, 0]
        quad = (yf * (yf @ gram)).sum(axis=1, dtype=np.float64)
        if shared:
            by, quad = by.sum(axis=0, keepdims=True), quad.sum(keepdims=True)
        gain = by[:, 0] / np.where(quad > 0, quad, 1.0)
        return np.asarray(np.broadcast_to(np.maximum(gain, 0.0)[:, None], (m, 1))).copy()
    size = n // groups
    quad = np.empty((m, groups, groups))
    for g in range(groups):
        rows = parts[:, g] @ gram[g * size : (g + 1) * size]
        quad[:, g] = (rows.reshape(m, groups, size) * parts).sum(axis=2)
    diagonal = np.einsum("mgg->mg", quad)
    diagonal += 1e-6 * diagonal.mean(axis=1, keepdims=True) + 1e-30
    return np.maximum(np.linalg.solve(quad, by[:, :, None])[:, :, 0], 0.0)


def improve(
    m: Moments,
    y: IntArray,
    *,
    groups: int = 1,
    shared: bool = False,
    placement: Placement | None = None,
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
    patience : int
        A row is done when this many of its cheapest pulses in turn have nowhere better to go.
    """
    y = y.copy()
    rows = len(y)
    step = max(1, _CHUNK // y.shape[1])
    if shared:
        step = rows
    for start in range(0, rows, step):
        part = slice(start, start + step)
        _improve_rows(m.gram, m.cross[part], y[part], groups, shared, placement, patience)
        if progress:
            progress(min(1.0, (start + step) / rows))
    gain = solve_gains(m.gram, m.cross, y, groups, shared)
    return y, gain


def _improve_rows(
    gram: FloatArray,
    cross: FloatArray,
    y: IntArray,
    groups: int,
    shared: bool,
    placement: Placement | None,
    patience: int,
) -> None:
    """`improve` on the rows of one chunk, in place."""
    rows, n = y.shape
    cell = np.arange(n) // (n // groups)
    if placement is not None:
        cell = cell * placement.banks + np.arange(n) % placement.banks
    failures = np.zeros(rows, dtype=np.int64)
    tabu = np.zeros(y.shape, dtype=bool)
    active = np.flatnonzero(np.abs(y).sum(axis=1) > 0)
    for _ in range(40 * patience + 4 * int(np.abs(y).sum(axis=1).max(initial=0))):
        if not active.size:
            return
        gain = _positive_gains(gram, cross, y, groups, shared)
        search = _Search(gram, cross[active], y[active], gain[active], cell, placement)
        search.tabu = tabu[active]
        for _ in range(_REFRESH):
            search.step()
        # The gains of rows that moved are new, so only what failed since then counts.
        y[active] = search.y
        failures[active] = np.where(search.moved, 0, failures[active] + _REFRESH)
        tabu[active] = search.tabu & ~search.moved[:, None]
        active = active[(failures[active] < patience) & (search.moved | ~search.exhausted)]


def _positive_gains(
    gram: FloatArray, cross: FloatArray, y: IntArray, groups: int, shared: bool
) -> npt.NDArray[np.float64]:
    """Gains to search with: where the best is 0, a small positive one, so that pulses matter."""
    gain = solve_gains(gram, cross, y, groups, shared)
    floor = 1e-3 * gain.max(axis=1, keepdims=True)
    overall = float(gain.max(initial=0.0)) or 1.0
    return np.maximum(gain, np.where(floor > 0, floor, 1e-2 * overall))


class _Search:
    """Moves of a set of rows at fixed gains, with the gradient kept up to date."""

    def __init__(
        self,
        gram: FloatArray,
        cross: FloatArray,
        y: IntArray,
        gain: npt.NDArray[np.float64],
        cell: IntArray,
        placement: Placement | None,
    ) -> None:
        self.gram, self.y, self.cell, self.placement = gram, y, cell, placement
        self.one_cell = bool(np.all(cell == cell[0]))
        self.r = _expand(gain, y.shape[1]).astype(np.float32)
        self.gradient = (y * self.r).astype(np.float32) @ gram - cross
        self.square = (self.r * self.r) * np.diag(gram).astype(np.float32)
        self.tabu = np.zeros(y.shape, dtype=bool)
        self.exhausted = np.zeros(len(y), dtype=bool)
        self.moved = np.zeros(len(y), dtype=bool)
        self.row = np.arange(len(y))

    def step(self) -> None:
        """Every row tries its cheapest untried pulse at the best other place.

        After a move, every pulse of that row may be tried again.
        """
        row, y, r = self.row, self.y, self.r
        sign = np.sign(y).astype(np.float32)
        cost = self.square - 2 * r * sign * self.gradient
        free = (y != 0) & ~self.tabu
        if self.placement is not None:
            free &= removable(y, self.placement)
        cost[~free] = np.inf
        i = cost.argmin(axis=1)
        taken = cost[row, i]
        s_i = sign[row, i].astype(np.int64)
        r_i = r[row, i if r.shape[1] > 1 else 0]
        y[row, i] -= s_i
        after = self.gradient - (r_i * s_i)[:, None] * self.gram[i]
        put = np.where(y[row, :] == 0, -np.abs(after), np.sign(y) * after)
        put *= 2 * r
        put += self.square
        if self.placement is not None:
            put[~allowed_additions(y, i, self.placement)] = np.inf
        if not self.one_cell:
            put[self.cell[None, :] != self.cell[i][:, None]] = np.inf
        j = put.argmin(axis=1)
        noise = 1e-5 * (np.abs(taken) + np.abs(put[row, j])) + 1e-30
        moved = np.isfinite(taken) & (taken + put[row, j] < -noise)
        s_j = np.where(y[row, j] == 0, -np.sign(after[row, j]), np.sign(y[row, j]))
        s_j = np.where(s_j == 0, 1, s_j).astype(np.int64)
        y[row, i] += np.where(moved, 0, s_i)
        y[row, j] += np.where(moved, s_j, 0)
        r_j = r[row, j if r.shape[1] > 1 else 0]
        change = (r_j * s_j)[:, None] * self.gram[j]
        self.gradient = np.where(moved[:, None], after + change, self.gradient)
        self.tabu[row, i] = True
        self.tabu[moved] = False
        self.moved |= moved
        self.exhausted = ~np.isfinite(taken)
