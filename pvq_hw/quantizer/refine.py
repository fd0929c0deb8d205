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
from pvq_hw.model.activation import Activation
from pvq_hw.quantizer import kernels
from pvq_hw.quantizer.banks import Placement

__all__ = ["Link", "Metric", "forward", "refine", "sensitivity"]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_VALUES = 1 << 28
"""Of one Jacobian (units, frames, outputs): 1 GiB; more frames than that allows are left out."""

_PULL = 0.3  # to the original weights, as a part of H's mean diagonal
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
    activation : Activation
    reference : float32 array (frames, M)
        The float model's sums at this place.
    movable : bool
        Whether its pulses may move: one gain per row, pyramid codewords.
    placement : Placement, optional
    weight : float64 array (M, N), optional
        The original weights.
    allowed : bool array (M, N), optional
        Where pulses may be; everywhere by default.
    """

    y: IntArray
    gain: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    activation: Activation
    reference: FloatArray
    movable: bool
    placement: Placement | None = None
    weight: Float64Array | None = None
    allowed: npt.NDArray[np.bool_] | None = None

    def real(self) -> Float64Array:
        """The weights that the codes stand for, (M, N)."""
        size = self.y.shape[1] // self.gain.shape[1]
        return np.asarray(self.y * np.repeat(self.gain, size, axis=1), dtype=np.float64)

    def sums(self, x: FloatArray) -> FloatArray:
        """Sums before the activation, (frames, M)."""
        return exact.sums(x, self.real(), self.bias)


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
        x = link.activation.compute(z)
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
        slope = links[above - 1].activation.passes(sums[above - 1]).T
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
        x if index == 0 else links[index - 1].activation.compute(sums[index - 1]), grid_bits(len(x))
    )
    own = sums[index] - link.reference[: len(x)]
    weights = np.square(jacobian[:, :, 0])
    for c in range(1, jacobian.shape[2]):  # in this order: that of einsum is the processor's
        weights += np.square(jacobian[:, :, c])
    bits = grid_bits(len(x))
    gram, total = inputs.T @ inputs, inputs.sum(axis=0)
    mass = weights.sum(axis=1, dtype=np.float64)
    share = anchor * mass / len(x)
    heavy = grid(weights, bits)
    mean = heavy @ inputs + share[:, None] * total
    square = heavy @ grid(np.square(inputs), bits) + share[:, None] * np.diag(gram)
    pull = grid(own.T, bits) @ inputs
    error = own.sum(axis=0, dtype=np.float64)
    seen = inputs.astype(np.float32)  # on their grid, so exactly
    rows, n = link.y.shape
    place = link.placement
    banks, gap = (1, 0) if place is None else (place.banks, place.max_gap or 0)
    goal = np.zeros((rows, n)) if link.weight is None else link.weight
    closed = np.zeros((rows, n), dtype=bool) if link.allowed is None else ~link.allowed
    used = np.count_nonzero(link.y, axis=1).max(initial=0)
    room = np.empty((min(n, 2 * used + 16 + used // 4), n))
    link.y = np.ascontiguousarray(link.y, dtype=np.int64)
    for m in range(rows):
        if not mass[m] > 0 or not link.y[m].any() or link.gain[m, 0] <= 0:
            continue
        link.gain[m, 0], shift = kernels.refine_row(
            link.y[m], float(link.gain[m, 0]), jacobian[m], weights[m], residual, seen, gram, total,
            mean[m], square[m], float(mass[m] + share[m] * len(x)), float(share[m]), pull[m],
            float(error[m]), goal[m], 0.0 if link.weight is None else _PULL, closed[m], banks, gap,
            _COLUMN_FRAMES, room,
        )  # fmt: skip
        link.bias[m] += shift
