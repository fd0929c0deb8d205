"""How much the outputs feel the sums of a layer's rows, window position by window position.

A row's error matters only where the sum is passed on and where the outputs depend on it; a least
squares fit to all positions alike spends pulses on sums that a ReLU cuts off. The weights are the
squares of the float model's derivatives, of random combinations of the outputs: one pass backwards
gives those of all layers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith import exact
from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.metric import output_metric

__all__ = ["Felt", "Moved", "Weighed", "felt"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
RealArray = npt.NDArray[np.float64]

POSITIONS = 12_000  # of a layer that are looked at
_DRAWS = 4  # random combinations of the outputs of a frame
WORK = 1e10  # multiplications of all passes
LEAST_FRAMES = 100
_CHUNK = 16
_OWN = 1.0  # weight of all positions alike beside that of what the outputs feel
_DAMPING = 0.03  # pull to the original weights, as a part of H's mean diagonal
ROUNDS = 2  # of moves, with gain and bias solved after each
_COLUMN_POSITIONS = 1500  # that the columns of a row's H are made of


@dataclass(frozen=True, eq=False)
class Felt:
    """A sample of a layer's window positions, and what the outputs feel of them.

    Parameters
    ----------
    positions : int64 array (P,)
        Among all of them, ``frame * positions of a frame + position``; rising.
    weight : float32 array (P, M)
        Of every row, 1 on average over the positions.
    """

    positions: IntArray
    weight: FloatArray


def felt(steps: tuple[Step, ...], x: FloatArray, seed: int = 0) -> dict[str, Felt]:
    """What outputs feel of every layer with weights, by its name.

    Parameters
    ----------
    steps : tuple of Step
    x : float32 array (frames, \\*shape)
        Inputs; fewer frames are looked at where all would take too long.
    """
    tape, rng = Tape(steps, steps[0].inputs[0]).in_single(), np.random.default_rng(seed)
    weighted = [step for step in steps if step.weighted]
    macs = sum(s.weight.size * s.node.size // len(s.weight) for s in weighted)
    count = min(len(x), max(LEAST_FRAMES, int(WORK / (3 * _DRAWS * macs))))
    frames = np.linspace(0, len(x) - 1, count).astype(np.int64)
    places = {s.name: s.node.size // len(s.weight) for s in weighted}
    chosen = {}
    for name, size in places.items():
        total = count * size
        some = rng.choice(total, min(total, POSITIONS), replace=False)
        chosen[name] = np.sort(some)
    metric_of = output_metric(steps[-1], tape.outputs(x[frames], _CHUNK), x)
    found: dict[str, list[FloatArray]] = {name: [] for name in places}
    for start in range(0, count, _CHUNK):
        values = tape.forward(x[frames[start : start + _CHUNK]], keep=True)
        shape = values[tape.output].shape
        outputs = values[tape.output].reshape(shape[0], -1)
        metric = metric_of(outputs)
        squares: dict[str, FloatArray] = {}
        for _ in range(_DRAWS):
            signs = rng.choice(np.array([-1, 1], dtype=np.float32), outputs.shape)
            slopes = tape.backward(values, {tape.output: metric.weigh_back(signs).reshape(shape)})
            for name in places:
                square = np.square(slopes[name])
                squares[name] = squares[name] + square if name in squares else square
        for name, size in places.items():
            flat = squares[name].reshape(shape[0] * size, -1)
            at = chosen[name] - start * size
            found[name].append(flat[at[(at >= 0) & (at < len(flat))]])
    result = {}
    for name, parts in found.items():
        weight = np.concatenate(parts)
        mean = weight.mean(axis=0, dtype=np.float64)
        weight /= np.where(mean > 0, mean, 1).astype(np.float32)
        frame, at = np.divmod(chosen[name], places[name])
        result[name] = Felt(frames[frame] * places[name] + at, weight)
    return result


@dataclass(frozen=True)
class Moved:
    """A row's gain and bias after its moves, and the error that they leave, but for a constant."""

    gain: float
    bias: float
    error: float


