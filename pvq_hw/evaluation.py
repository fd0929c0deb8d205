"""The golden model against the float model on labeled data."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.metrics import answers, is_classification, score
from pvq_hw.model import Model
from pvq_hw.network import Network

__all__ = ["Evaluation", "check_accuracy", "check_data", "evaluate_network", "scale_warning"]


_SCALE_FRAMES = 500


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The golden model against the float model on labeled data.

    Parameters
    ----------
    metric : str
        ``"accuracy"`` (percent) or ``"rmse"``.
    exact, pvq : float
        Of the float model and of the integer network.
    frames : int
    disagreements : int64 array
        Frames on which their answers differ; empty for a regression.
    float_answers, pvq_answers : int64 array (frames,)
    """

    metric: str
    exact: float
    pvq: float
    frames: int
    disagreements: npt.NDArray[np.int64]
    float_answers: npt.NDArray[np.int64]
    pvq_answers: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """JSON values; ``float`` and ``pvq`` hold the metric."""
        return {
            "metric": self.metric,
            "float": self.exact,
            "pvq": self.pvq,
            "frames": self.frames,
            "disagreements": len(self.disagreements),
        }


def evaluate_network(model: Model, network: Network, data: Data) -> Evaluation:
    """Scores both models on labeled data; raises InputError where labels are missing."""
    if data.y is None:
        raise InputError("Evaluation data must have labels y")
    exact = model.predict(data.x, data.input_scale)
    integers = network.predict(network.quantize_input(data.x, data.input_scale))
    real = integers.reshape(len(integers), -1) * network.output.scale
    metric, float_score = score(exact, data.y, model.dropped)
    _, pvq_score = score(real, data.y, model.dropped)
    a, b = answers(exact), answers(real)
    classes = is_classification(data.y, exact.shape[1], model.dropped)
    differ = np.flatnonzero(a != b) if classes else np.zeros(0, dtype=np.int64)
    return Evaluation(metric, float_score, pvq_score, len(data), differ, a, b)


def check_data(
    of: Model | Network, data: Data, what: str, *, labels: bool = True, minimum: float | None = None
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
    """
    try:
        if data.x.size != len(data) * math.prod(of.input_shape):
            shape = ", ".join(map(str, of.input_shape))
            raise InputError(f"Data must have the shape (frames, {shape}), not {data.x.shape}")
        if data.y is None or not labels:
            return
        last = of.output_shape if isinstance(of, Model) else of.output.shape
        outputs = np.broadcast_to(0.0, (len(data), math.prod(last)))
        metric, _ = score(outputs, data.y, of.dropped)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    if minimum is not None and metric != "accuracy":
        raise InputError("--min-accuracy must come with class numbers as labels")


def scale_warning(model: Model, data: Data | None) -> str | None:
    """What to say where integers up to 255 were to be divided and are not; None where all is well.

    The float model judges, on the first frames that have class numbers: it must be right more
    often, by 5 points at least, on the data divided by 255.
    """
    if data is None or data.y is None or data.x.dtype.kind not in "iu" or data.input_scale != 1:
        return None
    some = data.head(_SCALE_FRAMES)
    if not (16 < data.x.max() <= 255 and data.x.min() >= 0) or some.y is None:
        return None
    metric, plain = score(model.predict(some.x), some.y, model.dropped)
    _, divided = score(model.predict(some.x, 255.0), some.y, model.dropped)
    if metric != "accuracy" or divided < plain + 5:
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
            f"(float {evaluation.exact:.2f} %); raise K or give more calibration frames"
        )
