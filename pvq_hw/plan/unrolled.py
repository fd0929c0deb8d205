"""The unrolled engine as the planner takes it: all of a layer in wires."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np

from pvq_hw.engine.adder_graph import pairs_of_digits
from pvq_hw.engine.engines import Unrolled
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.raster import raster_refusal
from pvq_hw.engine.sliding_window import SlidingWindow
from pvq_hw.engine.units import CoreUnit
from pvq_hw.engine.unrolled_core import (
    DIGITS,
    MOST_PLACES,
    UnrolledSpec,
    as_pipelined,
    params_kind,
    window_raster,
)
from pvq_hw.errors import InputError
from pvq_hw.plan.candidates import (
    Choice,
    FoldLayer,
    Question,
    core_options,
    engine_choices,
    engine_limit,
    engine_offer,
    floor_cycles,
    per_cycle,
    stream_limit,
    synthetic_rows,
    unbeaten,
)
from pvq_hw.plan.resources import Resources, core_resources
from pvq_hw.plan.unit_resources import unit_resources
from pvq_hw.plan.unrolled_reckoning import (
    reckoned_pairs,
    reckoned_unrolled,
    with_wired_multipliers,
)
from pvq_hw.target.families import family

__all__: list[str] = []

_NEAR = 1.15  # of what is reckoned: no layer that might fit is left out
_MOST_PAIRS = 400_000  # of a layer that nobody asks for in wires: 5 to 10 s; the time grows faster


@engine_choices.of(Unrolled)
def _choices(
    engine: Unrolled, layer: FoldLayer, lanes: Sequence[int], question: Question
) -> list[Choice]:
    reckoned = question.reckoned and layer.given is None
    return _all_ways(layer, (_reckoned if reckoned else _made)(layer, question), question)


@engine_offer.of(Unrolled)
def _offer(engine: Unrolled, layer: FoldLayer, question: Question, most_luts: int) -> list[Choice]:
    """Before the layer's codes are known the choice is reckoned."""

    def small(choices: list[Choice]) -> list[Choice]:
        return [choice for choice in choices if choice.cost.luts <= _NEAR * most_luts]

    if _pairs(layer) > _MOST_PAIRS:
        return []
    found = small(_all_ways(layer, _reckoned(layer, question), question))
    if layer.given is None or not found:
        return found
    try:
        return small(_all_ways(layer, _made(layer, question), question))
    except InputError:  # too many pairs of terms
        return []


