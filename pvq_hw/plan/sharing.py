"""Which layers share an engine, and which have cores of their own or are wires: by hand, or as the
planner chooses."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pvq_hw.engine.engines import Shared, engine_named
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted
from pvq_hw.plan.candidates import Choice, FoldLayer
from pvq_hw.plan.core_parts import grouped
from pvq_hw.plan.folding import Folding, fold, fold_best
from pvq_hw.plan.lowering import frame_fifo
from pvq_hw.plan.resources import Resources, budget
from pvq_hw.plan.search import price
from pvq_hw.plan.shared import engine_choices, engine_layers, shared_folding
from pvq_hw.plan.shared_steps import SharedStep, reckoned_steps
from pvq_hw.plan.unit_resources import unit_resources, units_reserve
from pvq_hw.target.boards import Target
from pvq_hw.target.families import family

__all__ = ["engine_options", "fold_groups", "fold_network", "shared_groups"]

Steps = Callable[[int], Sequence[SharedStep]]

_MUCH_SMALLER = 0.85  # times what others take: engines that layers share are chosen for that
_MUCH_FASTER = 0.95  # times their cycles: the same
_FULL = 0.8  # of a part of the device, from which others may be faster in the same room
_MOST_SIDE = 4  # positions of a map that an engine computes at once
_FIRST_SPLITS = 3  # numbers of first layers without an engine that are tried, in any case
_MOST_SPLITS = 10  # sizes of a group that are tried at either end
_CROWDED = 1.15  # times the LUTs there are: other engines than lanes don't save as much
_OF_ENGINES = ("code_memory", "flash_bits", "multiplier")  # that those of several layers have


def shared_groups(
    names: Sequence[str], asked: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, ...]]:
    """Layers by the engines that they are asked to share, as options of single layers say."""
    kinds = [asked.get(name, {}).get("engine") for name in names]
    free = (None, "auto")
    return grouped(names, [k not in free and not engine_named(str(k)).for_one for k in kinds])


def engine_options(group: Sequence[str], asked: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is asked of the engine of a group; raises InputError unless all its layers ask the
    same, and nothing that engines of several layers haven't got."""
    each = [{k: v for k, v in asked.get(name, {}).items() if k != "engine"} for name in group]
    for name, own in zip(group, each, strict=True):
        if own != each[0]:
            raise InputError(
                f"Layers {quoted(group[0])} and {quoted(name)} share an engine: options must be "
                "the same for both"
            )
    for key in each[0]:
        if key not in _OF_ENGINES:
            raise InputError(f"Layer {quoted(group[0])} is on a shared engine: it has no {key}")
    if each[0].get("code_memory") == "flash":
        raise InputError(
            f"Layer {quoted(group[0])} shares an engine with some of the layers: only one of all "
            "has its codes from the flash"
        )
    return each[0]


def fold_groups(
    layers: Sequence[FoldLayer],
    target: Target,
    groups: Sequence[Sequence[str]],
    *,
    steps: Mapping[str, Steps] | None = None,
    passed: Resources | None = None,
    best: Callable[..., Folding] = fold_best,
    **asked: Any,
) -> Folding:
    """Engines for groups of layers, and a core for each of the others: the fewest cycles that fit
    together, or the cheapest choices that keep to a goal.

    Parameters
    ----------
    layers, target, **asked
        As `pvq_hw.plan.folding.fold_best` takes them.
    groups : sequence of sequences of str
        Layers that follow one another, not all.
    steps : mapping of str to callable, optional
        By the first layer of a group, what its engine does, where that is known.
    passed : Resources, optional
        What is kept free for steps without weights that the engines do themselves; reckoned unless
        given.
    best : callable
        `pvq_hw.plan.folding.fold_best`, or `pvq_hw.plan.folding.fold`.

    Raises
    ------
    InputError
        A layer can't be on a shared engine, or a group isn't one part of the network.
    """
    shared = {name for group in groups for name in group}
    parts = [[x for x in layers if x.name in group] for group in groups]
    inner = [_inner(layers, part) for part in parts]
    if passed is None:
        count = sum(len(x.then) for part in inner for x in part)
        passed = units_reserve(count, target.engine)
    at = [i for i, x in enumerate(layers) if x.name not in shared]
    each = asked.get("each") or {}
    reserve = (asked.get("reserve") or passed) - passed
    lanes, gaps = asked.get("lanes"), asked.get("gap_bits")
    engines, options = [], []
    for part, own in zip(parts, inner, strict=True):
        first = layers.index(part[0])
        options.append(engine_options([x.name for x in part], each))
        engines.append(
            _part_choices(
                own, target, first > 0, reserve, (steps or {}).get(part[0].name),
                lanes[first : first + len(part)] if lanes else None,
                gaps[first] if gaps else None, options[-1],
            )
        )  # fmt: skip
    kept = {key: [asked[key][i] for i in at] for key in ("lanes", "gap_bits") if asked.get(key)}
    folding = best(
        [layers[i] for i in at], target, engines=engines,
        **(asked | kept | {"reserve": reserve, "frames": 1}),
    )  # fmt: skip
    return _whole(layers, parts, folding, options)


