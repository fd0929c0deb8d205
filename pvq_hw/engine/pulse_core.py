"""Specification and memory contents of a layer's core: the numbers that golden model, timing
model, planner and circuit share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, accumulator_bits, bits_for
from pvq_hw.engine.core import (
    CORES,
    CoreBase,
    CoreImage,
    IntArray,
    core_fields,
    core_image,
    core_multiplier,
)
from pvq_hw.engine.pulse_code import CODES, Code
from pvq_hw.engine.reserve import require_placed, reserved_widths, with_room
from pvq_hw.engine.schedule import Schedule
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.target.block_ram import select_registers
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family
from pvq_hw.target.multipliers import multiplier_named

__all__ = [
    "CoreImage",
    "CoreSpec",
    "make_core",
    "result_places",
    "serial_interval",
    "sums_of_pulses",
]


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class CoreSpec(CoreBase):
    """Numbers of a core of pulses; validated when made. What is not said here: `CoreBase`.

    Parameters
    ----------
    code : Code
        Its ``lanes`` is P.
    words : int
        Slot words of a frame.
    frames : int
        V: frames in one bank word. V frames share one code stream and one bank read.
    acc_bits : int
        Accumulator: the bound ``K * (max|x| + 1)`` with K the largest sum of pulses of a group.
    """

    kind: ClassVar[str] = "pulses"
    weight_memory: ClassVar[str] = "codes"
    takes_windows: ClassVar[bool] = True
    banked: ClassVar[bool] = True
    serial_too: ClassVar[bool] = True
    encoding: ClassVar[str] = "pvq"

    code: Code
    words: int

    def __post_init__(self) -> None:
        # Several results leave at once where V windows of a map have come together.
        most = self.rows if self.row_windows else 1
        self.check_ranges((("words", 1, 1 << 24), ("in_width", 1, 1), ("out_width", 1, most)))
        super().__post_init__()
        where = f"Core {self.name!r}"
        if self.n % self.groups:
            raise InputError(f"{where}: columns must divide into {self.groups} groups")
        if self.code.lanes > self.n:
            raise InputError(f"{where}: lanes must be 1 to {self.n}, not {self.code.lanes}")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """P."""
        return self.code.lanes

    @property
    def gap_bits(self) -> int:
        """Bits of a gap in its codes."""
        return self.code.gap_bits

    @property
    def shift_bits(self) -> int:
        """Bits of a shift in its codes."""
        return self.code.shift_bits

    @property
    def bank_depth(self) -> int:
        """Addresses of one half of a bank."""
        return self.code.bank_depth(self.n)

    @property
    def address_bits(self) -> int:
        """Bits of an address within a half."""
        return max(1, (self.bank_depth - 1).bit_length())

    @property
    def bank_words(self) -> int:
        """Depth of a bank's memory, both halves: the second half starts at a power of two."""
        return (1 << self.address_bits) + self.bank_depth

    @property
    def leaf_bits(self) -> int:
        """Bits of a leaf, signed: an unsigned activation gets a sign, a binary one a zero."""
        base = self.x.bits + (not self.x.signed or self.x.binary)
        return int(base) + self.code.max_shift

    @property
    def word_bits(self) -> int:
        """Width of a slot word."""
        return self.code.word_bits

    # -- latencies in cycles, after the cycle in which a word's address is given to the ROM --

    @property
    def sum_stage(self) -> int:
        """When a word's tree sum is there."""
        shifted = int(self.code.shift_bits > 0)
        return self.code_latency + 2 + self.bank_latency + shifted + self.tree_levels

    # -- golden model -----------------------------------------------------------------------

    @property
    def inverted(self) -> bool:
        """Whether a negative pulse adds ``~x``; binary activations are negated exactly."""
        return not self.x.binary

    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model from the memory contents: (frames, n) -> (frames, rows)."""
        array = np.asarray(x, dtype=np.int64).reshape(-1, self.n)
        y = self.decode(image)
        mult = self.multipliers(image)
        total = np.zeros((len(array), self.rows), dtype=np.int64)
        width = self.n // self.groups
        negatives, _ = sums_of_pulses(self.code, image.codes)
        negatives = negatives.reshape(self.rows, self.groups)
        for g in range(self.groups):
            part = slice(g * width, (g + 1) * width)
            acc = array[:, part] @ y[:, part].T - self.inverted * negatives[:, g]
            total += acc * mult[:, g]
        total += np.array(image.bias, dtype=np.int64)
        return np.asarray(self.out.clamp(total >> self.shift), dtype=np.int64)

    def decode(self, image: CoreImage) -> IntArray:
        """The weights (rows, n) of the image's codes; raises InputError on broken ones."""
        if len(image.codes) != self.words:
            raise InputError(f"Core {self.name!r} has {len(image.codes)} words, not {self.words}")
        return self.code.decode(image.codes, (self.rows, self.n), self.groups)

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of every row, its groups together."""
        last = self.code.word_bits - 1
        ends = [i for i, w in enumerate(image.codes) if w >> last]
        rows = [-1, *ends[self.groups - 1 :: self.groups]]
        return tuple(b - a for a, b in pairwise(rows))


def sums_of_pulses(code: Code, words: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Per group, the sum of ``2**shift`` over its negative pulses, and over all of them: K of its
    digits."""
    gap, sign, shift, last = code.fields(words)
    weight = np.where(code.places(gap), 1 << shift, 0)
    sums = np.zeros((2, int(last.sum())), dtype=np.int64)
    group = np.cumsum(last) - last
    for total, values in zip(sums, (weight * sign, weight), strict=True):
        np.add.at(total, group, values.sum(axis=1))
    return sums[0], sums[1]


