"""A network on one engine that its layers share: lanes and code of all of them, then its core."""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from pvq_hw.engine.code_stream import stream_cycles
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.engines import Shared
from pvq_hw.engine.map_core import (
    MapSpec,
    make_map_core,
    make_map_spec,
    map_layer,
    window_layer,
)
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.shared_core import (
    EIGHT_BITS,
    SharedLayer,
    SharedSpec,
    make_shared_core,
    make_spec,
    refuse_shared,
    share,
)
from pvq_hw.engine.units import Unit
from pvq_hw.errors import InputError
from pvq_hw.geometry import Geometry
from pvq_hw.network.network import Network
from pvq_hw.plan.candidates import Choice, FoldLayer, can_balance, core_options, too_thin, unbeaten
from pvq_hw.plan.core_layers import unit_names
from pvq_hw.plan.folding import NO_FASTER, Folding
from pvq_hw.plan.layer import LayerPlan, shared_reason
from pvq_hw.plan.lowering import Site, layer_unit
from pvq_hw.plan.reckoning import gap_bits_for, reckoned_core, reckoned_slots
from pvq_hw.plan.resources import Resources, budget, core_resources, load_resources
from pvq_hw.plan.search import price
from pvq_hw.plan.shared_steps import SharedStep, network_chain, reckoned_steps, window_columns
from pvq_hw.plan.unit_resources import unit_resources
from pvq_hw.plan.whole import Lanes, whole_core, whole_layer, whole_plan
from pvq_hw.target.boards import Target
from pvq_hw.target.families import family
from pvq_hw.target.multipliers import multiplier_named

__all__ = [
    "ENGINE",
    "EngineLayer",
    "engine_choices",
    "engine_layers",
    "known_steps",
    "least_engine",
    "make_engine",
    "remake_shared",
    "shared_folding",
    "shared_layer_plan",
    "shared_plan",
]

ENGINE = "engine"
"""What the core of several layers is called."""

_ALL_LANES = 32  # up to which every number of lanes is tried
_MOST_LANES = 256
_NOTABLE = 0.05  # of the pulses: layers with fewer don't decide the code's gap bits
_RING_WORDS = 256  # of codes from the flash, at least: a block RAM's
_SURE_BITS = 2  # a clock from the flash: every flash gives them, over the pins that it has anyway
_MORE_BIAS = 2  # bits that biases of dense layers come out wider than they are reckoned
_WORTH = 0.95  # of the cycles: codes that have to be loaded save so much


def shared_folding(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    lanes: Sequence[int | None] | None = None,
    gap_bits: int | None = None,
    reserve: Resources,
    but: Container[tuple[Any, ...]] = (),
    steps: Callable[[int], Sequence[SharedStep]] | None = None,
    goal: int = 0,
    **options: Any,
) -> Folding:
    """Lanes, gap bits and the codes' memory of one engine for all layers, reckoned.

    Parameters
    ----------
    layers : sequence of FoldLayer
        In order, before or after quantization.
    target : Target
    lanes : sequence of int, optional
        All the same, where they are given.
    gap_bits : int, optional
        Free unless given; of known codes from the flash free in any case.
    reserve : Resources
        Kept free.
    but : container
        `_choice` of engines that turned out too large.
    steps : callable, optional
        What an engine of V positions does, where it is known; else as the layers hang together.
    goal : int
        As `pvq_hw.plan.folding.fold` takes it.
    **options
        ``code_memory``, ``code_buffer``, ``flash_bits``, ``map_memory``, ``params_buffer``,
        ``side`` and ``multiplier``, free unless given; ``flash_bits`` of 4 only where given, as the
        flash's quad-enable bit must be set for it.

    Raises
    ------
    InputError
        Lanes are not the same, or a layer can't be on a shared engine.
    """
    given = _given_lanes(lanes)
    found = _engines(layers, target, given, gap_bits, budget(target) - reserve, steps, options)
    rest = [x for x in found if _choice(x.spec) not in but] or found
    best = _cheapest(rest, budget(target) - reserve, goal) or _best(rest)
    spec = best.spec
    limit = NO_FASTER if best.cycles <= goal else _limit(found, best, target)
    if spec.code_memory == "flash" and stream_cycles(spec) >= best.cycles > goal:
        limit = "the flash takes as long for the codes of a frame: a lower K makes them fewer"
    if given:
        limit = f"the shared engine is as fast as the lanes that it was given: {spec.lanes}"
    own = engine_layers(layers, spec, options)
    return Folding(
        names=tuple(layer.name for layer in layers),
        lanes=tuple(x.lanes for x in own),
        gap_bits=tuple(x.gap_bits for x in own),
        memories=tuple(x.memories for x in own),
        slots=tuple(x.slots for x in own),
        interval_cycles=best.cycles,
        fits=best.fits,
        balanced=tuple(x.balanced for x in own),
        cost=best.cost + reserve,
        limit=limit if best.fits else "",
        goal=goal,
        engines=(spec,),
    )


