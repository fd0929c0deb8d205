"""Coefficients of `pvq_hw.resources`, printed by `benchmarks/fit_resources.py`."""

__all__ = ["FF_COEFFICIENTS", "LUT_COEFFICIENTS"]

_LUT = {
    "core": 60.0,
    "lanes": 3.0,
    "addresses": 1.2,
    "leaves": 1.1,
    "tree": 1.1,
    "accumulator": 2.0,
    "requantizer": 1.5,
    "serial": 1.2,
    "parts": 1.0,
    "counters": 1.5,
    "logic_roms": 1.0,
    "fifo": 1.0,
    "rom_ways": 0.5,
}
_FF = {
    "core": 60.0,
    "lanes": 4.0,
    "addresses": 1.0,
    "leaves": 1.0,
    "tree": 1.0,
    "accumulator": 2.0,
    "requantizer": 2.0,
    "serial": 2.0,
    "parts": 1.0,
    "counters": 1.0,
}

LUT_COEFFICIENTS: dict[str, dict[str, float]] = {"ecp5": _LUT, "up5k": _LUT, "hx8k": _LUT}
FF_COEFFICIENTS: dict[str, dict[str, float]] = {"ecp5": _FF, "up5k": _FF, "hx8k": _FF}
