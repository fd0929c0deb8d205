"""What each layer could be folded to, and what that would cost; `pvq_hw.plan.folding` chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CORES, CoreBase
from pvq_hw.engine.engines import (
    AUTO,
    ENGINES,
    Engine,
    Folded,
    Shared,
    check_engine,
    engine_named,
)
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.pulse_code import PulseCode, choose_shift_bits
from pvq_hw.engine.pulse_core import CoreSpec, make_core
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import CoreLayer, core_layers, window_weights
from pvq_hw.plan.reckoning import digit_counts, reckoned_core, reckoned_slots
from pvq_hw.plan.resources import Resources, bank_ways, core_resources
from pvq_hw.plan.unit_resources import side_resources, window_resources
from pvq_hw.plan.windows import loaded_cycles, map_cycles, with_sides
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer import banks as quantizer_balance
from pvq_hw.registry import Face
from pvq_hw.target.block_ram import spram_blocks
from pvq_hw.target.boards import TARGETS, Target
from pvq_hw.target.families import Family, family

__all__ = [
    "COARSE_LANES",
    "FINE_LANES",
    "Choice",
    "FoldLayer",
    "Passed",
    "Question",
    "abreast",
    "can_balance",
    "coarse_lanes",
    "core_options",
    "core_variants",
    "engine_choices",
    "engine_limit",
    "engine_offer",
    "finer_lanes",
    "floor_cycles",
    "known_layers",
    "lanes_between",
    "layer_choices",
    "offered",
    "per_cycle",
    "sparse_lanes",
    "stream_limit",
    "synthetic_rows",
    "too_thin",
    "unbeaten",
    "undominated",
    "with_engines",
    "with_serial",
]

_SAMPLE_ROWS = 16
_EXACT_PULSES = 8_000  # of known codes that are encoded whole for every number of lanes
_MAX_LANES = 256
# Of a bank that may be distributed RAM. Flip-flops, which iCE40 would need, crowd out the wires:
# a plan of 4,400 of 5,280 cells with banks of them could not be placed.
_BANK_WORDS = 128
_BANK_BITS = 384  # of a core's banks that may be flip-flops even so
_CLOSER_GAPS = 0.75  # of the least largest gap; network A at N/K=5 and 20 lost nothing by it
_FAR_GAPS = 2.75  # times the mean gap: 6 % of the gaps of random pulses are larger
_DENSE_PULSES = 1 / 3  # of a weight: with fewer, shifted pulses of a large layer save too little
_SMALL_LAYER = 1 << 17  # weights; weighing shifted pulses takes little time there
_MORE_ROOM = 3  # per cent; a balanced row's K is a multiple of the lanes
_FEWER_WORDS = 0.97  # that are worth shifters
_MORE_WORDS = 1.1  # that a narrower code may cost
_MORE_KNOWN_WORDS = 1.4  # the same where the codes are known, so that the search can weigh it
_PULSES_PER_BANK = 2  # of a row; at 2 and 3, network A at N/K=20 lost 0.1 points of its accuracy
_ROUNDED = 12  # one over the square of what rounding moves a weight by, in pulses
_TOGETHER = 128  # rows that are compared at once
FINE_LANES, COARSE_LANES = 24, 4  # that are tried between two; where cores are reckoned
_SIDE = ("frames", "row_windows", "out_width")
_MEMORIES = ("code_memory", "fifo_memory", "params_memory", "bank_memory", "bank_latency")


@dataclass(frozen=True)
class Passed:
    """A step without weights, as far as a shared engine asks of it.

    Parameters
    ----------
    name : str
    op : str
        Of its node: ``"Add"``, ``"AveragePool"``, ...
    inputs, output : tuple of str, str
        Tensors.
    shape : (height, width, channels)
        Of what it gives.
    out : IntFormat
    geometry : Geometry, optional
        Of a pooling.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, int, int]
    out: IntFormat
    geometry: Geometry | None = None


@dataclass(frozen=True)
class FoldLayer:
    """A layer with weights as far as it is known, before or after quantization.

    Parameters
    ----------
    name : str
    rows, n : int
        Of the core: of a convolution, columns of a window.
    k : int
        Pulses of a row.
    x, out : IntFormat
    encoding : str
        ``"pvq"``, or ``"int8"`` for plain weights, which K says nothing of.
    code : str, optional
        ``"pulse"`` or ``"shifted"``, or another of `pvq_hw.engine.pulse_code.CODES`; one of the
        first two unless given.
    geometry : Geometry, optional
        Of a convolution.
    groups : int
        Of a convolution: a row's weights are those of one group's columns.
    given : (Dense, TensorSpec), optional
        The core's layer and its input, where they are known.
    direct : bool
        Whether its results go to the next layer of the list alone, or out of the network.
    engine : str
        One of `pvq_hw.engine.engines.ENGINES`, or ``"auto"``.
    bank_columns : int, optional
        Columns that a bank must have for its row's pulses to be balanced; by default as calibrated
        codes need them, which in windows is one.
    window_pulses : int
        Pulses of a window's row in a bank from which they are balanced.
    balanced : bool
        Whether a row's pulses may be held to as many in every bank.
    reads, gives : str
        Tensors, where it is known how the layers hang together.
    then : tuple of Passed
        The steps without weights between it and the next layer of the list.
    """

    name: str
    rows: int
    n: int
    k: int
    x: IntFormat
    out: IntFormat
    encoding: str = "pvq"
    code: str | None = None
    geometry: Geometry | None = None
    groups: int = 1
    given: tuple[Dense, TensorSpec] | None = None
    direct: bool = True
    engine: str = "folded"
    bank_columns: int | None = None
    window_pulses: int = quantizer_balance.WINDOW_PULSES
    balanced: bool = True
    reads: str = ""
    gives: str = ""
    then: tuple[Passed, ...] = ()

    def __post_init__(self) -> None:
        where = f"Layer {self.name!r}"
        if self.rows < 1 or self.n < 1:
            raise InputError(f"{where} must have rows and columns, not {self.rows} x {self.n}")
        if self.k < 1:
            raise InputError(f"{where}: K must be at least 1, not {self.k}")
        check_engine(self.engine, where, AUTO)

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
        return self.n // self.groups

    @property
    def computed_in(self) -> Engine:
        """The engine that is asked for; where it is free, the one that computes any layer."""
        return Folded() if self.engine == AUTO else engine_named(self.engine)