def _inner(layers: Sequence[FoldLayer], part: Sequence[FoldLayer]) -> list[FoldLayer]:
    """The layers of a part, without the steps behind the last one; raises InputError unless it has
    one input and one output, as far as that is known."""
    inner = [*part[:-1], replace(part[-1], then=())]
    if not all(layer.gives for layer in layers):
        return inner
    passed = [step for layer in inner for step in layer.then]
    given = {*(x.gives for x in part), *(step.output for step in passed)} - {part[-1].gives}
    names = {*(x.name for x in inner), *(step.name for step in passed)}
    readers: list[tuple[str, tuple[str, ...]]] = [(x.name, (x.reads,)) for x in layers]
    readers += [(step.name, step.inputs) for layer in layers for step in layer.then]
    for name, reads in readers:
        if name not in names and given & set(reads):
            raise InputError(
                f"Layer {quoted(part[-1].name)} can't share an engine with "
                f"{quoted(part[0].name)}: layer {quoted(name)} reads what is between them, and an "
                "engine has one output"
            )
    return inner


def _part_choices(
    layers: Sequence[FoldLayer],
    target: Target,
    buffered: bool,
    reserve: Resources,
    steps: Steps | None,
    lanes: Sequence[int | None] | None,
    gap_bits: int | None,
    options: Mapping[str, Any],
) -> list[Choice]:
    """Engines for a part, each with the FIFO of a frame that it needs where something is before
    it."""
    if layers[-1].geometry is not None:
        raise InputError(
            f"Layer {quoted(layers[-1].name)} can't be the last on a shared engine: it gives a map"
        )
    maps = any(x.geometry is not None for x in layers)
    stored = replace(target, flash=())  # which only an engine of all layers reads codes from
    found = engine_choices(
        layers, stored, lanes=lanes, gap_bits=None if maps else gap_bits, reserve=reserve,
        steps=steps or (lambda side: reckoned_steps(layers, side)), **options,
    )  # fmt: skip
    if not buffered:
        return found
    device = family(target.engine)

    def with_fifo(choice: Choice) -> Choice:
        if not choice.spec.alternates:
            return choice
        fifo = frame_fifo(choice.spec.x, choice.spec.n, device)
        return replace(choice, cost=choice.cost + unit_resources(fifo, target.engine))

    return [with_fifo(choice) for choice in found]


def _whole(
    layers: Sequence[FoldLayer],
    parts: Sequence[Sequence[FoldLayer]],
    folding: Folding,
    options: Sequence[Mapping[str, Any]],
) -> Folding:
    """What a folding of the other layers, and its engines, say of all layers."""
    of_engine = {
        x.name: own
        for part, spec, asked in zip(parts, folding.engines, options, strict=True)
        for x, own in zip(part, engine_layers(part, spec, asked), strict=True)
    }
    at = {name: i for i, name in enumerate(folding.names)}

    def told(key: str, of_folding: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            getattr(of_engine[x.name], key) if x.name in of_engine else of_folding[at[x.name]]
            for x in layers
        )

    return replace(
        folding,
        names=tuple(x.name for x in layers),
        lanes=told("lanes", folding.lanes),
        gap_bits=told("gap_bits", folding.gap_bits),
        memories=told("memories", folding.memories),
        slots=told("slots", folding.slots),
        balanced=told("balanced", folding.balanced),
    )


