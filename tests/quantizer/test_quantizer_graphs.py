"""Quantizing networks with branches: gradients, pulses by effect, moves against the outputs."""

from dataclasses import replace

import numpy as np
import pytest
from quantizer_graphs_cases import branched, conv, dense_behind_maps, inputs, weighed_error

from pvq_hw.arith.exact import grid
from pvq_hw.errors import InputError
from pvq_hw.model.model import Affine, AveragePool, Dense, MaxPool, Model
from pvq_hw.network.window import Conv as IntConv
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer import importance, layerwise
from pvq_hw.quantizer.autodiff import Columns, Lattice, Tape, derivatives, node_groups
from pvq_hw.quantizer.banks import Placement, balance, meets
from pvq_hw.quantizer.expansion import Rows
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.importance import Weighed, felt
from pvq_hw.quantizer.quantize import LayerOptions, quantize, row_budget
from pvq_hw.quantizer.refine import orthogonal, refine


def error(model: Model, network, x: np.ndarray) -> float:
    real = network.predict(network.quantize_input(x)) * network.output.scale
    return float(np.square(real.reshape(len(x), -1) - model.predict(x)).mean())


def pulses_of(network) -> dict[str, np.ndarray]:
    return {n.name: np.abs(n.weights).sum(axis=1) for n in network.layers if n.weights is not None}


# -- values and gradients -----------------------------------------------------------------------


def test_a_tape_computes_what_the_model_does() -> None:
    model, x = branched(), inputs(9)
    tape = Tape(network_steps(model), "x")
    np.testing.assert_allclose(tape.outputs(x.astype(np.float32), 4), model.predict(x), atol=1e-4)


