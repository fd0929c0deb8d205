"""What each layer could be folded to, and what that would cost; `pvq_hw.folding` chooses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.core import CoreSpec, make_core
from pvq_hw.families import family
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.resources import Resources, core_resources
from pvq_hw.targets import Target

__all__ = ["Choice", "Source", "Stage", "laplacian_pulses", "some_rows", "stage_choices"]

_SAMPLE_ROWS = 16
_MAX_LANES = 128
_MORE_WORDS = 1.1  # that a narrower code may cost


@dataclass(frozen=True)
class Choice:
    """A core that would do a layer, and what it takes."""

    spec: CoreSpec
    cost: Resources


@dataclass(frozen=True)
class Source:
    """A layer of which a sample of rows is there, for given lanes and gap bits (None: free).

    ``least_gap`` is the smallest largest gap that a quantizer should be held to, ``most_lanes``
    bounds the lanes that are tried.
    """

    name: str
    n: int
    rows: int
    sample: Callable[[int, int | None], tuple[Dense, TensorSpec]]
    least_gap: float = 0.0
    most_lanes: int = _MAX_LANES


@dataclass(frozen=True)
class Stage:
    """A layer's choices; below ``floor`` cycles no lanes bring it, since its activations come
    and go one a cycle."""

    name: str
    floor: int
    choices: tuple[Choice, ...]


def stage_choices(
    source: Source, lanes: int | None, gap: int | None, target: Target, options: dict[str, Any]
) -> Stage:
    """All choices worth a try: lanes, gap bits and memory kinds, as far as they are free."""
    floor = max(source.n, source.rows)
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
                choices.append(Choice(variant, core_resources(variant, target.engine)))
        if words <= floor:
            break
    return Stage(source.name, floor, tuple(choices))


def _lane_steps(most: int) -> list[int]:
    """Lanes worth a try: dense where a step matters much, coarser above."""
    steps = [*range(1, 17), *range(18, 33, 2), *range(36, 65, 4), *range(72, _MAX_LANES + 1, 8)]
    return [p for p in steps if p <= most]


def _specs(
    source: Source, lanes: int, gap: int | None, engine: str, options: dict[str, Any]
) -> list[CoreSpec]:
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
        if narrower.words > _MORE_WORDS * spec.words:
            break
        specs.append(narrower)
    return specs


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


def _memory_variants(spec: CoreSpec, engine: str, options: dict[str, Any]) -> list[CoreSpec]:
    """The spec, and where block RAM is scarce also with its small memories as logic."""
    variants = [spec]
    if engine == "ecp5":
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
