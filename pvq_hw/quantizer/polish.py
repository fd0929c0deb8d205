"""Refinement of a network of any shape: pulse moves against its outputs.

As `pvq_hw.quantizer.refine` does for chains of dense layers: the error of the outputs is expanded
to second order around the quantized network. The weights of one row move the outputs of a frame by
``a = sum_p s_p x_p``, the sum over the positions of the map of the output's derivative by the
row's sum there times what the row sees there. For one row the error is a quadratic form, with
``H = E[a a']``, in which single pulses move; the residual is kept up to date from row to row.
A part of the layer's own error, the anchor, stays in: the more, the more weights there are for the
numbers they are fitted to.

All matrix products are exact (`pvq_hw.arith.exact`), so that the codes are the same on every
machine.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import DOUBLE, grid, grid_bits, span_bits
from pvq_hw.quantizer import kernels
from pvq_hw.quantizer.autodiff import Columns, Tape, derivatives
from pvq_hw.quantizer.banks import Placement
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.refine import Metric
from pvq_hw.quantizer.sensitivity import temperature_of

__all__ = ["Full", "Outer", "Rows", "orthogonal", "polish"]

FloatArray = npt.NDArray[np.float32]
RealArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_WORK = 2e10  # multiplications of one pass through the network: frames * directions * MACs
_VALUES = 1 << 28  # of the largest array of a layer: 1 GiB
_BLOCK = 1 << 25  # values of the derivatives of a block of rows
_CHUNK = 20
_PIECE = 4096  # positions at a time, where float64 copies of all would be large
_JUDGES = 0.2  # part of the frames, up to 500, on which moves must lower the true error
_LEAST_FRAMES = 100  # with fewer, moves are judged by the frames they were made for
_ANCHOR = 0.1
_ANCHOR_MORE = 0.4  # per weight of the network and number that it is fitted to
_RIDGE = 1e-3  # part of H's mean diagonal that a pulse must earn where it goes


@dataclass(frozen=True, eq=False)
class Rows:
    """A layer's codewords while they are refined.

    Parameters
    ----------
    y : int64 array (M, N)
    gain : float64 array (M, 1)
    bias : float64 array (M,)
    placement : Placement, optional
    allowed : bool array (M, N), optional
        Where pulses may be.
    """

    y: IntArray
    gain: RealArray
    bias: RealArray
    placement: Placement | None = None
    allowed: npt.NDArray[np.bool_] | None = None

    def put(self, tape: Tape, name: str) -> None:
        """Makes them the weights of a step of the tape."""
        tape.weights[name] = self.y.astype(np.float32)
        tape.gains[name] = self.gain[:, 0]
        tape.biases[name] = self.bias.astype(np.float32)


def polish(
    tape: Tape,
    rows: Mapping[str, Rows],
    x: FloatArray,
    *,
    sweeps: int,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[dict[str, Rows], list[float]]:
    """Sweeps over the layers, first to last; K of every row stays what it is.

    Parameters
    ----------
    tape : Tape
        The quantized network: its lattices are set, the weights of the steps not in ``rows`` too.
    rows : mapping of step name to Rows
    x : float32 array (frames, \\*shape)
        Inputs, as the float model sees them.
    sweeps : int

    Returns
    -------
    (rows, errors): the refined codes, and the mean error before and after each sweep on frames
    that the moves were not made for. A layer whose moves make it larger is put back.
    """
    found = dict(rows)
    for name, layer in found.items():
        layer.put(tape, name)
    job = _Job(tape, x, seed)
    errors = [job.error()]
    for sweep in range(sweeps):
        best = errors[-1]
        job.restart()
        for done, name in enumerate(step.name for step in tape.steps if step.name in found):
            before = found[name]
            job.advance(name)
            after = job.visit(name, before)
            after.put(tape, name)
            error = job.error()
            if error < best:
                best, found[name] = error, after
            else:
                before.put(tape, name)
            if progress:
                progress("all layers", (sweep + (done + 1) / len(found)) / sweeps)
        errors.append(best)
    return found, errors


class _Job:
    """What all visits to layers share."""

    def __init__(self, tape: Tape, x: FloatArray, seed: int) -> None:
        self.tape, self.rng = tape, np.random.default_rng(seed)
        self.exact = Tape(tape.steps, tape.source)
        self.steps = {step.name: step for step in tape.steps}
        order = self.rng.permutation(len(x))
        judges = min(500, int(_JUDGES * len(x))) if len(x) >= _LEAST_FRAMES else len(x)
        self.judges = x[np.sort(order[:judges])].astype(np.float32)
        fitted = order[judges:] if judges < len(x) else order
        weights = self.exact.weights
        macs = sum(w.size * self.steps[n].node.size // len(w) for n, w in weights.items())
        self.judged = self.exact.outputs(self.judges, _CHUNK)
        self.temperature = temperature_of(self.judged)
        count = self.judged.shape[1]
        draws = _WORK / (macs * len(fitted))
        self.draws = int(np.clip(draws, min(4, count), min(10, count)))
        frames = int(min(len(fitted), max(64, _WORK / (macs * self.draws))))
        self.x = x[np.sort(fitted[:frames])].astype(np.float32)
        self.reference = self.exact.outputs(self.x, _CHUNK)
        # Weights that outnumber what they are fitted to would fit it and nothing else.
        excess = sum(w.size for w in weights.values()) / (len(self.x) * self.draws)
        self.anchor = max(_ANCHOR, _ANCHOR_MORE * excess)
        self.restart()

    def restart(self) -> None:
        """Back to the first layer."""
        self.fronts = {
            "judges": _Front(self.tape, self.judges),
            "fitted": _Front(self.tape, self.x),
            "exact": _Front(self.exact, self.x),
        }

    def advance(self, name: str) -> None:
        """Computes up to what a layer reads, with the layers before it as they are now."""
        for front in self.fronts.values():
            front.advance(name)

    def error(self) -> float:
        """Mean weighed error of the outputs, on the frames it is judged by."""
        metric = Metric(self.judged, self.temperature)
        residual = metric.weigh(self.fronts["judges"].outputs() - self.judged)
        return float(np.square(residual, dtype=np.float64).sum(axis=1).mean())

    def visit(self, name: str, rows: Rows) -> Rows:
        """The layer with its pulses moved, gains and biases solved."""
        form = self._expand(self.steps[name])
        y, gain, bias = rows.y.copy(), rows.gain.copy(), rows.bias.copy()
        for m, design in enumerate(form.designs()):
            if gain[m, 0] > 0 and y[m].any():
                part = replace(
                    rows, y=y[m], allowed=None if rows.allowed is None else rows.allowed[m]
                )
                y[m], gain[m, 0], shift = form.solve(m, design, part, float(gain[m, 0]))
                bias[m] += shift
        return replace(rows, y=y, gain=gain, bias=bias)

    def _expand(self, step: Step) -> "_Form":
        """Derivatives and residual of a layer, on frames drawn for it."""
        rows, n = self.tape.weights[step.name].shape
        positions = step.node.size // rows
        widest = max(self.draws * positions * rows, positions * n, self.draws * n)
        frames = max(1, min(len(self.x), _VALUES // widest))
        chosen = np.sort(self.rng.choice(len(self.x), frames, replace=False))
        parts = [self._part(step, chosen[i : i + _CHUNK]) for i in range(0, frames, _CHUNK)]
        slopes, columns, own, residual = (list(p) for p in zip(*parts, strict=True))
        seen = np.concatenate([c.values for c in columns], axis=1)
        return _Form(
            np.concatenate(slopes),
            replace(columns[0], values=seen),
            np.concatenate(own),
            np.concatenate(residual),
            self.anchor,
        )

    def _part(
        self, step: Step, chosen: IntArray
    ) -> tuple[FloatArray, Columns, FloatArray, FloatArray]:
        """Slopes (frames, draws, positions, M), what the rows multiply, the layer's own error
        (frames * positions, M) and the residual (frames, draws)."""
        reference = self.reference[chosen]
        exact = self.exact.sums(step, self.fronts["exact"].at(chosen))
        values = self.tape.resume(self.fronts["fitted"].at(chosen), step.name, keep=True)
        outputs = values[self.tape.output]
        metric = Metric(reference, self.temperature)
        residual = metric.weigh(outputs.reshape(reference.shape) - reference)
        directions = self._directions(*residual.shape)
        rows = step.node.shape[-1]
        seeds = [metric.weigh_back(directions[:, :, d]) for d in range(directions.shape[2])]
        slopes = self.tape.slopes(
            values, np.concatenate(seeds).reshape(-1, *outputs.shape[1:]), step.name
        ).reshape(len(seeds), len(chosen), -1, rows)
        own = (self.tape.sums(step, values) - exact).reshape(-1, rows)
        seen = (residual[:, :, None] * directions).sum(axis=1)
        columns = self.tape.columns(step, values[step.inputs[0]])
        return np.ascontiguousarray(slopes.transpose(1, 0, 2, 3)), columns, own, seen

    def _directions(self, frames: int, count: int) -> FloatArray:
        """Orthogonal directions among the outputs of each frame, (frames, C, draws), whose squares
        add up to the error on average."""
        if self.draws >= count:
            return np.broadcast_to(np.eye(count, dtype=np.float32), (frames, count, count))
        # The tails of a normal distribution take a logarithm, which differs in last digits.
        found = orthogonal(grid(self.rng.normal(size=(frames, count, self.draws)), 20))
        return np.asarray(found * np.sqrt(count / self.draws), dtype=np.float32)


class _Front:
    """Tensors of some frames that a network's steps from one on read."""

    def __init__(self, tape: Tape, x: FloatArray) -> None:
        self.tape, self.name, self.count = tape, tape.steps[0].name, len(x)
        self.values = {tape.source: x}

    def at(self, frames: IntArray | slice) -> dict[str, FloatArray]:
        """The tensors of some of the frames."""
        return {name: value[frames] for name, value in self.values.items()}

    def advance(self, name: str) -> None:
        """On to what is read from another step on."""
        needed = self.tape.needed(name)
        parts = [
            {n: v for n, v in made.items() if n in needed}
            for part in self._parts()
            for made in [self.tape.resume(self.at(part), self.name, until=name)]
        ]
        self.values = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        self.name = name

    def outputs(self) -> FloatArray:
        """The network's outputs, (frames, C)."""
        parts = [
            self.tape.resume(self.at(part), self.name)[self.tape.output] for part in self._parts()
        ]
        return np.concatenate(parts).reshape(self.count, -1)

    def _parts(self) -> list[slice]:
        return [slice(i, i + _CHUNK) for i in range(0, self.count, _CHUNK)]


