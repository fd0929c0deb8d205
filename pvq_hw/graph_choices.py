"""What each layer of a graph could be folded to: cycles of a frame, and what that would take.

The interval is that of the slowest core: its code words of a window times the windows, or the
time to load the windows where that is longer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pvq_hw.core import CoreSpec
from pvq_hw.core_base import CoreBase
from pvq_hw.families import family as find_family
from pvq_hw.folding import FoldLayer, core_options, serial_choices, synthetic_layer
from pvq_hw.folding_choices import Choice, Source, stage_choices
from pvq_hw.geometry import Geometry
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.resources import Resources, core_resources
from pvq_hw.targets import Target
from pvq_hw.unit_resources import window_resources
from pvq_hw.window import make_window

__all__ = ["BALANCED_PULSES", "GraphChoice", "GraphLayer", "graph_choices", "with_serial"]

BALANCED_PULSES = 8  # with fewer, balancing takes the best places from too many pulses
_LANES = (*range(1, 13), 14, 16, 18, 20, 24, 28, 32, 48, 64)
_LEAST_PULSES = 2  # of a row in a bank: with fewer, lanes stand idle
_MORE_WORDS = 1.4  # that a narrower code may cost: where the codes are known, it is exact
_BANK_BITS = 384  # of a core's banks that may be flip-flops
_LOAD = 12  # cycles from a free half of the banks to a window in it, besides its words


@dataclass(frozen=True)
class GraphLayer:
    """A layer with weights, before or after quantization.

    Parameters
    ----------
    core : FoldLayer
        What the core computes of a window.
    geometry : Geometry, optional
        Of a convolution.
    groups : int
        Of the convolution: a row's columns are those of one group.
    given : (Dense, TensorSpec), optional
        The core's layer and its input, where they are known.
    """

    core: FoldLayer
    geometry: Geometry | None
    groups: int = 1
    given: tuple[Dense, TensorSpec] | None = None

    @property
    def positions(self) -> int:
        """Windows of a frame."""
        if self.geometry is None:
            return 1
        rows, columns = self.geometry.output_size
        return rows * columns

    @property
    def columns(self) -> int:
        """Weights of a row."""
        return self.core.n // self.groups


@dataclass(frozen=True)
class GraphChoice:
    """A core that would do a layer: its cycles of a frame, and what it and its window take."""

    cycles: int
    cost: Resources
    spec: CoreBase

    @property
    def lanes(self) -> int:
        """P."""
        return self.spec.lanes

    @property
    def options(self) -> dict[str, Any]:
        """Of `pvq_hw.cores.make_layer_core`."""
        gap = {"gap_bits": self.spec.code.gap_bits} if isinstance(self.spec, CoreSpec) else {}
        return core_options(self.spec) | gap


def graph_choices(
    layer: GraphLayer,
    target: Target,
    lanes: int | None = None,
    gap: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[GraphChoice]:
    """All choices worth a try, none that another beats in every part.

    Parameters
    ----------
    layer : GraphLayer
    target : Target
    lanes, gap : int, optional
        Free unless given.
    options : mapping, optional
        Of `make_layer_core`, for what is not free.
    """
    core = layer.core
    asked = dict(options or {})
    found: list[GraphChoice] = []
    steps = [p for p in _LANES if p <= core.n and _worth(layer, p)]
    floor = min(_floor(layer, p) for p in steps)
    for p in steps if lanes is None else [lanes]:
        stage = stage_choices(_source(layer, p), p, gap, target, asked)
        for choice in (*stage.choices, *_small_banks(stage.choices, target, asked)):
            if not choice.cost.sprams:
                found.append(_choice(layer, _of_groups(layer, choice, p, target), target))
        if min(choice.cycles for choice in found) <= floor:
            break
    return _unbeaten(found)


def with_serial(layer: GraphLayer, found: list[GraphChoice], target: Target) -> list[GraphChoice]:
    """The choices, and those with serial multipliers, which take LUTs instead of DSP blocks."""
    plain = tuple(Choice(choice.spec, choice.cost) for choice in found)
    more = [_choice(layer, choice, target) for choice in serial_choices(plain, target)]
    return _unbeaten([*found, *more])


def _small_banks(
    choices: Sequence[Choice], target: Target, asked: Mapping[str, Any]
) -> list[Choice]:
    """The choices with banks of flip-flops, where they are few: a window's columns often are, and
    a block RAM for each lane's is dear where there is no distributed RAM."""
    if find_family(target.engine).lutram or "bank_memory" in asked:
        return []
    small = [
        replace(choice.spec, bank_memory="logic")
        for choice in choices
        if isinstance(choice.spec, CoreSpec)
        and choice.spec.lanes * choice.spec.bank_words * choice.spec.x.bits <= _BANK_BITS
    ]
    return [Choice(spec, core_resources(spec, target.engine)) for spec in small]


