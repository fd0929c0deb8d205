"""Coefficients of `pvq_hw.plan.resources`, printed by `benchmarks/fit_resources.py`."""

from pvq_hw.registry import Facts
from pvq_hw.target.families import FAMILIES

__all__ = ["FF_COEFFICIENTS", "LUT_COEFFICIENTS"]

_UP5K_LUTS = {
    "addresses": 8.235,
    "shifts": 2.668,
    "accumulator": 6.15,
    "serial": 3.573,
    "counters": 5.199,
    "logic_roms": 1.746,
    "fifo": 33.14,
    "rom_ways": 1.15,
    "banks": 0.8988,
}

_UP5K_FFS = {
    "lanes": 6.596,
    "addresses": 4.037,
    "shifts": 1.92,
    "tree": 1.23,
    "accumulator": 5.705,
    "requantizer": 2.307,
    "serial": 3.061,
    "counters": 2.525,
    "fifo": 16.47,
    "rom_ways": 0.1152,
    "banks": 0.4623,
}

_HX8K_LUTS = {
    "core": 72.59,
    "addresses": 7.27,
    "leaves": 1.137,
    "shifts": 3.255,
    "requantizer": 0.06508,
    "serial": 3.709,
    "counters": 5.555,
    "logic_roms": 1.305,
    "fifo": 33.44,
    "rom_ways": 0.5017,
    "banks": 0.7454,
}

_HX8K_FFS = {
    "core": 198.3,
    "lanes": 14.75,
    "addresses": 2.828,
    "leaves": 0.9833,
    "shifts": 1.711,
    "tree": 0.5726,
    "accumulator": 0.1133,
    "requantizer": 1.342,
    "serial": 2.378,
    "counters": 1.689,
    "fifo": 15.74,
    "banks": 0.4775,
}

LUT_COEFFICIENTS: Facts[dict[str, float]] = FAMILIES.facts(
    "LUTs of cores of pulses",
    {
        "ecp5": {
            "core": 38.45,
            "addresses": 1.875,
            "shifts": 0.8024,
            "tree": 1.582,
            "accumulator": 5.013,
            "requantizer": 0.685,
            "serial": 1.951,
            "counters": 1.178,
            "logic_roms": 0.9237,
            "fifo": 0.4532,
            "rom_ways": 1.034,
            "banks": 0.9975,
        },
        "up5k": _UP5K_LUTS,
        "hx8k": _HX8K_LUTS,
    },
)

FF_COEFFICIENTS: Facts[dict[str, float]] = FAMILIES.facts(
    "flip-flops of cores of pulses",
    {
        "ecp5": {
            "core": 158.3,
            "addresses": 3.013,
            "shifts": 2.13,
            "tree": 2.183,
            "accumulator": 2.513,
            "counters": 0.4821,
            "logic_roms": 0.003185,
            "fifo": 5.248,
            "rom_ways": 1.383,
            "banks": 0.6134,
            "serial": 2.1,
        },
        "up5k": _UP5K_FFS,
        "hx8k": _HX8K_FFS,
    },
)
