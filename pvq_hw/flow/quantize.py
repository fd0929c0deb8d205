"""Lanes and codes of a model for a target: what the lanes are decides where pulses may be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.flow.room import check_room
from pvq_hw.model.model import Conv, Model
from pvq_hw.network.network import Network
from pvq_hw.plan.folding import Folding, FoldLayer, fold_best, known_layers
from pvq_hw.plan.resources import Resources, top_resources
from pvq_hw.plan.shared import fold_network
from pvq_hw.plan.unit_resources import units_reserve
from pvq_hw.quantizer.autodiff import node_geometry, node_groups
from pvq_hw.quantizer.banks import COLUMNS_PER_BANK, PLAIN_COLUMNS_PER_BANK
from pvq_hw.quantizer.fused import Step, network_steps
from pvq_hw.quantizer.options import QuantizerOptions
from pvq_hw.quantizer.quantize import layer_pulses, quantize, row_budget
from pvq_hw.quantizer.scales import OUTPUT_BITS
from pvq_hw.target.boards import Target

__all__ = [
    "QUICK_FRAMES",
    "QUICK_PATIENCE",
    "asked_lanes",
    "estimate",
    "fold_layers",
    "quantize_for",
    "quantizer_options",
]

Progress = Callable[[float, float, str], None]

QUICK_FRAMES = 1500
"""Calibration frames of a quick quantization."""

QUICK_PATIENCE = 2
"""Patience with moves of pulses in a quick quantization; see `pvq_hw.quantizer.options`."""

_FAVOR = 0.12  # the power of its positions that a convolution's pulses grow with


def quantizer_options(options: CompileOptions, *, quick: bool = False) -> QuantizerOptions:
    """What a run asks of the quantizer, lanes aside.

    ``quick`` calibrates with `QUICK_FRAMES` at most, moves fewer pulses and leaves out the sweeps
    over the whole network: some tenths of a point of accuracy for many times the speed, as a search
    wants.
    """
    found = QuantizerOptions(
        ratio=options.ratio,
        quantizer=options.quantizer,
        activation_bits=options.activation_bits,
        layers=options.layers,
        seed=options.seed,
        input_scale=options.input_scale,
        max_frames=options.calibration_frames,
        augment=options.augment or None,
        sweeps=options.sweeps,
        gain_rule=options.gain,
        mend=options.mend,
    )
    if not quick:
        return found
    most = min(QUICK_FRAMES, options.calibration_frames)
    return replace(found, max_frames=most, sweeps=0, patience=QUICK_PATIENCE)


def quantize_for(
    model: Model,
    target: Target,
    options: CompileOptions,
    calibration: Data | None,
    progress: Progress | None = None,
    *,
    quick: bool = False,
) -> tuple[Network, Folding]:
    """Lanes first, since the quantizer spreads the pulses evenly over them; then the network.

    ``quick`` as `quantizer_options` has it.
    """
    steps = network_steps(model)
    names = [step.name for step in steps if step.weighted]
    options = options.resolved(names)
    data = None if calibration is None else calibration.x
    wanted, free = quantizer_options(options, quick=quick), options.free(names)

    count = 3 * len(names)  # to measure, to quantize and to refine a layer take about as long

    def told(done: int, layer: str, part: float) -> None:
        if progress is not None:
            if layer in names:
                place = names.index(layer) + part
            else:
                place = len(names) * (part + (layer == "all layers"))
            progress(min(done + place, count), count, layer)

    asked: dict[str, Any] = {
        "lanes": asked_lanes(names, options),
        "each": options.asked(names, target.engine),
        "reserve": _reserve(model, steps, target, options.activation_bits),
        "windows": options.windows,
        "stream_width": options.stream_width,
        "input_width": options.input_width,
        "pace": _ends_pace(model, options),
        "frames": options.frames if isinstance(options.frames, int) else None,
    }
    if options.quantizer == "given":
        network = quantize(model, wanted, calibration=data, progress=partial(told, 0))
        known = known_layers(network, options.codes(names))
        return network, _fold(known, target, options, **asked)
    # The pulses of each layer decide its lanes, and its lanes decide where pulses may be.
    totals = layer_pulses(model, wanted)
    layers = _fold_layers(steps, model.input_name, options, totals)
    given = data is not None or options.quantizer == "plain"  # else it is refused for that
    if given and not quick and not free and options.engine != "shared":
        check_room(
            model, target, wanted, data, layers,
            codes=options.codes(names), lanes=asked["lanes"], each=asked["each"],
            may_share=options.engine == "auto" and options.may_share,
            frames=asked["frames"] or 1, windows=options.windows,
        )  # fmt: skip
    if options.quantizer == "calibrated":
        pulses = row_budget(model, data, wanted, progress=partial(told, 0))
        totals |= {name: int(k.sum()) for name, k in pulses.items()}
        layers = _fold_layers(steps, model.input_name, options, totals)
        wanted = replace(wanted, pulses=pulses)
    folding = _fold(layers, target, options, free=free, **asked)
    banks = _balanced(folding.banks, options)
    folding = replace(folding, balanced=tuple(name in banks for name in folding.names))
    # The other layers keep their pulses: none gets those that 8-bit weights make needless.
    unasked = {name: LayerChoice(encoding="int8") for name in folding.reasons}
    wanted = replace(
        wanted,
        layers=dict(options.layers) | unasked,
        banks=banks,
        max_gap=folding.max_gap,
    )
    network = quantize(model, wanted, calibration=data, progress=partial(told, len(names)))
    return network, folding


def _fold(
    layers: Sequence[FoldLayer], target: Target, options: CompileOptions, **asked: Any
) -> Folding:
    return fold_network(
        layers, target, shared=options.engine == "shared",
        may_share=options.engine == "auto" and options.may_share, **asked,
    )  # fmt: skip


def _ends_pace(model: Model, options: CompileOptions) -> int:
    """Cycles between frames that no layer need be faster than: those of the network's ends."""
    taken = math.prod(model.input_shape) // options.input_width
    return max(taken, math.prod(model.output_shape) // options.output_width)


def estimate(model: Model, target: Target, options: CompileOptions) -> Folding:
    """Lanes, memories and cycles that the planner would choose before quantization, with a pulse a
    row at least."""
    steps = network_steps(model)
    weights = [step.weight for step in steps if step.weighted]
    most = sum(w.size for w in weights) / sum(len(w) for w in weights)
    options = replace(options, ratio=min(options.ratio, most))
    totals = layer_pulses(model, quantizer_options(options))
    layers = _fold_layers(steps, model.input_name, options, totals)
    reserve = _reserve(model, steps, target, options.activation_bits)
    each = options.asked([layer.name for layer in layers], target.engine)
    return fold_best(layers, target, reserve=reserve, each=each, pace=_ends_pace(model, options))


def fold_layers(
    model: Model, target: Target, ratio: float
) -> tuple[list[FoldLayer], Resources, int]:
    """The layers of any network before quantization; what the rest takes; and the cycles of the
    slowest unit without weights.

    Pulses are shared as they are without data, convolutions favored as calibration favors them:
    the more, the more positions share their weights.
    """
    steps, options = network_steps(model), CompileOptions(ratio=ratio)
    windows = {s.name: s.node.shape[:2] for s in steps if isinstance(s.node, Conv)}
    favored = {name: float(math.prod(shape)) ** _FAVOR for name, shape in windows.items()}
    pulses = layer_pulses(model, quantizer_options(options), favored)
    passed = [
        max(step.node.size, *(math.prod(model.tensor_shape(name)) for name in step.inputs))
        for step in steps
        if not step.weighted
    ]
    layers = _fold_layers(steps, model.input_name, options, pulses)
    return layers, _reserve(model, steps, target, options.activation_bits), max(passed, default=0)


def asked_lanes(names: Sequence[str], options: CompileOptions) -> list[int | None] | None:
    """Lanes of every layer, None where the user gave none."""
    if options.lanes is not None:
        if len(options.lanes) != len(names):
            raise InputError(f"Lanes must be given for {len(names)} layers, not {options.lanes}")
        return list(options.lanes)
    given = [options.layers[name].lanes if name in options.layers else None for name in names]
    return None if all(p is None for p in given) else given


def _reserve(model: Model, steps: Sequence[Step], target: Target, bits: int) -> Resources:
    """What the board's top and the units without weights take, about."""
    units = sum(not step.weighted for step in steps)
    top = top_resources(target, math.prod(model.shape) * -(-bits // 8))
    return top + units_reserve(units, target.engine)


def _balanced(banks: dict[str, int], options: CompileOptions) -> dict[str, int]:
    """Banks of the layers whose pulses may be spread over them: those with a gain per row, in
    all of whose columns pulses may be."""
    free = {n for n, c in options.layers.items() if c.unit not in (None, "row") or c.keep_zeros}
    given = {n for n, c in options.layers.items() if c.k is not None and c.k % banks.get(n, 1)}
    return {name: p for name, p in banks.items() if name not in free | given}


def _fold_layers(
    steps: Sequence[Step], source: str, options: CompileOptions, pulses: dict[str, int]
) -> list[FoldLayer]:
    """The layers with weights as far as they are known before quantization."""
    formats = _formats(steps, source, options.activation_bits)
    codes = options.codes([step.name for step in steps if step.weighted])
    columns = PLAIN_COLUMNS_PER_BANK if options.quantizer == "plain" else COLUMNS_PER_BANK
    layers = []
    for step in steps:
        if not step.weighted:
            continue
        rows, n = step.weight.shape
        groups, choice = node_groups(step.node), options.layers.get(step.name)
        layers.append(
            FoldLayer(
                step.name,
                rows,
                n * groups,
                max(1, round(pulses.get(step.name, rows) / rows)),
                formats[step.inputs[0]],
                formats[step.output],
                (choice.encoding if choice else None) or "pvq",
                codes.get(step.name),
                node_geometry(step.node),
                groups,
                direct=_is_direct(step, steps),
                bank_columns=columns,
            )
        )
    return layers


def _is_direct(step: Step, steps: Sequence[Step]) -> bool:
    """Whether the results go to the next layer with weights alone, or out of the network."""
    readers = [other for other in steps if step.output in other.inputs]
    return step.last if not readers else len(readers) == 1 and readers[0].weighted


def _formats(steps: Sequence[Step], source: str, bits: int) -> dict[str, IntFormat]:
    """Formats of the tensors, before the data says whether the input has a sign."""
    found = {source: IntFormat(bits, bits == 1)}
    for step in steps:
        inputs = [found[name] for name in step.inputs]
        signed = not step.activation.bounded and (step.weighted or any(x.signed for x in inputs))
        if step.format is not None:
            found[step.output] = step.format
        elif step.activation.binary:
            found[step.output] = IntFormat(1, True)
        elif step.node.keeps:
            found[step.output] = inputs[0]
        elif step.last:
            found[step.output] = IntFormat(OUTPUT_BITS, signed)
        else:
            found[step.output] = IntFormat(bits, bits == 1 or signed)
    return found
