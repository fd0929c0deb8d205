"""Activations: formats, and scales from calibration data or from the ranges a model carries."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.network.layer import TensorSpec
from pvq_hw.quantizer.fused import Step

__all__ = [
    "GIVE_DATA",
    "MIN_FRAMES",
    "OUTPUT_BITS",
    "bounded_format",
    "calibration_array",
    "error_minimizing_scale",
    "input_spec",
    "output_spec",
    "range_scale",
    "round_to_lattice",
    "tensor_spec",
]


MIN_FRAMES = 16
OUTPUT_BITS = 16
"""Width of the network's output, signed."""

_HEADROOM = 1.5  # of the final output's range over the largest value seen
_SAMPLES = 1 << 17
GIVE_DATA = "give --calibrate TRAIN.npz (in Python calibrate= of compile, calibration= of quantize)"
_NO_CALIBRATION = (
    "Activation scales must come from calibration data, since the model carries no range for "
    f"{{name!r}}; {GIVE_DATA}"
)

FloatArray = npt.NDArray[np.float64]


def calibration_array(data: Any, frame: tuple[int, ...]) -> npt.NDArray[Any]:
    """Checks calibration inputs: numbers, finite, at least `MIN_FRAMES` frames.

    Parameters
    ----------
    data : array (frames, ...) or an object with such an ``x``
    frame : tuple of int
        Shape of one frame in the file's axes; any shape of that size is accepted.

    Returns
    -------
    array (frames, \\*frame), of the dtype that came in.

    Raises
    ------
    InputError
        In one line, with what to give.
    """
    array = np.asarray(getattr(data, "x", data))
    if array.dtype.kind not in "fiub":
        raise InputError(f"Calibration data must be numbers, not {array.dtype}")
    size = int(np.prod(frame, dtype=np.int64))
    if array.ndim < 1 or array.size != len(array) * size:
        shape = ", ".join(map(str, frame))
        raise InputError(
            f"Calibration data must have the shape (frames, {shape}), not {array.shape}"
        )
    if len(array) < MIN_FRAMES:
        raise InputError(
            f"Calibration data must hold at least {MIN_FRAMES} frames, not {len(array)}; "
            "a few thousand give the best accuracy"
        )
    if not np.isfinite(array).all():
        raise InputError("Calibration data must be finite numbers, but holds NaN or infinities")
    return array.reshape(len(array), *frame)


def round_to_lattice(
    values: FloatArray, scale: float | FloatArray, fmt: IntFormat
) -> npt.NDArray[np.int64]:
    """The integers nearest to ``values / scale``, ties up, saturated to ``fmt``."""
    if fmt.binary:
        return np.where(values < 0, -1, 1).astype(np.int64)
    return np.asarray(fmt.clamp(np.floor(values / scale + 0.5)), dtype=np.int64)