@pytest.mark.parametrize("coded", [False, True])
def test_derivatives_are_differences(coded: bool) -> None:
    model, x = branched(), inputs(5).astype(np.float32)
    tape, rng = Tape(network_steps(model), "x"), np.random.default_rng(1)
    if coded:
        for name, w in tape.weights.items():
            tape.gains[name] = rng.uniform(0.01, 0.02, len(w))
            tape.weights[name] = np.rint(w / tape.gains[name][:, None]).astype(np.float32)
    seed = rng.normal(size=(5, 3)).astype(np.float32)
    values = tape.forward(x, keep=True)
    found = tape.backward(values, {"out": seed})
    for step in tape.steps:
        if not step.weighted:
            continue
        weight, name = tape.weights[step.name], step.name
        bias, gain = tape.biases[name], tape.gains.pop(name, np.ones(len(weight)))
        groups = node_groups(step.node)
        slopes = found[name].reshape(5, -1, groups, len(weight) // groups).transpose(2, 0, 1, 3)
        by_row = derivatives(slopes[:, :, None], tape.columns(step, values[step.inputs[0]]))
        by_row = by_row.reshape(*weight.shape[:1], 5, -1).sum(axis=1)
        way, way_bias = rng.normal(size=weight.shape), rng.normal(size=len(weight))
        outputs = []
        for sign in (1, -1):
            tape.weights[name] = weight * gain[:, None] + np.float32(sign * 2e-4) * way
            tape.biases[name] = bias + np.float32(sign * 2e-4) * way_bias
            outputs.append(tape.forward(x)["out"].astype(np.float64))
        tape.weights[name], tape.biases[name] = (weight * gain[:, None]).astype(np.float32), bias
        wanted = float(((outputs[0] - outputs[1]) * seed).sum()) / 4e-4
        total = float((by_row[:, :-1] * way).sum() + (by_row[:, -1] * way_bias).sum())
        assert total == pytest.approx(wanted, rel=0.02, abs=0.02), name


def test_slopes_are_the_gradients_by_the_sums() -> None:
    model, x = branched(), inputs(5).astype(np.float32)
    tape = Tape(network_steps(model), "x")
    seed = np.ones((5, 3), dtype=np.float32)
    values = tape.forward(x, keep=True)
    sums = tape.backward(values, {"out": seed})
    for step in tape.steps:
        np.testing.assert_allclose(tape.slopes(values, seed, step.name), sums[step.name], atol=1e-6)


@pytest.mark.parametrize(
    ("bits", "most"), [(0, 0), (8, 3), (8, 127), (16, 127)], ids=["real", "codes", "int8", "wide"]
)
def test_products_do_not_depend_on_the_order_of_their_terms(bits: int, most: int) -> None:
    """Only sums that are never rounded do not."""
    rng, rows, size = np.random.default_rng(bits + most), 64, 300
    weight, x = rng.normal(size=(rows, size)), rng.normal(size=(40, size))
    gain, seed = rng.uniform(1, 2, rows), rng.normal(size=(40, rows)).astype(np.float32)
    if most:
        weight = rng.integers(-most, most + 1, weight.shape).astype(np.float64)
    if bits:
        x = rng.integers(0, 1 << bits, x.shape) * 0.3
    found = []
    for mixed in (False, True):
        m = rng.permutation(rows) if mixed else np.arange(rows)
        n = rng.permutation(size) if mixed else np.arange(size)
        first = Dense("first", ("in",), "x", (size,), np.eye(size), np.zeros(size))
        last = Dense("last", ("x",), "z", (rows,), weight[m][:, n], np.zeros(rows))
        model = Model("two", "", "in", (size,), (0,), (size,), (first, last))
        tape = Tape(network_steps(model), "in")
        if most:
            tape.gains["last"] = gain[m]
        if bits:
            tape.lattices["x"] = Lattice(0.3, 0, (1 << bits) - 1)
        values = tape.forward(x[:, n].astype(np.float32), keep=True)
        back = tape.slopes(values, seed[:, m], "first")
        found.append((values["z"][:, np.argsort(m)], back[:, np.argsort(n)]))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
    real = gain * (x @ weight.T) if most else x @ weight.T
    assert np.abs(found[0][0] - real).max() < 2e-6 * np.abs(real).max()


def test_derivatives_do_not_depend_on_the_order_of_positions() -> None:
    rng, found = np.random.default_rng(2), []
    slopes = rng.normal(size=(1, 3, 2, 500, 4)).astype(np.float32)
    values = grid(rng.normal(size=(1, 3, 500, 7)), 20, np.float32)
    for order in (np.arange(500), rng.permutation(500)):
        columns = Columns(values[:, :, order].reshape(1, 1500, 7), 0.5, 20)
        found.append(derivatives(slopes[:, :, :, order], columns))
    assert np.array_equal(*found)


def test_directions_are_orthogonal() -> None:
    q = orthogonal(np.random.default_rng(0).normal(size=(7, 9, 4)))
    np.testing.assert_allclose(np.matmul(q.transpose(0, 2, 1), q), [np.eye(4)] * 7, atol=1e-14)
    many = np.random.default_rng(0).normal(size=(2500, 9, 4))  # more than are done at a time
    alone = [orthogonal(many[start : start + 500]) for start in range(0, 2500, 500)]
    assert np.array_equal(orthogonal(many), np.concatenate(alone))


def test_gradients_stop_where_a_lattice_saturates() -> None:
    tape = Tape(network_steps(branched()), "x")
    tape.lattices["a"] = Lattice(0.25, 0, 2)
    values = tape.forward(inputs(20).astype(np.float32), keep=True)
    assert set(np.unique(values["a"])) == {0, 0.25, 0.5}
    slopes = tape.slopes(values, np.ones((20, 3), dtype=np.float32), "sum")
    sums = tape.sums(next(s for s in tape.steps if s.name == "sum"), values)
    assert not slopes[(sums < 0) | (sums >= 0.625)].any()
    assert slopes.any()


def test_of_equal_values_one_is_the_largest() -> None:
    nodes = (MaxPool("most", ("x",), "m", (2, 2, 1), (4, 4, 1), (2, 2), (2, 2)),
             Dense("head", ("m",), "h", (1,), np.ones((1, 4)), np.zeros(1)))  # fmt: skip
    first = Dense("first", ("in",), "x", (16,), np.ones((16, 1)), np.zeros(16))
    model = Model("even", "", "in", (1,), (0,), (1,), (first, *nodes))
    tape = Tape(network_steps(model), "in")
    values = tape.forward(np.ones((1, 1), dtype=np.float32), keep=True)
    slopes = tape.slopes(values, np.ones((1, 1), dtype=np.float32), "first").reshape(4, 4)
    assert slopes.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


# -- pulses -------------------------------------------------------------------------------------


def test_pulses_go_where_the_outputs_feel_them() -> None:
    x = inputs(200)
    even, faint = (row_budget(branched(part), x, ratio=2.0) for part in (1.0, 0.02))
    sizes = {s.name: s.weight.size for s in network_steps(branched()) if s.weighted}
    for found in (even, faint):
        total = sum(int(k.sum()) for k in found.values())
        assert sum(sizes.values()) / 2.05 <= total <= sum(sizes.values()) / 2
        assert min(int(k.min()) for k in found.values()) >= 1
    assert faint["right"].sum() < 0.5 * even["right"].sum()  # what it gives hardly counts


@pytest.mark.parametrize("quantizer", ["calibrated", "plain"])
def test_normalization_left_over_beside_8_bit_layers_has_a_pulse_a_row(quantizer: str) -> None:
    """Though N/K asks for less: one pulse says its one weight a row exactly."""
    scale, offset = np.array([0.5, -2.0]), np.array([1.0, 0.25])
    norm = Affine("norm", ("x",), "n", (6, 6, 2), scale, offset)
    layer = conv("conv", "n", "c", 4, channels=2)
    fc = Dense(
        "fc", ("c",), "out", (3,), np.random.default_rng(0).normal(size=(3, 144)), np.ones(3)
    )
    model = Model("m", "", "x", (6, 6, 2), (0, 1, 2), (6, 6, 2), (norm, layer, fc))
    plain = {"conv": LayerOptions(encoding="int8")}
    both = plain | {"fc": LayerOptions(encoding="int8")}
    options = {"calibration": inputs(32), "quantizer": quantizer}
    network = quantize(model, layers=both, ratio=10, **options)
    assert np.array_equal(pulses_of(network)["norm"], [1, 1])
    x = inputs(32, 1)
    assert error(model, network, x) < 0.01 * model.predict(x).var()
    with pytest.raises(InputError, match="each of 5 rows of 'norm', 'fc' a pulse, but 300"):
        quantize(model, layers=plain, ratio=300, **options)


@pytest.mark.parametrize("quantizer", ["calibrated", "plain"])
def test_gains_of_groups_behind_a_convolution(quantizer: str) -> None:
    model, x = dense_behind_maps(), inputs(200)
    layers = {"first": LayerOptions(unit=9), "conv": LayerOptions(unit="layer")}
    network = quantize(model, calibration=x, ratio=1.5, layers=layers, quantizer=quantizer)
    found = {layer.name: layer for layer in network.layers}
    assert found["first"].gain.shape == (12, 4)
    assert len(np.unique(found["first"].gain)) > 12
    assert np.unique(found["conv"].gain).size == 1
    test = inputs(200, 1)
    whole = quantize(model, calibration=x, ratio=1.5, quantizer=quantizer)
    assert error(model, network, test) < 2 * error(model, whole, test)


def test_signs_behind_a_convolution() -> None:
    model, x = dense_behind_maps(sign=True), inputs(400)
    network = quantize(model, calibration=x, ratio=1.0)
    found = {layer.name: layer for layer in network.layers}
    assert found["first"].output.format.binary
    assert (found["first"].mult == 1).all()
    test = inputs(200, 1)
    assert error(model, network, test) < 0.4 * model.predict(test).var()


def test_what_a_layer_cannot_do_is_refused_by_its_name() -> None:
    def refused(model: Model, text: str, **options: object) -> None:
        with pytest.raises(InputError, match=text):
            quantize(model, calibration=inputs(32), ratio=2.0, **options)

    groups, shared = LayerOptions(unit=9), LayerOptions(unit="layer")
    refused(branched(), "Layer 'left' must have a gain per row: only dense layers have one for "
            "every 9 columns, and it has kind Conv", layers={"left": groups})  # fmt: skip
    refused(branched(), "Layer 'each' must have a gain per row: its rows see different channels",
            layers={"each": shared})  # fmt: skip
    refused(branched(), "2 to 16 bits after layer 'stem', not 1", activation_bits=1)
    maps = dense_behind_maps(sign=True)
    nodes = (
        *maps.nodes[:4], replace(maps.nodes[4], inputs=("r",), output="g", shape=(6, 6, 4)),
        replace(maps.nodes[5], weight=np.ones((3, 144))),
    )  # fmt: skip
    nodes = (*nodes[:2], *nodes[4:])
    refused(replace(maps, nodes=nodes), "Layer 'act' must not take a sign after Relu or Clip")
    sign = replace(nodes[2], inputs=("p",), shape=(3, 3, 4))
    last = replace(nodes[3], weight=np.ones((3, 36)))
    nodes = (nodes[0], replace(maps.nodes[2], inputs=("a",)), sign, last)
    refused(replace(maps, nodes=nodes), "Layer 'act' must take the sign of what weights give, not "
            "of layer 'most' of kind MaxPool")  # fmt: skip
    pool = AveragePool(
        "late", ("g",), "h", (1, 6, 1), (1, 12, 1), (1, 2), (1, 2), count_include_pad=False
    )
    last = replace(maps.nodes[5], inputs=("h",), weight=np.ones((3, 6)))
    refused(replace(maps, nodes=(*maps.nodes[:5], pool, last)),
            "Layer 'late' must not read signs, here of 'first'")  # fmt: skip


def test_what_is_asked_of_a_layer_is_kept() -> None:
    model, x = branched(), inputs(100)
    asked = {
        "left": LayerOptions(k=7),
        "right": LayerOptions(ratio=6.0),
        "stem": LayerOptions(encoding="int8"),
    }
    found = row_budget(model, x, ratio=2.0, layers=asked)
    assert found["left"].tolist() == [7] * 4
    assert found["right"].sum() == 144 // 6
    assert "stem" not in found
    network = quantize(model, calibration=x, ratio=2.0, layers=asked, pulses=found, sweeps=1)
    got = pulses_of(network)
    for name, k in found.items():
        assert got[name].tolist() == k.tolist()


# -- what the outputs feel ----------------------------------------------------------------------


def test_sums_that_are_cut_off_are_not_felt() -> None:
    model, x = branched(), inputs(40).astype(np.float32)
    steps = network_steps(model)
    found, values = felt(steps, x), Tape(steps, "x").in_single().forward(x)
    for name, output in (("stem", "s"), ("left", "l")):
        layer = found[name]
        passed = values[output].reshape(-1, layer.weight.shape[1])[layer.positions] > 0
        assert not layer.weight[~passed].any()
        assert layer.weight[passed].any()
        assert np.allclose(layer.weight.mean(axis=0), 1, atol=1e-3)
        assert np.array_equal(layer.positions, np.unique(layer.positions))
    again = felt(steps, x)
    assert all(np.array_equal(found[n].weight, again[n].weight) for n in found)


def test_fewer_frames_and_positions_are_looked_at_where_there_are_many(monkeypatch) -> None:
    monkeypatch.setattr(importance, "LEAST_FRAMES", 10)
    monkeypatch.setattr(importance, "WORK", 1.0)
    monkeypatch.setattr(importance, "POSITIONS", 50)
    found = felt(network_steps(branched()), inputs(40).astype(np.float32))
    frames = np.linspace(0, 39, 10).astype(int)
    for name, size in (("stem", 36), ("right", 9), ("head", 1)):
        at = found[name].positions
        assert len(at) == min(50, 10 * size) == len(found[name].weight)
        assert np.isin(at // size, frames).all()


def test_pulses_go_where_sums_are_felt(monkeypatch) -> None:
    for tries in ("_TRIES", "_FELT_TRIES"):  # which of several starts is best is chance here
        monkeypatch.setattr(layerwise, tries, 1)
    model, test = branched(), inputs(300, seed=9)
    errors = np.zeros(2)  # of three draws, since one is chance
    for seed in range(3):
        x, found = inputs(600, seed=seed), []
        for turn, rounds in enumerate((importance.ROUNDS, 0)):
            with monkeypatch.context() as patch:
                patch.setattr(importance, "ROUNDS", rounds)
                found.append(quantize(model, calibration=x, ratio=4.0, sweeps=0))
            errors[turn] += weighed_error(model, found[-1], test)
        one, two = map(pulses_of, found)
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert errors[0] < 0.95 * errors[1]


def test_rows_keep_the_best_of_several_starts(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 6)) @ rng.normal(size=(6, 24))).astype(np.float32)
    node = Dense("d", ("x",), "y", (16,), rng.normal(size=(16, 24)), np.zeros(16))
    model = Model("m", "", "x", (24,), (0,), (24,), (node,))
    errors = []
    for tries in (1, layerwise._TRIES):
        monkeypatch.setattr(layerwise, "_TRIES", tries)
        network = quantize(model, calibration=x, ratio=3.0, sweeps=0)
        real = network.predict(network.quantize_input(x)) * network.output.scale
        errors.append(np.square(real - model.predict(x)).mean(axis=0))
    assert errors[1].sum() < 0.8 * errors[0].sum()
    assert (errors[1] < 1.02 * errors[0]).all()  # but for the rounding of activations


