"""The error of a network's outputs as a function of one layer's rows, to second order.

The weights of a row move the outputs of a frame by ``a = sum_p s_p x_p``: the sum over the
positions of the map of the outputs' derivative by the row's sum there times what the row sees
there. For one row the error is a quadratic form with ``H = E[a a']`` (Gauss-Newton), in which
single pulses move while it falls; then gain and bias are solved. The residual is kept up to date
from row to row, so later rows mend what earlier ones broke.

Two classes compute it. `VectorForm` is for layers that see one position a frame, as dense layers
do: all outputs of all frames count, and of H, which is as large as a row squared, only the columns
that moves ask for are made. `MapForm` is for maps of positions, where H is small and what it is
made of is large.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import DOUBLE, grid, grid_bits, span_bits
from pvq_hw.quantizer.autodiff import Columns, Tape, derivatives
from pvq_hw.quantizer.banks import Placement

__all__ = ["MapForm", "Rows", "VectorForm"]

FloatArray = npt.NDArray[np.float32]
RealArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_PULL = 0.3  # to the original weights, as a part of H's mean diagonal
_RIDGE = 1e-3  # part of H's mean diagonal that a pulse must earn where it goes
COLUMN_FRAMES = 3000  # frames where a unit matters that its row's H is made of
_BLOCK = 1 << 25  # values of the derivatives of a block of rows
_PIECE = 4096  # positions at a time, where float64 copies of all would be large


@dataclass(frozen=True, eq=False)
class Rows:
    """A layer's codewords while they are refined.

    Parameters
    ----------
    y : int64 array (M, N)
    gain : float64 array (M, G)
    bias : float64 array (M,)
    placement : Placement, optional
    allowed : bool array (M, N), optional
        Where pulses may be.
    weight : float64 array (M, N), optional
        The original weights.
    """

    y: IntArray
    gain: RealArray
    bias: RealArray
    placement: Placement | None = None
    allowed: npt.NDArray[np.bool_] | None = None
    weight: RealArray | None = None

    @property
    def banks(self) -> tuple[int, int]:
        """The placement as `pvq_hw.quantizer.kernels` takes it."""
        place = self.placement
        return (1, 0) if place is None else (place.banks, place.max_gap or 0)

    def closed(self, m: int) -> npt.NDArray[np.bool_]:
        """Where row m may have no pulses, (N,)."""
        return np.zeros(self.y.shape[1], dtype=bool) if self.allowed is None else ~self.allowed[m]

    def put(self, tape: Tape, name: str) -> None:
        """Makes them the weights of a step of the tape."""
        groups = self.gain.shape[1]
        if groups == 1:
            tape.weights[name] = self.y.astype(np.float32)
            tape.gains[name] = self.gain[:, 0]
        else:
            real = self.y * np.repeat(self.gain, self.y.shape[1] // groups, axis=1)
            tape.weights[name] = real.astype(np.float32)
        tape.biases[name] = self.bias.astype(np.float32)


class VectorForm:
    """The expansion of a layer that sees one position a frame.

    Parameters
    ----------
    slopes : float32 array (M, frames, draws)
        Derivatives of the weighed outputs by the rows' sums.
    inputs : float array (frames, N)
    own : float32 array (frames, M)
        The layer's own error.
    residual : float32 array (frames, draws)
    anchor : float
        Weight of the layer's own error, as a part of the mean sensitivity of a unit.
    """

    def __init__(
        self,
        slopes: FloatArray,
        inputs: RealArray,
        own: FloatArray,
        residual: FloatArray,
        anchor: float,
    ) -> None:
        self.slopes, self.residual = slopes, residual
        self.bits = grid_bits(len(inputs))
        self.inputs = grid(inputs, self.bits)
        self.weights = np.square(slopes[:, :, 0])
        for d in range(1, slopes.shape[2]):  # in this order: that of einsum is the processor's
            self.weights += np.square(slopes[:, :, d])
        self.mass = self.weights.sum(axis=1, dtype=np.float64)
        self.share = anchor * self.mass / len(inputs)
        self.pull = grid(own.T, self.bits) @ self.inputs
        self.total = own.sum(axis=0, dtype=np.float64)

    def solve(self, rows: Rows) -> Rows:
        """The rows with their pulses moved, gains and biases solved, first to last."""
        from pvq_hw.quantizer import kernels

        x, share = self.inputs, self.share
        gram, sums = x.T @ x, x.sum(axis=0)
        heavy = grid(self.weights, self.bits)
        mean = heavy @ x + share[:, None] * sums
        square = heavy @ grid(np.square(x), self.bits) + share[:, None] * np.diag(gram)
        seen = x.astype(np.float32)  # on their grid, so exactly
        y, gain, bias = np.array(rows.y, dtype=np.int64), rows.gain.copy(), rows.bias.copy()
        goal = np.zeros(y.shape) if rows.weight is None else np.asarray(rows.weight, dtype=float)
        used = int(np.count_nonzero(y, axis=1).max(initial=0))
        room = np.empty((min(y.shape[1], 2 * used + 16 + used // 4), y.shape[1]))
        for m in range(len(y)):
            if not self.mass[m] > 0 or not y[m].any() or gain[m, 0] <= 0:
                continue
            gain[m, 0], shift = kernels.refine_row(
                y[m], float(gain[m, 0]), self.slopes[m], self.weights[m], self.residual, seen,
                gram, sums, mean[m], square[m], float(self.mass[m] + share[m] * len(x)),
                float(share[m]), self.pull[m], float(self.total[m]), goal[m],
                0.0 if rows.weight is None else _PULL, rows.closed(m), *rows.banks,
                COLUMN_FRAMES, room,
            )  # fmt: skip
            bias[m] += shift
        return replace(rows, y=y, gain=gain, bias=bias)


class MapForm:
    """The expansion of a layer that sees many positions a frame.

    Parameters
    ----------
    slopes : float32 array (frames, draws, positions, M)
        Derivatives of directions among the weighed outputs by the rows' sums.
    columns : Columns
        What the rows multiply, frame by frame.
    own : float32 array (frames * positions, M)
    residual : float32 array (frames, draws)
    anchor : float
    """

    def __init__(
        self,
        slopes: FloatArray,
        columns: Columns,
        own: FloatArray,
        residual: FloatArray,
        anchor: float,
    ) -> None:
        self.slopes, self.columns = slopes, columns
        self.residual = residual.ravel()
        frames, _, positions, rows = slopes.shape
        self.size = rows // len(columns.values)
        self.positions = frames * positions
        squares = np.zeros(rows)
        for frame in slopes:
            squares += np.square(frame, dtype=np.float64).sum(axis=(0, 1))
        self.share = anchor * squares / self.positions
        own_parts = np.split(own, len(columns.values), axis=1)
        sums = [_own_sums(c, o) for c, o in zip(columns.values, own_parts, strict=True)]
        unit = columns.unit
        self.gram = [gram * (unit * unit) for gram, _ in sums]
        self.pull = np.concatenate([pull * unit for _, pull in sums])
        self.mean = [c.sum(axis=0, dtype=np.float64) * unit for c in columns.values]
        self.total = own.sum(axis=0, dtype=np.float64)

    def solve(self, rows: Rows) -> Rows:
        """The rows with their pulses moved, gains and biases solved, first to last."""
        y, gain, bias = rows.y.copy(), rows.gain.copy(), rows.bias.copy()
        for m, design in enumerate(self._designs()):
            if gain[m, 0] > 0 and y[m].any():
                y[m], gain[m, 0], shift = self._row(m, design, rows, float(gain[m, 0]))
                bias[m] += shift
        return replace(rows, y=y, gain=gain, bias=bias)

    def _designs(self) -> Iterator["_Full"]:
        """How the residual depends on each row, first to last."""
        columns, slopes, n = self.columns, self.slopes, self.columns.values.shape[2]
        step = max(1, _BLOCK // (self.residual.size * n))
        for group, values in enumerate(columns.values):
            first, last = group * self.size, (group + 1) * self.size
            own = replace(columns, values=values[None])
            for start in range(first, last, step):
                part = derivatives(slopes[None, :, :, :, start : min(last, start + step)], own)
                yield from map(_Full, part.reshape(-1, self.residual.size, n + 1))

    def _row(
        self, m: int, design: "_Full", rows: Rows, gain: float
    ) -> tuple[IntArray, float, float]:
        """New codeword, gain and change of the bias of row m; the residual follows."""
        group, share = m // self.size, self.share[m]
        h, gradient = design.square(), design.pull(self.residual)
        h[:-1, :-1] += share * self.gram[group]
        h[:-1, -1] += share * self.mean[group]
        mass = h[-1, -1] + share * self.positions
        gradient[:-1] += share * self.pull[m]
        gradient[-1] += share * self.total[m]
        if not mass > 0:
            return rows.y[m], gain, 0.0
        edge, offset = h[:-1, -1] / mass, gradient[-1] / mass
        centered = h[:-1, :-1] - np.outer(edge, h[:-1, -1])
        slope = gradient[:-1] - edge * gradient[-1]
        y = _move(centered, slope.copy(), rows, m, gain)
        change = gain * (y - rows.y[m])
        grow = _growth(centered, slope + _times(centered, change), y, gain)
        change += grow * y
        shift = -(offset + float((edge * change).sum()))
        self.residual += design.moved(np.append(change, shift)).astype(np.float32)
        return y, gain + grow, shift


class _Full:
    """Derivatives of the residual by a row's weights and bias, (residuals, N + 1)."""

    def __init__(self, a: FloatArray) -> None:
        self.bits = grid_bits(len(a))
        self.a = grid(a, self.bits)

    def square(self) -> RealArray:
        """``a' a``, (N + 1, N + 1)."""
        return np.asarray(self.a.T @ self.a)

    def pull(self, residual: FloatArray) -> RealArray:
        """``a' residual``, (N + 1,)."""
        return np.asarray(grid(residual, self.bits) @ self.a)

    def moved(self, change: RealArray) -> RealArray:
        """``a change``: what a change of weights and bias does to the residual."""
        return np.asarray(self.a @ grid(change, DOUBLE - self.bits - span_bits(len(change))))


