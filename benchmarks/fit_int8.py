"""Fits the planner's estimates of cores with 8-bit weights, as `benchmarks.fit_resources` does.

Run as ``python -m benchmarks.fit_int8 --family ecp5``; prints the coefficients for
`pvq_hw.int8_resources`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fit_resources import S8, S16, U8, fit, synthesize
from pvq_hw.core_base import CoreImage
from pvq_hw.families import FAMILIES, family
from pvq_hw.int8_core import Int8Spec, make_int8_core
from pvq_hw.int8_resources import int8_features
from pvq_hw.layers import Dense, TensorSpec
from pvq_hw.numeric import IntFormat
from pvq_hw.resources import core_resources

# rows, n, lanes, input, output, options.
CORES: tuple[tuple[int, int, int, IntFormat, IntFormat, dict[str, Any]], ...] = (
    (10, 32, 1, U8, S16, {}),
    (32, 64, 4, U8, U8, {}),
    (64, 120, 8, S8, U8, {}),
    (32, 256, 16, U8, U8, {}),
    (10, 64, 3, U8, S16, {"products": "logic"}),
    (40, 80, 6, U8, U8, {"products": "logic"}),
    (64, 784, 5, U8, U8, {}),
)


def make(index: int, engine: str) -> tuple[Int8Spec, CoreImage]:
    """A core of the list with random weights; the index is the seed."""
    rows, n, lanes, x, out, options = CORES[index]
    rng = np.random.default_rng(index)
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


def measured(engine: str, path: Path) -> Iterator[tuple[Int8Spec, dict[str, int]]]:
    """Every core of the list that the device has room for, with its counts."""
    results = json.loads(path.read_text()) if path.exists() else {}
    for index in range(len(CORES)):
        spec, image = make(index, engine)
        if engine != "ecp5" and core_resources(spec, engine).brams > 30:
            continue
        key = f"{engine} {index} {json.dumps(spec.to_json(), sort_keys=True)}"
        if key not in results:
            results[key] = synthesize(spec, image, engine)
            path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        yield spec, results[key]


def main() -> None:
    """Prints counts, estimates and coefficients."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append")
    parser.add_argument("-o", type=Path, default=Path("benchmarks/cache/int8_resources.json"))
    args = parser.parse_args()
    args.o.parent.mkdir(parents=True, exist_ok=True)
    for engine in args.family or sorted(FAMILIES):
        cores = list(measured(engine, args.o))
        values = [int8_features(spec, family(engine).blocks) for spec, _ in cores]
        for kind in ("luts", "ffs"):
            print(f'"{engine}" {kind}: {fit(values, [count[kind] for _, count in cores])}')
        for spec, count in cores:
            used = core_resources(spec, engine)
            print(
                f"{engine} P={spec.lanes} N={spec.n} M={spec.rows} {spec.products}: "
                f"LUT {count['luts']} ({used.luts}, {used.luts / count['luts'] - 1:+.1%}), "
                f"FF {count['ffs']} ({used.ffs}), BRAM {count['brams']} ({used.brams}), "
                f"DSP {count['dsps']} ({used.dsps})"
            )


if __name__ == "__main__":
    main()
