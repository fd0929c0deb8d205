"""Counts engines that several layers share beside the planner's estimates.

Run as ``python -m benchmarks.fit_shared --family up5k``: synthesizes and packs a few engines of
random layers, as `benchmarks.fit_resources` does cores of one layer, and prints LUTs and block RAMs
beside what `pvq_hw.plan.shared_resources` adds to the estimate of a core of pulses. Circuits that
the results file holds are not synthesized again; ``--check`` synthesizes nothing.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.fit_resources import counts_of
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.shared_core import SharedSpec, make_shared_core
from pvq_hw.network.layer import Dense, TensorSpec
from pvq_hw.plan.resources import core_resources
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.target.families import FAMILIES

U8, S8, S16 = IntFormat(8, False), IntFormat(8, True), IntFormat(16, True)

# Input, its format, rows and formats of the layers, N/K, lanes, and the shift of every layer.
ENGINES: tuple[tuple[int, IntFormat, tuple[tuple[int, IntFormat], ...], float, int], ...] = (
    (64, U8, ((32, U8), (10, S16)), 5, 5),
    (64, U8, ((32, U8), (10, S16)), 2, 8),
    (128, S8, ((64, U8), (32, S8), (64, U8), (128, S8)), 5, 4),
    (640, U8, (*((128, U8),) * 4, (8, U8), *((128, U8),) * 4, (640, S8)), 20, 8),
    (256, U8, ((64, U8), (32, U8), (10, S16)), 10, 12),
    (96, U8, ((24, U8), (12, S8)), 3, 2),
)


def make(number: int, engine: str) -> tuple[SharedSpec, CoreImage]:
    """An engine of the list with random weights."""
    n, form, rows, ratio, lanes = ENGINES[number]
    rng = np.random.default_rng(number)
    x, layers = TensorSpec("x", (n,), form, 1.0), []
    for index, (count, out) in enumerate(rows):
        k = max(1, round(x.size / ratio))
        layer = Dense(
            name=f"fc{index}",
            input=x.name,
            output=TensorSpec(f"t{index}", (count,), out, 1.0),
            y=nearest(rng.laplace(size=(count, x.size)), k),
            mult=rng.integers(1 << 13, 1 << 15, size=(count, 1)),
            bias=rng.integers(-(1 << 26), 1 << 26, size=count),
            shift=22 + index % 2,
            gain=np.ones((count, 1)),
        )
        layers.append((layer, x))
        x = layer.output
    return make_shared_core(layers, lanes, family=engine)


def main() -> None:
    """Prints counts and estimates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--family", choices=sorted(FAMILIES.kinds()), action="append")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/shared.json"))
    parser.add_argument("--check", action="store_true", help="synthesize nothing")
    args = parser.parse_args()
    for engine in args.family or sorted(FAMILIES.kinds()):
        for number in range(len(ENGINES)):
            spec, image = make(number, engine)
            found = counts_of(f"{engine} shared {number}", spec, image, engine, args.o, args.check)
            if found is None:
                continue
            own = core_resources(spec, engine)
            print(
                f"{engine} {number}: {len(spec.layers)} layers, P={spec.lanes}, "
                f"{len(spec.finishes)} finishes: LUT {own.luts} / {found['luts']} "
                f"({own.luts / found['luts'] - 1:+.1%}), FF {own.ffs} / {found['ffs']}, "
                f"BRAM {own.brams} / {found['brams']}, DSP {own.dsps} / {found['dsps']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