def serial_interval(slots: Sequence[int], mult_bits: int) -> int:
    """The longest interval of a serial multiplier whose padding adds at most 1 % of the slots."""
    array = np.array(slots, dtype=np.int64)
    for interval in range(mult_bits + 1, 1, -1):
        padded = np.maximum(array, interval).sum()
        if padded <= 1.01 * array.sum() or interval <= array.min():
            return interval
    return 1


def make_core(
    layer: Dense,
    x: TensorSpec,
    lanes: int,
    *,
    frames: int = 1,
    gap_bits: int | None = None,
    shift_bits: int = 0,
    code: str = "pulse",
    family: str = "ecp5",
    name: str | None = None,
    spare: int | None = None,
    placed: CoreSpec | None = None,
    min_slots: int = 1,
    **options: Any,
) -> tuple[CoreSpec, CoreImage]:
    """Specification and contents of a layer's core.

    Parameters
    ----------
    layer : Dense
        With ``encoding == "pvq"``; `pvq_hw.engine.kinds.make_layer_core` takes any.
    x : TensorSpec
        The layer's input.
    lanes : int
        P, 1 to N.
    frames : int
        V.
    gap_bits : int, optional
        Chosen by `Code.fitting` unless given.
    shift_bits : int
        0 for unit pulses.
    code : str
        Kind of the codes, one of `pvq_hw.engine.pulse_code.CODES`.
    family : str
        Key of `pvq_hw.target.families.FAMILIES`; sets latencies, carry chunks and multiplier.
    name : str, optional
        Stem of the memory files; the layer's name by default, reduced to letters and digits.
    spare : int, optional
        Percent of words and sums that are kept free for other weights: makes it updatable.
    placed : CoreSpec, optional
        An updatable core that the weights are to go into; it is the specification then. Raises
        InputError where they don't.
    min_slots : int
        Words that a group has at least.
    **options
        Fields of `CoreSpec` to set otherwise (``multiplier``, ``params_memory``, ...).
    """
    fields = core_fields(layer, x, family, name) | core_multiplier(layer, family)
    if layer.encoding != "pvq":
        raise InputError(f"Layer {layer.name!r} must be encoded as pvq, not {layer.encoding}")
    rows, n = layer.y.shape
    if not 1 <= lanes <= n:
        raise InputError(f"Layer {layer.name!r}: lanes must be 1 to {n}, not {lanes}")
    device, groups = find_family(family), layer.groups
    words = _code(layer, code, lanes, gap_bits, shift_bits)
    mult_bits, multiplier = fields["mult_bits"], options.get("multiplier", fields["multiplier"])
    interval = 1
    if multiplier_named(multiplier).paced:
        asked = options.get("multiplier_interval")
        interval = asked or _pace(words, layer, min_slots, mult_bits)
        min_slots = max(min_slots, interval)
    schedule = words.encode(layer.y, groups, min_slots=min_slots)
    slots = schedule.slots
    room = with_room(slots, spare or 0) if placed is None else placed.words
    if room > slots:
        schedule = words.encode(layer.y, groups, min_slots=min_slots, slots=room)
    negatives, k = sums_of_pulses(words, schedule.words)
    image = _image(layer, negatives, schedule, x.format)
    if placed is not None:
        needs = {"words": slots, "mult_bits": mult_bits, **_widths(layer, k, x.format, image)}
        del needs["sum_bits"]  # no more than the others give
        same = {"n": n, "rows": rows, "groups": groups, "x": x.format, "out": layer.output.format,
                "code": words, "shift": layer.shift, "multiplier": multiplier}  # fmt: skip
        require_placed(layer.name, placed, needs, same)
        return placed, image
    widths = _widths(layer, k, x.format, image, spare or 0) | {"mult_bits": mult_bits}
    if spare is not None:
        widths = reserved_widths(
            widths, multiplier=multiplier, groups=groups, shift=layer.shift,
            out=layer.output.format,
        )  # fmt: skip
        options = {"updatable": True, "params_memory": "block"} | options
    fields |= widths | {"multiplier": multiplier, "multiplier_interval": interval}
    spec = CoreSpec(
        **fields, code=words, words=schedule.slots, frames=frames,
        code_latency=_code_latency(words, schedule, device), bank_latency=device.bank_latency,
    )  # fmt: skip
    spec = replace(spec, **options)
    if "fifo_depth" not in options:
        spec = replace(spec, fifo_depth=result_places(spec, schedule.row_slots))
    return spec, image


