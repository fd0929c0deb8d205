"""Products and codes that do not depend on who computes them."""

import json
import math
import os
import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processor import CANDIDATES, GENERIC, environments, runnable_kernels

from pvq_hw.arith.exact import exp, grid, grid_bits, log, product, sums

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "support"

# Networks quantized by all that calibration does; prints a digest of the codes of each.
_PROGRAM = """
import hashlib, json, sys, tempfile
from dataclasses import replace
from pathlib import Path
import numpy as np
from onnx import helper
from pvq_hw.arith.exact import grid
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Dense, MaxPool, Model, Relu
from pvq_hw.quantizer.quantize import LayerOptions, quantize
import quantizer_cases, quantizer_graphs_cases as graphs
from onnx_graphs import graph_model, save

def rounded(model):  # drawn numbers differ in last digits by machine
    kept = lambda node: {n: grid(v, 20) for n, v in vars(node).items() if isinstance(v, np.ndarray)}
    return replace(model, nodes=tuple(replace(node, **kept(node)) for node in model.nodes))

def digest(network):
    sha = hashlib.sha256()
    for layer in network.layers:
        for name in ("y", "mult", "bias", "shift"):
            sha.update(np.asarray(getattr(layer, name, 0)).astype("<i8").tobytes())
        sha.update(repr((layer.name, layer.output.scale)).encode())
    return sha.hexdigest()[:16]

rng = np.random.default_rng(5)
plain = Model("plain", "", "x", (8, 8, 1), (0, 1, 2), (8, 8, 1), (
    graphs.conv("one", "x", "a", 6, side=8, channels=1), Relu("ar", ("a",), "b", (8, 8, 6)),
    MaxPool("most", ("b",), "c", (4, 4, 6), (8, 8, 6), (2, 2), (2, 2)),
    graphs.conv("two", "c", "d", 8, side=4, channels=6, stride=(2, 2)),
    Relu("dr", ("d",), "e", (2, 2, 8)),
    Dense("head", ("e",), "out", (5,), rng.normal(size=(5, 32)), rng.normal(size=5))))
wider = Model("wider", "", "x", (8, 8, 1), (0, 1, 2), (8, 8, 1), (
    graphs.conv("one", "x", "a", 16, side=8, channels=1), Relu("ar", ("a",), "b", (8, 8, 16)),
    MaxPool("most", ("b",), "c", (4, 4, 16), (8, 8, 16), (2, 2), (2, 2)),
    graphs.conv("two", "c", "d", 16, side=4, channels=16, stride=(2, 2)),
    Relu("dr", ("d",), "e", (2, 2, 16)),
    Dense("head", ("e",), "out", (5,), np.sin(np.arange(320.0)).reshape(5, 64), np.zeros(5))))
images = rng.integers(0, 256, (150, 64))
real = grid(graphs.inputs(120), 20)
hybrid = {"stem": LayerOptions(encoding="int8"), "right": LayerOptions(keep_zeros=True)}
chain, x = quantizer_cases.chain((48, 16, 5)), rng.integers(0, 256, (200, 48))
small = quantizer_cases.chain((16, 6, 3))
jobs = {
    "small": (small, x[:40, :16], {"ratio": 2.0, "banks": {"fc1": 4}, "max_gap": {"fc1": 2}}),
    "chain": (chain, x, {"ratio": 3.0}),
    "chain, banks and groups": (
        chain, x, {"ratio": 2.0, "layers": {"fc2": LayerOptions(unit=8)}, "banks": {"fc1": 4}}),
    "convolutions": (plain, images, {"ratio": 3.0}),
    "convolutions, more weights than sweeps bear": (wider, images[:100], {"ratio": 3.0}),
    "residual, depthwise": (graphs.branched(), real, {"ratio": 2.0}),
    "residual, 8 bits and banks": (
        graphs.branched(), real, {"ratio": 2.0, "layers": hybrid, "banks": {"left": 4}}),
}
found = {
    name: digest(quantize(rounded(m), calibration=x, input_scale=255, sweeps=1, **options))
    for name, (m, x, options) in jobs.items()
    if not sys.argv[1:] or name in sys.argv[1:]
}
parts = {n: grid(rng.normal(size=d), 30) for n, d in (("m", 300), ("a", 300), ("w", (300, 9)))}
nodes = [helper.make_node(*n) for n in (
    ("Mul", ["x", "m"], ["y"]), ("Add", ["y", "a"], ["z"]), ("MatMul", ["z", "w"], ["out"]))]
with tempfile.TemporaryDirectory() as folder:
    folded = load_model(save(Path(folder), graph_model(nodes, parts, ("N", 300))))
found["folded bias"] = hashlib.sha256(folded.nodes[0].bias.tobytes()).hexdigest()[:16]
print(json.dumps(found))
"""

