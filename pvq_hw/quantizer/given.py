"""Codes that a model's weights already are: every row a gain times whole numbers.

Fine-tuning writes such weights (`pvq_hw.train`). They are read back exactly: the codeword of a
row, whatever its K, and its gain, for files that hold float32.
"""

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["given_codes", "whole_rows"]

_MOST_DIVISIONS = 128  # the smallest weight of a row is at most that many pulses
_SAMPLE = 32  # columns by which most rows that fit nothing are told
_MOST_PULSES = 1 << 20  # of one weight
_TOLERANCE = 4e-7  # relative: float32 rounds by 6e-8, the weight and its row's gain

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def given_codes(w: npt.ArrayLike, name: str) -> tuple[IntArray, FloatArray]:
    """Codewords and gains of weights that are ``gain * y``.

    Parameters
    ----------
    w : array (M, N)
    name : str
        Of the layer, for errors.

    Returns
    -------
    y : int64 array (M, N)
        Without a common divisor in any row; 0 for rows of zeros.
    gain : float64 array (M, 1)
        Least squares.

    Raises
    ------
    InputError
        A row that is no multiple of whole numbers.
    """
    y, gain, left = whole_rows(np.asarray(w, dtype=np.float64), name)
    if left.size:
        raise InputError(
            f"Layer {name!r}: row {left[0]} must be a gain times whole numbers to be taken as "
            "given; pvq-hw finetune writes such weights"
        )
    return y, gain


def whole_rows(weights: FloatArray, name: str = "") -> tuple[IntArray, FloatArray, IntArray]:
    """The same for the rows where that can be: ``y``, ``gain``, and which rows are left, whose
    codes are 0."""
    a = np.abs(weights)
    if not np.isfinite(a).all():
        raise InputError(f"Layer {name!r} must have finite weights, but holds NaN or inf")
    least = np.where(a > 0, a, np.inf).min(axis=1, initial=np.inf)
    y = np.zeros(a.shape, dtype=np.int64)
    left = np.flatnonzero(np.isfinite(least))
    for parts in range(1, _MOST_DIVISIONS + 1):
        if not left.size:
            break
        some = left[_fits(a[left, :_SAMPLE], parts / least[left])[1]]
        near, fits = _fits(a[some], parts / least[some])
        y[some[fits]] = near[fits].astype(np.int64)
        left = np.setdiff1d(left, some[fits], assume_unique=True)
    y = np.where(weights < 0, -y, y)
    square = np.square(y).sum(axis=1)
    gain = (weights * y).sum(axis=1) / np.maximum(square, 1)
    return y, gain[:, None], left


def _fits(a: FloatArray, by: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The whole numbers nearest to ``a * by``, and in which rows all are near enough."""
    ratio = a * by[:, None]
    near = np.rint(np.minimum(ratio, _MOST_PULSES))
    fits = np.abs(ratio - near) <= _TOLERANCE * np.maximum(ratio, 1.0)
    return near, np.asarray(fits.all(axis=1))