@dataclass(frozen=True)
class EngineLayer:
    """What a folding says of a layer on an engine, as `pvq_hw.plan.folding.Folding` has it."""

    lanes: int
    gap_bits: int
    memories: dict[str, Any]
    slots: int
    balanced: bool


def engine_layers(
    layers: Sequence[FoldLayer], spec: CoreBase, options: Mapping[str, Any]
) -> list[EngineLayer]:
    """What a folding says of the layers of an engine, with the options that were asked for."""
    assert isinstance(spec, SharedSpec)
    memories = {"engine": spec.engine, "code_memory": spec.code_memory, **options, **spec.choices}
    slots = {layer.name: layer.words for layer in spec.layers}
    return [
        EngineLayer(
            spec.lanes, spec.code.gap_bits, memories, slots.get(layer.name, 0),
            layer.given is None and _even(layer, spec.lanes),
        )
        for layer in layers
    ]  # fmt: skip


def engine_choices(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    lanes: Sequence[int | None] | None = None,
    gap_bits: int | None = None,
    reserve: Resources,
    steps: Callable[[int], Sequence[SharedStep]] | None = None,
    **options: Any,
) -> list[Choice]:
    """Engines for some of a network's layers that no other one beats, those that fit if any do; as
    `shared_folding` takes the arguments. Their cost is without what loads codes into SPRAM."""
    room = budget(target) - reserve
    found = _engines(layers, target, _given_lanes(lanes), gap_bits, room, steps, options)
    load, fits = load_resources(target), any(x.fits for x in found)
    return unbeaten([
        Choice(x.cycles, x.cost - load if x.spec.code_memory == "spram" else x.cost, x.spec)
        for x in found
        if x.fits or not fits
    ])  # fmt: skip


def make_engine(
    part: Network, reckoned: CoreBase, target: Target, name: str, options: Mapping[str, Any]
) -> tuple[SharedSpec, CoreImage]:
    """The engine of a network, or of a part of one, as it was reckoned, with the options that were
    asked for."""
    assert isinstance(reckoned, SharedSpec)
    return _made(
        part, reckoned.lanes, gap_bits=reckoned.code.gap_bits, family=target.engine, name=name,
        **{"code_memory": reckoned.code_memory, **options, **reckoned.choices},
    )  # fmt: skip


def _given_lanes(lanes: Sequence[int | None] | None) -> set[int]:
    """Lanes of an engine, where they are given; raises InputError unless they are the same."""
    given = {p for p in lanes or () if p is not None}
    if len(given) > 1:
        raise InputError(
            f"Lanes must be the same for all layers of a shared engine, not {sorted(given)}"
        )
    return given