def fold_network(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    shared: bool = False,
    may_share: bool = False,
    passed: Resources | None = None,
    best: Callable[..., Folding] = fold_best,
    **asked: Any,
) -> Folding:
    """A core a layer, one engine for all, or engines for groups of layers.

    Parameters
    ----------
    layers, target, **asked
        As `pvq_hw.plan.folding.fold_best` takes them; layers of whose engine ``each`` says
        ``"shared"`` are on one with their neighbors.
    shared : bool
        One for all was asked for.
    may_share : bool
        It is taken where a core a layer doesn't fit; or where both keep to a goal, and it takes
        much less.
    passed : Resources, optional
        What is kept free for steps without weights, which engines do themselves; reckoned unless
        given.
    best : callable
        `fold_best`, or `pvq_hw.plan.folding.fold`.
    """
    each = asked.get("each") or {}
    groups = shared_groups([layer.name for layer in layers], each)
    if groups and len(groups[0]) < len(layers):
        return fold_groups(layers, target, groups, passed=passed, best=best, **asked)
    shared = shared or bool(groups)
    crowded = may_share and asked.get("reckoned") and _crowded(layers, target, best, asked)
    if not shared and not crowded:
        found = best(layers, target, **asked)
        enough = found.fits and not asked.get("goal")
        if not may_share or (enough and (asked.get("reckoned") or not _full(found, target))):
            return found
    options = {key: value for part in each.values() for key, value in part.items()}
    options = {key: options[key] for key in _OF_ENGINES if key in options}
    if passed is None:
        passed = units_reserve(sum(len(layer.then) for layer in layers), target.engine)
    reserve = (asked.get("reserve") or passed) - passed
    wanted: dict[str, Any] = {
        "lanes": asked.get("lanes"),
        "reserve": reserve,
        "goal": asked.get("goal", 0),
    }
    if shared:
        return shared_folding(layers, target, **wanted, **options)
    several = None if crowded else found
    most = _most_cycles([several], wanted["goal"])
    one = None
    if _least_cycles(layers, target) <= most:
        one = _one_engine(layers, target, wanted, options)
    most = _most_cycles([several, one], wanted["goal"])
    few = bool(asked.get("reckoned")) or (several is not None and several.fits)
    some = _best_groups(layers, target, best, asked, most, few)
    chosen = _chosen([several, one, some], target, wanted["goal"])
    if chosen is None or chosen is several:
        return several or best(layers, target, **asked)
    text = _why_shared(several, one if chosen is some else some, chosen, wanted["goal"])
    on_engines = [x for x in chosen.names if chosen.engine(x) == Shared.kind]
    reasons = {**chosen.engine_reasons, **dict.fromkeys(on_engines, f"{Shared.kind}: {text}")}
    return replace(chosen, engine_reasons=reasons)


def _one_engine(
    layers: Sequence[FoldLayer], target: Target, wanted: dict[str, Any], options: dict[str, Any]
) -> Folding | None:
    """All layers on one engine; None where they can't be or don't fit."""
    try:
        one = shared_folding(layers, target, **wanted, **options)
    except InputError:
        return None
    return one if one.fits else None


def _most_cycles(found: Sequence[Folding | None], goal: int) -> float:
    """Cycles up to which another plan is worth a look, beside some that there are."""
    known = [x.interval_cycles for x in found if x is not None and x.fits]
    return max(_MUCH_FASTER * min(known), goal) if known else math.inf


def _full(found: Folding, target: Target) -> bool:
    """Whether a plan is as fast as it is for want of room."""
    limit = budget(target)
    return any(getattr(found.cost, k) > _FULL * getattr(limit, k) for k in ("luts", "brams"))


def _chosen(found: Sequence[Folding | None], target: Target, goal: int) -> Folding | None:
    """The best of some that fit, in order: a later one where it saves enough, which is cycles, or
    of the price where a goal is reached; None where none fits."""
    limit, best = budget(target), None
    for own in found:
        if own is None or not own.fits:
            continue
        if best is None:
            best = own
            continue
        met = [x.interval_cycles <= goal for x in (best, own)]
        cheap = price(own.cost, limit) <= _MUCH_SMALLER * price(best.cost, limit)
        faster = own.interval_cycles < _MUCH_FASTER * best.interval_cycles
        if (all(met) and cheap) or (not all(met) and (met[1] or (not met[0] and faster))):
            best = own
    return best


def _why_shared(several: Folding | None, other: Folding | None, chosen: Folding, goal: int) -> str:
    """What speaks for engines that layers share."""
    if several is not None and several.fits and chosen.interval_cycles <= goal:
        return "as fast as asked, and much smaller than one core a layer"
    text = "one core a layer would not fit"
    if several is not None and several.fits:
        text = f"with one core a layer a frame would take about {several.interval_cycles:,} cycles"
    if other is not None and other.fits and not chosen.shared:
        text += f"; on one engine for all about {other.interval_cycles:,} cycles"
    return text


