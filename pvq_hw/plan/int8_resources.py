"""What a core with 8-bit weights takes of a device; see `pvq_hw.plan.resources`."""

from pvq_hw.engine.int8_core import WEIGHT_BITS, Int8Spec, weight_segments
from pvq_hw.plan.multiplier_cost import serial_bits
from pvq_hw.registry import Facts
from pvq_hw.target.block_ram import memory_blocks, memory_columns
from pvq_hw.target.families import FAMILIES
from pvq_hw.target.multipliers import multiplier_named

__all__ = ["INT8_COEFFICIENTS", "int8_brams", "int8_dsps", "int8_features", "int8_memories"]


def int8_memories(spec: Int8Spec) -> dict[str, tuple[int, int, int]]:
    """Block RAM memories by role: (copies, width in bits, depth in words)."""
    memories = {"weights": (1, spec.word_bits, spec.words)}
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            if spec.memory_name(role) in spec.memories:
                memories[role] = (1, *spec.memories[spec.memory_name(role)])
    if spec.bank_memory == "block":
        memories["banks"] = (1, spec.x.bits * spec.lanes, spec.bank_words)
    if spec.fifo_memory == "block":
        memories["fifo"] = (1, spec.out.bits, spec.fifo_depth)
    return memories


def int8_brams(spec: Int8Spec, blocks: str) -> int:
    """Block RAMs; the weights are cut into ROMs that are not cut again."""
    total = 0
    for role, (copies, width, depth) in int8_memories(spec).items():
        parts = weight_segments(depth, blocks) if role == "weights" else (depth,)
        total += copies * sum(memory_blocks(width, part, blocks) for part in parts)
    return total


def int8_dsps(spec: Int8Spec) -> int:
    """Multiplier blocks of the lanes and of the requantizer."""
    way = multiplier_named(spec.products)
    return (-(-spec.lanes // way.lanes) if way.blocks else 0) + spec.multiplier_parts


def int8_features(spec: Int8Spec, blocks: str) -> dict[str, float]:
    """Quantities that the LUT and flip-flop estimates are linear in."""
    rows = -(-spec.rows // 16)
    mult = 0 if not spec.multiplies.stored else spec.mult_bits
    wide = spec.multiplier_parts > 1
    segments = len(weight_segments(spec.words, blocks))
    logic = spec.products == "logic"
    return {
        "core": 1.0,
        "writer": spec.lanes * spec.x.bits,
        "weights": float(spec.word_bits),
        "products": spec.lanes * WEIGHT_BITS * (spec.x.bits - 1) if logic else 0.0,
        "tree": (spec.lanes - 1) * (spec.product_bits + spec.tree_levels / 2),
        "requantizer": spec.acc_bits + spec.sum_bits + spec.out.bits,
        "serial": serial_bits(spec),
        "parts": spec.multiplier_parts * wide * spec.mult_bits,
        "counters": spec.words.bit_length() + 3 * (spec.n.bit_length() + spec.rows.bit_length()),
        "logic_roms": (mult + spec.bias_bits) * rows if spec.params_memory == "logic" else 0.0,
        "fifo": spec.out.bits * spec.fifo_depth / 16 if spec.fifo_memory == "logic" else 0.0,
        "banks": _logic_banks(spec),
        "choices": (segments - 1) * float(spec.word_bits),
        "ways": _ways(spec, blocks),
    }


def _logic_banks(spec: Int8Spec) -> float:
    ways = -(-spec.bank_words // 16)
    return float(spec.x.bits * spec.lanes * ways) if spec.bank_memory == "logic" else 0.0


def _ways(spec: Int8Spec, blocks: str) -> float:
    """Bits that are chosen among blocks which a memory is cut into; not of the weights."""
    total = 0
    for role, (copies, width, depth) in int8_memories(spec).items():
        if role != "weights":
            columns = memory_columns(width, depth, blocks)
            total += copies * sum(bits * (ways - 1) for bits, ways in columns)
    return float(total)


# Printed by `benchmarks/fit_int8.py`.
INT8_COEFFICIENTS: Facts[dict[str, dict[str, float]]] = FAMILIES.facts(
    "cost of 8-bit cores",
    {
        # Its LUTs: fitted near 0.857 of what they were before carry chains were shortened, since
        # these cores alone don't tell constant parts from counters.
        "ecp5": {
            "luts": {
                "core": 19.6,
                "writer": 0.6443,
                "weights": 0.6443,
                "products": 2.551,
                "tree": 0.5619,
                "requantizer": 0.7773,
                "serial": 3.124,
                "parts": 1.445,
                "counters": 1.92,
                "logic_roms": 1.405,
                "fifo": 1.684,
                "choices": 1.19,
            },
            "ffs": {
                "core": 6.089,
                "writer": 2.816,
                "weights": 3.816,
                "products": 2.382,
                "tree": 0.749,
                "requantizer": 1.099,
                "serial": 2.68,
                "parts": 1.17,
                "counters": 4.898,
                "logic_roms": 1.168,
                "fifo": 1.38,
                "choices": 1.698,
            },
        },
        "up5k": {
            "luts": {
                "core": 46.82,
                "writer": 1.589,
                "weights": 1.589,
                "products": 2.8,
                "requantizer": 0.4233,
                "serial": 4.34,
                "counters": 5.368,
                "logic_roms": 1.432,
                "fifo": 31.94,
                "choices": 1.307,
            },
            "ffs": {
                "writer": 1.839,
                "weights": 1.839,
                "products": 2.713,
                "tree": 0.08033,
                "requantizer": 2.933,
                "serial": 3.095,
                "counters": 1.94,
                "fifo": 19.12,
                "choices": 0.6098,
            },
        },
        "hx8k": {
            "luts": {
                "core": 88.68,
                "writer": 5.238,
                "weights": 5.238,
                "products": 1.605,
                "requantizer": 0.6542,
                "serial": 3.99,
                "counters": 6.735,
                "logic_roms": 0.7962,
                "fifo": 30.69,
                "choices": 1.011,
            },
            "ffs": {
                "writer": 5.468,
                "weights": 5.468,
                "products": 1.638,
                "requantizer": 3.752,
                "serial": 2.981,
                "counters": 2.007,
                "fifo": 19.56,
                "choices": 0.6098,
            },
        },
    },
)