def _engines(
    layers: Sequence[FoldLayer],
    target: Target,
    given: set[int],
    gap_bits: int | None,
    room: Resources,
    steps: Callable[[int], Sequence[SharedStep]] | None,
    options: dict[str, Any],
) -> list["_Reckoned"]:
    """Engines that come into question, with the lanes that are given or those that are tried."""
    for layer in layers:
        _check(layer)
    if options.get("code_memory") == "flash" and not target.flash:
        raise InputError(
            f"Codes can't come from the flash of {target.name}: no SPI flash is among its pins"
        )
    if options.get("flash_bits", 1) > max(target.flash_widths, default=4):
        raise InputError(
            f"Codes can't come from the flash of {target.name} four bits a clock: its IO2 and IO3 "
            "(wp, hold) aren't among the board's pins"
        )
    does = cache(steps or (lambda side: reckoned_steps(layers, side)))
    whole = does(1)
    maps = any(step.layer.geometry is not None or step.joins for step in whole)
    if maps and any(p % 2 for p in given):
        raise InputError(f"Lanes must be even where layers have windows, not {max(given)}")
    words, own_gaps = _Words(), _gaps(whole, gap_bits, maps)
    unknown = any(step.layer.given is None for step in whole)
    gaps = own_gaps
    if not maps and target.flash and options.get("code_memory", "flash") == "flash":
        gaps = _streamed_gaps(whole, own_gaps[0])
    chosen = ("side", "code_memory", "code_buffer", "params_buffer", "flash_bits")
    asked = {key: value for key, value in options.items() if key not in chosen}

    stored = False  # whether an engine fits whose codes don't come from the flash

    def engines(p: int) -> list[_Reckoned]:
        nonlocal stored
        own = []
        for gap in gaps:
            for side in _sides(whole, target, options) if maps else (1,):
                made = _reckoned(does(side), PulseCode(p, gap), side, target, asked, maps, words)
                if unknown and not maps:
                    made = replace(made, bias_bits=made.bias_bits + _MORE_BIAS)
                if maps and made.choices["side"] < side and "side" not in options:
                    break  # no map has so many rows
                tried = list[_Reckoned]()
                for fields in _memories(made, target, options):
                    if gap not in own_gaps and fields["code_memory"] != "flash":
                        continue
                    flash = fields["code_memory"] == "flash"
                    if (flash and stored) or _helpless(tried, fields, room):
                        continue
                    spec = replace(made, **fields)
                    cost = core_resources(spec, target.engine)
                    cost += load_resources(target) if spec.code_memory == "spram" else Resources()
                    over = _over(cost, room)
                    fits = cost.within(room)
                    stored = stored or (fits and not flash)
                    tried.append(_Reckoned(spec, cost, fits, over, spec.frame_cycles))
                own += tried
                if not any(x.fits for x in tried):
                    break  # more positions take more
        return own

    widest = max(step.layer.n for step in whole)
    found = [x for p in given for x in engines(p)] or _tried(engines, widest, 1 + maps)
    return _kept(found)


@dataclass(frozen=True)
class _Reckoned:
    """An engine, what it takes, whether that fits and how far the scarcest part is over."""

    spec: SharedSpec
    cost: Resources
    fits: bool
    over: float
    cycles: int


