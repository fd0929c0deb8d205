"""Lowering of the QONNX operators, which round real values in place: Quant, BipolarQuant, Trunc.

Their definitions are those of the qonnx package (``docs/qonnx-custom-ops``).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.model.model import Sign
from pvq_hw.model.onnx.elementwise import affine, as_steps
from pvq_hw.model.onnx.lowering import Lowering, Op, Steps, View, handles

__all__: list[str] = []

Array = npt.NDArray[Any]
_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_ROUNDINGS: dict[str, Callable[[Any], Any]] = {
    "ROUND": np.rint, "HALF_EVEN": np.rint, "FLOOR": np.floor, "CEIL": np.ceil, "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
}  # fmt: skip


def _one(low: Lowering, op: Op, i: int, what: str) -> float:
    """Input ``i``: a constant, the same number wherever it is an array."""
    array = low.weights(op, i, what).ravel()
    if (array != array[0]).any():
        op.refuse(f"must have one of its {what} for all of its activations")
    return float(array[0])


def _whole(low: Lowering, op: Op, i: int, what: str) -> int:
    value = _one(low, op, i, what)
    if value != round(value) or abs(value) > 1 << 31:
        op.refuse(f"must have {what} that are whole numbers, not {value:g}")
    return int(value)


def _positive(low: Lowering, op: Op, i: int) -> Array:
    scale = low.weights(op, i, "scales")
    if not (scale > 0).all():
        op.refuse("must have scales that are positive numbers")
    return scale


def _rounding(op: Op) -> str:
    mode = op.attribute("rounding_mode", b"ROUND")
    text = mode.decode(errors="replace").upper() if isinstance(mode, bytes) else ""
    if text not in _ROUNDINGS:
        op.refuse(f"must have a rounding mode that the format knows, not {str(mode)[:40]}")
    return text


def _wide(op: Op, x: Array, *others: Array) -> None:
    """Refuses constants that do not broadcast to ``x``."""
    try:
        if np.broadcast_shapes(x.shape, *(o.shape for o in others)) == x.shape:
            return
    except ValueError:
        pass
    op.refuse(f"must have scales and zero points that broadcast to {x.shape}")


@handles("Quant", "IntQuant", domains=_DOMAINS)
def _quant(low: Lowering, op: Op) -> None:
    bits, signed = _whole(low, op, 3, "bit widths"), bool(op.attribute("signed", 1))
    narrow = int(bool(op.attribute("narrow", 0)))
    if not 1 <= bits <= 32:
        op.refuse(f"must have a bit width of 1 to 32, not {bits}")
    least = narrow - (1 << bits - 1) if signed else 0
    most = (1 << bits - 1) - 1 if signed else (1 << bits) - 1 - narrow
    mode = _rounding(op)
    if low.constant(op, 0) is not None:
        x, scale, zero = low.weights(op, 0, "values"), _positive(low, op, 1), low.weights(
            op, 2, "zero points")  # fmt: skip
        _wide(op, x, scale, zero)
        low.charge(op, weights=x.size)
        low.put(op, (_ROUNDINGS[mode](np.clip(x / scale + zero, least, most)) - zero) * scale)
        return
    if mode not in ("ROUND", "HALF_EVEN"):
        op.refuse(f"must round activations to the nearest (ROUND), not by {mode}")
    _positive(low, op, 1)
    steps = Steps(_one(low, op, 1, "scales"), _whole(low, op, 2, "zero points"), least, most)
    _rounded(low, op, low.view(op, pads=True), steps)


def _rounded(low: Lowering, op: Op, x: View, steps: Steps) -> None:
    """The values that the steps stand for, as real numbers."""
    as_steps(low, op, x, steps)
    made = low.values[op.proto.output[0]]
    assert isinstance(made, View)
    low.put(op, replace(made, steps=None))


@handles("BipolarQuant", domains=_DOMAINS)
def _bipolar(low: Lowering, op: Op) -> None:
    if low.constant(op, 0) is not None:
        values, scale = low.weights(op, 0, "values"), _positive(low, op, 1)
        _wide(op, values, scale)
        low.put(op, np.where(values < 0, -1.0, 1.0) * scale)
        return
    _positive(low, op, 1)
    x = low.view(op)
    shape = low.shapes[x.tensor]
    signs = replace(x, tensor=low.emit(op, Sign, (x.tensor,), shape))
    affine(low, op, signs, _one(low, op, 1, "scales"), 0.0)


@handles("Trunc", domains=_DOMAINS)
def _trunc(low: Lowering, op: Op) -> None:
    _positive(low, op, 1)
    scale, zero = _one(low, op, 1, "scales"), _whole(low, op, 2, "zero points")
    before, after = _whole(low, op, 3, "bit widths"), _whole(low, op, 4, "bit widths")
    mode = _rounding(op) if op.attribute("rounding_mode", b"") else "FLOOR"
    if zero or not 1 <= after <= before <= 32:
        op.refuse("must have a zero point of 0, and not more bits after than before")
    if mode not in ("FLOOR", "ROUND", "HALF_EVEN"):
        op.refuse(f"must cut bits off (FLOOR) or round to the nearest (ROUND), not by {mode}")
    x = low.view(op)
    unsigned = x.tensor in low.nonnegative
    wide, narrow = (
        Steps(scale, 0, 0, (1 << n) - 1)
        if unsigned
        else Steps(scale, 0, -(1 << n - 1), (1 << n - 1) - 1)
        for n in (before, after)
    )
    _rounded(low, op, x, wide)
    if before == after:
        return
    made = low.values[op.proto.output[0]]
    assert isinstance(made, View)
    # The floor of n / d is the nearest integer to (n - (d - 1) / 2) / d.
    part = 2.0 ** (before - after)
    affine(low, op, made, 1 / part, -scale * (part - 1) / 2 / part if mode == "FLOOR" else 0.0)
    made = low.values[op.proto.output[0]]
    assert isinstance(made, View)
    if unsigned:
        low.nonnegative.add(made.tensor)
    _rounded(low, op, made, narrow)
