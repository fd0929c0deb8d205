"""Coefficients of `pvq_hw.resources`, printed by `benchmarks/fit_resources.py`."""

__all__ = ["FF_COEFFICIENTS", "LUT_COEFFICIENTS"]

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
    },
    "up5k": {
        "core": 189.3,
        "addresses": 7.857,
        "leaves": 0.6974,
        "accumulator": 4.596,
        "counters": 2.4,
        "logic_roms": 0.542,
        "fifo": 41.52,
        "rom_ways": 1.152,
        "banks": 1.0,
    },
    "hx8k": {
        "core": 189.3,
        "addresses": 7.857,
        "leaves": 0.6974,
        "accumulator": 4.596,
        "counters": 2.4,
        "logic_roms": 0.542,
        "fifo": 41.52,
        "rom_ways": 1.152,
        "banks": 1.0,
        "serial": 4.0,
    },
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
    },
    "up5k": {
        "core": 124.2,
        "lanes": 18.04,
        "addresses": 2.798,
        "tree": 0.9795,
        "accumulator": 12.64,
        "fifo": 9.32,
        "leaves": 0.167,
        "counters": 0.2153,
    },
    "hx8k": {
        "core": 124.2,
        "lanes": 18.04,
        "addresses": 2.798,
        "tree": 0.9795,
        "accumulator": 12.64,
        "fifo": 9.32,
        "leaves": 0.167,
        "counters": 0.2153,
        "serial": 4.2,
    },
}
