"""What a network loses on inputs like those that it is judged by, of which there may be few.

Forty inputs without a changed answer say little: at a change in twenty, one set of forty in eight
has none. Their outputs say more. How far quantization moves the outputs of one input is about as
likely for any other, so each input's float outputs are moved as those of many others were, and what
becomes of all these answers is counted. The fewer inputs there are, the further they are moved:
calibration inputs were often trained on, and are answered with more margin than what comes later.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.evaluate.metrics import answers

__all__ = ["cautious_loss", "safety"]

_SAFETY = 4.0  # of one input, beyond 1; it falls as the root of their number
_SHIFTS = 128  # inputs whose moves each input is given

Array = npt.NDArray[Any]


def safety(frames: int) -> float:
    """How many times as far as measured outputs are moved."""
    return 1 + _SAFETY / math.sqrt(frames)


def cautious_loss(
    exact: Array, ours: Array, y: Array, answer: Callable[[Array], Array] = answers
) -> float:
    """Points of right answers that are lost, no fewer than were counted less their standard error:
    a handful of changed answers among a hundred says less than all their outputs.

    Parameters
    ----------
    exact, ours : array (frames, outputs)
        Of the float model and of the integer network.
    y : int array (frames,)
        Class numbers; where there are no labels, the float model's answers.
    answer : callable
        Outputs (frames, outputs) to class numbers.
    """
    frames, y = len(exact), y.reshape(-1)
    was = answer(exact) == y
    moved = safety(frames) * (ours - exact)
    shifts = np.unique(np.linspace(0, frames - 1, min(frames, _SHIFTS)).astype(np.int64))
    kept = sum(int((answer(exact + np.roll(moved, s, axis=0)) == y).sum()) for s in shifts)
    lost = was.astype(np.int64) - (answer(ours) == y)
    counted, error = lost.sum(), math.sqrt(frames * lost.var())
    return 100.0 * max(float(counted) - error, int(was.sum()) - kept / len(shifts)) / frames
