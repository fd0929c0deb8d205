"""Refinement of a whole network: pulse moves against its outputs instead of each layer's own.

The error of the outputs, weighed by how much they matter to the decision, is expanded to second
order around the quantized network, layer by layer (`pvq_hw.quantizer.expansion`). A part of the
layer's own error, the anchor, stays in, since the expansion knows nothing of units that wake up:
the more, the more weights there are for the numbers they are fitted to.

All matrix products are exact (`pvq_hw.arith.exact`), so that the codes are the same on every
machine.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.exact import grid, product
from pvq_hw.quantizer.autodiff import Columns, Tape, node_groups
from pvq_hw.quantizer.expansion import MapForm, Rows, VectorForm
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.metric import output_metric, reconstructs

__all__ = [
    "ANCHOR_MOST",
    "Visits",
    "fitting_anchor",
    "judge_count",
    "orthogonal",
    "refine",
    "sweep_work",
]

FloatArray = npt.NDArray[np.float32]
RealArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_WORK = 1e11  # multiplications of a sweep: of all layers behind each one, frames and directions
_VALUES = 1 << 28  # of the largest array of a layer: 1 GiB
_CHUNK_VALUES = 1 << 20  # of the largest array of a chunk of frames
_LEAST_CHUNK = 20
_TOGETHER = 1 << 16  # values of vectors that are made orthogonal at a time: what caches hold
_JUDGES = 0.2  # part of the frames, up to 500, on which moves must lower the true error
_LEAST_FRAMES = 100  # with fewer, moves are judged by the frames they were made for
_ANCHOR = 0.1
_ANCHOR_MORE = 0.4  # per weight of the network and number that it is fitted to
_ANCHOR_MAPS = 0.3  # likewise by the square, where layers have positions
_ANCHOR_VALUES = 1.0  # at least, where outputs are values along a few directions
_POWERS = 12  # of the outputs' covariance, which single out the directions where they differ most
ANCHOR_MOST = 5.0
"""From here on the outputs say too little of all layers to be worth a sweep."""


def refine(
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
    that the moves were not made for. A layer whose moves make it larger is put back. Where the
    weights of a network with maps outnumber what they are fitted to by far, nothing moves: it
    would be learned by heart.
    """
    found = dict(rows)
    for name, layer in found.items():
        layer.put(tape, name)
    job = Visits(tape, x, seed)
    errors = [job.error()]
    if job.maps and job.anchor > ANCHOR_MOST:
        return found, errors * (sweeps + 1)
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


def _positions(step: Step) -> int:
    """Positions of a frame that a step's rows see."""
    return step.node.size // len(step.weight)


def judge_count(frames: int) -> int:
    """How many of so many frames judge what moves for the others; with few, all do both."""
    return min(500, int(_JUDGES * frames)) if frames >= _LEAST_FRAMES else frames


def fitting_anchor(tape: Tape, numbers: int) -> float:
    """Weight of a layer's own error where the network's weights are fitted to so many numbers: what
    they outnumber by far they would fit, and nothing else."""
    excess = sum(w.size for w in tape.weights.values()) / numbers
    return max(_ANCHOR, _ANCHOR_MAPS * excess**2 if _maps(tape) else _ANCHOR_MORE * excess)


def _maps(tape: Tape) -> bool:
    return any(step.weighted and _positions(step) > 1 for step in tape.steps)


