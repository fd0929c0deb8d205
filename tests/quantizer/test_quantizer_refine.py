"""Budgets of pulses, and moves of the pulses of dense layers against the network's outputs."""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from quantizer_cases import chain, data

from pvq_hw.errors import InputError
from pvq_hw.quantizer import expansion
from pvq_hw.quantizer.autodiff import Columns, Tape
from pvq_hw.quantizer.banks import Placement, balance, meets
from pvq_hw.quantizer.budget import Curve, allocate, layer_shares, round_to_multiple, spread
from pvq_hw.quantizer.expansion import MapForm, Rows, VectorForm
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.metric import Metric
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.quantizer.refine import refine


def coarse(k: int = 6, banks: int = 0, seed: int = 0) -> tuple[Tape, dict[str, Rows], np.ndarray]:
    """A chain, a coarse quantization of it, and its inputs."""
    steps, x = network_steps(chain(seed=seed)), (data(500) / 255).astype(np.float32)
    place, rows = Placement(banks, 2) if banks else None, {}
    for step in steps:
        w = step.weight
        y = balance(w, np.full(len(w), k), place or Placement(1))
        gain = np.maximum((w * y).sum(1) / np.square(y).sum(1), 1e-3)[:, None]
        rows[step.name] = Rows(y, gain, step.bias, place, None, w)
    return Tape(steps, "x"), rows, x


@pytest.mark.parametrize("banks", [0, 2])
def test_refinement_lowers_the_output_error_and_keeps_the_pulses(banks: int) -> None:
    tape, rows, x = coarse(banks=banks)
    found, errors = refine(tape, rows, x, sweeps=3)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.35 * errors[0]
    for layer in found.values():
        assert (np.abs(layer.y).sum(axis=1) == 6).all()
        assert (layer.gain > 0).all()
        if banks:
            assert meets(layer.y, Placement(banks, 2))