class Weighed:
    """Sums of a group's rows that are fitted where the outputs feel them, and a little elsewhere.

    Parameters
    ----------
    x : float32 array (positions, N)
        What the rows multiply, whole numbers.
    weight : float32 array (positions, M)
        How much it matters.
    columns, target : float32 arrays (positions, N) and (positions, M)
        The same at other positions, all of which count alike, and what the sums should be.
    """

    def __init__(
        self, x: FloatArray, weight: FloatArray, columns: FloatArray, target: FloatArray
    ) -> None:
        self.x, self.weight = x, np.ascontiguousarray(weight.T)
        self.most = max(float(x.max(initial=0)), -float(x.min(initial=0)))
        self.root = np.sqrt(self.weight)
        self.part = len(x) / len(columns)  # so that all together weigh as much as these
        whole = columns.astype(np.float64)
        self.gram, self.sums = self.part * (whole.T @ whole), self.part * whole.sum(axis=0)
        heavy = exact.grid(self.weight, exact.grid_bits(len(x)))
        self.mean = heavy @ x + _OWN * self.sums
        squares = exact.grid(np.square(x, dtype=np.float64), exact.grid_bits(len(x)))
        self.square = heavy @ squares + _OWN * np.diag(self.gram)
        self.aim = exact.product(target.T, whole) * self.part
        self.total = self.part * target.sum(axis=0, dtype=np.float64)
        self.mass = heavy.sum(axis=1) + _OWN * len(x)

    def move(
        self,
        m: int,
        starts: IntArray,
        gain: float,
        bias: float,
        goals: FloatArray,
        goal: RealArray,
        closed: npt.NDArray[np.bool_],
        banks: int,
        gap: int,
        room: RealArray,
    ) -> list["Moved"]:
        """Moves the pulses of row m, in place, from each of some codewords.

        Parameters
        ----------
        starts : int64 array (starts, N)
        gain, bias : float
            Of sums of whole numbers.
        goals : float32 array (positions,)
            What the sums should be where they are felt.
        goal : float64 array (N,)
            The original weights, for whole numbers.
        closed : bool array (N,)
            Where no pulse may be put.
        banks, gap : int
            See `pvq_hw.quantizer.kernels`.
        room : float64 array (N, N)
            Is overwritten.

        Gain and bias are solved for the new pulses.
        """
        from pvq_hw.quantizer import kernels

        form = kernels.row_form(
            self.weight[m], self.x, self.gram, self.sums, self.mean[m], self.square[m],
            float(self.mass[m]), _OWN, _DAMPING, _COLUMN_POSITIONS,
        )  # fmt: skip
        place = np.full(starts.shape[1], -1)
        single = self.most * int(np.abs(starts).sum(axis=1).max()) <= 1 << exact.SINGLE
        kind = np.float32 if single else np.float64
        sums = self.x.astype(kind, copy=False) @ starts.T.astype(kind)  # of whole numbers, so exact
        off = [gain * s.astype(np.float64) + bias - goals for s in sums.T]
        return [
            self._moved(
                m, y, gain, bias, by, goal, form, closed=closed, banks=banks, gap=gap, room=room,
                place=place,
            )
            for y, by in zip(starts, off, strict=True)
        ]  # fmt: skip

    def _moved(
        self, m: int, y: IntArray, gain: float, bias: float, off: RealArray, goal: RealArray,
        form: Any, *, closed: npt.NDArray[np.bool_], banks: int, gap: int, room: RealArray,
        place: IntArray,
    ) -> "Moved":  # fmt: skip
        """`move` from one codeword, whose sums are ``off`` their goals; ``form`` is the row's, of
        `kernels.row_form`, and columns of H that are computed stay in ``room``, at ``place``."""
        from pvq_hw.quantizer import kernels

        root = self.root[m, :, None]
        residual = (root[:, 0] * off).astype(np.float32)[:, None]
        for _ in range(ROUNDS):
            used = np.flatnonzero(y)
            pull = gain * (self.gram[:, used] * y[used]).sum(axis=1) + bias * self.sums
            total = gain * float((self.sums[used] * y[used]).sum())
            total += bias * len(self.x) - self.total[m]
            gain, shift = kernels.refine_row(
                y, gain, root, self.weight[m], residual, self.x, self.gram, self.sums,
                self.mean[m], float(self.mass[m]), _OWN, pull - self.aim[m], float(total), goal,
                form, closed, banks, gap, room, place,
            )  # fmt: skip
            bias += shift
        return Moved(gain, bias, self._error(m, y, gain, bias, residual, goal))

    def _error(
        self,
        m: int,
        y: IntArray,
        gain: float,
        bias: float,
        residual: FloatArray,
        goal: RealArray,
    ) -> float:
        """What the moves of row m make small, but for a constant."""
        used = np.flatnonzero(y)
        v = gain * y[used]
        own = float((v * (self.gram[np.ix_(used, used)] * v).sum(axis=1)).sum())
        own += 2 * bias * float((self.sums[used] * v).sum()) + bias * bias * len(self.x)
        own -= 2 * (float((self.aim[m, used] * v).sum()) + bias * float(self.total[m]))
        level = np.maximum(self.square[m] - np.square(self.mean[m]) / self.mass[m], 0).mean()
        drawn = _DAMPING * float(level) * float(np.square(gain * y - goal).sum())
        return float(np.square(residual, dtype=np.float64).sum()) + _OWN * own + drawn
