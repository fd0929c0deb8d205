"""Fits the planner's estimates of cores with 8-bit weights, as `benchmarks.fit_resources` does.

Run as ``python -m benchmarks.fit_int8 --family ecp5``; prints the coefficients for
`pvq_hw.plan.int8_resources`. The counts go into the same file.
"""

from functools import partial
from typing import Any

import numpy as np

from benchmarks.fit_resources import (
    S8,
    S16,
    U8,
    arguments,
    compared,
    counted,
    fit_families,
    random_layer,
    show,
)
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.network.layer import TensorSpec
from pvq_hw.plan.int8_resources import int8_features
from pvq_hw.plan.resources import core_resources

# rows, n, lanes, input, output, options.
CORES: tuple[tuple[int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (10, 32, 1, U8, S16, {}),
    (32, 64, 4, U8, U8, {}),
    (64, 120, 8, S8, U8, {}),
    (32, 256, 16, U8, U8, {}),
    (10, 64, 3, U8, S16, {"products": "logic"}),
    (40, 80, 6, U8, U8, {"products": "logic"}),
    (64, 784, 5, U8, U8, {}),
    (8, 9, 3, U8, U8, {}),
    (16, 150, 6, U8, U8, {}),
    (24, 72, 4, U8, U8, {"products": "logic"}),
    (12, 40, 2, U8, U8, {"fifo_memory": "logic"}),
    (32, 64, 4, U8, U8, {"multiplier": "serial"}),
    (64, 32, 8, S8, U8, {"multiplier": "serial", "multiplier_interval": 1}),
)


# Counted, but not fitted to.
HELD_OUT: tuple[tuple[int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (8, 9, 2, U8, U8, {}),
    (24, 200, 6, U8, U8, {}),
    (16, 72, 5, U8, U8, {"products": "logic"}),
)


def cores_of(engine: str) -> dict[str, tuple[Any, ...]]:
    """The cores to measure of a family, by key."""
    lists = {"": CORES, "held ": HELD_OUT}
    return {
        f"{engine} int8 {kind}{i}": core for kind, c in lists.items() for i, core in enumerate(c)
    }


def make(key: str, engine: str) -> tuple[Int8Spec, CoreImage]:
    """A core of the list with random weights; its place is the seed."""
    rows, n, lanes, x, out, options = cores_of(engine)[key]
    rng = np.random.default_rng(int(key.rpartition(" ")[2]))
    layer = random_layer(rng.integers(-127, 128, size=(rows, n)), out, rng, "int8")
    return make_int8_core(layer, TensorSpec("x", (n,), x, 1.0), lanes, family=engine, **options)


def roomy(engine: str) -> list[str]:
    """The keys of those cores that the device has room for."""
    most = 30 if engine != "ecp5" else 1 << 20
    keys = cores_of(engine)
    return [key for key in keys if core_resources(make(key, engine)[0], engine).brams <= most]


measured = partial(counted, roomy, make)
"""The cores of a family with their counts, of the results in a file."""


def main() -> None:
    """Prints counts, estimates and coefficients."""
    args = arguments(__doc__).parse_args()
    found = fit_families(args, measured, int8_features)
    for engine, cores in found.items():
        show(compared(engine, cores))


if __name__ == "__main__":
    main()
