"""Lanes, codes and memories of every layer: as fast as the device allows.

The interval between frames is that of the slowest layer, so every layer needs only keep pace. The
search is exact over the choices of `pvq_hw.plan.candidates`: it finds the shortest interval at
which some choice for every layer fits the budget, and of those choices the cheapest. Before
quantization the choices come from synthetic codes of a sample of rows. Layers whose engine is free
are folded first; some are unrolled where that makes the network faster.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd
from typing import Any

from pvq_hw.engine.batch import FLUSH_CYCLES
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.engines import AUTO, ENGINES, Folded, Shared, Unrolled, engine_named
from pvq_hw.engine.unrolled_core import check_digit
from pvq_hw.errors import InputError
from pvq_hw.plan import depthwise, unrolled  # noqa: F401 (engines register themselves)
from pvq_hw.plan.candidates import (
    COARSE_LANES,
    FINE_LANES,
    Choice,
    FoldLayer,
    Question,
    abreast,
    can_balance,
    coarse_lanes,
    core_options,
    engine_limit,
    finer_lanes,
    known_layers,
    lanes_between,
    layer_choices,
    offered,
    sparse_lanes,
    with_engines,
    with_serial,
)
from pvq_hw.plan.resources import Resources, budget, load_resources, top_resources
from pvq_hw.plan.search import Found, cheaper, price, search, shortfall
from pvq_hw.plan.windows import check_side
from pvq_hw.target.boards import Target

__all__ = [
    "NO_FASTER",
    "FoldLayer",
    "Folding",
    "batch_options",
    "dense_reason",
    "fold",
    "fold_best",
    "known_layers",
]

_FRAMES = (2, 3, 4, 6, 8, 12, 16)  # V that are tried
_FEWER_CYCLES = 1.03  # times as many frames a second, for which a larger V is taken
_WORTH = 0.95  # of the cycles: serial multipliers, and codes that have to be loaded, save so much
_MUCH_FASTER = 0.85  # times the cycles, down to which numbers of lanes are tried one by one
_FEW_MORE = 1.04  # times the cycles, where these cost much less
_WIRES_WORTH = 0.95  # the same of layers whose new weights need synthesis
_WIRES_CHEAPER = 0.9  # of the price of reaching a goal without them
_FOLDS = 0.97  # of the price: what a layer in wires must save where a goal is reached
_FOLDS_AT_MOST = 1.1  # times the price, where wires make the network no faster
_MARGIN = 0.95  # of the LUTs, where a convolution's codes are not known yet

NO_FASTER = "no more was asked for"
"""What limits choices that are as fast as their goal."""


@dataclass(frozen=True)
class Folding:
    """Lanes and code of every layer, and the interval that they should give.

    Parameters
    ----------
    names : tuple of str
    lanes : tuple of int
    gap_bits : tuple of int
        None for convolutions whose codes are not known yet: these are left to the plan.
    memories : tuple of dict
        Options of `make_core`: which memories are block RAM and which are logic, whether pulses are
        shifted, and whether the multiplier is serial for want of DSP blocks.
    slots : tuple of int
        Estimated slot words of a frame (of a window).
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
    limit : str
        Which layer or part of the device stops it from being faster.
    engine_reasons : mapping of layer name to str
        Why a layer is folded or unrolled, where that was free.
    goal : int
        Cycles between frames that were asked for.
    engines : tuple of CoreBase
        Those that several layers share, in order, as they are reckoned.
    """

    names: tuple[str, ...]
    lanes: tuple[int, ...]
    gap_bits: tuple[int | None, ...]
    memories: tuple[dict[str, Any], ...]
    slots: tuple[int, ...]
    interval_cycles: int
    fits: bool
    balanced: tuple[bool, ...]
    frames: int = 1
    cost: Resources = field(default_factory=Resources)
    reasons: Mapping[str, str] = field(default_factory=dict)
    limit: str = ""
    engine_reasons: Mapping[str, str] = field(default_factory=dict)
    goal: int = 0
    engines: tuple[CoreBase, ...] = ()

    def engine(self, name: str) -> str:
        """The engine of a layer, one of `pvq_hw.engine.engines.ENGINES`."""
        chosen = dict(zip(self.names, self.memories, strict=True)).get(name, {})
        return str(chosen.get("engine", Folded.kind))

    @property
    def shared(self) -> bool:
        """Whether all layers are on one engine."""
        return all(own.get("engine") == Shared.kind for own in self.memories)

    @property
    def banks(self) -> dict[str, int]:
        """Lanes by layer, as `pvq_hw.quantizer.quantize.quantize` takes ``banks``; only balanced
        layers."""
        layers = zip(self.names, self.lanes, self.balanced, strict=True)
        return {name: p for name, p, balanced in layers if balanced and p > 1}

    @property
    def max_gap(self) -> dict[str, int]:
        """Largest gap that needs no escape, for those layers of `banks` that are held to one."""
        gaps = zip(self.names, self.gap_bits, strict=True)
        held = {name: max(1, (1 << bits) - 2) for name, bits in gaps if bits is not None}
        return {name: held[name] for name in self.banks if name in held}


def fold(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    balanced: bool = True,
    held: bool = True,
    lanes: Sequence[int | None] | None = None,
    gap_bits: Sequence[int | None] | None = None,
    reserve: Resources | None = None,
    frames: int = 1,
    serial: bool = True,
    windows: int | None = None,
    stream_width: int | None = None,
    digit: int | None = None,
    input_width: int = 1,
    each: Mapping[str, Mapping[str, Any]] | None = None,
    pace: int = 0,
    slowest: str = "",
    goal: int = 0,
    reckoned: bool = False,
    engines: Sequence[Sequence[Choice]] = (),
    **options: Any,
) -> Folding:
    """Chooses lanes, gap bits and kinds of memory, before or after quantization.

    Parameters
    ----------
    layers : sequence of FoldLayer
        In order.
    target : Target
    balanced : bool
        Whether the quantizer will place as many pulses into every bank (`Folding.banks` is what it
        needs for that). Lanes are then so few that a bank of a row has 2 pulses or more.
    held : bool
        Whether it will place none beyond the largest gap of dense layers (`Folding.max_gap`).
    lanes, gap_bits : sequence of int, optional
        Of every layer, where they are given; None for a layer whose lanes or gap bits are free.
    reserve : Resources, optional
        Kept free; what the board's top takes by default.
    frames : int
        V: frames side by side in the last layers (`pvq_hw.plan.candidates.abreast`), one after the
        other at the ends of these if ``serial``.
    windows : int, optional
        V of the convolutions of pulses, as far as a row of their maps has windows; free unless
        given.
    stream_width : int, optional
        Results a transfer of all layers that can give several; free unless given.
    digit : int, optional
        Bits a cycle of the adders of all unrolled layers, 0 for all at once; free unless given.
    input_width : int
        Activations a transfer at the network's input.
    each : mapping of layer name to options, optional
        Of `make_core`, for single layers, ``windows``, ``stream_width`` and ``digit``.
    pace : int
        Cycles between frames that are short enough; 0 for as few as can be.
    slowest : str
        What cannot be faster than ``pace``, for `Folding.limit`.
    goal : int
        Cycles between frames that are asked for: the cheapest choices that keep to them are taken
        where there are any, and no faster ones; 0 for as few as can be.
    reckoned : bool
        Whether to reckon, which takes some hundredths of the time: cores without codes, and fewer
        numbers of lanes tried.
    engines : sequence of sequences of Choice
        For each engine that other layers share, what there is to choose from.
    **options
        The same for all layers, for instance ``shift_bits``.
    """
    check_digit(digit, "Unrolled layers")
    asked = {x.name: options | dict((each or {}).get(x.name, {})) for x in layers}
    layers = _with_widths(with_engines(layers, asked), asked)
    options.pop("engine", None)
    wanted = _wanted(layers, lanes)
    gaps = [None] * len(layers) if gap_bits is None else list(gap_bits)
    if len(gaps) != len(layers):
        raise InputError(f"Gap bits must be given for {len(layers)} layers, not {len(gaps)}")
    last, sides = len(layers) - 1, batch_options(layers, frames, serial)
    first = sides.index(next(filter(None, sides))) if frames > 1 else -1
    questions = [
        Question(
            target,
            tuple(sorted((options | side | _core_options(each, layer)).items())),
            gap,
            balanced,
            held and layer.geometry is None,
            ends=(frames if serial and i == first else 1, frames if serial and i == last else 1),
            turns=1 if side else frames,
            reckoned=reckoned,
            windows=_of(each, layer.name).get("windows", windows),
            width=_width(layer, _of(each, layer.name), stream_width),
            feed=input_width if i == 0 else None,
            digit=_of(each, layer.name).get("digit", digit),
        )
        for i, (layer, gap, side) in enumerate(zip(layers, gaps, sides, strict=True))
    ]
    reserve = _top(target, layers[0]) if reserve is None else reserve
    if goal > pace:
        pace, slowest = goal, NO_FASTER
    task = _Task(
        layers, questions, wanted, target, reserve, frames * pace, frames * goal, engines
    )  # fmt: skip
    found, choices = task.run()
    folding = _folding(task, found, frames, balanced, task.limit(found, choices, slowest))
    return replace(folding, goal=goal)


def _folding(task: "_Task", found: Found, frames: int, balanced: bool, limit: str) -> Folding:
    """What the choices of a task are together."""
    layers = task.layers
    picked = found.choices
    specs = [choice.spec for choice in picked]
    even = (
        layer.given is None and balanced and spec.banked and can_balance(layer, spec.lanes)
        for layer, spec in zip(layers, specs, strict=True)
    )
    return Folding(
        names=tuple(layer.name for layer in layers),
        lanes=tuple(spec.lanes for spec in specs),
        gap_bits=tuple(
            None if layer.given is None and layer.geometry is not None else spec.gap_bits
            for layer, spec in zip(layers, specs, strict=True)
        ),
        memories=tuple(_told(choice) for choice in picked),
        slots=tuple(spec.words for spec in specs),
        interval_cycles=found.interval,
        fits=found.fits,
        balanced=tuple(even),
        frames=frames,
        cost=found.cost + task.reserve,
        engines=tuple(choice.spec for choice in found.engines),
        limit=limit,
        engine_reasons=task.engine_reasons,
    )


class _Task:
    """One folding: layers, what is asked of each, lanes that are given, and the budget."""

    def __init__(
        self,
        layers: Sequence[FoldLayer],
        questions: Sequence[Question],
        wanted: Sequence[int | None],
        target: Target,
        reserve: Resources,
        pace: int,
        goal: int = 0,
        engines: Sequence[Sequence[Choice]] = (),
    ) -> None:
        self.goal, self.engines = goal, engines
        self.layers, self.questions, self.wanted = layers, questions, wanted
        self.target, self.reserve, self.pace = target, reserve, pace
        self.budget = budget(target)
        self.engine_reasons: dict[str, str] = {}
        if any(layer.given is None and layer.geometry is not None for layer in layers):
            self.budget = replace(self.budget, luts=int(self.budget.luts * _MARGIN))

    def run(self) -> tuple[Found, list[list[Choice]]]:
        """The best choices, and all that they were chosen from."""
        parts = list(zip(self.layers, self.questions, self.wanted, strict=True))
        choices = [layer_choices(layer, _tried(layer, q) if p is None else [p], q)
                   + (offered(layer, q, self.budget.luts, wired=False) if p is None else [])
                   for layer, q, p in parts]  # fmt: skip
        folded = self._refined(self._search(choices), choices)
        return self._mixed(*folded)

    def _refined(
        self, found: Found, choices: list[list[Choice]]
    ) -> tuple[Found, list[list[Choice]]]:
        """Searches again, with more numbers of lanes around those that were chosen."""
        parts = list(zip(self.layers, self.questions, self.wanted, strict=True))
        every = (*choices, *self.engines)
        floor = max(self.pace, *(min(choice.cycles for choice in own) for own in every))
        for _ in range(1 if self.questions[0].reckoned else 2):
            more = [
                finer_lanes(choice.lanes, layer, q.balanced)
                if p is None and choice.engine.laned
                else []
                for choice, (layer, q, p) in zip(found.choices, parts, strict=True)
            ]
            if found.fits and found.interval > floor:
                cycles = _MUCH_FASTER * found.interval, found.interval
                most = COARSE_LANES if self.questions[0].reckoned else FINE_LANES
                more = [
                    sorted({*few, *lanes_between(own, layer, cycles, q.balanced, most)})
                    if p is None
                    else few
                    for few, own, (layer, q, p) in zip(more, choices, parts, strict=True)
                ]
            tried = [{choice.lanes for choice in own} for own in choices]
            new = [[p for p in own if p not in old] for own, old in zip(more, tried, strict=True)]
            if not any(new):
                break
            choices = [
                own + (layer_choices(layer, finer, q) if finer else [])
                for own, finer, (layer, q, _) in zip(choices, new, parts, strict=True)
            ]
            found = self._search(choices)
        return found, choices

    def _mixed(self, found: Found, choices: list[list[Choice]]) -> tuple[Found, list[list[Choice]]]:
        """Layers in wires too, where these save a twentieth of the cycles, or a tenth of the price
        of a goal that is reached, and no more of them than it takes for that: new weights of a
        folded layer need no synthesis."""
        wires = [
            offered(layer, q, self.budget.luts, wired=True) if p is None else []
            for layer, q, p in zip(self.layers, self.questions, self.wanted, strict=True)
        ]
        best = found
        if any(wires):
            mixed = [own + new for own, new in zip(choices, wires, strict=True)]
            best = self._search(mixed)
            faster = best.interval < _WIRES_WORTH * found.interval or self._reaches(best, found)
            smaller = self._met(found) and self._price(best) < _WIRES_CHEAPER * self._price(found)
            if best.fits and (not found.fits or faster or smaller):
                best, choices = self._refined(*self._fewest(best, mixed, wires))
            else:
                best = found
        self._explain(found, best, wires)
        return best, choices

    def _fewest(
        self, best: Found, mixed: list[list[Choice]], wires: list[list[Choice]]
    ) -> tuple[Found, list[list[Choice]]]:
        """Folds what the network is no slower and about as large with, the layers of most weights
        first; where it reaches its goal, what saves too little as wires."""
        most = _FOLDS_AT_MOST * self._price(best)
        order = sorted(range(len(mixed)), key=lambda i: -self.layers[i].rows * self.layers[i].n)
        for i in order:
            if not best.choices[i].engine.wired or not wires[i]:
                continue
            fewer = [[c for c in own if i != j or c not in wires[i]]
                     for j, own in enumerate(mixed)]  # fmt: skip
            again = self._search(fewer)
            if self._met(best):
                kept = self._met(again) and self._price(again) <= self._price(best) / _FOLDS
            else:
                fast = again.fits and again.interval <= best.interval
                kept = fast and self._price(again) <= most
            if kept:
                best, mixed = again, fewer
        return best, mixed

    def _met(self, found: Found) -> bool:
        """Whether choices fit and reach the goal."""
        return found.fits and found.interval <= self.goal

    def _price(self, found: Found) -> float:
        return price(found.cost, self.budget - self.reserve)

    def _explain(self, folded: Found, best: Found, wires: list[list[Choice]]) -> None:
        """Why each layer whose engine was free is folded or unrolled."""
        cells = f"{self.target.logic_cell}s"
        wired = " or ".join(kind for kind, engine in ENGINES.kinds().items() if engine.wired)
        for layer, choice, own, p in zip(
            self.layers, best.choices, wires, self.wanted, strict=True
        ):
            if layer.engine != AUTO or p is not None:
                continue
            engine = choice.engine
            text = f"too large to be {wired}"
            if engine.wired:
                text = self._why_wired(folded, best)
            elif not engine.laned:
                text = "faster or smaller than in lanes"
            elif own:
                no = "smaller" if self._met(best) else "faster"
                text = (
                    f"{own[0].engine.kind}, with about {own[0].cost.luts:,} {cells}, it would make "
                    f"the network no {no}"
                )
            self.engine_reasons[layer.name] = f"{engine.kind}: {text}"

    def _why_wired(self, folded: Found, best: Found) -> str:
        """What the network would lose with all layers folded."""
        start = "with all layers folded"
        if not folded.fits:
            return f"{start} the network would not fit"
        if best.interval < folded.interval:
            cycles = f"{folded.interval:,} cycles, not {best.interval:,}"
            return f"{start} a frame would take about {cycles}"
        luts = [sum(choice.cost.luts for choice in of.choices) for of in (folded, best)]
        cells = f"{self.target.logic_cell}s, not {luts[1]:,}"
        return f"{start} the cores would take about {luts[0]:,} {cells}"

    def _search(self, choices: list[list[Choice]]) -> Found:
        """Serial multipliers and codes in SPRAM only where that saves 5 % of the cycles, or where
        nothing fits without; a few cycles more where these cost much less."""
        free = self.budget - self.reserve
        choices = [*choices, *map(list, self.engines)]
        plain = [[c for c in own if not c.cost.sprams] for own in choices]
        tried: list[tuple[Found, list[list[Choice]], Resources]] = []
        if all(plain):
            tried.append((search(plain, free, self.pace), plain, free))
            serial = self._serial(plain)
            if serial != plain:
                tried.append((search(serial, free, self.pace), serial, free))
            plain = serial
        if plain != choices and self.target.device.sprams:
            loaded = self._serial(choices)
            room = free - load_resources(self.target)
            tried.append((search(loaded, room, self.pace), loaded, room))
        count = len(self.layers)
        if not tried:
            return search(choices, free, self.pace).split(count)
        best = tried[0]
        for other in tried[1:]:
            if _better(best[0], other[0]) is other[0] or self._reaches(other[0], best[0]):
                best = other
        found, own, room = best
        least = min((f.interval for f, *_ in tried if f.fits), default=found.interval)
        most = min(_FEW_MORE * found.interval, least / _WORTH)
        if found.interval <= self.goal:
            most = self.goal
        return cheaper(own, room, found, most).split(count)

    def _serial(self, choices: list[list[Choice]]) -> list[list[Choice]]:
        """The choices of layers and engines, and of layers those with serial multipliers."""
        pairs = zip(choices, self.questions, strict=False)
        return [with_serial(own, q) for own, q in pairs] + choices[len(self.questions) :]

    def _reaches(self, found: Found, other: Found) -> bool:
        """Whether the first reaches the goal that the other misses."""
        return self._met(found) and not self._met(other)

    def limit(self, found: Found, choices: list[list[Choice]], slowest: str) -> str:
        """What stops the choices from being faster, in one line."""
        if not found.fits:
            return ""
        every = [*choices, *map(list, self.engines)]
        floors = [min(choice.cycles for choice in own) for own in every]
        if max(floors) >= found.interval:
            return self._layer_limit(floors.index(max(floors)), found)
        if self.pace >= found.interval:
            return slowest
        all_of = self._serial(every)
        loads = any(choice.cost.sprams for choice in (*found.choices, *found.engines))
        if not loads:
            all_of = [[c for c in own if not c.cost.sprams] for own in all_of]
        room = self.budget - self.reserve
        room -= load_resources(self.target) if loads else Resources()
        cycles, need = shortfall(all_of, room, found.interval)
        total = self.budget - room
        names = {
            "luts": f"{self.target.logic_cell}s",
            "brams": "block RAMs",
            "dsps": "multiplier blocks",
            "sprams": "SPRAMs",
        }
        texts = [
            f"{getattr(total, key) + count:,} {names[key]}, of which {getattr(self.budget, key):,} "
            "may be used"
            for key, count in need.items()
        ]
        what = texts[0] if len(texts) == 1 else " or ".join(texts)
        fewer = 100 * (1 - cycles / found.interval)
        return f"{fewer:.0f} % fewer cycles would take about {what}" if texts else ""

    def _layer_limit(self, index: int, found: Found) -> str:
        if index >= len(self.layers):
            return "no engine of the layers that share one is faster"
        layer, question, choice = self.layers[index], self.questions[index], found.choices[index]
        own = engine_limit(
            choice.engine, layer, question, choice, found.interval, self.wanted[index] is not None
        )
        return f"layer {layer.name!r} {own}"


def _told(choice: Choice) -> dict[str, Any]:
    """What was chosen besides lanes and gap bits, as options of `make_layer_core`."""
    engine = choice.engine
    return ({} if engine.laned else {"engine": engine.kind}) | core_options(choice.spec)


def _tried(layer: FoldLayer, question: Question) -> list[int]:
    lanes = sparse_lanes if question.reckoned else coarse_lanes
    return lanes(layer, question.balanced)


def _better(a: Found, b: Found) -> Found:
    """``b`` where it saves enough."""
    if b.fits > a.fits:
        return b
    if not b.fits:
        return b if not a.fits and b.excess < a.excess else a
    return b if b.interval < _WORTH * a.interval else a


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
        V; without it the one of most frames a second, the least of those within 3 %. 1 where the
        last layer takes one frame at a time.
    free : collection of str
        Layers that may get 8-bit weights, if they have more pulses than weights and these make
        the network no slower and no larger.
    """
    layers = with_engines(layers, asked.get("each") or {})
    if frames is None:
        best = fold(layers, target, **asked)
        for v in _FRAMES if abreast(layers) else ():
            found = fold(layers, target, frames=v, **asked)
            faster = found.interval_cycles * best.frames * _FEWER_CYCLES
            if found.fits and (not best.fits or faster < best.interval_cycles * v):
                best = found
    else:
        best = fold(layers, target, frames=frames, **asked)
    for layer in layers if best.frames == 1 else ():
        if layer.name not in free or layer.encoding != "pvq" or layer.k < layer.columns:
            continue
        if not engine_named(best.engine(layer.name)).laned:
            continue
        others = [replace(x, encoding="int8") if x is layer else x for x in layers]
        found = fold(others, target, **(asked | {"pace": best.interval_cycles}))
        limit = budget(target)
        if (
            found.fits >= best.fits
            and found.interval_cycles <= best.interval_cycles
            and _share(found.cost, limit) <= _share(best.cost, limit)
        ):
            reasons = dict(best.reasons) | {layer.name: dense_reason(layer.k, layer.columns)}
            layers, best = others, replace(fold(others, target, **asked), reasons=reasons)
    return best


