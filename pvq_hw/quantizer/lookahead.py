"""Moves of a layer, as it is made, against the outputs of a network that is half quantized.

The layers before it are codes already; those behind it still have the float model's weights. What
the layer does to the outputs is expanded as in a sweep (`pvq_hw.quantizer.refine`), so its rows
make up for each other's errors, and for those that reach it, where the outputs ask for it; later
layers are then fitted to what it gives. A large anchor keeps each row near its own sums, since the
numbers that calibration inputs give are few beside the weights. Where they are many, a sweep does
the same and more.
"""

import numpy as np
import numpy.typing as npt

from pvq_hw.network.layer import TensorSpec
from pvq_hw.quantizer.autodiff import Lattice, Tape
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import Step
from pvq_hw.quantizer.refine import (
    ANCHOR_MOST,
    Visits,
    fitting_anchor,
    judge_count,
    sweep_work,
)
from pvq_hw.quantizer.source import Source

__all__ = ["Lookahead"]

FloatArray = npt.NDArray[np.float32]

_ANCHOR = 30.0  # weight of the layer's own error
_LEAST_FRAMES = 100
_DIRECTIONS = 4, 4  # among a frame's outputs, at least and at most
WORK = 3e10  # multiplications of all layers' slopes


class Lookahead:
    """The network while its layers become codes, first to last.

    Parameters
    ----------
    steps : tuple of Step
    source : Source
    x : float32 array (frames, \\*shape)
        Inputs, as the float model sees them. A fifth of them, up to 500, judges.
    seed : int
    """

    @classmethod
    def where_worth(
        cls, steps: tuple[Step, ...], source: Source, x: FloatArray, seed: int
    ) -> "Lookahead | None":
        """One, if there are 100 inputs, too few for sweeps over such a network, and a network small
        enough that all of them are looked at."""
        fitted, tape = len(x) - judge_count(len(x)), Tape(steps, source.spec.name)
        if len(x) < _LEAST_FRAMES:
            return None
        numbers = fitted * min(_DIRECTIONS[1], steps[-1].node.size)
        if fitting_anchor(tape, numbers) <= ANCHOR_MOST or sweep_work(tape) * numbers > WORK:
            return None
        return cls(steps, source, x, seed)

    def __init__(self, steps: tuple[Step, ...], source: Source, x: FloatArray, seed: int) -> None:
        self.tape, self.parts = Tape(steps, source.spec.name).in_single(), source.parts
        inputs = x.astype(np.float32)
        if not self.parts:  # several inputs are rounded where they are taken
            self.tape.lattices[source.spec.name] = Lattice.of(source.spec)
            inputs = self.tape.lattices[source.spec.name].round(inputs)
        self.visits = Visits(self.tape, inputs, seed, directions=_DIRECTIONS, work=WORK)
        self.visits.anchor = _ANCHOR

    def moved(self, name: str, rows: Rows) -> Rows:
        """The rows of the next layer with pulses, gains and biases that make the outputs' error
        on the judging inputs smaller, or as they are where none do."""
        rows.put(self.tape, name)
        self.visits.advance(name)
        before = self.visits.error()
        found = self.visits.visit(name, rows)
        found.put(self.tape, name)
        return found if self.visits.error() < before else rows

    def made(self, step: Step, rows: Rows | None, output: TensorSpec) -> None:
        """Takes over a layer as it has become: its codes, if it has any, and its output."""
        if rows is not None:
            rows.put(self.tape, step.name)
        if not step.node.keeps or step.output in self.parts:
            self.tape.lattices[step.output] = Lattice.of(output)