def orthogonal(vectors: RealArray) -> RealArray:
    """Orthonormal vectors (frames, C, D) that span the same, by the order of Gram and Schmidt."""
    q = vectors.copy()
    for d in range(q.shape[2]):
        for _ in range(2):  # once leaves what rounding does to nearly dependent vectors
            for e in range(d):
                q[:, :, d] -= q[:, :, e] * (q[:, :, e] * q[:, :, d]).sum(axis=1, keepdims=True)
        q[:, :, d] /= np.sqrt(np.square(q[:, :, d]).sum(axis=1, keepdims=True))
    return q


class _Form:
    """The error of the outputs as a function of one layer's rows, to second order."""

    def __init__(
        self,
        slopes: FloatArray,
        columns: Columns,
        own: FloatArray,
        residual: FloatArray,
        anchor: float,
    ) -> None:
        self.slopes, self.columns = slopes, columns
        self.shape = residual.shape
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

    def designs(self) -> Iterator["Full | Outer"]:
        """How the residual depends on each row, first to last."""
        columns, slopes, n = self.columns, self.slopes, self.columns.values.shape[2]
        step = max(1, _BLOCK // (self.residual.size * n))
        for group, values in enumerate(columns.values):
            first, last = group * self.size, (group + 1) * self.size
            if slopes.shape[2] == 1:
                inputs = np.append(values, np.ones((len(values), 1)), axis=1).astype(np.float64)
                units = np.append(np.full(n, columns.unit), 1.0)
                for m in range(first, last):
                    yield Outer(slopes[:, :, 0, m], inputs, units, columns.bits)
                continue
            own = replace(columns, values=values[None])
            for start in range(first, last, step):
                part = derivatives(slopes[None, :, :, :, start : min(last, start + step)], own)
                yield from map(Full, part.reshape(-1, self.residual.size, n + 1))

    def solve(
        self, m: int, design: "Full | Outer", rows: Rows, gain: float
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
            return rows.y, gain, 0.0
        edge, offset = h[:-1, -1] / mass, gradient[-1] / mass
        centered = h[:-1, :-1] - np.outer(edge, h[:-1, -1])
        slope = gradient[:-1] - edge * gradient[-1]
        y = _move(centered, slope.copy(), rows, gain)
        change = gain * (y - rows.y)
        grow = _growth(centered, slope + _times(centered, change), y, gain)
        change += grow * y
        shift = -(offset + float((edge * change).sum()))
        self.residual += design.moved(np.append(change, shift)).astype(np.float32)
        return y, gain + grow, shift


class Full:
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


class Outer:
    """`Full` of a row that sees one position a frame: ``a[f, d] = slopes[f, d] * x[f]``.

    Parameters
    ----------
    slopes : float32 array (frames, draws)
    inputs : float64 array (frames, N + 1)
        What the row multiplies and 1, times ``units`` (N + 1,), at most ``bits`` bits of them.
    """

    def __init__(self, slopes: FloatArray, inputs: RealArray, units: RealArray, bits: int) -> None:
        self.slopes, self.inputs, self.units = slopes, inputs, units
        self.bits = DOUBLE - bits - span_bits(len(inputs))
        self.bits_moved = DOUBLE - bits - span_bits(len(units))

    def square(self) -> RealArray:
        weight = np.square(self.slopes, dtype=np.float64).sum(axis=1, keepdims=True)
        h = grid(self.inputs * weight, self.bits).T @ self.inputs
        h *= self.units
        h *= self.units[:, None]
        return np.asarray(h)

    def pull(self, residual: FloatArray) -> RealArray:
        weight = np.multiply(residual.reshape(self.slopes.shape), self.slopes, dtype=np.float64)
        return np.asarray(grid(weight.sum(axis=1), self.bits) @ self.inputs * self.units)

    def moved(self, change: RealArray) -> RealArray:
        sums = self.inputs @ grid(change * self.units, self.bits_moved)
        return np.asarray(sums[:, None] * self.slopes).ravel()


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


def _move(h: RealArray, gradient: RealArray, rows: Rows, r: float) -> IntArray:
    """Moves single pulses of a row at a fixed gain, the best one first, while each earns more
    than the ridge."""
    y, n = rows.y.copy(), len(rows.y)
    place = rows.placement
    banks, gap = (1, 0) if place is None else (place.banks, place.max_gap or 0)
    diagonal = np.maximum(np.diag(h), 0)
    closed = np.zeros(n, dtype=bool) if rows.allowed is None else ~rows.allowed
    none = np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64), np.zeros(0)
    kernels.move_pulses(
        y, r, gradient, diagonal, _RIDGE * float(diagonal.mean()) + 1e-30, closed, banks, gap,
        h, np.arange(n), *none, h, diagonal, 1.0, 0.0,
    )  # fmt: skip
    return y
