"""Coefficients of `pvq_hw.resources`, printed by `benchmarks/fit_resources.py`."""

__all__ = ["FF_COEFFICIENTS", "LUT_COEFFICIENTS"]

# Counted on UP5K; HX8K has the same logic cells.
_ICE40_LUTS = {
    "core": 113.1,
    "addresses": 8.59,
    "counters": 4.783,
    "logic_roms": 1.576,
    "fifo": 33.19,
    "rom_ways": 1.143,
    "banks": 1.0,
    "shifts": 1.237,
    "serial": 4.0,
}

_ICE40_FFS = {
    "lanes": 9.381,
    "addresses": 4.015,
    "tree": 0.8993,
    "accumulator": 9.682,
    "fifo": 16.83,
    "shifts": 1.974,
    "requantizer": 1.363,
    "counters": 2.112,
    "rom_ways": 0.1261,
    "serial": 4.2,
}

LUT_COEFFICIENTS: dict[str, dict[str, float]] = {
    "ecp5": {
        "core": 68.14,
        "addresses": 1.726,
        "leaves": 2.761,
        "shifts": 1.074,
        "accumulator": 1.555,
        "requantizer": 1.099,
        "counters": 1.583,
        "logic_roms": 0.9749,
        "rom_ways": 1.104,
        "banks": 0.994,
        "serial": 2.0,
    },
    "up5k": _ICE40_LUTS,
    "hx8k": _ICE40_LUTS,
}

FF_COEFFICIENTS: dict[str, dict[str, float]] = {
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
    "up5k": _ICE40_FFS,
    "hx8k": _ICE40_FFS,
}
