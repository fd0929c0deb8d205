"""Fine-tuning from a model file to a model file: what ``pvq-hw finetune`` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import check_data, evaluate_network, scale_warning
from pvq_hw.evaluate.metrics import metric_text
from pvq_hw.files import check_writable, whole_file
from pvq_hw.flow.compile import quantize_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.quantize import quantizer_options
from pvq_hw.model.export import check_format, save_model
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.progress import Steps
from pvq_hw.quantizer.banks import Placement, meets
from pvq_hw.target.boards import get_target
from pvq_hw.train.finetune import FineTuned, Training, finetune
from pvq_hw.train.recipes import LEAST_FRAMES, Picked, pick
from pvq_hw.train.torch_extra import require_torch

__all__ = ["finetune_file", "start_network"]

_RECIPE = {"rate", "side_rate", "distill", "by_row"}  # who asks for one of them, knows


def finetune_file(
    path: Path,
    out: Path,
    data: Data,
    options: CompileOptions,
    asked: Mapping[str, Any],
    *,
    evaluation: Data | None = None,
    metric: str | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Fine-tunes a model file; writes ``out`` and, beside it, what `compile` is to be told.

    Parameters
    ----------
    path, out : path
        ``out`` ends in ``.onnx`` (or ``.npz`` for dense layers); the configuration's name ends in
        ``.toml`` instead.
    data : Data
        Training inputs, and labels where there are some.
    options : CompileOptions
        With a target the pulses are balanced over the lanes that the planner chooses for it.
    asked : mapping
        Fields of `Training`. Without a rate or a part of distillation among them the recipe is
        picked by a fifth of the data; see `pvq_hw.train.recipes.pick`.
    evaluation : Data, optional
        Inputs and labels that nothing is learned from.
    metric : str, optional
        What they and the inputs held out are scored by; see
        `pvq_hw.evaluate.metrics.find_metric`.

    Returns
    -------
    dict
        The verb's document: ``n_over_k``, ``losses``, ``accuracy`` (float, start, tuned), the
        files written, and ``recipes``: what was tried, as `Picked` has it; None where the recipe
        was given or there were fewer inputs than 20.

    Raises
    ------
    InputError, ToolError
        In one line; nothing is written then.
    """
    tell = steps or Steps()
    check_format(None, out)
    config = out.with_suffix(".toml")
    check_writable(out)
    check_writable(config)
    _check_asked(options, data, evaluation, metric)
    training = Training(**asked)
    require_torch()
    with tell.step("Import the model"):
        model = load_model(path)
        check_format(model, out)
        check_data(model, data, "Training data")
        if evaluation is not None:
            check_data(model, evaluation, "Evaluation data", metric=metric)
    warning = scale_warning(model, data)
    if warning:
        tell.note(warning)
    with tell.step("Quantize to the pyramid"):
        start, placements = start_network(model, options, data, tell)
    picked = None
    places = _places(placements)
    if set(asked) & _RECIPE or len(data) < LEAST_FRAMES:
        with tell.step("Train"):
            tuned = _trained(model, data, options, training, start, places, tell)
    else:
        picked = _picked(model, data, options, asked, start, places, metric, tell)
        tuned = picked.tuned
    accuracy: dict[str, Any] = {}
    if evaluation is not None:
        with tell.step("Evaluate float and golden models"):
            accuracy = _accuracy(model, start, tuned.network, evaluation, metric)
    with whole_file(out) as new:
        save_model(tuned.model, new)
    with whole_file(config) as new:
        new.write_text(_config(options, accuracy), encoding="utf-8", newline="\n")
    return {
        "model": str(out),
        "config": str(config),
        "n_over_k": tuned.network.n_over_k,
        "losses": list(tuned.losses),
        "accuracy": accuracy or None,
        "recipes": None if picked is None else picked.to_json(),
    }


