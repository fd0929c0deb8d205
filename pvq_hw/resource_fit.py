"""Coefficients of `pvq_hw.resources`, printed by `benchmarks/fit_resources.py`."""

__all__ = ["FF_COEFFICIENTS", "LUT_COEFFICIENTS"]

LUT_COEFFICIENTS: dict[str, dict[str, float]] = {
    "ecp5": {
        "core": 119.4,
        "lanes": 4.918,
        "addresses": 2.341,
        "leaves": 0.715,
        "tree": 0.9362,
        "counters": 1.219,
        "logic_roms": 0.9585,
        "fifo": 3.756,
        "rom_ways": 1.007,
        "banks": 1.0,
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
        "lanes": 37.03,
        "addresses": 1.291,
        "accumulator": 5.698,
        "requantizer": 3.744,
        "logic_roms": 0.9589,
        "fifo": 1.09,
        "rom_ways": 0.02696,
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
