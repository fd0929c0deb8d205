"""Lanes and pulses of networks that are no chain of dense layers, for `pvq_hw.flow.compile`."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pvq_hw.arith.formats import IntFormat
from pvq_hw.flow.options import LayerChoice
from pvq_hw.geometry import Geometry
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Affine
from pvq_hw.model.nodes import Conv as ConvNode
from pvq_hw.network.network import Network
from pvq_hw.plan.folding import Folding, FoldLayer, fold_best
from pvq_hw.plan.resources import Resources, top_resources
from pvq_hw.plan.unit_resources import units_reserve
from pvq_hw.quantizer.fused import Step, network_steps, weight_matrix
from pvq_hw.quantizer.graph import pulse_budget
from pvq_hw.target.boards import Target

__all__ = [
    "fold_layers",
    "graph_layers",
    "graph_reserve",
    "quantize_graph",
    "weighted_names",
]


_FAVOR = 0.12  # the power of its positions that a convolution's pulses grow with


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
    lanes: Sequence[int | None] | None,
    codes: Mapping[str, str],
    free: Collection[str],
    each: Mapping[str, Mapping[str, Any]],
    frames: int | None,
    budget: Callable[[], Mapping[str, Any]],
    run: Callable[..., Network],
) -> tuple[Network, Folding]:
    """Lanes first, since the quantizer spreads the pulses evenly over them; then the network.

    ``budget`` is `pvq_hw.quantizer.quantize.row_budget`, ``run`` is
    `pvq_hw.quantizer.quantize.quantize` with all but ``layers``, ``banks`` and ``pulses`` given.
    ``codes`` are those that are asked for, ``free`` the layers that may have 8-bit weights,
    ``each`` options of single cores, ``frames`` are V or None, as `fold_best` takes them. Gap bits
    are left to the plan.
    """
    steps = network_steps(model)
    weighted = [step for step in steps if step.weighted]
    given = quantizer == "given"
    reserve = graph_reserve(model, steps, bits, target)
    rows = budget() if quantizer == "calibrated" else None
    plain = {name for name, choice in layers.items() if choice.encoding == "int8"}
    if given:
        pulses = _pulses_of([step for step in weighted if step.name not in plain])
        pulses |= dict.fromkeys(plain, 0)  # of no meaning
    else:
        pulses = pulse_budget(steps, ratio, layers)
    pulses |= {name: int(k.sum()) for name, k in (rows or {}).items()}
    found = graph_layers(steps, pulses, bits, plain, codes)
    asked: dict[str, Any] = {"lanes": lanes, "reserve": reserve, "each": each, "frames": frames}
    asked |= {"held": False}
    folding = fold_best(found, target, free=free, **asked)
    if len(folding.reasons) == len(found):
        folding = fold_best(found, target, **asked)  # pulses are what is asked for
    # The other layers keep their pulses: none gets those that 8-bit weights make needless.
    layers = dict(layers) | {name: LayerChoice(encoding="int8") for name in folding.reasons}
    banks = {name: p for name, p in folding.banks.items() if not given and _free(layers, name)}
    network = run(layers=layers or None, banks=banks, pulses=rows)
    even = tuple(name in banks for name in folding.names)
    return network, replace(folding, balanced=even, gap_bits=())


def graph_reserve(model: Model, steps: Sequence[Step], bits: int, target: Target) -> Resources:
    """What the board's top and the units without weights take, about."""
    size = 1
    for length in model.shape:
        size *= length
    without = sum(not step.weighted for step in steps)
    top = top_resources(target, size * -(-bits // 8))
    return top + units_reserve(without, target.engine)


def graph_layers(
    steps: Sequence[Step],
    pulses: Mapping[str, int],
    bits: int,
    plain: Collection[str] = (),
    codes: Mapping[str, str] | None = None,
) -> list[FoldLayer]:
    """The layers with weights, as far as they are known before quantization.

    ``pulses`` are those of each; ``plain`` keep 8-bit weights; ``codes`` are asked for.
    """
    asked = codes or {}
    return [
        replace(
            _layer(step, pulses[step.name], bits, step.name in plain, asked.get(step.name)),
            direct=_is_direct(step, steps),
        )
        for step in steps
        if step.weighted
    ]


def fold_layers(
    model: Model, target: Target, ratio: float, bits: int = 8
) -> tuple[list[FoldLayer], Resources, int]:
    """The layers of any network before quantization; what the rest takes; and the cycles of the
    slowest unit without weights.

    Pulses are shared as `pulse_budget` does, convolutions favored as calibration favors them:
    the more, the more positions share their weights.
    """
    steps = network_steps(model)
    windows = {s.name: s.node.shape[:2] for s in steps if isinstance(s.node, ConvNode)}
    favored = {name: float(math.prod(shape)) ** _FAVOR for name, shape in windows.items()}
    pulses = pulse_budget(steps, ratio, {}, favored)
    passed = [
        max(step.node.size, *(math.prod(model.tensor_shape(name)) for name in step.inputs))
        for step in steps
        if not step.weighted
    ]
    reserve = graph_reserve(model, steps, bits, target)
    return graph_layers(steps, pulses, bits), reserve, max(passed, default=0)


def _is_direct(step: Step, steps: Sequence[Step]) -> bool:
    """Whether the results go to the next layer with weights alone, or out of the network."""
    readers = [other for other in steps if step.output in other.inputs]
    return step.last if not readers else len(readers) == 1 and readers[0].weighted


def _pulses_of(steps: Sequence[Step]) -> dict[str, int]:
    """Pulses of layers whose weights are codes already."""
    from pvq_hw.quantizer.given import given_codes

    codes = {step.name: given_codes(weight_matrix(step.node), step.name)[0] for step in steps}
    return {name: int(abs(y).sum()) for name, y in codes.items()}


def _free(layers: Mapping[str, Any], name: str) -> bool:
    """Whether the layer's pulses may be spread evenly over its lanes."""
    return name not in layers or (layers[name].k is None and not layers[name].keep_zeros)


def _layer(step: Step, pulses: int, bits: int, plain: bool, code: str | None = None) -> FoldLayer:
    w = weight_matrix(step.node)
    rows, n = w.shape
    geometry, groups = None, 1
    if isinstance(step.node, ConvNode):
        geometry, groups = step.node.geometry, step.node.groups
    elif isinstance(step.node, Affine):
        shape = (1, 1, *step.node.shape)[-3:]
        geometry, groups = Geometry((shape[0], shape[1], shape[2]), (1, 1)), rows
    x = IntFormat(bits, False)
    out = step.format or step.activation.format(16 if step.last else bits)
    k = max(1, round(pulses / rows))
    encoding = "int8" if plain else "pvq"
    return FoldLayer(step.name, rows, n * groups, k, x, out, encoding, code, geometry, groups)
