"""Coefficients of `pvq_hw.resources`, printed by `benchmarks/fit_resources.py`."""

__all__ = ["FF_COEFFICIENTS", "LUT_COEFFICIENTS"]

LUT_COEFFICIENTS: dict[str, dict[str, float]] = {
    "ecp5": {
        "core": 134.6,
        "lanes": 9.629,
        "addresses": 2.903,
        "leaves": 0.7039,
        "tree": 0.999,
        "accumulator": 0.3757,
        "counters": 1.066,
        "logic_roms": 1.032,
        "rom_ways": 0.7747,
    },
    "up5k": {
        "core": 150.0,
        "lanes": 20.0,
        "addresses": 4.0,
        "leaves": 1.5,
        "tree": 1.1,
        "accumulator": 4.0,
        "requantizer": 2.0,
        "counters": 2.0,
        "logic_roms": 1.0,
        "fifo": 5.0,
        "rom_ways": 0.8,
    },
    "hx8k": {
        "core": 150.0,
        "lanes": 20.0,
        "addresses": 4.0,
        "leaves": 1.5,
        "tree": 1.1,
        "accumulator": 4.0,
        "requantizer": 2.0,
        "serial": 2.0,
        "counters": 2.0,
        "logic_roms": 1.0,
        "fifo": 5.0,
        "rom_ways": 0.8,
    },
}

FF_COEFFICIENTS: dict[str, dict[str, float]] = {
    "ecp5": {
        "lanes": 33.41,
        "addresses": 0.8583,
        "accumulator": 7.402,
        "requantizer": 0.7612,
        "logic_roms": 0.9819,
        "fifo": 5.201,
        "rom_ways": 0.111,
    },
    "up5k": {"core": 100.0, "lanes": 45.0, "accumulator": 8.0, "requantizer": 3.0, "fifo": 8.0},
    "hx8k": {"core": 200.0, "lanes": 45.0, "accumulator": 8.0, "requantizer": 3.0, "fifo": 8.0},
}