def test_the_error_of_a_row_is_that_of_its_sums() -> None:
    rng = np.random.default_rng(0)
    x, columns = (rng.integers(0, 9, (n, 12)).astype(np.float32) for n in (300, 150))
    w, weight = rng.normal(size=12), rng.random((300, 1)).astype(np.float32)
    goals, target = x @ w.astype(np.float32), columns @ w.astype(np.float32)[:, None]
    layer = Weighed(x, weight, columns, target)
    found = []
    for seed in range(3):
        y = nearest((w + seed * rng.normal(size=12))[None], 6)[0]
        (moved,) = layer.move(
            0, y[None], 0.4, 0.0, goals, w, np.zeros(12, dtype=bool), 1, 0, np.empty((12, 12))
        )
        felt = weight[:, 0] @ np.square(x @ y * moved.gain + moved.bias - goals)
        own = 2 * np.square(columns @ y * moved.gain + moved.bias - target[:, 0]).sum()
        mean, square, mass = layer.mean[0], layer.square[0], layer.mass[0]
        drawn = 0.03 * (square - mean**2 / mass).mean() * np.square(moved.gain * y - w).sum()
        found.append((moved.error, felt + own + drawn))
    constant = found[0][1] - found[0][0]
    assert constant == pytest.approx(2 * np.square(target).sum(), rel=1e-4)
    assert [b - a for a, b in found] == pytest.approx([constant] * 3, rel=1e-4)


