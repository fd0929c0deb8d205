"""A network on one engine that its layers share: lanes and code of all of them, then its core."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.shared_core import (
    SharedLayer,
    SharedSpec,
    make_shared_core,
    refuse_shared,
    share,
)
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.candidates import FoldLayer, can_balance, core_options, too_thin
from pvq_hw.plan.core_layers import unit_names
from pvq_hw.plan.folding import Folding, fold_best
from pvq_hw.plan.layer import LayerPlan
from pvq_hw.plan.reckoning import gap_bits_for, reckoned_core, reckoned_slots
from pvq_hw.plan.resources import Resources, budget, core_resources, load_resources
from pvq_hw.target.boards import Target

__all__ = [
    "ENGINE",
    "fold_network",
    "remake_shared",
    "shared_folding",
    "shared_graph",
    "shared_layer_plan",
    "shared_plan",
]

ENGINE = "engine"
"""What the one core of such a network is called."""

_MOST_LANES = 32
_NOTABLE = 0.05  # of the pulses: layers with fewer don't decide the code's gap bits
_WORTH = 0.95  # of the cycles: codes that have to be loaded save so much


def shared_folding(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    lanes: Sequence[int | None] | None = None,
    gap_bits: int | None = None,
    reserve: Resources,
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
        Free unless given.
    reserve : Resources
        Kept free.
    **options
        ``code_memory`` and ``multiplier``, free unless given.

    Raises
    ------
    InputError
        Lanes are not the same, or a layer can't be on a shared engine.
    """
    given = {p for p in lanes or () if p is not None}
    if len(given) > 1:
        raise InputError(
            f"Lanes must be the same for all layers of a shared engine, not {sorted(given)}"
        )
    for layer in layers:
        _check(layer)
    room = budget(target) - reserve
    found = []
    for p in given or range(1, _MOST_LANES + 1):
        made = _reckoned(layers, p, gap_bits, target, options)
        for memory in _memories(target, options):
            spec = replace(made, code_memory=memory)
            cost = core_resources(spec, target.engine)
            cost += load_resources(target) if memory == "spram" else Resources()
            found.append(_Reckoned(spec, cost, cost.within(room), _over(cost, room)))
    best = _best(found)
    spec = best.spec
    memory_options = {"engine": "shared", "code_memory": spec.code_memory, **options}
    return Folding(
        names=tuple(layer.name for layer in layers),
        lanes=(spec.lanes,) * len(layers),
        gap_bits=(spec.code.gap_bits,) * len(layers),
        memories=(memory_options,) * len(layers),
        slots=tuple(layer.words for layer in spec.layers),
        interval_cycles=spec.frame_cycles,
        fits=best.fits,
        balanced=tuple(layer.given is None and _even(layer, spec.lanes) for layer in layers),
        cost=best.cost + reserve,
        limit=_limit(found, best, target) if best.fits else "",
    )


def fold_network(
    layers: Sequence[FoldLayer],
    target: Target,
    *,
    shared: bool = False,
    may_share: bool = False,
    best: Callable[..., Folding] = fold_best,
    **asked: Any,
) -> Folding:
    """A core a layer, or one for all.

    Parameters
    ----------
    layers, target, **asked
        As `pvq_hw.plan.folding.fold_best` takes them.
    shared : bool
        One for all was asked for.
    may_share : bool
        It is taken where a core a layer doesn't fit.
    best : callable
        `fold_best`, or `pvq_hw.plan.folding.fold`.
    """
    if not shared:
        found = best(layers, target, **asked)
        if found.fits or not may_share:
            return found
    each = asked.get("each") or {}
    options = {key: value for part in each.values() for key, value in part.items()}
    options = {key: options[key] for key in ("code_memory", "multiplier") if key in options}
    wanted: dict[str, Any] = {
        "lanes": asked.get("lanes"),
        "reserve": asked.get("reserve") or Resources(),
    }
    if shared:
        return shared_folding(layers, target, **wanted, **options)
    try:
        one = shared_folding(layers, target, **wanted, **options)
    except InputError:
        return found
    reasons = dict.fromkeys(one.names, "shared: one core a layer would not fit")
    return replace(one, engine_reasons=reasons) if one.fits else found