def known_layers(network: Network, codes: Mapping[str, str] | None = None) -> list[FoldLayer]:
    """The layers with weights of a quantized network; ``codes`` as `FoldLayer` has them."""
    found = []
    for layer in core_layers(network):
        rows, n = layer.dense.y.shape
        found.append(
            FoldLayer(
                layer.name,
                rows,
                n,
                max(1, round(int(np.abs(layer.dense.y).sum()) / rows)),
                layer.x.format,
                layer.dense.output.format,
                layer.dense.encoding,
                (codes or {}).get(layer.name),
                layer.geometry,
                layer.conv_groups,
                (layer.dense, layer.x),
                _is_direct(network, layer),
            )
        )
    return found


def with_engines(
    layers: Sequence[FoldLayer], asked: Mapping[str, Mapping[str, Any]]
) -> list[FoldLayer]:
    """The layers with the engines that are asked for among the options of single layers."""
    engines = [asked.get(layer.name, {}).get("engine", layer.engine) for layer in layers]
    return [replace(x, engine=engine) for x, engine in zip(layers, engines, strict=True)]


def _is_direct(network: Network, layer: CoreLayer) -> bool:
    at = network.layers.index(layer.source)
    readers = [x for x in network.layers if layer.source.output.name in x.inputs]
    if not readers:
        return at == len(network.layers) - 1
    return readers == [network.layers[at + 1]] and readers[0].weights is not None


def abreast(layers: Sequence[FoldLayer]) -> int:
    """How many of the last layers can take V frames side by side: dense layers of pulses up to the
    network's end, one behind the other."""
    count = 0
    for layer in reversed(layers):
        if not layer.direct or layer.encoding != "pvq" or layer.geometry is not None:
            break
        if not layer.computed_in.laned:
            break
        count += 1
    return count


@dataclass(frozen=True, eq=False)
class Choice:
    """A core that would do a layer: its cycles of a frame, and what it and its window take."""

    cycles: int
    cost: Resources
    spec: CoreBase

    @property
    def lanes(self) -> int:
        """P."""
        return self.spec.lanes

    @property
    def engine(self) -> Engine:
        """What the core is an example of."""
        return engine_named(self.spec.engine)


