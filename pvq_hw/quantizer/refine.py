"""Refinement: pulse moves against the network's outputs instead of each layer's own.

The error of the outputs, weighted by how much they matter to the decision, is expanded to second
order (Gauss-Newton) around the quantized network: unit m of a layer moves the outputs of frame n
by its Jacobian ``a[m, n]`` times the change of its sum. For one row that is again a quadratic form
in its weights, with ``H = sum_n |a|^2 x x'`` for the Gram matrix, so single pulses move as in
`pvq_hw.quantizer.pulse_moves`; the residual is kept up to date from row to row. A part ``anchor``
of the layer's own error stays in, since the expansion knows nothing of units that wake up, and a
pull to the original weights, which know of inputs that the calibration data does not hold.

All matrix products are exact (`pvq_hw.arith.exact`), so that the codes are the same on every
machine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.arith.exact import grid, grid_bits
from pvq_hw.quantizer.banks import Placement, allowed_additions, removable

__all__ = ["Link", "Metric", "forward", "refine", "sensitivity"]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_VALUES = 1 << 28
"""Of one Jacobian (units, frames, outputs): 1 GiB; more frames than that allows are left out."""

_AHEAD = 24  # columns of H that are computed in advance for pulses to come
_OFFERED = 160  # cheapest pulses of a row that are tried elsewhere; 32 cost 7 % in error
_RIDGE = 1e-3  # part of H's mean diagonal that a pulse must earn where it goes
_PULL = 0.3  # to the original weights, as a part of H's mean diagonal
_BLOCK = 1 << 15  # elements of the arrays that a move is searched in: they stay in the cache
_COLUMN_FRAMES = 3000  # frames where a unit matters that its row's H is made of
_PIECE = 2048  # frames at a time, where float64 copies of whole tensors would be large


@dataclass(eq=False)
class Link:
    """One layer of the chain while it is refined; ``y``, ``gain`` and ``bias`` are replaced.

    Parameters
    ----------
    y : int64 array (M, N)
    gain : float64 array (M, G)
    bias : float64 array (M,)
    relu : bool
    high : float
        Upper bound of the activation, infinite for none.
    reference : float32 array (frames, M)
        The float model's sums at this place.
    movable : bool
        Whether its pulses may move: one gain per row, pyramid codewords.
    placement : Placement, optional
    weight : float64 array (M, N), optional
        The original weights.
    allowed : bool array (M, N), optional
        Where pulses may be; everywhere by default.
    sign : bool
        Whether the activation is the sign; its slope is that of a line where the sum is small.
    """

    y: IntArray
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    relu: bool
    high: float
    reference: FloatArray
    movable: bool
    placement: Placement | None = None
    weight: Float64Array | None = None
    allowed: npt.NDArray[np.bool_] | None = None
    sign: bool = False

    def real(self) -> Float64Array:
        """The weights that the codes stand for, (M, N)."""
        size = self.y.shape[1] // self.gain.shape[1]
        return np.asarray(self.y * np.repeat(self.gain, size, axis=1), dtype=np.float64)

    def sums(self, x: FloatArray) -> FloatArray:
        """Sums before the activation, (frames, M)."""
        return exact.sums(x, self.real(), self.bias)

    def activate(self, z: FloatArray) -> FloatArray:
        """The activation of the sums."""
        if self.sign:
            return np.where(z < 0, np.float32(-1), np.float32(1))
        return np.minimum(np.maximum(z, 0), np.float32(self.high)) if self.relu else z

    def slope(self, z: FloatArray) -> npt.NDArray[np.bool_]:
        """Where the activation passes a change on."""
        if self.sign:
            return np.asarray(np.abs(z) <= np.median(np.abs(z), axis=0), dtype=np.bool_)
        return (z > 0) & (z < self.high) if self.relu else np.ones(z.shape, dtype=bool)


class Metric:
    """Weighs an output error v (frames, C): ``sum_c p_c (v_c - 0.95 <p, v>)^2``.

    p is the float model's softmax at ``temperature``, mixed with a uniform ``floor``: what is
    nearly certain not to win matters little, and what all outputs share hardly at all. With fewer
    than 3 outputs they are values, not classes, and the squares are just averaged.
    """

    def __init__(self, outputs: FloatArray, temperature: float = 4.0, floor: float = 0.1) -> None:
        count = outputs.shape[1]
        self.shared = np.float32(0.95 if count > 2 else 0.0)
        scaled = (outputs - outputs.max(axis=1, keepdims=True)) / temperature
        p = exact.exp(scaled)
        p /= p.sum(axis=1, keepdims=True)
        if count < 3:
            p[:] = 1 / count
        self.p = ((1 - floor) * p + floor / count).astype(np.float32)
        self.root = np.sqrt(self.p)

    def weigh(self, v: FloatArray) -> FloatArray:
        """(frames, C) -> (frames, C), whose squares add up to the error."""
        common = (self.p * v).sum(axis=1, keepdims=True)
        return np.asarray(self.root * (v - self.shared * common))

    def weigh_back(self, u: FloatArray) -> FloatArray:
        """Adjoint of `weigh`: what weighed outputs' derivatives u are by the outputs themselves."""
        v = self.root * u
        return np.asarray(v - self.shared * self.p * v.sum(axis=1, keepdims=True))

    def jacobian(self) -> FloatArray:
        """Of the weighed outputs by every output: (C, frames, C)."""
        frames, count = self.p.shape
        full = np.empty((count, frames, count), dtype=np.float32)
        for c in range(count):
            full[c] = -self.root * (self.shared * self.p[:, c : c + 1])
            full[c, :, c] += self.root[:, c]
        return full


