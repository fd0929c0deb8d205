"""The golden model against the float model on labeled data."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.metrics import Metric, find_metric, wilson
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.outputs import find_output, output_names

__all__ = [
    "Evaluation",
    "check_accuracy",
    "check_data",
    "evaluate_network",
    "metric_for",
    "reference",
    "scale_warning",
]


_SCALE_FRAMES = 500, 50  # with labels, and without
_LARGE = 100.0  # in size, of outputs that are too large for logits or values that are learned

MOST_CLASSES = 24
"""Of a table of answers by class."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The golden model against the float model on labeled data.

    Parameters
    ----------
    metric : str
        Its name: ``"accuracy"`` (percent), ``"rmse"``, ``"auc"`` or ``"module:function"``.
    why : str
        Why it was chosen.
    reference : str
        What the float model is called; see `reference`.
    exact, pvq : float
        What the float model and the integer network score.
    frames : int
    disagreements : int64 array, optional
        Frames on which their answers differ; None where labels are no class numbers.
    float_answers, pvq_answers : int64 array (frames,)
    labels : int64 array (frames,), optional
        The right answers, where the metric is an accuracy.
    only_float, only_pvq : int, optional
        Frames that only one of them has right; None where the metric is no accuracy. These pairs
        tell a loss from chance: the frames that both have right or wrong say nothing of it.
    """

    metric: str
    why: str
    reference: str
    exact: float
    pvq: float
    frames: int
    disagreements: npt.NDArray[np.int64] | None
    float_answers: npt.NDArray[np.int64]
    pvq_answers: npt.NDArray[np.int64]
    only_float: int | None = None
    only_pvq: int | None = None
    labels: npt.NDArray[np.int64] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; ``float`` and ``pvq`` hold the metric, of an accuracy with the
        intervals of `pvq_hw.evaluate.metrics.wilson`."""
        return {
            "metric": self.metric,
            "why": self.why,
            "reference": self.reference,
            "float": self.exact,
            "pvq": self.pvq,
            "frames": self.frames,
            "disagreements": None if self.disagreements is None else len(self.disagreements),
            "only_float": self.only_float,
            "only_pvq": self.only_pvq,
            "float_interval": self._interval(self.exact),
            "pvq_interval": self._interval(self.pvq),
            **self._confusion(),
        }

    def _confusion(self) -> dict[str, Any]:
        """Counts of answers by right ones, of each model, where there are few classes."""
        if self.labels is None:
            return {}
        answers = {"float": self.float_answers, "pvq": self.pvq_answers}
        classes = 1 + max(int(a.max(initial=0)) for a in (self.labels, *answers.values()))
        if classes > MOST_CLASSES:
            return {}
        return {
            "confusion": {
                name: np.bincount(classes * self.labels + given, minlength=classes**2)
                .reshape(classes, classes)
                .tolist()
                for name, given in answers.items()
            }
        }

    def _interval(self, value: float) -> list[float] | None:
        if self.metric != "accuracy":
            return None
        ends = wilson(round(value * self.frames / 100), self.frames)
        return [significant(end, 4) for end in ends]


def reference(network: Network) -> str:
    """What the float model that a network was made of is called: of a fine-tuned model, whose
    weights are codes, it isn't the float network that was trained first."""
    return "given weights" if network.meta.get("quantizer") == "given" else "float"


def metric_for(of: Model | Network, y: npt.NDArray[Any], name: str | None = None) -> Metric:
    """The metric that outputs of a model or network are scored by: the one of that name, or the
    one that fits its outputs and the labels; see `pvq_hw.evaluate.metrics.find_metric`.

    Raises InputError where there are several outputs and nobody said whose the labels are.
    """
    inputs = math.prod(of.input_shape)
    of = of.undecided if isinstance(of, Network) else of
    if not of.outputs:
        last = of.output_shape if isinstance(of, Model) else of.output.shape
        return find_metric(name, y, math.prod(last), of.dropped, inputs)
    if not of.scored:
        raise InputError(
            f"Labels must belong to one of the outputs {output_names(of.outputs)}; say to which "
            "with --output NAME (output= in Python)"
        )
    output = find_output(of.outputs, of.scored)
    found = find_metric(name, y, output.size, output.dropped, inputs)
    part = (output.part.start, output.part.stop)
    return replace(found, part=part, why=f"{found.why}, output {output.name!r}")


