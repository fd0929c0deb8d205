"""Time and memory of the nearest-codeword search: ``python -m benchmarks.quantize``.

Random weights are quantized row by row at one N/K, over numbers of rows and of columns, in
float64 and, once, in float32. Time is the best of a few runs; memory is the peak that NumPy and
Python allocate during a run of its own, the result included, the weights not. The JSON holds all
figures, versions and the seed.
"""

import argparse
import json
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pvq_hw
from pvq_hw.pyramid.nearest import cosine, nearest, pulses_for

__all__ = ["main", "measure"]

_SIZES = (256, 512, 1024, 2048, 4096)
_QUICK = (128, 256, 512)
_SQUARE = 1024  # the size whose time and memory have limits: 1 s, 10 times the weights


def measure(w: npt.NDArray[Any], ratio: float, runs: int) -> dict[str, Any]:
    """Quantizes w at N/K = ratio: seconds (best of ``runs``), peak bytes, mean cosine."""
    k = pulses_for(w.shape[1], ratio)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        y = nearest(w, k)
        seconds.append(time.perf_counter() - start)
    if not (np.abs(y).sum(axis=1) == k).all():
        raise AssertionError("sum |y| must be K in every row")
    tracemalloc.start()
    nearest(w, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "rows": w.shape[0],
        "columns": w.shape[1],
        "dtype": str(w.dtype),
        "k": k,
        "seconds": min(seconds),
        "nanoseconds_per_weight": 1e9 * min(seconds) / w.size,
        "peak_bytes": peak,
        "peak_over_weights": peak / w.nbytes,
        "mean_cosine": float(cosine(w, y).mean()),
    }


def _shapes(sizes: tuple[int, ...]) -> Iterator[tuple[int, int, str]]:
    middle = _SQUARE if _SQUARE in sizes else sizes[-1]
    for rows in sizes:
        yield rows, middle, "float64"
    for columns in sizes:
        if columns != middle:
            yield middle, columns, "float64"
    yield middle, middle, "float32"
    if sizes[-1] != middle:
        yield sizes[-1], sizes[-1], "float64"


def _growth(results: list[dict[str, Any]], along: str, fixed: str) -> float:
    """Exponent e of ``seconds ~ size**e`` along one side, least squares over the results."""
    middle = results[0]["columns"]
    lines = [r for r in results if r[fixed] == middle and r["dtype"] == "float64"]
    size = np.log([r[along] for r in lines])
    return float(np.polyfit(size, np.log([r["seconds"] for r in lines]), 1)[0])


def run(sizes: tuple[int, ...], ratio: float, seed: int, runs: int) -> dict[str, Any]:
    """All measurements; prints a line for each."""
    results = []
    print(f"nearest codeword, N/K = {ratio:g}, normal weights, best of {runs}", flush=True)
    print("  rows columns dtype         s  ns/weight  peak MB  peak/weights  cosine")
    for rows, columns, dtype in _shapes(sizes):
        rng = np.random.default_rng(seed)
        result = measure(rng.standard_normal((rows, columns)).astype(dtype), ratio, runs)
        results.append(result)
        print(
            f"{rows:6} {columns:7} {dtype} {result['seconds']:7.3f}"
            f" {result['nanoseconds_per_weight']:10.1f} {result['peak_bytes'] / 1e6:8.1f}"
            f" {result['peak_over_weights']:13.2f} {result['mean_cosine']:7.4f}",
            flush=True,
        )
    growth = {
        "rows": _growth(results, "rows", "columns"),
        "columns": _growth(results, "columns", "rows"),
    }
    print(f"time ~ rows**{growth['rows']:.2f}, ~ columns**{growth['columns']:.2f}")
    return {
        "benchmark": "quantize",
        "ratio": ratio,
        "seed": seed,
        "runs": runs,
        "growth_exponents": growth,
        "results": results,
        "versions": {
            "numpy": np.__version__,
            "pvq-hw": pvq_hw.__version__,
            "python": platform.python_version(),
        },
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.quantize``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantize", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, a few seconds")
    parser.add_argument("--ratio", type=float, default=5.0, help="N/K (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3, help="runs per size (default 3)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/benchmark-quantize.json"))
    options = parser.parse_args(arguments)
    sizes = _QUICK if options.quick else _SIZES
    document = run(sizes, options.ratio, options.seed, max(1, options.runs))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    options.output.write_text(text, encoding="utf-8", newline="\n")
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
