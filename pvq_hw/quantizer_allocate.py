"""Budgets of pulses: how many each row of each layer gets."""

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["spread", "uniform_k"]

IntArray = npt.NDArray[np.int64]


def uniform_k(rows: int, columns: int, ratio: float, multiple: int = 1) -> IntArray:
    """The same K for every row: ``columns / ratio`` rounded down to a multiple, at least one.

    Raises InputError when ``ratio`` leaves no pulse to a row, since K must be at least 1.
    """
    if not (np.isfinite(ratio) and ratio > 0):
        raise InputError(f"The ratio N/K must be a positive number, not {ratio}")
    k = int(columns / ratio + 1e-9) // multiple * multiple
    return np.full(rows, max(k, multiple), dtype=np.int64)


def spread(weight: npt.NDArray[np.float64], total: int, multiple: int = 1) -> IntArray:
    """Splits ``total`` pulses in proportion to ``weight`` (M,), in multiples, at least one each.

    Largest remainders get what rounding leaves, earlier rows first; the sum is ``total`` rounded
    down to a multiple, or ``M * multiple`` where that is more.
    """
    rows = len(weight)
    units = max(total // multiple, rows)
    share = np.maximum(np.asarray(weight, dtype=np.float64), 0.0)
    share = share / share.sum() if share.sum() > 0 else np.full(rows, 1 / rows)
    ideal = 1 + share * (units - rows)
    k = np.floor(ideal).astype(np.int64)
    left = units - int(k.sum())
    order = np.argsort(-(ideal - k), kind="stable")
    k[order[:left]] += 1
    return k * multiple
