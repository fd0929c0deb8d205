"""What a core takes of a device: block RAM and DSP blocks exactly, LUTs and flip-flops estimated.

The estimate is linear in quantities that a `CoreSpec` gives; `benchmarks/fit_resources.py` fits
the coefficients to syntheses of the real cores and prints them in the form below.
"""

from dataclasses import dataclass, replace

from pvq_hw.documents import Document
from pvq_hw.engine.code_stream import flash_width
from pvq_hw.engine.core import CORES, CoreBase
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.roms import rom_shapes
from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.host.protocol import Description
from pvq_hw.plan.coefficients import FF_COEFFICIENTS, LUT_COEFFICIENTS
from pvq_hw.plan.depthwise_resources import (
    DEPTHWISE_COEFFICIENTS,
    depthwise_features,
    depthwise_memories,
)
from pvq_hw.plan.int8_resources import (
    INT8_COEFFICIENTS,
    int8_brams,
    int8_dsps,
    int8_features,
    int8_memories,
)
from pvq_hw.plan.multiplier_cost import serial_bits
from pvq_hw.plan.shared_resources import (
    MAP_LUTS,
    SHARED_LUTS,
    map_luts,
    map_memories,
    shared_memories,
)
from pvq_hw.plan.unrolled_resources import (
    DIGITAL_COEFFICIENTS,
    UNROLLED_COEFFICIENTS,
    digital_features,
    unrolled_features,
    unrolled_memories,
)
from pvq_hw.registry import Face
from pvq_hw.target.architectures import architecture
from pvq_hw.target.block_ram import memory_blocks, memory_layout, memory_ways, spram_blocks
from pvq_hw.target.boards import Target
from pvq_hw.target.families import Family, family

__all__ = [
    "Resources",
    "bank_ways",
    "budget",
    "core_cost",
    "core_memories",
    "core_resources",
    "features",
    "live_resources",
    "top_resources",
]

_LUT_SHARE = 0.85  # of the device: beyond it place and route slows down and misses clocks
_LOAD_LUTS, _LOAD_FFS = 320, 170
_LIVE_LUTS, _LIVE_FFS = 330, 230
# Synthesized: 295 LUTs and 196 flip-flops more on iCE40, 308 and 164 on ECP5.
_MEASURE_LUTS, _MEASURE_FFS = 310, 200
_BLOCK_LUTS = 3  # of a block that is loaded: whether it is meant
_BACK_LUTS = 1.0  # of a bit that is read back
_SPRAM_LUTS = 17  # its address has two sources, and its words a second way out
_STREAM_LUTS, _STREAM_FFS = 150, 110  # and those of a code word: what reads codes from the flash
_WIDE_LUTS = {1: 0, 2: 11, 4: 21}  # more where it gives so many bits a clock, counted
_FEW_STEPS = 16  # of a program in LUTs: they take a quarter of a word's bits, more steps more


@dataclass(frozen=True)
class Resources(Document):
    """Parts of a device.

    Parameters
    ----------
    luts, ffs : int
        Estimates; on iCE40 ``luts`` counts logic cells.
    brams : int
        Block RAMs, exact.
    bram_bits : int
        Bits stored in them, exact, what the blocks lose at their borders not counted.
    dsps : int
        Multiplier blocks, exact.
    sprams : int
        Single-ported RAMs of the UltraPlus, exact.
    """

    luts: int = 0
    ffs: int = 0
    brams: int = 0
    bram_bits: int = 0
    dsps: int = 0
    sprams: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            self.luts + other.luts,
            self.ffs + other.ffs,
            self.brams + other.brams,
            self.bram_bits + other.bram_bits,
            self.dsps + other.dsps,
            self.sprams + other.sprams,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(**{key: value - vars(other)[key] for key, value in vars(self).items()})

    def within(self, other: "Resources") -> bool:
        """Whether no part exceeds the other's (bits follow from the rest)."""
        keys = ("luts", "ffs", "brams", "dsps", "sprams")
        return all(getattr(self, key) <= getattr(other, key) for key in keys)


