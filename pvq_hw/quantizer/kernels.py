"""Inner loops of the moves of pulses and of depthwise filters, compiled by Numba.

Each move depends on the one before, so arrays of NumPy have little to work on at a time: the same
steps took ten to thirty times as long there. Arithmetic is that of the text, operation by
operation: without fast math nothing is reordered or contracted, so results do not depend on the
processor, and are those of the same functions interpreted (``NUMBA_DISABLE_JIT=1``).

Those who call them import this module where they do: Numba takes half a second, which most verbs
need not wait for.

Placements come as two whole numbers: column n is in bank ``n mod banks``, and pulses of a bank are
at most ``gap`` positions apart, counted from 0; a gap of 0 stands for none.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "TRIES",
    "add_rows",
    "add_squares",
    "filter_channels",
    "filter_channels_back",
    "improve_rows",
    "largest_scaled",
    "move_pulses",
    "refine_row",
    "round_scaled",
    "row_form",
    "search_row",
    "slope_sums",
]

TRIES = 12
"""Pulses of a row that are tried between two solutions of its gains."""

_OFFERED = 160  # cheapest pulses of a row that are tried elsewhere; 32 cost 7 % in error
_RIDGE = 1e-3  # part of H's mean diagonal that a pulse must earn where it goes

Array = npt.NDArray[Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """Compiles on the first call, and keeps the result on disk where a folder can be written."""
    try:
        return cast(_Function, njit(cache=True, error_model="numpy")(function))
    except RuntimeError:
        return cast(_Function, njit(error_model="numpy")(function))


@_compiled
def _sign(value: int) -> int:
    if value > 0:
        return 1
    return -1 if value < 0 else 0


@_compiled
def _places(y: Array) -> Array:
    """Columns with pulses."""
    found, count = np.empty(len(y), dtype=np.int64), 0
    for c in range(len(y)):
        if y[c] != 0:
            found[count] = c
            count += 1
    return found[:count]


@_compiled
def _neighbors(y: Array, column: int, banks: int) -> tuple[int, int]:
    """Positions of the pulses of a column's bank before and after it: 0 and -1 where none is."""
    before, after = 0, -1
    j = column - banks
    while j >= 0:
        if y[j] != 0:
            before = j // banks
            break
        j -= banks
    j = column + banks
    while j < len(y):
        if y[j] != 0:
            after = j // banks
            break
        j += banks
    return before, after


@_compiled
def _removable(y: Array, column: int, banks: int, gap: int) -> bool:
    """Whether a pulse may go for another in its bank: another stays at its place, or a single new
    one can join its neighbors."""
    if gap == 0 or abs(y[column]) > 1:
        return True
    before, after = _neighbors(y, column, banks)
    return after < 0 or after - before <= 2 * gap


@_compiled
def _reach(y: Array, column: int, banks: int, gap: int) -> tuple[int, int]:
    """First and last position of a bank where a pulse may go, once that of a column is gone."""
    last = (len(y) - 1 - column % banks) // banks
    if gap == 0:
        return 0, last
    before, after = _neighbors(y, column, banks)
    if y[column] == 0 and after >= 0 and after - before > gap:
        return max(0, after - gap), min(last, before + gap)
    used = last
    while used > 0 and y[column % banks + banks * used] == 0:
        used -= 1
    return 0, min(last, used + gap)