@dataclass(frozen=True)
class Question:
    """What is asked of a layer besides its lanes.

    Parameters
    ----------
    target : Target
    options : tuple of (str, value)
        Of `pvq_hw.engine.kinds.make_layer_core`, for what is not free.
    gap : int, optional
        Gap bits; free unless given.
    balanced : bool
        Whether the quantizer will place as many pulses into every bank as it can.
    held : bool
        Whether it will place none beyond the largest gap.
    ends : (int, int)
        Frames that come, and that go, one after the other.
    reckoned : bool
        Whether cores are reckoned by `pvq_hw.plan.reckoning`, without codes.
    windows : int, optional
        V: windows of a map that a convolution takes side by side; free unless given.
    turns : int
        Times that the layer works in a round of V frames: V where it takes one frame at a time.
    width : int, optional
        Results a transfer; free unless given.
    feed : int, optional
        Activations a transfer that come; of a layer that others feed, as many as it takes.
    digit : int, optional
        Bits a cycle of an unrolled layer's adders, 0 for all at once; free unless given.
    """

    target: Target
    options: tuple[tuple[str, Any], ...] = ()
    gap: int | None = None
    balanced: bool = True
    held: bool = True
    ends: tuple[int, int] = (1, 1)
    reckoned: bool = False
    windows: int | None = None
    turns: int = 1
    width: int | None = None
    feed: int | None = None
    digit: int | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The options."""
        return dict(self.options)


# -- lanes ------------------------------------------------------------------------------------


def sparse_lanes(layer: FoldLayer, balanced: bool = True) -> list[int]:
    """Some of `coarse_lanes`: each above 4 about a third more than the one before, or of use to a
    convolution's windows; those aside in which a group's columns are in fewer banks."""
    kept: list[int] = []
    widest = spread = 0
    for lanes in (steps := coarse_lanes(layer, balanced)):
        width = _window_width(layer.geometry, layer.x, lanes) if layer.geometry else 0
        own = _spread(layer, lanes) if layer.groups > 1 else 0
        more = lanes <= 4 or 3 * lanes >= 4 * kept[-1] or lanes == steps[-1]
        if own >= spread and (more or width > widest):
            kept.append(lanes)
            widest, spread = max(widest, width), own
    return kept


def coarse_lanes(layer: FoldLayer, balanced: bool = True) -> list[int]:
    """Lanes worth a try: dense where a step matters much, coarser above, those aside that would
    spread pulses too thinly."""
    steps = [*range(1, 17), *range(18, 33, 2), *range(36, 65, 4), *range(72, 129, 8)]
    steps += range(144, _MAX_LANES + 1, 16)
    most = [p for p in range(1, min(layer.n, _MAX_LANES) + 1) if not too_thin(layer, p, balanced)]
    ends = [p for p in most if p + 1 not in most]
    return sorted({p for p in steps if p in most} | set(ends))


def finer_lanes(lanes: int, layer: FoldLayer, balanced: bool = True) -> list[int]:
    """Lanes around a choice of `coarse_lanes`, up to its neighbors."""
    steps = coarse_lanes(layer, balanced)
    at = steps.index(lanes) if lanes in steps else 0
    low, high = steps[max(0, at - 1)], steps[min(len(steps) - 1, at + 1)]
    step = 1 if high <= 64 else 2
    between = range(low, min(high, 2 * lanes) + 1, step)
    return [p for p in between if p not in steps and not too_thin(layer, p, balanced)]


def too_thin(layer: FoldLayer, lanes: int, balanced: bool = True) -> bool:
    """Whether codes that are not there yet would be held to fewer than 2 pulses for each lane of
    a row, at which they lose accuracy. Where pulses are not balanced, nothing is lost but time."""
    held = (
        balanced and layer.given is None and layer.encoding == "pvq" and can_balance(layer, lanes)
    )
    return held and lanes > 1 and layer.k < _PULSES_PER_BANK * lanes


def can_balance(layer: FoldLayer, lanes: int) -> bool:
    """Whether every bank of a row may be given as many pulses.

    Even banks of c columns, whose weights are m pulses on average, move each of these by m over the
    root of c; rounding moves it by the root of 1/12 anyhow. From N/K about 1 down that asks windows
    for more columns in a bank than `window_pulses` does.
    """
    if not layer.balanced:
        return False
    if layer.geometry is not None:
        least = _ROUNDED * (layer.k / layer.n) ** 2 if lanes > 1 else 1
        wide = layer.n >= max(layer.bank_columns or 1, least) * lanes
        return wide and layer.groups == 1 and layer.k >= layer.window_pulses * lanes
    columns = layer.bank_columns or quantizer_balance.COLUMNS_PER_BANK
    return quantizer_balance.can_balance(layer.k, layer.n, lanes, columns)


def _spread(layer: FoldLayer, p: int) -> int:
    """Banks that a row's columns are in: all, or those of its group's columns."""
    if layer.geometry is None or layer.groups == 1:
        return p
    channels = layer.geometry.input_shape[2]
    own = range(channels // layer.groups)
    return len({(n + c) % p for n in range(0, layer.n, channels) for c in own})


def lanes_between(
    found: Sequence[Choice],
    layer: FoldLayer,
    cycles: tuple[float, float],
    balanced: bool = True,
    most: int = FINE_LANES,
) -> list[int]:
    """Lanes that were left out, at which a layer may take from some cycles up to others: for each
    kind of code and memory about ``most`` of those between the choices on both sides."""
    kinds: dict[tuple[int, bool, int], dict[int, int]] = {}
    for choice in found:
        if choice.engine.laned:
            kind = choice.spec.shift_bits, choice.cost.sprams > 0, choice.spec.row_windows
            own = kinds.setdefault(kind, {})
            own[choice.lanes] = min(choice.cycles, own.get(choice.lanes, choice.cycles))
    wanted: set[int] = set()
    for own in kinds.values():
        slower = max((p for p, c in own.items() if c > cycles[1]), default=min(own))
        faster = min((p for p, c in own.items() if c <= cycles[0]), default=max(own))
        step = max(1, (faster - slower) // most)
        wanted |= set(range(slower + step, faster, step))
    tried = {p for own in kinds.values() for p in own}
    return sorted(p for p in wanted - tried if not too_thin(layer, p, balanced))


# -- choices ----------------------------------------------------------------------------------


def layer_choices(layer: FoldLayer, lanes: Sequence[int], question: Question) -> list[Choice]:
    """All choices worth a try for these lanes, rising: gap bits, shifts and memory kinds, as far
    as they are free.

    Raises InputError, with the layer, where the engine that is asked for can't compute it.
    """
    return engine_choices(layer.computed_in, layer, lanes, question)


engine_choices: Face[[FoldLayer, Sequence[int], Question], list[Choice]] = ENGINES.face("choices")
"""`layer_choices` of an engine that is asked for; one without lanes passes them over."""

engine_offer: Face[[FoldLayer, Question, int], list[Choice]] = ENGINES.face("offer")
"""The choices of an engine for a layer that is free to be computed in any, if it can do it in about
so many LUTs; none where it is only taken when it is asked for."""


@engine_offer.of(Engine)
def _no_offer(engine: Engine, layer: FoldLayer, question: Question, most_luts: int) -> list[Choice]:
    return []


def offered(layer: FoldLayer, question: Question, most_luts: int, *, wired: bool) -> list[Choice]:
    """What engines without lanes, those whose weights are wires or the others, offer for a layer
    of which nothing is asked that only lanes have."""
    asked = question.asked
    folded = "code_memory" in asked or asked.get("frames", 1) != 1
    if layer.engine != AUTO or folded or layer.code is not None or question.gap is not None:
        return []
    engines = [kind() for kind in ENGINES.kinds().values() if kind.wired == wired]
    return [choice for e in engines for choice in engine_offer(e, layer, question, most_luts)]


def per_cycle(width: int) -> str:
    """``"one a cycle"``, or how many."""
    return f"{width if width > 1 else 'one'} a cycle"


engine_limit: Face[[FoldLayer, Question, Choice, int, bool], str] = ENGINES.face("limit")
"""What stops the slowest layer of a network from being faster than its choice, behind its name;
the network's interval, and whether the layer's lanes were given."""


@engine_limit.of(Engine)
def _engine_limit(
    engine: Engine, layer: FoldLayer, question: Question, choice: Choice, interval: int, given: bool
) -> str:
    return f"is {engine.kind}, which takes its {choice.cycles:,} cycles"


def stream_limit(layer: FoldLayer, question: Question, interval: int, width: int = 1) -> str:
    """Which stream of a layer takes the whole interval, whatever computes the layer; ``width``
    results leave in a transfer."""
    if layer.geometry is not None:
        taken, feed = int(np.prod(layer.geometry.input_shape)), question.feed
        results = layer.positions * layer.rows
        if feed is not None and taken // feed >= interval:
            return f"takes the network's {taken:,} activations {per_cycle(feed)}"
        if results // width >= interval:
            return f"gives its {results:,} results {per_cycle(width)}"
        return f"loads its {layer.positions:,} windows one after the other"
    coming, given = (f" of {v} frames" if v > 1 else "" for v in question.ends)
    if layer.n * question.ends[0] >= interval:
        return f"takes the {layer.n:,} activations{coming} one a cycle"
    return f"gives its {layer.rows:,} results{given} one a cycle"


@engine_choices.of(Shared)
def _no_choices(
    engine: Shared, layer: FoldLayer, lanes: Sequence[int], question: Question
) -> list[Choice]:
    raise InputError(f"Layer {layer.name!r} can't have a shared engine to itself")


@engine_choices.of(Folded)
def _folded_choices(
    engine: Folded, layer: FoldLayer, lanes: Sequence[int], question: Question
) -> list[Choice]:
    """More lanes than bring the layer to its floor, with as few windows side by side as may be, are
    not tried. Where cores are reckoned, only those that no other beats get other memories."""
    if layer.given is not None:
        return _of_lanes(layer, lanes, question)
    # Layers of a kind are alike but for their names, which only what is refused says.
    alike = replace(layer, name="layer")
    try:
        return list(_cached_of_lanes(alike, tuple(lanes), _for_kin(question)))
    except InputError:
        return _of_lanes(layer, lanes, question)


@lru_cache(maxsize=512)
def _cached_of_lanes(
    layer: FoldLayer, lanes: tuple[int, ...], question: Question
) -> tuple[Choice, ...]:
    return tuple(_of_lanes(layer, lanes, question))


def _of_lanes(layer: FoldLayer, lanes: Sequence[int], question: Question) -> list[Choice]:
    found: list[Choice] = []
    narrow = replace(question, windows=_windows(layer, question) or 1)
    floor = min(floor_cycles(layer, p, narrow) for p in lanes)
    for p in lanes:
        own = _lane_choices(layer, p, question)
        found += own
        # With several results a transfer there may be none but wide ones, or none.
        usual = [choice for choice in own if not _is_wide(choice, question)]
        least = [x.cycles for x in usual if x.spec.shift_bits == usual[0].spec.shift_bits]
        if least and min(least) <= floor:
            break
    found = unbeaten(found)
    if question.reckoned and layer.given is None:
        found = unbeaten([v for choice in found for v in _variants(layer, choice.spec, question)])
    return found


@engine_limit.of(Folded)
def _folded_limit(
    engine: Engine, layer: FoldLayer, question: Question, choice: Choice, interval: int, given: bool
) -> str:
    lanes = choice.lanes
    if floor_cycles(layer, lanes, question) >= interval:
        return stream_limit(layer, question, interval, choice.spec.out_width)
    if given:
        return f"is as fast as the lanes that it was given: {lanes}"
    if too_thin(layer, lanes + 1, question.balanced):
        return (
            f"has {layer.k:,} pulses a row, and {lanes} lanes: with fewer than two "
            "pulses for each lane its codes would lose accuracy"
        )
    return f"gains nothing by more lanes than {lanes}"


def _is_wide(choice: Choice, question: Question) -> bool:
    """Whether it takes more windows side by side than it has to."""
    return question.windows is None and choice.spec.row_windows > 0


def floor_cycles(layer: FoldLayer, lanes: int, question: Question) -> int:
    """A lower bound on the cycles of a frame (of a round of V), whatever the codes: activations
    come and go one a cycle, and windows are loaded."""
    if layer.geometry is None:
        return question.turns * max(layer.n * question.ends[0], layer.rows * question.ends[1])
    loaded = loaded_cycles(layer.geometry, layer.x, lanes, _windows(layer, question))
    results = layer.positions * layer.rows // _most_results(layer, question)
    return question.turns * max(loaded, results, _taken_cycles(layer, lanes, question))


def _taken_cycles(layer: FoldLayer, lanes: int, question: Question) -> int:
    """The fewest cycles in which a convolution takes a map, a transfer a cycle."""
    assert layer.geometry is not None
    width = _window_width(layer.geometry, layer.x, lanes)
    together = width if question.feed is None else gcd(width, question.feed)
    return prod(layer.geometry.input_shape) // together


def _most_results(layer: FoldLayer, question: Question) -> int:
    """The most results a transfer that a folded layer can give."""
    if _windows(layer, question) == 1 or layer.encoding != "pvq":
        return 1
    return question.width or layer.rows


def _windows(layer: FoldLayer, question: Question) -> int | None:
    """Windows side by side where they are not free."""
    several = layer.encoding == "pvq" and layer.computed_in.laned
    return question.windows if several else 1


def _lane_choices(layer: FoldLayer, p: int, question: Question) -> list[Choice]:
    cached = _cached_choices if layer.given is None else _cached_given
    return list(cached(layer, p, question))


def _for_kin(question: Question) -> Question:
    """The question for the first board whose cores are the same: choices are shared, only the room
    differs."""
    target = question.target
    same = (target.engine, bool(target.device.sprams))
    kin = (t for t in TARGETS.values() if (t.engine, bool(t.device.sprams)) == same)
    return replace(question, target=next(kin, target))


@lru_cache(maxsize=4096)
def _cached_choices(layer: FoldLayer, p: int, question: Question) -> tuple[Choice, ...]:
    """A search for frames or for a network's codes asks for the same layers again."""
    return tuple(_new_choices(layer, p, question))