core_memories: Face[[], dict[str, tuple[int, int, int]]] = CORES.face("memories")
"""A core's memories in block RAM by role: (copies, width in bits, depth in words)."""

core_cost: Face[[Family], Resources] = CORES.face("cost")
"""What a core takes of a family's device."""

core_memories.of(UnrolledSpec)(unrolled_memories)
core_memories.of(Int8Spec)(int8_memories)
core_memories.of(SharedSpec)(shared_memories)
core_memories.of(MapSpec)(map_memories)
core_memories.of(DepthwiseSpec)(depthwise_memories)


@core_memories.of(CoreSpec)
def _pulse_memories(spec: CoreSpec) -> dict[str, tuple[int, int, int]]:
    roms = spec.memories
    width, depth = roms[spec.memory_name("weights")]
    memories = {} if spec.code_memory == "spram" else {"codes": (1, width, depth)}
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            if spec.memory_name(role) in roms:
                memories[role] = (1, *roms[spec.memory_name(role)])
    if spec.bank_memory == "block":
        side = spec.input_frames  # frames that are written together are in one memory
        banks = spec.lanes * spec.frames // side
        memories["banks"] = (banks, side * spec.x.bits, spec.bank_words)
    if spec.fifo_memory == "block":
        memories["fifo"] = (1, spec.frames * spec.out.bits, spec.fifo_depth)
    return memories