def _check_asked(
    options: CompileOptions, data: Data, evaluation: Data | None, metric: str | None
) -> None:
    """Raises InputError where what is asked for does not go together."""
    if options.quantizer != "calibrated":
        raise InputError("Fine-tuning must start from the calibrated quantizer's codes")
    if evaluation is not None and evaluation.y is None:
        raise InputError("Evaluation data must have labels y")
    if metric is not None and evaluation is None and data.y is None:
        raise InputError("--metric must come with labels y, or with --evaluate TEST.npz")


def _places(placements: Mapping[str, Placement]) -> dict[str, Any]:
    """Where pulses may be, as `finetune` takes it."""
    return {
        "banks": {name: p.banks for name, p in placements.items()},
        "max_gap": {n: p.max_gap for n, p in placements.items() if p.max_gap is not None},
    }


def _trained(
    model: Model,
    data: Data,
    options: CompileOptions,
    training: Training,
    start: Network,
    places: Mapping[str, Any],
    tell: Steps,
) -> FineTuned:
    return finetune(
        model,
        data.x,
        data.y,
        layers=options.layers or None,
        activation_bits=options.activation_bits,
        input_scale=options.input_scale,
        seed=options.seed,
        training=training,
        start=start,
        progress=lambda what, part: tell.progress(part, 1, what),
        **places,
    )


def _picked(
    model: Model,
    data: Data,
    options: CompileOptions,
    asked: Mapping[str, Any],
    start: Network,
    places: Mapping[str, Any],
    metric: str | None,
    tell: Steps,
) -> Picked:
    return pick(
        model,
        data.x,
        data.y,
        start=start,
        asked=asked,
        metric=metric,
        input_scale=options.input_scale,
        seed=options.seed,
        steps=tell,
        layers=options.layers or None,
        activation_bits=options.activation_bits,
        **places,
    )


def _accuracy(
    model: Model, start: Network, tuned: Network, evaluation: Data, metric: str | None
) -> dict[str, Any]:
    """Figures of the float model, of the codes before training and of those after it."""
    before, after = (evaluate_network(model, n, evaluation, metric) for n in (start, tuned))
    return {
        "metric": before.metric,
        "why": before.why,
        "float": before.exact,
        "start": before.pvq,
        "tuned": after.pvq,
        "frames": len(evaluation),
    }


def start_network(
    model: Model, options: CompileOptions, data: Data, steps: Steps | None = None
) -> tuple[Network, dict[str, Placement]]:
    """The codes to start from, and where pulses may be."""
    from pvq_hw.quantizer.quantize import quantize

    tell = steps or Steps()
    if not options.target:
        network = quantize(
            model,
            quantizer_options(options),
            calibration=data.x,
            progress=lambda what, part: tell.progress(part, 1, what),
        )
        return network, {}
    target = get_target(options.target)
    network, folding = quantize_for(model, target, options, data, tell.progress)
    gaps = folding.max_gap
    places = {name: Placement(p, gaps.get(name)) for name, p in folding.banks.items()}
    codes = {layer.name: layer.weights for layer in network.layers}
    return network, {n: p for n, p in places.items() if meets(codes[n], p)}  # type: ignore[arg-type]


def _config(options: CompileOptions, accuracy: Mapping[str, Any]) -> str:
    """What `compile --config` is to be told of the tuned model."""
    lines = []
    if accuracy:
        figure = metric_text(accuracy["metric"], accuracy["float"])
        note = f"# Before training, float: {accuracy['metric']} {figure}"
        lines.append(f"{note} on {accuracy['frames']} frames")
    lines.append('quantizer = "given"')
    if options.target:
        lines.append(tomli_w.dumps({"target": options.target}).strip())
    if options.input_scale != 1.0:
        lines.append(f"input_scale = {options.input_scale!r}")
    if options.activation_bits != 8:
        lines.append(f"activation_bits = {options.activation_bits}")
    for name, choice in options.layers.items():
        if choice.encoding == "int8":
            lines += [f'[layers."{name}"]', 'encoding = "int8"']
    return "\n".join(lines) + "\n"