@dataclass(frozen=True)
class _Reckoned:
    """An engine, what it takes, whether that fits and how far the scarcest part is over."""

    spec: SharedSpec
    cost: Resources
    fits: bool
    over: float


def _check(layer: FoldLayer) -> None:
    """Refuses what is known of a layer before its codes are."""
    if layer.given is not None:
        why = refuse_shared(layer.given[0], layer.given[1], layer.given[0].output)
    else:
        why = "it has 8-bit weights" if layer.encoding != "pvq" else ""
        if layer.x.binary or layer.out.binary:
            why = "its activations are signs"
    if layer.geometry is not None:
        why = "it is a convolution: only dense layers share an engine"
    if layer.code not in (None, "pulse"):
        why = f"it is to have {layer.code} codes"
    if why:
        raise InputError(f"Layer {layer.name!r} can't be on a shared engine: {why}")


def _memories(target: Target, options: Mapping[str, Any]) -> list[str]:
    if "code_memory" in options:
        return [options["code_memory"]]
    return ["block", "spram"] if target.device.sprams else ["block"]


def _even(layer: FoldLayer, lanes: int) -> bool:
    """Whether the quantizer gives every bank of a row as many pulses."""
    return can_balance(layer, lanes) and not too_thin(layer, lanes)


def _reckoned(
    layers: Sequence[FoldLayer],
    p: int,
    gap: int | None,
    target: Target,
    options: Mapping[str, Any],
) -> SharedSpec:
    pulses = [layer.k * layer.rows for layer in layers]
    notable = min(_NOTABLE * sum(pulses), max(pulses))
    gap = gap or max(
        gap_bits_for(layer.n, layer.k)
        for layer, count in zip(layers, pulses, strict=True)
        if count >= notable
    )
    code = PulseCode(p, gap)
    cores, described = [], []
    for layer in layers:
        slots = _slots(layer, code)
        core = reckoned_core(
            layer.rows, max(layer.n, p), layer.k, layer.x, layer.out, code, slots, target.engine,
            {key: value for key, value in options.items() if key == "multiplier"},
        )  # fmt: skip
        cores.append(core)
        count = layer.k * layer.rows
        described.append(
            SharedLayer(
                layer.name, layer.n, layer.rows, layer.x, layer.out, core.words, core.shift,
                count, count,
            )
        )  # fmt: skip
    return share(described, cores, target.engine, ENGINE, fifo_depth=64, **options)