def _own_sums(columns: FloatArray, own: FloatArray) -> tuple[RealArray, RealArray]:
    """Products of what the rows of a group multiply, (positions, N), with itself and with the
    layer's own error (positions, M)."""
    gram = np.zeros((columns.shape[1], columns.shape[1]))
    pull = np.zeros((own.shape[1], columns.shape[1]))
    for start in range(0, len(columns), _PIECE):
        part = slice(start, start + _PIECE)
        bits = grid_bits(len(columns[part]))
        piece = grid(columns[part], bits)
        gram += piece.T @ piece
        pull += grid(own[part], bits).T @ piece
    return gram, pull


def _times(h: RealArray, v: npt.NDArray[Any]) -> RealArray:
    """``h @ v`` of a symmetric h and a v of few values."""
    used = np.flatnonzero(v)
    return np.asarray((h[used] * v[used, None]).sum(axis=0))


def _growth(h: RealArray, slope: RealArray, y: IntArray, gain: float) -> float:
    """Change of the gain that the row's new codeword wants."""
    quad = float((_times(h, y) * y).sum())
    if quad <= 1e-9 * float((np.diag(h) * np.square(y)).sum()):
        return 0.0
    return min(max(-float((slope * y).sum()) / quad, -0.5 * gain), gain)


def _move(h: RealArray, gradient: RealArray, rows: Rows, m: int, r: float) -> IntArray:
    """Moves single pulses of row m at a fixed gain, the best one first, while each earns more
    than the ridge."""
    from pvq_hw.quantizer import kernels

    y = np.array(rows.y[m], dtype=np.int64)
    diagonal = np.maximum(np.diag(h), 0)
    none = np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), np.zeros(0)
    kernels.move_pulses(
        y, r, gradient, diagonal, _RIDGE * float(diagonal.mean()) + 1e-30, rows.closed(m),
        *rows.banks, h, np.arange(len(y)), *none, h, diagonal, 1.0, 0.0,
    )  # fmt: skip
    return y
