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
from pvq_hw.quantizer.banks import Placement, allowed_additions, removable

__all__ = [
    "Moments",
    "improve",
    "moments",
    "output_error",
    "ridge_weights",
    "solve_gains",
    "within",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating]

_CHUNK = 1 << 21  # elements of one (rows, N) work array
_BLOCK = 1 << 16  # elements of the arrays that a step goes over, so that they stay in the cache
_REFRESH = 12  # moves between two solutions of the gains, which also sweep out rounding
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
    mean_x, mean_t = x.mean(axis=0), reference.mean(axis=0)
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
    return _gains(gram, cross, y, product(y, gram) if groups == 1 else None, groups, shared)


def _gains(
    gram: FloatArray,
    cross: FloatArray,
    y: IntArray,
    image: npt.NDArray[np.float64] | None,
    groups: int,
    shared: bool,
) -> npt.NDArray[np.float64]:
    """`solve_gains`, with ``y @ gram`` given where there is one gain a row."""
    m, n = y.shape
    parts = y.reshape(m, groups, n // groups)
    by = (cross.reshape(parts.shape) * parts).sum(axis=2, dtype=np.float64)
    if image is not None:
        quad = (y * image).sum(axis=1)
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
    y = y.copy()
    rows = len(y)
    step = max(1, _CHUNK // y.shape[1])
    if shared:
        step = rows
    unit = _Unit(groups, shared, placement)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        may = None if allowed is None else allowed[part]
        _improve_rows(m.gram, m.cross[part], y[part], unit, may, patience)
        if progress:
            progress(min(1.0, (start + step) / rows))
    gain = solve_gains(m.gram, m.cross, y, groups, shared)
    return y, gain


@dataclass(frozen=True)
class _Unit:
    """What shares a gain, and where pulses must be."""

    groups: int
    shared: bool
    placement: Placement | None

    def cells(self, n: int) -> IntArray:
        """The part of a row, by column, in which pulses stay."""
        cell = np.arange(n) // (n // self.groups)
        if self.placement is not None:
            cell = cell * self.placement.banks + np.arange(n) % self.placement.banks
        return cell


def _improve_rows(
    gram: FloatArray,
    cross: FloatArray,
    y: IntArray,
    unit: _Unit,
    allowed: npt.NDArray[np.bool_] | None,
    patience: int,
) -> None:
    """`improve` on the rows of one chunk, in place."""
    failures = np.zeros(len(y), dtype=np.int64)
    tabu = np.zeros(y.shape, dtype=bool)
    active = np.flatnonzero(np.abs(y).sum(axis=1) > 0)
    exact = grid(gram, grid_bits(len(gram))) if unit.groups == 1 else gram
    whole = y.astype(np.float64) @ exact if unit.groups == 1 else None
    for _ in range(40 * patience + 4 * int(np.abs(y).sum(axis=1).max(initial=0))):
        if not active.size:
            return
        taking = np.arange(len(y)) if unit.shared else active
        image = None if whole is None else whole[taking]
        gain = _positive_gains(gram, cross[taking], y[taking], image, unit)
        if unit.shared:
            gain, image = gain[active], None if image is None else image[active]
        may = None if allowed is None else allowed[active]
        if image is None:
            image = product(y[active] * _expand(gain, y.shape[1]), gram)
        else:
            image = gain * image
        again = np.zeros(len(active), dtype=bool)
        size = max(1, _BLOCK // y.shape[1])
        for start in range(0, len(active), size):
            part = slice(start, start + size)
            rows = active[part]
            search = _Search(gram, image[part] - cross[rows], y[rows], gain[part], unit, tabu[rows])
            search.closed = None if may is None else ~may[part]
            for _ in range(_REFRESH):
                search.step()
            # The gains of rows that moved are new, so only what failed since then counts.
            if whole is not None:
                _follow(whole, exact, rows[search.moved], (search.y - y[rows])[search.moved])
            y[rows] = search.y
            failures[rows] = np.where(search.moved, 0, failures[rows] + _REFRESH)
            tabu[rows] = search.tabu
            again[part] = (failures[rows] < patience) & (search.moved | ~search.exhausted)
        active = active[again]


def _follow(
    image: npt.NDArray[np.float64], exact: FloatArray, rows: IntArray, change: IntArray
) -> None:
    """Adds ``change @ exact`` to ``image[rows]``, in place; exact, and few columns change."""
    for row, difference in zip(rows, change, strict=True):
        columns = np.flatnonzero(difference)
        image[row] += difference[columns].astype(np.float64) @ exact[columns]


def _positive_gains(
    gram: FloatArray,
    cross: FloatArray,
    y: IntArray,
    image: npt.NDArray[np.float64] | None,
    unit: _Unit,
) -> npt.NDArray[np.float64]:
    """Gains to search with: where the best is 0, a small positive one, so that pulses matter."""
    gain = _gains(gram, cross, y, image, unit.groups, unit.shared)
    floor = 1e-3 * gain.max(axis=1, keepdims=True)
    overall = float(gain.max(initial=0.0)) or 1.0
    return np.maximum(gain, np.where(floor > 0, floor, 1e-2 * overall))


@dataclass(frozen=True, eq=False)
class _Flat:
    """Views of the rows' pulses, their signs, and 1 where there are none, all one after another."""

    y: IntArray
    sign: FloatArray
    empty: FloatArray

    def place(self, at: IntArray, pulses: IntArray) -> None:
        """Sets single pulses, and what is kept of them."""
        self.y[at] = pulses
        self.sign[at] = np.sign(pulses)
        self.empty[at] = pulses == 0


class _Search:
    """Moves of a set of rows at fixed gains, with the gradient kept up to date."""

    def __init__(
        self,
        gram: FloatArray,
        gradient: npt.NDArray[np.float64],
        y: IntArray,
        gain: npt.NDArray[np.float64],
        unit: _Unit,
        tabu: npt.NDArray[np.bool_],
    ) -> None:
        cell = unit.cells(y.shape[1])
        self.gram, self.y, self.cell, self.placement = gram, y, cell, unit.placement
        self.one_cell = bool(np.all(cell == cell[0]))
        self.closed: npt.NDArray[np.bool_] | None = None
        self.r = _expand(gain, y.shape[1]).astype(np.float32)
        self.twice = 2 * self.r
        self.gradient = np.ascontiguousarray(gradient, dtype=np.float32)
        self.square = (self.r * self.r) * np.diag(gram).astype(np.float32)
        self.sign = np.sign(y).astype(np.float32)
        self.empty = (self.sign == 0).astype(np.float32)
        self.barred = np.where((y == 0) | tabu, np.float32(np.inf), np.float32(0))
        self.taken = np.zeros(len(y), dtype=np.float32)
        self.moved = np.zeros(len(y), dtype=bool)
        self.first = np.arange(len(y)) * y.shape[1]
        self.flat = _Flat(y.reshape(-1), self.sign.reshape(-1), self.empty.reshape(-1))
        self.after, self.put, self.work = (np.empty_like(self.gradient) for _ in range(3))

    def step(self) -> None:
        """Every row tries its cheapest untried pulse at the best other place.

        After a move, every pulse of that row may be tried again.
        """
        work = self.work
        np.multiply(self.twice, self.sign, out=work)
        work *= self.gradient
        np.subtract(self.square, work, out=work)
        work += self.barred
        if self.placement is not None:
            work[~removable(self.y, self.placement)] = np.inf
        i = work.argmin(axis=1)
        here = self.first + i
        self.taken = taken = work.ravel()[here]
        flat = self.flat
        pulses, sign = flat.y[here], flat.sign[here]
        flat.place(here, pulses - sign.astype(np.int64))
        after = np.take(self.gram, i, axis=0, out=self.after, mode="clip")
        after *= (self._gain(i) * sign)[:, None]
        np.subtract(self.gradient, after, out=after)
        put = self._put(after, i)
        j = put.argmin(axis=1)
        there = self.first + j
        best = put.ravel()[there]
        # Where nothing may be taken or put, both sides are infinite, and not less.
        moved = taken + best < -(1e-5 * (np.abs(taken) + np.abs(best)) + 1e-30)
        self.barred.ravel()[here] = np.inf
        at = moved.nonzero()[0]
        if at.size < len(moved):
            stays = (~moved).nonzero()[0]
            flat.place(here[stays], pulses[stays])
        if not at.size:
            return
        there = there[at]
        sign = flat.sign[there]
        sign = np.where(sign == 0, -np.sign(after.ravel()[there]), sign)
        sign[sign == 0] = 1
        flat.place(there, flat.y[there] + sign.astype(np.int64))
        change = self.gram[j[at]]
        change *= (self._gain(j)[at] * sign)[:, None]
        change += after[at]
        self.gradient[at] = change
        self.barred[at] = np.where(self.empty[at] != 0, np.float32(np.inf), np.float32(0))
        self.moved |= moved

    def _gain(self, columns: IntArray) -> FloatArray:
        """The gain of one column in every row."""
        return self.r[:, 0] if self.r.shape[1] == 1 else self.r[np.arange(len(columns)), columns]

    @property
    def exhausted(self) -> npt.NDArray[np.bool_]:
        """Rows of which the last step found no pulse to try."""
        return ~np.isfinite(self.taken)

    @property
    def tabu(self) -> npt.NDArray[np.bool_]:
        """Pulses that were tried since their row last moved."""
        return np.isinf(self.barred) & (self.empty == 0) & ~self.moved[:, None]

    def _put(self, after: FloatArray, removed: IntArray) -> FloatArray:
        """What a pulse more costs in every column, the cheaper of both signs where there is
        none yet; infinite where it may not be."""
        put = np.multiply(self.sign, after, out=self.put)
        np.abs(after, out=self.work)
        self.work *= self.empty
        put -= self.work
        put *= self.twice
        put += self.square
        if self.placement is not None:
            put[~allowed_additions(self.y, removed, self.placement)] = np.inf
        if self.closed is not None:
            put[self.closed] = np.inf
        if not self.one_cell:
            put[self.cell[None, :] != self.cell[removed][:, None]] = np.inf
        return put
