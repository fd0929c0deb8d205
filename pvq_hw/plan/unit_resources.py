"""What units take of a device besides the cores: block RAM and DSP blocks exactly, LUTs roughly."""

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.decision import AboveUnit, LargestUnit, SmoothedUnit
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.map_order import map_order
from pvq_hw.engine.raster import Raster
from pvq_hw.engine.sliding_window import SlidingWindow
from pvq_hw.engine.units import (
    DEEP_QUEUE,
    UNITS,
    UNPACKER_QUEUE,
    CoreUnit,
    Fifo,
    Fork,
    Join,
    Lookup,
    Pick,
    Pool,
    Scale,
    Unit,
    Unpack,
    WidthConverter,
    link_converters,
)
from pvq_hw.plan.resources import Resources
from pvq_hw.registry import Face
from pvq_hw.target.block_ram import memory_blocks, memory_ways
from pvq_hw.target.energy import Operations
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family

__all__ = [
    "converter_resources",
    "graph_operations",
    "graph_resources",
    "logic_memory",
    "queue_resources",
    "side_resources",
    "unit_cost",
    "unit_energy",
    "unit_resources",
    "units_reserve",
    "window_resources",
]


# What holds an unrolled core's window: of four cores on the ECP5, from 8 x 9 to 16 x 72, the LUTs
# that nextpnr packs are then within 9 %; its registers are as many as a dense layer's frame.
_COLLECTOR = Resources(luts=60, ffs=20)
_UNIT_LUTS = 220  # of a pooling or a sum, about


