"""Lanes per layer: as fast as the device allows, every layer about as long as the others.

The interval between frames is that of the slowest layer, so every layer gets the fewest lanes
with which it keeps pace; the interval is the shortest whose total fits the budget. Costs come
from real codes of a sample of rows, scaled to all of them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from pvq_hw.batch import FLUSH_CYCLES
from pvq_hw.core import CoreSpec
from pvq_hw.core_base import CoreBase
from pvq_hw.errors import InputError
from pvq_hw.folding_choices import (
    Choice,
    Source,
    Stage,
    laplacian_pulses,
    some_rows,
    stage_choices,
)
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.numeric import IntFormat
from pvq_hw.quantizer_balance import can_balance
from pvq_hw.resources import (
    Resources,
    budget,
    core_resources,
    load_resources,
    top_resources,
)
from pvq_hw.targets import Target

__all__ = [
    "FoldLayer",
    "Folding",
    "batch_options",
    "core_options",
    "dense_reason",
    "fold",
    "fold_best",
    "fold_layers",
    "serial_choices",
    "synthetic_layer",
]

_FAR_GAPS = 2.75  # times the mean gap: 6 % of the gaps of random pulses are larger
_PULSES_PER_BANK = 2  # of a row; at 2 and 3, network A at N/K=20 lost 0.1 points of its accuracy
_MEMORIES = ("code_memory", "fifo_memory", "params_memory", "bank_memory", "bank_latency")
_MULTIPLIER_SHARE = 0.1  # of a LUT's weight: multiplier blocks stand idle otherwise
_FRAMES = (2, 3, 4, 6, 8, 12, 16)  # V that are tried
_FEWER_CYCLES = 1.03  # times as many frames a second, for which a larger V is taken
_WEIGHTINGS = ((1, 1), (1, 8), (8, 1))  # of LUTs and block RAMs, where both are to be saved


@dataclass(frozen=True)
class FoldLayer:
    """A layer as far as it is known before quantization.

    Parameters
    ----------
    name : str
    rows, n : int
    k : int
        Pulses of a row.
    x, out : IntFormat
    encoding : str
        ``"pvq"``, or ``"int8"`` for plain weights, which K says nothing of.
    code : str, optional
        ``"pulse"`` or ``"shifted"``; free unless given.
    """

    name: str
    rows: int
    n: int
    k: int
    x: IntFormat
    out: IntFormat
    encoding: str = "pvq"
    code: str | None = None

    def __post_init__(self) -> None:
        where = f"Layer {self.name!r}"
        if self.rows < 1 or self.n < 1:
            raise InputError(f"{where} must have rows and columns, not {self.rows} x {self.n}")
        if self.k < 1:
            raise InputError(f"{where}: K must be at least 1, not {self.k}")


@dataclass(frozen=True)
class Folding:
    """Lanes and code of every layer, and the interval that they should give.

    Parameters
    ----------
    names : tuple of str
    lanes, gap_bits : tuple of int
    memories : tuple of dict
        Options of `make_core`: which memories are block RAM and which are logic, whether pulses are
        shifted, and whether the multiplier is serial for want of DSP blocks.
    slots : tuple of int
        Estimated slot words of a frame.
    interval_cycles : int
        Estimated.
    fits : bool
        Whether the estimates are within the target's budget.
    balanced : tuple of bool
        Of every layer, whether the lanes are meant to have as many pulses each.
    frames : int
        V.
    cost : Resources
        Of all cores and what was kept free, estimated.
    reasons : mapping of layer name to str
        Why a layer has the code that it has, where there is something to say.
    """

    names: tuple[str, ...]
    lanes: tuple[int, ...]
    gap_bits: tuple[int, ...]
    memories: tuple[dict[str, Any], ...]
    slots: tuple[int, ...]
    interval_cycles: int
    fits: bool
    balanced: tuple[bool, ...]
    frames: int = 1
    cost: Resources = field(default_factory=Resources)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def banks(self) -> dict[str, int]:
        """Lanes by layer, as `pvq_hw.quantizer.quantize` takes ``banks``; only balanced layers."""
        layers = zip(self.names, self.lanes, self.balanced, strict=True)
        return {name: p for name, p, balanced in layers if balanced and p > 1}

    @property
    def max_gap(self) -> dict[str, int]:
        """Largest gap that needs no escape, for the layers of `banks`."""
        gaps = dict(zip(self.names, self.gap_bits, strict=True))
        return {name: max(1, (1 << gaps[name]) - 2) for name in self.banks}


def fold(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    balanced: bool = True,
    lanes: Sequence[int] | None = None,
    reserve: Resources | None = None,
    frames: int = 1,
    each: Mapping[str, Mapping[str, Any]] | None = None,
    pace: int = 0,
    **options: Any,
) -> Folding:
    """Chooses lanes and gap bits before quantization.

    Parameters
    ----------
    layers : sequence of FoldLayer
        In order.
    target : Target
    balanced : bool
        Whether the quantizer will place as many pulses into every bank, none beyond the largest
        gap (`Folding.banks` and `Folding.max_gap` are what it needs for that). Lanes are then so
        few that a bank of a row has 2 pulses or more.
    lanes : sequence of int, optional
        Of every layer, where they are given.
    reserve : Resources, optional
        Kept free; what the board's top takes by default.
    frames : int
        V: frames side by side in the cores, one after the other at the ends.
    each : mapping of layer name to options, optional
        Of `make_core`, for single layers.
    pace : int
        Cycles between frames that are short enough; 0 for as few as can be.
    **options
        The same for all layers, for instance ``shift_bits``.
    """
    wanted = _wanted([layer.name for layer in layers], [layer.n for layer in layers], lanes)
    stages = [
        stage_choices(
            Source(
                layer.name,
                layer.n,
                layer.rows,
                partial(synthetic_layer, layer, balanced),
                _FAR_GAPS * layer.n / layer.k if balanced else 0.0,
                _most_lanes(layer, balanced),
                _transfers(i, len(layers), layer.n, layer.rows, frames),
                layer.code,
            ),
            p,
            None,
            target,
            options | batch_options(i, frames) | dict((each or {}).get(layer.name, {})),
        )
        for i, (layer, p) in enumerate(zip(layers, wanted, strict=True))
    ]
    folding = _fold(stages, target, reserve or _top(target, layers[0].n, layers[0].x), pace)
    even = (
        balanced and x.encoding == "pvq" and can_balance(x.k, x.n, p)
        for x, p in zip(layers, folding.lanes, strict=True)
    )
    return replace(folding, balanced=tuple(even), frames=frames)


def fold_best(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    frames: int | None = 1,
    free: Collection[str] = (),
    **asked: Any,
) -> Folding:
    """`fold`, with what else may be chosen.

    Parameters
    ----------
    layers, target, **asked
        As `fold` takes them.
    frames : int, optional
        V; without it the one of most frames a second, the least of those within 3 %.
    free : collection of str
        Layers that may get 8-bit weights, if they have more pulses than weights and these make
        the network no slower and no larger.
    """
    if frames is None:
        plain = any(layer.encoding == "int8" for layer in layers)
        best = fold(layers, target, **asked)
        for v in () if plain else _FRAMES:
            found = fold(layers, target, frames=v, **asked)
            faster = found.interval_cycles * best.frames * _FEWER_CYCLES
            if found.fits and (not best.fits or faster < best.interval_cycles * v):
                best = found
    else:
        best = fold(layers, target, frames=frames, **asked)
    for layer in layers if best.frames == 1 else ():
        if layer.name not in free or layer.encoding != "pvq" or layer.k < layer.n:
            continue
        others = [replace(x, encoding="int8") if x is layer else x for x in layers]
        found = fold(others, target, pace=best.interval_cycles, **asked)
        limit = budget(target)
        if (
            found.fits >= best.fits
            and found.interval_cycles <= best.interval_cycles
            and _share(found.cost, limit) <= _share(best.cost, limit)
        ):
            reasons = dict(best.reasons) | {layer.name: dense_reason(layer.k, layer.n)}
            layers, best = others, replace(fold(others, target, **asked), reasons=reasons)
    return best


def dense_reason(k: int, n: int) -> str:
    """What a plan says of a layer that got 8-bit weights unasked."""
    return (
        f"8-bit weights: rows of {n:,} weights were to have {k:,} pulses, which are neither faster "
        "nor smaller"
    )


def _share(cost: Resources, limit: Resources) -> float:
    return cost.luts / limit.luts + cost.brams / limit.brams


def fold_layers(
    layers: Sequence[Dense],
    inputs: Sequence[TensorSpec],
    target: Target,
    *,
    lanes: Sequence[int] | None = None,
    gap_bits: Sequence[int] | None = None,
    reserve: Resources | None = None,
    frames: int = 1,
    codes: Mapping[str, str] | None = None,
    each: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> Folding:
    """Chooses what is not given for layers that are quantized already; see `fold`.

    ``codes`` says ``"pulse"`` or ``"shifted"`` for the layers where that is not free.
    """
    wanted = _wanted([x.name for x in layers], [x.y.shape[1] for x in layers], lanes)
    gaps: list[int | None] = [None] * len(layers) if gap_bits is None else list(gap_bits)
    if len(gaps) != len(layers):
        raise InputError(f"Gap bits must be given for {len(layers)} layers, not {len(gaps)}")
    stages = []
    for i, (layer, x, p, gap) in enumerate(zip(layers, inputs, wanted, gaps, strict=True)):
        rows, n = layer.y.shape
        transfers = _transfers(i, len(layers), n, rows, frames)
        sample = partial(_given, some_rows(layer), x)
        kind = (codes or {}).get(layer.name)
        source = Source(layer.name, n, rows, sample, transfers=transfers, code=kind)
        asked = options | batch_options(i, frames) | dict((each or {}).get(layer.name, {}))
        stages.append(stage_choices(source, p, gap, target, asked))
    found = _fold(stages, target, reserve or _top(target, inputs[0].size, inputs[0].format))
    return replace(found, frames=frames)


def batch_options(index: int, frames: int, serial: bool = True) -> dict[str, int]:
    """Options of `make_core` for the layer's place in a chain whose cores take ``frames``."""
    if frames == 1:
        return {}
    return {"frames": frames} | ({"flush_cycles": FLUSH_CYCLES} if serial and index == 0 else {})


