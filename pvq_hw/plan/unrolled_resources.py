"""What an unrolled core takes of a device: the quantities that its estimate is linear in."""

from pvq_hw.engine.unrolled_core import UnrolledSpec
from pvq_hw.plan.multiplier_cost import serial_bits
from pvq_hw.registry import Facts
from pvq_hw.target.families import FAMILIES

__all__ = [
    "DIGITAL_COEFFICIENTS",
    "UNROLLED_COEFFICIENTS",
    "digital_features",
    "unrolled_features",
    "unrolled_memories",
]


def unrolled_memories(spec: UnrolledSpec) -> dict[str, tuple[int, int, int]]:
    """Block RAM memories by role: (copies, width in bits, depth in words)."""
    memories = {}
    if spec.params_memory == "block":
        for role in ("mult", "bias"):
            if spec.memory_name(role) in spec.memories:
                memories[role] = (1, *spec.memories[spec.memory_name(role)])
    if spec.fifo_memory == "block":
        memories["fifo"] = (1, spec.out_width * spec.out.bits, spec.fifo_depth)
    return memories


def unrolled_features(spec: UnrolledSpec) -> dict[str, float]:
    """Quantities that the LUT and flip-flop estimates are linear in."""
    mult_bits = 0 if not spec.multiplies.stored else spec.mult_bits
    wide = spec.out_width
    fifo = spec.out.bits * spec.fifo_depth / 16 if spec.fifo_memory == "logic" else 0.0
    rows = spec.rows // wide
    rom_bits = mult_bits * -(-rows * spec.groups // 16) + spec.bias_bits * -(-rows // 16)
    direct, more = spec.direct, (wide - 1) * (spec.sum_bits + spec.out.bits)
    return {
        "core": 1.0,
        "adders": spec.adders,
        "adder_bits": spec.adder_bits,
        "register_bits": spec.register_bits,
        "delays": spec.delay_bits if spec.pipelined else 0.0,
        "inputs": 0 if spec.straight else spec.n * spec.x.bits,
        "sums": 0 if direct else spec.sums * spec.acc_bits,
        "requantizer": wide * (spec.sum_bits + spec.out.bits),
        "further": 0 if direct else more,
        "direct": more if direct else 0,
        "serial": wide * serial_bits(spec),
        "parts": wide * (spec.multiplier_parts > 1) * spec.multiplier_parts * spec.mult_bits,
        "logic_roms": wide * rom_bits if spec.params_memory == "logic" else 0.0,
        "fifo": fifo,
        "further_fifo": 0 if direct else (wide - 1) * fifo,
    }


def digital_features(spec: UnrolledSpec) -> dict[str, float]:
    """The same of digit-serial cores."""
    shared = unrolled_features(spec)
    kept = ("core", "inputs", "sums", "requantizer", "serial", "parts", "logic_roms", "fifo")
    few = 2 * spec.adders * spec.digit if spec.digit <= 4 else 0
    return {key: shared[key] for key in kept} | {
        "full_adders": few,
        "chains": 0 if few else spec.adders * (spec.digit + 2),
        "digits": spec.adders * (spec.digit + 1) + spec.waits * spec.digit + spec.shifted_bits,
        "signs": spec.n * spec.x.signed,
    }


# Printed by `benchmarks/fit_unrolled.py`; those of delays and of further results a transfer
# ("further", and "direct" where all leave at once) are set by hand, see docs/decisions/streams.md.
UNROLLED_COEFFICIENTS: Facts[dict[str, dict[str, float]]] = FAMILIES.facts(
    "cost of unrolled cores",
    {
        "ecp5": {
            "luts": {
                "adders": 3.328,
                "adder_bits": 0.7926,
                "register_bits": 0.08201,
                "inputs": 0.04874,
                "sums": 0.7102,
                "logic_roms": 0.3026,
                "fifo": 5.123,
                "further": 1.1,
                "direct": 0.93,
                "further_fifo": 1.75,
                "serial": 2,
            },
            "ffs": {
                "core": 89.11,
                "adders": 0.6135,
                "adder_bits": 0.5338,
                "register_bits": 0.4776,
                "delays": 0.6,
                "inputs": 1.476,
                "sums": 0.865,
                "requantizer": 1.591,
                "logic_roms": 0.9412,
                "fifo": 3.689,
                "further": -0.9,
                "direct": -2.33,
                "further_fifo": 0.55,
                "serial": 2.1,
            },
        },
        "up5k": {
            "luts": {
                "adder_bits": 0.6546,
                "register_bits": 0.7075,
                "delays": 1.0,
                "inputs": 2.429,
                "sums": 1.042,
                "requantizer": 2.167,
                "logic_roms": 2.3,
                "serial": 4.0,
            },
            "ffs": {
                "adder_bits": 0.582,
                "register_bits": 0.462,
                "delays": 1.0,
                "inputs": 1.531,
                "sums": 1.007,
                "requantizer": 5.08,
                "serial": 2.3,
            },
        },
        "hx8k": {
            "luts": {
                "adders": 2.41,
                "adder_bits": 0.897,
                "register_bits": 0.3885,
                "delays": 1.0,
                "inputs": 1.628,
                "sums": 0.3433,
                "requantizer": 5.611,
                "serial": 4.062,
            },
            "ffs": {
                "core": 174.2,
                "adders": 0.165,
                "adder_bits": 0.456,
                "register_bits": 0.5827,
                "delays": 1.0,
                "inputs": 1.458,
                "sums": 0.9805,
                "requantizer": 3.441,
                "serial": 2.33,
            },
        },
    },
)

# Printed by `benchmarks/fit_unrolled.py`, but what no core that was counted has: serial multipliers
# of the ECP5 and the UP5K.
DIGITAL_COEFFICIENTS: Facts[dict[str, dict[str, float]]] = FAMILIES.facts(
    "cost of digit-serial cores",
    {
        "ecp5": {
            "luts": {
                "inputs": 1.277,
                "sums": 0.4435,
                "requantizer": 1.778,
                "parts": 2.193,
                "fifo": 2.188,
                "full_adders": 1.21,
                "chains": 1.121,
                "serial": 2,
            },
            "ffs": {
                "inputs": 1.982,
                "sums": 2.238,
                "requantizer": 2.691,
                "parts": 5.689,
                "logic_roms": 0.1927,
                "fifo": 0.9314,
                "full_adders": 0.2155,
                "chains": 0.2621,
                "digits": 0.6852,
                "serial": 2.0,
            },
        },
        "up5k": {
            "luts": {
                "core": 14.03,
                "inputs": 2.396,
                "sums": 2.09,
                "requantizer": 3.164,
                "parts": 13.56,
                "full_adders": 1.131,
                "chains": 1.572,
                "signs": 3.86,
                "serial": 2.814,
            },
            "ffs": {
                "inputs": 2.164,
                "sums": 2.056,
                "requantizer": 3.759,
                "parts": 7.523,
                "full_adders": 0.2733,
                "chains": 0.314,
                "digits": 0.5909,
                "signs": 0.918,
                "serial": 2.233,
            },
        },
        "hx8k": {
            "luts": {
                "core": 54.49,
                "inputs": 0.9208,
                "sums": 3.526,
                "requantizer": 7.32,
                "serial": 2.814,
                "full_adders": 0.5375,
                "chains": 0.7672,
                "digits": 0.8596,
            },
            "ffs": {
                "core": 57.54,
                "inputs": 1.496,
                "sums": 2.603,
                "requantizer": 5.74,
                "serial": 2.233,
                "full_adders": 0.0177,
                "digits": 0.9569,
            },
        },
    },
)
