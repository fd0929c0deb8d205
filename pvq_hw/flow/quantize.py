"""Lanes and codes of a model for a target: what the lanes are decides where pulses may be."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data
from pvq_hw.engine.engines import Unrolled
from pvq_hw.engine.pulse_core import CoreSpec, sums_of_pulses
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.flow.room import check_room
from pvq_hw.model.model import Add, AveragePool, Conv, MaxPool, Model
from pvq_hw.model.nodes import Function
from pvq_hw.network.decision import Above
from pvq_hw.network.network import Network
from pvq_hw.plan.candidates import Passed, can_balance
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.folding import Folding, FoldLayer, fold_best, known_layers
from pvq_hw.plan.layer import LayerPlan
from pvq_hw.plan.plan import Plan
from pvq_hw.plan.resources import Resources, top_resources
from pvq_hw.plan.sharing import fold_network
from pvq_hw.plan.unit_resources import units_reserve
from pvq_hw.quantizer.autodiff import node_geometry, node_groups
from pvq_hw.quantizer.banks import PLAIN_COLUMNS_PER_BANK
from pvq_hw.quantizer.fused import Step, network_steps
from pvq_hw.quantizer.options import PlacedLayer, QuantizerOptions
from pvq_hw.quantizer.quantize import layer_pulses, quantize, row_budget
from pvq_hw.quantizer.scales import OUTPUT_BITS
from pvq_hw.target.boards import Target

__all__ = [
    "QUICK_FRAMES",
    "QUICK_PATIENCE",
    "asked_lanes",
    "can_share",
    "estimate",
    "fold_layers",
    "quantize_for",
    "quantize_placed",
    "quantizer_options",
    "reckon",
]

Progress = Callable[[float, float, str], None]
_T = TypeVar("_T")

QUICK_FRAMES = 1500
"""Calibration frames of a quick quantization."""

QUICK_PATIENCE = 2
"""Patience with moves of pulses in a quick quantization; see `pvq_hw.quantizer.options`."""

_PLACED_ROUNDS = 4  # of quantization, each with fewer pulses where there were too many
_PLACED_ROOM = 0.99  # of the words, for codes that are not as long as they should be
_SHARED_NODES = (Add, AveragePool, MaxPool, Function)  # that one engine for all layers computes too
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
    goal: int = 0,
    reckoned: bool = False,
    refuse: bool = True,
) -> tuple[Network, Folding]:
    """Lanes first, since the quantizer spreads the pulses evenly over them; then the network.

    ``quick`` as `quantizer_options` has it; ``goal`` is the cycles a frame that are asked for, and
    ``reckoned`` whether to reckon, as `pvq_hw.plan.folding.fold` takes them. ``refuse`` says
    whether what can't fit is looked for first.
    """
    steps = network_steps(model)
    names = [step.name for step in steps if step.weighted]
    options = options.resolved(names)
    data = None if calibration is None else calibration.x
    wanted, free = quantizer_options(options, quick=quick), options.free(names)

    asked = _asked(model, steps, target, options, names) | {"goal": goal, "reckoned": reckoned}
    may_share = can_share(model, options)
    if options.quantizer == "given":
        network = quantize(model, wanted, calibration=data, progress=_told(progress, names, 0))
        known = known_layers(network, options.codes(names))
        return network, fold_network(known, target, may_share=may_share, **asked)
    # The pulses of each layer decide its lanes, and its lanes decide where pulses may be.
    totals = layer_pulses(model, wanted)
    layers = _fold_layers(steps, model.input_name, options, totals)
    given = data is not None or options.quantizer == "plain"  # else it is refused for that
    if given and refuse and not quick and not free and not options.shares:
        check_room(
            model, target, wanted, data, layers,
            codes=options.codes(names), lanes=asked["lanes"], each=asked["each"],
            may_share=may_share, frames=asked["frames"] or 1, windows=options.windows,
        )  # fmt: skip
    if options.quantizer == "calibrated":
        pulses = row_budget(model, data, wanted, progress=_told(progress, names, 0))
        totals |= {name: int(k.sum()) for name, k in pulses.items()}
        layers = _fold_layers(steps, model.input_name, options, totals)
        wanted = replace(wanted, pulses=pulses)
    folding = fold_network(layers, target, free=free, may_share=may_share, **asked)
    banks = _balanced(folding.banks, options)
    folding = replace(folding, balanced=tuple(name in banks for name in folding.names))
    # The other layers keep their pulses: none gets those that 8-bit weights make needless.
    unasked = {name: LayerChoice(encoding="int8") for name in folding.reasons}
    wanted = replace(
        wanted,
        layers=dict(options.layers) | unasked,
        banks=banks,
        max_gap=folding.max_gap,
        shared_sums=_of_wired(folding, options.share_sums / 100),
        gain_digits=_of_wired(folding, options.gain_digits),
    )
    told = _told(progress, names, len(names))
    network = quantize(model, wanted, calibration=data, progress=told)
    return network, folding


def _of_wired(folding: Folding, value: _T) -> dict[str, _T]:
    """A value for each layer in wires, unless it is 0."""
    wired = [name for name in folding.names if folding.engine(name) == Unrolled.kind]
    return {name: value for name in wired if value}


def _asked(
    model: Model, steps: Sequence[Step], target: Target, options: CompileOptions, names: list[str]
) -> dict[str, Any]:
    """What a folding is asked for."""
    return {
        "lanes": asked_lanes(names, options),
        "each": options.asked(names, target.engine),
        "reserve": _reserve(model, steps, target, options),
        "windows": options.windows,
        "stream_width": options.stream_width,
        "digit": options.digit,
        "input_width": options.input_width,
        "pace": _ends_pace(model, options),
        "frames": options.frames if isinstance(options.frames, int) else None,
    }


def can_share(model: Model, options: CompileOptions) -> bool:
    """Whether one engine may be taken for all layers unasked: nothing speaks against it in the
    options, and each layer has weights, or is a pooling, a function or a sum."""
    steps = network_steps(model)
    if any(not (step.weighted or isinstance(step.node, _SHARED_NODES)) for step in steps):
        return False
    return options.engine == "auto" and options.may_share


def _ends_pace(model: Model, options: CompileOptions) -> int:
    """Cycles between frames that no layer need be faster than: those of the network's ends."""
    taken = math.prod(model.input_shape) // options.input_width
    return max(taken, math.prod(model.output_shape) // options.output_width)


def _told(
    progress: Progress | None, names: Sequence[str], done: int
) -> Callable[[str, float], None] | None:
    """Progress by layers, ``done`` of three times as many as there are: to measure, to quantize and
    to refine a layer take about as long."""
    if progress is None:
        return None
    count = 3 * len(names)

    def told(layer: str, part: float) -> None:
        if layer in names:
            place = names.index(layer) + part
        else:
            place = len(names) * (part + (layer == "all layers"))
        progress(min(done + place, count), count, layer)

    return told


def estimate(model: Model, target: Target, options: CompileOptions) -> Folding:
    """Lanes, memories and cycles that the planner would choose before quantization, with a pulse a
    row at least."""
    steps = network_steps(model)
    weights = [step.weight for step in steps if step.weighted]
    most = sum(w.size for w in weights) / sum(len(w) for w in weights)
    options = replace(options, ratio=min(options.ratio, most))
    totals = layer_pulses(model, quantizer_options(options))
    layers = _fold_layers(steps, model.input_name, options, totals)
    reserve = _reserve(model, steps, target, options)
    each = options.asked([layer.name for layer in layers], target.engine)
    return fold_best(layers, target, reserve=reserve, each=each, pace=_ends_pace(model, options))


def reckon(model: Model, target: Target, options: CompileOptions) -> Folding:
    """What the planner would choose before quantization, reckoned in a fraction of a second."""
    steps = network_steps(model)
    names = [step.name for step in steps if step.weighted]
    options = options.resolved(names)
    totals = layer_pulses(model, quantizer_options(options), _favored(steps))
    layers = _fold_layers(steps, model.input_name, options, totals)
    return fold_network(
        layers, target, may_share=can_share(model, options), reckoned=True,
        **_asked(model, steps, target, options, names),
    )  # fmt: skip


def _favored(steps: Sequence[Step]) -> dict[str, float]:
    """How many times its share of the pulses a convolution gets, as calibration favors it: the
    more, the more positions share its weights."""
    windows = {s.name: s.node.shape[:2] for s in steps if isinstance(s.node, Conv)}
    return {name: float(math.prod(shape)) ** _FAVOR for name, shape in windows.items()}


def fold_layers(
    model: Model, target: Target, ratio: float
) -> tuple[list[FoldLayer], Resources, int]:
    """The layers of any network before quantization; what the rest takes; and the cycles between
    frames that no layer need be faster than.

    Pulses are shared as they are without data, convolutions favored as calibration favors them.
    """
    steps, options = network_steps(model), CompileOptions(ratio=ratio)
    pulses = layer_pulses(model, quantizer_options(options), _favored(steps))
    layers = _fold_layers(steps, model.input_name, options, pulses)
    return layers, _reserve(model, steps, target, options), _ends_pace(model, options)


def asked_lanes(names: Sequence[str], options: CompileOptions) -> list[int | None] | None:
    """Lanes of every layer, None where the user gave none."""
    if options.lanes is not None:
        if len(options.lanes) != len(names):
            raise InputError(f"Lanes must be given for {len(names)} layers, not {options.lanes}")
        return list(options.lanes)
    given = [options.layers[name].lanes if name in options.layers else None for name in names]
    return None if all(p is None for p in given) else given


def _reserve(
    model: Model, steps: Sequence[Step], target: Target, options: CompileOptions
) -> Resources:
    """What the board's top and the units without weights take, about."""
    units = sum(not step.weighted for step in steps)
    size = math.prod(model.shape) * -(-options.activation_bits // 8)
    top = top_resources(target, size, options.updatable, options.live, options.measure)
    return top + units_reserve(units, target.engine)


def _balanced(banks: dict[str, int], options: CompileOptions) -> dict[str, int]:
    """Banks of the layers whose pulses may be spread over them: those with a gain per row, in
    all of whose columns pulses may be."""
    free = {n for n, c in options.layers.items() if not _may_balance(c)}
    given = {n for n, c in options.layers.items() if c.k is not None and c.k % banks.get(n, 1)}
    return {name: p for name, p in banks.items() if name not in free | given}


def _may_balance(choice: LayerChoice) -> bool:
    """Whether a layer's rows may be held to as many pulses in every lane."""
    return choice.balanced and choice.unit in (None, "row") and not choice.keep_zeros


def _fold_layers(
    steps: Sequence[Step], source: str, options: CompileOptions, pulses: dict[str, int]
) -> list[FoldLayer]:
    """The layers with weights as far as they are known before quantization."""
    formats = _formats(steps, source, options.activation_bits)
    codes = options.codes([step.name for step in steps if step.weighted])
    columns = PLAIN_COLUMNS_PER_BANK if options.quantizer == "plain" else None
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
                window_pulses=options.window_pulses,
                balanced=choice is None or _may_balance(choice),
                reads=step.inputs[0],
                gives=step.output,
                then=_passed_after(step, steps, formats),
            )
        )
    return layers


