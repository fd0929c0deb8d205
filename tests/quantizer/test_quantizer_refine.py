"""Budgets of pulses and moves against the network's outputs."""

from itertools import pairwise

import numpy as np
import pytest

from pvq_hw.errors import InputError
from pvq_hw.model.activation import LINEAR, Activation
from pvq_hw.quantizer import refine as quantizer_refine
from pvq_hw.quantizer.banks import Placement, balance, meets
from pvq_hw.quantizer.budget import Curve, allocate, round_to_multiple, spread
from pvq_hw.quantizer.refine import Link, Metric, forward, refine, sensitivity

SIZES = (12, 10, 8, 4)


def chain(seed: int = 0, k: int = 6, banks: int = 0) -> tuple[list[Link], np.ndarray]:
    """Links with a coarse quantization of a random network, and its inputs."""
    rng = np.random.default_rng(seed)
    x = (rng.random((300, 5)) @ rng.random((5, SIZES[0]))).astype(np.float32)
    links, values = [], x.astype(np.float64)
    for n, m in pairwise(SIZES):
        w = rng.laplace(size=(m, n)) / np.sqrt(n)
        z = values @ w.T
        place = Placement(banks, 2) if banks else None
        y = balance(w, np.full(m, k), place or Placement(1))
        gain = np.maximum((w * y).sum(1) / np.square(y).sum(1), 1e-3)[:, None]
        kind, reference = Activation("bounds"), z.astype(np.float32)
        links.append(Link(y, gain, np.zeros(m), kind, reference, True, place))
        values = np.maximum(z, 0)
    links[-1].activation = LINEAR
    return links, x


def output_error(links: list[Link], x: np.ndarray) -> float:
    residual = forward(links, x)[-1] - links[-1].reference
    return float(np.square(Metric(links[-1].reference).weigh(residual)).sum(axis=1).mean())


@pytest.mark.parametrize("banks", [0, 2])
def test_refinement_lowers_the_output_error_and_keeps_the_pulses(banks: int) -> None:
    links, x = chain(banks=banks)
    before = output_error(links, x)
    errors = refine(links, x, sweeps=3)
    assert errors[0] == pytest.approx(before, rel=1e-5)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(output_error(links, x), rel=1e-5)
    assert errors[-1] < 0.35 * before
    for link in links:
        assert (np.abs(link.y).sum(axis=1) == 6).all()
        assert (link.gain > 0).all()
        if banks:
            assert meets(link.y, Placement(banks, 2))


def test_a_part_of_the_frames_is_enough_for_the_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    links, x = chain()
    whole = refine(links, x, sweeps=3)
    monkeypatch.setattr(quantizer_refine, "_COLUMN_FRAMES", 100)
    links, x = chain()
    part = refine(links, x, sweeps=3)
    assert part != whole
    assert part[-1] < 1.1 * whole[-1]


def test_layers_that_may_not_move_stay() -> None:
    links, x = chain()
    links[0].movable = False
    y, gain = links[0].y.copy(), links[0].gain.copy()
    refine(links, x, sweeps=1)
    assert np.array_equal(links[0].y, y)
    assert np.array_equal(links[0].gain, gain)


def test_refinement_is_the_same_every_time() -> None:
    runs = []
    for _ in range(2):
        links, x = chain(seed=3)
        runs.append((refine(links, x, sweeps=2), [link.y for link in links]))
    assert runs[0][0] == runs[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_sensitivity_is_the_slope_of_the_outputs() -> None:
    links, x = chain()
    for link in links:  # no sum sits on the corner of its ReLU
        link.bias = np.linspace(0.05, 0.15, len(link.bias))
    found = sensitivity(links, x)
    metric = Metric(links[-1].reference)
    for index, link in enumerate(links):
        for unit in range(len(link.y)):
            base = metric.weigh(forward(links, x)[-1])
            link.bias[unit] += 1e-3
            slope = (metric.weigh(forward(links, x)[-1]) - base) / 1e-3
            link.bias[unit] -= 1e-3
            mean = float(np.square(slope).sum(axis=1).mean())
            assert found[index][unit] == pytest.approx(mean, rel=0.05, abs=1e-5)


def test_the_metric_forgives_what_all_classes_share_but_not_values() -> None:
    classes, values = np.zeros((1, 5), dtype=np.float32), np.zeros((1, 2), dtype=np.float32)
    assert np.square(Metric(classes).weigh(classes + 1)).sum() < 0.01
    assert np.square(Metric(values).weigh(values + 1)).sum() == pytest.approx(1)


def test_the_metric_weighs_likely_classes_more() -> None:
    outputs = np.array([[9.0, 8.0, -9.0, -9.0]], dtype=np.float32)
    metric = Metric(outputs)
    unit = np.eye(4, dtype=np.float32)
    cost = [float(np.square(metric.weigh(unit[c : c + 1])).sum()) for c in range(4)]
    assert min(cost[:2]) > 3 * max(cost[2:])


def test_the_jacobian_of_the_metric_is_its_matrix() -> None:
    rng = np.random.default_rng(0)
    metric = Metric(rng.normal(size=(7, 5)).astype(np.float32))
    v = rng.normal(size=(7, 5)).astype(np.float32)
    product = np.einsum("fc,cfd->fd", v, metric.jacobian())
    assert product == pytest.approx(metric.weigh(v), abs=1e-5)


def _curve(scale: list[float], power: float = 1.0, top: int = 40) -> Curve:
    k = np.arange(1, top + 1)
    return Curve(k, (100.0 / k**power)[:, None], np.array(scale))


def test_the_budget_is_split_as_greedily_as_pulse_by_pulse() -> None:
    scales = [[1.0, 5.0], [0.3, 2.0, 0.0]]
    total = 61
    k = [np.ones(len(s), dtype=np.int64) for s in scales]
    for _ in range(total - 5):
        gains = [
            (s * (100 / k[i][j] - 100 / (k[i][j] + 1)), i, j)
            for i, layer in enumerate(scales)
            for j, s in enumerate(layer)
            if k[i][j] < 40
        ]
        _, i, j = max(gains)
        k[i][j] += 1
    found = allocate([_curve(s) for s in scales], total)
    assert sum(int(a.sum()) for a in found) == total
    for a, b in zip(found, k, strict=True):
        assert np.abs(a - b).max() <= 1


def test_sensitive_rows_get_more() -> None:
    k = allocate([_curve([1.0, 10.0, 100.0])], 60)[0]
    assert k[0] < k[1] < k[2]


def test_a_budget_beyond_the_curves_stops_at_their_ends() -> None:
    assert np.array_equal(allocate([_curve([1.0, 1.0], top=10)], 99)[0], [10, 10])


def test_a_budget_below_a_pulse_per_row_is_refused() -> None:
    with pytest.raises(InputError, match="must leave each of 3 rows a pulse, but it leaves 2"):
        allocate([_curve([1.0, 1.0, 1.0])], 2)


@pytest.mark.parametrize("multiple", [1, 3, 8])
def test_rounding_to_multiples_never_adds_pulses(multiple: int) -> None:
    k = np.random.default_rng(1).integers(8, 90, size=30)
    rounded = round_to_multiple(k, multiple)
    assert (rounded % multiple == 0).all()
    assert k.sum() - multiple < rounded.sum() <= k.sum()
    assert np.corrcoef(k, rounded)[0, 1] > 0.98


def test_spread_gives_every_row_one() -> None:
    assert spread(np.zeros(4), 2).tolist() == [1, 1, 1, 1]
