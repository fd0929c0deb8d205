"""The QONNX operators for the format's reference evaluator, which has none of its own: written
after their definitions, apart from the importer's lowering, so that it can be compared with."""

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

__all__ = ["OPERATORS"]

_ROUND = {"ROUND": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}


class Quant(OpRun):
    """Rounds to ``bits`` wide integers, as real values."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x: Any, scale: Any, zero: Any, bits: Any, signed: int = 1, narrow: int = 0,
             rounding_mode: str = "ROUND") -> Any:  # fmt: skip
        half = 2.0 ** (float(np.ravel(bits)[0]) - 1)
        low, high = (narrow - half, half - 1) if signed else (0.0, 2 * half - 1 - narrow)
        steps = _ROUND[rounding_mode](np.clip(x / scale + zero, low, high))
        return (((steps - zero) * scale).astype(x.dtype),)


class BipolarQuant(OpRun):
    """The sign, 0 counting as positive, times the scale."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x: Any, scale: Any) -> Any:
        return ((np.where(x >= 0, 1, -1) * scale).astype(x.dtype),)


class Trunc(OpRun):
    """Cuts the lowest bits off."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x: Any, scale: Any, zero: Any, before: Any, after: Any,
             rounding_mode: str = "FLOOR") -> Any:  # fmt: skip
        steps = np.rint(x / scale + zero) / 2.0 ** (before - after)
        return (((_ROUND[rounding_mode](steps) - zero) * scale).astype(x.dtype),)


OPERATORS: list[type[Any]] = [Quant, BipolarQuant, Trunc]