def _passed_after(
    step: Step, steps: Sequence[Step], formats: Mapping[str, IntFormat]
) -> tuple[Passed, ...]:
    """The steps without weights between one with weights and the next."""
    found = []
    for other in steps[steps.index(step) + 1 :]:
        if other.weighted:
            break
        node = other.node
        shape = (1, 1, *node.shape)[-3:]
        found.append(
            Passed(
                node.name, node.op, other.inputs, other.output, (shape[0], shape[1], shape[2]),
                formats[other.output], getattr(node, "geometry", None),
            )
        )  # fmt: skip
    return tuple(found)


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


def quantize_placed(
    model: Model,
    plan: Plan,
    before: Network,
    options: CompileOptions,
    calibration: Data | None,
    pulses: Mapping[str, int],
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Network:
    """The network of a model in the circuit of an updatable plan: with its lanes, code widths and
    shifts, and ``pulses`` in each layer, or fewer where codes came out longer than there are words.
    What sums and means read and give has the scales of ``before``, the plan's network.

    ``options`` are those that the plan came from; ``note`` is told of pulses given up. Whether all
    fits is for `pvq_hw.plan.plan.remake` to say. Raises InputError where the layers are others.
    """
    steps = network_steps(model)
    weighted = {step.name: step for step in steps if step.weighted}
    parts = {part.layer: part for part in plan.layers}
    _check_same(weighted, parts)
    options = options.resolved(list(weighted))
    totals = {name: max(pulses[name], part.spec.rows) for name, part in parts.items()}
    most = {name: _most_pulses(part) for name, part in parts.items()}
    for _ in range(_PLACED_ROUNDS):
        wanted = _placed_options(steps, parts, totals, options, model.input_name)
        wanted = replace(wanted, scales=_fixed_scales(before))
        data = None if calibration is None else calibration.x
        if options.quantizer == "calibrated":
            found = row_budget(model, data, wanted, progress=_told(progress, list(parts), 0))
            multiples = {name: (wanted.banks or {}).get(name, 1) for name in found}
            # Rounding to the banks brings rows nearer to their mean, none beyond the most.
            held = {n: max(1, most[n] // m * m) for n, m in multiples.items()}
            wanted = replace(wanted, pulses={n: np.minimum(k, held[n]) for n, k in found.items()})
        told = _told(progress, list(parts), len(parts))
        network = quantize(model, wanted, calibration=data, progress=told)
        excess = _excess(network, parts)
        if not excess or options.quantizer == "given":
            return network
        for name, (words, sums) in excess.items():
            most[name] = max(1, int(_PLACED_ROOM * most[name] / sums)) if sums > 1 else most[name]
            if words > 1:
                total = max(parts[name].spec.rows, int(_PLACED_ROOM * totals[name] / words))
                note(f"Layer {name!r} gets {total:,} pulses instead of {totals[name]:,}, to fit")
                totals[name] = total
    return network


def _check_same(weighted: Mapping[str, Step], parts: Mapping[str, LayerPlan]) -> None:
    """Raises InputError unless a model has the layers of a plan, in order."""
    if list(weighted) != list(parts):
        raise InputError(
            f"The model must have the layers {', '.join(parts)} as the placed design, "
            f"not {', '.join(weighted)}"
        )
    for name, step in weighted.items():
        spec, (rows, n) = parts[name].spec, step.weight.shape
        if (rows, n * node_groups(step.node)) != (spec.rows, spec.n):
            raise InputError(
                f"Layer {name!r} must have {spec.rows} x {spec.n} weights as in the placed design, "
                f"not {rows} x {n * node_groups(step.node)}"
            )


def _placed_options(
    steps: Sequence[Step],
    parts: Mapping[str, LayerPlan],
    totals: Mapping[str, int],
    options: CompileOptions,
    source: str,
) -> QuantizerOptions:
    """What a placed design asks of the quantizer."""
    chosen = {}
    for name, part in parts.items():
        choice = options.layers.get(name, LayerChoice())
        if part.encoding == "int8":
            chosen[name] = LayerChoice(encoding="int8")
        elif choice.k is not None:
            chosen[name] = choice
        else:
            chosen[name] = replace(choice, ratio=part.weights / totals[name])
    folds = {fold.name: fold for fold in _fold_layers(steps, source, options, dict(totals))}
    pulses = {n: part.spec for n, part in parts.items() if part.spec.banked}
    lanes = {
        n: s.lanes for n, s in pulses.items() if s.lanes > 1 and can_balance(folds[n], s.lanes)
    }
    banks = _balanced(lanes, replace(options, layers=chosen))
    gaps = {n: max(1, (1 << pulses[n].gap_bits) - 2) for n in banks}
    return replace(
        quantizer_options(options),
        layers=chosen,
        banks=banks,
        max_gap={n: gap for n, gap in gaps.items() if folds[n].geometry is None},
        placed={
            n: PlacedLayer(part.spec.mult_bits, part.spec.shift, part.spec.out.bits)
            for n, part in parts.items()
        },
    )


def _fixed_scales(network: Network) -> dict[str, float]:
    """Scales of the tensors around layers with multipliers, or thresholds, that are constants of
    their circuit."""
    tensors = network.tensors()
    found: dict[str, float] = {}
    for layer in network.layers:
        scaled = layer.scaling(*(tensors[name] for name in layer.inputs))
        if isinstance(layer, Above) or (layer.weights is None and scaled):
            names = (*layer.inputs, layer.output.name)
            found |= {name: tensors[name].scale for name in names}
    return found


def _most_pulses(part: LayerPlan) -> int:
    """The largest K of a row that the accumulator is made for."""
    spec = part.spec
    return ((1 << (spec.acc_bits - 1)) - 1) // (spec.x.max_abs + (not spec.x.signed))


def _excess(network: Network, parts: Mapping[str, LayerPlan]) -> dict[str, tuple[float, float]]:
    """Code words of a layer and the largest of its rows' sums, each as a part of the room for it;
    only layers in which one of the two is above 1."""
    found = {}
    for layer in core_layers(network):
        spec = parts[layer.name].spec
        if isinstance(spec, CoreSpec):
            interval = spec.multiplier_interval
            codes = spec.code.encode(layer.dense.y, spec.groups, min_slots=interval)
            sums = int(sums_of_pulses(spec.code, codes.words)[1].max(initial=1))
            need = codes.slots / spec.words, sums / _most_pulses(parts[layer.name])
            if max(need) > 1:
                found[layer.name] = need
    return found
