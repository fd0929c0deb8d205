"""Fits the planner's estimates of cores with 8-bit weights, as `benchmarks.fit_resources` does.

Run as ``python -m benchmarks.fit_int8 --family ecp5``; prints the coefficients for
`pvq_hw.plan.int8_resources`. The counts go into the same file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fit_resources import (
    S8,
    S16,
    U8,
    Counted,
    arguments,
    compared,
    counts_of,
    fit_families,
    show,
)
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.network.layer import Dense, TensorSpec
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
    layer = Dense(
        name="core",
        input="x",
        output=TensorSpec("o", (rows,), out, 1.0),
        y=rng.integers(-127, 128, size=(rows, n)),
        mult=rng.integers(1 << 13, 1 << 15, size=(rows, 1)),
        bias=rng.integers(-(1 << 26), 1 << 26, size=rows),
        shift=22,
        gain=np.ones((rows, 1)),
        encoding="int8",
    )
    return make_int8_core(layer, TensorSpec("x", (n,), x, 1.0), lanes, family=engine, **options)


def measured(engine: str, path: Path, check: bool) -> Iterator[Counted]:
    """Every core of the lists that the device has room for, with its counts."""
    for key in cores_of(engine):
        spec, image = make(key, engine)
        if engine != "ecp5" and core_resources(spec, engine).brams > 30:
            continue
        found = counts_of(key, spec, image, engine, path, check)
        if found is not None:
            yield spec, found, "held" in key


def main() -> None:
    """Prints counts, estimates and coefficients."""
    args = arguments(__doc__).parse_args()
    found = fit_families(args, measured, int8_features)
    for engine, cores in found.items():
        show(compared(engine, cores))


if __name__ == "__main__":
    main()
