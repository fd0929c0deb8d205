"""Lanes of the cores of a graph: as fast as the device allows, each about as long as the others.

The interval is that of the slowest core: its code words of a window times the windows, or the
time to load the windows where that is longer. Costs come from codes of synthetic rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from pvq_hw.core import CoreSpec
from pvq_hw.errors import InputError
from pvq_hw.families import family as find_family
from pvq_hw.folding import FoldLayer, synthetic_layer
from pvq_hw.folding_choices import Choice, Source, stage_choices
from pvq_hw.geometry import Geometry
from pvq_hw.resources import Resources, budget, core_resources
from pvq_hw.targets import Target
from pvq_hw.unit_resources import logic_memory, window_resources
from pvq_hw.window import make_window

__all__ = ["BALANCED_PULSES", "GraphLayer", "bank_memory", "fold_graph"]

_LANES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
_LEAST_PULSES = 2  # of a row in a bank: with fewer, lanes stand idle
BALANCED_PULSES = 8  # with fewer, balancing takes the best places from too many pulses
_LOAD = 12  # cycles from a free half of the banks to a window in it, besides its words
_LOGIC_WORDS = 32
_MARGIN = 0.95


@dataclass(frozen=True)
class GraphLayer:
    """A layer with weights as far as it is known before quantization.

    Parameters
    ----------
    core : FoldLayer
        What the core computes of a window.
    geometry : Geometry, optional
        Of a convolution.
    groups : int
        Of the convolution: a row's columns are those of one group.
    """

    core: FoldLayer
    geometry: Geometry | None
    groups: int = 1

    @property
    def positions(self) -> int:
        """Windows of a frame."""
        if self.geometry is None:
            return 1
        rows, columns = self.geometry.output_size
        return rows * columns


def bank_memory(words: int, engine: str) -> str:
    """Kind of memory for banks of so many words: small ones are logic where that is RAM too."""
    return "logic" if find_family(engine).lutram and words <= _LOGIC_WORDS else "block"


def fold_graph(
    layers: Sequence[GraphLayer],
    target: Target,
    reserve: Resources,
    lanes: Sequence[int] | None = None,
) -> list[int]:
    """Lanes of every layer.

    Parameters
    ----------
    layers : sequence of GraphLayer
    target : Target
    reserve : Resources
        Of all that is not a core: the board's top, poolings, sums.
    lanes : sequence of int, optional
        Taken as they are where they are given.
    """
    if lanes is not None:
        if len(lanes) != len(layers):
            raise InputError(f"Lanes must be given for {len(layers)} layers, not {len(lanes)}")
        for layer, p in zip(layers, lanes, strict=True):
            if not 1 <= p <= layer.core.n:
                raise InputError(
                    f"Layer {layer.core.name!r}: lanes must be 1 to {layer.core.n}, not {p}"
                )
        return list(lanes)
    limit = budget(target)
    # The codes are not known yet, so the estimate may be some percent off.
    limit = replace(limit, luts=int(limit.luts * _MARGIN))
    options = [_options(layer, target) for layer in layers]
    best: tuple[float, list[int]] | None = None
    for interval in sorted({time for found in options for time, _, _ in found}):
        for weights in ((1, 1), (1, 8), (8, 1)):
            picked = [_cheapest(found, interval, limit, weights) for found in options]
            chosen = [option for option in picked if option is not None]
            if len(chosen) < len(picked):
                continue
            total = sum((cost for _, cost, _ in chosen), reserve)
            excess = max(
                total.luts / limit.luts - 1,
                total.brams / limit.brams - 1,
                (total.dsps - limit.dsps) / max(1, limit.dsps),
            )
            if best is None or excess < best[0]:
                best = excess, [p for _, _, p in chosen]
            if excess <= 0:
                return best[1]
    assert best is not None  # at the longest interval every layer has an option
    return best[1]


_Option = tuple[int, Resources, int]


def _options(layer: GraphLayer, target: Target) -> list[_Option]:
    """(Cycles of a frame, cost, lanes) of every choice of lanes."""
    core = layer.core
    found = []
    for p in _LANES:
        if p > core.n:
            break
        least = _LEAST_PULSES if layer.groups == 1 else 1
        if p > 1 and core.encoding == "pvq" and core.k < least * _spread(layer, p):
            continue
        balanced = layer.groups == 1 and core.k >= BALANCED_PULSES * p
        sample = partial(synthetic_layer, core, balanced)
        source = Source(core.name, core.n, core.rows, sample)
        for choice in stage_choices(source, p, None, target, {}).choices[:1]:
            choice = _of_groups(layer, choice, p, target)
            found.append((_time(layer, choice, p), _cost(layer, choice, p, target), p))
    return found


def _spread(layer: GraphLayer, p: int) -> int:
    """Banks that a row's columns are in: all, or those of its group's columns."""
    if layer.geometry is None or layer.groups == 1:
        return p
    channels = layer.geometry.input_shape[2]
    own = range(channels // layer.groups)
    return len({(n + c) % p for n in range(0, layer.core.n, channels) for c in own})


def _of_groups(layer: GraphLayer, choice: Choice, p: int, target: Target) -> Choice:
    """The choice with as many words as rows take whose pulses are in few banks."""
    spread, spec = _spread(layer, p), choice.spec
    if layer.groups == 1 or not isinstance(spec, CoreSpec):
        return choice
    fullest = layer.core.k / spread + (0.5 if spread > 1 else 0)
    spec = replace(spec, words=max(spec.rows, round(spec.rows * fullest)))
    return Choice(spec, core_resources(spec, target.engine))


def _time(layer: GraphLayer, choice: Choice, p: int) -> int:
    words = choice.spec.words
    if layer.geometry is None:
        return max(words, layer.core.n, layer.core.rows)
    width = make_window(layer.geometry, layer.core.x, p).width
    load = layer.core.n // width
    taken = 1
    for size in layer.geometry.input_shape:
        taken *= size
    # Of the two halves of the banks one is loaded while the other is read.
    return max(layer.positions * max(words, load, (words + load + _LOAD) // 2), taken)


def _cost(layer: GraphLayer, choice: Choice, p: int, target: Target) -> Resources:
    cost, spec = choice.cost, choice.spec
    device = find_family(target.engine)
    if isinstance(spec, CoreSpec) and bank_memory(spec.bank_words, target.engine) == "logic":
        bank = logic_memory(spec.x.bits, spec.bank_words, device)
        cost += Resources(
            luts=p * bank.luts,
            ffs=p * bank.ffs,
            brams=-p,
            bram_bits=-p * spec.x.bits * spec.bank_words,
        )
    if layer.geometry is not None:
        window = make_window(layer.geometry, spec.x, p, latency=device.bank_latency)
        cost += window_resources(window, target.engine)
    return cost


def _cheapest(
    found: list[_Option], interval: int, limit: Resources, weights: tuple[int, int]
) -> _Option | None:
    def price(option: _Option) -> float:
        cost = option[1]
        return weights[0] * cost.luts / limit.luts + weights[1] * cost.brams / limit.brams

    return min((o for o in found if o[0] <= interval), key=price, default=None)