def _slots(layer: FoldLayer, code: PulseCode) -> float:
    """Words of a row: of known codes, those of the rows as they are."""
    if layer.given is not None:
        return code.encode(layer.given[0].y).slots / layer.rows
    if _even(layer, code.lanes):
        return float(-(-layer.k // code.lanes))
    found = dict(reckoned_slots(layer.n, layer.k, min(code.lanes, layer.n), False, False, 0))
    return found.get(code.gap_bits, min(found.values()))


def _over(cost: Resources, room: Resources) -> float:
    parts = ("luts", "brams", "dsps", "sprams")
    return max((getattr(cost, k) - getattr(room, k)) / max(1, getattr(room, k)) for k in parts)


def _best(found: Sequence[_Reckoned]) -> _Reckoned:
    """The fewest cycles that fit, in block RAM where SPRAM saves less than 5 % of them; what is
    least over where none do."""
    fitting = [x for x in found if x.fits]
    if not fitting:
        return min(found, key=lambda x: (x.over, x.spec.frame_cycles))

    def rank(x: _Reckoned) -> tuple[float, int, int]:
        worth = _WORTH if x.spec.code_memory == "spram" else 1.0
        return x.spec.frame_cycles / worth, x.cost.luts, x.cost.brams

    return min(fitting, key=rank)


def _limit(found: Sequence[_Reckoned], best: _Reckoned, target: Target) -> str:
    """In one line, what stops the engine from being faster."""
    room = {"luts": f"{target.logic_cell}s", "brams": "block RAMs", "sprams": "SPRAMs"}
    faster = [x for x in found if x.spec.frame_cycles < best.spec.frame_cycles and not x.fits]
    if not faster:
        return f"the shared engine gains nothing by more lanes than {best.spec.lanes}"
    least = min(faster, key=lambda x: (x.over, x.spec.frame_cycles))
    saved = 100 * (1 - least.spec.frame_cycles / best.spec.frame_cycles)
    key = max(room, key=lambda k: getattr(least.cost, k) / max(1, getattr(budget(target), k)))
    return (
        f"{saved:.0f} % fewer cycles would take {least.spec.lanes} lanes instead of "
        f"{best.spec.lanes}, and more {room[key]} than there are"
    )


# -- known networks ---------------------------------------------------------------------------


def _chain(network: Network) -> list[tuple[Dense, TensorSpec]]:
    """The layers with their inputs; raises InputError where one can't be on a shared engine."""
    tensors, before = network.tensors(), network.input.name
    found = []
    for layer in network.layers:
        x = tensors[layer.inputs[0]]
        why = refuse_shared(layer, x, layer.output)
        if not why and layer.inputs[0] != before:
            why = f"it doesn't read what the layer before it gives, but {layer.inputs[0]!r}"
        if why or not isinstance(layer, Dense):
            raise InputError(f"Layer {layer.name!r} can't be on a shared engine: {why}")
        before = layer.output.name
        found.append((layer, x))
    return found


def shared_plan(
    network: Network,
    target: Target,
    *,
    lanes: Sequence[int | None] | None,
    gap_bits: Sequence[int | None] | None,
    reserve: Resources,
    **options: Any,
) -> tuple[GraphSpec, SharedSpec, CoreImage, Folding]:
    """The engine of a network's layers, with the lanes and gap bits given or those that suit its
    codes best; what `shared_folding` reckoned comes with it."""
    chain = _chain(network)
    layers = [
        FoldLayer(
            layer.name, layer.y.shape[0], layer.y.shape[1],
            max(1, round(int(np.abs(layer.y).sum()) / layer.y.shape[0])),
            x.format, layer.output.format, given=(layer, x),
        )
        for layer, x in chain
    ]  # fmt: skip
    given = {gap for gap in gap_bits or () if gap is not None}
    gap = max(given) if given else None
    folding = shared_folding(layers, target, lanes=lanes, gap_bits=gap, reserve=reserve, **options)
    made = {**options, "code_memory": folding.memories[0]["code_memory"]}
    spec, image = make_shared_core(
        chain, folding.lanes[0], gap_bits=folding.gap_bits[0], family=target.engine, name=ENGINE,
        **made,
    )  # fmt: skip
    return shared_graph(network, spec), spec, image, folding


def shared_graph(network: Network, spec: SharedSpec) -> GraphSpec:
    """The one unit that computes the network, called as its last layer is."""
    return GraphSpec((CoreUnit(unit_names(network.layers)[-1], ("i",), ("o",), spec),))


def shared_layer_plan(spec: SharedSpec, target: Target) -> LayerPlan:
    """The plan of the engine: one part for all layers."""
    return LayerPlan(
        layer=ENGINE,
        engine=target.engine,
        spec=spec,
        pulses=sum(layer.pulses for layer in spec.layers),
        codes=sum(layer.codes for layer in spec.layers),
        reason=f"{len(spec.layers)} layers share {spec.lanes} lanes",
    )


@core_options.of(SharedSpec)
def _shared_options(spec: SharedSpec) -> dict[str, Any]:
    return {"code_memory": spec.code_memory}


def remake_shared(
    network: Network, spec: SharedSpec, target: Target
) -> tuple[SharedSpec, CoreImage]:
    """The engine of a network with the choices that a specification made."""
    options: dict[str, Any] = {
        key: getattr(spec, key)
        for key in (
            *("multiplier", "code_latency", "code_memory", "bank_latency", "carry_chunk"),
            *("fifo_depth", "params_memory", "fifo_memory"),
        )
    }
    if spec.multiplier == "serial":
        options["multiplier_interval"] = spec.multiplier_interval
    code = spec.code
    return make_shared_core(
        _chain(network), code.lanes, gap_bits=code.gap_bits, shift_bits=code.shift_bits,
        code=code.kind, family=target.engine, name=spec.name, **options,
    )  # fmt: skip
