"""Networks that give as many values as they read: plain squares of all of them count."""

from itertools import pairwise

import numpy as np
import pytest

from pvq_hw.model.model import Dense, Model, Relu
from pvq_hw.quantizer import layerwise
from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.metric import output_metric, reconstructs
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.quantizer.refine import Visits

WIDTH = 160


def autoencoder(size: int = WIDTH) -> Model:
    """160 inputs by way of 24 and 4 units to so many outputs, most of which have large means."""
    rng = np.random.default_rng(0)
    sizes = (WIDTH, 24, 4, 24, size)
    nodes = []
    for place, (n, m) in enumerate(pairwise(sizes)):
        weight = rng.normal(size=(m, n)) / np.sqrt(n)
        bias = rng.uniform(0, 9, m) if place == 3 else rng.uniform(0.2, 1, m)
        last = f"d{place - 1}_r" if place else "x"
        nodes.append(Dense(f"d{place}", (last,), f"d{place}", (m,), weight, bias))
        if place < 3:
            nodes.append(Relu(f"r{place}", (f"d{place}",), f"d{place}_r", (m,)))
    return Model("auto", "0" * 64, "x", (WIDTH,), (0,), (WIDTH,), tuple(nodes))


def windows(frames: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(frames, 6)) @ np.random.default_rng(1).normal(size=(6, WIDTH))
    return shared + 0.3 * rng.normal(size=(frames, WIDTH))


def test_all_values_count_alike() -> None:
    x, error = windows(50, 0), np.random.default_rng(2).normal(size=(50, WIDTH))
    last, exact = network_steps(autoencoder())[-1], autoencoder().predict(x)
    metric = output_metric(last, exact, x)(exact)
    found = np.square(metric.weigh(error.astype(np.float32))).sum(axis=1)
    np.testing.assert_allclose(found, np.square(error).mean(axis=1), rtol=1e-5)
    back = metric.weigh_back(error.astype(np.float32))
    np.testing.assert_allclose(back, error / np.sqrt(WIDTH), rtol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [(WIDTH, True), (WIDTH - 1, False), (3, False)])
def test_as_many_outputs_as_inputs_are_values(size: int, expected: bool) -> None:
    assert reconstructs(network_steps(autoencoder(size))[-1], windows(2, 0)) is expected


def test_a_sweep_lowers_the_error_of_values_that_are_more_than_its_directions() -> None:
    model, test = autoencoder(), windows(300, 9)
    exact = model.predict(test)

    def error(sweeps: int) -> float:
        network = quantize(model, calibration=windows(300, 3), ratio=2, sweeps=sweeps)
        out = network.real(network.predict(network.quantize_input(test)))
        return float(np.square(out.reshape(exact.shape) - exact).mean())

    assert error(1) < 0.94 * error(0)


def test_directions_are_those_in_which_the_outputs_differ_most() -> None:
    x = windows(200, 3).astype(np.float32)
    visits = Visits(Tape(network_steps(autoencoder()), "x"), x, 0)
    found, exact = visits.principal, visits.reference
    centered = exact - exact.mean(axis=0)
    np.testing.assert_allclose(found.T @ found, np.eye(10), atol=1e-5)
    best = np.square(np.linalg.svd(centered)[1][:10]).sum()
    assert np.square(centered @ found).sum() > 0.999 * best
    few = Visits(Tape(network_steps(autoencoder(8)), "x"), x, 0)
    assert few.principal is None


@pytest.mark.parametrize("most", [1, 127])
def test_products_of_codes_are_exact_however_large(most):
    rng = np.random.default_rng(0)
    y = np.concatenate([np.full((1, 999), most), rng.integers(-most, most + 1, (2, 999))])
    columns = rng.integers(200, 256, (1, 5, 999)).astype(np.float32)
    found = layerwise._products(columns, y, np.ones((3, 1)), 1)
    assert np.array_equal(found, columns[0].astype(np.int64) @ y.T)
