"""Coefficients of `pvq_hw.resources`, printed by `benchmarks/fit_resources.py`."""

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
    "up5k": _UP5K_LUTS,
    "hx8k": _UP5K_LUTS,
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
    "up5k": _UP5K_FFS,
    "hx8k": _UP5K_FFS,
}