def _crowded(
    layers: Sequence[FoldLayer], target: Target, best: Callable[..., Folding], asked: dict[str, Any]
) -> bool:
    """Whether a core a layer can't fit, each of one lane: there is no need to search then."""
    least = best(layers, target, **(asked | {"lanes": [1] * len(layers)}))
    return least.cost.luts > _CROWDED * budget(target).luts


# -- which layers -------------------------------------------------------------------------------


def _least_cycles(layers: Sequence[FoldLayer], target: Target) -> int:
    """Cycles of a frame that an engine of some layers can't do without: a pulse for each block RAM
    of a bank, and windows of two channels a cycle, of as many positions at once as there may be."""
    lanes, total = target.device.brams, 0
    for layer in layers:
        cycles = layer.positions * layer.rows * layer.k // lanes
        if layer.geometry is not None:
            (high, wide), stride = layer.geometry.kernel, layer.geometry.stride[0]
            patch = (high + (_MOST_SIDE - 1) * stride) * wide * layer.geometry.input_shape[2]
            cycles = max(cycles, layer.positions * patch // (2 * _MOST_SIDE))
        total += cycles
    return total


def _best_groups(
    layers: Sequence[FoldLayer],
    target: Target,
    best: Callable[..., Folding],
    asked: dict[str, Any],
    most: float,
    few: bool,
) -> Folding | None:
    """The best of the plans in which some layers, that follow one another, share an engine, and
    others have cores of their own or are wires; None where none fits in ``most`` cycles.

    Tried are the last layers, of as many sizes as `_MOST_SPLITS`, and those beside the best of
    them, then as many first layers; reckoned, and the best one in full. With ``few`` only all but
    few first layers are.
    """
    count, goal = len(layers), asked.get("goal", 0)
    tried: dict[tuple[int, int], Folding | None] = {}

    def reckoned(part: tuple[int, int]) -> Folding | None:
        if part not in tried and _least_cycles(layers[slice(*part)], target) > most:
            tried[part] = None
        if part not in tried:
            tried[part] = _with_group(layers, target, part, fold, asked | {"reckoned": True})
        return tried[part]

    def spread(parts: Sequence[tuple[int, int]]) -> None:
        few = min(len(parts), _MOST_SPLITS)
        for number in range(few):
            reckoned(parts[number * len(parts) // few])

    def leading() -> tuple[int, int] | None:
        ranked = [
            (x.interval_cycles > goal, price(x.cost, budget(target)) if goal else 0,
             x.interval_cycles, part)
            for part, x in tried.items() if x is not None and x.fits
        ]  # fmt: skip
        return min(ranked)[-1] if ranked else None

    for a in range(1, min(count - 1, _FIRST_SPLITS + 1)):
        reckoned((a, count))
    if not few:
        spread([(a, count) for a in range(1, count - 1)])
        spread([(0, b) for b in range(2, count)])
    part = leading()
    if part is None or asked.get("reckoned"):
        return None if part is None else tried[part]
    for a in (part[0] - 1, part[0] + 1):
        if 0 < a < count - 1 and part[1] == count and not few:
            reckoned((a, count))
    part = leading()
    assert part is not None
    return _with_group(layers, target, part, best, asked)


def _with_group(
    layers: Sequence[FoldLayer],
    target: Target,
    part: tuple[int, int],
    best: Callable[..., Folding],
    asked: dict[str, Any],
) -> Folding | None:
    """The plan in which the layers from one up to another share an engine; None where they can't,
    or it can't fit."""
    names = [layer.name for layer in layers[slice(*part)]]
    if layers[part[1] - 1].geometry is not None:
        return None
    rest = [layer for layer in layers if layer.name not in names]
    asked = {key: value for key, value in asked.items() if key != "free" or best is fold_best}
    alone = asked | {"lanes": [1] * len(rest), "reckoned": True, "frames": 1}
    alone.pop("free", None)
    if fold(rest, target, **alone).cost.luts > _CROWDED * budget(target).luts:
        return None
    each = dict(asked.get("each") or {})
    each |= {name: {**each.get(name, {}), "engine": Shared.kind} for name in names}
    try:
        found = fold_groups(layers, target, [names], best=best, **(asked | {"each": each}))
    except InputError:
        return None
    return found if found.fits else None
