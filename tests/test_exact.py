"""Products and codes that do not depend on who computes them."""

import os
import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from processor import CANDIDATES, environments, runnable_kernels

from pvq_hw.exact import grid, grid_bits, product, sums

ROOT = Path(__file__).parents[1]

# One network, quantized by all that calibration does; prints what its files hold.
_PROGRAM = """
import hashlib, tempfile
from pathlib import Path
from tests.test_quantizer import chain, data
from pvq_hw.quantizer import LayerOptions, quantize
digest = hashlib.sha256()
layers = {"fc2": LayerOptions(unit=8)}
x = data(400, 96)
for options in ({"ratio": 3.0}, {"ratio": 2.0, "layers": layers, "banks": {"fc1": 4}}):
    net = quantize(chain((96, 32, 16, 5)), calibration=x, input_scale=255, sweeps=2, **options)
    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder))
        for file in sorted(Path(folder).iterdir()):
            digest.update(file.read_bytes())
print(digest.hexdigest())
"""


def _digest(environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout.strip()


def test_codes_are_the_same_for_all_kernels_threads_and_instruction_sets(record_property) -> None:
    kernels = runnable_kernels()
    left_out = [kernel for kernel in CANDIDATES if kernel not in kernels]
    record_property("kernels that this processor or library does not run", ", ".join(left_out))
    if platform.machine() in ("x86_64", "AMD64") and sys.platform == "linux":
        assert len(kernels) >= 2, "every x86-64 processor runs two of OpenBLAS's kernels"
    digests = {_digest(environment) for environment in environments()}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


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


def test_sums_add_the_bias_piece_by_piece() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.integers(0, 256, (5000, 9)), rng.integers(-9, 9, (4, 9)), rng.integers(0, 9, 4)
    assert np.array_equal(sums(x, w, b, np.float64), x @ w.T + b)