def dense_reason(k: int, n: int) -> str:
    """What a plan says of a layer that got 8-bit weights unasked."""
    return (
        f"8-bit weights: rows of {n:,} weights were to have {k:,} pulses, which are neither faster "
        "nor smaller"
    )


def batch_options(
    layers: Sequence[FoldLayer], frames: int, serial: bool = True
) -> list[dict[str, int]]:
    """Options of `make_core` for every layer of a network some of whose cores take ``frames``: the
    last ones, of which the first makes the batches if ``serial``.

    Raises InputError, with the layer and what it lacks, where the last takes one frame at a time.
    """
    if frames == 1:
        return [{} for _ in layers]
    count = abreast(layers)
    if not count:
        raise InputError(
            f"Layer {layers[-1].name!r} takes one frame at a time, not {frames} side by side: "
            "only dense layers of pulses at a network's end take several, and it has "
            f"{_kind(layers[-1])}"
        )
    sides = [{"frames": frames} for _ in range(count)]
    if serial:
        sides[0]["flush_cycles"] = FLUSH_CYCLES
    return [{} for _ in layers[count:]] + sides


def _kind(layer: FoldLayer) -> str:
    if layer.geometry is not None:
        return "kind conv"
    if not layer.computed_in.laned:
        return layer.computed_in.weights
    return (
        "8-bit weights" if layer.encoding != "pvq" else "results that go to a layer without weights"
    )


