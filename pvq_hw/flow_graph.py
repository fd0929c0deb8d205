"""Lanes and pulses of networks that are no chain of dense layers, for `pvq_hw.flow`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pvq_hw.folding import Folding, FoldLayer, dense_reason
from pvq_hw.geometry import Geometry
from pvq_hw.graph_choices import BALANCED_PULSES, GraphLayer
from pvq_hw.graph_folding import as_dense, dense_layers, fold_graph
from pvq_hw.model import Model
from pvq_hw.network import Network
from pvq_hw.nodes import Affine
from pvq_hw.nodes import Conv as ConvNode
from pvq_hw.numeric import IntFormat
from pvq_hw.options import LayerChoice
from pvq_hw.plan_graph import units_reserve
from pvq_hw.quantizer_network import pulse_budget
from pvq_hw.quantizer_steps import Step, network_steps, weight_matrix
from pvq_hw.targets import Target

__all__ = ["quantize_graph", "weighted_names"]


def weighted_names(model: Model) -> list[str]:
    """The layers with weights, in order."""
    return [step.name for step in network_steps(model) if step.weighted]


def quantize_graph(
    model: Model,
    target: Target,
    *,
    ratio: float,
    quantizer: str = "calibrated",
    bits: int,
    layers: Mapping[str, Any],
    lanes: Sequence[int] | None,
    codes: Mapping[str, str],
    free: Collection[str],
    each: Mapping[str, Mapping[str, Any]],
    budget: Callable[[], Mapping[str, Any]],
    run: Callable[..., Network],
) -> tuple[Network, Folding]:
    """Lanes first, since the quantizer spreads the pulses evenly over them; then the network.

    ``budget`` is `pvq_hw.quantizer.row_budget`, ``run`` is `pvq_hw.quantizer.quantize` with all
    but ``layers``, ``banks`` and ``pulses`` given. ``codes`` are those that are asked for, ``free``
    the layers that may have 8-bit weights, ``each`` options of single cores. Gap bits are left to
    the plan.
    """
    steps = network_steps(model)
    weighted = [step for step in steps if step.weighted]
    given = quantizer == "given"
    size = 1
    for length in model.shape:
        size *= length
    reserve = units_reserve(target, size * -(-bits // 8), len(steps) - len(weighted))

    rows = budget() if quantizer == "calibrated" else None
    pulses = _pulses_of(weighted) if given else pulse_budget(steps, ratio, layers)
    pulses |= {name: int(k.sum()) for name, k in (rows or {}).items()}
    plain = {name for name, choice in layers.items() if choice.encoding == "int8"}
    found = [
        _layer(step, pulses[step.name], bits, step.name in plain, codes.get(step.name))
        for step in weighted
    ]
    asked = [each.get(step.name, {}) for step in weighted]
    choices = fold_graph(found, target, reserve, lanes, asked=asked)
    reasons = {}
    dense = dense_layers(found, choices, target, reserve, free, lanes)
    if dense and len(dense) < len(weighted):
        # The other layers keep their pulses: none gets those that 8-bit weights make needless.
        layers = dict(layers) | {name: LayerChoice(encoding="int8") for name in dense}
        found = [as_dense(layer) if layer.core.name in dense else layer for layer in found]
        choices = fold_graph(found, target, reserve, lanes, asked=asked)
        ks = {layer.core.name: (layer.core.k, layer.columns) for layer in found}
        reasons = {name: dense_reason(*ks[name]) for name in dense}
    chosen = [choice.lanes for choice in choices]
    banks = {
        layer.core.name: p
        for layer, p in zip(found, chosen, strict=True)
        if not given
        and p > 1
        and layer.groups == 1
        and layer.core.encoding == "pvq"
        and layer.core.k >= BALANCED_PULSES * p
        and _free(layers, layer.core.name)
    }
    network = run(layers=layers or None, banks=banks, pulses=rows)
    count = len(found)
    names = tuple(layer.core.name for layer in found)
    return network, Folding(
        names,
        tuple(chosen),
        (),
        ({},) * count,
        (0,) * count,
        0,
        True,
        tuple(n in banks for n in names),
        reasons=reasons,
    )


def _pulses_of(steps: Sequence[Step]) -> dict[str, int]:
    """Pulses of layers whose weights are codes already."""
    from pvq_hw.quantizer_given import given_codes

    codes = {step.name: given_codes(weight_matrix(step.node), step.name)[0] for step in steps}
    return {name: int(abs(y).sum()) for name, y in codes.items()}


def _free(layers: Mapping[str, Any], name: str) -> bool:
    """Whether the layer's pulses may be spread evenly over its lanes."""
    return name not in layers or (layers[name].k is None and not layers[name].keep_zeros)


def _layer(step: Step, pulses: int, bits: int, plain: bool, code: str | None = None) -> GraphLayer:
    w = weight_matrix(step.node)
    rows, n = w.shape
    geometry, groups = None, 1
    if isinstance(step.node, ConvNode):
        geometry, groups = step.node.geometry, step.node.groups
    elif isinstance(step.node, Affine):
        shape = (1, 1, *step.node.shape)[-3:]
        geometry, groups = Geometry((shape[0], shape[1], shape[2]), (1, 1)), rows
    x = IntFormat(bits, False)
    out = IntFormat(16 if step.last else bits, not step.relu)
    k = max(1, round(pulses / rows))
    encoding = "int8" if plain else "pvq"
    core = FoldLayer(step.name, rows, n * groups, k, x, out, encoding, code)
    return GraphLayer(core, geometry, groups)