@lru_cache(maxsize=512)
def _cached_given(layer: FoldLayer, p: int, question: Question) -> tuple[Choice, ...]:
    """A search for a pace plans the same codes again; few, since codes are kept with them."""
    return tuple(_new_choices(layer, p, question))


def _new_choices(layer: FoldLayer, p: int, question: Question) -> list[Choice]:
    source = _Source(layer, question)
    specs = source.specs(p)
    loaded = source.in_spram(specs)
    if question.reckoned:
        cores = [source.counted(spec)[0] for spec in (*specs, *loaded)]
        specs, loaded = _unbeaten_cores(cores, question), []
    wide = [
        wide
        for spec in (*specs, *loaded)
        for wide in with_sides(spec, layer.geometry, _windows(layer, question), question.width)
    ]
    if question.reckoned:
        return [_choice(layer, source.counted(spec), question) for spec in wide]
    return [v for spec in wide for v in _variants(layer, spec, question, source)]


def _unbeaten_cores(specs: Sequence[CoreBase], question: Question) -> list[CoreBase]:
    """Drops cores that have no fewer words than another and take no less."""
    costs = [core_resources(spec, question.target.engine) for spec in specs]
    parts = np.array(
        [(s.words, c.luts, c.brams, c.dsps, c.sprams) for s, c in zip(specs, costs, strict=True)]
    )
    return [specs[i] for i in undominated(parts)]


