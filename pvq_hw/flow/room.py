"""What no codes can make fit: refused, by the layer that takes most, before any are looked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.units import Fifo, Unit
from pvq_hw.errors import InputError
from pvq_hw.flow.options import LayerChoice
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import core_layers, unit_names
from pvq_hw.plan.folding import FoldLayer, fold, known_layers
from pvq_hw.plan.lowering import plan_graph
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.plan.resources import Resources, budget, top_resources
from pvq_hw.plan.sharing import fold_network
from pvq_hw.plan.unit_resources import unit_cost
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.options import QuantizerOptions
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.target.boards import Target
from pvq_hw.target.families import family

__all__ = ["check_room"]

_ROOM = 1.1  # times what a device has: what choices that nobody tried could save
_LIKELY_ROOM = 1.5  # the same where codes are those of random weights
_FRAMES = 16  # of the calibration data, for widths


def check_room(
    model: Model,
    target: Target,
    wanted: QuantizerOptions,
    data: Any,
    layers: Sequence[FoldLayer],
    *,
    codes: Mapping[str, str],
    lanes: Sequence[int | None] | None,
    each: Mapping[str, Mapping[str, Any]],
    may_share: bool = False,
    frames: int = 1,
    windows: int | None = None,
) -> None:
    """Raises InputError where a network of one pulse a row is too large for the target already, by
    a tenth: then no codes fit, and none need be looked for. The same where one of random weights
    and as many pulses as it is to have is, by half.

    Line buffers, queues where branches meet, tables, parameters and a frame's buffer are those of
    the real network; only its codes are the smallest that there are.

    Parameters
    ----------
    wanted : QuantizerOptions
    data : array (frames, ...), optional
        To calibrate with; a few frames are looked at.
    layers : sequence of FoldLayer
        With the pulses that they are to have.
    codes, lanes, each, frames, windows
        What is asked of the layers, as `pvq_hw.plan.plan.plan` takes it.
    may_share : bool
        Whether one engine for all layers would do.
    """
    folded = {n: dict(own) | ({"engine": "folded"} if own.get("engine") == "auto" else {})
              for n, own in each.items()}  # fmt: skip
    network = _least(model, wanted, data)
    updatable = all("spare" in own for own in each.values()) and bool(each)
    graph = _graph(network, target, {"spare": 0} if updatable else {})
    rest = sum((_cost(u, target) for u in graph.units if not u.cores), Resources())
    frame = network.input.size * -(-network.input.format.bits // 8)
    known = known_layers(network, codes)
    reserve = rest + top_resources(target, frame, updatable)
    asked: dict[str, Any] = {"lanes": lanes, "windows": windows, "reserve": reserve}
    fitting = partial(fold, layers, target, each=each, frames=frames, **asked)
    # Most fit, which is told in a part of the time, and of these most with a lane in every layer.
    narrow = [p or 1 for p in lanes or [None] * len(layers)]
    if fitting(reckoned=True, lanes=narrow).fits or fitting(reckoned=True).fits:
        return
    likely = fitting()
    if likely.fits:
        return
    shares: dict[str, Any] = {"may_share": may_share, "passed": rest}
    if may_share and fold_network(layers, target, each=folded, **shares, **asked).engines:
        return
    least = fold(known, target, balanced=False, each=folded, frames=frames, **asked)
    limit = budget(target)
    side = f" with {frames} frames side by side" if frames > 1 else ""
    for name, what in (("brams", "block RAMs"), ("dsps", "multiplier blocks"),
                       ("luts", f"{target.logic_cell}s")):  # fmt: skip
        # Serial multipliers of few pulses a row take more, since they must be faster.
        most, need, have = (getattr(x, name) for x in (likely.cost, least.cost, limit))
        if not least.fits and min(most, need) > _ROOM * have + 1:
            one = least
            if frames > 1:
                one = fold(known, target, balanced=False, each=folded, **asked)
            remedy = "use fewer frames side by side (--frames) or choose a larger device"
            if not one.fits:
                del asked["reserve"]
                planned = plan(
                    network, target, check=False, each=folded, codes=codes, frames=frames, **asked
                )
                remedy = _most(network, planned, name)
            raise InputError(
                f"The network needs about {need:,} {what} at a pulse a row already{side}, but "
                f"{target.name} has {have:,}; {remedy}"
            )
        if most > _LIKELY_ROOM * have + 1:
            fewer = ", fewer frames side by side (--frames)" if frames > 1 else ""
            raise InputError(
                f"The network needs about {most:,} {what} with as many pulses as were asked for"
                f"{side}, but {target.name} has {have:,}; use fewer pulses (a higher --ratio)"
                f"{fewer}, or choose a larger device"
            )


def _least(model: Model, wanted: QuantizerOptions, data: Any) -> Network:
    """The network with a pulse a row, or in each group of one."""
    layers = {}
    for step in network_steps(model):
        if step.weighted:
            given = (wanted.layers or {}).get(step.name) or LayerChoice()
            rows = len(step.weight) if given.unit == "layer" else 1
            pulsed = given.encoding != "int8"
            layers[step.name] = replace(given, ratio=None, k=rows) if pulsed else given
    options = replace(
        wanted, quantizer="plain", layers=layers, sweeps=0, max_frames=_FRAMES,
        augment=wanted.augment if data is None else None,
        gain_rule="least-squares", mend="none",
    )  # fmt: skip
    return quantize(model, options, calibration=data)


def _graph(network: Network, target: Target, options: Mapping[str, Any]) -> GraphSpec:
    """Its units around the smallest cores, with queues as deep as they must be."""
    names = dict(zip((x.name for x in network.layers), unit_names(network.layers), strict=True))
    cores = [
        make_layer_core(x.dense, x.x, 1, family=target.engine, name=names[x.name], **options)
        for x in core_layers(network)
    ]
    return plan_graph(network, cores, target.engine)


def _cost(unit: Unit, target: Target) -> Resources:
    return unit_cost(unit, family(target.engine))


def _most(network: Network, planned: Plan, part: str) -> str:
    """What takes most of a resource, the layer that has most of that, and what helps."""
    owners = dict(zip(unit_names(network.layers), (x.name for x in network.layers), strict=True))
    readers = {wire: unit.name for unit in planned.graph.units for wire in unit.inputs}
    cores = {layer.layer: layer.resources for layer in planned.layers}
    maps: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for unit in planned.graph.units:
        # A queue is that of the layer behind it.
        at = readers[unit.outputs[0]] if isinstance(unit, Fifo) else unit.name
        layer = owners.get(at, at)
        maps[layer] += getattr(_cost(unit, planned.target), part)
        if unit.cores:
            weights[layer] += getattr(cores[layer], part)
    if maps.total() > weights.total():
        (layer, count), *_ = maps.most_common(1)
        what, remedy = f"maps take {maps.total():,}", "smaller maps or fewer channels"
    else:
        (layer, count), *_ = weights.most_common(1)
        what, remedy = f"weights take {weights.total():,}", "fewer inputs, rows or layers"
    return f"its {what}, most layer {layer!r} ({count:,}): use {remedy}, or choose a larger device"
