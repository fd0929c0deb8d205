"""Plans of networks that are no chain of dense layers: cores, units, cycles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pvq_hw.codes import choose_shift_bits
from pvq_hw.core import CoreSpec
from pvq_hw.core_base import CoreBase, CoreImage
from pvq_hw.core_layers import CoreLayer, core_layers, unit_names
from pvq_hw.cores import make_layer_core
from pvq_hw.errors import InputError
from pvq_hw.families import family as find_family
from pvq_hw.folding import FoldLayer
from pvq_hw.graph import GraphSpec
from pvq_hw.graph_folding import GraphLayer, bank_memory, fold_graph
from pvq_hw.graph_plan import build_graph, plan_graph
from pvq_hw.graph_timing import time_graph
from pvq_hw.network import Network
from pvq_hw.plan import Plan
from pvq_hw.plan_layer import plan_layer
from pvq_hw.resources import Resources, top_resources
from pvq_hw.targets import Target
from pvq_hw.units import Fifo

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
    options: Mapping[str, Any],
) -> Plan:
    """`pvq_hw.plan.plan` for such networks; pulses are shifted only where ``codes`` says so."""
    layers = core_layers(network)
    if not layers:
        raise InputError("A network must have at least one layer with weights")
    input_bytes = network.input.size * -(-network.input.format.bits // 8)
    reserve = units_reserve(target, input_bytes, len(network.layers) - len(layers), top=top)
    chosen = fold_graph([_fold_layer(layer) for layer in layers], target, reserve, lanes)
    gaps: list[int | None] = [None] * len(layers) if gap_bits is None else list(gap_bits)
    if len(gaps) != len(layers):
        raise InputError(f"Gap bits must be given for {len(layers)} layers, not {len(gaps)}")
    names = dict(zip((x.name for x in network.layers), unit_names(network.layers), strict=True))
    cores = [
        _core(layer, p, gap, target, names[layer.name], _shifts(layer, p, codes) | dict(options))
        for layer, p, gap in zip(layers, chosen, gaps, strict=True)
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
            plan_layer(layer.dense, spec, image, target.engine, layer.positions, layer.conv_groups)
            for layer, (spec, image) in zip(layers, cores, strict=True)
        ),
        interval_cycles=timing.interval_cycles,
        latency_cycles=timing.latency_cycles,
        top=top,
        graph=graph,
    )


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


def _fold_layer(layer: CoreLayer) -> GraphLayer:
    rows, n = layer.dense.y.shape
    k = max(1, round(np.abs(layer.dense.y).sum() / rows))
    core = FoldLayer(
        layer.name, rows, n, k, layer.x.format, layer.dense.output.format, layer.dense.encoding
    )
    return GraphLayer(core, layer.geometry, layer.conv_groups)


def _shifts(layer: CoreLayer, lanes: int, codes: Mapping[str, str] | None) -> dict[str, int]:
    if layer.dense.encoding == "int8" or (codes or {}).get(layer.name) != "shifted":
        return {}
    return {"shift_bits": choose_shift_bits(layer.dense.y, lanes, groups=layer.dense.groups)}


def _core(
    layer: CoreLayer,
    lanes: int,
    gap: int | None,
    target: Target,
    name: str,
    options: Mapping[str, Any],
) -> tuple[CoreBase, CoreImage]:
    """The core, its banks as logic where they are small."""
    made = make_layer_core(
        layer.dense, layer.x, lanes, gap_bits=gap, family=target.engine, name=name, **options
    )
    kind = bank_memory(made[0].bank_words, target.engine)
    if layer.dense.encoding == "int8" or "bank_memory" in options or kind == made[0].bank_memory:
        return made
    spec = made[0]
    return make_layer_core(
        layer.dense,
        layer.x,
        lanes,
        gap_bits=spec.code.gap_bits if isinstance(spec, CoreSpec) else None,
        family=target.engine,
        name=name,
        bank_memory=kind,
        **options,
    )