def error_minimizing_scale(values: npt.ArrayLike, fmt: IntFormat) -> float:
    """The scale with the least squared error of rounding and saturating ``values`` to ``fmt``.

    Searches 41 clip points between a quarter of the largest magnitude and all of it, on at most
    131,072 evenly spaced values, of all channels alike; the largest magnitude wins a tie. Binary
    formats: the mean magnitude, which is the least squares answer. 1 where every value is 0.
    """
    v = np.asarray(values, dtype=np.float64).ravel()
    if fmt.min == 0:
        v = np.maximum(v, 0.0)
    top = float(np.abs(v).max(initial=0.0))
    if top == 0.0:
        return 1.0
    if fmt.binary:
        return float(np.abs(v).mean())
    if v.size > _SAMPLES:
        step = -(-v.size // _SAMPLES)
        while math.gcd(step, v.size) > 1:  # it would pass over the same channels in every frame
            step += 1
        v = v[::step]
    full = _full_scale(v, top, fmt)
    best, best_error = full, np.inf
    for clip in np.linspace(1.0, 0.25, 41):
        scale = full * float(clip)
        error = float(np.square(fmt.clamp(np.floor(v / scale + 0.5)) * scale - v).sum())
        if error < best_error * (1 - 1e-9):
            best, best_error = scale, error
    return best


def _full_scale(v: FloatArray, top: float, fmt: IntFormat) -> float:
    """The smallest scale at which nothing saturates."""
    positive = float(v.max(initial=0.0)) / fmt.max
    negative = float(-v.min(initial=0.0)) / max(1, -fmt.min)
    return max(positive, negative, top / (1 << 40))


def bounded_format(name: str, fmt: IntFormat, high: float, least: float) -> IntFormat:
    """``fmt``, or the widest narrower one whose largest value stands for ``high`` at most.

    An activation saturates by its format's clamp alone. Where the multiplier leaves no scale below
    ``least``, a narrower format is what still saturates at ``high``.

    Raises
    ------
    InputError
        Where no format of 2 bits or more does.
    """
    if fmt.binary or not np.isfinite(high):
        return fmt
    bits = fmt.bits
    while bits > 2 and least * IntFormat(bits, fmt.signed).max > high:
        bits -= 1
    narrower = IntFormat(bits, fmt.signed)
    if least * narrower.max > high:
        raise InputError(
            f"Layer {name!r} must have gains below what it clips at, {high:g}, in steps of its "
            f"multiplier, {least:g}; scale its weights and its bound"
        )
    return narrower


def range_scale(low: float, high: float, fmt: IntFormat) -> float:
    """The scale that covers ``low..high`` without saturation (an unsigned format: ``0..high``)."""
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise InputError(f"An activation range must be finite and ordered, not {low}..{high}")
    scale = max(high / fmt.max, -low / -fmt.min if fmt.min else 0.0)
    return float(scale) if scale > 0 else 1.0


def tensor_spec(
    name: str,
    shape: tuple[int, ...],
    fmt: IntFormat,
    values: FloatArray | None,
    ranges: dict[str, tuple[float, float]] | None = None,
    headroom: float | None = None,
) -> TensorSpec:
    """Format and scale of one activation tensor.

    The scale is the one of the least error on ``values``; with ``headroom``, the one that covers
    that multiple of the largest value (for outputs, whose bits are plenty). Without values it
    comes from ``ranges[name]``; without either: InputError.
    """
    if values is not None:
        if headroom is not None:
            top = float(np.abs(values).max(initial=0.0)) * headroom
            return TensorSpec(name, shape, fmt, range_scale(-top if fmt.signed else 0.0, top, fmt))
        return TensorSpec(name, shape, fmt, error_minimizing_scale(values, fmt))
    if not ranges or name not in ranges:
        raise InputError(_NO_CALIBRATION.format(name=name))
    low, high = ranges[name]
    return TensorSpec(name, shape, fmt, range_scale(float(low), float(high), fmt))


def input_spec(
    name: str,
    shape: tuple[int, ...],
    bits: int,
    data: npt.NDArray[Any] | None,
    input_scale: float = 1.0,
    ranges: dict[str, tuple[float, float]] | None = None,
    *,
    signed: bool = False,
) -> TensorSpec:
    """Format and scale of the network's input, which may have to be ``signed``.

    Integer data that fits ``bits`` keeps its own lattice: the scale is exactly
    ``1 / input_scale``. Other data: unsigned unless negative values occur, and the scale of the
    least error.
    """
    if not (np.isfinite(input_scale) and input_scale > 0):
        raise InputError(f"The input scale must be a positive number, not {input_scale}")
    if data is None:
        low = float(ranges[name][0]) if ranges and name in ranges else 0.0
        fmt = IntFormat(bits, signed or bits == 1 or low < 0)
        return tensor_spec(name, shape, fmt, None, ranges)
    fmt = IntFormat(bits, signed or bits == 1 or bool(data.size and data.min() < 0))
    if data.dtype.kind == "f":
        return tensor_spec(name, shape, fmt, data.astype(np.float64))
    if fmt.contains(data):
        return TensorSpec(name, shape, fmt, 1.0 / input_scale)
    return tensor_spec(name, shape, fmt, data.astype(np.float64) / input_scale)


def output_spec(
    step: Step,
    shape: tuple[int, ...],
    real: FloatArray | None,
    bits: int,
    signed: bool,
    least: float,
    ranges: dict[str, tuple[float, float]],
) -> TensorSpec:
    """Format and scale of a step's output.

    Parameters
    ----------
    real : float array, optional
        Its values before the activation; the scale is the one of the least error on them, or
        else covers its range in ``ranges``.
    bits : int
        Of activations; the network's output has 16.
    signed : bool
        Whether values below 0 occur where the activation does not rule them out.
    least : float
        The smallest scale that the multipliers allow.
    """
    if step.format is not None:
        if step.scale < least:
            raise InputError(
                f"Layer {step.name!r} must have an output scale of at least {least:.6g}, not "
                f"{step.scale:.6g}, which its gains in steps of its multiplier ask for"
            )
        return TensorSpec(step.output, shape, step.format, step.scale)
    kind = step.activation
    if kind.binary:
        return TensorSpec(step.output, shape, IntFormat(1, True), 1.0)
    if step.last:
        # Unsigned ones of several outputs stand beside signed ones.
        fmt, headroom = kind.format(OUTPUT_BITS - (step.part and kind.bounded)), _HEADROOM
    else:
        fmt, headroom = kind.format(bits, signed), None
    if kind.bounded or least > kind.high:
        fmt = bounded_format(step.name, fmt, kind.high, least)
    real = None if real is None else kind.compute(real)
    found = tensor_spec(step.output, shape, fmt, real, ranges, headroom)
    scale = max(least, min(found.scale, kind.largest_scale(fmt)))
    return replace(found, format=kind.within(fmt, scale), scale=scale)