def _variants(
    layer: FoldLayer, spec: CoreBase, question: Question, source: "_Source | None" = None
) -> list[Choice]:
    """The choices of a core and of those with other memories."""
    source = source or _Source(layer, question)
    specs = _memory_variants(spec, question.target.engine, question.asked)
    return [_choice(layer, source.counted(own), question) for own in specs]


def _choice(layer: FoldLayer, specs: tuple[CoreBase, CoreBase], question: Question) -> Choice:
    """The choice of a core whose cost is reckoned by another, with room for more words."""
    spec, larger = specs
    engine = question.target.engine
    cost = core_resources(larger, engine)
    if layer.geometry is not None:
        cost += _window_cost(layer.geometry, spec.x, spec.lanes, engine)
        cost += side_resources(spec, engine)
    return Choice(_cycles(layer, spec, question), cost, spec)


@lru_cache(maxsize=4096)
def _window_cost(geometry: Geometry, x: IntFormat, lanes: int, engine: str) -> Resources:
    window = make_window(geometry, x, lanes, latency=family(engine).bank_latency)
    return window_resources(window, engine)


def _cycles(layer: FoldLayer, spec: CoreBase, question: Question) -> int:
    if layer.geometry is None:
        return max(question.turns * spec.words, floor_cycles(layer, spec.lanes, question))
    taken = _taken_cycles(layer, spec.lanes, question)
    return question.turns * max(map_cycles(spec, layer.geometry), taken)


@lru_cache(maxsize=4096)
def _window_width(geometry: Geometry, x: IntFormat, lanes: int) -> int:
    return make_window(geometry, x, lanes).width


def with_serial(choices: Sequence[Choice], question: Question) -> list[Choice]:
    """The choices, and those with serial multipliers, which take LUTs instead of DSP blocks and
    bound the clock of a small device."""
    if "multiplier" in question.asked:
        return unbeaten(choices)
    more = (_serial(choice, question.target.engine) for choice in choices)
    return unbeaten([*choices, *(choice for choice in more if choice is not None)])