# As every processor, library and number of threads gives them.
_RECORDED = {
    "small": "274b2d0337fcdc7b",
    "chain": "99e13263c840c0d6",
    "chain, banks and groups": "af39ea3ef8d1244c",
    "convolutions": "f42e0fb04519b1e3",
    "convolutions, more weights than sweeps bear": "b59a5eeedd507913",
    "residual, depthwise": "6f7a7b0eb30c5696",
    "residual, 8 bits and banks": "a1aedac41b440e97",
    "folded bias": "7b0702fda64ef4b3",
}


def _digests(environment: dict[str, str], *jobs: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *jobs],
        cwd=ROOT,
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(TESTS)))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_codes_are_the_same_for_all_kernels_threads_and_instruction_sets(record_property) -> None:
    kernels = runnable_kernels()
    left_out = [kernel for kernel in CANDIDATES if kernel not in kernels]
    record_property("kernels that this processor or library does not run", ", ".join(left_out))
    if platform.machine() in ("x86_64", "AMD64") and sys.platform == "linux":
        assert len(kernels) >= 2, "every x86-64 processor runs two of OpenBLAS's kernels"
    for environment in environments():
        assert _digests(environment) == _RECORDED, environment


@pytest.mark.slow
def test_moves_compiled_for_any_processor_give_the_same_codes() -> None:
    """Beside them, those for this one, whose instructions are more, and the text itself."""
    assert _digests(GENERIC) == _RECORDED


def test_compiled_moves_are_those_of_the_interpreted_text() -> None:
    found = _digests({"NUMBA_DISABLE_JIT": "1"}, "small")
    assert found["small"] == _RECORDED["small"]


def test_a_kernel_that_dies_is_left_out() -> None:
    assert runnable_kernels(("NoSuchKernel",)) == ()


@pytest.mark.parametrize("length", [1, 7, 100, 4097])
def test_products_are_exact(length: int) -> None:
    rng = np.random.default_rng(length)
    a = rng.normal(size=(3, length)) * 10.0 ** rng.integers(-3, 3, (3, length))
    b = rng.normal(size=(length, 2)) * 1e-5
    bits = grid_bits(length)
    found = product(a, b)
    for i, j in np.ndindex(found.shape):
        terms = zip(grid(a, bits)[i], grid(b, bits)[:, j], strict=True)
        assert found[i, j] == sum(Fraction(x) * Fraction(y) for x, y in terms)
    assert np.abs(found - a @ b).max() <= length * 2.0 ** (2 - bits) * np.abs(a).max() * 1e-4


def test_partial_sums_never_need_more_bits_than_there_are() -> None:
    for length in (1, 2, 3, 255, 256, 257, 60_000):
        assert length * (2 ** grid_bits(length)) ** 2 <= 2**53


def test_integers_stay_what_they_are() -> None:
    values = np.array([[-255, 3, 0], [17, 254, 1]])
    assert np.array_equal(grid(values, 18), values)
    assert np.array_equal(grid(np.zeros((2, 2)), 18), np.zeros((2, 2)))
    assert grid(np.array([5e-324, 0.0]), 18)[0] == 0.0
    assert np.isfinite(grid(np.array([1e300, -1.0]), 18)).all()


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 24), (np.float64, 53)])
def test_values_are_rounded_as_rint_rounds_ties_included(dtype: Any, most: int) -> None:
    rng = np.random.default_rng(most)
    for bits in range(2, most + 1):
        top = 2**bits - 1
        halves = np.append(rng.integers(-2 * top, 2 * top, 60), 2 * top) / 2
        values = (halves * 2.0 ** rng.integers(-90, 60)).astype(dtype)
        step = 2.0 ** (math.frexp(float(np.abs(values).max()))[1] - bits)
        found = grid(values, bits, dtype)
        assert found.dtype == dtype
        assert np.array_equal(found, np.rint(values / dtype(step)) * dtype(step))


def test_sums_add_the_bias_piece_by_piece() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.integers(0, 256, (5000, 9)), rng.integers(-9, 9, (4, 9)), rng.integers(0, 9, 4)
    assert np.array_equal(sums(x, w, b, np.float64), x @ w.T + b)


def test_logarithms_and_exponentials_are_those_of_the_math_library() -> None:
    x = np.linspace(-90, 90, 2001)
    assert np.abs(exp(x) / [math.exp(v) for v in x] - 1).max() < 5e-16
    values = np.concatenate([np.exp(x), np.linspace(0.9, 1.1, 201), [5e-324, 1.0]])
    expected = np.array([math.log(v) for v in values])
    assert np.abs(log(values) - expected).max() < 5e-16 * np.abs(expected).max()
    assert np.abs(log(values) - expected)[-203:-2].max() < 1e-16
    assert exp(0.0) == 1.0
    assert log(1.0) == 0.0
