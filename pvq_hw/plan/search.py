"""The shortest interval at which a choice for every layer fits, and the cheapest such choices.

For one interval the fit is a knapsack of four parts: over all layers, the fewest LUTs for every
number of block RAMs, multiplier blocks and SPRAMs. That is exact. A longer interval never fits
worse, so the shortest one is found by halving.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pvq_hw.plan.candidates import Choice, undominated
from pvq_hw.plan.resources import Resources

__all__ = ["Found", "cheaper", "price", "search", "shortfall"]

_FLIP_FLOP = 0.9  # LUTs: 85 % of these are for a plan, and 94 % of the flip-flops
_NONE = np.int64(1) << 40  # LUTs of what cannot be
_DSP_WEIGHT = 0.1  # of a LUT's: multiplier blocks stand idle otherwise
_CHEAPER = 0.8  # of the price: worth a slightly longer interval
_NOTABLE = 0.97  # of the cycles: a shorter interval that is worth telling of
# Of LUTs and block RAMs, in the search for what is least over the budget.
_WEIGHTINGS = ((1, 1), (1, 8), (8, 1))
_PARTS = ("brams", "dsps", "sprams")


@dataclass(frozen=True)
class Found:
    """Choices for all layers.

    Parameters
    ----------
    interval : int
        Cycles of the slowest, or the pace that was asked for.
    choices : list of Choice
    excess : float
        How far the scarcest part is above the budget, relatively; at most 0 where all fit.
    engines : list of Choice
        For engines that several layers share.
    """

    interval: int
    choices: list[Choice]
    excess: float = 0.0
    engines: list[Choice] = field(default_factory=list)

    @property
    def cost(self) -> Resources:
        """Of all choices."""
        return sum((choice.cost for choice in (*self.choices, *self.engines)), Resources())

    def split(self, layers: int) -> "Found":
        """The same with the choices behind those of so many layers as those of engines."""
        return replace(self, choices=self.choices[:layers], engines=self.choices[layers:])

    @property
    def fits(self) -> bool:
        """Whether the choices fit."""
        return self.excess <= 0


def search(choices: Sequence[Sequence[Choice]], room: Resources, pace: int = 0) -> Found:
    """The choices of the shortest interval, ``pace`` or longer, that fit into ``room``; without
    any, those that are least over."""
    intervals = _intervals(choices, pace)
    low, high = 0, len(intervals) - 1
    best: tuple[int, list[Choice]] | None = None
    while low <= high:
        middle = (low + high) // 2
        chosen = _Knapsack(choices, intervals[middle], room).cheapest(room)
        if chosen is None:
            low = middle + 1
        else:
            best, high = (intervals[middle], chosen), middle - 1
    if best is not None:
        return Found(*best)
    return _least_over(choices, intervals, room)


def cheaper(
    choices: Sequence[Sequence[Choice]], room: Resources, found: Found, most: float
) -> Found:
    """The choices of an interval of up to ``most`` cycles, where they cost a fifth less."""
    longer = [t for t in _intervals(choices, 0) if found.interval < t <= most]
    if not found.fits or not longer:
        return found
    chosen = _Knapsack(choices, longer[-1], room).cheapest(room)
    if chosen is None or _cost(chosen, room) > _CHEAPER * _cost(found.choices, room):
        return found
    return Found(max(choice.cycles for choice in chosen), chosen)


def _cost(choices: Sequence[Choice], room: Resources) -> float:
    return price(sum((choice.cost for choice in choices), Resources()), room)


def price(cost: Resources, room: Resources) -> float:
    """What something takes, in parts of what there is, added up."""
    parts = {"luts": 1.0, "brams": 1.0, "dsps": _DSP_WEIGHT, "sprams": 1.0}
    return sum(w * getattr(cost, key) / max(1, getattr(room, key)) for key, w in parts.items())


def shortfall(
    choices: Sequence[Sequence[Choice]], room: Resources, interval: int
) -> tuple[int, dict[str, int]]:
    """A shorter interval, and what it would take of the parts that are too few for it.

    Each part alone is taken as unlimited. Where one is enough, only the scarcest is named; where
    it takes more of several, all that the choices with the least LUTs lack.
    """
    shorter = [t for t in _intervals(choices, 0) if t < interval]
    if not shorter:
        return interval, {}
    cycles = max((t for t in shorter if t <= _NOTABLE * interval), default=shorter[-1])
    alone = {}
    for key in ("luts", *_PARTS):
        wide = Resources(**(vars(room) | {key: 4 * getattr(room, key) + 64}))
        if key == "luts":
            wide = Resources(**(vars(room) | {key: int(_NONE) - 1}))
        count = _Knapsack(choices, cycles, wide).least(key, wide)
        if count is not None and count > getattr(room, key):
            alone[key] = count
    if alone:
        key = min(alone, key=lambda k: alone[k] / max(1, getattr(room, k)))
        return cycles, {key: alone[key]}
    cost = sum((min(_within(own, cycles), key=_luts).cost for own in choices), Resources())
    over = {k: getattr(cost, k) for k in ("luts", *_PARTS) if getattr(cost, k) > getattr(room, k)}
    return cycles, over


def _luts(choice: Choice) -> int:
    """LUTs, or flip-flops where they are what a device with as many of both has too few of."""
    return max(choice.cost.luts, int(_FLIP_FLOP * choice.cost.ffs))


def _intervals(choices: Sequence[Sequence[Choice]], pace: int) -> list[int]:
    floor = max(pace, *(min(choice.cycles for choice in own) for own in choices))
    return sorted({max(floor, choice.cycles) for own in choices for choice in own})


def _within(own: Sequence[Choice], interval: int) -> list[Choice]:
    return [choice for choice in own if choice.cycles <= interval]


class _Knapsack:
    """The fewest LUTs for every number of the other parts, layer after layer."""

    def __init__(self, choices: Sequence[Sequence[Choice]], interval: int, room: Resources) -> None:
        self.size = tuple(max(0, getattr(room, key)) + 1 for key in _PARTS)
        self.stages: list[list[Choice]] = []
        self.picks: list[npt.NDArray[np.int16]] = []
        luts = np.full(self.size, _NONE)
        luts[0, 0, 0] = 0
        top = (0, 0, 0)  # the most of each part that those so far can take
        for own in choices:
            kept = _costs_unbeaten(_within(own, interval))
            following = np.full(self.size, _NONE)
            pick = np.full(self.size, -1, dtype=np.int16)
            for index, choice in enumerate(kept):
                used = _used(choice)
                if any(u >= s for u, s in zip(used, self.size, strict=True)):
                    continue
                ends = [min(t + 1, s - u) for t, u, s in zip(top, used, self.size, strict=True)]
                here = tuple(slice(u, u + end) for u, end in zip(used, ends, strict=True))
                cost = luts[tuple(map(slice, ends))] + _luts(choice)
                np.copyto(pick[here], index, where=cost < following[here])
                np.minimum(following[here], cost, out=following[here])
            self.stages.append(kept)
            self.picks.append(pick)
            luts = following
            most = (
                np.array([_used(choice) for choice in kept]).reshape(-1, 3).max(axis=0, initial=0)
            )
            top = tuple(
                min(t + int(m), s - 1) for t, m, s in zip(top, most, self.size, strict=True)
            )
        self.luts = luts

    def cheapest(self, room: Resources) -> list[Choice] | None:
        """Those that fit at the least price; None where none do."""
        fits = self.luts <= room.luts
        if not fits.any():
            return None
        b, d, s = np.indices(self.size)
        price = (
            self.luts / max(1, room.luts)
            + b / max(1, room.brams)
            + _DSP_WEIGHT * d / max(1, room.dsps)
            + s / max(1, room.sprams)
        )
        at = np.unravel_index(int(np.where(fits, price, np.inf).argmin()), self.size)
        place = [int(k) for k in at]
        chosen = []
        for kept, pick in zip(reversed(self.stages), reversed(self.picks), strict=True):
            choice = kept[int(pick[tuple(place)])]
            chosen.append(choice)
            place = [k - u for k, u in zip(place, _used(choice), strict=True)]
        return chosen[::-1]

    def least(self, key: str, room: Resources) -> int | None:
        """The least of one part with which all fit; None where they do not."""
        fits = self.luts <= room.luts
        if not fits.any():
            return None
        if key == "luts":
            return int(self.luts.min())
        return int(np.nonzero(fits)[_PARTS.index(key)].min())


def _used(choice: Choice) -> tuple[int, int, int]:
    return choice.cost.brams, choice.cost.dsps, choice.cost.sprams


def _costs_unbeaten(found: Sequence[Choice]) -> list[Choice]:
    """Drops choices that cost no less than another in any part, whatever their cycles."""
    parts = np.array([(_luts(choice), *_used(choice)) for choice in found]).reshape(-1, 4)
    return [found[i] for i in undominated(parts)]


def _least_over(
    choices: Sequence[Sequence[Choice]], intervals: Sequence[int], room: Resources
) -> Found:
    rising = [sorted(own, key=lambda choice: choice.cycles) for own in choices]
    costs = [np.array([(_luts(c), *_used(c)) for c in own], dtype=float) for own in rising]
    size = np.array([getattr(room, key) for key in ("luts", *_PARTS)], dtype=float)
    scale = np.maximum(1, size)
    best: tuple[float, int, list[int]] | None = None
    for luts, brams in _WEIGHTINGS:
        price = np.array([luts, brams, _DSP_WEIGHT, 1]) / scale
        picks, total = [], np.zeros((len(intervals), len(size)))
        for own, cost in zip(rising, costs, strict=True):
            cheapest = _cheapest_so_far(cost @ price)
            cycles = [choice.cycles for choice in own]
            pick = cheapest[np.searchsorted(cycles, intervals, side="right") - 1]
            picks.append(pick)
            total += cost[pick]
        excess = ((total - size) / scale).max(axis=1)
        at = int(excess.argmin())
        if best is None or excess[at] < best[0]:
            best = float(excess[at]), intervals[at], [int(pick[at]) for pick in picks]
    assert best is not None
    chosen = [own[index] for own, index in zip(rising, best[2], strict=True)]
    return Found(best[1], chosen, best[0])


def _cheapest_so_far(prices: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The index of the least price up to each place."""
    least = np.minimum.accumulate(prices)
    new = np.concatenate(([True], prices[1:] < least[:-1]))
    return np.maximum.accumulate(np.where(new, np.arange(len(prices)), 0))