# -- moves against the outputs ------------------------------------------------------------------


def test_sweeps_lower_the_error_of_frames_they_have_not_seen() -> None:
    model, x, test = branched(), inputs(600), inputs(300, seed=9)
    before, after = (quantize(model, calibration=x, ratio=6.0, sweeps=n) for n in (0, 2))
    assert weighed_error(model, after, test) < 0.9 * weighed_error(model, before, test)
    one, two = pulses_of(before), pulses_of(after)
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("frames", [60, 300])
def test_judged_error_never_rises(frames: int) -> None:
    model, x = branched(), inputs(frames).astype(np.float32)
    tape = Tape(network_steps(model), "x")
    rows = {
        name: Rows(np.sign(w).astype(np.int64), np.abs(w).mean(axis=1, keepdims=True), b)
        for (name, w), b in zip(tape.weights.items(), tape.biases.values(), strict=True)
    }
    _, errors = refine(tape, rows, x, sweeps=3)
    assert len(errors) == 4
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_nothing_is_learned_by_heart_from_few_frames() -> None:
    model, tell = branched(), []
    for frames in (12, 60):
        x = inputs(frames).astype(np.float32)
        tape = Tape(network_steps(model), "x")
        rows = {
            name: Rows(np.sign(w).astype(np.int64), np.abs(w).mean(axis=1, keepdims=True), b)
            for (name, w), b in zip(tape.weights.items(), tape.biases.values(), strict=True)
        }
        found, errors = refine(tape, rows, x, sweeps=1)
        assert len(errors) == 2
        tell.append(all(found[name] is rows[name] for name in rows))
    assert tell == [True, False]


