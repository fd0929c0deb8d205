"""What a core takes of a device: block RAM and DSP blocks exactly, LUTs and flip-flops estimated.

The estimate is linear in quantities that a `CoreSpec` gives; `benchmarks/fit_resources.py` fits
the coefficients to syntheses of the real cores and prints them in the form below.
"""

from dataclasses import dataclass
from typing import Any

from pvq_hw.blocks import memory_blocks, memory_layout
from pvq_hw.core import CoreSpec
from pvq_hw.families import family
from pvq_hw.resource_fit import FF_COEFFICIENTS, LUT_COEFFICIENTS
from pvq_hw.targets import Target

__all__ = ["Resources", "budget", "core_memories", "core_resources", "features", "top_resources"]

_LUT_SHARE = 0.85  # of the device: beyond it place and route slows down and misses clocks
_TOP_LUTS = {"ice40": 920, "ecp5": 800}  # UART, packets, frame buffer logic, reset
_TOP_FFS = {"ice40": 590, "ecp5": 450}


@dataclass(frozen=True)
class Resources:
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
    """

    luts: int = 0
    ffs: int = 0
    brams: int = 0
    bram_bits: int = 0
    dsps: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            self.luts + other.luts,
            self.ffs + other.ffs,
            self.brams + other.brams,
            self.bram_bits + other.bram_bits,
            self.dsps + other.dsps,
        )

    def within(self, other: "Resources") -> bool:
        """Whether no part exceeds the other's (bits and flip-flops follow from the rest)."""
        return self.luts <= other.luts and self.brams <= other.brams and self.dsps <= other.dsps

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Resources":
        """Inverse of `to_json`."""
        return cls(**{key: int(value[key]) for key in vars(cls())})


def core_memories(spec: CoreSpec) -> dict[str, tuple[int, int, int]]:
    """Block RAM memories by role: (copies, width in bits, depth in words)."""
    width, depth = spec.memories[f"{spec.name}_codes"]
    memories = {"codes": (1, width, depth)}
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            memories[role] = (1, *spec.memories[f"{spec.name}_{role}"])
    if spec.bank_memory == "block":
        memories["banks"] = (spec.lanes, spec.frames * spec.x.bits, spec.bank_words)
    if spec.fifo_memory == "block":
        memories["fifo"] = (1, spec.frames * spec.out.bits, spec.fifo_depth)
    return memories


def features(spec: CoreSpec, blocks: str) -> dict[str, float]:
    """Quantities that the LUT and flip-flop estimates are linear in.

    ``blocks`` is the key of `pvq_hw.blocks.BLOCK_SHAPES`.
    """
    p, v = spec.lanes, spec.frames
    rows = -(-spec.rows * spec.groups // 16)
    logic_bits = spec.mult_bits * rows + spec.bias_bits * -(-spec.rows // 16)
    serial = spec.multiplier == "serial"
    fifo_logic = spec.fifo_memory == "logic"
    return {
        "core": 1.0,
        "lanes": p,
        "addresses": p * spec.address_bits,
        "leaves": v * p * spec.leaf_bits,
        "tree": v * _tree_bits(spec),
        "accumulator": v * spec.acc_bits,
        "requantizer": v * (spec.sum_bits + spec.out.bits),
        "serial": v * _serial_bits(spec) if serial else 0.0,
        "parts": v * spec.multiplier_parts * (spec.multiplier_parts > 1) * spec.mult_bits,
        "counters": spec.words.bit_length() + 3 * (spec.n.bit_length() + spec.rows.bit_length()),
        "logic_roms": logic_bits if spec.params_memory == "logic" else 0.0,
        "fifo": v * spec.out.bits * spec.fifo_depth / 16 if fifo_logic else 0.0,
        "rom_ways": _rom_ways(spec, blocks),
    }


def _tree_bits(spec: CoreSpec) -> int:
    """Adder bits of the tree: at each level pairs are added, one bit wider than before."""
    total, nodes, width = 0, spec.lanes, spec.leaf_bits
    while nodes > 1:
        total += (nodes // 2) * (width + 1)
        nodes, width = -(-nodes // 2), width + 1
    return total


def _serial_bits(spec: CoreSpec) -> int:
    """Adder bits of the shift-add multiplier: its stages, each as wide as the product so far."""
    stages = -(-spec.mult_bits // spec.multiplier_interval)
    return stages * (spec.acc_bits + spec.mult_bits)


def _rom_ways(spec: CoreSpec, blocks: str) -> float:
    """Bits that are chosen among blocks which a memory is cut into, one for each further way."""
    total = 0
    for copies, width, depth in core_memories(spec).values():
        pieces = memory_layout(width, depth, blocks)
        total += copies * sum(piece.bits for piece in pieces if piece.word > 0)
    return float(total)


def core_resources(spec: CoreSpec, engine: str) -> Resources:
    """What a core takes; ``engine`` is a key of `pvq_hw.families.FAMILIES`."""
    device = family(engine)
    memories = core_memories(spec).values()
    values = features(spec, device.blocks)

    def estimate(coefficients: dict[str, float]) -> int:
        return max(1, round(sum(coefficients.get(key, 0.0) * v for key, v in values.items())))

    return Resources(
        luts=estimate(LUT_COEFFICIENTS[engine]),
        ffs=estimate(FF_COEFFICIENTS[engine]),
        brams=sum(c * memory_blocks(w, d, device.blocks) for c, w, d in memories),
        bram_bits=sum(c * w * d for c, w, d in memories),
        dsps=spec.frames * spec.multiplier_parts,
    )


def top_resources(target: Target, input_bytes: int) -> Resources:
    """What the board's top takes besides the cores: UART, packets, a frame's buffer."""
    blocks = memory_blocks(8, input_bytes, family(target.engine).blocks)
    return Resources(
        luts=_TOP_LUTS[target.family],
        ffs=_TOP_FFS[target.family],
        brams=blocks,
        bram_bits=8 * input_bytes,
    )


def budget(target: Target) -> Resources:
    """What a whole design may take of the target: 85 % of the LUTs, all of the rest."""
    return Resources(
        luts=int(target.luts * _LUT_SHARE),
        ffs=target.ffs,
        brams=target.brams,
        bram_bits=target.bram_bits,
        dsps=target.dsps,
    )
