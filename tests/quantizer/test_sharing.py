"""Codes chosen for the adders that their rows share."""

import numpy as np
import pytest

from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.flow.quantize import quantize_for
from pvq_hw.model.model import Model
from pvq_hw.model.nodes import Dense, Relu
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.autodiff import Tape
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.sharing import adder_count, share_rows, share_sums
from pvq_hw.target.boards import get_target


def cosines(w, y, gram):
    length = np.sqrt((w @ gram * w).sum(axis=1) * (y @ gram * y).sum(axis=1))
    return (w @ gram * y).sum(axis=1) / length


@pytest.mark.parametrize("correlated", [False, True])
def test_rows_share_more_adders_and_keep_to_their_sums(correlated):
    rng = np.random.default_rng(3)
    w = rng.laplace(size=(12, 16))
    y = np.asarray(nearest(w, 8), dtype=np.int64)
    x = rng.integers(0, 50, (200, 16)) + 3 * rng.integers(0, 50, (200, 1))
    gram = x.T @ x if correlated else np.eye(16, dtype=np.int64)
    found = share_sums(w, y, 0.01, gram if correlated else None, tries=1500)
    assert adder_count(found) < 0.95 * adder_count(y)
    assert np.array_equal(np.abs(found).sum(axis=1), np.abs(y).sum(axis=1))
    before, after = (cosines(w, codes, gram).mean() for codes in (y, found))
    assert after > 0.9899 * before
    assert np.array_equal(found, share_sums(w, y, 0.01, gram if correlated else None, tries=1500))


def test_nothing_is_lost_where_nothing_may_be():
    w = np.random.default_rng(4).laplace(size=(8, 12))
    y = np.asarray(nearest(w, 6), dtype=np.int64)
    found = share_sums(w, y, 0.0, tries=500)
    assert cosines(w, found, np.eye(12)).mean() >= cosines(w, y, np.eye(12)).mean() - 1e-12
    assert adder_count(found) <= adder_count(y)


def test_pulses_go_only_where_they_may():
    """Weights of 0 that are kept stay 0."""
    rng = np.random.default_rng(6)
    w = rng.laplace(size=(10, 12))
    y = np.asarray(nearest(w, 5), dtype=np.int64)
    found = share_sums(w, y, 0.05, allowed=y != 0, tries=1500)
    assert not np.array_equal(found, y)
    assert not found[y == 0].any()
    assert share_sums(w, y, 0.05, tries=1500)[y == 0].any()


def test_sums_stay_as_near_as_they_can_and_kept_zeros_are_kept(monkeypatch):
    monkeypatch.setitem(share_sums.__kwdefaults__, "tries", 2000)
    rng = np.random.default_rng(2)
    weights = [rng.laplace(size=(8, 10)), rng.laplace(size=(6, 8))]
    weights[0][rng.random((8, 10)) < 0.3] = 0
    nodes = [
        Dense(name, (source,), out, (len(w),), w, rng.normal(size=len(w)))
        for (name, source, out), w in zip((("a", "x", "s"), ("b", "s", "t")), weights, strict=True)
    ]
    tape = Tape(network_steps(Model("net", "", "x", (10,), (0,), (10,), tuple(nodes))), "x")
    x = (rng.integers(0, 5, (200, 10)) + 2 * rng.integers(0, 5, (200, 1))).astype(np.float32)
    before = {}
    for node, w in zip(nodes, weights, strict=True):
        y = np.asarray(nearest(w, 6), dtype=np.int64) * (w != 0)
        before[node.name] = Rows(y, np.full((len(w), 1), 0.3), np.ones(len(w)), allowed=w != 0)
        before[node.name].put(tape, node.name)
    parts = []
    after = share_rows(
        tape, before, x, {"a": 0.3, "b": 0.3}, progress=lambda *part: parts.append(part)
    )
    old, new = before["a"], after["a"]
    wanted, sums = (x @ rows.y.T * rows.gain[:, 0] + rows.bias for rows in (old, new))
    assert np.allclose(wanted.mean(axis=0), sums.mean(axis=0), atol=1e-3)
    off = sums - wanted
    own = (x - x.mean(axis=0)) @ new.y.T
    assert np.abs((off * own).sum(axis=0)).max() < 1e-3 * np.square(own).sum(axis=0).max()
    assert all(adder_count(after[name].y) < adder_count(before[name].y) for name in "ab")
    assert not new.y[weights[0] == 0].any()
    assert {name for name, _ in parts} == {"all layers"}
    assert [part for _, part in parts] == sorted(part for _, part in parts)


def test_a_matrix_that_takes_too_long_is_left_alone():
    y = np.random.default_rng(5).integers(-3, 4, (40, 400))
    assert np.array_equal(share_sums(y.astype(float), y, 0.1), y)


def test_compile_shares_the_sums_of_wires_alone(monkeypatch):
    monkeypatch.setitem(share_sums.__kwdefaults__, "tries", 1000)
    rng = np.random.default_rng(0)
    nodes = (
        Dense("a", ("x",), "s", (12,), rng.laplace(size=(12, 10)), rng.normal(size=12)),
        Relu("r", ("s",), "t", (12,)),
        Dense("b", ("t",), "u", (6,), rng.laplace(size=(6, 12)), np.zeros(6)),
    )
    model = Model("net", "", "x", (10,), (0,), (10,), nodes)
    data = Data(rng.random((300, 10)).astype(np.float32))
    asked = {
        "target": "ulx3s-25f",
        "ratio": 1.0,
        "layers": {"a": LayerChoice(engine="unrolled"), "b": LayerChoice(engine="folded")},
    }
    made = []
    for part in (0.0, 5.0):
        options = CompileOptions(**asked, share_sums=part)
        network, _ = quantize_for(model, get_target("ulx3s-25f"), options, data)
        made.append([layer.y for layer in network.layers if layer.weights is not None])
    counts = [adder_count(codes[0]) for codes in made]
    assert counts[1] < counts[0]
    assert np.abs(made[0][0]).sum() == np.abs(made[1][0]).sum()
    exact = model.predict(data.x)
    off = network.real(network.predict(network.quantize_input(data.x))) - exact
    assert np.sqrt(np.square(off).mean()) < 0.5 * exact.std()
    with pytest.raises(InputError, match="must come with the calibrated quantizer"):
        CompileOptions(**asked, share_sums=1.0, quantizer="plain")
    with pytest.raises(InputError, match="Shared sums must cost 0 to 20 percent, not 21"):
        CompileOptions(**asked, share_sums=21.0)
