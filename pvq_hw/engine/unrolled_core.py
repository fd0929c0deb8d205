"""Specification of an unrolled layer: all rows at once in one graph of adders, weights as wires.

A whole frame is held while the graph's registers fill; its sums are then taken into a register for
each row, and leave through as many requantizers as the output has results a transfer, while the
next frame comes in. With one activation a transfer a frame takes ``max(N, M)`` cycles at least, so
one requantizer is enough, and a serial one has as many cycles for a product as are left.

A pipelined core holds no frame: operands wait in registers for their partners, so that a frame may
come while the sums of others are still being added, every cycle where all results leave at once.
There, sums go on into the requantizers without a register of their own; and frames that come in one
transfer go into the adders from the stream.

A digit-serial one adds 1, 2, 4 or 8 bits a cycle, the lowest first: an adder is as many full adders
and a flip-flop for the carry, and a frame takes as many cycles as its sums have digits, in which
few requantizers do for many rows.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat, bits_for
from pvq_hw.engine.adder_graph import AdderGraph, make_adder_graph
from pvq_hw.engine.core import (
    CORES,
    CoreBase,
    CoreImage,
    IntArray,
    core_fields,
    core_image,
    core_multiplier,
)
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.raster import Raster, raster_refusal
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family
from pvq_hw.target.multipliers import multiplier_named

__all__ = [
    "DIGITS",
    "MOST_PLACES",
    "UnrolledSpec",
    "as_pipelined",
    "check_digit",
    "make_unrolled_core",
    "params_kind",
    "window_raster",
]

DIGITS = (1, 2, 4, 8)
"""Bits a cycle of digit-serial adders."""


@CORES.kind
@dataclass(frozen=True, kw_only=True)
class UnrolledSpec(CoreBase):
    """Numbers of an unrolled core; validated when made. What is not said here: `CoreBase`.

    A row whose sum the graph gives as its negative passes on the inverted bits, ``sum - 1``, and
    its folded constant makes that good.

    Parameters
    ----------
    weight_width : int
        Bits of a weight in the file of weights, signed. No circuit reads that file.
    levels : int
        Of the adder graph, a register behind each.
    adders, adder_bits, register_bits : int
        Of the adder graph, see `pvq_hw.engine.adder_graph.AdderGraph`, and of wired multipliers.
    delay_bits : int
        Of the registers in which operands wait in a pipelined core.
    gain_levels : int
        Of wired multipliers, those with fewer filled up with registers.
    pipelined : bool
        Whether frames follow one another into the adders without waiting for the sums.
    digit : int
        Bits that the adders take a cycle, one of `DIGITS`, in a pipelined core; 0: all at once.
    waits, shifted_bits : int
        Registers of a digit in which operands of digit-serial adders wait, and bits of those that
        shift them.
    by_pixel : bool
        Of a convolution, in a pipelined core: whether a window is read with each pixel that comes,
        see `pvq_hw.engine.raster`.
    inverted : tuple of int
        Sums, numbered over rows and groups, that the graph gives as their negatives.
    """

    kind: ClassVar[str] = "unrolled"
    engine: ClassVar[str] = "unrolled"
    takes_wide: ClassVar[bool] = True
    holds_window: ClassVar[bool] = True
    weight_memory: ClassVar[str] = "weights"
    code_memories: ClassVar[tuple[str, ...]] = ("wires",)

    weight_width: int
    levels: int
    adders: int
    adder_bits: int
    register_bits: int
    delay_bits: int = 0
    gain_levels: int = 0
    pipelined: bool = False
    digit: int = 0
    waits: int = 0
    shifted_bits: int = 0
    by_pixel: bool = False
    inverted: tuple[int, ...] = ()
    code_latency: int = 1
    code_memory: str = "wires"

    def __post_init__(self) -> None:
        self.check_ranges(_RANGES)
        where = f"Core {self.name!r}"
        check_digit(self.digit, where)
        if self.digit and not self.pipelined:
            raise InputError(f"{where} must be pipelined to add {self.digit} bits a cycle")
        if self.by_pixel and not self.pipelined:
            raise InputError(f"{where} must be pipelined to read windows as pixels come")
        if self.pipelined and self.frame_places > self.fifo_depth:
            raise InputError(
                f"{where}: fifo_depth must be a frame's {self.frame_places} transfers or more, "
                f"not {self.fifo_depth}"
            )
        super().__post_init__()
        if self.n % self.groups:
            raise InputError(f"{where}: columns must divide into {self.groups} groups")
        if not set(self.inverted) <= set(range(self.sums)):
            raise InputError(f"{where}: inverted sums must be 0 to {self.sums - 1}")

    # -- shapes -----------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """All columns at once."""
        return self.n

    @property
    def how(self) -> str:
        """How it computes, for people."""
        digits = f", {self.digit} bit{'s' * (self.digit > 1)} a cycle" if self.digit else ""
        wires = f"{self.adders} adders in {self.levels} levels"
        return f"unrolled, its weights as wires of {wires}{digits}"

    @property
    def digits(self) -> int:
        """T: digits of a sum, which is cycles between two frames at least; 0 if all are at once."""
        return -(-self.acc_bits // self.digit) if self.digit else 0

    @property
    def sums(self) -> int:
        """Sums of a frame: one for every group of every row."""
        return self.rows * self.groups

    @property
    def wires_multipliers(self) -> bool:
        """Whether each row has a multiplier of its own, which may be adders."""
        return self.out_width == self.sums and not self.digit

    @property
    def wire_levels(self) -> int:
        """Adders behind one another in such multipliers."""
        return self.gain_levels

    @property
    def direct(self) -> bool:
        """Whether all sums of a frame go on together, without being kept."""
        return self.pipelined and self.wires_multipliers

    @property
    def straight(self) -> bool:
        """Of a dense layer: whether a transfer is a frame, and goes into the adders as it comes."""
        return self.direct and self.in_width == self.n

    @property
    def fifo_delay(self) -> int:
        """1 where results leave from the FIFO's memory."""
        return 1 if self.direct and self.fifo_memory == "logic" else super().fifo_delay

    @property
    def requantizers(self) -> int:
        """W: a transfer's results are made at once."""
        return self.out_width

    @property
    def steps(self) -> int:
        """Times that sums leave for the requantizers, W rows' at once."""
        return self.sums // self.out_width

    @property
    def words(self) -> int:
        """Cycles in which the requantizers take a frame's sums."""
        return self.steps * self.multiplier_interval

    @property
    def frame_cycles(self) -> int:
        """Cycles between two frames of a dense layer while nothing waits."""
        return max(self.n // self.in_width, self.sum_cycles)

    @property
    def sum_cycles(self) -> int:
        """The same where frames come fast enough: windows of a convolution."""
        return max(self.words, self.digits if self.pipelined else self.levels + 1)

    @property
    def sum_delay(self) -> int:
        """Cycles from a frame's start in the adders until all of its sums are there."""
        return self.levels + self.digits

    @property
    def frame_places(self) -> int:
        """Places in the FIFO that a frame's results take."""
        return self.rows // self.out_width

    @property
    def address_bits(self) -> int:
        """0: activations are in registers."""
        return 0

    @property
    def bank_words(self) -> int:
        """0, see `address_bits`."""
        return 0

    @property
    def word_bits(self) -> int:
        """Width of a weight in its file."""
        return self.weight_width

    @property
    def memories(self) -> dict[str, tuple[int, int]]:
        """Files by name: the weights, which are wires in the circuit, and the ROMs."""
        found = super().memories
        found[self.memory_name("weights")] = (self.weight_width, self.rows * self.n)
        return found

    @property
    def weight_bits(self) -> int:
        """0: no memory holds weights."""
        return 0

    @property
    def credits(self) -> int:
        """Places that results claim as their sums go into the requantizer, or a frame's as it goes
        into the adders of a pipelined core: all of the FIFO's."""
        return (
            self.fifo_depth // self.frame_places * self.frame_places
            if self.pipelined
            else self.fifo_depth
        )

    @property
    def least_fifo(self) -> int:
        """Places with which the FIFO never holds a core up whose results are taken at once."""
        if self.pipelined:
            slack = 0 if self.direct else 4
            flight = self.sum_delay + self.output_delay + slack + self.by_pixel * self.bank_latency
            return (-(-flight // self.sum_cycles) + 1) * self.frame_places
        # A row claims its place when its sum leaves, and gives it back when its result does.
        return -(-(self.output_delay + 1) // (self.groups * self.multiplier_interval)) + 1

    # -- latencies in cycles, after the cycle in which a sum goes into the requantizer -----------

    @property
    def sum_stage(self) -> int:
        """0: a sum is there in the cycle from which the stages count."""
        return 0

    @property
    def row_stage(self) -> int:
        """When a sum is at the multiplier's operand: with the word of its ROM, if it has one."""
        return 0 if self.multiplies.wired or self.direct else self.params_latency

    # -- golden model -----------------------------------------------------------------------

    def graph(self, image: CoreImage) -> AdderGraph:
        """The adders of the image's weights; a sum for every group of every row."""
        return _graph(self.decode(image), self.groups, self.x)

    def gain_graphs(self, image: CoreImage) -> tuple[AdderGraph, ...]:
        """The adders of every row's multiplier, where these are wires."""
        return _gain_graphs(self.graph(image), image.mult)

    def compute(self, image: CoreImage, x: npt.ArrayLike) -> IntArray:
        """Exact model, adder by adder: (frames, n) -> (frames, rows)."""
        array = np.asarray(x, dtype=np.int64).reshape(-1, self.n)
        graph = self.graph(image)
        acc = graph.evaluate(array) - _inverted(graph)
        if self.multiplies.wired:
            gains = self.gain_graphs(image)
            acc = np.stack([g.evaluate(acc[:, [k]])[:, 0] for k, g in enumerate(gains)], axis=1)
            products = acc[:, :, None]
        else:
            products = acc.reshape(len(array), self.rows, self.groups) * self.multipliers(image)
        total = products.sum(axis=2) + np.array(image.bias, dtype=np.int64)
        return np.asarray(self.out.clamp(total >> self.shift), dtype=np.int64)

    def decode(self, image: CoreImage) -> IntArray:
        """The weights (rows, n); raises InputError on broken words."""
        where = f"Core {self.name!r}"
        codes = np.array(image.codes, dtype=np.int64)
        if len(codes) != self.rows * self.n:
            raise InputError(f"{where} has {len(codes)} weights, not {self.rows * self.n}")
        if np.any((codes < 0) | (codes >> self.weight_width != 0)):
            raise InputError(f"{where}: weights must have {self.weight_width} bits")
        half = 1 << (self.weight_width - 1)
        return ((codes ^ half) - half).reshape(self.rows, self.n)

    def row_slots(self, image: CoreImage) -> tuple[int, ...]:
        """Words of the file for every row."""
        return (self.n,) * self.rows


MOST_PLACES = 256
"""Transfers of a frame's results at most, in a core that claims their places together."""

_RANGES = (
    ("frames", 1, 1),
    ("flush_cycles", 0, 0),
    ("weight_width", 1, 32),
    ("levels", 0, 1 << 16),
    ("adders", 0, 1 << 24),
    ("adder_bits", 0, 1 << 30),
    ("register_bits", 0, 1 << 30),
    ("delay_bits", 0, 1 << 30),
    ("gain_levels", 0, 64),
    ("waits", 0, 1 << 30),
    ("shifted_bits", 0, 1 << 30),
)


def check_digit(digit: int | None, where: str) -> None:
    """Raises InputError unless adders can be built for so many bits a cycle, 0 for all."""
    if digit not in (None, 0, *DIGITS):
        ways = ", ".join(map(str, DIGITS))
        raise InputError(f"{where}: digit must be {ways} bits a cycle, or 0 for all, not {digit}")


def _graph(y: IntArray, groups: int, x: IntFormat) -> AdderGraph:
    rows, n = y.shape
    matrix = y
    if groups > 1:
        group = np.arange(n) // (n // groups)
        own = group == np.arange(groups)[:, None]
        matrix = (y[:, None, :] * own).reshape(rows * groups, n)
    return make_adder_graph(matrix, (x.limits,) * n)


def _gain_graphs(graph: AdderGraph, mult: npt.ArrayLike) -> tuple[AdderGraph, ...]:
    """Adders that multiply each of a graph's sums, as its circuit gives them, by a constant."""
    found = []
    for row, factor in enumerate(np.ravel(mult)):
        (low, high), flip = graph.row_span(row), int(graph.sums[row].negative)
        found.append(make_adder_graph([[int(factor)]], ((low - flip, high - flip),)))
    return tuple(found)


def _inverted(graph: AdderGraph) -> IntArray:
    """1 for each sum that the circuit gives as its inverted negative."""
    return np.array([total.negative for total in graph.sums], dtype=np.int64)


def make_unrolled_core(
    layer: Dense, x: TensorSpec, *, family: str = "ecp5", name: str | None = None, **options: Any
) -> tuple[UnrolledSpec, CoreImage]:
    """Specification and contents of a layer's unrolled core; pulses and 8-bit weights alike.

    Parameters
    ----------
    layer : Dense
    x : TensorSpec
        The layer's input.
    family : str
        Key of `pvq_hw.target.families.FAMILIES`; sets carry chunks and multiplier.
    name : str, optional
        Stem of the memory files; the layer's name by default, reduced to letters and digits.
    **options
        Fields of `UnrolledSpec` to set otherwise.

    Raises
    ------
    InputError
        The layer has too many pulses, see `pvq_hw.engine.adder_graph.MOST_PAIRS`.
    """
    fields = core_fields(layer, x, family, name)
    rows, n = layer.y.shape
    try:
        graph = _graph(layer.y, layer.groups, x.format)
    except InputError as error:
        raise InputError(f"Layer {layer.name!r} is too large to be unrolled: {error}") from None
    fields |= core_multiplier(layer, family)
    mult_bits, multiplier = fields["mult_bits"], options.get("multiplier", fields["multiplier"])
    sums = rows * layer.groups
    interval = min(mult_bits + 1, options.pop("multiplier_interval", max(n, sums) // sums))
    if not multiplier_named(multiplier).paced:
        interval = 1
    gains = _gain_graphs(graph, layer.mult) if multiplier_named(multiplier).wired else ()
    graphs = (graph, *gains)
    inverted = _inverted(graph).reshape(layer.mult.shape)
    bias = layer.bias + (1 << (layer.shift - 1)) + (layer.mult * inverted).sum(axis=1)
    width = bits_for(min(-1, int(layer.y.min(initial=0))), int(layer.y.max(initial=0)))
    fields |= {"multiplier": multiplier, "multiplier_interval": interval}
    fields |= _widths(layer, graph, bias)
    fields["out_width"] = options.pop("out_width", 1)
    words = sums // fields["out_width"]
    device = find_family(family)
    fields["params_memory"] = params_kind(words, device)
    fields["bank_latency"] = device.bank_latency
    spec = UnrolledSpec(
        **fields,
        weight_width=width,
        levels=graph.depth,
        adders=sum(len(g.adders) for g in graphs),
        adder_bits=sum(g.adder_bits for g in graphs),
        register_bits=sum(g.register_bits for g in graphs),
        delay_bits=sum(g.delay_bits for g in graphs),
        gain_levels=max((g.depth for g in gains), default=0),
        waits=sum(graph.delays.values()),
        shifted_bits=sum(adder.shift for adder in graph.adders),
        inverted=tuple(np.flatnonzero(_inverted(graph)).tolist()),
    )
    pipelined, digit = options.pop("pipelined", False), options.pop("digit", 0)
    by_pixel = options.pop("by_pixel", False)
    spec = replace(spec, **options)
    if pipelined or digit or by_pixel:
        spec = as_pipelined(spec, digit, by_pixel=by_pixel)
    elif "fifo_depth" not in options:
        spec = replace(spec, fifo_depth=_fifo_depth(spec))
    return spec, core_image(layer.y.ravel() & ((1 << width) - 1), layer.mult, bias)


def params_kind(words: int, device: Family) -> str:
    """Where so many words of multipliers are, however wide."""
    return "logic" if words <= device.logic_rows else "block"


def as_pipelined(spec: UnrolledSpec, digit: int = 0, *, by_pixel: bool = False) -> UnrolledSpec:
    """The core with frames that follow one another into its adders, which take so many bits a
    cycle, and whether windows come with their pixels."""
    deep = replace(spec, fifo_depth=MOST_PLACES, pipelined=True, digit=digit, by_pixel=by_pixel)
    if deep.direct:  # the adders have carry chains of all their bits, and so has the bias
        deep = replace(deep, carry_chunk=0)
    return replace(deep, fifo_depth=_fifo_depth(deep))


def window_raster(spec: UnrolledSpec, window: WindowSpec) -> Raster:
    """How a convolution's windows come to a core that reads them by the pixel.

    Raises InputError where they can't.
    """
    where = f"Core {spec.name!r}"
    channels = window.geometry.input_shape[2]
    if reason := raster_refusal(window.geometry, window.x):
        raise InputError(f"{where} must not read windows as pixels come: {reason}")
    if window.taken != channels or window.latency != spec.bank_latency:
        raise InputError(f"{where} must take pixels of {channels} channels, not {window.taken}")
    return Raster(
        window.geometry,
        window.x,
        channels,
        latency=window.latency,
        queue_memory=spec.fifo_memory,
        lines_memory=window.memory,
        columns_memory="logic",
    )


def _fifo_depth(spec: UnrolledSpec) -> int:
    return max(16, min(MOST_PLACES, 1 << (spec.least_fifo - 1).bit_length()))


def _widths(layer: Dense, graph: AdderGraph, bias: IntArray) -> dict[str, int]:
    """Accumulator, bias and sum widths from the ranges of the sums."""
    spans = np.array([graph.row_span(m) for m in range(len(graph.sums))], dtype=np.int64)
    low, high = (spans - _inverted(graph)[:, None]).T.reshape(2, *layer.mult.shape)
    least = int(((low * layer.mult).sum(axis=1) + bias).min())
    most = int(((high * layer.mult).sum(axis=1) + bias).max())
    return {
        "acc_bits": max(2, bits_for(min(int(low.min()), -1), int(high.max()))),
        "bias_bits": bits_for(min(int(bias.min()), -1), int(bias.max())),
        "sum_bits": max(
            bits_for(min(least, -1), max(most, 0)), layer.shift + layer.output.format.bits + 1
        ),
    }
