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
        "core": 216.1,
        "addresses": 8.049,
        "leaves": 2.145,
        "accumulator": 5.67,
        "counters": 2.973,
        "logic_roms": 2.202,
        "fifo": 16.0,
        "rom_ways": 0.7788,
        "banks": 1.0,
    },
    "hx8k": {
        "core": 216.1,
        "addresses": 8.049,
        "leaves": 2.145,
        "accumulator": 5.67,
        "counters": 2.973,
        "logic_roms": 2.202,
        "fifo": 16.0,
        "rom_ways": 0.7788,
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
        "core": 126.6,
        "lanes": 17.78,
        "addresses": 3.151,
        "tree": 0.8231,
        "accumulator": 14.88,
        "parts": 0.2742,
        "logic_roms": 0.2904,
        "fifo": 16.0,
    },
    "hx8k": {
        "core": 126.6,
        "lanes": 17.78,
        "addresses": 3.151,
        "tree": 0.8231,
        "accumulator": 14.88,
        "parts": 0.2742,
        "logic_roms": 0.2904,
        "fifo": 16.0,
        "serial": 4.2,
    },
}
