"""Plans of networks that are no chain of dense layers: cores, units, cycles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pvq_hw.core_base import CoreBase, CoreImage
from pvq_hw.core_layers import CoreLayer, core_layers, unit_names
from pvq_hw.cores import make_layer_core
from pvq_hw.errors import InputError
from pvq_hw.families import family as find_family
from pvq_hw.folding import FoldLayer
from pvq_hw.graph import GraphSpec
from pvq_hw.graph_choices import GraphLayer
from pvq_hw.graph_folding import fold_graph
from pvq_hw.graph_plan import build_graph, plan_graph
from pvq_hw.network import Network
from pvq_hw.plan import Plan
from pvq_hw.plan_layer import plan_layer
from pvq_hw.resources import Resources, top_resources
from pvq_hw.targets import Target
from pvq_hw.timing import time_graph
from pvq_hw.unit_resources import unit_resources
from pvq_hw.units import CoreUnit, Fifo

__all__ = ["plan_network", "remake_graph", "units_reserve"]

_UNIT_LUTS = 220  # of a pooling or a sum, about


def units_reserve(target: Target, input_bytes: int, units: int, *, top: bool = True) -> Resources:
    """What is kept free for the board's top and for units without weights."""
    start = top_resources(target, input_bytes) if top else Resources()
    # Partial results, and where there is no distributed RAM a queue of results.
    blocks = 1 if find_family(target.engine).lutram else 2
    return start + Resources(luts=units * _UNIT_LUTS, ffs=units * _UNIT_LUTS, brams=units * blocks)


def plan_network(
    network: Network,
    target: Target,
    lanes: Sequence[int] | None,
    gap_bits: Sequence[int] | None,
    clock_mhz: float | None,
    baud: int | None,
    *,
    top: bool,
    codes: Mapping[str, str] | None = None,
    each: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
    options: Mapping[str, Any],
) -> Plan:
    """`pvq_hw.plan.plan` for such networks."""
    layers = core_layers(network)
    if not layers:
        raise InputError("A network must have at least one layer with weights")
    input_bytes = network.input.size * -(-network.input.format.bits // 8)
    reserve = _units(network, layers, target)
    reserve += top_resources(target, input_bytes) if top else Resources()
    codes = codes or {}
    found = [_fold_layer(layer, codes.get(layer.name)) for layer in layers]
    asked = [dict(options) | dict(each.get(layer.name, {})) for layer in layers]
    chosen = fold_graph(found, target, reserve, lanes, gap_bits, asked)
    names = dict(zip((x.name for x in network.layers), unit_names(network.layers), strict=True))
    cores = [
        make_layer_core(
            layer.dense,
            layer.x,
            choice.lanes,
            family=target.engine,
            name=names[layer.name],
            **(choice.options | more),
        )
        for layer, choice, more in zip(layers, chosen, asked, strict=True)
    ]
    graph = plan_graph(network, cores, target.engine)
    timing = time_graph(graph, {spec.name: image for spec, image in cores})
    output = network.output
    return Plan(
        network=network.name,
        target=target,
        clock_mhz=target.clock_mhz if clock_mhz is None else float(clock_mhz),
        baud=target.baud if baud is None else int(baud),
        input_bytes=input_bytes,
        output_bytes=output.size * -(-output.format.bits // 8),
        layers=tuple(
            plan_layer(
                layer.dense,
                spec,
                image,
                target.engine,
                layer.positions,
                layer.conv_groups,
                reasons.get(layer.name),
            )
            for layer, (spec, image) in zip(layers, cores, strict=True)
        ),
        interval_cycles=timing.interval_cycles,
        latency_cycles=timing.latency_cycles,
        top=top,
        graph=graph,
    )


def _units(network: Network, layers: Sequence[CoreLayer], target: Target) -> Resources:
    """All units but the cores; room for FIFOs, whose depths are not known yet."""
    family = find_family(target.engine)
    cores = [make_layer_core(x.dense, x.x, 1, family=target.engine)[0] for x in layers]
    graph = build_graph(network, cores, target.engine)
    total = Resources()
    for unit in graph.units:
        if isinstance(unit, Fifo):
            total += Resources(luts=_UNIT_LUTS // 2, ffs=_UNIT_LUTS // 2, brams=not family.lutram)
        elif not isinstance(unit, CoreUnit):
            total += unit_resources(unit, target.engine)
    return total


def remake_graph(
    network: Network, plan: Plan, cores: Sequence[tuple[CoreBase, CoreImage]]
) -> tuple[GraphSpec, int, int]:
    """The graph with the depths that a plan has chosen, its interval and latency.

    Raises
    ------
    InputError
        The plan has no graph, or cores that do not suit the network.
    CheckError
        The graph stands still.
    """
    if plan.graph is None:
        raise InputError("A plan of this network must have a graph")
    depths = {unit.name: unit.depth for unit in plan.graph.units if isinstance(unit, Fifo)}
    graph = build_graph(network, [spec for spec, _ in cores], plan.target.engine, depths)
    timing = time_graph(graph, {spec.name: image for spec, image in cores})
    return graph, timing.interval_cycles, timing.latency_cycles


def _fold_layer(layer: CoreLayer, code: str | None) -> GraphLayer:
    rows, n = layer.dense.y.shape
    k = max(1, round(np.abs(layer.dense.y).sum() / rows))
    dense = layer.dense
    out = dense.output.format
    core = FoldLayer(layer.name, rows, n, k, layer.x.format, out, dense.encoding, code)
    return GraphLayer(core, layer.geometry, layer.conv_groups, (dense, layer.x))