class Visits:
    """What all visits to layers share, which are made first to last.

    Parameters
    ----------
    tape : Tape
        The quantized network, or one that becomes it.
    x : float32 array (frames, \\*shape)
    seed : int
    directions : (least, most)
        Random ones among a frame's outputs.
    work : float
        Multiplications of a sweep, which decide how many frames and directions are looked at.

    Attributes
    ----------
    anchor : float
        Weight of a layer's own error; as the weights and what they are fitted to ask for at first.
    """

    def __init__(
        self,
        tape: Tape,
        x: FloatArray,
        seed: int,
        *,
        directions: tuple[int, int] = (4, 10),
        work: float = _WORK,
    ) -> None:
        self.tape, self.rng = tape, np.random.default_rng(seed)
        self.exact = Tape(tape.steps, tape.source)
        self.steps = {step.name: step for step in tape.steps}
        order = self.rng.permutation(len(x))
        judges = judge_count(len(x))
        self.judges = x[np.sort(order[:judges])].astype(np.float32)
        fitted = order[judges:] if judges < len(x) else order
        self.chunk = _chunk(tape)
        layers = sweep_work(tape)
        self.judged = self.exact.outputs(self.judges, self.chunk)
        self.metric = output_metric(tape.steps[-1], self.judged, x)
        count = self.judged.shape[1]
        draws = work / (layers * len(fitted))
        self.draws = int(np.clip(draws, *(min(most, count) for most in directions)))
        frames = int(min(len(fitted), max(64, work / (layers * self.draws))))
        self.x = x[np.sort(fitted[:frames])].astype(np.float32)
        self.maps = _maps(tape)
        self.anchor = fitting_anchor(tape, len(self.x) * self.draws)
        self.principal = None
        if reconstructs(tape.steps[-1], x) and count > self.draws:
            # These stand for all outputs.
            self.anchor = max(_ANCHOR_VALUES, fitting_anchor(tape, len(self.x) * count))
            self.principal = _principal(self.reference, self.draws, self.rng)
        self.restart()

    @cached_property
    def reference(self) -> FloatArray:
        """The float model's outputs for the frames that moves are made for, (frames, C)."""
        return self.exact.outputs(self.x, self.chunk)

    def restart(self) -> None:
        """Back to the first layer."""
        self.fronts = {
            "judges": _Front(self.tape, self.judges, self.chunk),
            "fitted": _Front(self.tape, self.x, self.chunk),
            "exact": _Front(self.exact, self.x, self.chunk),
        }

    def advance(self, name: str) -> None:
        """Computes up to what a layer reads, with the layers before it as they are now."""
        for front in self.fronts.values():
            front.advance(name)

    def error(self) -> float:
        """Mean weighed error of the outputs, on the frames it is judged by."""
        metric = self.metric(self.judged)
        residual = metric.weigh(self.fronts["judges"].outputs() - self.judged)
        return float(np.square(residual, dtype=np.float64).sum(axis=1).mean())

    def visit(self, name: str, rows: Rows) -> Rows:
        """The layer with its pulses moved, gains and biases solved."""
        return self._expand(self.steps[name]).solve(rows)

    def _expand(self, step: Step) -> MapForm | VectorForm:
        """The outputs' error as a function of a layer's rows, on frames drawn for it."""
        rows, n = self.tape.weights[step.name].shape
        positions = _positions(step)
        if positions == 1 and node_groups(step.node) == 1:
            return self._vector_form(step, self._drawn(max(self.draws * rows, n)))
        widest = max(self.draws * positions * rows, positions * n, self.draws * n)
        chosen = self._drawn(widest)
        return MapForm(self._parts(step, chosen), len(chosen), self.anchor)

    def _vector_form(self, step: Step, chosen: IntArray) -> VectorForm:
        rows, n = self.tape.weights[step.name].shape
        slopes = np.empty((rows, len(chosen), self.draws), dtype=np.float32)
        inputs = np.empty((len(chosen), n))
        own = np.empty((len(chosen), rows), dtype=np.float32)
        residual = np.empty((len(chosen), self.draws), dtype=np.float32)
        done = 0
        for by, columns, error, left in self._parts(step, chosen):
            part = slice(done, done + len(left))
            slopes[:, part] = by[:, :, 0].transpose(2, 0, 1)
            np.multiply(columns.values[0], columns.unit, out=inputs[part], dtype=np.float64)
            own[part], residual[part] = error, left
            done = part.stop
        return VectorForm(slopes, inputs, own, residual, self.anchor)

    def _drawn(self, widest: int) -> IntArray:
        """Frames of which arrays of ``widest`` values each are not too large."""
        count = max(1, min(len(self.x), _VALUES // widest))
        if count == len(self.x):
            return np.arange(count)
        return np.sort(self.rng.choice(len(self.x), count, replace=False))

    def _parts(
        self, step: Step, chosen: IntArray
    ) -> Iterator[tuple[FloatArray, Columns, FloatArray, FloatArray]]:
        for start in range(0, len(chosen), self.chunk):
            yield self._part(step, chosen[start : start + self.chunk])

    def _part(
        self, step: Step, chosen: IntArray
    ) -> tuple[FloatArray, Columns, FloatArray, FloatArray]:
        """Slopes (frames, draws, positions, M), what the rows multiply, the layer's own error
        (frames * positions, M) and the residual (frames, draws)."""
        reference = self.reference[chosen]
        exact = self.exact.sums(step, self.fronts["exact"].at(chosen))
        values = self.tape.resume(self.fronts["fitted"].at(chosen), step.name, keep=True)
        outputs = values[self.tape.output]
        metric = self.metric(reference)
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
        add up to the error on average; of values that are reconstructed, those in which they
        differ most, in which errors of few hidden units lie too."""
        if self.draws >= count:
            return np.broadcast_to(np.eye(count, dtype=np.float32), (frames, count, count))
        if self.principal is not None:
            return np.broadcast_to(self.principal, (frames, *self.principal.shape))
        # The tails of a normal distribution take a logarithm, which differs in last digits.
        found = orthogonal(grid(self.rng.normal(size=(frames, count, self.draws)), 20))
        return np.asarray(found * np.sqrt(count / self.draws), dtype=np.float32)


def sweep_work(tape: Tape) -> int:
    """Multiplications that a sweep takes for a frame and a direction: of all layers behind each
    one."""
    sizes = [
        tape.weights[s.name].size * s.node.size // len(tape.weights[s.name])
        for s in tape.steps
        if s.weighted
    ]
    return max(1, sum(place * size for place, size in enumerate(sizes)))


def _chunk(tape: Tape) -> int:
    """Frames at a time."""
    sizes = [
        max(step.node.size, *(tape.weights[step.name].shape[1:] if step.weighted else (1,)))
        for step in tape.steps
    ]
    return max(_LEAST_CHUNK, _CHUNK_VALUES // max(sizes))


class _Front:
    """Tensors of some frames that a network's steps from one on read."""

    def __init__(self, tape: Tape, x: FloatArray, chunk: int) -> None:
        self.tape, self.name, self.count = tape, tape.steps[0].name, len(x)
        self.chunk = chunk
        self.values = {tape.source: x}

    def at(self, frames: IntArray | slice) -> dict[str, FloatArray]:
        """The tensors of some of the frames."""
        return {name: value[frames] for name, value in self.values.items()}

    def advance(self, name: str) -> None:
        """Goes on to what is read from another step on."""
        needed = self.tape.needed(name)
        found = {n: v for n, v in self.values.items() if n in needed}
        for part in self._parts():
            made = self.tape.resume(self.at(part), self.name, until=name)
            for n in needed & made.keys() - self.values.keys():
                if n not in found:
                    found[n] = np.empty((self.count, *made[n].shape[1:]), dtype=np.float32)
                found[n][part] = made[n]
        self.values = found
        self.name = name

    def outputs(self) -> FloatArray:
        """The network's outputs, (frames, C)."""
        parts = [
            self.tape.resume(self.at(part), self.name)[self.tape.output] for part in self._parts()
        ]
        return np.concatenate(parts).reshape(self.count, -1)

    def _parts(self) -> list[slice]:
        return [slice(i, i + self.chunk) for i in range(0, self.count, self.chunk)]


def _principal(outputs: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """``count`` orthonormal directions in which outputs (frames, C) differ most, (C, count)."""
    centered = outputs - outputs.mean(axis=0, dtype=np.float64)
    found = orthogonal(grid(rng.normal(size=(1, outputs.shape[1], count)), 20))[0]
    for _ in range(_POWERS):
        found = orthogonal(product(centered.T, product(centered, found))[None])[0]
    return found.astype(np.float32)


def orthogonal(vectors: RealArray) -> RealArray:
    """Orthonormal vectors (frames, C, D) that span the same, by the order of Gram and Schmidt."""
    found = np.empty(vectors.shape)
    step = max(1, _TOGETHER // vectors[0].size)
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        q = np.ascontiguousarray(vectors[part].transpose(2, 0, 1))
        for d in range(len(q)):
            for _ in range(2):  # once leaves what rounding does to nearly dependent vectors
                for e in range(d):
                    q[d] -= q[e] * (q[e] * q[d]).sum(axis=1, keepdims=True)
            q[d] /= np.sqrt(np.square(q[d]).sum(axis=1, keepdims=True))
        found[part] = q.transpose(1, 2, 0)
    return found
