"""How good outputs are: right answers, error of a regression, AUC, or a function of the user's."""

import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["Metric", "answers", "auc", "find_metric", "is_classification", "score"]

Array = npt.NDArray[Any]


def is_classification(y: Array, outputs: int, head: Sequence[str] = ()) -> bool:
    """Whether labels are class numbers of a network with that many outputs.

    ``head`` names the final operations that the accelerator leaves out: one output is a class
    where a Sigmoid stood behind it and the labels are 0 and 1.
    """
    if y.ndim != 1 or y.dtype.kind not in "iub":
        return False
    return outputs > 1 or ("Sigmoid" in head and _is_binary(y))


def answers(values: Array) -> npt.NDArray[np.int64]:
    """Class of every frame, (frames,): the index of the largest output, the first among equals;
    of one output, a logit, whether it is above 0."""
    flat = values.reshape(len(values), -1)
    found = flat[:, 0] > 0 if flat.shape[1] == 1 else flat.argmax(axis=1)
    return np.asarray(found, dtype=np.int64)


def score(values: Array, y: Array, head: Sequence[str] = ()) -> tuple[str, float]:
    """Name and value of the metric that fits the labels.

    ``values`` are real outputs (frames, outputs), before the operations of ``head`` (see
    `is_classification`). Class numbers give ``("accuracy", percent)``,
    anything else ``("rmse", root of the mean square error)``.
    """
    flat = _flat(values, y)
    name = "accuracy" if is_classification(y, flat.shape[1], head) else "rmse"
    return name, _METRICS[name].compute(flat, y)


@dataclass(frozen=True)
class Metric:
    """A figure of merit of a network's outputs.

    Parameters
    ----------
    name : str
        ``"accuracy"`` (percent), ``"rmse"``, ``"auc"`` (0 to 1) or ``"module:function"``.
    higher_is_better : bool
    function : callable
        Real outputs (frames, outputs) and labels (frames, ...) to a number.
    """

    name: str
    higher_is_better: bool
    function: Callable[[Array, Array], float]

    @property
    def unit(self) -> str:
        """What stands after a value."""
        return " %" if self.name == "accuracy" else ""

    def compute(self, values: Array, y: Array) -> float:
        """The metric of outputs (frames, ...); InputError where it does not fit the labels."""
        result = self.function(_flat(values, y), y)
        try:
            number = float(result)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"Metric {self.name!r} must give a finite number, not {result!r:.60}")
        return number

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.2f} %" if self.name == "accuracy" else f"{value:.4g}"

    def loss(self, value: float) -> float:
        """The value, so that less is better."""
        return -value if self.higher_is_better else value

    def meets(self, value: float, bound: float | None) -> bool:
        """Whether a value is at least (for errors: at most) ``bound``."""
        return bound is None or self.loss(value) <= self.loss(bound)


def find_metric(name: str | None, y: Array, outputs: int, head: Sequence[str] = ()) -> Metric:
    """The metric of that name; the one that fits the labels for None.

    ``module:function`` is imported, also from the current folder, and called with the real
    outputs (frames, outputs) and the labels (frames, ...). More is better, unless the function
    has a true attribute ``lower_is_better``.
    """
    if name is None:
        name = "accuracy" if is_classification(y, outputs, head) else "rmse"
    if name in _METRICS:
        return _METRICS[name]
    module, colon, function = name.partition(":")
    if not (colon and module and function):
        raise InputError(
            f"Metric must be {', '.join(_METRICS)} or module:function, not {name!r:.60}"
        )
    found = _imported(module, function)
    return Metric(name, not getattr(found, "lower_is_better", False), found)


def auc(values: Array, y: Array) -> float:
    """Area under the receiver operating characteristic, 0 to 1; ties count half.

    One output: of that output, for labels 0 and 1. Several: the mean over the classes that occur,
    each output against the rest.
    """
    flat = _flat(values, y)
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise InputError(f"AUC must have class numbers as labels, not {y.dtype} {y.shape}")
    if flat.shape[1] == 1:
        if not _is_binary(y):
            raise InputError("AUC of a network with one output must have the labels 0 and 1")
        return _one_auc(flat[:, 0], y == 1)
    _check_classes(y, flat.shape[1])
    areas = [_one_auc(flat[:, c], y == c) for c in np.unique(y)]
    return float(np.mean(areas))


def _one_auc(values: Array, positive: npt.NDArray[np.bool_]) -> float:
    """Share of the pairs (positive, negative) whose positive has the larger value."""
    count = int(positive.sum())
    rest = len(positive) - count
    if not count or not rest:
        raise InputError("AUC must have frames of at least two classes")
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    rank = (last - (sizes - 1) / 2)[place]  # mean rank of equal values, from 1
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * rest))


def _accuracy(flat: Array, y: Array) -> float:
    if not is_classification(y, flat.shape[1], ("Sigmoid",)):
        raise InputError(
            "Accuracy must have class numbers as labels, 0 and 1 for a network with one output"
        )
    if flat.shape[1] > 1:
        _check_classes(y, flat.shape[1])
    return 100.0 * float(np.mean(answers(flat) == y))


def _rmse(flat: Array, y: Array) -> float:
    target = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    if target.shape != flat.shape:
        raise InputError(f"Targets must have {flat.shape[1]} values per frame, not {y.shape[1:]}")
    return float(np.sqrt(np.mean((flat - target) ** 2)))


def _flat(values: Array, y: Array) -> Array:
    flat = values.reshape(len(values), -1)
    if len(y) != len(flat):
        raise InputError(f"Labels must be {len(flat)}, one per frame, not {len(y)}")
    return flat


def _is_binary(y: Array) -> bool:
    return bool(np.isin(y, (0, 1)).all())


def _check_classes(y: Array, outputs: int) -> None:
    if y.min(initial=0) < 0 or y.max(initial=0) >= outputs:
        raise InputError(f"Labels must be 0 to {outputs - 1}, the network's outputs")


def _imported(module: str, function: str) -> Callable[[Array, Array], float]:
    """A function of the user's; the current folder comes first."""
    place = os.getcwd()
    sys.path.insert(0, place)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"Metric module {module!r} must be importable: {reason}") from None
    finally:
        if place in sys.path:
            sys.path.remove(place)
    if not callable(found):
        raise InputError(f"Metric {function!r} must be a function of module {module!r}")
    return found  # type: ignore[no-any-return]


_METRICS = {
    "accuracy": Metric("accuracy", True, _accuracy),
    "rmse": Metric("rmse", False, _rmse),
    "auc": Metric("auc", True, auc),
}
