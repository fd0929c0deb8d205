"""What a core with 8-bit weights takes of a device; see `pvq_hw.resources`."""

from pvq_hw.blocks import memory_blocks, memory_layout
from pvq_hw.int8_core import WEIGHT_BITS, Int8Spec, weight_segments

__all__ = ["INT8_COEFFICIENTS", "int8_brams", "int8_dsps", "int8_features", "int8_memories"]


def int8_memories(spec: Int8Spec) -> dict[str, tuple[int, int, int]]:
    """Block RAM memories by role: (copies, width in bits, depth in words)."""
    memories = {"weights": (1, spec.word_bits, spec.words)}
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            if f"{spec.name}_{role}" in spec.memories:
                memories[role] = (1, *spec.memories[f"{spec.name}_{role}"])
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
    lanes = {"mult18": spec.lanes, "mac16": -(-spec.lanes // 2), "logic": 0}[spec.products]
    return lanes + spec.multiplier_parts


def int8_features(spec: Int8Spec, blocks: str) -> dict[str, float]:
    """Quantities that the LUT and flip-flop estimates are linear in."""
    rows = -(-spec.rows // 16)
    mult = 0 if spec.multiplier == "none" else spec.mult_bits
    stages = -(-(spec.mult_bits + 1) // spec.multiplier_interval)
    serial = stages * (spec.acc_bits + spec.mult_bits) if spec.multiplier == "serial" else 0
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
        "serial": float(serial),
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
            pieces = memory_layout(width, depth, blocks)
            total += copies * sum(piece.bits for piece in pieces if piece.word > 0)
    return float(total)


# Printed by `benchmarks/fit_int8.py`.
INT8_COEFFICIENTS: dict[str, dict[str, dict[str, float]]] = {
    "ecp5": {
        "luts": {
            "core": 7.306,
            "writer": 0.7995,
            "weights": 0.7995,
            "products": 2.99,
            "tree": 0.519,
            "requantizer": 0.7474,
            "parts": 1.21,
            "counters": 3.351,
            "logic_roms": 1.261,
            "fifo": 1.54,
            "choices": 1.124,
        },
        "ffs": {
            "core": 3.113,
            "writer": 1.95,
            "weights": 1.95,
            "products": 2.671,
            "tree": 0.6199,
            "requantizer": 1.0,
            "parts": 1.07,
            "counters": 4.855,
            "logic_roms": 1.221,
            "fifo": 1.356,
            "choices": 0.6997,
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
            "writer": 5.281,
            "weights": 5.281,
            "products": 1.612,
            "requantizer": 0.859,
            "serial": 4.273,
            "counters": 9.165,
            "choices": 0.8465,
        },
        "ffs": {
            "writer": 5.46,
            "weights": 5.46,
            "products": 1.637,
            "requantizer": 3.852,
            "serial": 4.225,
            "counters": 0.6299,
            "choices": 0.6204,
        },
    },
}
