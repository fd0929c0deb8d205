"""Lanes of the cores of a graph: as fast as the device allows, each about as long as the others."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.graph_choices import GraphChoice, GraphLayer, graph_choices, with_serial
from pvq_hw.resources import Resources, budget
from pvq_hw.targets import Target

__all__ = ["as_dense", "dense_layers", "fold_graph"]

_MARGIN = 0.95  # of the LUTs: before quantization the codes are not known
# Of LUTs, block RAMs and multiplier blocks; the latter stand idle otherwise.
_WEIGHTINGS = ((1, 1, 0.1), (1, 8, 0.1), (8, 1, 0.1), (1, 1, 4))


def fold_graph(
    layers: Sequence[GraphLayer],
    target: Target,
    reserve: Resources,
    lanes: Sequence[int] | None = None,
    gap_bits: Sequence[int | None] | None = None,
    asked: Sequence[Mapping[str, Any]] | None = None,
) -> list[GraphChoice]:
    """The core of every layer: lanes, code and kinds of memory.

    Parameters
    ----------
    layers : sequence of GraphLayer
    target : Target
    reserve : Resources
        Of all that is not a core: the board's top, poolings, sums.
    lanes, gap_bits : sequence of int, optional
        Taken as they are where they are given.
    asked : sequence of mapping, optional
        Of every layer, options of `pvq_hw.cores.make_layer_core` that are not free.
    """
    wanted = _wanted(layers, lanes)
    gaps: list[int | None] = [None] * len(layers) if gap_bits is None else list(gap_bits)
    if len(gaps) != len(layers):
        raise InputError(f"Gap bits must be given for {len(layers)} layers, not {len(gaps)}")
    limit = budget(target)
    if any(layer.given is None for layer in layers):
        # The codes are not known yet, so the estimate may be some percent off.
        limit = replace(limit, luts=int(limit.luts * _MARGIN))
    each = list(asked or [{}] * len(layers))
    found = [
        graph_choices(layer, target, p, gap, options)
        for layer, p, gap, options in zip(layers, wanted, gaps, each, strict=True)
    ]
    excess, chosen = _search(found, reserve, limit)
    if excess > 0:
        serial = [
            choices if "multiplier" in options else with_serial(layer, choices, target)
            for layer, choices, options in zip(layers, found, each, strict=True)
        ]
        less, other = _search(serial, reserve, limit)
        if less < excess:
            return other
    return chosen


def dense_layers(
    layers: Sequence[GraphLayer],
    chosen: Sequence[GraphChoice],
    target: Target,
    reserve: Resources,
    free: Collection[str],
    lanes: Sequence[int] | None = None,
) -> list[str]:
    """Layers of more pulses than weights that 8-bit weights would make no slower and no larger.

    Parameters
    ----------
    layers, chosen
        And what `fold_graph` chose for them.
    target, reserve, lanes
        As `fold_graph` takes them.
    free : collection of str
        Layers that may have 8-bit weights.
    """
    limit = budget(target)
    total = sum((choice.cost for choice in chosen), reserve)
    found = []
    for layer, pulses, p in zip(layers, chosen, _wanted(layers, lanes), strict=True):
        core = layer.core
        if core.name not in free or core.encoding != "pvq" or core.k < layer.columns:
            continue
        rest = total - pulses.cost
        better = [
            choice
            for choice in graph_choices(as_dense(layer), target, p)
            if choice.cycles <= pulses.cycles
            and _share(choice, limit) <= _share(pulses, limit)
            and (rest + choice.cost).within(limit)
        ]
        if better:
            total = rest + min(better, key=lambda choice: choice.cost.dsps).cost
            found.append(core.name)
    return found


def _share(choice: GraphChoice, limit: Resources) -> float:
    """Of the device's LUTs and block RAMs, which count alike."""
    return choice.cost.luts / limit.luts + choice.cost.brams / limit.brams


def as_dense(layer: GraphLayer) -> GraphLayer:
    """The layer with plain 8-bit weights."""
    return replace(layer, core=replace(layer.core, encoding="int8"))


def _wanted(layers: Sequence[GraphLayer], lanes: Sequence[int] | None) -> list[int | None]:
    if lanes is None:
        return [None] * len(layers)
    if len(lanes) != len(layers):
        raise InputError(f"Lanes must be given for {len(layers)} layers, not {len(lanes)}")
    for layer, p in zip(layers, lanes, strict=True):
        if not 1 <= p <= layer.core.n:
            raise InputError(
                f"Layer {layer.core.name!r}: lanes must be 1 to {layer.core.n}, not {p}"
            )
    return list(lanes)


def _search(
    found: Sequence[Sequence[GraphChoice]], reserve: Resources, limit: Resources
) -> tuple[float, list[GraphChoice]]:
    """The choices of the shortest interval that fit, or those that are least over, and how far."""
    best: tuple[float, list[GraphChoice]] | None = None
    floor = max(min(choice.cycles for choice in choices) for choices in found)
    intervals = {choice.cycles for choices in found for choice in choices}
    for interval in sorted(t for t in intervals if t >= floor):
        for weights in _WEIGHTINGS:
            chosen = [_cheapest(choices, interval, limit, weights) for choices in found]
            total = sum((choice.cost for choice in chosen), reserve)
            excess = max(
                total.luts / limit.luts - 1,
                total.brams / limit.brams - 1,
                (total.dsps - limit.dsps) / max(1, limit.dsps),
            )
            if best is None or excess < best[0]:
                best = excess, chosen
            if excess <= 0:
                return excess, chosen
    assert best is not None  # at the floor every layer has a choice
    return best


def _cheapest(
    found: Sequence[GraphChoice],
    interval: int,
    limit: Resources,
    weights: tuple[float, float, float],
) -> GraphChoice:
    def price(choice: GraphChoice) -> float:
        cost = choice.cost
        parts = (cost.luts / limit.luts, cost.brams / limit.brams, cost.dsps / max(1, limit.dsps))
        return sum(w * part for w, part in zip(weights, parts, strict=True))

    return min((c for c in found if c.cycles <= interval), key=price)
