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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import DOUBLE, grid, grid_bits, span_bits
from pvq_hw.quantizer.autodiff import Columns, Tape, derivatives, frames_together
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
            tape.gains.pop(name, None)
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
            mass, drawn = float(self.mass[m] + share[m] * len(x)), float(rows.weight is not None)
            form = kernels.row_form(
                self.weights[m], seen, gram, sums, mean[m], square[m], mass, float(share[m]),
                _PULL * drawn, COLUMN_FRAMES,
            )  # fmt: skip
            gain[m, 0], shift = kernels.refine_row(
                y[m], float(gain[m, 0]), self.slopes[m], self.weights[m], self.residual, seen,
                gram, sums, mean[m], mass, float(share[m]), self.pull[m], float(self.total[m]),
                goal[m], form, rows.closed(m), *rows.banks, room, np.full(y.shape[1], -1),
            )  # fmt: skip
            bias[m] += shift
        return replace(rows, y=y, gain=gain, bias=bias)


class MapForm:
    """The expansion of a layer that sees many positions a frame.

    Parameters
    ----------
    parts : iterable of (slopes, columns, own, residual)
        Some frames each, in order, of which none are kept where less says the same. Slopes are the
        derivatives of directions among the weighed outputs by the rows' sums, float32 (frames,
        draws, positions, M); columns what the rows multiply, frame by frame; own the layer's own
        error, float32 (frames * positions, M); the residual is float32 (frames, draws).
    frames : int
        Of all parts.
    anchor : float
        Weight of the layer's own error, as a part of the mean sensitivity of a unit.
    """

    def __init__(
        self,
        parts: Iterable[tuple[FloatArray, Columns, FloatArray, FloatArray]],
        frames: int,
        anchor: float,
    ) -> None:
        from pvq_hw.quantizer import kernels

        left: list[FloatArray] = []
        for slopes, columns, own, residual in parts:
            if not left:
                _, _, positions, rows = slopes.shape
                self.size = rows // len(columns.values)
                self.positions = frames * positions
                self.designs = _Designs(slopes, columns, frames)
                sums = [_OwnSums(columns.values.shape[2], self.size) for _ in columns.values]
                squares, self.total = np.zeros(rows), np.zeros(rows)
            kernels.add_squares(slopes.reshape(-1, len(squares)), squares)
            self.total = _added(self.total, own)
            own_parts = np.split(own, len(columns.values), axis=1)
            for found, values, error in zip(sums, columns.values, own_parts, strict=True):
                found.take(values, error)
            self.designs.take(slopes, columns)
            left.append(residual)
        self.residual = np.concatenate(left).ravel()
        self.share = anchor * squares / self.positions
        unit = columns.unit
        self.gram = [found.ended().gram * (unit * unit) for found in sums]
        self.pull = np.concatenate([found.pull * unit for found in sums])
        self.mean = [found.mean * unit for found in sums]

    def solve(self, rows: Rows) -> Rows:
        """The rows with their pulses moved, gains and biases solved, first to last."""
        y, gain, bias = rows.y.copy(), rows.gain.copy(), rows.bias.copy()
        for m, design in enumerate(self.designs.rows()):
            if gain[m, 0] > 0 and y[m].any():
                y[m], gain[m, 0], shift = self._row(m, design, rows, float(gain[m, 0]))
                bias[m] += shift
        return replace(rows, y=y, gain=gain, bias=bias)

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