def _share(cost: Resources, limit: Resources) -> float:
    return cost.luts / limit.luts + cost.brams / limit.brams


def _of(each: Mapping[str, Mapping[str, Any]] | None, name: str) -> dict[str, Any]:
    """What is asked of a layer's core; its engine is the layer's own."""
    return {key: value for key, value in (each or {}).get(name, {}).items() if key != "engine"}


def _core_options(each: Mapping[str, Mapping[str, Any]] | None, layer: FoldLayer) -> dict[str, Any]:
    """What is asked of a layer's core; raises InputError where it can't take as many windows."""
    asked = _of(each, layer.name)
    side = asked.pop("windows", None)
    width = asked.pop("stream_width", None)
    asked.pop("digit", None)
    if side is not None:
        kind = "pulses" if layer.encoding == "pvq" else "8-bit weights"
        kind = kind if layer.computed_in.laned else layer.computed_in.weights
        check_side(layer.name, layer.geometry, kind, side)
    if width is not None:
        _check_width(layer, width, side)
    return asked


def _check_width(layer: FoldLayer, width: int, side: int | None) -> None:
    """Raises InputError, with what the layer lacks, unless it can give so many results a
    transfer."""
    if width < 1 or layer.rows % width:
        raise InputError(
            f"Layer {layer.name!r}: results a transfer must divide its {layer.rows:,} rows, "
            f"not {width}"
        )
    if width == 1 or layer.engine == Unrolled.kind:
        return
    reason = ""
    if layer.encoding != "pvq":
        reason = "it has 8-bit weights in lanes"
    if not layer.computed_in.laned:
        reason = f"it is {layer.engine}"
    if side == 1 or (layer.geometry is not None and layer.geometry.output_size[1] == 1):
        reason = "its windows are computed one at a time"
    if layer.geometry is None:
        reason = "it is dense and folded"
    if reason:
        raise InputError(
            f"Layer {layer.name!r} must give one result a transfer, not {width}: {reason}"
        )