def logic_memory(width: int, depth: int, family: Family) -> Resources:
    """A memory of LUTs (distributed RAM) or flip-flops."""
    if family.lutram:
        ways = -(-depth // 16)
        return Resources(luts=-(-width // 4) * ways * 6 + width * (ways - 1) // 2, ffs=width)
    return Resources(luts=width * depth * 5 // 4, ffs=width * depth)


def _memory(width: int, depth: int, kind: str, family: Family) -> Resources:
    if kind == "logic":
        return logic_memory(width, depth, family)
    blocks = memory_blocks(width, depth, family.blocks)
    return Resources(brams=blocks, bram_bits=width * depth)


def window_resources(window: WindowSpec, engine: str) -> Resources:
    """A line buffer with its addresses and counters."""
    family = find_family(engine)
    address = max(1, (window.depth - 1).bit_length())
    word = window.width * window.x.bits
    luts = 100 + 9 * address + word
    memory = _memory(word, window.depth, window.memory, family)
    return memory + Resources(luts=luts, ffs=luts - 30)


def side_resources(core: CoreBase, engine: str) -> Resources:
    """What V windows side by side take besides the core and the line buffer: every part's address,
    and results brought into the order of the map."""
    order, family = map_order(core), find_family(engine)
    if order is None:
        return Resources()
    count = 3 * (order.depth.bit_length() + order.side.bit_length())
    parts, wide = core.frames * (2 * core.address_bits + 6), order.out_width
    return (
        _times(wide, _memory(order.width, order.depth, order.memory, family))
        + queue_resources(wide * order.x.bits, UNPACKER_QUEUE, family)
        + Resources(
            luts=30 + count + wide * (order.width // 2 + 1) + parts,
            ffs=20 + count + wide * (order.x.bits + 1) + parts,
        )
    )


def _times(count: int, cost: Resources) -> Resources:
    return Resources(**{key: count * value for key, value in vars(cost).items()})


def queue_resources(bits: int, depth: int, family: Family, kind: str = "logic") -> Resources:
    """A queue of results."""
    count = 4 * depth.bit_length()
    return _memory(bits, depth, kind, family) + Resources(luts=10 + count, ffs=count)


unit_cost: Face[[Family], Resources] = UNITS.face("cost")
"""What a unit takes of a family's device; of a core only its line buffer."""

unit_energy: Face[[], Operations] = UNITS.face("energy")
"""What a unit does in one inference, besides the cores; most count for nothing."""


@unit_cost.of(CoreUnit)
def _core(unit: CoreUnit, family: Family) -> Resources:
    if unit.window is None:
        return Resources()
    if unit.core.by_pixel:
        return _raster(unit.window, unit.core.fifo_memory, family)
    total = window_resources(unit.window, family.name) + side_resources(unit.core, family.name)
    if unit.core.holds_window:
        bits = SlidingWindow(unit.window).unit_bits  # of a unit that waits behind another
        total += _COLLECTOR + Resources(luts=bits, ffs=bits)
    return total


def _raster(window: WindowSpec, queue: str, family: Family) -> Resources:
    """Windows that are read as pixels come: two memories, counts, and what lies outside is 0."""
    g, x = window.geometry, window.x
    raster = Raster(g, x, g.input_shape[2], latency=window.latency)
    padded = raster.taps * raster.bits if any(map(any, g.pads)) else 0
    depths = (raster.queue_depth, raster.queue_depth, raster.lines[1], raster.pixels)
    count = sum(depth.bit_length() for depth in depths)
    total = _memory(raster.bits, raster.queue_depth, queue, family)
    total += Resources(luts=100 + 4 * count + padded, ffs=20 + 2 * count)
    if raster.lines[0] and not raster.in_registers(raster.lines):
        total += _memory(*raster.lines, window.memory, family)
    return total


@unit_cost.of(Fork)
def _fork(unit: Fork, family: Family) -> Resources:
    return Resources(luts=3 * len(unit.outputs), ffs=len(unit.outputs))


@unit_cost.of(Pick)
def _pick(unit: Pick, family: Family) -> Resources:
    count = unit.period.bit_length()
    return Resources(luts=4 * count, ffs=count)


@unit_cost.of(Fifo)
def _fifo(unit: Fifo, family: Family) -> Resources:
    count = 5 * unit.depth.bit_length()
    bits = unit.width * unit.x.bits
    memory = _memory(bits, unit.depth, unit.memory, family)
    if unit.latency > 1:
        ways = memory_ways(bits, unit.depth, family.blocks)
        memory += queue_resources(bits, DEEP_QUEUE, family)
        memory += Resources(luts=ways, ffs=ways // 2 + bits + unit.latency)
    return memory + Resources(luts=10 + count, ffs=count)


@unit_cost.of(WidthConverter)
def _converter(unit: WidthConverter, family: Family) -> Resources:
    """The wide transfer in registers; where it leaves in parts, each bit has a second source."""
    bits, count = unit.x.bits * max(unit.taken, unit.given), unit.parts.bit_length()
    luts = bits if unit.taken > unit.given else 0
    return Resources(luts=luts + 5 + 2 * count, ffs=bits + 1 + count)


def converter_resources(
    x: tuple[int, IntFormat], out: tuple[int, IntFormat], widths: tuple[int, int], family: Family
) -> Resources:
    """What a board's link has between its one activation a transfer and a network's ``widths``."""
    units = [unit for unit in link_converters(x, out, widths) if unit is not None]
    return sum((unit_cost(unit, family) for unit in units), Resources())


@unit_cost.of(Unpack)
def _unpacker(unit: Unpack, family: Family) -> Resources:
    width = unit.width
    count = 3 * (unit.depth.bit_length() + unit.batch.bit_length())
    return (
        _memory(width, unit.depth, unit.memory, family)
        + queue_resources(unit.x.bits, UNPACKER_QUEUE, family)
        + Resources(luts=30 + count + width // 2, ffs=20 + count + unit.x.bits)
    )


@unit_cost.of(Lookup)
def _lookup(unit: Lookup, family: Family) -> Resources:
    """The tables, the queue behind them, and a counter of channels."""
    bits, words = unit.out.bits, unit.words
    tables = Resources(luts=bits * -(-words // 12), ffs=bits)
    if unit.memory == "block":
        tables = _memory(bits, words, "block", family)
    elif unit.memory == "lines":
        assert unit.lines is not None
        # Of five cases on either family, by Yosys: 44 to 89 registers, within a sixth.
        adders, width = unit.lines.adders, unit.x.bits
        luts, ffs = (adders + 2) * (width + 1) + 2 * bits, (adders + 4) * width + bits
        tables = Resources(luts=luts, ffs=ffs)
    count = 2 * (unit.tables_each - 1).bit_length()
    queue = queue_resources(unit.width * bits, unit.depth, family, unit.queue_memory)
    return _times(unit.width, tables) + queue + Resources(luts=20 + count, ffs=10 + count)


@unit_cost.of(LargestUnit)
def _largest(unit: LargestUnit, family: Family) -> Resources:
    """Comparators, and the list twice: as it is sorted and as it is sent."""
    entry = unit.x.bits + unit.place_bits
    sorted_list = Resources(luts=2 * entry + unit.x.bits, ffs=entry)
    sent = Resources(luts=2 * unit.out.bits, ffs=2 * unit.out.bits)
    control = Resources(luts=12 + 3 * unit.place_bits, ffs=6 + unit.place_bits)
    return sum([sorted_list + sent] * unit.count, control)


@unit_cost.of(SmoothedUnit)
def _smoothed(unit: SmoothedUnit, family: Family) -> Resources:
    """Averages in registers, two adders for them, one for the margin, and two comparators."""
    bits, places = unit.sum_bits, unit.place_bits
    sums = Resources(luts=8 * bits, ffs=(unit.size + 4) * bits)
    control = Resources(luts=14 + 5 * places, ffs=8 + 4 * places)
    return sums + control + Resources(luts=3 * unit.out.bits, ffs=2 * unit.out.bits)


@unit_cost.of(AboveUnit)
def _above(unit: AboveUnit, family: Family) -> Resources:
    queue = queue_resources(unit.out.bits, unit.depth, family, unit.queue_memory)
    several = len(set(unit.thresholds)) > 1
    constants = several * unit.x.bits * -(-len(unit.thresholds) // 12)
    return queue + Resources(luts=20 + unit.x.bits + constants, ffs=10)


@unit_cost.of(Join)
def _join(unit: Join, family: Family) -> Resources:
    queue = queue_resources(unit.width * unit.out.bits, unit.depth, family, unit.queue_memory)
    products = 1 if unit.runs else len(unit.inputs)
    return queue + _times(unit.width, _scaling(unit.scale, products, unit.out.bits))


@unit_cost.of(Pool)
def _pool(unit: Pool, family: Family) -> Resources:
    bits, out = unit.width * unit.acc_bits, unit.width * unit.out.bits
    total = queue_resources(out, unit.depth, family, unit.queue_memory)
    if unit.scale is not None:
        total += _times(unit.width, _scaling(unit.scale, 1, unit.out.bits))
    total += Resources(luts=90 + 4 * bits, ffs=60 + 4 * bits)
    if unit.window is not None:
        return total + window_resources(unit.window, family.name)
    if unit.chained:  # a row's maxima or sums are made before they meet those of the rows above
        total += Resources(luts=2 * bits, ffs=bits * (unit.pixel_transfers + unit.latency))
    return total + _memory(bits, unit.partials, unit.memory, family)


def _scaling(scale: Scale, products: int, bits: int) -> Resources:
    """Multipliers, their sum, and its rounding to so many bits."""
    soft = scale.acc_bits * scale.mult_bits if not scale.multiplies.blocks else 0
    return Resources(
        luts=products * soft + scale.sum_bits + 2 * bits,
        ffs=scale.sum_bits + bits,
        dsps=products * scale.dsps,
    )


@unit_energy.of(Unit)
def _nothing(unit: Unit) -> Operations:
    return Operations()


@unit_energy.of(Lookup)
def _reads(unit: Lookup) -> Operations:
    return Operations(read_bits=unit.size * unit.out.bits)


def unit_resources(unit: Unit, engine: str) -> Resources:
    """What a unit takes; of a core only its line buffer, see `pvq_hw.plan.resources` for the
    rest."""
    return unit_cost(unit, find_family(engine))


def units_reserve(units: int, engine: str) -> Resources:
    """What is kept free for so many units without weights, of which nothing is known yet."""
    # Partial results, and where there is no distributed RAM a queue of results.
    blocks = 1 if find_family(engine).lutram else 2
    return Resources(luts=units * _UNIT_LUTS, ffs=units * _UNIT_LUTS, brams=units * blocks)


def graph_resources(graph: GraphSpec, engine: str) -> Resources:
    """All units of a graph, its cores' own share aside."""
    return sum((unit_resources(unit, engine) for unit in graph.units), Resources())


def graph_operations(graph: GraphSpec) -> Operations:
    """What the units of a graph do in one inference, its cores aside."""
    return sum(map(unit_energy, graph.units), Operations())
