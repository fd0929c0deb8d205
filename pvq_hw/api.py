"""The Python interface: compile a model, load an output folder, and do all the verbs do with it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.flow.boards import board_table
from pvq_hw.flow.compile import compile_model
from pvq_hw.flow.options import load_options
from pvq_hw.flow.update import update_output
from pvq_hw.inputs import join_inputs
from pvq_hw.model.load import load_model
from pvq_hw.model.objects import model_file
from pvq_hw.output.accelerator import Accelerator, load
from pvq_hw.progress import Steps

__all__ = ["Accelerator", "boards", "compile", "load", "update"]

Calibration = Data | npt.ArrayLike | Mapping[str, npt.ArrayLike] | None
"""Inputs to calibrate with; of a model of several, arrays by their names."""


def boards(
    *names: str, model: str | os.PathLike[str] | None = None, ratio: float | None = None
) -> dict[str, Any]:
    """The boards, and how a network would run on each; what ``pvq-hw boards --json`` prints.

    Parameters
    ----------
    *names : str
        Boards or board files; all that are shipped by default.
    model : path, optional
        The bundled digits network by default.
    ratio : float, optional
        Mean N/K.

    Raises
    ------
    InputError
        A board is unknown, or the model can't be read.
    """
    return board_table(names, model=Path(model) if model else None, ratio=ratio)


def compile(
    model: Any,
    out: str | os.PathLike[str],
    *,
    example_inputs: Any = None,
    target: str | None = None,
    calibrate: Calibration = None,
    evaluate: Data | None = None,
    metric: str | None = None,
    config: str | os.PathLike[str] | None = None,
    steps: Steps | None = None,
    **options: Any,
) -> "Accelerator":
    """Compiles a model into the folder ``out``; what ``pvq-hw compile`` does.

    Parameters
    ----------
    model : path or object
        A ``.onnx`` or ``.npz`` file; an ``onnx.ModelProto``; a ``torch.nn.Module``, which is
        exported as it is in use; a fitted scikit-learn ``MLPClassifier`` or ``MLPRegressor``, or
        a ``Pipeline`` of ``StandardScaler`` and ``MinMaxScaler``, which are folded into the first
        layer, and one of these; or a list of (weights (outputs, inputs), biases, activation), the
        activation a key of `pvq_hw.model.objects.ACTIVATIONS` or None.
    out : path
    example_inputs : array or tensor, optional
        For a ``torch.nn.Module``: some of its inputs, frames first; of several a tuple, or a dict
        by the names of what ``forward`` takes, which are then the inputs' names.
    target : str, optional
        A board; may come from ``config``.
    calibrate : Data or array (frames, ...), optional
        Inputs to calibrate with; of a model of several, arrays by their names.
    evaluate : Data, optional
        Inputs and labels to test with.
    metric : str, optional
        What they are scored by, see `pvq_hw.evaluate.metrics.find_metric`; what fits the labels by
        default.
    config : path, optional
        A TOML file of options.
    steps : Steps, optional
        Is told of the steps.
    **options
        Fields of `pvq_hw.flow.options.CompileOptions`: ``ratio``, ``quantizer``, ``input_scale``,
        ... Without ``ratio`` and ``max_loss``, a loss of half a point is aimed at on the inputs
        to calibrate with; see `pvq_hw.flow.options.load_options`.

    Raises
    ------
    InputError, CheckError
        As the verb: in one line, and an earlier ``out`` stays as it was.
    """
    chosen = load_options(Path(config) if config else None, {"target": target, **options},
                          calibrated=calibrate is not None)  # fmt: skip
    with model_file(model, example_inputs) as path:
        _check_labeled(evaluate)
        compile_model(
            path, Path(out), chosen,
            calibration=_data(calibrate, path, chosen.input_scale),
            evaluation=evaluate, metric=metric, steps=steps,
        )  # fmt: skip
    return load(out)


def _array(data: Any) -> npt.NDArray[Any]:
    """Inputs as one array; raises InputError where they are none."""
    try:
        return np.asarray(data)
    except ValueError:
        raise InputError(
            f"calibrate must be an array (frames, ...) or Data, not {type(data).__name__} of parts "
            "of different shapes"
        ) from None


def update(
    out: str | os.PathLike[str],
    model: Any,
    *,
    example_inputs: Any = None,
    calibrate: Calibration = None,
    evaluate: Data | None = None,
    metric: str | None = None,
    min_accuracy: float | None = None,
    steps: Steps | None = None,
) -> "Accelerator":
    """Gives the accelerator in ``out``, compiled with ``updatable=True``, the weights of another
    model of the same shape, its bitstream included; what ``pvq-hw update`` does.

    Parameters as those of `compile`; ``min_accuracy`` is percent.

    Raises
    ------
    InputError, CheckError
        As the verb: in one line, and ``out`` stays as it was.
    """
    accelerator = load(out)
    _check_labeled(evaluate)
    with model_file(model, example_inputs) as path:
        update_output(
            accelerator, path,
            calibration=_data(calibrate, path, accelerator.input_scale),
            evaluation=evaluate, metric=metric, min_accuracy=min_accuracy, steps=steps,
        )  # fmt: skip
    return load(out)


def _data(given: Calibration, path: Path, scale: float) -> Data | None:
    """Inputs to calibrate with, as the flow takes them."""
    if isinstance(given, Mapping):
        given = join_inputs(load_model(path).inputs, given, scale)
    if given is None or isinstance(given, Data):
        return given
    return Data(_array(given), None, scale)


def _check_labeled(evaluate: Any) -> None:
    if evaluate is not None and not isinstance(evaluate, Data):
        raise InputError(
            f"evaluate must be Data(x, y) or load_data(FILE), not {type(evaluate).__name__}"
        )