class _Designs:
    """How the residual depends on each row: the derivatives by the weights of all rows, or what
    they are made of, whichever is smaller.

    Parameters
    ----------
    slopes, columns
        The first of all parts, for their sizes; see `MapForm`.
    frames : int
        Of all parts.
    """

    def __init__(self, slopes: FloatArray, columns: Columns, frames: int) -> None:
        _, self.draws, self.positions, count = slopes.shape
        groups, _, self.n = columns.values.shape
        self.frames, size = frames, count // groups
        step = max(1, _BLOCK // (frames * self.draws * self.n))
        self.blocks = [
            (group, slice(start, min((group + 1) * size, start + step)))
            for group in range(groups)
            for start in range(group * size, (group + 1) * size, step)
        ]
        made = self.draws * count * (self.n + 1)
        together = frames_together(1, self.draws, self.positions, min(step, size), self.n)
        smaller = made < self.positions * (self.draws * count + groups * self.n)
        self.early = smaller and together < frames
        self.done = [0] * len(self.blocks)
        self.found: list[FloatArray] = []
        if self.early:
            self.found = [self._room(block) for _, block in self.blocks]
        self.come = 0  # frames so far, where nothing is derived from them yet
        self.gone = 0  # frames that nothing is left of but what was found
        self.waiting: list[tuple[FloatArray, Columns]] = []

    def take(self, slopes: FloatArray, columns: Columns) -> None:
        """Adds the next frames."""
        if self.early:
            self.waiting.append((slopes, columns))
            self._derive(ended=False)
            return
        if not self.waiting:
            shape = len(columns.values), self.frames * self.positions, self.n
            room = np.empty((self.frames, *slopes.shape[1:]), dtype=np.float32)
            wide = replace(columns, values=np.empty(shape, dtype=np.float32))
            self.waiting.append((room, wide))
        kept, seen = self.waiting[0]
        start, stop = self.come, self.come + len(slopes)
        kept[start:stop] = slopes
        seen.values[:, start * self.positions : stop * self.positions] = columns.values
        self.come = stop

    def rows(self) -> Iterator["_Full"]:
        """Derivatives of the residual by each row, first to last; once."""
        if self.early:
            self._derive(ended=True)
            self.waiting.clear()
        for index, (_, block) in enumerate(self.blocks):
            if self.early:
                found, self.found[index] = self.found[index], np.zeros(0, dtype=np.float32)
            else:
                found = self._room(block)
                self._derive_block(index, found, *self.waiting[0], self.frames)
            yield from map(_Full, found.reshape(len(found), -1, self.n + 1))

    def _room(self, block: slice) -> FloatArray:
        shape = (block.stop - block.start, self.frames, self.draws, self.n + 1)
        return np.empty(shape, dtype=np.float32)

    def _joined(self) -> tuple[FloatArray, Columns]:
        """All that waits, as one part."""
        if len(self.waiting) > 1:
            slopes, columns = zip(*self.waiting, strict=True)
            values = np.concatenate([c.values for c in columns], axis=1)
            self.waiting = [(np.concatenate(slopes), replace(columns[0], values=values))]
        return self.waiting[0]

    def _derive(self, *, ended: bool) -> None:
        """Goes on with all blocks, by as many frames as are rounded together or, when all frames
        have come, to the end."""
        known = self.gone + sum(len(slopes) for slopes, _ in self.waiting)
        if not ended and all(self._whole(i, known) == done for i, done in enumerate(self.done)):
            return
        slopes, columns = self._joined()
        for index, found in enumerate(self.found):
            self._derive_block(index, found, slopes, columns, known if ended else None)
        used = min(self.done) - self.gone
        self.gone += used
        rest = columns.values[:, used * self.positions :].copy()
        self.waiting = [(slopes[used:].copy(), replace(columns, values=rest))]

    def _whole(self, index: int, known: int) -> int:
        """How far a block can be derived where so many frames are known: those that are rounded
        together come together."""
        _, block = self.blocks[index]
        count = block.stop - block.start
        step = frames_together(1, self.draws, self.positions, count, self.n)
        return self.done[index] + (known - self.done[index]) // step * step

    def _derive_block(
        self, index: int, found: FloatArray, slopes: FloatArray, columns: Columns, stop: int | None
    ) -> None:
        group, block = self.blocks[index]
        start = self.done[index]
        if stop is None:
            stop = self._whole(index, self.gone + len(slopes))
        part = slice(start - self.gone, stop - self.gone)
        if stop > start:
            at = slice(part.start * self.positions, part.stop * self.positions)
            seen = replace(columns, values=columns.values[None, group, at])
            made = derivatives(slopes[None, part, :, :, block], seen)
            found[:, start:stop] = made[0]
        self.done[index] = stop


class _OwnSums:
    """Products of what the rows of a group multiply with itself and with the layer's own error, and
    its sum, over positions that come a few at a time."""

    def __init__(self, n: int, rows: int) -> None:
        self.gram, self.pull = np.zeros((n, n)), np.zeros((rows, n))
        self.mean = np.zeros(n)
        self.columns = np.zeros((0, n), dtype=np.float32)
        self.own = np.zeros((0, rows), dtype=np.float32)

    def take(self, columns: FloatArray, own: FloatArray) -> None:
        """Adds positions (positions, N) with their errors (positions, M)."""
        self.mean = _added(self.mean, columns)
        columns, own = np.concatenate([self.columns, columns]), np.concatenate([self.own, own])
        whole = len(columns) // _PIECE * _PIECE
        for start in range(0, whole, _PIECE):
            self._add(columns[start : start + _PIECE], own[start : start + _PIECE])
        self.columns, self.own = columns[whole:].copy(), own[whole:].copy()

    def ended(self) -> "_OwnSums":
        """Itself, with what was left over."""
        self._add(self.columns, self.own)
        return self

    def _add(self, columns: FloatArray, own: FloatArray) -> None:
        bits = grid_bits(len(columns))
        piece = grid(columns, bits)
        self.gram += piece.T @ piece
        self.pull += grid(own, bits).T @ piece


def _added(total: RealArray, values: FloatArray) -> RealArray:
    """``total`` (N,) and the rows of ``values`` (positions, N), one after the other."""
    from pvq_hw.quantizer import kernels

    if len(total) == 1:  # in pairs
        return np.asarray(np.concatenate([total[None], values]).sum(axis=0))
    total = total.copy()
    kernels.add_rows(np.ascontiguousarray(values), total)
    return total


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
