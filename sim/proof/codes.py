"""A core's memory files against the network: every pulse, every parameter, every address."""

from dataclasses import dataclass

import numpy as np

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.pulse_code import PulseCode
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError
from pvq_hw.network.layer import Dense
from pvq_hw.registry import Face
from sim.proof.sums import RowSums

__all__ = ["Codes", "check_codes", "placed_weights", "writer_places"]


@dataclass(frozen=True)
class Codes:
    """What was compared of a core: code words, rows, weights that are not 0, activations."""

    words: int
    rows: int
    weights: int
    activations: int


writer_places: Face[[], list[tuple[int, int]]] = Face("core", "places of activations")
"""Lane and address at which a core's writer puts each activation of a frame, from its steps."""


@writer_places.of(CoreBase)
def _in_turn(spec: CoreBase) -> list[tuple[int, int]]:
    """The lanes in turn, and the next address after the last lane."""
    places, lane, address = [], 0, 0
    for _ in range(spec.n):
        places.append((lane, address))
        lane += 1
        if lane == spec.lanes:
            lane, address = 0, address + 1
    return places


@writer_places.of(Int8Spec)
def _from_above(spec: Int8Spec) -> list[tuple[int, int]]:
    """Words are shifted in from above: a part of a word ends at its upper lanes."""
    places = _in_turn(spec)
    (last, end) = places[-1]
    moved = spec.lanes - 1 - last
    return [(p + moved if a == end else p, a) for p, a in places]


def check_codes(layer: Dense, spec: CoreBase, image: CoreImage) -> Codes:
    """Compares a core's memory contents with its layer.

    - The decoder's walk over the words is the layer's y, row by row, where the lane and address
      of every pulse stand for the activation that the writer puts there.
    - Multipliers are the layer's, and biases hold what the circuit's sums differ by.

    Raises
    ------
    CheckError
        Something differs; the line names the row.
    """
    where = f"layer {layer.name!r}"
    column = {place: n for n, place in enumerate(writer_places(spec))}
    if len(column) != spec.n:
        raise CheckError(f"Activations of {where} must have places of their own")
    y = np.zeros((spec.rows, spec.n), dtype=np.int64)
    walked = placed_weights(spec, image)
    for (lane, address), n in column.items():
        y[:, n] = walked[:, lane, address]
        walked[:, lane, address] = 0
    wrong = np.flatnonzero((y != layer.y).any(axis=1) | walked.any(axis=(1, 2)))
    if len(wrong):
        raise CheckError(f"Codes of {where} row {wrong[0]} are not the network's weights")
    sums = RowSums.of(layer, spec, image)
    for row, (mult, bias) in enumerate(zip(sums.mult, sums.bias, strict=True)):
        if not np.array_equal(mult, spec.multipliers(image)[row]) or bias != image.bias[row]:
            raise CheckError(f"Parameters of {where} row {row} are not the network's")
    return Codes(spec.words, spec.rows, int(np.count_nonzero(y)), spec.n)


placed_weights: Face[[CoreImage], np.ndarray] = Face("core", "weights by place")
"""Weights (rows, lanes, addresses), as the words name lane and address."""


def _empty(spec: CoreBase) -> np.ndarray:
    depth = -(-spec.n // spec.lanes)
    return np.zeros((spec.rows, spec.lanes, depth), dtype=np.int64)


@placed_weights.of(Int8Spec)
def _of_bytes(spec: Int8Spec, image: CoreImage) -> np.ndarray:
    table = _empty(spec)
    for i, word in enumerate(image.codes):
        row, address = divmod(i, spec.row_words)
        for lane in range(spec.lanes):
            weight = word >> 8 * lane & 255
            table[row, lane, address] = weight - (weight >> 7 << 8)
    return table


@placed_weights.of(CoreSpec)
def _of_pulses(spec: CoreSpec, image: CoreImage) -> np.ndarray:
    """Walks over the words as the decoder does; raises CheckError where that leaves the banks."""
    table = _empty(spec)
    code = spec.code
    assert isinstance(code, PulseCode)
    gap, sign, shift, last = code.fields(image.codes)
    if int(last.sum()) != spec.rows * spec.groups or not last[-1]:
        raise CheckError(f"Codes of core {spec.name!r} must end {spec.rows * spec.groups} groups")
    if np.any((sign | shift)[gap == code.escape]):
        raise CheckError(f"Codes of core {spec.name!r} must have no sign in idle lanes")
    bases = spec.code.bases(spec.n, spec.groups)
    group, walk = 0, np.full(spec.lanes, bases[0], dtype=np.int64)
    lanes = np.arange(spec.lanes)
    for i in range(len(gap)):
        walk = walk + gap[i]
        placed = gap[i] != code.escape
        if np.any(walk[placed] >= table.shape[2]):
            raise CheckError(f"Codes of core {spec.name!r} word {i} must stay within the banks")
        value = np.where(sign[i] != 0, -1, 1) << shift[i]
        table[group // spec.groups, lanes[placed], walk[placed]] += value[placed]
        if last[i]:
            group += 1
            walk = np.full(spec.lanes, bases[group % spec.groups], dtype=np.int64)
    return table