@_compiled
def search_row(
    gram: Array,
    gradient: Array,
    y: Array,
    r: Array,
    closed: Array,
    groups: int,
    banks: int,
    gap: int,
    barred: Array,
) -> tuple[bool, bool]:
    """Tries a row's cheapest pulses, one after the other, at their best other places; in place.

    After a move, every pulse may be tried again.

    Parameters
    ----------
    gram : float32 array (N, N)
    gradient : float32 array (N,)
        Half the derivative of the error by the weights.
    y : int64 array (N,)
    r : float32 array (N,)
        Gain of each column.
    closed : bool array (N,)
        Where no pulse may be put.
    groups : int
        Pulses stay within their part of the columns.
    barred : bool array (N,)
        Pulses that were tried since the row last moved.

    Returns
    -------
    (moved, exhausted): whether pulses moved, and whether none was left to try.
    """
    n = len(y)
    size = n // groups
    two = np.float32(2)
    tolerance, least = np.float32(1e-5), np.float32(1e-30)
    infinite = np.float32(np.inf)
    moved = False
    for _ in range(TRIES):
        i = -1
        while True:
            i, take = -1, infinite
            for c in range(n):
                if y[c] != 0 and not barred[c]:
                    pulled = two * r[c] * gradient[c]
                    cost = r[c] * r[c] * gram[c, c] - (pulled if y[c] > 0 else -pulled)
                    if cost < take:
                        i, take = c, cost
            if i < 0:
                return moved, True
            barred[i] = True
            if _removable(y, i, banks, gap):
                break
        s = _sign(y[i])
        y[i] -= s
        gone = r[i] if s > 0 else -r[i]
        low, high = _reach(y, i, banks, gap)
        first, step = i % banks, banks
        if groups > 1:
            first, step, low, high = i // size * size, 1, 0, size - 1
        j, put = -1, infinite
        for c in range(first + step * low, first + step * high + 1, step):
            if closed[c]:
                continue
            slope = gradient[c] - gone * gram[i, c]
            if y[c] == 0:
                slope = -abs(slope)
            elif y[c] < 0:
                slope = -slope
            cost = r[c] * r[c] * gram[c, c] + two * r[c] * slope
            if cost < put:
                j, put = c, cost
        if j < 0 or not take + put < -(tolerance * (abs(take) + abs(put)) + least):
            y[i] += s
            continue
        t = _sign(y[j])
        if t == 0:
            t = -1 if gradient[j] - gone * gram[i, j] > 0 else 1
        y[j] += t
        came = r[j] if t > 0 else -r[j]
        for c in range(n):
            gradient[c] = (gradient[c] - gone * gram[i, c]) + came * gram[j, c]
        barred[:] = False
        moved = True
    return moved, False


