"""Tables for functions of one value: the width and scale that they read, and their entries.

Both are chosen by the error behind the function: where that is flat, values may saturate; where
it is steep, they must be fine.
"""

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.lines import lines_near
from pvq_hw.errors import InputError
from pvq_hw.model.curve import Curve
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.table import MOST_ENTRIES, Table
from pvq_hw.quantizer.scales import error_minimizing_scale, round_to_lattice, tensor_spec

__all__ = ["ENTRY_BITS", "table_entries", "table_input", "table_layer"]

FloatArray = npt.NDArray[np.float64]

ENTRY_BITS = range(8, 13)
"""Widths that a table may read."""

_BLIND_BITS = 10  # without calibration data
_ENOUGH = 1.25  # times the error of the widest table
_CLIPS = 2.0 ** -np.arange(0, 5.01, 0.25)
_SAMPLES = 1 << 13
_POWERS = 2.0 ** np.arange(1, -6, -1)  # of the output's scale
_SIZES = (1e-3, 0.37, 5.1, 1e4)
_ALIKE = 0.15


def table_input(
    name: str,
    shape: tuple[int, ...],
    curve: Curve,
    real: npt.NDArray[np.floating] | None,
    bits: int,
    least: float,
    ranges: dict[str, tuple[float, float]],
    width: int | None = None,
) -> TensorSpec:
    """Format and scale of a tensor that only a table reads.

    The narrowest of 8 to 12 bits with which the rounded function is off by at most 1.25 times as
    much (squares) as with 12; the scale that makes it least.

    Parameters
    ----------
    real : float array (positions, C), optional
        Values of the tensor; without, the scale covers its range in ``ranges`` with 10 bits.
    bits : int
        Of the function's rounded values.
    least : float
        The smallest scale that the multipliers allow.
    width : int, optional
        Of the format, where it is given.
    """
    widths = [b for b in ENTRY_BITS if curve.channels << b <= MOST_ENTRIES and width in (None, b)]
    if not widths:
        raise InputError(
            f"Layer {name!r} is followed by a function with constants for {curve.channels} "
            f"channels; tables hold {MOST_ENTRIES >> ENTRY_BITS[0]} at most: share constants"
        )
    if real is None:
        fmt = IntFormat(min(_BLIND_BITS, widths[-1]), True)
        found = tensor_spec(name, shape, fmt, None, ranges)
        return TensorSpec(name, shape, fmt, max(least, found.scale))
    rows = real.reshape(-1, real.shape[-1])
    count = max(1, _SAMPLES // rows.shape[1])
    z = rows[:: -(-len(rows) // count)].astype(np.float64)
    wanted = curve(z)
    if not np.isfinite(wanted).all():
        wanted = np.nan_to_num(wanted)  # what can't be is refused with the table's entries
    signed = bool(z.min(initial=0.0) < 0)
    goal = IntFormat(bits, bool(wanted.min(initial=0.0) < 0))
    step = error_minimizing_scale(wanted, goal)
    top = float(np.abs(z).max(initial=0.0)) or 1.0
    tried: list[tuple[float, IntFormat, float]] = []
    lines = wanted.any() and _is_two_lines(curve)  # values that are all 0 have no step
    powers = step * _POWERS[step * _POWERS >= least] if lines else np.zeros(0)
    for width in widths:
        fmt = IntFormat(width, signed)
        scales = np.unique(np.maximum(top / fmt.max * _CLIPS, least))
        scales = powers if powers.size else scales
        errors = [_error(curve, z, wanted, fmt, float(s), goal, step) for s in scales]
        best = int(np.argmin(errors))
        tried.append((errors[best], fmt, float(scales[best])))
    limit = _ENOUGH * min(error for error, _, _ in tried)
    _, fmt, scale = next(entry for entry in tried if entry[0] <= limit)
    return TensorSpec(name, shape, fmt, scale)


def _is_two_lines(curve: Curve) -> bool:
    """Whether a function is a slope below 0 and one above, as far as some values tell."""
    if curve.channels > 1:
        return False
    x = np.array([-1.0, 1.0])
    return bool(curve(np.zeros(1))[0] == 0) and all(
        np.allclose(curve(x * size), curve(x) * size, rtol=1e-12, atol=0) for size in _SIZES
    )


def _error(
    curve: Curve,
    z: FloatArray,
    wanted: FloatArray,
    fmt: IntFormat,
    scale: float,
    goal: IntFormat,
    step: float,
) -> float:
    """Squares of what the table's rounded values are off."""
    given = curve(round_to_lattice(z, scale, fmt) * scale)
    rounded = round_to_lattice(np.nan_to_num(given), step, goal) * step
    return float(np.square(rounded - wanted).sum())


def table_layer(
    name: str,
    curve: Curve,
    x: TensorSpec,
    output: str,
    shape: tuple[int, ...],
    real: npt.NDArray[np.floating] | None,
    bits: int,
    last: bool,
    given: TensorSpec | None = None,
) -> Table:
    """The integer layer of a function.

    Parameters
    ----------
    x : TensorSpec
    output, shape
        Name and shape of what it gives.
    real : float array, optional
        The function's values on the calibration data: their scale is that of the least error.
        Without, and for the network's output, it covers all entries.
    given : TensorSpec, optional
        The output, where the model says how it is rounded.
    """
    values = _values(curve, x)
    low, high = x.format.limits
    if not np.isfinite(values).all():
        bad = x.scale * (int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0]) + low)
        raise InputError(
            f"Layer {name!r}: {curve!s:.80} must have a finite value for every input from "
            f"{x.scale * low:.3g} to {x.scale * high:.3g}, but has none at "
            f"{bad:.3g}"
        )
    fmt = IntFormat(bits, bool(values.min() < 0))
    if given is not None:
        spec = given
    elif real is None or last:
        spec = TensorSpec(output, shape, fmt, float(np.abs(values).max()) / fmt.max or 1.0)
    else:
        spec = TensorSpec(output, shape, fmt, _output_scale(curve, x, real, fmt))
    return Table(name, x.name, x.format, spec, table_entries(curve, x, spec), str(curve))


def _output_scale(
    curve: Curve, x: TensorSpec, real: npt.NDArray[np.floating], fmt: IntFormat
) -> float:
    """The scale of the least error; of functions that are two slopes the nearest power of two
    times the input's, where that is about the same, so that a slope of 1 is a shift."""
    best = error_minimizing_scale(real, fmt)
    near = x.scale * 2.0 ** np.rint(np.log2(best / x.scale))
    alike = abs(best / near - 1) < _ALIKE and _is_two_lines(curve)
    return float(near) if alike else best


def table_entries(curve: Curve, x: TensorSpec, output: TensorSpec) -> npt.NDArray[np.int64]:
    """The function's values on the input's lattice, rounded to the output's, (G, 2**bits); of
    functions that are two slopes, with these rounded to few digits (`lines_near`)."""
    if _is_two_lines(curve):
        below, above = np.array([-1.0, 1.0]) * curve(np.array([-1.0, 1.0]))
        unit = x.scale / output.scale
        lines = lines_near(below * unit, above * unit, x.format, output.format)
        if lines is not None:
            low, high = x.format.limits
            return lines.compute(np.arange(low, high + 1))[None]
    return round_to_lattice(_values(curve, x), output.scale, output.format)


def _values(curve: Curve, x: TensorSpec) -> FloatArray:
    low, high = x.format.limits
    lattice = np.arange(low, high + 1) * x.scale
    return curve(np.broadcast_to(lattice[:, None], (len(lattice), curve.channels))).T