def test_a_part_of_the_frames_is_enough_for_the_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network's error may be 1.7 or 0.9 of what all frames give, since a few other pulses
    move; over several they are the same."""
    whole = [refine(*coarse(seed=seed), sweeps=3)[1] for seed in range(8)]
    monkeypatch.setattr(expansion, "COLUMN_FRAMES", 100)
    part = [refine(*coarse(seed=seed), sweeps=3)[1] for seed in range(8)]
    assert part != whole
    assert np.median([p[-1] / w[-1] for p, w in zip(part, whole, strict=True)]) < 1.1
    assert max(p[-1] / p[0] for p in part) < 0.35


def map_parts(positions: int, groups: int, lengths: list[int], rows: int = 8) -> MapForm:
    """A form of random slopes over maps, of frames that come so many at a time."""
    rng, frames, n = np.random.default_rng(1), sum(lengths), 9
    slopes = rng.normal(size=(frames, 3, positions, rows)).astype(np.float32)
    values = rng.integers(0, 255, (groups, frames * positions, n)).astype(np.float32)
    own = rng.normal(size=(frames * positions, rows)).astype(np.float32)
    residual = 3e4 * rng.normal(size=(frames, 3)).astype(np.float32)
    ends = np.cumsum([0, *lengths]).tolist()
    at = [(slice(a, b), slice(a * positions, b * positions)) for a, b in pairwise(ends)]
    parts = ((slopes[f], Columns(values[:, p], 0.5, 8), own[p], residual[f]) for f, p in at)
    return MapForm(parts, frames, 0.5)


@pytest.mark.parametrize(
    ("positions", "groups", "block"), [(900, 1, 8), (900, 4, 8), (2, 1, 8), (2000, 1, 5)]
)
def test_frames_may_come_a_few_at_a_time(
    positions: int, groups: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: what is rounded together does not depend on it, nor where a block of 5 rows, of
    which 69 frames are, is further than one of 3, of which 116 are."""
    monkeypatch.setattr(expansion, "_BLOCK", block * 150 * 3 * 9)
    y = np.random.default_rng(2).integers(-2, 3, (8, 9))
    y[:, 0] = 1
    rows = Rows(y, np.full((8, 1), 0.1), np.zeros(8))
    whole, split = (map_parts(positions, groups, n) for n in ([150], [40, 1, 70, 39]))
    one, other = whole.solve(rows), split.solve(rows)
    for name in ("y", "gain", "bias"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert np.array_equal(whole.residual, split.residual)
    assert not np.array_equal(one.y, y)


def test_a_form_over_maps_keeps_less_than_its_slopes() -> None:
    def slopes() -> Iterator[tuple[np.ndarray, Columns, np.ndarray, np.ndarray]]:
        for _ in range(60):
            columns = Columns(np.ones((1, 20 * 800, 9), dtype=np.float32), 1.0, 8)
            own = np.zeros((20 * 800, 8), dtype=np.float32)
            yield np.ones((20, 4, 800, 8), dtype=np.float32), columns, own, own[:20, :4]

    tracemalloc.start()
    MapForm(slopes(), 1200, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * 1200 * 4 * 800 * 8 * 4


def test_layers_that_may_not_move_stay() -> None:
    layers = {"fc2": LayerOptions(unit="layer"), "fc3": LayerOptions(unit=4)}
    args = {"calibration": data(), "ratio": 3.0, "input_scale": 255, "layers": layers}
    before, after = (quantize(chain(), **args, sweeps=n) for n in (0, 2))
    for one, two in zip(before.layers[1:], after.layers[1:], strict=True):
        assert np.array_equal(one.y, two.y)
        assert np.array_equal(one.gain, two.gain)
    assert not np.array_equal(before.layers[0].y, after.layers[0].y)


def test_a_form_of_rows_that_see_one_position_follows_the_outputs() -> None:
    """The residual that it keeps is what the moved rows give, where all is linear."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 9, (80, 12)).astype(float), rng.normal(size=(5, 12))
    outward = rng.normal(size=(5, 3)).astype(np.float32)
    y = balance(w, np.full(5, 6), Placement(1))
    rows = Rows(y, np.full((5, 1), 0.3), np.zeros(5))
    own = (x @ (0.3 * y - w).T).astype(np.float32)
    slopes = np.broadcast_to(outward[:, None], (5, 80, 3)).copy()
    form = VectorForm(slopes, x, own, own @ outward, 0.1)
    before = float(np.square(form.residual).sum())
    found = form.solve(rows)
    real = x @ (found.gain * found.y - w).T + found.bias
    np.testing.assert_allclose(form.residual, real @ outward, atol=1e-3)
    assert np.square(form.residual).sum() < 0.5 * before
    assert not np.array_equal(found.y, y)


def test_refinement_is_the_same_every_time() -> None:
    runs = [refine(*coarse(), sweeps=2) for _ in range(2)]
    assert runs[0][1] == runs[1][1]
    for name in runs[0][0]:
        assert np.array_equal(runs[0][0][name].y, runs[1][0][name].y)


def test_the_metric_forgives_what_all_classes_share_but_not_values() -> None:
    classes, values = np.zeros((1, 5), dtype=np.float32), np.zeros((1, 2), dtype=np.float32)
    assert np.square(Metric(classes, 4.0).weigh(classes + 1)).sum() < 0.01
    assert np.square(Metric(values, 4.0).weigh(values + 1)).sum() == pytest.approx(1)


def test_the_metric_weighs_likely_classes_more() -> None:
    outputs = np.array([[9.0, 8.0, -9.0, -9.0]], dtype=np.float32)
    metric = Metric(outputs, 4.0)
    unit = np.eye(4, dtype=np.float32)
    cost = [float(np.square(metric.weigh(unit[c : c + 1])).sum()) for c in range(4)]
    assert min(cost[:2]) > 3 * max(cost[2:])


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


def test_pulses_on_a_flat_way_count_by_where_it_leads() -> None:
    flat = Curve(np.array([1, 2, 4, 8]), np.array([[90.0], [90.0], [91.0], [9.0]]), np.ones(1))
    steep = Curve(np.array([1, 2, 4, 8]), np.array([[8.0], [4.0], [2.0], [1.0]]), np.ones(1))
    assert np.concatenate(allocate([flat, steep], 10)).tolist() == [8, 2]
    assert flat.benefits().sum() == pytest.approx(81)


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


def test_small_layers_get_more_of_the_shared_pulses() -> None:
    sizes = {"large": (64, 64 * 784), "small": (10, 320)}
    found = layer_shares(sizes, 5.0)
    assert sum(found.values()) == pytest.approx((64 * 784 + 320) / 5, rel=0.01)
    assert found["small"] / 320 > 3 * found["large"] / (64 * 784)
    assert layer_shares(sizes, 100.0)["small"] >= 10
