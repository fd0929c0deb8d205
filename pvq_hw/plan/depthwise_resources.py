"""What a depthwise core takes of a device: the quantities that its estimate is linear in."""

from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.plan.multiplier_cost import serial_bits
from pvq_hw.registry import Facts
from pvq_hw.target.families import FAMILIES

__all__ = ["DEPTHWISE_COEFFICIENTS", "depthwise_features", "depthwise_memories"]


def depthwise_memories(spec: DepthwiseSpec) -> dict[str, tuple[int, int, int]]:
    """Block RAM memories by role: (copies, width in bits, depth in words)."""
    memories = {"weights": (1, spec.word_bits, spec.words)}
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            if f"{spec.name}_{role}" in spec.memories:
                memories[role] = (1, *spec.memories[f"{spec.name}_{role}"])
    if spec.fifo_memory == "block":
        memories["fifo"] = (1, spec.out.bits, spec.fifo_depth)
    for role, (width, depth) in _window_memories(spec, "block").items():
        memories[role] = (1, width, depth)
    return memories


def _window_memories(spec: DepthwiseSpec, kind: str) -> dict[str, tuple[int, int]]:
    raster = spec.raster
    memories = {
        role: size
        for role, size in {"lines": raster.lines, "columns": raster.columns}.items()
        if size[0] and not raster.in_registers(size)
    }
    memories["queue"] = spec.x.bits, raster.queue_depth
    return {r: size for r, size in memories.items() if getattr(spec, f"{r}_memory") == kind}


def depthwise_features(spec: DepthwiseSpec) -> dict[str, float]:
    """Quantities that the LUT and flip-flop estimates are linear in."""
    mult_bits = 0 if not spec.multiplies.stored else spec.mult_bits
    raster = spec.raster
    rom_bits = (mult_bits + spec.bias_bits) * -(-spec.rows // 16)
    adder_bits, register_bits = _adders(spec)
    logic = [
        -(-width // 4) * -(-depth // 16)
        for width, depth in _window_memories(spec, "logic").values()
    ]
    shifted = [
        width * depth
        for width, depth in (raster.lines, raster.columns)
        if raster.in_registers((width, depth))
    ]
    queue = raster.queue_depth
    counts = (queue, queue, raster.lines[1], raster.pixels, spec.rows)
    return {
        "core": 1.0,
        "leaves": sum(spec.magnitudes) * spec.leaf_bits,
        "adders": adder_bits,
        "registers": register_bits + sum(shifted),
        "counters": sum(count.bit_length() for count in counts),
        "requantizer": spec.sum_bits + spec.out.bits,
        "serial": serial_bits(spec),
        "parts": (spec.multiplier_parts > 1) * spec.multiplier_parts * spec.mult_bits,
        "logic_roms": rom_bits if spec.params_memory == "logic" else 0.0,
        "logic_rams": sum(logic),
        "fifo": spec.out.bits * spec.fifo_depth / 16 if spec.fifo_memory == "logic" else 0.0,
    }


def _adders(spec: DepthwiseSpec) -> tuple[int, int]:
    """Bits of the adders of all planes and their sum, and of registers that only wait."""
    added = waiting = 0
    planes = []
    for plane in range(spec.planes):
        nodes, width = sum(bits > plane for bits in spec.magnitudes), spec.leaf_bits
        for _ in range(spec.tree_levels):
            if nodes > 1:
                width += 1
            added += nodes // 2 * width
            waiting += nodes % 2 * width
            nodes = -(-nodes // 2)
        planes.append(width)
    weight = 1
    while len(planes) > 1:
        sums = []
        for k in range(0, len(planes), 2):
            if k + 1 == len(planes):
                sums.append(planes[k])
                waiting += planes[k]
                continue
            width = max(planes[k] - weight, planes[k + 1]) + 1
            added += width
            waiting += weight
            sums.append(width + weight)
        planes, weight = sums, 2 * weight
    return added, waiting


# Printed by `benchmarks/fit_depthwise.py`.
DEPTHWISE_COEFFICIENTS: Facts[dict[str, dict[str, float]]] = FAMILIES.facts(
    "cost of depthwise cores",
    {
        "ecp5": {
            "luts": {
                "core": 50.2,
                "leaves": 1.162,
                "adders": 0.9336,
                "registers": 0.2413,
                "counters": 2.877,
                "requantizer": 0.8258,
                "serial": 3.416,
                "logic_roms": 0.6236,
                "logic_rams": 7.347,
                "fifo": 3.183,
            },
            "ffs": {
                "core": 18.78,
                "leaves": 2.163,
                "adders": 0.1224,
                "registers": 0.9315,
                "counters": 4.919,
                "serial": 2.56,
                "logic_roms": 0.2434,
                "logic_rams": 5.146,
                "fifo": 0.3903,
            },
        },
        "up5k": {
            "luts": {
                "core": 25.43,
                "leaves": 2.713,
                "registers": 0.1576,
                "counters": 8.133,
                "serial": 3.77,
                "logic_roms": 0.08488,
                "logic_rams": 145.4,
            },
            "ffs": {
                "leaves": 2.308,
                "adders": 0.01025,
                "registers": 1.007,
                "counters": 5.36,
                "serial": 2.6,
                "logic_rams": 59.73,
            },
        },
        "hx8k": {
            "luts": {
                "core": 45.0,
                "leaves": 2.697,
                "counters": 8.257,
                "serial": 3.975,
                "logic_roms": 0.1635,
                "logic_rams": 135.5,
            },
            "ffs": {
                "leaves": 2.283,
                "registers": 1.262,
                "counters": 6.394,
                "serial": 2.516,
                "logic_rams": 52.12,
            },
        },
    },
)
