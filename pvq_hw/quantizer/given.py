"""Codes that a model's weights already are: every row a gain times whole numbers.

Fine-tuning writes such weights (`pvq_hw.train`). They are read back exactly: the codeword of a
row, whatever its K, and its gain, for files that hold float32.
"""

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["given_codes"]

_MOST_DIVISIONS = 64  # the smallest weight of a row is at most that many pulses
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
    weights = np.asarray(w, dtype=np.float64)
    a = np.abs(weights)
    if not np.isfinite(a).all():
        raise InputError(f"Layer {name!r} must have finite weights, but holds NaN or inf")
    least = np.where(a > 0, a, np.inf).min(axis=1, initial=np.inf)
    y = np.zeros(a.shape, dtype=np.int64)
    left = np.flatnonzero(np.isfinite(least))
    for parts in range(1, _MOST_DIVISIONS + 1):
        if not left.size:
            break
        ratio = a[left] * (parts / least[left])[:, None]
        near = np.rint(np.minimum(ratio, _MOST_PULSES))
        fits = (np.abs(ratio - near) <= _TOLERANCE * np.maximum(ratio, 1.0)).all(axis=1)
        y[left[fits]] = near[fits].astype(np.int64)
        left = left[~fits]
    if left.size:
        raise InputError(
            f"Layer {name!r}: row {left[0]} must be a gain times whole numbers to be taken as "
            "given; pvq-hw finetune writes such weights"
        )
    y = np.where(weights < 0, -y, y)
    square = np.square(y).sum(axis=1)
    gain = (weights * y).sum(axis=1) / np.maximum(square, 1)
    return y, gain[:, None]
