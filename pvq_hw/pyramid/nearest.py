"""Pyramid vector quantization: a row w of N weights becomes ``rho * y``, integers, ``sum |y| = K``.

The codeword y is the point of the pyramid with the best cosine with w, the gain rho the factor
that goes with it. See `pvq_hw.pyramid.search` for the method and `pvq_hw.pyramid.enumeration` for
the number of codewords.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.pyramid.enumeration import codeword, index_of, log2_volume, volume
from pvq_hw.pyramid.search import allocate, best_scale

__all__ = [
    "MAX_K",
    "Quantized",
    "codeword",
    "cosine",
    "gain",
    "index_of",
    "log2_volume",
    "nearest",
    "pulses_for",
    "quantize",
    "volume",
]

MAX_K = (1 << 31) - 1
"""Largest K of a unit, in pulses."""

_CHUNK = 1 << 16  # weights that are worked on at a time

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def _matrix(w: npt.ArrayLike, what: str = "Weights") -> npt.NDArray[Any]:
    array = np.asarray(w)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} must be real numbers, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] < 1:
        raise InputError(f"{what} must have the shape (rows, N >= 1), not {array.shape}")
    return array


def _pulses(k: npt.ArrayLike, units: int) -> IntArray:
    array = np.asarray(k)
    if array.dtype.kind not in "iu" or array.shape not in ((), (units,)):
        raise InputError(
            f"K must be an integer or one for each of {units} rows, "
            f"not {array.dtype} {array.tolist() if array.ndim == 0 else array.shape}"
        )
    if array.size and not 1 <= int(array.min()) <= int(array.max()) <= MAX_K:
        wrong = int(array.min()) if int(array.min()) < 1 else int(array.max())
        raise InputError(f"K must be 1 to {MAX_K}, not {wrong}")
    return np.broadcast_to(array.astype(np.int64), (units,))


def nearest(w: npt.ArrayLike, k: npt.ArrayLike) -> IntArray:
    """Codewords with the best cosine with the rows of w: the optimum, to the rounding of float64.

    Equal magnitudes get their pulses from the left. Time O(rows * N log N); besides the result
    up to 8 MB of memory, or 11 rows of float64 where that is more.

    Parameters
    ----------
    w : array (rows, N)
        Finite real numbers.
    k : int or int array (rows,)
        K, 1 to `MAX_K`; may exceed N.

    Returns
    -------
    int64 array (rows, N), ``sum |y| = K`` in each row; all 0 (K = 0) for a row of zeros.

    Raises
    ------
    InputError
        NaN or infinite weights, no columns, K out of range.
    """
    array = _matrix(w)
    rows, n = array.shape
    pulses = _pulses(k, rows)
    y = np.zeros((rows, n), dtype=np.int64)
    step = max(1, _CHUNK // n)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        _nearest(array[part].astype(np.float64, copy=False), pulses[part], y[part])
    return y


def _nearest(w: FloatArray, k: IntArray, y: IntArray) -> None:
    """Puts the codewords of w into y, which holds zeros."""
    a = np.abs(w)
    peak = a.max(axis=1)
    if not np.isfinite(peak).all():
        raise InputError("Weights must be finite numbers, but hold NaN or infinities")
    some = np.flatnonzero(peak)
    if not len(some):
        return
    if len(some) < len(a):
        a, k, peak = a[some], k[some], peak[some]
    np.divide(a, -peak[:, None], out=a)
    # A codeword has at most K nonzero elements, and the best one has them at the largest weights.
    order = np.argsort(a, axis=1, kind="stable")[:, : int(k.max())]
    a = -np.take_along_axis(a, order, axis=1)
    a /= np.sqrt((a * a).sum(axis=1))[:, None]
    best = allocate(a, best_scale(a, k), k)
    y[some[:, None], order] = best
    np.negative(y, out=y, where=w < 0)


def gain(w: npt.ArrayLike, y: npt.ArrayLike, rule: str = "least-squares") -> FloatArray:
    """Gains rho of the rows: ``w`` is about ``rho * y``.

    Parameters
    ----------
    w : array (rows, N)
    y : integer array (rows, N)
    rule : str
        ``"least-squares"``: <w, y> / <y, y>, the smallest error. ``"norm"``: |w| / |y|, which
        keeps the norm of the row.

    Returns
    -------
    float64 array (rows,); 0 for a row of y that is 0.
    """
    weights, codes = _matrix(w), _matrix(y, "Codewords")
    if weights.shape != codes.shape:
        raise InputError(f"Codewords must have the shape {weights.shape}, not {codes.shape}")
    if rule not in ("least-squares", "norm"):
        raise InputError(f"Gain rule must be 'least-squares' or 'norm', not {rule!r}")
    wy, ww, yy = _products(weights, codes)
    above = wy if rule == "least-squares" else np.sqrt(ww * yy)
    return np.divide(above, yy, out=np.zeros(len(yy)), where=yy > 0)


def cosine(w: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
    """Cosines between the rows of w and y, float64 (rows,); 0 where either is 0."""
    wy, ww, yy = _products(_matrix(w), _matrix(y, "Codewords"))
    norm = np.sqrt(ww) * np.sqrt(yy)
    return np.divide(wy, norm, out=np.zeros(len(norm)), where=norm > 0)


def _products(
    w: npt.NDArray[Any], y: npt.NDArray[Any]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """<w, y>, <w, w> and <y, y> of the rows, in float64, a chunk of rows at a time."""
    out = np.empty((3, len(w)))
    step = max(1, _CHUNK // w.shape[1])
    for start in range(0, len(w), step):
        part = slice(start, start + step)
        a, b = w[part].astype(np.float64), y[part].astype(np.float64)
        for line, product in zip(out, (a * b, a * a, b * b), strict=True):
            line[part] = product.sum(axis=1)
    return out[0], out[1], out[2]


def pulses_for(n: int, ratio: float) -> int:
    """K for N weights at about N/K = ``ratio``: rounded, at least 1."""
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float, np.integer, np.floating)):
        raise InputError(f"The ratio N/K must be a number, not {ratio!r}")
    if not (np.isfinite(ratio) and ratio > 0):
        raise InputError(f"The ratio N/K must be greater than 0, not {ratio}")
    k = max(1, int(min(n / float(ratio), 2.0 * MAX_K) + 0.5))
    if k > MAX_K:
        raise InputError(f"K must be 1 to {MAX_K}: N/K = {ratio} is too small for N = {n}")
    return k


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized weight matrix: ``w`` is about ``gain * y``, group by group.

    Parameters
    ----------
    y : int64 array (M, N)
    gain : float64 array (M, G)
        Gain of group g of each row, its columns ``g*N/G .. (g+1)*N/G - 1``; G is 1 for rows.
        A whole layer has one gain, repeated for its rows.
    """

    y: IntArray
    gain: FloatArray

    @property
    def weights(self) -> FloatArray:
        """``gain * y``, float64 (M, N)."""
        return np.repeat(self.gain, self.y.shape[1] // self.gain.shape[1], axis=1) * self.y

    @property
    def n_over_k(self) -> float:
        """Mean N/K: weights / pulses."""
        return self.y.size / max(1, int(np.abs(self.y).sum()))


def quantize(
    w: npt.ArrayLike,
    *,
    k: npt.ArrayLike | None = None,
    ratio: float | None = None,
    unit: str | int = "row",
    rule: str = "least-squares",
) -> Quantized:
    """Quantizes a weight matrix to the pyramid, without calibration.

    Parameters
    ----------
    w : array (M, N)
    k, ratio : exactly one of them
        ``k``: pulses of each unit, a scalar or one per unit (rows in order, groups of a row in
        order). ``ratio``: N/K, the weights of the unit per pulse.
    unit : "row", "layer" or int
        What one codeword covers: a row, the whole matrix, or groups of so many columns within
        each row; the size of a group must divide N.
    rule : str
        Of the gain, see `gain`.
    """
    array = _matrix(w)
    rows, n = array.shape
    if rows < 1:
        raise InputError(f"Weights must have at least one row, not the shape {array.shape}")
    if isinstance(unit, str):
        if unit not in ("row", "layer"):
            raise InputError(f"Unit must be 'row', 'layer' or a group size, not {unit!r}")
        size = n if unit == "row" else rows * n
    else:
        size = int(unit)
        if isinstance(unit, bool) or size < 1 or n % size:
            raise InputError(f"Group size must be a divisor of N = {n}, not {unit}")
    if (k is None) == (ratio is None):
        raise InputError("Give K or the ratio N/K, and not both")
    units = array.reshape(-1, size)
    if k is None:
        assert ratio is not None
        k = pulses_for(size, ratio)
    y = nearest(units, k)
    rho = gain(units, y, rule)
    per_row = np.full((rows, 1), rho[0]) if unit == "layer" else rho.reshape(rows, -1)
    return Quantized(y=y.reshape(rows, n), gain=per_row)