def features(spec: CoreSpec | SharedSpec, blocks: str) -> dict[str, float]:
    """Quantities that the LUT and flip-flop estimates are linear in.

    ``blocks`` is one of `pvq_hw.target.architectures.ARCHITECTURES`.
    """
    p, v = spec.lanes, spec.frames
    rows = -(-spec.rows * spec.groups // 16)
    mult_bits = 0 if not spec.multiplies.stored else spec.mult_bits
    logic_bits = mult_bits * rows + spec.bias_bits * -(-spec.rows // 16)
    fifo_logic = spec.fifo_memory == "logic"
    return {
        "core": 1.0,
        "lanes": p,
        "addresses": p * spec.address_bits,
        "leaves": v * p * spec.leaf_bits,
        "shifts": v * p * spec.leaf_bits * spec.code.shift_bits,
        "tree": v * _tree_bits(spec),
        "accumulator": v * spec.acc_bits,
        "requantizer": v * (spec.sum_bits + spec.out.bits),
        "serial": v * serial_bits(spec),
        "parts": v * spec.multiplier_parts * (spec.multiplier_parts > 1) * spec.mult_bits,
        "counters": spec.words.bit_length() + 3 * (spec.n.bit_length() + spec.rows.bit_length()),
        "logic_roms": logic_bits if spec.params_memory == "logic" else 0.0,
        "fifo": v * spec.out.bits * spec.fifo_depth / 16 if fifo_logic else 0.0,
        "rom_ways": _rom_ways(spec, blocks),
        "banks": spec.lanes * _bank_luts(spec, blocks) if spec.bank_memory == "logic" else 0.0,
    }


def _bank_luts(spec: CoreSpec | SharedSpec, blocks: str) -> int:
    """LUTs of a bank that is logic: distributed RAM of 16 words on ECP5, else flip-flops."""
    width = spec.frames * spec.x.bits
    if not architecture(blocks).lutram_words:
        # A cell each, and as many to choose among them: 8 x 8 bits take 120, 8 x 16 take 257.
        return 2 * width * spec.bank_words
    ways = bank_ways(spec)
    # A RAM of 4 bits takes 6 LUTs. Two ways meet in the leaf's LUT, if nothing is in between.
    joined = 0 if ways == 1 or (ways == 2 and spec.bank_latency == 1) else (ways + 1) // 3
    enables = spec.frames // spec.input_frames
    return 6 * ways * -(-width // 4) + width * joined + (1 + enables) * ways * (ways > 1)


def bank_ways(spec: CoreSpec | SharedSpec) -> int:
    """Distributed RAMs of 16 words one behind the other in a bank of the core."""
    return -(-spec.bank_words // 16)


def _tree_bits(spec: CoreSpec | SharedSpec) -> int:
    """Adder bits of the tree: at each level pairs are added, one bit wider than before."""
    total, nodes, width = 0, spec.lanes, spec.leaf_bits
    while nodes > 1:
        total += (nodes // 2) * (width + 1)
        nodes, width = -(-nodes // 2), width + 1
    return total


def _rom_ways(spec: CoreSpec | SharedSpec, blocks: str) -> float:
    """Bits that are chosen among blocks which a memory is cut into, one for each further way."""
    return float(
        sum(
            copies * memory_ways(width, depth, blocks)
            for copies, width, depth in core_memories(spec).values()
        )
    )


def core_resources(spec: CoreBase, engine: str) -> Resources:
    """What a core takes; ``engine`` is a key of `pvq_hw.target.families.FAMILIES`."""
    return core_cost(spec, family(engine))


@core_cost.of(UnrolledSpec)
def _unrolled_cost(spec: UnrolledSpec, device: Family) -> Resources:
    estimates, values = UNROLLED_COEFFICIENTS[device.name], unrolled_features(spec)
    if spec.digit:
        estimates, values = DIGITAL_COEFFICIENTS[device.name], digital_features(spec)
    return _blocks(spec, device) + Resources(
        luts=_estimate(estimates["luts"], values),
        ffs=_estimate(estimates["ffs"], values),
        dsps=spec.out_width * spec.multiplier_parts,
    )


@core_cost.of(DepthwiseSpec)
def _depthwise_cost(spec: DepthwiseSpec, device: Family) -> Resources:
    estimates, values = DEPTHWISE_COEFFICIENTS[device.name], depthwise_features(spec)
    return _blocks(spec, device) + Resources(
        luts=_estimate(estimates["luts"], values),
        ffs=_estimate(estimates["ffs"], values),
        dsps=spec.multiplier_parts,
    )


@core_cost.of(Int8Spec)
def _int8_cost(spec: Int8Spec, device: Family) -> Resources:
    estimates, values = INT8_COEFFICIENTS[device.name], int8_features(spec, device.blocks)
    # Its ROM of weights is cut otherwise than a memory of its width.
    return replace(
        _blocks(spec, device),
        luts=_estimate(estimates["luts"], values),
        ffs=_estimate(estimates["ffs"], values),
        brams=int8_brams(spec, device.blocks),
        dsps=int8_dsps(spec),
    )


@core_cost.of(SharedSpec)
def _shared_cost(spec: SharedSpec, device: Family) -> Resources:
    """What a core of pulses of the same widths takes, and what switches from layer to layer."""
    more = SHARED_LUTS[device.name]
    luts = more["core"] + more["layers"] * len(spec.layers)
    luts += more["finishes"] * (len(spec.finishes) - 1) * spec.out.bits
    return _pulse_cost(spec, device) + Resources(luts=round(luts), ffs=round(more["ffs"]))


@core_cost.of(MapSpec)
def _map_cost(spec: MapSpec, device: Family) -> Resources:
    """As one without maps, and what fetches windows and keeps the maps."""
    sprams = 2 if spec.map_memory == "spram" else 0
    words = max(_FEW_STEPS, len(spec.layers)) if spec.program_memory == "logic" else 0
    own = spec.program_bits * words // (4 * _FEW_STEPS)
    values, base = features(spec, device.blocks), MAP_LUTS[device.name]
    luts, ffs = map_luts(spec, device.name, values["leaves"], values["tree"])
    return _shared_cost(spec, device) + Resources(
        luts=base + luts + own + _SPRAM_LUTS * sprams, ffs=base + ffs, sprams=sprams
    )


@core_cost.of(CoreSpec)
def _pulse_cost(spec: CoreSpec | SharedSpec, device: Family) -> Resources:
    values = features(spec, device.blocks)
    sprams = spram_blocks(spec.word_bits, spec.words) if spec.code_memory == "spram" else 0
    reader = spec.word_bits if spec.code_memory == "flash" else 0
    return _blocks(spec, device) + Resources(
        luts=_estimate(LUT_COEFFICIENTS[device.name], values)
        + _SPRAM_LUTS * sprams
        + (reader + _STREAM_LUTS + _WIDE_LUTS[flash_width([spec])] if reader else 0),
        ffs=_estimate(FF_COEFFICIENTS[device.name], values)
        + (reader + _STREAM_FFS if reader else 0),
        dsps=spec.frames * spec.multiplier_parts,
        sprams=sprams,
    )


def _blocks(spec: CoreBase, device: Family) -> Resources:
    """The block RAMs of a core's memories."""
    memories = core_memories(spec).values()
    return Resources(
        brams=sum(c * memory_blocks(w, d, device.blocks) for c, w, d in memories),
        bram_bits=sum(c * w * d for c, w, d in memories),
    )


def _estimate(coefficients: dict[str, float], values: dict[str, float]) -> int:
    return max(
        1, round(sum([v * coefficients[key] for key, v in values.items() if key in coefficients]))
    )


def top_resources(
    target: Target,
    input_bytes: int,
    updatable: bool = False,
    live: bool = False,
    measure: bool = False,
) -> Resources:
    """What the board's top takes besides the cores: UART, packets, a frame's buffer, in block RAM
    what it says of itself where that is ``updatable``, where it is ``live`` what loads, and where
    it is to ``measure`` what repeats frames and counts."""
    blocks = memory_blocks(8, input_bytes, family(target.engine).blocks)
    told = Description.SIZE if updatable else 0
    return Resources(
        luts=target.device.architecture.top_luts + _LIVE_LUTS * live + _MEASURE_LUTS * measure,
        ffs=target.device.architecture.top_ffs + _LIVE_FFS * live + _MEASURE_FFS * measure,
        brams=blocks + memory_blocks(8, told, family(target.engine).blocks),
        bram_bits=8 * (input_bytes + told),
    )


def load_resources(target: Target) -> Resources:
    """What the top takes besides to load codes: flash, checksum, packets."""
    return Resources(luts=_LOAD_LUTS, ffs=_LOAD_FFS) if target.device.sprams else Resources()


def live_resources(graph: GraphSpec, engine: str, banks: int) -> Resources:
    """What the memories of a graph take besides where they are loaded: two sources of addresses,
    a way out for the loader, and with two banks all of them once more."""
    blocks = family(engine).blocks
    luts = ffs = brams = bits = 0
    for rom in rom_shapes(graph, blocks):
        pieces = memory_layout(rom.width, rom.depth, blocks)
        luts += banks * ((rom.depth - 1).bit_length() + _BLOCK_LUTS * len(pieces))
        luts += round(_BACK_LUTS * rom.width * banks) + rom.width * (banks - 1)
        ffs += len(pieces) + max(piece.bits for piece in pieces)
        brams, bits = brams + len(pieces), bits + rom.width * rom.depth
    more = banks - 1
    told = 1  # what the board says of itself
    return Resources(luts=luts, ffs=ffs, brams=more * (brams + told), bram_bits=more * bits)


def budget(target: Target) -> Resources:
    """What a whole design may take of the target: 85 % of the LUTs, all of the rest."""
    device = target.device
    return Resources(
        luts=int(device.luts * _LUT_SHARE),
        ffs=device.ffs,
        brams=device.brams,
        bram_bits=device.bram_bits,
        dsps=device.dsps,
        sprams=device.sprams,
    )
