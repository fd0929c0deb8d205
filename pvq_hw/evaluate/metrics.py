"""How good outputs are: right answers, error of a regression, AUC, or a function of the user's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError
from pvq_hw.user_code import names_function, user_function

__all__ = [
    "BUILT_IN",
    "Metric",
    "answers",
    "auc",
    "find_metric",
    "metric_text",
    "network_outputs",
    "wilson",
]

Array = npt.NDArray[Any]

_CONFIDENCE = 1.959963984540054  # standard deviations on either side that hold 95 %


def answers(values: Array) -> npt.NDArray[np.int64]:
    """Class of every frame, (frames,): the index of the largest output, the first among equals;
    of one output, a logit, whether it is above 0."""
    flat = values.reshape(len(values), -1)
    found = flat[:, 0] > 0 if flat.shape[1] == 1 else flat.argmax(axis=1)
    return np.asarray(found, dtype=np.int64)


def network_outputs(values: Array, head: Sequence[str]) -> Array:
    """What the file's network gives for the values (frames, outputs) before its ``head``.

    Hardmax and ArgMax, which keep only the class, and what follows them are left out.
    """
    out = values
    for kind in head:
        if kind == "Sigmoid":
            out = 0.5 * (1 + np.tanh(0.5 * out))
        elif kind in ("Softmax", "LogSoftmax"):
            out = out - out.max(axis=1, keepdims=True)
            out = out - np.log(np.exp(out).sum(axis=1, keepdims=True))
            out = np.exp(out) if kind == "Softmax" else out
        else:
            break
    return out


def wilson(right: int, frames: int) -> tuple[float, float]:
    """The interval, in percent, that holds the accuracy on all inputs of the same kind with 95 %
    confidence, by Wilson's score (E. B. Wilson, "Probable Inference", 1927).

    Unlike that of the normal distribution it never leaves 0 to 100 and has a width where all or
    none of a few frames are right.
    """
    share, spread = right / frames, _CONFIDENCE**2 / frames
    middle = share + spread / 2
    reach = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    low, high = (middle - reach) / (1 + spread), (middle + reach) / (1 + spread)
    return 100 * max(0.0, low), 100 * min(1.0, high)


def metric_text(name: str, value: float, frames: int | None = None) -> str:
    """A value of the metric of that name, with its unit; of an accuracy on so many ``frames`` also
    how many are right, and Wilson's interval."""
    if name != "accuracy":
        return f"{value:.4g}"
    if frames is None:
        return f"{value:.2f} %"
    right = round(value * frames / 100)
    low, high = wilson(right, frames)
    return f"{value:.2f} % ({right:,} right, {low:.1f} to {high:.1f})"


@dataclass(frozen=True)
class Metric:
    """A figure of merit of a network's outputs.

    Parameters
    ----------
    name : str
        ``"accuracy"`` (percent), ``"rmse"``, ``"auc"`` (0 to 1) or ``"module:function"``.
    higher_is_better : bool
    function : callable
        The network's outputs (frames, outputs) and labels (frames, ...) to a number.
    head : tuple of str
        The network's final operations, which accelerator and float model leave out.
    why : str
        Why this metric was chosen.
    classes : bool
        Whether the labels are class numbers, so that a frame has an answer (see `answers`).
    part : (start, stop), optional
        Of the outputs, those that the labels belong to; all by default.
    """

    name: str
    higher_is_better: bool
    function: Callable[[Array, Array], float]
    head: tuple[str, ...] = ()
    why: str = ""
    classes: bool = False
    part: tuple[int, int] | None = None

    def answers(self, values: Array) -> npt.NDArray[np.int64]:
        """`answers` of the outputs that the labels belong to."""
        return answers(values.reshape(len(values), -1)[:, slice(*(self.part or (None,)))])

    @property
    def given(self) -> bool:
        """Whether the function is the user's."""
        return self.name not in _METRICS

    def compute(self, values: Array, y: Array) -> float:
        """The metric of the values (frames, ...) before the head; InputError where it does not
        fit the labels, or where a function of the user's fails."""
        flat = _flat(values, y)[:, slice(*(self.part or (None,)))]
        head = () if self.name == "accuracy" else self.head
        try:
            result = self.function(network_outputs(flat, head), y)
        except InputError:
            raise
        except Exception as error:
            if not self.given:
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"Metric {self.name!r} fails on the outputs: {reason}") from None
        try:
            number = float(result)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"Metric {self.name!r} must give a finite number, not {result!r:.60}")
        return number

    def text(self, value: float) -> str:
        """A value with its unit."""
        return metric_text(self.name, value)

    def loss(self, value: float) -> float:
        """The value, so that less is better."""
        return -value if self.higher_is_better else value

    def meets(self, value: float, bound: float | None) -> bool:
        """Whether a value is at least (for errors: at most) ``bound``."""
        return bound is None or self.loss(value) <= self.loss(bound)