def _worth(layer: GraphLayer, p: int) -> bool:
    """Whether so many lanes find pulses."""
    core = layer.core
    if p == 1 or core.encoding != "pvq":
        return True
    least = _LEAST_PULSES if layer.groups == 1 else 1
    return core.k >= least * _spread(layer, p)


def _source(layer: GraphLayer, p: int) -> Source:
    core, known = layer.core, layer.given
    balanced = layer.groups == 1 and core.k >= BALANCED_PULSES * p
    sample = partial(synthetic_layer, core, balanced)
    if known is not None:
        return Source(
            core.name,
            core.n,
            core.rows,
            lambda lanes, gap: known,
            code=core.code,
            more_words=_MORE_WORDS,
            more_room=0,
        )
    # Of groups the sample's words are not the real ones, so shifts cannot be weighed yet.
    code = "pulse" if layer.groups > 1 and core.code is None else core.code
    return Source(core.name, core.n, core.rows, sample, code=code)


def _unbeaten(found: list[GraphChoice]) -> list[GraphChoice]:
    """Without choices than which another is better or as good in all parts."""
    kept: list[tuple[tuple[int, ...], GraphChoice]] = []
    for choice in sorted(found, key=lambda c: (c.cycles, c.cost.luts, c.cost.brams, c.cost.dsps)):
        parts = (choice.cycles, choice.cost.luts, choice.cost.brams, choice.cost.dsps)
        if not any(all(a <= b for a, b in zip(k, parts, strict=True)) for k, _ in kept):
            kept.append((parts, choice))
    return [choice for _, choice in kept]


def _spread(layer: GraphLayer, p: int) -> int:
    """Banks that a row's columns are in: all, or those of its group's columns."""
    if layer.geometry is None or layer.groups == 1:
        return p
    channels = layer.geometry.input_shape[2]
    own = range(channels // layer.groups)
    return len({(n + c) % p for n in range(0, layer.core.n, channels) for c in own})


def _of_groups(layer: GraphLayer, choice: Choice, p: int, target: Target) -> Choice:
    """The choice with as many words as rows take whose pulses are in few banks."""
    spec = choice.spec
    if layer.groups == 1 or layer.given is not None or not isinstance(spec, CoreSpec):
        return choice
    spread = _spread(layer, p)
    fullest = layer.core.k / spread + (0.5 if spread > 1 else 0)
    spec = replace(spec, words=max(spec.rows, round(spec.rows * fullest)))
    return Choice(spec, core_resources(spec, target.engine))


def _choice(layer: GraphLayer, choice: Choice, target: Target) -> GraphChoice:
    cost = choice.cost
    if layer.geometry is not None:
        latency = find_family(target.engine).bank_latency
        window = make_window(layer.geometry, choice.spec.x, choice.spec.lanes, latency=latency)
        cost += window_resources(window, target.engine)
    return GraphChoice(_time(layer, choice.spec), cost, choice.spec)


def _time(layer: GraphLayer, spec: CoreBase) -> int:
    words, floor = spec.words, _floor(layer, spec.lanes)
    if layer.geometry is None:
        return max(words, floor)
    # Of the two halves of the banks one is loaded while the other is read.
    turns = (words + _load(layer, spec.lanes) + _LOAD) // 2
    return max(layer.positions * max(words, turns), floor)


def _load(layer: GraphLayer, lanes: int) -> int:
    """Cycles to load a window."""
    assert layer.geometry is not None
    return layer.core.n // make_window(layer.geometry, layer.core.x, lanes).width


def _floor(layer: GraphLayer, lanes: int) -> int:
    """Cycles of a frame below which no code brings the layer with so many lanes."""
    if layer.geometry is None:
        return max(layer.core.n, layer.core.rows)
    taken = 1
    for size in layer.geometry.input_shape:
        taken *= size
    return max(layer.positions * _load(layer, lanes), taken)
