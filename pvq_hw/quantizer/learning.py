"""Gains and biases of all layers learned together, against the network's outputs.

What codes leave of an error is partly one of scale, which later layers can make up for. Pulses
stay where they are. Gradients are those of the quantized network, straight through the rounding of
activations; steps are Adam's (D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization",
arXiv 1412.6980, algorithm 1), in parts of each gain and of each output's deviation.

All matrix products are exact (`pvq_hw.arith.exact`), so that the numbers are the same on every
machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.metric import output_metric

__all__ = ["learn"]

FloatArray = npt.NDArray[np.float32]
RealArray = npt.NDArray[np.float64]

_BATCH = 50
_STEPS = 100
_EPOCHS = 20  # at most
_LEAST = 0.5  # of these steps: with fewer, more is lost on the way than they bring
WORK = 7e10  # multiplications of all steps, forwards and backwards
RATE = 0.01  # of the first step, falling to 0; parts of a gain and of an output's deviation
_MEAN, _SQUARE = 0.9, 0.99  # how slowly averages of gradients and of their squares change
_JUDGES = 0.2  # part of the frames, up to 500, on which the true error must fall
_LEAST_FRAMES = 100  # with fewer, nothing is learned
_CHECKS = 4  # times that it is looked at on the way
_RANGE = 0.5, 2.0  # of a learned gain, in parts of what it was


def learn(
    tape: Tape,
    rows: Mapping[str, Rows],
    x: FloatArray,
    *,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[dict[str, Rows], list[float]]:
    """The layers with gains and biases that make the outputs' error least.

    Parameters
    ----------
    tape : Tape
        The quantized network: its lattices are set, and all weights.
    rows : mapping of step name to Rows
        Of layers with one gain a row, whose gains and biases may change.
    x : float32 array (frames, \\*shape)
        Inputs, as the float model sees them.

    Returns
    -------
    (rows, errors): those of the least mean error on frames that nothing was learned from, and
    that error at the start and at each look on the way. With fewer than 100 frames, or where a
    step takes so long that too few would be made, the rows are as they came.
    """
    count = _steps(tape, len(x))
    if len(x) < _LEAST_FRAMES or not count or not rows:
        return dict(rows), []
    learner = _Learner(tape, rows, x, seed)
    best, errors = dict(rows), [learner.error()]
    for done in range(count):
        learner.step(1 - done / count)
        if (done + 1) * _CHECKS % count < _CHECKS:
            errors.append(learner.error())
            if errors[-1] <= min(errors):
                best = learner.rows()
        if progress:
            progress("all layers", (done + 1) / count)
    for name, layer in best.items():
        layer.put(tape, name)
    return best, errors


def _steps(tape: Tape, frames: int) -> int:
    """How many steps are made; 0 where what they take leaves too few."""
    macs = sum(tape.weights[s.name].shape[1] * s.node.size for s in tape.steps if s.weighted)
    wanted = max(_CHECKS, min(_STEPS, _EPOCHS * frames // _BATCH))
    count = min(wanted, int(WORK / (3 * _BATCH * macs)))
    return count if count >= _LEAST * wanted else 0


class _Learner:
    """Gains and biases on their way."""

    def __init__(self, tape: Tape, rows: Mapping[str, Rows], x: FloatArray, seed: int) -> None:
        self.tape, self.start, self.rng = tape, rows, np.random.default_rng(seed)
        for name, layer in rows.items():
            layer.put(tape, name)
        order = self.rng.permutation(len(x))
        judges = min(500, int(_JUDGES * len(x)))
        self.x, self.judges = x[order[judges:]], x[order[:judges]]
        exact = Tape(tape.steps, tape.source)
        self.wanted = exact.outputs(self.x, _BATCH)
        self.judged = exact.outputs(self.judges, _BATCH)
        self.metric = output_metric(tape.steps[-1], self.wanted, self.x)
        self.outputs = {step.name: step.output for step in tape.steps if step.name in rows}
        values = tape.forward(self.x[:_BATCH])
        self.unit = {n: _deviation(values[t]) for n, t in self.outputs.items()}
        # Parts of gains and of units of biases that were learned.
        self.found = {n: np.zeros((2, len(layer.y))) for n, layer in rows.items()}
        self.mean = {n: np.zeros_like(v) for n, v in self.found.items()}
        self.square = {n: np.zeros_like(v) for n, v in self.found.items()}
        self.weights = 1.0, 1.0  # of what the averages began with
        self.left = np.zeros(0, dtype=np.int64)

    def error(self) -> float:
        """Mean weighed error of the outputs on the frames it is judged by."""
        off = self.tape.outputs(self.judges, _BATCH) - self.judged
        weighed = self.metric(self.judged).weigh(off)
        return float(np.square(weighed, dtype=np.float64).sum(axis=1).mean())

    def rows(self) -> dict[str, Rows]:
        """The layers as they are now."""
        result = {}
        for name, layer in self.start.items():
            gain, bias = self.found[name]
            result[name] = replace(
                layer,
                gain=layer.gain * (1 + gain[:, None]),
                bias=layer.bias + bias * self.unit[name],
            )
        return result

    def step(self, part: float) -> None:
        """One step on the next frames, at a part of the first rate."""
        from pvq_hw.quantizer import kernels

        if len(self.left) < min(_BATCH, len(self.x)):
            self.left = self.rng.permutation(len(self.x))
        chosen, self.left = np.split(self.left, [_BATCH])
        values = self.tape.forward(self.x[chosen], keep=True)
        outputs, wanted = values[self.tape.output], self.wanted[chosen]
        metric = self.metric(wanted)
        seeds = metric.weigh_back(metric.weigh(outputs.reshape(wanted.shape) - wanted))
        slopes = self.tape.backward(values, {self.tape.output: seeds.reshape(outputs.shape)})
        self.weights = self.weights[0] * _MEAN, self.weights[1] * _SQUARE
        for name, tensor in self.outputs.items():
            layer, unit, found = self.start[name], self.unit[name], self.found[name]
            g = slopes[name].reshape(-1, len(layer.y))
            # Where a slope is left, an output is its sum but for the rounding.
            z, bias = values[tensor].reshape(g.shape), self.tape.biases[name]
            by = kernels.slope_sums(np.ascontiguousarray(g), np.ascontiguousarray(z), bias)
            by[0] /= 1 + found[0]
            by[1] *= unit
            self._adam(name, by, RATE * part)
        for name, now in self.rows().items():
            now.put(self.tape, name)

    def _adam(self, name: str, by: RealArray, rate: float) -> None:
        mean, square, found = self.mean[name], self.square[name], self.found[name]
        mean += (1 - _MEAN) * (by - mean)
        square += (1 - _SQUARE) * (np.square(by) - square)
        size = np.sqrt(square / (1 - self.weights[1]))
        top = float(size.max(initial=0.0))
        found -= rate * (mean / (1 - self.weights[0])) / (size + 1e-8 * top + 1e-300)
        np.clip(found[0], _RANGE[0] - 1, _RANGE[1] - 1, out=found[0])


def _deviation(values: FloatArray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) or 1.0