def find_metric(
    name: str | None, y: Array, outputs: int, head: Sequence[str] = (), inputs: int = 0
) -> Metric:
    """The metric of that name; for None the one that fits outputs, head and labels.

    Class numbers ask for accuracy. A network of one output has them where a Sigmoid stands behind
    it and all labels are 0 or 1. Anything else is compared by RMSE.

    Parameters
    ----------
    name : str, optional
        ``"accuracy"``, ``"rmse"``, ``"auc"``, or ``"module:function"``, which is imported, also
        from the current folder, and called with the network's outputs (frames, outputs) and the
        labels (frames, ...). More is better, unless the function has a true attribute
        ``lower_is_better``.
    y : array (frames, ...)
    outputs : int
    head : sequence of str
        Final operations that the accelerator leaves out.
    inputs : int
        Values of a frame. A network that gives as many and whose labels name less than half of
        its outputs may be an autoencoder.

    Raises
    ------
    InputError
        No such metric; or None, and the labels look like an autoencoder's: its targets are
        values, so that neither metric can be told.
    """
    classes = _are_classes(y, outputs, head)
    if name is None and classes and _may_be_autoencoder(y, outputs, head, inputs):
        raise InputError(
            f"Labels are class numbers up to {y.max()}, but the network has {outputs} outputs, as "
            "many as inputs: give its targets as y, or --metric accuracy if they are classes"
        )
    if name is None:
        name = "accuracy" if classes else "rmse"
        why = _reason(y, outputs, classes)
    else:
        why = "as asked for"
    if name in _METRICS:
        classes = classes or name == "accuracy"
        return replace(_METRICS[name], head=tuple(head), why=why, classes=classes)
    if not names_function(name):
        raise InputError(
            f"Metric must be {', '.join(_METRICS)} or module:function, not {name!r:.60}"
        )
    found = user_function(name, "Metric")
    return Metric(
        name, not getattr(found, "lower_is_better", False), found, tuple(head), why, classes
    )


def _are_classes(y: Array, outputs: int, head: Sequence[str]) -> bool:
    if outputs == 1:
        return "Sigmoid" in head and y.size == len(y) and _is_binary(y)
    return y.ndim == 1 and y.dtype.kind in "iub"


def _may_be_autoencoder(y: Array, outputs: int, head: Sequence[str], inputs: int) -> bool:
    whole = {"Softmax", "LogSoftmax", "Hardmax", "ArgMax"} & set(head)  # of one class among all
    return outputs == inputs > 1 and not whole and 2 * (int(y.max()) + 1) < outputs


def _reason(y: Array, outputs: int, classes: bool) -> str:
    """Why accuracy or RMSE was chosen, to stand behind its name."""
    if classes:
        text = "one output behind a Sigmoid, labels 0 and 1"
        return text if outputs == 1 else "labels are class numbers"
    if outputs == 1 and _is_binary(y):
        return "one output without a Sigmoid, so labels are values"
    return "labels are values"


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
    if not _are_classes(y, flat.shape[1], ("Sigmoid",)):
        raise InputError(
            "Accuracy must have class numbers as labels, 0 and 1 for a network with one output"
        )
    if flat.shape[1] > 1:
        _check_classes(y, flat.shape[1])
    return 100.0 * float(np.mean(answers(flat) == y.reshape(-1)))


def _rmse(flat: Array, y: Array) -> float:
    target = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    if target.shape != flat.shape:
        if y.ndim == 1 and y.dtype.kind == "f" and (y == np.round(y)).all():
            raise InputError(f"Labels that are class numbers must be integers, not {y.dtype}")
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


_METRICS = {
    "accuracy": Metric("accuracy", True, _accuracy),
    "rmse": Metric("rmse", False, _rmse),
    "auc": Metric("auc", True, auc),
}

BUILT_IN = frozenset(_METRICS)
"""Metrics that run no code of the user's."""