@lru_cache(maxsize=1 << 14)
def _serial(choice: Choice, engine: str) -> Choice | None:
    """A choice with a serial multiplier, where it has one to spare; a search asks many times."""
    spec = choice.spec
    if not spec.serial_too or not spec.multiplier_parts:
        return None
    interval = min(spec.mult_bits, spec.words // (spec.rows * spec.groups))
    serial = replace(spec, multiplier="serial", multiplier_interval=max(1, interval))
    cost = core_resources(serial, engine) - core_resources(spec, engine)
    return Choice(choice.cycles, choice.cost + cost, serial)


def unbeaten(found: Sequence[Choice]) -> list[Choice]:
    """Drops dominated choices, and sorts the others by their cycles."""
    costs = [choice.cost for choice in found]
    parts = np.array(
        [(x.cycles, c.luts, c.brams, c.dsps, c.sprams) for x, c in zip(found, costs, strict=True)]
    ).reshape(-1, 5)
    return [found[i] for i in undominated(parts)]


def undominated(parts: npt.NDArray[np.int64]) -> list[int]:
    """Rows (of any number of columns) to which no other is as good in all columns, the least first
    by their columns in order; of equal ones the first."""
    order = np.lexsort(parts.T[::-1])
    columns = parts[order, 1:].T  # the first only rises
    kept = np.zeros(len(order), dtype=bool)
    for start in range(0, len(order), _TOGETHER):
        own = slice(start, start + _TOGETHER)
        before = np.flatnonzero(kept[:start])
        kept[own] = ~(
            _as_good(columns[:, before], columns[:, own]).any(axis=1)
            | np.tril(_as_good(columns[:, own], columns[:, own]), -1).any(axis=1)
        )
    return order[kept].tolist()


def _as_good(some: npt.NDArray[np.int64], than: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each of ``than`` (parts, count) is matched in all parts by each of ``some``."""
    found = np.ones((than.shape[1], some.shape[1]), dtype=bool)
    for own, other in zip(some, than, strict=True):
        found &= own <= other[:, None]
    return found


core_options: Face[[], dict[str, Any]] = CORES.face("choices")
"""What was chosen of a core besides engine, lanes and gap bits, as options of
`make_layer_core`."""


@core_options.of(Int8Spec)
def _int8_options(spec: Int8Spec) -> dict[str, Any]:
    return {key: getattr(spec, key) for key in (*_MEMORIES, "products")}


@core_options.of(CoreSpec)
def _pulse_options(spec: CoreSpec) -> dict[str, Any]:
    side = _SIDE if spec.row_windows else ()
    found = {key: getattr(spec, key) for key in (*_MEMORIES, *side)}
    if spec.code.shift_bits:
        found["shift_bits"] = spec.code.shift_bits
    if not isinstance(spec.code, PulseCode):
        found["code"] = spec.code.kind
    if spec.multiplies.paced:
        found["multiplier"] = "serial"
    return found


# -- specifications ---------------------------------------------------------------------------


class _Source:
    """A layer's specifications: from its codes, from a sample of their rows, or from rows like
    those that a quantizer gives."""

    def __init__(self, layer: FoldLayer, question: Question) -> None:
        self.layer, self.question = layer, question
        self.engine, self.options = question.target.engine, question.asked
        self.exact = False
        if layer.given is not None:
            dense, x = layer.given
            most = max(_SAMPLE_ROWS, _EXACT_PULSES // layer.k)
            self.exact = layer.encoding == "int8" or most >= layer.rows
            self.known = (dense if self.exact else _some_rows(dense, most), x)
        held = layer.given is None and question.balanced and question.held
        self.least_gap = _FAR_GAPS * layer.n / layer.k if held and layer.groups == 1 else 0.0
        self.code = layer.code
        self.small = layer.geometry is None and layer.rows * layer.n <= _SMALL_LAYER
        if layer.given is None and layer.groups > 1 and self.code is None:
            # Of groups the sample's words are not the real ones, so shifts cannot be weighed yet.
            self.code = "pulse"

    def sample(self, lanes: int, gap: int | None) -> tuple[Dense, TensorSpec]:
        """The layer, with fewer rows."""
        if self.layer.given is not None:
            return self.known
        return _synthetic(self.layer, self.question, lanes, gap)

    def counted(self, spec: CoreBase) -> tuple[CoreBase, CoreBase]:
        """The specification, and the one with room for some more words than a sample's: a word
        beyond a power of two may cost a row of block RAMs."""
        if not spec.banked or self.exact:
            return spec, spec
        spec = _of_words(spec, self._words(spec))
        return spec, _of_words(spec, -(-spec.words * (100 + _MORE_ROOM) // 100))

    def _words(self, spec: CoreBase) -> int:
        """The core's words, or those that rows take whose pulses are in few banks."""
        layer = self.layer
        if layer.groups == 1 or layer.given is not None:
            return spec.words
        spread = _spread(layer, spec.lanes)
        fullest = layer.k / spread + (0.5 if spread > 1 else 0)
        return max(spec.rows, round(spec.rows * fullest))

    def specs(self, lanes: int) -> list[CoreBase]:
        """Cores of unit pulses, and of shifted ones where pulses lie upon each other; of one kind
        alone where that is asked for."""
        own = self.code if self.code not in (None, "pulse", "shifted") else None
        if self.question.reckoned and self.layer.encoding == "pvq" and own is None:
            return [*self._reckoned(lanes)]
        layer, x = self.sample(lanes, self.question.gap)
        if layer.encoding == "int8":
            return [self._int8(layer, x, lanes)]
        if own is not None:
            return [self._scaled(lanes, self.question.gap, {"code": own})]
        if self.code == "shifted":
            bits = choose_shift_bits(layer.y, lanes, groups=layer.groups)
            return [*self._gap_widths(lanes, {"shift_bits": bits})]
        found = self._gap_widths(lanes, {})
        if self.code == "pulse" or "shift_bits" in self.options:
            return [*found]
        for shift_bits in (1, 2, 3):
            most = _FEWER_WORDS * min(spec.words for spec in found)
            if _fewest_words(layer, self.layer.rows, lanes, shift_bits) >= most:
                continue
            shifted = self._gap_widths(lanes, {"shift_bits": shift_bits})
            found += [spec for spec in shifted if spec.words < most]
        return [*found]

    def _reckoned(self, lanes: int) -> list[CoreSpec]:
        """What `specs` gives, by reckoning."""
        layer, question = self.layer, self.question
        n = layer.n
        even = question.balanced and can_balance(layer, lanes)
        shifts = [self.options["shift_bits"]] if "shift_bits" in self.options else [0]
        if self.code != "pulse" and (layer.k / layer.columns >= _DENSE_PULSES or self.small):
            shifts = [1, 2] if self.code == "shifted" else [0, 1, 2]
        found: list[CoreSpec] = []
        for bits in shifts:
            fewest = min((spec.words for spec in found), default=1 << 30)
            for gap, slots in reckoned_slots(n, layer.k, lanes, even, question.held, bits):
                code = PulseCode(lanes, gap, bits)
                spec = reckoned_core(
                    layer.rows, n, layer.k, layer.x, layer.out, code, slots, self.engine,
                    self.options,
                )  # fmt: skip
                if not bits or spec.words < _FEWER_WORDS * fewest:
                    found.append(spec)
        return found

    def _gap_widths(self, lanes: int, more: dict[str, Any]) -> list[CoreSpec]:
        """Cores of the gap width of fewest slots, and of narrower ones that store fewer bits."""
        gap = self.question.gap
        spec = self._scaled(lanes, gap, more)
        specs = [spec]
        most = _MORE_WORDS if self.layer.given is None else _MORE_KNOWN_WORDS
        while gap is None and specs[-1].code.gap_bits > 1:
            last = specs[-1]
            if (1 << (last.code.gap_bits - 1)) - 2 < self.least_gap:
                break
            narrower = self._scaled(lanes, last.code.gap_bits - 1, more)
            if narrower.words * narrower.code.word_bits >= last.words * last.code.word_bits:
                break
            if narrower.words > most * spec.words:
                break
            specs.append(narrower)
        return specs

    def in_spram(self, specs: Sequence[CoreBase]) -> list[CoreBase]:
        """The cores with codes in SPRAM, where the target has it. Its words are 16 bits wide: a gap
        bit less may save a block, for which a quantizer is held to closer gaps."""
        found = [spec for spec in specs if isinstance(spec, CoreSpec)]
        found = [spec for spec in found if isinstance(spec.code, PulseCode)]
        if not self.question.target.device.sprams or "code_memory" in self.options:
            return []
        narrowest = {spec.code.shift_bits: spec for spec in found}
        found += [closer for last in narrowest.values() for closer in self._closer(last)]
        return [replace(spec, code_memory="spram") for spec in found]

    def _closer(self, last: CoreSpec) -> list[CoreSpec]:
        """The core with one gap bit less, if that saves an SPRAM; else none."""
        bits = last.code.gap_bits - 1
        if bits < 1:
            return []
        if self.question.reckoned:
            narrower = replace(last, code=replace(last.code, gap_bits=bits))
        elif self.question.gap is None and (1 << bits) - 2 >= _CLOSER_GAPS * self.least_gap:
            narrower = self._scaled(last.lanes, bits, {"shift_bits": last.code.shift_bits})
        else:
            return []
        fewer = spram_blocks(narrower.word_bits, 1) < spram_blocks(last.word_bits, 1)
        return [narrower] if fewer else []

    def _int8(self, layer: Dense, x: TensorSpec, lanes: int) -> CoreBase:
        """A core of all rows of plain weights."""
        spec, _ = make_layer_core(layer, x, lanes, family=self.engine, name="core", **self.options)
        kind = "logic" if self.layer.rows <= family(self.engine).logic_rows else "block"
        kind = self.options.get("params_memory", kind)
        return replace(spec, rows=self.layer.rows, params_memory=kind)

    def _scaled(self, lanes: int, gap: int | None, more: dict[str, Any]) -> CoreSpec:
        """A core of all rows, from a sample of them."""
        layer, x = self.sample(lanes, gap)
        options = self.options | more
        spec, _ = make_core(
            layer, x, lanes, gap_bits=gap, family=self.engine, name="core", **options
        )
        rows = self.layer.rows
        if rows == len(layer.y):
            return spec
        small = rows * layer.groups <= family(self.engine).logic_rows
        kind = options.get("params_memory", "logic" if small else "block")
        words = -(-spec.words * rows // len(layer.y))
        return replace(spec, rows=rows, words=words, params_memory=kind)


def _of_words(spec: CoreBase, words: int) -> CoreBase:
    if words == spec.words:
        return spec
    changed: dict[str, Any] = {"words": words}  # a property of other kinds
    return replace(spec, **changed)


core_variants: Face[[Family, dict[str, Any]], list[CoreBase]] = CORES.face("variants")
"""A core with others of its memories or multipliers as logic, as far as options leave that free."""


@core_variants.of(CoreBase)
def _no_variants(spec: CoreBase, device: Family, options: dict[str, Any]) -> list[CoreBase]:
    return []


@core_variants.of(Int8Spec)
def _products_in_logic(spec: Int8Spec, device: Family, options: dict[str, Any]) -> list[CoreBase]:
    free = not {"products", "multiplier"} & set(options)
    return [replace(spec, products="logic")] if spec.products != "logic" and free else []


@core_variants.of(CoreSpec)
def _banks_in_logic(spec: CoreSpec, device: Family, options: dict[str, Any]) -> list[CoreBase]:
    if "bank_memory" in options:
        return []
    small = spec.frames * spec.lanes * spec.bank_words * spec.x.bits <= _BANK_BITS
    if device.lutram and spec.bank_words <= _BANK_WORDS:
        # Two distributed RAMs meet in the leaf; more want a register before it.
        latency = options.get("bank_latency", 1 + (bank_ways(spec) > 2))
        return [replace(spec, bank_memory="logic", bank_latency=latency)]
    return [replace(spec, bank_memory="logic")] if not device.lutram and small else []


def _memory_variants(spec: CoreBase, engine: str, options: dict[str, Any]) -> list[CoreBase]:
    """The spec, and where block RAM is scarce also with its small memories as logic."""
    variants = [spec, *core_variants(spec, family(engine), options)]
    if family(engine).lutram:
        return variants
    if "fifo_memory" not in options and spec.fifo_memory == "block" and spec.fifo_depth <= 16:
        variants += [replace(v, fifo_memory="logic") for v in variants]
    if "params_memory" not in options and spec.params_memory == "block" and spec.rows <= 128:
        variants += [replace(v, params_memory="logic") for v in variants]
    return variants


# -- samples ----------------------------------------------------------------------------------


def _fewest_words(layer: Dense, rows: int, lanes: int, shift_bits: int) -> float:
    """A lower bound on the words of so many rows like the layer's: the pulses of fullest banks."""
    if layer.groups > 1:
        return 0.0
    counts = digit_counts(np.abs(layer.y), shift_bits)
    counts = np.pad(counts, ((0, 0), (0, -counts.shape[1] % lanes)))
    fullest = counts.reshape(len(counts), -1, lanes).sum(axis=1).max(axis=1)
    return float(np.maximum(fullest, 1).mean()) * rows


def _some_rows(layer: Dense, most: int) -> Dense:
    """The layer reduced to evenly spaced rows."""
    count = min(len(layer.y), most)
    rows = np.linspace(0, len(layer.y) - 1, count).astype(np.int64)
    return replace(
        layer,
        output=replace(layer.output, shape=(count,)),
        y=layer.y[rows],
        mult=layer.mult[rows],
        bias=layer.bias[rows],
        gain=layer.gain[rows],
    )


def _synthetic(
    layer: FoldLayer, question: Question, lanes: int, gap: int | None
) -> tuple[Dense, TensorSpec]:
    """A layer like those that a quantizer gives, with fewer rows."""
    banked = question.balanced and can_balance(layer, lanes)
    closed = banked and question.held and gap is not None and gap > 1
    max_gap = (1 << gap) - 2 if closed and gap is not None else None
    if layer.encoding == "int8":
        y = np.tile([-127, 127], (1, layer.n))[:, : layer.n]
    else:
        y = _laplacian_pulses(layer.n, layer.k, lanes if banked else 1, max_gap)
    return _dense_of(layer, y)


def _dense_of(layer: FoldLayer, y: npt.NDArray[np.int64]) -> tuple[Dense, TensorSpec]:
    """A layer of some weights, with numbers as wide as a quantizer's."""
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


@lru_cache(maxsize=64)
def synthetic_rows(layer: FoldLayer) -> tuple[Dense, TensorSpec]:
    """A layer like those that a quantizer gives, all rows each of its own: engines may have rows
    share sums as far as they are alike."""
    w = np.random.default_rng(0).laplace(size=(layer.rows, layer.columns))
    if layer.encoding == "int8":
        y = np.rint(w * (127 / np.abs(w).max(axis=1, keepdims=True))).astype(np.int64)
    else:
        y = nearest(w, layer.k)
    if layer.geometry is not None:
        y = window_weights(y, layer.geometry, layer.groups)
    return _dense_of(layer, y)


@lru_cache(maxsize=512)
def _laplacian_pulses(n: int, k: int, banks: int, max_gap: int | None) -> npt.NDArray[np.int64]:
    """Rows like those that a quantizer gives: pyramid points of Laplacian weights, balanced."""
    w = np.random.default_rng(0).laplace(size=(_SAMPLE_ROWS, n))
    pulses = np.full(_SAMPLE_ROWS, max(banks, k // banks * banks), dtype=np.int64)
    # Rows have multiples of the banks, which are K in the mean.
    more = round(_SAMPLE_ROWS * max(0, k - int(pulses[0])) / banks)
    pulses[:more] += banks
    placement = quantizer_balance.Placement(banks, max_gap)
    return np.asarray(quantizer_balance.balance(w, pulses, placement), dtype=np.int64)