def _pairs(layer: FoldLayer) -> int:
    """Pairs of digits in its rows, of which shared sub-sums are chosen; about, without codes."""
    if layer.given is not None:
        return pairs_of_digits(layer.given[0].y)
    k = 0 if layer.encoding == "int8" else layer.k
    return reckoned_pairs(layer.rows, layer.n // layer.groups, k)


def _all_ways(layer: FoldLayer, choice: Choice, question: Question) -> list[Choice]:
    """The choice with as many bits a cycle and results a transfer as are asked for, or of every
    number of bits with every number of results that makes it faster."""
    spec = choice.spec
    assert isinstance(spec, UnrolledSpec)
    if question.width is not None:
        widths = [question.width]
    else:
        widths = [w for w in range(1, layer.rows + 1) if layer.rows % w == 0]
    g = layer.geometry
    by_pixel = g is not None and not raster_refusal(g, layer.x)
    found: list[Choice] = []
    for digit in (0, *DIGITS) if question.digit is None else (question.digit,):
        own: list[Choice] = []
        for width in widths:
            forms = _forms(spec, width, digit, question, by_pixel)
            for form in [*forms, *_wired(layer, spec, width, digit, question)]:
                other = _choice(layer, form, question)
                if not own or other.cycles < own[-1].cycles or form.multiplies.wired:
                    own.append(other)
        found += own
    return unbeaten(found)


def _forms(
    spec: UnrolledSpec, width: int, digit: int, question: Question, by_pixel: bool
) -> Iterator[UnrolledSpec]:
    """The core with so many results a transfer and bits a cycle; windows also as pixels come where
    they can be read so."""
    wide = replace(spec, out_width=width)
    if "params_memory" not in question.asked:
        device = family(question.target.engine)
        wide = replace(wide, params_memory=params_kind(wide.steps, device))
    if not digit:
        yield wide
    if wide.frame_places <= MOST_PLACES:
        if digit or wide.words <= spec.levels:
            yield as_pipelined(wide, digit)
        if by_pixel:
            yield as_pipelined(wide, digit, by_pixel=True)
    elif digit and question.digit is not None and question.width is not None:
        raise InputError(
            f"An unrolled layer of {spec.rows:,} rows must give {-(-spec.rows // MOST_PLACES)} "
            f"results a transfer or more to add digit by digit, not {width}"
        )


def _wired(
    layer: FoldLayer, spec: UnrolledSpec, width: int, digit: int, question: Question
) -> list[UnrolledSpec]:
    """The pipelined core whose multipliers are adders too, where all results leave at once; unless
    DSP blocks are asked for."""
    free = question.asked.get("multiplier", "serial") in ("serial", "wires")
    if width != spec.sums or digit or not free or not spec.multiplies.stored:
        return []
    if layer.given is None:
        wired = with_wired_multipliers(replace(spec, out_width=width))
    else:
        wires = {**question.asked, "multiplier": "wires", "out_width": width}
        wired = _spec(layer, question.target.engine, wires)
    device = family(question.target.engine)
    return [as_pipelined(replace(wired, params_memory=params_kind(1, device)))]


def _pace(layer: FoldLayer) -> int | None:
    """Cycles in which a convolution's next window comes in, however large it is."""
    if layer.geometry is None:
        return None
    return int(np.prod(layer.geometry.input_shape)) // layer.positions


def _reckoned(layer: FoldLayer, question: Question) -> Choice:
    k = 0 if layer.encoding == "int8" else layer.k
    spec = reckoned_unrolled(
        layer.rows, layer.n, k, layer.x, layer.out, question.target.engine, groups=layer.groups,
        pace=_pace(layer), multiplier=question.asked.get("multiplier"),
    )  # fmt: skip
    return _choice(layer, spec, question)


def _made(layer: FoldLayer, question: Question) -> Choice:
    """Made of the layer's codes, or of rows like those that a quantizer gives."""
    return _choice(layer, _spec(layer, question.target.engine, question.asked), question)


def _spec(layer: FoldLayer, device: str, asked: dict[str, Any]) -> UnrolledSpec:
    dense, x = layer.given or synthetic_rows(layer)
    options = {"engine": Unrolled.kind} | asked
    pace = _pace(layer)
    if pace is not None:
        options.setdefault("multiplier_interval", max(1, pace // layer.rows))
    spec, _ = make_layer_core(dense, x, layer.n, family=device, name="core", **options)
    assert isinstance(spec, UnrolledSpec)
    return spec


def _choice(layer: FoldLayer, spec: UnrolledSpec, question: Question) -> Choice:
    device = question.target.engine
    cost = core_resources(spec, device)
    # Activations wait in flip-flops, of which a cell has one.
    cost = replace(cost, luts=max(cost.luts, cost.ffs))
    if layer.geometry is None:
        taken = layer.n // (gcd(question.feed, layer.n) if question.feed else layer.n)
        ends = max(taken * question.ends[0], layer.rows // spec.out_width * question.ends[1])
        return Choice(question.turns * max(spec.sum_cycles, ends), cost, spec)
    if spec.by_pixel:
        return _by_pixel(layer, spec, cost, question)
    together = layer.geometry.input_shape[2] if question.feed is None else question.feed
    window = make_window(
        layer.geometry, layer.x, layer.n, latency=family(device).bank_latency, taken=together
    )
    cycles = question.turns * SlidingWindow(window).frame_cycles(
        spec.sum_cycles if spec.pipelined else spec.words, 0 if spec.pipelined else spec.levels
    )
    unit = CoreUnit("core", ("i",), ("o",), spec, window)
    return Choice(cycles, cost + unit_resources(unit, device), spec)


def _by_pixel(layer: FoldLayer, spec: UnrolledSpec, cost: Resources, question: Question) -> Choice:
    """The choice of a core that reads its windows as pixels come, of all channels at once."""
    g, device = layer.geometry, question.target.engine
    assert g is not None
    height, width, channels = g.input_shape
    latency = family(device).bank_latency
    window = make_window(g, layer.x, layer.n, latency=latency, taken=channels)
    raster = window_raster(spec, window)
    rows, columns = g.output_size
    each = spec.sum_cycles
    row = (columns - 1) * max(each, g.stride[1]) + max(each, raster.turn)
    feed = channels if question.feed is None else gcd(question.feed, channels)
    cycles = max(rows * row, height * width * (channels // feed))
    unit = CoreUnit("core", ("i",), ("o",), spec, window)
    return Choice(question.turns * cycles, cost + unit_resources(unit, device), spec)


@engine_limit.of(Unrolled)
def _limit(
    engine: Unrolled,
    layer: FoldLayer,
    question: Question,
    choice: Choice,
    interval: int,
    given: bool,
) -> str:
    spec = choice.spec
    assert isinstance(spec, UnrolledSpec)
    if spec.digits > spec.words and spec.digits * question.turns * layer.positions >= interval:
        bits = f"{spec.digit} bit{'s' * (spec.digit > 1)} a cycle"
        return f"is unrolled: its sums of {spec.acc_bits} bits are added {bits}"
    if spec.by_pixel and spec.words == 1:
        pixels = int(np.prod(layer.geometry.input_shape[:2])) if layer.geometry else 0
        return f"is unrolled, and takes its map's {pixels:,} pixels one by one"
    if layer.geometry is not None:
        if spec.words == spec.sum_cycles:
            sums = f"each window's {layer.rows:,} sums"
            return f"is unrolled: {sums} leave {per_cycle(spec.out_width)}"
        return f"is unrolled, and takes its {layer.positions:,} windows one by one"
    feed = gcd(question.feed or 1, layer.n)
    if feed > 1 and layer.n // feed * question.ends[0] >= interval:
        return f"takes the {layer.n:,} activations {per_cycle(feed)}"
    if feed == 1 and floor_cycles(layer, choice.lanes, question) >= interval:
        return stream_limit(layer, question, interval)
    return f"is unrolled: its {layer.rows:,} sums leave {per_cycle(spec.out_width)}"


@core_options.of(UnrolledSpec)
def _options(spec: UnrolledSpec) -> dict[str, Any]:
    wide: dict[str, Any] = {
        "out_width": spec.out_width,
        "pipelined": spec.pipelined,
        "digit": spec.digit,
    }
    if spec.by_pixel:
        wide["by_pixel"] = True
    paced = {"multiplier_interval": spec.multiplier_interval}
    if spec.multiplies.wired:
        wide["multiplier"] = spec.multiplier
    return wide | (paced if spec.multiplies.paced else {})