def _pace(code: Code, layer: Dense, min_slots: int, mult_bits: int) -> int:
    """`serial_interval` of a layer's groups."""
    slots = code.encode(layer.y, layer.groups, min_slots=min_slots).row_slots
    return serial_interval(slots, mult_bits)


def _code(layer: Dense, code: str, lanes: int, gap_bits: int | None, shift_bits: int) -> Code:
    """The code of that kind, its gaps chosen for a layer unless they are given."""
    kind = CODES.named(code, f"Layer {layer.name!r}: its code")
    if gap_bits is None:
        return kind.fitting(layer.y, lanes, layer.groups, shift_bits)
    return kind(lanes, gap_bits, shift_bits)


def _image(layer: Dense, negatives: IntArray, schedule: Schedule, x: IntFormat) -> CoreImage:
    """Memory contents, the constants folded into the bias."""
    bias = layer.bias + (1 << (layer.shift - 1))
    if not x.binary:
        bias = bias + (layer.mult * negatives.reshape(layer.mult.shape)).sum(axis=1)
    return core_image(schedule.words, layer.mult, bias)


def _widths(
    layer: Dense, k: IntArray, x: IntFormat, image: CoreImage, spare: int = 0
) -> dict[str, int]:
    """Accumulator, bias and sum widths by their bounds; ``k`` is every group's, and sums may have
    ``spare`` percent more."""
    k = k.reshape(layer.mult.shape)
    # ~x of a signed activation is within the range of x; of an unsigned one it is -(max|x| + 1).
    inverted = not x.signed
    most = with_room(int(k.max(initial=1)), spare)
    acc_bits = max(2, accumulator_bits(most, x, inverted_leaves=inverted))
    bound = (k * layer.mult).sum(axis=1) * (x.max_abs + inverted)
    low = min(image.bias)
    high = max(image.bias)
    total = max(int((bound + np.abs(np.array(image.bias))).max()), 1)
    return {
        "acc_bits": acc_bits,
        "bias_bits": bits_for(min(low, -1), high),
        "sum_bits": max(bits_for(-total, total), layer.shift + layer.output.format.bits + 1),
    }


def _code_latency(code: Code, schedule: Schedule, device: Family) -> int:
    """The family's, and where its clocks are fast a register for each step of a deep ROM."""
    if device.code_latency < 3:
        return device.code_latency
    width = code.word_bits
    return device.code_latency + select_registers(width, schedule.slots, device.blocks)


def result_places(spec: CoreBase, slots: Sequence[int]) -> int:
    """A FIFO for the results in flight at full rate in 99 of 100 rows: rows differ in length."""
    ends = np.cumsum(np.array(slots, dtype=np.int64).reshape(spec.rows, -1).sum(axis=1))
    flying = np.searchsorted(ends, ends + spec.flight) - np.arange(spec.rows)
    need = int(np.quantile(flying, 0.99)) + spec.code_latency + 3
    return min(128, max(16, 1 << (need - 1).bit_length()))