def _width(layer: FoldLayer, asked: Mapping[str, Any], all_of: int | None) -> int | None:
    """Results a transfer where they are not free: what is asked of all layers, as far as it divides
    the rows, of those that can."""
    if "stream_width" in asked:
        return int(asked["stream_width"])
    if all_of is None:
        return None
    folded = layer.geometry is not None and layer.encoding == "pvq"
    able = layer.engine == Unrolled.kind or (
        folded and (layer.engine == AUTO or layer.computed_in.laned)
    )
    return gcd(all_of, layer.rows) if able else None


def _with_widths(
    layers: Sequence[FoldLayer], asked: Mapping[str, Mapping[str, Any]]
) -> list[FoldLayer]:
    """Unrolled where the engine is free and only unrolled layers give as many results as asked, or
    have the digits that are asked of the layer."""
    found = []
    for layer in layers:
        own = asked.get(layer.name, {})
        digit = own.get("digit")
        check_digit(digit, f"Layer {layer.name!r}")
        if digit is not None and layer.engine not in (AUTO, Unrolled.kind):
            raise InputError(
                f"Layer {layer.name!r} is {layer.engine}: only unrolled layers add digit by digit"
            )
        folded = layer.geometry is not None and layer.encoding == "pvq"
        wide = own.get("stream_width", 1) > 1 and not folded
        unroll = layer.engine == AUTO and (wide or digit is not None)
        found.append(replace(layer, engine=Unrolled.kind) if unroll else layer)
    return found


def _wanted(layers: Sequence[FoldLayer], lanes: Sequence[int | None] | None) -> list[int | None]:
    """Lanes of every layer, None where they are free; those that are not folded have all."""
    if not layers:
        raise InputError("A network must have at least one layer with weights")
    if lanes is None:
        lanes = [None] * len(layers)
    if len(lanes) != len(layers):
        raise InputError(f"Lanes must be given for {len(layers)} layers, not {len(lanes)}")
    for layer, p in zip(layers, lanes, strict=True):
        if p is not None and not 1 <= p <= layer.n:
            raise InputError(f"Layer {layer.name!r}: lanes must be 1 to {layer.n}, not {p}")
    return [p if x.computed_in.laned else x.n for x, p in zip(layers, lanes, strict=True)]


def _top(target: Target, first: FoldLayer) -> Resources:
    return top_resources(target, first.n * -(-first.x.bits // 8))
