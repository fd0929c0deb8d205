"""How good outputs are: share of right answers, or error of a regression."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["answers", "is_classification", "score"]


def is_classification(y: npt.NDArray[Any], outputs: int) -> bool:
    """Whether labels are class numbers of a network with that many outputs."""
    return y.ndim == 1 and y.dtype.kind in "iub" and outputs > 1


def answers(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Index of the largest output of every frame, the first among equals; (frames,)."""
    return np.asarray(values.reshape(len(values), -1).argmax(axis=1), dtype=np.int64)


def score(values: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[str, float]:
    """Name and value of the metric that fits the labels.

    ``values`` are real outputs (frames, outputs). Class numbers give ``("accuracy", percent)``,
    anything else ``("rmse", root of the mean square error)``.
    """
    flat = values.reshape(len(values), -1)
    if len(y) != len(flat):
        raise InputError(f"Labels must be {len(flat)}, one per frame, not {len(y)}")
    if is_classification(y, flat.shape[1]):
        if y.min(initial=0) < 0 or y.max(initial=0) >= flat.shape[1]:
            raise InputError(f"Labels must be 0 to {flat.shape[1] - 1}, the network's outputs")
        return "accuracy", 100.0 * float(np.mean(answers(flat) == y))
    target = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    if target.shape != flat.shape:
        raise InputError(f"Targets must have {flat.shape[1]} values per frame, not {y.shape[1:]}")
    return "rmse", float(np.sqrt(np.mean((flat - target) ** 2)))