def test_moves_keep_banks_and_zeros() -> None:
    model, x = branched(), inputs(300).astype(np.float32)
    tape = Tape(network_steps(model), "x")
    w = tape.weights["left"].astype(np.float64)
    placement, allowed = Placement(4), np.abs(w) > 0.1
    balanced = balance(w, np.full(4, 12), placement)
    kept = np.where(allowed, np.sign(w), 0).astype(np.int64)
    gain = np.full((4, 1), 0.3)
    bias = np.zeros(4)
    for rows in (Rows(balanced, gain, bias, placement), Rows(kept, gain, bias, None, allowed)):
        found = refine(tape, {"left": rows}, x, sweeps=1)[0]["left"]
        assert not np.array_equal(found.y, rows.y)
        assert np.array_equal(np.abs(found.y).sum(1), np.abs(rows.y).sum(1))
        if rows.placement is not None:
            assert meets(found.y, placement)
        else:
            assert not found.y[~allowed].any()


def test_banks_and_sweeps_through_quantize() -> None:
    model, x = branched(), inputs(300)
    zeros = {"right": LayerOptions(keep_zeros=True)}
    right = next(node for node in model.nodes if node.name == "right")
    right.weight[:, 1] = 0
    network = quantize(
        model, calibration=x, ratio=2.0, banks={"left": 4}, layers=zeros, sweeps=1
    )  # fmt: skip
    layers = {layer.name: layer for layer in network.layers if isinstance(layer, IntConv)}
    assert meets(layers["left"].y, Placement(4))
    assert not layers["right"].y[right.matrix == 0].any()
    again = quantize(model, calibration=x, ratio=2.0, banks={"left": 4}, layers=zeros, sweeps=1)
    for one, two in zip(network.layers, again.layers, strict=True):
        assert one.to_json() == two.to_json()
        assert one.weights is None or np.array_equal(one.weights, two.weights)