def _tried(engines: Callable[[int], list[_Reckoned]], widest: int, step: int) -> list[_Reckoned]:
    """Engines of every number of lanes up to `_ALL_LANES`; where one of these fits, of an eighth
    more each as long as one fits and a row has so many columns, then of some between the last
    number that fits and the first that doesn't."""
    most = max(step, min(widest, _MOST_LANES) // step * step)
    found = [x for p in range(step, min(most, _ALL_LANES) + 1, step) for x in engines(p)]
    low = max(x.spec.lanes for x in found)
    if not any(x.fits and x.spec.lanes == low for x in found):
        return found
    high = most + 1  # doesn't fit, as far as is known
    while low < most and high - low > max(step, low // 40):
        eighth = min(most, low + low // 8 // step * step)
        lanes = eighth if high > most else (low + high) // 2 // step * step
        own = engines(lanes)
        found += own
        low, high = (lanes, high) if any(x.fits for x in own) else (low, lanes)
    return found


def _check(layer: FoldLayer) -> None:
    """Refuses what is known of a layer before its codes are."""
    if layer.given is not None:
        why = refuse_shared(layer.given[0], layer.given[1], layer.given[0].output)
    else:
        why = EIGHT_BITS if layer.encoding != "pvq" else ""
        if layer.x.binary or layer.out.binary:
            why = "its activations are signs"
    if layer.code not in (None, "pulse"):
        why = f"it is to have {layer.code} codes"
    if why:
        raise InputError(f"Layer {layer.name!r} can't be on a shared engine: {why}")


def _memories(spec: SharedSpec, target: Target, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where codes and maps may be, each in block RAM or SPRAM, and whether multipliers and biases
    come from the flash with codes; those behind that take more block RAM and are as fast."""
    kinds = ["block", *(["spram"] if target.device.sprams else [])]
    kinds += ["flash"] if target.flash else []
    found: list[dict[str, Any]] = []
    for kind in [options["code_memory"]] if "code_memory" in options else kinds:
        part: dict[str, Any] = {"code_memory": kind}
        if kind == "flash":
            least = max(_RING_WORDS, 1 << (spec.least_buffer - 1).bit_length())
            part["code_buffer"] = options.get("code_buffer", least)
            part["flash_bits"] = options.get("flash_bits", _SURE_BITS)
        ways = [part, *([part | {"map_memory": "ring"}] if isinstance(spec, MapSpec) else [])]
        if target.device.sprams and spec.fits_spram:
            ways.append(part | {"map_memory": "spram"})
        found += ways
        if kind == "flash" and isinstance(spec, MapSpec):
            rows = max(_RING_WORDS, 1 << (spec.least_rows - 1).bit_length())
            rows = options.get("params_buffer", rows)
            first = 0 if "params_buffer" in options else 1
            kept = {"params_buffer": rows, "params_memory": "block"}
            found += [way | kept for way in ways[first:] if rows]
    usual = {"map_memory": "block", "params_buffer": 0}
    return [
        x for x in found if all(options.get(k, (usual | x)[k]) == (usual | x)[k] for k in usual)
    ]


def _helpless(tried: Sequence[_Reckoned], fields: Mapping[str, Any], room: Resources) -> bool:
    """Whether fields only save block RAM, by one memory of maps or by multipliers and biases from
    the flash, and there is enough, or more than block RAM is short."""
    saves = fields.get("map_memory") == "ring" or "params_buffer" in fields
    spram = fields.get("map_memory") == "spram"
    alike = [
        x.cost
        for x in tried
        if x.spec.code_memory == fields["code_memory"]
        and (x.spec.choices.get("map_memory") == "spram") == spram
    ]
    if not saves or not alike:
        return False
    enough = any(cost.brams <= room.brams for cost in alike)
    return enough or not any(replace(cost, brams=0, bram_bits=0).within(room) for cost in alike)


def _kept(found: list[_Reckoned]) -> list[_Reckoned]:
    """Without those whose codes come from the flash, where others fit."""
    stored = [x for x in found if x.spec.code_memory != "flash"]
    return stored if any(x.fits for x in stored) else found


def _streamed_gaps(steps: Sequence[SharedStep], own: int) -> list[int]:
    """Gap bits that are tried of codes from the flash, where the fewest bits count: fewer, with
    more escapes, of codes that are known; else the quantizer would have to keep to them."""
    known = all(step.layer.given is not None for step in steps)
    return [own, *(bits for bits in (own + 1, *range(own - 1, 2, -1)) if known)]


def _gaps(steps: Sequence[SharedStep], gap: int | None, maps: bool) -> list[int]:
    """Gap bits that are tried: those of the layers with many pulses; of convolutions, whose rows
    may have few pulses far apart, some narrower ones too."""
    if gap:
        return [gap]
    layers = [step.layer for step in steps if not step.most]
    pulses = [layer.k * layer.rows for layer in layers]
    notable = min(_NOTABLE * sum(pulses), max(pulses))
    most = max(
        gap_bits_for(layer.n, layer.k)
        for layer, count in zip(layers, pulses, strict=True)
        if count >= notable
    )
    return list(range(max(3, most), 2, -1)) if maps else [most]


def _sides(
    steps: Sequence[SharedStep], target: Target, options: Mapping[str, Any]
) -> tuple[int, ...]:
    """How many positions may be computed together: several where a row's results can follow one
    another at once."""
    if "side" in options:
        return (options["side"],)
    kind = options.get("multiplier", family(target.engine).multiplier)
    shapes = [step.layer.geometry.output_size for step in steps if step.layer.geometry]
    return (
        (1, 2, 3, 4)
        if not multiplier_named(kind).paced and max(math.prod(x) for x in shapes) > 1
        else (1,)
    )


def _even(layer: FoldLayer, lanes: int) -> bool:
    """Whether the quantizer gives every bank of a row as many pulses."""
    return can_balance(layer, lanes) and not too_thin(layer, lanes)


def _reckoned(
    steps: Sequence[SharedStep],
    code: PulseCode,
    side: int,
    target: Target,
    options: Mapping[str, Any],
    maps: bool,
    words: "_Words",
) -> SharedSpec:
    cores, described, chunks = [], [], []
    tables = [step.entries for step in steps if step.entries]
    multiplier = {key: value for key, value in options.items() if key == "multiplier"}
    for step in steps:
        layer = step.layer
        n, chunk, parts = window_columns(step) if maps else (layer.n, 0, 1)
        chunks.append((chunk, parts))
        together = max(1, step.most)
        slots = together * words.of_row(layer, code, chunk, -(-side // together))
        core = reckoned_core(
            layer.rows // together, max(n, code.lanes), layer.k, layer.x, layer.out, code, slots,
            target.engine, multiplier,
        )  # fmt: skip
        again = 1 if step.most else parts
        cores.append(core)
        count = layer.k * layer.rows
        described.append(
            SharedLayer(
                layer.name, n, layer.rows, layer.x, layer.out,
                -(-core.words // again) * again, core.shift, count, count,
                layer.rows * layer.columns,
            )
        )  # fmt: skip

    def make(found: Sequence[SharedLayer], **fields: Any) -> SharedSpec:
        if not maps:
            return make_spec(found, **fields)
        windows = [
            map_layer(
                **vars(own),
                chunk=chunk,
                parts=parts,
                geometry=step.layer.geometry or Geometry((1, 1, step.layer.n), (1, 1)),
                reads=step.reads,
                joins=step.joins,
                side=side,
                most=step.most,
                pool=step.pool,
                beside=step.beside,
                table=tables.index(step.entries) + 1 if step.entries else 0,
            )
            for own, step, (chunk, parts) in zip(found, steps, chunks, strict=True)
        ]
        return make_map_spec(windows, tables=tuple(tables), **fields)

    return share(described, cores, target.engine, ENGINE, make=make, fifo_depth=64, **options)


class _Words:
    """Words of rows, which are counted once for the codes of known layers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, PulseCode], Any] = {}

    def of_row(self, layer: FoldLayer, code: PulseCode, chunk: int, least: int) -> float:
        """Words of a row, ``least`` or more: of known codes, those of the rows as they are."""
        if layer.given is None:
            return max(float(least), _slots(layer, code, chunk))
        key = (layer.name, code)
        if key not in self._known:
            self._known[key] = np.array(code.encode(layer.given[0].y).row_slots)
        return float(np.maximum(self._known[key], least).sum()) / layer.rows


def _slots(layer: FoldLayer, code: PulseCode, chunk: int) -> float:
    """Words of a row whose codes aren't known."""
    if chunk and layer.geometry is not None:
        taps = math.prod(layer.geometry.kernel)
        banks = len({t * chunk % code.lanes for t in range(taps)})
        return max(1.0, 1.2 * layer.k / min(banks, layer.k))
    if _even(layer, code.lanes):
        return float(-(-layer.k // code.lanes))
    found = dict(reckoned_slots(layer.n, layer.k, min(code.lanes, layer.n), False, False, 0))
    return found.get(code.gap_bits, min(found.values()))


def _over(cost: Resources, room: Resources) -> float:
    parts = ("luts", "brams", "dsps", "sprams")
    return max((getattr(cost, k) - getattr(room, k)) / max(1, getattr(room, k)) for k in parts)


def _choice(spec: SharedSpec) -> tuple[Any, ...]:
    """What is chosen of an engine."""
    return spec.lanes, spec.code.gap_bits, *spec.choices.values()


def _cheapest(found: Sequence[_Reckoned], room: Resources, goal: int) -> _Reckoned | None:
    """What takes the least of those that fit and keep to a goal, if any do."""
    fast = [x for x in found if x.fits and x.cycles <= goal]
    return min(fast, key=lambda x: (price(x.cost, room), x.cycles), default=None)


def _best(found: Sequence[_Reckoned]) -> _Reckoned:
    """The fewest cycles that fit, in block RAM where SPRAM saves less than 5 % of them; what is
    least over where none do."""
    fitting = [x for x in found if x.fits]
    if not fitting:
        return min(found, key=lambda x: (x.over, x.cycles))

    def rank(x: _Reckoned) -> tuple[float, int, int]:
        worth = _WORTH if x.spec.code_memory == "spram" else 1.0
        return x.cycles / worth, x.cost.luts, x.cost.brams

    return min(fitting, key=rank)


def _limit(found: Sequence[_Reckoned], best: _Reckoned, target: Target) -> str:
    """In one line, what stops the engine from being faster."""
    room = {"luts": f"{target.logic_cell}s", "brams": "block RAMs", "sprams": "SPRAMs"}
    faster = [x for x in found if x.cycles < best.cycles and not x.fits]
    if not faster and best.spec.lanes == _MOST_LANES:
        return f"the shared engine has {_MOST_LANES} lanes, and more are never chosen"
    if not faster:
        return f"the shared engine gains nothing by more lanes than {best.spec.lanes}"
    least = min(faster, key=lambda x: (x.over, x.cycles))
    saved = max(1.0, 100 * (1 - least.cycles / best.cycles))
    key = max(room, key=lambda k: getattr(least.cost, k) / max(1, getattr(budget(target), k)))
    return (
        f"{saved:.0f} % fewer cycles would take {least.spec.lanes} lanes instead of "
        f"{best.spec.lanes}, and more {room[key]} than there are"
    )


# -- known networks ---------------------------------------------------------------------------


@whole_plan.of(Shared)
def shared_plan(
    engine: Shared,
    network: Network,
    target: Target,
    lanes: Lanes,
    gap_bits: Lanes,
    reserve: Resources,
    goal: int,
    options: dict[str, Any],
) -> tuple[SharedSpec, CoreImage, Folding]:
    """The engine of a network's layers but one that decides, with the lanes and gap bits given or
    those that suit its codes best; what `shared_folding` reckoned comes with it."""
    maps = network_chain(network.undecided)[1]
    steps = cache(lambda side: known_steps(network, side))
    decides = _deciding(network, target)
    reserve += sum((unit_resources(unit, target.engine) for unit in decides), Resources())
    given = {gap for gap in gap_bits or () if gap is not None}
    if lanes is not None and len({p for p in lanes if p is not None}) > 1:
        raise InputError(
            f"Lanes must be the same for all layers of a shared engine, not {list(lanes)}"
        )
    tried: set[tuple[Any, ...]] = set()
    while True:
        folding = shared_folding(
            [step.layer for step in steps(1)], target, lanes=lanes[:1] if lanes else None,
            reserve=reserve, but=tried, steps=steps, goal=goal,
            gap_bits=max(given) if given and not maps else None, **options,
        )  # fmt: skip
        spec, image = make_engine(network, folding.engines[0], target, ENGINE, options)
        # Parameters may be wider than was reckoned.
        cost = core_resources(spec, target.engine) + reserve
        cost += load_resources(target) if spec.code_memory == "spram" else Resources()
        if cost.within(budget(target)) or not folding.fits or _choice(spec) in tried:
            break
        tried.add(_choice(spec))
    return spec, image, folding


def known_steps(network: Network, side: int) -> list[SharedStep]:
    """What an engine of V positions does for a network."""
    chain, maps = network_chain(network.undecided, side)
    steps = []
    for part in chain:
        layer, x = part.dense, part.x
        if maps:
            wide = window_layer(part)
            layer, x = wide.dense, wide.x
        rows, n = part.dense.y.shape
        known = FoldLayer(
            layer.name, rows, n, max(1, round(int(np.abs(layer.y).sum()) / rows)),
            x.format, part.out or layer.output.format, geometry=part.geometry if maps else None,
            given=(layer, x),
        )  # fmt: skip
        steps.append(
            SharedStep(
                known, part.reads, part.joins, part.most, part.pool, part.entries, part.beside
            )
        )
    return steps


def _made(network: Network, lanes: int, **options: Any) -> tuple[SharedSpec, CoreImage]:
    """The engine of a network, with maps where it has any."""
    chain, maps = network_chain(network.undecided, options.get("side", 1))
    if not maps:
        return make_shared_core([(part.dense, part.x) for part in chain], lanes, **options)
    return make_map_core([window_layer(part) for part in chain], lanes, **options)


def _deciding(network: Network, target: Target) -> tuple[Unit, ...]:
    """The unit that decides at a network's end, or none."""
    if network.undecided is network:
        return ()
    name, read = unit_names(network.layers)[-1], network.undecided.output
    site = Site(name, ("scores",), ("o",), (read,), family(target.engine))
    return (layer_unit(network.layers[-1], site),)


def least_engine(part: Network, target: Target, name: str) -> tuple[SharedSpec, CoreImage]:
    """The engine of a network, or of a part of one, with the fewest lanes."""
    maps = network_chain(part.undecided)[1]
    return _made(part, 1 + maps, family=target.engine, name=name)


@whole_layer.of(SharedSpec)
def shared_layer_plan(spec: SharedSpec, target: Target) -> LayerPlan:
    """The plan of the engine: one part for all its layers."""
    return LayerPlan(
        layer=spec.name,
        engine=target.engine,
        spec=spec,
        pulses=sum(layer.pulses for layer in spec.layers),
        codes=sum(layer.codes for layer in spec.layers),
        reason=shared_reason(spec),
    )


core_options.of(SharedSpec)(lambda spec: spec.choices)


@whole_core.of(SharedSpec)
def remake_shared(
    spec: SharedSpec, network: Network, target: Target
) -> tuple[SharedSpec, CoreImage]:
    """The engine of a network with the choices that a specification made."""
    options: dict[str, Any] = {
        key: getattr(spec, key)
        for key in (
            *("multiplier", "code_latency", "bank_latency", "carry_chunk"),
            *("fifo_depth", "params_memory", "fifo_memory"),
        )
    }
    if spec.multiplies.paced:
        options["multiplier_interval"] = spec.multiplier_interval
    options |= spec.choices
    code = spec.code
    return _made(
        network, code.lanes, gap_bits=code.gap_bits, shift_bits=code.shift_bits,
        code=code.kind, family=target.engine, name=spec.name, **options,
    )  # fmt: skip
