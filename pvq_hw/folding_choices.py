"""What each layer could be folded to, and what that would cost; `pvq_hw.folding` chooses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.blocks import spram_blocks
from pvq_hw.codes import choose_shift_bits
from pvq_hw.core import CoreSpec, make_core
from pvq_hw.core_base import CoreBase
from pvq_hw.cores import make_layer_core
from pvq_hw.families import family
from pvq_hw.int8_core import Int8Spec
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.resources import Resources, bank_ways, core_resources
from pvq_hw.targets import Target

__all__ = ["Choice", "Source", "Stage", "laplacian_pulses", "some_rows", "stage_choices"]

_SAMPLE_ROWS = 16
_MAX_LANES = 128
# Of a bank that may be distributed RAM. Flip-flops, which iCE40 would need, crowd out the wires:
# a plan of 4,400 of 5,280 cells with banks of them could not be placed.
_BANK_WORDS = 128
_CLOSER_GAPS = 0.75  # of the least largest gap; network A at N/K=5 and 20 lost nothing by it
_DENSE_PULSES = 1 / 3  # of a weight: with fewer, shifted pulses save too little
_MORE_ROOM = 3  # per cent; a balanced row's K is a multiple of the lanes
_FEWER_WORDS = 0.97  # that are worth shifters
_MORE_WORDS = 1.1  # that a narrower code may cost


@dataclass(frozen=True)
class Choice:
    """A core that would do a layer, and what it takes."""

    spec: CoreBase
    cost: Resources


@dataclass(frozen=True)
class Source:
    """A layer of which a sample of rows is there, for given lanes and gap bits (None: free).

    ``transfers`` is the most cycles that its activations take to come or go, if not one each.
    ``least_gap`` is the smallest largest gap that a quantizer should be held to, ``most_lanes``
    bounds the lanes that are tried. ``code`` is ``"pulse"`` or ``"shifted"`` where it is not free.
    ``more_words`` is how many times the fewest words a narrower code may have, ``more_room`` how
    many per cent of words more than the sample's are reckoned with.
    """

    name: str
    n: int
    rows: int
    sample: Callable[[int, int | None], tuple[Dense, TensorSpec]]
    least_gap: float = 0.0
    most_lanes: int = _MAX_LANES
    transfers: int = 0
    code: str | None = None
    more_words: float = _MORE_WORDS
    more_room: int = _MORE_ROOM


@dataclass(frozen=True)
class Stage:
    """A layer's choices; below ``floor`` cycles no lanes bring it, since its activations come
    and go one a cycle. ``asked``: the multiplier is not free."""

    name: str
    floor: int
    choices: tuple[Choice, ...]
    asked: bool = False


def stage_choices(
    source: Source, lanes: int | None, gap: int | None, target: Target, options: dict[str, Any]
) -> Stage:
    """All choices worth a try: lanes, gap bits and memory kinds, as far as they are free."""
    floor = max(source.n, source.rows, source.transfers)
    choices: list[Choice] = []
    fewest: int | None = None
    for p in _lane_steps(min(source.n, source.most_lanes)) if lanes is None else [lanes]:
        specs = _specs(source, p, gap, target.engine, options)
        words = min(spec.words for spec in specs)
        if fewest is not None and words >= fewest:
            continue
        fewest = words
        for spec in specs:
            for variant in _memory_variants(spec, target.engine, options):
                choices.append(Choice(variant, _estimate(variant, target.engine, source)))
        for spec in _in_spram(source, specs, gap, target, options):
            for variant in _memory_variants(spec, target.engine, options):
                choices.append(Choice(variant, _estimate(variant, target.engine, source)))
        if words <= floor:
            break
    return Stage(source.name, floor, tuple(choices), "multiplier" in options)


def _estimate(spec: CoreBase, engine: str, source: Source) -> Resources:
    """Resources with room for some more words than those of a sample's rows: a word beyond a
    power of two may cost a row of block RAMs."""
    if isinstance(spec, CoreSpec):
        spec = replace(spec, words=-(-spec.words * (100 + source.more_room) // 100))
    return core_resources(spec, engine)


def _lane_steps(most: int) -> list[int]:
    """Lanes worth a try: dense where a step matters much, coarser above."""
    steps = [*range(1, 17), *range(18, 33, 2), *range(36, 65, 4), *range(72, _MAX_LANES + 1, 8)]
    return [p for p in steps if p <= most]


def _specs(
    source: Source, lanes: int, gap: int | None, engine: str, options: dict[str, Any]
) -> list[CoreBase]:
    """Specs of unit pulses, and where pulses lie upon each other of shifted ones too; of one kind
    alone where that is asked for."""
    layer, x = source.sample(lanes, gap)
    if layer.encoding == "int8":
        return [_int8(source, layer, x, lanes, engine, options)]
    if source.code == "shifted":
        bits = choose_shift_bits(layer.y, lanes, groups=layer.groups)
        return _gap_widths(source, lanes, gap, engine, options | {"shift_bits": bits})
    found = _gap_widths(source, lanes, gap, engine, options)
    if source.code == "pulse":
        return found
    if "shift_bits" in options or np.abs(layer.y).mean() < _DENSE_PULSES:
        return found
    for shift_bits in (1, 2):
        shifted = _gap_widths(source, lanes, gap, engine, options | {"shift_bits": shift_bits})
        fewest = min(spec.words for spec in found)
        found += [spec for spec in shifted if spec.words < _FEWER_WORDS * fewest]
    return found


def _gap_widths(
    source: Source, lanes: int, gap: int | None, engine: str, options: dict[str, Any]
) -> list[CoreBase]:
    """Specs with the gap width of fewest slots, and with narrower ones that store fewer bits."""
    spec = _scaled(source, lanes, gap, engine, options)
    specs = [spec]
    while gap is None and specs[-1].code.gap_bits > 1:
        last = specs[-1]
        if (1 << (last.code.gap_bits - 1)) - 2 < source.least_gap:
            break
        narrower = _scaled(source, lanes, last.code.gap_bits - 1, engine, options)
        if narrower.words * narrower.code.word_bits >= last.words * last.code.word_bits:
            break
        if narrower.words > source.more_words * spec.words:
            break
        specs.append(narrower)
    return list(specs)


def _in_spram(
    source: Source,
    specs: list[CoreBase],
    gap: int | None,
    target: Target,
    options: dict[str, Any],
) -> list[CoreBase]:
    """The specs with their codes in SPRAM, where the target has it. Its words are 16 bits wide: a
    gap bit less may save a block, for which a quantizer is held to closer gaps."""
    found = [spec for spec in specs if isinstance(spec, CoreSpec)]
    found = [spec for spec in found if spec.code.shift_bits == found[0].code.shift_bits]
    if not target.spram_bits or "code_memory" in options or not found:
        return []
    last = found[-1]
    bits = last.code.gap_bits - 1
    if gap is None and bits >= 1 and (1 << bits) - 2 >= _CLOSER_GAPS * source.least_gap:
        asked = options | {"shift_bits": last.code.shift_bits}
        narrower = _scaled(source, last.lanes, bits, target.engine, asked)
        if spram_blocks(narrower.word_bits, 1) < spram_blocks(last.word_bits, 1):
            found.append(narrower)
    return [replace(spec, code_memory="spram") for spec in found]


def _int8(
    source: Source,
    layer: Dense,
    x: TensorSpec,
    lanes: int,
    engine: str,
    options: dict[str, Any],
) -> CoreBase:
    """Spec of all rows of plain weights."""
    spec, _ = make_layer_core(layer, x, lanes, family=engine, name="core", **options)
    kind = "logic" if source.rows <= family(engine).logic_rows else "block"
    return replace(spec, rows=source.rows, params_memory=options.get("params_memory", kind))


def _scaled(
    source: Source, lanes: int, gap: int | None, engine: str, options: dict[str, Any]
) -> CoreSpec:
    """Spec of all rows, from a sample of them."""
    layer, x = source.sample(lanes, gap)
    spec, _ = make_core(layer, x, lanes, gap_bits=gap, family=engine, name="core", **options)
    rows = source.rows
    small = rows * layer.groups <= family(engine).logic_rows
    kind = options.get("params_memory", "logic" if small else "block")
    words = -(-spec.words * rows // len(layer.y))
    return replace(spec, rows=rows, words=words, params_memory=kind)


def _memory_variants(spec: CoreBase, engine: str, options: dict[str, Any]) -> list[CoreBase]:
    """The spec, and where block RAM is scarce also with its small memories as logic."""
    variants = [spec]
    free = not {"products", "multiplier"} & set(options)
    if isinstance(spec, Int8Spec) and spec.products != "logic" and free:
        variants.append(replace(spec, products="logic"))
    if (
        isinstance(spec, CoreSpec)
        and "bank_memory" not in options
        and family(engine).lutram
        and spec.bank_words <= _BANK_WORDS
    ):
        # Two distributed RAMs meet in the leaf; more want a register before it.
        latency = options.get("bank_latency", 1 + (bank_ways(spec) > 2))
        variants.append(replace(spec, bank_memory="logic", bank_latency=latency))
    if family(engine).lutram:
        return variants
    if "fifo_memory" not in options and spec.fifo_memory == "block" and spec.fifo_depth <= 16:
        variants += [replace(v, fifo_memory="logic") for v in variants]
    if "params_memory" not in options and spec.params_memory == "block" and spec.rows <= 128:
        variants += [replace(v, params_memory="logic") for v in variants]
    return variants


def some_rows(layer: Dense) -> Dense:
    """The layer reduced to evenly spaced rows."""
    count = min(len(layer.y), _SAMPLE_ROWS)
    rows = np.linspace(0, len(layer.y) - 1, count).astype(np.int64)
    return replace(
        layer,
        output=replace(layer.output, shape=(count,)),
        y=layer.y[rows],
        mult=layer.mult[rows],
        bias=layer.bias[rows],
        gain=layer.gain[rows],
    )


@lru_cache(maxsize=512)
def laplacian_pulses(n: int, k: int, banks: int, max_gap: int | None) -> npt.NDArray[np.int64]:
    """Rows like those that a quantizer gives: pyramid points of Laplacian weights, balanced."""
    from pvq_hw.quantizer_balance import Placement, balance

    w = np.random.default_rng(0).laplace(size=(_SAMPLE_ROWS, n))
    pulses = np.full(_SAMPLE_ROWS, max(banks, k // banks * banks), dtype=np.int64)
    # Rows have multiples of the banks, which are K in the mean.
    more = round(_SAMPLE_ROWS * max(0, k - int(pulses[0])) / banks)
    pulses[:more] += banks
    return np.asarray(balance(w, pulses, Placement(banks, max_gap)), dtype=np.int64)