def forward(links: list[Link], x: FloatArray) -> list[FloatArray]:
    """Sums of every layer, before the activations."""
    sums = []
    for link in links:
        z = link.sums(x)
        sums.append(z)
        x = link.activate(z)
    return sums


def refine(
    links: list[Link],
    x: FloatArray,
    *,
    sweeps: int,
    anchor: float = 0.1,
    progress: Callable[[float], None] | None = None,
) -> list[float]:
    """Sweeps over the layers, first to last; returns the mean error before and after each sweep.

    Every row keeps its K. A layer whose sweep makes the true error larger is put back, so the
    error never rises.

    Parameters
    ----------
    x : float32 array (frames, N)
        Inputs of the first layer.
    sweeps : int
    anchor : float
        Weight of the layer's own error, as a part of the mean sensitivity of a unit.

    Memory: two Jacobians of at most `MAX_VALUES` float32 values.
    """
    widest = max(len(link.y) for link in links) * len(links[-1].y)
    frames = max(1, min(len(x), MAX_VALUES // widest))
    x = x[:frames]
    metric = Metric(links[-1].reference[:frames])
    errors = [_error(links, x, metric)]
    for sweep in range(sweeps):
        best = errors[-1]
        for index, link in enumerate(links):
            if not link.movable:
                continue
            before = link.y.copy(), link.gain.copy(), link.bias.copy()
            _sweep_layer(links, index, x, metric, anchor)
            error = _error(links, x, metric)
            if error < best:
                best = error
            else:
                link.y, link.gain, link.bias = before
            if progress:
                progress((sweep + (index + 1) / len(links)) / sweeps)
        errors.append(best)
    return errors


def sensitivity(links: list[Link], x: FloatArray) -> list[npt.NDArray[np.float64]]:
    """How much the weighed outputs change with each unit's sum: mean squares, (M,) a layer."""
    widest = max(len(link.y) for link in links) * len(links[-1].y)
    frames = max(1, min(len(x), MAX_VALUES // 4 // widest))
    x = x[:frames]
    sums, metric = forward(links, x), Metric(links[-1].reference[:frames])
    result = []
    for index in range(len(links)):
        jacobian = _jacobian(links, index, sums, metric)
        result.append(np.square(jacobian, dtype=np.float64).sum(axis=(1, 2)) / frames)
    return result


def _error(links: list[Link], x: FloatArray, metric: Metric) -> float:
    residual = forward(links, x)[-1] - links[-1].reference[: len(x)]
    return float(np.square(metric.weigh(residual), dtype=np.float64).sum(axis=1).mean())


def _jacobian(links: list[Link], index: int, sums: list[FloatArray], metric: Metric) -> FloatArray:
    """Of the weighed outputs by the sums of layer ``index``: (M, frames, C)."""
    jacobian = metric.jacobian()
    for above in range(len(links) - 1, index, -1):
        frames, count = jacobian.shape[1:]
        slope = links[above - 1].slope(sums[above - 1]).T
        bits = grid_bits(len(links[above].y))
        weight = np.ascontiguousarray(grid(links[above].real(), bits).T)
        below = np.empty((len(weight), frames, count), dtype=np.float32)
        for start in range(0, frames, _PIECE):
            part = slice(start, min(frames, start + _PIECE))
            piece = grid(jacobian[:, part].reshape(len(jacobian), -1), bits)
            below[:, part] = (weight @ piece).reshape(len(weight), -1, count)
            below[:, part] *= slope[:, part, None]
        jacobian = below
    return jacobian


def _sweep_layer(
    links: list[Link], index: int, x: FloatArray, metric: Metric, anchor: float
) -> None:
    """Moves pulses of every row of a layer once, in place."""
    link = links[index]
    sums = forward(links, x)
    jacobian = _jacobian(links, index, sums, metric)
    residual = metric.weigh(sums[-1] - links[-1].reference[: len(x)])
    inputs = grid(
        x if index == 0 else links[index - 1].activate(sums[index - 1]), grid_bits(len(x))
    )
    own = sums[index] - link.reference[: len(x)]
    shared = _Shared(inputs, inputs.T @ inputs, inputs.sum(axis=0), anchor, link.placement)
    weights = np.square(jacobian[:, :, 0])
    for c in range(1, jacobian.shape[2]):  # in this order: that of einsum is the processor's
        weights += np.square(jacobian[:, :, c])
    forms = _forms(shared, weights, own)
    for m in range(len(link.y)):
        a = jacobian[m]
        active = np.flatnonzero(weights[m])
        if not active.size or not link.y[m].any() or link.gain[m, 0] <= 0:
            continue
        row = _Row(shared, forms[m], a[active], weights[m, active], active, residual[active])
        row.pull(link, m)
        change, gain, shift = row.move(link.y[m], float(link.gain[m, 0]))
        link.gain[m, 0], link.bias[m] = gain, link.bias[m] + shift
        residual[active] += a[active] * change[:, None].astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all rows of a layer have in common."""

    inputs: Float64Array
    gram: Float64Array
    sums: Float64Array
    anchor: float
    placement: Placement | None


@dataclass(frozen=True, eq=False)
class _Form:
    """The parts of a row's quadratic form that one product gives for all rows.

    ``share`` is the weight of the layer's own error, ``mass`` the sum of all weights, ``mean``
    and ``square`` the weighted sums of x and of its squares, ``pull`` and ``total`` the products
    of the layer's own error with the inputs and with 1.
    """

    share: float
    mass: float
    mean: Float64Array
    square: Float64Array
    pull: Float64Array
    total: float


def _forms(shared: _Shared, weights: FloatArray, own: FloatArray) -> list[_Form]:
    x = shared.inputs
    sums = weights.sum(axis=1, dtype=np.float64)
    share = shared.anchor * sums / len(x)
    heavy = grid(weights, grid_bits(len(x)))
    mean = heavy @ x + share[:, None] * shared.sums
    square = heavy @ grid(np.square(x), grid_bits(len(x))) + share[:, None] * np.diag(shared.gram)
    pull = grid(own.T, grid_bits(len(x))) @ x
    total = own.sum(axis=0, dtype=np.float64)
    return [
        _Form(
            float(share[m]),
            float(sums[m] + share[m] * len(x)),
            mean[m],
            square[m],
            pull[m],
            float(total[m]),
        )
        for m in range(len(weights))
    ]


class _Columns:
    """Columns of one row's H that are known, and the same times the pulses that may be taken."""

    def __init__(self, n: int) -> None:
        self.place = np.full(n, -1)
        self.count = 0
        self.known, self.signed = np.empty((0, n)), np.empty((0, n))
        self.factor = np.zeros(0)

    def add(self, new: IntArray, columns: Float64Array) -> None:
        """Takes in columns that are not known yet."""
        total = self.count + len(new)
        if total > len(self.known):
            more = max(total, _AHEAD + self.count) + _AHEAD - len(self.known)
            self.known = np.concatenate([self.known, np.empty((more, len(self.place)))])
            self.signed = np.concatenate([self.signed, np.empty((more, len(self.place)))])
            self.factor = np.concatenate([self.factor, np.zeros(more)])
        self.known[self.count : total] = columns
        self.place[new] = np.arange(self.count, total)
        self.count = total

    def plain(self, j: int) -> Float64Array:
        """Column ``j``."""
        return np.asarray(self.known[self.place[j]])

    def scaled(self, columns: IntArray, factor: Float64Array) -> IntArray:
        """Where ``signed`` holds the columns, each times its factor."""
        at = self.place[columns]
        stale = np.flatnonzero(self.factor[at] != factor)
        self.factor[at[stale]] = factor[stale]
        self.signed[at[stale]] = factor[stale, None] * self.known[at[stale]]
        return np.asarray(at)


class _Seen:
    """The frames that a row's columns of H are made of: all of its own, or evenly spread ones,
    which then weigh as much together. The gradient is always that of all frames."""

    def __init__(
        self, x: Float64Array, weight: Float64Array, form: _Form, sums: Float64Array
    ) -> None:
        self.x, self.weight, self.mean = x, weight, form.mean
        self.bits = grid_bits(len(x))
        if len(x) > _COLUMN_FRAMES:
            chosen = np.linspace(0, len(x) - 1, _COLUMN_FRAMES).astype(np.int64)
            self.x, some = x[chosen], weight[chosen]
            self.bits = grid_bits(len(chosen))
            self.weight = some * (float(weight.sum()) / float(some.sum()))
            self.mean = grid(self.weight, self.bits) @ self.x + form.share * sums


class _Row:
    """The quadratic form of one row, over the frames where its unit matters."""

    def __init__(
        self,
        shared: _Shared,
        form: _Form,
        a: FloatArray,
        weight: FloatArray,
        active: IntArray,
        residual: FloatArray,
    ) -> None:
        self.shared, self.form, self.weight = shared, form, weight.astype(np.float64)
        self.bits = grid_bits(active.size)
        self.x = shared.inputs[active] if active.size < len(shared.inputs) else shared.inputs
        self.seen = _Seen(self.x, self.weight, form, shared.sums)
        self.slope = (a * residual).sum(axis=1, dtype=np.float64)
        self.offset = float(self.slope.sum()) + form.share * form.total
        raw = grid(self.slope, self.bits) @ self.x + form.share * form.pull
        self.gradient = raw - form.mean * (self.offset / form.mass)
        self.diagonal = np.maximum(form.square - np.square(form.mean) / form.mass, 0)
        self.ridge = _RIDGE * float(self.diagonal.mean()) + 1e-30
        self.strength, self.goal = 0.0, np.zeros(len(self.diagonal))
        self.closed: npt.NDArray[np.bool_] | None = None
        self.columns = _Columns(len(self.diagonal))

    def pull(self, link: Link, m: int) -> None:
        """Adds a pull to the original weights, where they are known."""
        if link.allowed is not None:
            self.closed = ~link.allowed[m]
        if link.weight is not None:
            self.strength, self.goal = _PULL * float(self.diagonal.mean()), link.weight[m]
            self.gradient += self.strength * (link.gain[m, 0] * link.y[m] - self.goal)
            self.diagonal += self.strength

    def _fetch(self, columns: IntArray) -> None:
        """Columns of H, the bias eliminated."""
        new = columns[self.columns.place[columns] < 0]
        if not new.size:
            return
        form, seen = self.form, self.seen
        h = grid(seen.x[:, new] * seen.weight[:, None], seen.bits).T @ seen.x
        h += form.share * self.shared.gram[new]
        h -= np.outer(seen.mean[new] / form.mass, seen.mean)
        h[np.arange(len(new)), new] = self.diagonal[new]
        self.columns.add(new, h)

    def move(self, y: IntArray, gain: float) -> tuple[Float64Array, float, float]:
        """Moves pulses of ``y`` in place while the error falls; returns the change of the active
        frames' sums, the new gain and the change of the bias."""
        start = y.copy()
        promise = np.abs(self.gradient) / np.sqrt(self.diagonal + self.ridge)
        ahead = np.argsort(-promise, kind="stable")[:_AHEAD]
        self._fetch(np.union1d(self._offered(y, gain, _OFFERED), ahead))
        for _ in range(8 + np.count_nonzero(y) // 4):
            if not self._move_one(y, gain):
                break
        return self._finish(start, y, gain)

    def _offered(self, y: IntArray, r: float, count: int) -> IntArray:
        """The columns whose pulses cost least to take."""
        support = np.flatnonzero(y)
        take = -2 * r * np.sign(y[support]) * self.gradient[support]
        take += r * r * self.diagonal[support]
        if self.shared.placement is not None:
            take[~removable(y[None], self.shared.placement)[0, support]] = np.inf
        return support[np.argsort(take, kind="stable")[:count]]

    def _move_one(self, y: IntArray, r: float) -> bool:
        """The best single move of the cheapest pulses, if it gains more than the ridge."""
        support = self._offered(y, r, _OFFERED)
        self._fetch(support)
        sign = np.sign(y[support]).astype(np.float64)
        take = -2 * r * sign * self.gradient[support] + r * r * self.diagonal[support]
        at = self.columns.scaled(support, r * sign)
        add, either = 2 * r * np.sign(y), np.where(y == 0, -2 * r, 0.0)
        fixed = r * r * (self.diagonal + 2 * self.ridge)
        if self.closed is not None:
            fixed[self.closed] = np.inf
        least = np.empty(len(support))
        size = max(1, _BLOCK // len(y))
        for start in range(0, len(support), size):
            part = slice(start, start + size)
            after = np.take(self.columns.signed, at[part], axis=0)
            np.subtract(self.gradient, after, out=after)
            put = self._put(after, y, support[part], (add, either, fixed))
            least[part] = put.min(axis=1)
        # Adding what the taking costs keeps the order, so the least need not be searched with it.
        q = int((least + take).argmin())
        i = int(support[q])
        after = self.gradient - self.columns.signed[at[q]]
        put = self._put(after[None].copy(), y, support[q : q + 1], (add, either, fixed))[0]
        put += take[q]
        j = int(put.argmin())
        if not put[j] < 0:
            return False
        y[i] -= int(sign[q])
        s_j = int(np.sign(y[j])) or (-1 if after[j] > 0 else 1)
        y[j] += s_j
        self._fetch(np.array([j]))
        self.gradient = after + (r * s_j) * self.columns.plain(j)
        return True

    def _put(
        self,
        after: Float64Array,
        y: IntArray,
        support: IntArray,
        parts: tuple[Float64Array, Float64Array, Float64Array],
    ) -> Float64Array:
        """What a pulse more costs in every column, (pulses, N), once one of ``support`` is gone.

        ``after`` is the gradient then, and not of use any more. ``parts``: 2 r for every unit of
        it, by the sign of the pulses there; for every unit of its size where there are none;
        and what does not depend on it.
        """
        add, either, fixed = parts
        put = np.abs(after)
        single = np.flatnonzero(np.abs(y[support]) == 1)  # gone, it may come back negated
        column = support[single]
        back = put[single, column] * -np.abs(add[column]) + fixed[column]
        put *= either
        after *= add
        put += after
        put += fixed
        put[single, column] = back
        placement = self.shared.placement
        if placement is not None:
            without = np.repeat(y[None], len(support), axis=0)
            without[np.arange(len(support)), support] -= np.sign(y[support])
            put[~allowed_additions(without, support, placement)] = np.inf
            put[~removable(y[None], placement)[0, support]] = np.inf
        return put

    def _finish(
        self, start: IntArray, y: IntArray, gain: float
    ) -> tuple[Float64Array, float, float]:
        """Solves gain and bias for the row's new codeword."""
        gram, sums = self.shared.gram, self.shared.sums
        used, moved = np.flatnonzero(y), np.flatnonzero(y != start)
        yf = y[used].astype(np.float64)
        u = self.x[:, used] @ yf
        difference = (y - start)[moved].astype(np.float64)
        change = gain * (self.x[:, moved] @ difference)
        slope = self.slope + self.weight * change
        gy = (gram[:, used] * yf).sum(axis=1)
        form = self.form
        k, mass, wu = form.share, form.mass, self.weight * u
        quad = float((wu * u).sum()) + k * float((gy[used] * yf).sum())
        cross = float(wu.sum()) + k * float((sums[used] * yf).sum())
        step = gain * difference
        right = float((slope * u).sum())
        right += k * float((form.pull[used] * yf).sum() + (step * gy[moved]).sum())
        offset = float(slope.sum()) + k * (form.total + float((sums[moved] * step).sum()))
        quad += self.strength * float((yf * yf).sum())
        right += self.strength * float((yf * (gain * yf - self.goal[used])).sum())
        determinant = quad * mass - cross * cross
        grow = 0.0
        if determinant > 1e-6 * quad * mass:
            grow = (cross * offset - mass * right) / determinant
            grow = min(max(grow, -0.5 * gain), gain)
        shift = -(offset + cross * grow) / mass
        change += grow * u + shift
        return change, gain + grow, shift
