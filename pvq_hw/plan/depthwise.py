"""The depthwise engine as the planner takes it: convolutions of one channel a row."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pvq_hw.engine.depthwise_core import DepthwiseSpec, depthwise_cycles, refusal
from pvq_hw.engine.engines import Depthwise
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.errors import InputError
from pvq_hw.plan.candidates import (
    Choice,
    FoldLayer,
    Question,
    core_options,
    engine_choices,
    engine_limit,
    engine_offer,
    synthetic_rows,
    unbeaten,
)
from pvq_hw.plan.resources import core_resources
from pvq_hw.target.families import family

__all__ = ["not_depthwise"]

_MOST_CHANNELS = 128  # of columns that may be distributed RAM


def not_depthwise(layer: FoldLayer) -> str:
    """Why a layer can't be computed channel by channel; empty where it can."""
    if layer.geometry is None:
        return "it is no convolution"
    if layer.given is not None and layer.given[0].groups > 1:
        return "it has several gains a row"
    most = 0 if layer.given is None else int(np.abs(layer.given[0].y).max())
    return refusal(layer.geometry, layer.groups, layer.rows, layer.x, most)


@engine_choices.of(Depthwise)
def _choices(
    engine: Depthwise, layer: FoldLayer, lanes: Sequence[int], question: Question
) -> list[Choice]:
    """Made of the layer's codes, or of rows like those that a quantizer gives."""
    reason = not_depthwise(layer)
    if layer.geometry is None or reason:
        raise InputError(f"Layer {layer.name!r} must be folded, not channel by channel: {reason}")
    dense, x = layer.given or synthetic_rows(layer)
    device = question.target.engine
    options: dict[str, Any] = {"engine": engine.kind, "geometry": layer.geometry}
    options |= question.asked
    spec, _ = make_layer_core(dense, x, layer.n, family=device, name="core", **options)
    specs = [spec]
    small = layer.groups <= _MOST_CHANNELS
    if family(device).lutram and small and "columns_memory" not in options:
        specs.append(replace(spec, columns_memory="logic"))  # type: ignore[call-arg]
    cycles = question.turns * depthwise_cycles(layer.geometry, layer.rows)
    return unbeaten([Choice(cycles, core_resources(s, device), s) for s in specs])


@engine_offer.of(Depthwise)
def _offer(engine: Depthwise, layer: FoldLayer, question: Question, most_luts: int) -> list[Choice]:
    return [] if not_depthwise(layer) else _choices(engine, layer, (), question)


@engine_limit.of(Depthwise)
def _limit(
    engine: Depthwise,
    layer: FoldLayer,
    question: Question,
    choice: Choice,
    interval: int,
    given: bool,
) -> str:
    return "takes its map's activations and gives its rows one a cycle"


@core_options.of(DepthwiseSpec)
def _options(spec: DepthwiseSpec) -> dict[str, Any]:
    choices = ("multiplier", "queue_memory", "lines_memory", "columns_memory")
    return {"geometry": spec.geometry} | {key: getattr(spec, key) for key in choices}
