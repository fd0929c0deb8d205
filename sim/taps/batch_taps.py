"""What is watched where frames come and go one after the other: batches, and their results."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.batch import is_serial, last_frame_format
from pvq_hw.engine.core import CoreBase
from sim.backends.design import BATCHES
from sim.taps.graph_taps import Tap

__all__ = ["batch_taps", "deal"]


def batch_taps(specs: Sequence[CoreBase]) -> list[CoreBase | Tap]:
    """The streams of a chain: every core's, or all but the last's, batches and results."""
    if not is_serial(specs):
        return list(specs)
    last = specs[-1]
    number = last_frame_format(last.frames)
    return [
        *specs[:-1],
        Tap(BATCHES, 1, number, 1, number, 1),
        Tap(last.name, last.n, last.x, last.rows, last.out, last.words),
    ]


def deal(
    outputs: Mapping[str, npt.NDArray[np.int64]], frames: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Outputs without those of a batch's parts that no frame came for.

    Parameters
    ----------
    outputs : mapping of int64 array (frames, rows)
        By name; `BATCHES` has the number of each batch's last frame, the results come last.
    frames : int
        V.
    """
    if BATCHES not in outputs:
        return dict(outputs)
    keep = (np.arange(frames) <= outputs[BATCHES].reshape(-1, 1)).ravel()
    *inner, results = (name for name in outputs if name != BATCHES)
    dealt = {name: outputs[name][keep[: len(outputs[name])]] for name in inner}
    return dealt | {results: outputs[results]}