@_compiled
def _solve(gram: Array, cross: Array, y: Array, groups: int) -> Array:
    """Gains of the groups of a row that give the least error."""
    size = len(y) // groups
    a, right = np.zeros((groups, groups)), np.zeros(groups)
    used = _places(y)
    for i in used:
        right[i // size] += cross[i] * y[i]
        for j in used:
            a[i // size, j // size] += np.float64(gram[i, j]) * (y[i] * y[j])
    if groups > 1:
        trace = 0.0
        for g in range(groups):
            trace += a[g, g]
        for g in range(groups):
            a[g, g] += 1e-6 * trace / groups + 1e-30
    for g in range(groups):
        for h in range(g + 1, groups):
            factor = a[h, g] / a[g, g]
            for c in range(g, groups):
                a[h, c] -= factor * a[g, c]
            right[h] -= factor * right[g]
    for g in range(groups - 1, -1, -1):
        for c in range(g + 1, groups):
            right[g] -= a[g, c] * right[c]
        right[g] /= a[g, g]
    return right


@_compiled
def improve_row(
    gram: Array,
    cross: Array,
    power: float,
    y: Array,
    closed: Array,
    groups: int,
    banks: int,
    gap: int,
    patience: int,
) -> None:
    """Moves a row's pulses, in place, and its gains with them, while its output error falls.

    Parameters
    ----------
    gram : float32 array (N, N)
    cross : float32 array (N,)
    power : float
        See `pvq_hw.quantizer.pulse_moves.Moments`.
    patience : int
        The row is done when this many of its cheapest pulses have nowhere better to go.
    """
    n = len(y)
    size = n // groups
    barred = np.zeros(n, dtype=np.bool_)
    r, gradient = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    image, before, scaled = np.zeros(n), np.zeros_like(y), np.zeros(n)
    failures, moved = 0, True
    pulses = 0
    for i in _places(y):
        pulses += abs(y[i])
    for _ in range(40 * patience + 4 * pulses):
        if moved:
            if groups == 1:
                # The image of y follows its changes, so gain and gradient cost next to nothing.
                for i in _places(y - before):
                    change = np.float64(y[i] - before[i])
                    for c in range(n):
                        image[c] += change * gram[i, c]
                before[:] = y
                by, quad = 0.0, 0.0
                for i in _places(y):
                    by += np.float64(cross[i]) * y[i]
                    quad += image[i] * y[i]
                gain = np.full(1, by / quad if quad > 0 else 0.0)
            else:
                gain = _solve(gram, cross, y, groups)
            floor = 0.0
            for g in range(groups):
                floor = max(floor, 1e-3 * gain[g])
            if not floor > 0:
                # Any that is small and positive, so that pulses matter.
                square = 0.0
                for i in _places(y):
                    square += np.float64(gram[i, i]) * (y[i] * y[i])
                floor = 1e-2 * np.sqrt(max(power, 1e-300) / max(square, 1e-300))
            for g in range(groups):
                r[g * size : (g + 1) * size] = max(gain[g], floor)
            if groups == 1:
                for c in range(n):
                    gradient[c] = r[c] * image[c] - cross[c]
            else:
                scaled[:] = 0
                for i in _places(y):
                    v = np.float64(r[i]) * y[i]
                    for c in range(n):
                        scaled[c] += v * gram[i, c]
                for c in range(n):
                    gradient[c] = scaled[c] - cross[c]
        moved, exhausted = search_row(gram, gradient, y, r, closed, groups, banks, gap, barred)
        failures = 0 if moved else failures + TRIES
        if moved:
            barred[:] = False
        if failures >= patience or (exhausted and not moved):
            return


@_compiled
def improve_rows(
    gram: Array,
    cross: Array,
    power: Array,
    y: Array,
    closed: Array,
    groups: int,
    banks: int,
    gap: int,
    patience: int,
) -> None:
    """`improve_row` of every row; ``closed`` is (M, N), or (1, N) for all rows."""
    for m in range(len(y)):
        if np.any(y[m]):
            improve_row(
                gram,
                cross[m],
                power[m],
                y[m],
                closed[m % len(closed)],
                groups,
                banks,
                gap,
                patience,
            )


@_compiled
def _fetch(
    j: int,
    h: Array,
    place: Array,
    count: int,
    x: Array,
    frames: Array,
    weight: Array,
    base: Array,
    mean: Array,
    mass: float,
    share: float,
    diagonal: Array,
) -> int:
    """Sees to it that column ``j`` of H is known; returns how many are."""
    if place[j] >= 0:
        return count
    n = len(place)
    out = h[count]
    part = mean[j] / mass
    for c in range(n):
        out[c] = share * base[j, c] - part * mean[c]
    for f in range(len(frames)):
        v = weight[f] * x[frames[f], j]
        if v != 0:
            row = x[frames[f]]
            for c in range(n):
                out[c] += v * row[c]
    out[j] = diagonal[j]
    place[j] = count
    return count + 1


@_compiled
def _dearest(take: Array) -> float:
    """What the pulses that are offered cost at most: about the cheapest `_OFFERED`."""
    low, high = np.inf, -np.inf
    for value in take:
        low, high = min(low, value), max(high, value)
    if len(take) <= _OFFERED:
        return high
    for _ in range(40):
        middle, count = (low + high) / 2, 0
        for value in take:
            count += value <= middle
        if count > _OFFERED:
            high = middle
        else:
            low = middle
    return low


@_compiled
def move_pulses(
    y: Array,
    r: float,
    gradient: Array,
    diagonal: Array,
    ridge: float,
    closed: Array,
    banks: int,
    gap: int,
    h: Array,
    place: Array,
    x: Array,
    frames: Array,
    weight: Array,
    base: Array,
    mean: Array,
    mass: float,
    share: float,
) -> None:
    """Moves single pulses of a row at a fixed gain, the best one first, while each earns more
    than the ridge; in place.

    Parameters
    ----------
    y : int64 array (N,)
    r : float
        The gain.
    gradient, diagonal : float64 arrays (N,)
        Half the derivative of the error by the weights, and the diagonal of H.
    ridge : float
    closed : bool array (N,)
        Where no pulse may be put.
    h : float64 array (columns, N)
        Columns of H; column j is at ``place[j]``. Those at -1 are computed when they are needed,
        ``sum_f weight[f] x[frames[f], j] x[frames[f]] + share * base[j]`` with the bias
        eliminated, after the ones that are known.
    """
    n = len(y)
    count = 0
    for known_at in place:
        count = max(count, known_at + 1)
    support, take = np.empty(n, dtype=np.int64), np.empty(n)
    for _ in range(8 + len(_places(y)) // 4):
        found = 0
        for c in range(n):
            if y[c] != 0 and _removable(y, c, banks, gap):
                pulled = 2 * r * gradient[c]
                support[found] = c
                take[found] = r * r * diagonal[c] - (pulled if y[c] > 0 else -pulled)
                found += 1
        dearest = _dearest(take[:found])
        i, j, best = -1, -1, 0.0
        for q in range(found):
            if take[q] > dearest:
                continue
            column = support[q]
            count = _fetch(
                column, h, place, count, x, frames, weight, base, mean, mass, share, diagonal
            )
            known = h[place[column]]
            s = _sign(y[column])
            gone = r * s
            y[column] -= s
            low, high = _reach(y, column, banks, gap)
            first = column % banks
            for c in range(first + banks * low, first + banks * high + 1, banks):
                slope = gradient[c] - gone * known[c]
                if y[c] == 0:
                    slope = -abs(slope)
                elif y[c] < 0:
                    slope = -slope
                cost = take[q] + (r * r * (diagonal[c] + 2 * ridge) + 2 * r * slope)
                if cost < best and not closed[c]:
                    i, j, best = column, c, cost
            y[column] += s
        if i < 0:
            return
        s = _sign(y[i])
        gone, known = r * s, h[place[i]]
        y[i] -= s
        t = _sign(y[j])
        if t == 0:
            t = -1 if gradient[j] - gone * known[j] > 0 else 1
        y[j] += t
        count = _fetch(j, h, place, count, x, frames, weight, base, mean, mass, share, diagonal)
        came, other = r * t, h[place[j]]
        for c in range(n):
            gradient[c] = (gradient[c] - gone * known[c]) + came * other[c]


@_compiled
def row_form(
    weight: Array,
    x: Array,
    gram: Array,
    sums: Array,
    mean: Array,
    square: Array,
    mass: float,
    share: float,
    drawn: float,
    most: int,
) -> tuple[Array, Array, Array, Array, Array, float, float]:
    """What `refine_row` needs of a row's H, whatever the codeword.

    Parameters
    ----------
    weight : float32 array (frames,)
        How much the outputs feel the row's sum.
    x : float32 array (frames, N)
        What the layer reads.
    gram, sums : float64 arrays (N, N) and (N,)
        Products of the layer's inputs, and their sums.
    mean, square : float64 arrays (N,)
        Weighted sums of x and of its squares.
    mass, share : float
        Sum of all weights, and that of the layer's own error.
    drawn : float
        How much the codes are drawn to the original weights, as a part of H's mean diagonal.
    most : int
        Frames that columns of H are made of, of those where the row matters.

    Returns
    -------
    (active, frames, heavy, center, diagonal, ridge, strength): the frames where the row matters,
    those that H's columns are made of, with their weights; H's means and diagonal; what a pulse
    must earn; and the pull to the original weights.
    """
    n, active = x.shape[1], _places(weight)
    count = len(active)
    diagonal = np.empty(n)
    level = 0.0
    for c in range(n):
        diagonal[c] = max(square[c] - mean[c] * mean[c] / mass, 0.0)
        level += diagonal[c]
    level /= n
    strength = drawn * level
    for c in range(n):
        diagonal[c] += strength
    # The frames that the columns of H are made of: all, or evenly spread ones, which then weigh
    # as much together. The gradient is always that of all frames.
    frames, heavy, center = active, np.empty(count), mean
    for f in range(count):
        heavy[f] = weight[active[f]]
    if count > most:
        frames, heavy = np.empty(most, dtype=np.int64), np.empty(most)
        some = 0.0
        for f in range(most):
            frames[f] = active[f * (count - 1) // (most - 1)]
            heavy[f] = weight[frames[f]]
            some += heavy[f]
        center = share * sums
        for c in range(n):
            diagonal[c] = share * gram[c, c]
        for f in range(most):
            heavy[f] *= (mass - share * len(x)) / some
            row = x[frames[f]]
            for c in range(n):
                center[c] += heavy[f] * row[c]
                diagonal[c] += heavy[f] * (row[c] * row[c])
        for c in range(n):
            diagonal[c] = max(diagonal[c] - center[c] * center[c] / mass, 0.0) + strength
    return active, frames, heavy, center, diagonal, _RIDGE * level + 1e-30, strength


@_compiled
def refine_row(
    y: Array,
    gain: float,
    a: Array,
    weight: Array,
    residual: Array,
    x: Array,
    gram: Array,
    sums: Array,
    mean: Array,
    mass: float,
    share: float,
    pull: Array,
    total: float,
    goal: Array,
    form: tuple[Array, Array, Array, Array, Array, float, float],
    closed: Array,
    banks: int,
    gap: int,
    h: Array,
    place: Array,
) -> tuple[float, float]:
    """Moves a row's pulses against the network's outputs, in place; the residual follows.

    Parameters
    ----------
    y : int64 array (N,)
    a : float32 array (frames, C)
        What the row's sum does to the weighed outputs.
    weight : float32 array (frames,)
        Squares of ``a``, summed.
    residual : float32 array (frames, C)
    x, gram, sums, mean, mass, share
        See `row_form`.
    pull, total : float64 array (N,), float
        Products of the layer's own error with the inputs and with 1.
    goal : float64 array (N,)
        The original weights, which the codes are drawn to.
    form : tuple
        What `row_form` gave.
    h : float64 array (columns, N)
        Columns of H, or room for them; column j is at ``place[j]``, -1 where it isn't known.

    Returns
    -------
    (gain, shift): the new gain and the change of the bias.
    """
    active, frames, heavy, center, diagonal, ridge, strength = form
    n, outputs = len(y), residual.shape[1]
    count = len(active)
    slope, offset = np.empty(count), share * total
    gradient = share * pull
    for f in range(count):
        at = active[f]
        value = 0.0
        for c in range(outputs):
            value += np.float64(a[at, c]) * np.float64(residual[at, c])
        slope[f] = value
        offset += value
        row = x[at]
        for c in range(n):
            gradient[c] += value * row[c]
    for c in range(n):
        gradient[c] -= mean[c] * (offset / mass)
        gradient[c] += strength * (gain * y[c] - goal[c])
    start = y.copy()
    move_pulses(
        y, gain, gradient, diagonal, ridge, closed, banks, gap,
        h, place, x, frames, heavy, gram, center, mass, share,
    )  # fmt: skip
    # Gain and bias for the new codeword.
    used, moved = _places(y), _places(y - start)
    u, change = np.zeros(count), np.zeros(count)
    gy = np.zeros(n)
    for i in used:
        for c in range(n):
            gy[c] += gram[i, c] * y[i]
    quad, cross, right, offset = 0.0, 0.0, 0.0, share * total
    for i in used:
        quad += share * gy[i] * y[i] + strength * (y[i] * y[i])
        cross += share * sums[i] * y[i]
        right += share * pull[i] * y[i] + strength * y[i] * (gain * y[i] - goal[i])
    for i in moved:
        step = gain * (y[i] - start[i])
        right += share * step * gy[i]
        offset += share * sums[i] * step
    for f in range(count):
        row = x[active[f]]
        for i in used:
            u[f] += row[i] * y[i]
        for i in moved:
            change[f] += row[i] * (y[i] - start[i])
        change[f] *= gain
        w = weight[active[f]]
        value = slope[f] + w * change[f]
        quad += w * u[f] * u[f]
        cross += w * u[f]
        right += value * u[f]
        offset += value
    determinant = quad * mass - cross * cross
    grow = 0.0
    if determinant > 1e-6 * quad * mass:
        grow = min(max((cross * offset - mass * right) / determinant, -0.5 * gain), gain)
    shift = -(offset + cross * grow) / mass
    for f in range(count):
        by = np.float32(change[f] + (grow * u[f] + shift))
        for c in range(outputs):
            residual[active[f], c] += a[active[f], c] * by
    return gain + grow, shift


@_compiled
def largest_scaled(x: Array, gain: Array) -> float:
    """The largest magnitude of ``x`` (rows, M) times ``gain`` (M,), both float32."""
    top = np.zeros(len(gain), dtype=np.float32)
    for i in range(len(x)):
        row = x[i]
        for c in range(len(gain)):
            top[c] = max(top[c], abs(row[c] * gain[c]))
    return top.max()


@_compiled
def round_scaled(x: Array, gain: Array, shift: np.float32, out: Array) -> None:
    """Writes ``x`` (rows, M) times ``gain`` (M,) as ``shift``, added and taken away again, rounds
    it; all float32."""
    for i in range(len(x)):
        row, to = x[i], out[i]
        for c in range(len(gain)):
            to[c] = (row[c] * gain[c] + shift) - shift


@_compiled
def add_rows(x: Array, total: Array) -> None:
    """Adds ``x`` (rows, N) to ``total`` (N,), row by row; NumPy takes longer where rows are
    short."""
    for i in range(len(x)):
        row = x[i]
        for c in range(len(total)):
            total[c] += row[c]


@_compiled
def add_squares(x: Array, total: Array) -> None:
    """Adds the squares of ``x`` (rows, M) to ``total`` (M,), row by row."""
    for i in range(len(x)):
        row = x[i]
        for c in range(len(total)):
            total[c] += np.float64(row[c]) * np.float64(row[c])


@_compiled
def slope_sums(g: Array, z: Array, bias: Array) -> Array:
    """Sums over rows of ``g`` (rows, M), times ``z`` less its bias and by itself: (2, M), added in
    this order."""
    rows, m = g.shape
    found = np.zeros((2, m))
    by, own = found
    for i in range(rows):
        for c in range(m):
            by[c] += np.float64(g[i, c] * (z[i, c] - bias[c]))
            own[c] += np.float64(g[i, c])
    return found


@_compiled
def filter_channels(
    x: Array, weight: Array, width: int, sh: int, sw: int, dh: int, dw: int, out: Array
) -> None:
    """Filters every channel by itself and adds that to ``out``, tap by tap.

    Parameters
    ----------
    x : float32 array (frames, H, W, C)
        Padded.
    weight : float array (taps, C)
        The kernel's taps, ``width`` of them in each row.
    sh, sw, dh, dw : int
        Strides and dilations.
    out : float array (frames, h, w, C)
        Its type is that of ``weight``.
    """
    frames, h, w, channels = out.shape
    for f in range(frames):
        for t in range(len(weight)):
            top, left, tap = t // width * dh, t % width * dw, weight[t]
            for i in range(h):
                for j in range(w):
                    seen, to = x[f, i * sh + top, j * sw + left], out[f, i, j]
                    for c in range(channels):
                        to[c] += seen[c] * tap[c]


@_compiled
def filter_channels_back(
    g: Array, weight: Array, width: int, sh: int, sw: int, dh: int, dw: int, back: Array
) -> None:
    """Adjoint of `filter_channels`: adds the gradients by its input to ``back``, (frames, H, W,
    C); ``g`` are those by its output."""
    frames, h, w, channels = g.shape
    for f in range(frames):
        for t in range(len(weight)):
            top, left, tap = t // width * dh, t % width * dw, weight[t]
            for i in range(h):
                for j in range(w):
                    given, to = g[f, i, j], back[f, i * sh + top, j * sw + left]
                    for c in range(channels):
                        to[c] += given[c] * tap[c]
