"""What units take of a device besides the cores: block RAM and DSP blocks exactly, LUTs roughly."""

from pvq_hw.engine.batch import UNPACKER_QUEUE
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.units import CoreUnit, Fifo, Fork, Join, Lookup, Pool, Unit, Unpack
from pvq_hw.errors import InputError
from pvq_hw.plan.resources import Resources
from pvq_hw.target.block_ram import memory_blocks
from pvq_hw.target.energy import Operations
from pvq_hw.target.families import Family
from pvq_hw.target.families import family as find_family

__all__ = [
    "graph_operations",
    "graph_resources",
    "logic_memory",
    "unit_resources",
    "units_reserve",
    "window_resources",
]


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


def _queue(bits: int, depth: int, family: Family, kind: str = "logic") -> Resources:
    count = 4 * depth.bit_length()
    return _memory(bits, depth, kind, family) + Resources(luts=10 + count, ffs=count)


def _unpacker(unit: Unpack, family: Family) -> Resources:
    width = unit.width
    count = 3 * (unit.depth.bit_length() + unit.batch.bit_length())
    return (
        _memory(width, unit.depth, unit.memory, family)
        + _queue(unit.x.bits, UNPACKER_QUEUE, family)
        + Resources(luts=30 + count + width // 2, ffs=20 + count + unit.x.bits)
    )


def _lookup(unit: Lookup, family: Family) -> Resources:
    """The tables, the queue behind them, and a counter of channels."""
    bits, words = unit.out.bits, unit.words
    tables = Resources(luts=bits * -(-words // 12), ffs=bits)
    if unit.memory == "block":
        tables = _memory(bits, words, "block", family)
    count = 2 * (len(unit.entries) - 1).bit_length()
    queue = _queue(bits, unit.depth, family, unit.queue_memory)
    return tables + queue + Resources(luts=20 + count, ffs=10 + count)


def unit_resources(unit: Unit, engine: str) -> Resources:
    """What a unit takes; of a core only its line buffer, see `pvq_hw.plan.resources` for the
    rest."""
    family = find_family(engine)
    if isinstance(unit, CoreUnit):
        return window_resources(unit.window, engine) if unit.window else Resources()
    if isinstance(unit, Fork):
        return Resources(luts=3 * len(unit.outputs), ffs=len(unit.outputs))
    if isinstance(unit, Fifo):
        count = 5 * unit.depth.bit_length()
        memory = _memory(unit.x.bits, unit.depth, unit.memory, family)
        return memory + Resources(luts=10 + count, ffs=count)
    if isinstance(unit, Unpack):
        return _unpacker(unit, family)
    if isinstance(unit, Lookup):
        return _lookup(unit, family)
    if not isinstance(unit, Join | Pool):
        raise InputError(f"Unit {unit.name!r} has no cost: its kind {unit.kind!r} is not known")
    total = _queue(unit.out.bits, unit.depth, family, unit.queue_memory)
    if unit.scale is not None:
        products = len(unit.inputs) if isinstance(unit, Join) and not unit.runs else 1
        soft = unit.scale.acc_bits * unit.scale.mult_bits if unit.scale.multiplier == "logic" else 0
        total += Resources(
            luts=products * soft + unit.scale.sum_bits + 2 * unit.out.bits,
            ffs=unit.scale.sum_bits + unit.out.bits,
            dsps=products * unit.scale.dsps,
        )
    if isinstance(unit, Pool):
        total += Resources(luts=90 + 4 * unit.acc_bits, ffs=60 + 4 * unit.acc_bits)
        if unit.window is not None:
            total += window_resources(unit.window, engine)
        else:
            total += _memory(unit.acc_bits, unit.partials, unit.memory, family)
    return total


def units_reserve(units: int, engine: str) -> Resources:
    """What is kept free for so many units without weights, of which nothing is known yet."""
    # Partial results, and where there is no distributed RAM a queue of results.
    blocks = 1 if find_family(engine).lutram else 2
    return Resources(luts=units * _UNIT_LUTS, ffs=units * _UNIT_LUTS, brams=units * blocks)


def graph_resources(graph: GraphSpec, engine: str) -> Resources:
    """All units of a graph, its cores' own share aside."""
    return sum((unit_resources(unit, engine) for unit in graph.units), Resources())


def graph_operations(graph: GraphSpec) -> Operations:
    """What the tables of a graph do in one inference; other units count for nothing."""
    lookups = [unit for unit in graph.units if isinstance(unit, Lookup)]
    return Operations(read_bits=sum(unit.size * unit.out.bits for unit in lookups))