def evaluate_network(
    model: Model, network: Network, data: Data, metric: str | None = None
) -> Evaluation:
    """Scores both models on labeled data, decisions of the network aside; raises InputError where
    labels are missing."""
    if data.y is None:
        raise InputError("Evaluation data must have labels y")
    judge = metric_for(model, data.y, metric)
    network = network.undecided
    exact = model.predict(data.x, data.input_scale)
    integers = network.predict(network.quantize_input(data.x, data.input_scale))
    real = network.real(integers)
    scores = judge.compute(exact, data.y), judge.compute(real, data.y)
    a, b = judge.answers(exact), judge.answers(real)
    differ = np.flatnonzero(a != b) if judge.classes else None
    named = reference(network)
    only: tuple[int | None, int | None] = (None, None)
    y = None
    if judge.name == "accuracy":
        y = data.y.reshape(-1).astype(np.int64)
        only = int(((a == y) & (b != y)).sum()), int(((b == y) & (a != y)).sum())
    return Evaluation(judge.name, judge.why, named, *scores, len(data), differ, a, b, *only, y)


def check_data(
    of: Model | Network,
    data: Data,
    what: str,
    *,
    labels: bool = True,
    minimum: float | None = None,
    metric: str | None = None,
) -> None:
    """Raises InputError for what would be refused only after long steps.

    Parameters
    ----------
    of : Model or Network
        What the data is for.
    data : Data
    what : str
        Which data; the error begins with it.
    labels : bool
        Whether labels, where there are some, are scored.
    minimum : float, optional
        The accuracy asked for; labels must then be class numbers.
    metric : str, optional
        The metric asked for. A function of the user's is not called yet.
    """
    try:
        if data.x.size != len(data) * math.prod(of.input_shape):
            shape = ", ".join(map(str, of.input_shape))
            raise InputError(f"Data must have the shape (frames, {shape}), not {data.x.shape}")
        if data.y is None or not labels:
            return
        last = of.output_shape if isinstance(of, Model) else of.undecided.output.shape
        judge = metric_for(of, data.y, metric)
        if not judge.given:
            judge.compute(np.broadcast_to(0.0, (len(data), math.prod(last))), data.y)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    if minimum is not None and judge.name != "accuracy":
        raise InputError("--min-accuracy must come with class numbers as labels")


def scale_warning(model: Model, data: Data | None) -> str | None:
    """What to say where integers up to 255 were to be divided and are not; None where all is well.

    The float model judges, on the first frames. With class numbers it must be right more often, by
    5 points at least, on the data divided by 255. Without labels its outputs must be larger than
    those of networks are, and not so large divided.
    """
    if data is None or data.x.dtype.kind not in "iu" or data.input_scale != 1:
        return None
    if not (16 < data.x.max() <= 255 and data.x.min() >= 0):
        return None
    some = data.head(_SCALE_FRAMES[data.y is None])
    outputs = [model.predict(some.x, scale) for scale in (1.0, 255.0)]
    if some.y is None:
        plain, divided = (float(np.sqrt(np.mean(np.square(o)))) for o in outputs)
        if plain < _LARGE or divided > _LARGE / 4:
            return None
        return (
            f"warning: integer data is taken as it is, and the float model's outputs are about "
            f"{plain:,.0f} in size; divided by 255, {divided:.3g}: if it was trained so, give "
            "--input-scale 255"
        )
    try:
        judge = metric_for(model, some.y)
        plain, divided = (judge.compute(o, some.y) for o in outputs)
    except InputError:  # labels that nothing is scored by
        return None
    if judge.name != "accuracy" or divided < plain + 5:
        return None
    return (
        f"warning: integer data is taken as it is, and the float model is {plain:.1f} % right; "
        f"divided by 255, {divided:.1f} %: give --input-scale 255"
    )


def check_accuracy(evaluation: Evaluation, minimum: float | None) -> None:
    """Raises CheckError when the golden model is below the asked accuracy."""
    if minimum is None:
        return
    if evaluation.metric != "accuracy":
        raise InputError("--min-accuracy must come with class numbers as labels")
    if evaluation.pvq < minimum:
        raise CheckError(
            f"Accuracy must be at least {minimum:g} %, not {evaluation.pvq:.2f} % "
            f"({evaluation.reference} {evaluation.exact:.2f} %); "
            "raise K or give more calibration frames"
        )
