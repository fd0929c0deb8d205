"""Fits the planner's estimates of unrolled cores, as `benchmarks.fit_resources` does.

Run as ``python -m benchmarks.fit_unrolled --family ecp5``; prints the coefficients for
`pvq_hw.plan.unrolled_resources`, those of cores with adders of whole sums and then those of
digit-serial ones. The counts go into the same file.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fit_resources import (
    S8,
    S16,
    U8,
    arguments,
    compared,
    counted,
    counts_of,
    fit_families,
    random_layer,
    show,
)
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.units import CoreUnit
from pvq_hw.engine.unrolled_core import UnrolledSpec, make_unrolled_core
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.window import Conv
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.lowering import build_graph
from pvq_hw.plan.resources import core_resources
from pvq_hw.plan.unit_resources import unit_resources
from pvq_hw.plan.unrolled_resources import digital_features, unrolled_features
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.requantization import MULT_BITS, few_digits

U4 = IntFormat(4, False)

# rows, n, pulses of a row (0: 8-bit weights), input, output
CORES: tuple[tuple[int, int, int, IntFormat, IntFormat], ...] = (
    (10, 32, 16, U8, S16),
    (32, 64, 32, U8, U8),
    (32, 32, 16, U8, U8),
    (64, 16, 8, S8, U8),
    (5, 32, 32, U8, S16),
    (16, 64, 8, U4, U4),
    (8, 16, 0, U8, S8),
    (10, 100, 10, U8, S16),
)

# Counted, but not fitted to.
HELD_OUT: tuple[tuple[int, int, int, IntFormat, IntFormat], ...] = (
    (24, 48, 24, U8, U8),
    (32, 16, 16, S8, S8),
)


# The same of digit-serial cores, with the bits that are added a cycle and results a transfer.
DIGITAL: tuple[tuple[int, int, int, IntFormat, IntFormat, int, int], ...] = (
    (32, 64, 13, U8, U8, 1, 1),
    (10, 32, 16, U8, S16, 1, 1),
    (64, 100, 10, U8, U8, 1, 2),
    (32, 32, 16, S8, U8, 2, 1),
    (16, 64, 8, U4, U4, 1, 1),
    (24, 48, 24, U8, U8, 4, 1),
    (8, 16, 0, U8, S8, 1, 1),
    (32, 64, 32, U8, U8, 1, 4),
    (10, 40, 12, U8, S16, 8, 1),
)
DIGITAL_HELD_OUT: tuple[tuple[int, int, int, IntFormat, IntFormat, int, int], ...] = (
    (48, 64, 20, U8, U8, 1, 1),
    (32, 16, 16, S8, S8, 2, 2),
)


# Convolutions, whose windows the same coefficients must do for: map, kernel, rows, pulses of a
# row, groups, stride.
CONVOLUTIONS: tuple[tuple[tuple[int, int, int], tuple[int, int], int, int, int, int], ...] = (
    ((32, 32, 3), (3, 3), 16, 9, 1, 1),
    ((28, 28, 1), (3, 3), 8, 5, 1, 1),
    ((14, 14, 8), (3, 3), 8, 4, 8, 1),
    ((16, 16, 8), (3, 3), 12, 24, 1, 2),
)


# Cores that take a frame and give all of its results every cycle, their gains wires of so many
# signed digits, or DSP blocks where that is 0. Their own coefficients are set by hand.
WHOLE: tuple[tuple[int, int, int, IntFormat, IntFormat, int], ...] = (
    (32, 64, 12, U8, U8, 2),
    (10, 32, 16, U8, S16, 2),
    (32, 64, 32, U8, U8, 2),
    (24, 40, 10, U8, U8, 4),
    (10, 32, 16, U8, S16, 0),
    (16, 16, 16, S8, U8, 3),
)


def whole(number: int, engine: str) -> tuple[UnrolledSpec, CoreImage]:
    """A core of the list with random weights; its place is the seed."""
    rows, n, k, x, out, digits = WHOLE[number]
    rng = np.random.default_rng(number)
    layer = random_layer(nearest(rng.laplace(size=(rows, n)), k), out, rng)
    options: dict[str, Any] = {"out_width": rows, "pipelined": True, "params_memory": "logic"}
    if digits:
        mult = few_digits(layer.mult, digits, (1 << MULT_BITS) - 1)
        layer, options = replace(layer, mult=mult), options | {"multiplier": "wires"}
    spec, image = make_unrolled_core(layer, TensorSpec("x", (n,), x, 1.0), family=engine, **options)
    return replace(spec, in_width=n), image


def wholes(engine: str, path: Path, check: bool) -> None:
    """Prints what each such core takes beside its estimate."""
    for number in range(len(WHOLE)):
        spec, image = whole(number, engine)
        found = counts_of(f"{engine} unrolled whole {number}", spec, image, engine, path, check)
        if found is not None:
            said = core_resources(spec, engine)
            shares = [getattr(said, key) / found[key] - 1 for key in ("luts", "ffs")]
            print(
                f"{engine} whole {number}: LUT {said.luts} / {found['luts']} ({shares[0]:+.1%}), "
                f"FF {said.ffs} / {found['ffs']} ({shares[1]:+.1%})"
            )


def cores_of(engine: str) -> dict[str, tuple[Any, ...]]:
    """The cores to measure of a family, by key."""
    lists = {"": CORES, "held ": HELD_OUT}
    return {
        f"{engine} unrolled {kind}{i}": core
        for kind, c in lists.items()
        for i, core in enumerate(c)
    }


def make(key: str, engine: str) -> tuple[UnrolledSpec, CoreImage]:
    """A core of the list with random weights; its place is the seed."""
    return _core(int(key.rpartition(" ")[2]), engine, *cores_of(engine)[key])


def digital_of(engine: str) -> dict[str, tuple[Any, ...]]:
    """The digit-serial cores to measure of a family, by key."""
    lists = {"": DIGITAL, "held ": DIGITAL_HELD_OUT}
    return {
        f"{engine} digital {kind}{i}": core for kind, c in lists.items() for i, core in enumerate(c)
    }


def make_digital(key: str, engine: str) -> tuple[UnrolledSpec, CoreImage]:
    """A core of the list with random weights; its place is the seed."""
    *core, digit, width = digital_of(engine)[key]
    seed = int(key.rpartition(" ")[2])
    return _core(seed, engine, *core, digit=digit, out_width=width)


def _core(
    seed: int, engine: str, rows: int, n: int, k: int, x: IntFormat, out: IntFormat, **options: Any
) -> tuple[UnrolledSpec, CoreImage]:
    rng = np.random.default_rng(seed)
    plain = rng.integers(-127, 128, size=(rows, n))
    y = nearest(rng.laplace(size=(rows, n)), k) if k else plain
    layer = random_layer(y, out, rng, "pvq" if k else "int8")
    return make_unrolled_core(layer, TensorSpec("x", (n,), x, 1.0), family=engine, **options)


def convolution(number: int, engine: str) -> tuple[CoreUnit, CoreImage]:
    """A convolution of the list with random weights; its place is the seed."""
    shape, kernel, rows, k, groups, stride = CONVOLUTIONS[number]
    geometry = Geometry(shape, kernel, (stride, stride), ((1, 1), (1, 1)))
    rng = np.random.default_rng(number)
    n = kernel[0] * kernel[1] * shape[2]
    conv = Conv(
        name="core",
        input="x",
        output=TensorSpec("o", (*geometry.output_size, rows), U8, 1.0),
        y=nearest(rng.laplace(size=(rows, n // groups)), k),
        mult=rng.integers(1 << 13, 1 << 15, size=(rows, 1)),
        bias=rng.integers(-(1 << 26), 1 << 26, size=rows),
        shift=22,
        gain=np.ones((rows, 1)),
        geometry=geometry,
        groups=groups,
    )
    network = Network("core", TensorSpec("x", shape, U8, 1.0), (conv,), shape, (0, 1, 2))
    (layer,) = core_layers(network)
    spec, image = make_unrolled_core(layer.dense, layer.x, family=engine)
    unit = build_graph(network, [spec], engine).units[0]
    assert isinstance(unit, CoreUnit)
    return unit, image


def convolutions(engine: str, path: Path, check: bool) -> None:
    """Prints what each convolution takes beside its estimate."""
    for number in range(len(CONVOLUTIONS)):
        unit, image = convolution(number, engine)
        key = f"{engine} unrolled window {number}"
        found = counts_of(key, unit.core, image, engine, path, check, unit.window)
        if found is not None:
            luts = (core_resources(unit.core, engine) + unit_resources(unit, engine)).luts
            share = luts / found["luts"] - 1
            print(f"{engine} window {number}: LUT {luts} / {found['luts']} ({share:+.1%})")


def main() -> None:
    """Prints counts, estimates and coefficients."""
    args = arguments(__doc__).parse_args()
    found = fit_families(
        args, partial(counted, cores_of, make), lambda spec, _: unrolled_features(spec)
    )
    for engine, cores in found.items():
        show(compared(engine, cores))
        convolutions(engine, args.o, args.check)
        wholes(engine, args.o, args.check)
    found = fit_families(
        args,
        partial(counted, digital_of, make_digital),
        lambda spec, _: digital_features(spec),
    )
    for engine, cores in found.items():
        show(compared(engine, cores))


if __name__ == "__main__":
    main()