def _transfers(index: int, count: int, n: int, rows: int, frames: int) -> int:
    """Cycles that a batch takes to come to a layer or to go: one after the other at the ends."""
    return max(n * (frames if index == 0 else 1), rows * (frames if index == count - 1 else 1))


def _most_lanes(layer: FoldLayer, balanced: bool) -> int:
    """Lanes worth a try: as many as leave pulses to every bank."""
    if not balanced or layer.encoding == "int8":
        return layer.n
    return max(1, layer.k // _PULSES_PER_BANK)


def _wanted(names: list[str], sizes: list[int], lanes: Sequence[int] | None) -> list[int | None]:
    if not names:
        raise InputError("A network must have at least one layer")
    if lanes is None:
        return [None] * len(names)
    if len(lanes) != len(names):
        raise InputError(f"Lanes must be given for {len(names)} layers, not {len(lanes)}")
    for name, n, p in zip(names, sizes, lanes, strict=True):
        if not 1 <= p <= n:
            raise InputError(f"Layer {name!r}: lanes must be 1 to {n}, not {p}")
    return list(lanes)


def _top(target: Target, n: int, x: IntFormat) -> Resources:
    return top_resources(target, n * -(-x.bits // 8))


def _given(layer: Dense, x: TensorSpec, lanes: int, gap: int | None) -> tuple[Dense, TensorSpec]:
    return layer, x


def synthetic_layer(
    layer: FoldLayer, balanced: bool, lanes: int, gap: int | None
) -> tuple[Dense, TensorSpec]:
    """A layer like those that a quantizer gives, with fewer rows."""
    banked = balanced and can_balance(layer.k, layer.n, lanes)
    max_gap = (1 << gap) - 2 if banked and gap is not None and gap > 1 else None
    if layer.encoding == "int8":
        y = np.tile([-127, 127], (1, layer.n))[:, : layer.n]
    else:
        y = laplacian_pulses(layer.n, layer.k, lanes if banked else 1, max_gap)
    count = len(y)
    dense = Dense(
        name=layer.name,
        input="x",
        output=TensorSpec("y", (count,), layer.out, 1.0),
        y=y,
        mult=np.full((count, 1), 1 if layer.out.binary else 0x6000, dtype=np.int64),
        bias=np.full(count, 1 << 22, dtype=np.int64),
        shift=24,
        gain=np.ones((count, 1)),
        encoding=layer.encoding,
    )
    return dense, TensorSpec("x", (layer.n,), layer.x, 1.0)


def _fold(stages: list[Stage], target: Target, reserve: Resources, pace: int = 0) -> Folding:
    """The shortest interval whose choices fit; without one, the choices that are least over.

    Codes go into SPRAM, which has to be loaded, only where the network fits in no other way.
    """
    kept = [_without_spram(stage) for stage in stages]
    if all(stage.choices for stage in kept):
        found = _search(kept, target, reserve, pace)
        if found.fits:
            return found
        serial = _search([_with_serial(stage, target) for stage in kept], target, reserve, pace)
        if serial.fits or kept == stages:
            return serial if serial.fits else found
    return _search(stages, target, reserve + load_resources(target), pace)


def _with_serial(stage: Stage, target: Target) -> Stage:
    """The stage with serial multipliers as further choices: for a network of more layers than DSP
    blocks. They take LUTs and bound the clock of a small device."""
    more = [] if stage.asked else serial_choices(stage.choices, target)
    return replace(stage, choices=(*stage.choices, *more))


def serial_choices(choices: Sequence[Choice], target: Target) -> list[Choice]:
    """Those of the choices that take DSP blocks to requantize, with a serial multiplier instead."""
    more = []
    for choice in choices:
        spec = choice.spec
        if isinstance(spec, CoreSpec) and spec.multiplier_parts:
            interval = min(spec.mult_bits, spec.words // (spec.rows * spec.groups))
            serial = replace(spec, multiplier="serial", multiplier_interval=max(1, interval))
            more.append(Choice(serial, core_resources(serial, target.engine)))
    return more


def _without_spram(stage: Stage) -> Stage:
    return replace(stage, choices=tuple(c for c in stage.choices if not c.cost.sprams))


def _search(stages: list[Stage], target: Target, reserve: Resources, pace: int) -> Folding:
    limit = budget(target)
    floor = max(pace, *(stage.floor for stage in stages))
    intervals = {max(floor, choice.spec.words) for stage in stages for choice in stage.choices}
    best: tuple[float, int, list[Choice]] | None = None
    for interval in sorted(intervals):
        for weights in _WEIGHTINGS:
            for chosen in _cheapest(stages, interval, limit, weights):
                excess = _excess(sum((choice.cost for choice in chosen), reserve), limit)
                if best is None or excess < best[0]:
                    best = (excess, interval, chosen)
                if excess <= 0:
                    return _folding(stages, chosen, interval, True, reserve)
    assert best is not None  # at the longest interval every stage has a choice
    return _folding(stages, best[2], best[1], False, reserve)


def _cheapest(
    stages: list[Stage], interval: int, limit: Resources, weights: tuple[int, int]
) -> list[list[Choice]]:
    """The cheapest choices that keep pace, for each number of SPRAMs that they may take in all."""

    def price(choice: Choice) -> float:
        cost = choice.cost
        blocks = _MULTIPLIER_SHARE * cost.dsps / max(1, limit.dsps)
        return weights[0] * cost.luts / limit.luts + weights[1] * cost.brams / limit.brams + blocks

    best: dict[int, tuple[float, list[Choice]]] = {0: (0.0, [])}
    for stage in stages:
        following: dict[int, tuple[float, list[Choice]]] = {}
        options = [choice for choice in stage.choices if choice.spec.words <= interval]
        for used, (spent, chosen) in best.items():
            for choice in options:
                count = min(used + choice.cost.sprams, limit.sprams + 1)
                cost = spent + price(choice)
                if count not in following or cost < following[count][0]:
                    following[count] = (cost, [*chosen, choice])
        best = following
    return [best[used][1] for used in sorted(best)]


def _excess(total: Resources, limit: Resources) -> float:
    """How far the scarcest part is above the limit, relatively; 0 or less when all fit."""
    return max(
        total.luts / limit.luts - 1,
        total.brams / limit.brams - 1,
        (total.dsps - limit.dsps) / max(1, limit.dsps),
        (total.sprams - limit.sprams) / max(1, limit.sprams),
    )


def _folding(
    stages: list[Stage], picked: list[Choice], interval: int, fits: bool, reserve: Resources
) -> Folding:
    specs = [choice.spec for choice in picked]
    return Folding(
        names=tuple(stage.name for stage in stages),
        lanes=tuple(spec.lanes for spec in specs),
        gap_bits=tuple(spec.code.gap_bits if isinstance(spec, CoreSpec) else 1 for spec in specs),
        memories=tuple(core_options(spec) for spec in specs),
        slots=tuple(spec.words for spec in specs),
        interval_cycles=interval,
        fits=fits,
        balanced=(False,) * len(stages),
        cost=sum((choice.cost for choice in picked), reserve),
    )


def core_options(spec: CoreBase) -> dict[str, Any]:
    """What was chosen of a core besides lanes and gap bits, as options of `make_core`."""
    if isinstance(spec, CoreSpec):
        shifts = {"shift_bits": spec.code.shift_bits} if spec.code.shift_bits else {}
        serial = {"multiplier": "serial"} if spec.multiplier == "serial" else {}
        return {key: getattr(spec, key) for key in _MEMORIES} | shifts | serial
    return {key: getattr(spec, key) for key in (*_MEMORIES, "products")}
