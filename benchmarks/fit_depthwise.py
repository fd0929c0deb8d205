"""Fits the planner's estimates of depthwise cores, as `benchmarks.fit_resources` does.

Run as ``python -m benchmarks.fit_depthwise --family ecp5``; prints the coefficients for
`pvq_hw.plan.depthwise_resources`. The counts go into the same file.
"""

from functools import partial
from typing import Any

import numpy as np

from benchmarks.fit_resources import (
    S8,
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
from pvq_hw.engine.depthwise_core import DepthwiseSpec, make_depthwise_core
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import TensorSpec
from pvq_hw.plan.depthwise_resources import depthwise_features
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.target.families import family

U4 = IntFormat(4, False)
_SAME, _LINE = ((1, 1), (1, 1)), ((0, 0), (1, 1))
_LOGIC = {"columns_memory": "logic"}

# Map, kernel, stride, padding, rows of a channel, pulses of a row (0: 8-bit weights), input,
# options.
Shape = tuple[int, int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]
Core = tuple[Shape, tuple[int, int], int, Pads, int, int, IntFormat, dict[str, Any]]
CORES: tuple[Core, ...] = (
    ((25, 5, 64), (3, 3), 1, _SAME, 1, 5, U8, {}),
    ((25, 5, 64), (3, 3), 1, _SAME, 1, 18, U8, {}),
    ((48, 48, 8), (3, 3), 1, _SAME, 1, 9, U8, {}),
    ((24, 24, 32), (3, 3), 2, _SAME, 1, 3, U8, {}),
    ((3, 3, 256), (3, 3), 1, _SAME, 1, 4, U8, {}),
    ((1, 100, 16), (1, 5), 1, ((0, 0), (2, 2)), 1, 10, S8, {}),
    ((12, 12, 16), (3, 3), 1, _SAME, 1, 0, U8, {}),
    ((1, 60, 12), (1, 3), 1, _LINE, 2, 2, U4, {}),
    ((12, 12, 24), (5, 5), 1, ((2, 2), (2, 2)), 1, 12, U8, {}),
    ((25, 5, 64), (3, 3), 1, _SAME, 1, 5, U8, {"multiplier": "serial"}),
    ((12, 12, 16), (3, 3), 1, _SAME, 1, 18, U8, {"multiplier": "serial"}),
)

# Counted, but not fitted to.
HELD_OUT: tuple[Core, ...] = (
    ((16, 16, 32), (3, 3), 1, _SAME, 1, 7, S8, {}),
    ((6, 6, 128), (3, 3), 1, _SAME, 1, 5, U8, {}),
    ((1, 40, 24), (1, 3), 1, _LINE, 1, 5, U8, {}),
)

# Where there is distributed RAM.
LUT_RAM_CORES: tuple[Core, ...] = (
    ((25, 5, 64), (3, 3), 1, _SAME, 1, 5, U8, _LOGIC),
    ((48, 48, 8), (3, 3), 2, _SAME, 1, 24, U8, _LOGIC),
)

HELD_OUT_LUT_RAM: tuple[Core, ...] = (((12, 12, 32), (3, 3), 1, _SAME, 1, 6, U8, _LOGIC),)


def cores_of(engine: str) -> dict[str, Core]:
    """The cores to measure of a family, by key."""
    lists = {"": CORES, "held ": HELD_OUT}
    if family(engine).lutram:
        lists |= {"ram ": LUT_RAM_CORES, "held ram ": HELD_OUT_LUT_RAM}
    return {
        f"{engine} depthwise {kind}{i}": core
        for kind, c in lists.items()
        for i, core in enumerate(c)
    }


def make(key: str, engine: str) -> tuple[DepthwiseSpec, CoreImage]:
    """A core of the list with random weights; its place is the seed."""
    shape, kernel, stride, pads, each, k, x, options = cores_of(engine)[key]
    rng = np.random.default_rng(int(key.rpartition(" ")[2]))
    geometry = Geometry(shape, kernel, tuple(stride if n > 1 else 1 for n in shape[:2]), pads)
    channels, taps = shape[2], kernel[0] * kernel[1]
    rows = channels * each
    plain = rng.integers(-127, 128, size=(rows, taps))
    y = np.zeros((rows, taps, channels), dtype=np.int64)
    own = nearest(rng.laplace(size=(rows, taps)), k) if k else plain
    y[np.arange(rows), :, np.arange(rows) // each] = own
    layer = random_layer(y.reshape(rows, -1), U8, rng, "pvq" if k else "int8")
    x_spec = TensorSpec("x", (taps * channels,), x, 1.0)
    return make_depthwise_core(layer, x_spec, geometry, family=engine, **options)


def main() -> None:
    """Prints counts, estimates and coefficients."""
    args = arguments(__doc__).parse_args()
    measure = partial(counted, cores_of, make)
    found = fit_families(args, measure, lambda spec, _: depthwise_features(spec))
    for engine, cores in found.items():
        show(compared(engine, cores))


if __name__ == "__main__":
    main()
