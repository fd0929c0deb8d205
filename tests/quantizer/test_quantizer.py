"""Quantization: counts, placement, numbers and errors of the integer network."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from quantizer_cases import chain, data, dense_layers

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.model.model import Clip, Dense, Model
from pvq_hw.quantizer.banks import Placement, balance, meets
from pvq_hw.quantizer.budget import spread
from pvq_hw.quantizer.pulse_moves import (
    column_means,
    improve,
    moments,
    output_error,
    ridge_weights,
    solve_gains,
)
from pvq_hw.quantizer.quantize import LayerOptions, QuantizerOptions, quantize
from pvq_hw.quantizer.requantization import FILE_BITS, requantization


@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
@pytest.mark.parametrize("ratio", [0.7, 2.0, 4.0])
def test_the_mean_ratio_is_met_by_the_final_codes(quantizer: str, ratio: float) -> None:
    net = quantize(chain(), calibration=data(), ratio=ratio, quantizer=quantizer, input_scale=255)
    pulses = sum(int(np.abs(layer.y).sum()) for layer in dense_layers(net))
    weights = sum(layer.y.size for layer in dense_layers(net))
    assert net.n_over_k == weights / pulses
    assert ratio <= net.n_over_k <= ratio * 1.02
    assert all((layer.k >= 1).all() for layer in dense_layers(net))


@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
def test_outputs_follow_the_float_model(quantizer: str) -> None:
    model, test = chain(), data(seed=9)
    net = quantize(model, calibration=data(), ratio=0.05, quantizer=quantizer, input_scale=255)
    real = net.predict(net.quantize_input(test, 255)) * net.output.scale
    want = model.predict(test, 255)
    assert np.sqrt(np.square(real - want).mean()) < 0.03 * want.std()


@pytest.mark.parametrize("columns", [1, 2, 9, 64])
@pytest.mark.parametrize("dtype", [None, np.float64])
def test_means_of_columns_are_numpys_to_the_last_bit(columns: int, dtype: type | None) -> None:
    x = np.random.default_rng(columns).normal(3, 10, (3_001, columns)).astype(np.float32)
    for values in (x, x[:, ::-1], x.astype(np.float64)):
        want = values.mean(axis=0, dtype=dtype)
        found = column_means(values, dtype)
        assert (found.dtype, found.tobytes()) == (want.dtype, want.tobytes())


def test_calibrated_has_less_output_error_than_plain() -> None:
    model, test = chain(), data(seed=9)
    want = model.predict(test, 255)
    errors = {}
    for quantizer in ("plain", "calibrated"):
        net = quantize(model, calibration=data(), ratio=3, quantizer=quantizer, input_scale=255)
        real = net.predict(net.quantize_input(test, 255)) * net.output.scale
        errors[quantizer] = np.square(real - want).mean()
    assert errors["calibrated"] < 0.5 * errors["plain"]


def test_formats_and_the_input_lattice() -> None:
    net = quantize(chain(), calibration=data(), ratio=2, input_scale=255)
    assert net.input.scale == 1 / 255
    assert [layer.output.format for layer in net.layers] == [
        IntFormat(8, False),
        IntFormat(8, False),
        IntFormat(16, True),
    ]
    assert [layer.name for layer in net.layers] == ["fc1", "fc2", "fc3"]


@pytest.mark.parametrize("bits", [2, 4, 12, 16])
def test_activation_widths(bits: int) -> None:
    net = quantize(chain(), calibration=data(), ratio=2, activation_bits=bits, input_scale=255)
    assert net.input.format.bits == bits
    assert net.layers[0].output.format.bits == bits


def test_clip_saturates_at_the_models_bound() -> None:
    net = quantize(chain(high=0.3), calibration=data(), ratio=1, input_scale=255)
    spec = net.layers[0].output
    assert spec.scale * spec.format.max <= 0.3 + 1e-12


def test_multipliers_use_all_their_bits_and_lose_nothing_worth_a_name() -> None:
    net = quantize(chain(), calibration=data(), ratio=2, input_scale=255)
    scale = net.input.scale
    for layer in dense_layers(net):
        assert (1 << 14) <= layer.mult.max() < (1 << 15)
        ratio = layer.gain * scale / layer.output.scale
        assert np.abs(layer.mult / 2.0**layer.shift - ratio).max() <= 2.0**-layer.shift
        scale = layer.output.scale


def test_rows_of_small_gains_are_rounded_as_the_files_are() -> None:
    """All rows share a shift: those of a 64th of the largest gain are within their last bit."""
    gain = np.array([[0.011], [0.011 / 64]])
    acc = np.random.default_rng(0).integers(-12_000 * 64, 12_000 * 64, 200_000)
    x, out = IntFormat(8, True), IntFormat(16, True)
    k = np.full((2, 1), 20_000)
    made = requantization(gain, np.zeros(2), k, x, 1.0, out, 1.0, FILE_BITS)
    small = (acc * made.mult[1, 0] + (1 << (made.shift - 1))) >> made.shift
    assert np.mean(small != np.floor(acc * gain[1, 0] + 0.5)) < 2e-4


def test_a_far_bias_is_cut_without_changing_an_output() -> None:
    x, out = IntFormat(8, False), IntFormat(8, False)
    gain, k = np.array([[0.01]]), np.array([[7]])
    full = requantization(gain, np.array([1e9]), k, x, 1.0, out, 1.0)
    room = 7 * 255 * int(full.mult[0, 0]) + ((out.max_abs + 2) << full.shift)
    assert full.bias[0] == room
    assert (-7 * 255 * int(full.mult[0, 0]) + room) >> full.shift >= out.max


@pytest.mark.parametrize("unit", ["row", "layer", 8])
@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
def test_units(unit: str | int, quantizer: str) -> None:
    options = {"fc1": LayerOptions(k=48 if unit == "layer" else 4, unit=unit)}
    net = quantize(
        chain(), calibration=data(), quantizer=quantizer, ratio=2, layers=options, input_scale=255
    )
    layer = dense_layers(net)[0]
    if unit == "layer":
        assert layer.k.sum() == 48
        assert np.unique(layer.gain).size == 1
    else:
        assert layer.groups == (3 if unit == 8 else 1)
        assert np.array_equal(layer.k_groups, np.full((16, layer.groups), 4))


def test_int8_layers_take_no_pulses() -> None:
    net = quantize(
        chain(), calibration=data(), ratio=2, layers={"fc2": LayerOptions(encoding="int8")},
        input_scale=255,
    )  # fmt: skip
    layer = dense_layers(net)[1]
    assert layer.encoding == "int8"
    assert np.abs(layer.y).max() == 127
    assert net.total_weights == 24 * 16 + 12 * 5
    assert 2 <= net.n_over_k < 2.02


@pytest.mark.parametrize("quantizer", ["plain", "calibrated"])
@pytest.mark.parametrize(("banks", "gap"), [(2, None), (3, 2), (8, 1), (5, 3)])
def test_balanced_and_escape_free(quantizer: str, banks: int, gap: int | None) -> None:
    net = quantize(
        chain(), calibration=data(), quantizer=quantizer, ratio=2,
        banks={"fc1": banks}, max_gap={"fc1": gap} if gap else None, input_scale=255,
    )  # fmt: skip
    y = dense_layers(net)[0].y
    assert meets(y, Placement(banks, gap))
    for row in y:
        for bank in range(banks):
            used = np.flatnonzero(row[bank::banks])
            assert np.abs(row[bank::banks]).sum() * banks == np.abs(row).sum()
            if gap:
                assert np.diff(np.concatenate([[0], used])).max() <= gap


def test_meets_finds_what_is_wrong() -> None:
    y = np.array([[1, 0, 0, 0, 0, 1]])
    assert meets(y, Placement(2))
    assert not meets(y, Placement(2, 1))
    assert not meets(np.array([[1, 0, 1, 0, 0, 1]]), Placement(2))


@pytest.mark.parametrize("seed", range(20))
def test_mending_keeps_pulses_whatever_the_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(4, 40)) * (rng.random(40) < 0.3)
    place = Placement(int(rng.integers(1, 5)), int(rng.integers(1, 6)))
    k = rng.integers(1, 9, size=4) * place.banks
    y = balance(w, k, place)
    assert meets(y, place)
    assert np.array_equal(np.abs(y).sum(axis=1), k)


def test_moves_reach_a_point_that_no_single_move_betters() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 7)) @ rng.normal(size=(7, 7))
    w = rng.normal(size=(3, 7))
    m = moments(x, x @ w.T, w)
    start = np.zeros((3, 7), dtype=np.int64)
    start[:, 0] = 4
    y, gain = improve(m, start, patience=100)
    assert np.array_equal(np.abs(y).sum(axis=1), [4, 4, 4])
    best = output_error(m, y, gain)
    assert (best < output_error(m, start, solve_gains(m.gram, m.cross, start))).all()
    for row in range(3):
        for i in np.flatnonzero(y[row]):
            for j in range(7):
                for sign in (1, -1):
                    other = y[row : row + 1].copy()
                    other[0, i] -= np.sign(other[0, i])
                    other[0, j] += sign
                    if np.abs(other).sum() != 4:
                        continue
                    v = gain[row] * other[0]
                    error = v @ m.gram @ v - 2 * v @ m.cross[row] + m.power[row]
                    assert error >= best[row] * (1 - 1e-3)


def test_output_error_is_the_error_on_the_data() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(300, 6)), rng.normal(size=(2, 6))
    m = moments(x, x @ w.T, w, damping=0.0)
    y = np.array([[1, 0, -1, 0, 0, 2], [0, 1, 0, 0, 1, 0]])
    gain = np.array([[0.5], [0.25]])
    error = x @ (w - gain * y).T
    assert output_error(m, y, gain) == pytest.approx(error.var(axis=0), rel=1e-4)


def test_ridge_weights_keep_the_original_where_inputs_are_constant() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(300, 6)), rng.normal(size=(2, 6))
    x[:, 2] = 7.0
    start = ridge_weights(moments(x, x @ w.T, w))
    assert start == pytest.approx(w, abs=1e-2)


def test_spread_adds_up() -> None:
    k = spread(np.array([3.0, 1.0, 0.0]), 50, 4)
    assert k.sum() == 48
    assert (k % 4 == 0).all()
    assert k.min() == 4
    assert k[0] > k[1] > k[2]


def test_the_same_seed_gives_the_same_network_and_frames_are_drawn_by_it() -> None:
    args = {"calibration": data(), "ratio": 3, "input_scale": 255, "max_frames": 100}
    first = quantize(chain(), **args)
    assert first == quantize(chain(), **args)
    assert first != quantize(chain(), **args, seed=5)


@pytest.mark.parametrize("sizes", [(24, 6), (24, 1), (24, 8, 1)])
def test_single_layers_and_single_outputs(sizes: tuple[int, ...]) -> None:
    net = quantize(chain(sizes), calibration=data(), ratio=2, input_scale=255)
    assert net.n_over_k >= 2


def test_inputs_that_never_change_do_no_harm() -> None:
    still = np.full((32, 24), 3, dtype=np.uint8)
    net = quantize(chain(), calibration=still, ratio=2, input_scale=255)
    out = net.predict(net.quantize_input(still, 255)) * net.output.scale
    assert out == pytest.approx(chain().predict(still, 255), abs=0.02)


def test_per_layer_ratios_do_not_touch_the_others_budget() -> None:
    options = {"fc1": LayerOptions(ratio=6), "fc2": LayerOptions(unit=4)}
    net = quantize(chain(), calibration=data(), ratio=2, layers=options, input_scale=255)
    first, *rest = dense_layers(net)
    assert first.y.size / first.k.sum() == 6
    assert sum(r.y.size for r in rest) / sum(r.k.sum() for r in rest) == pytest.approx(
        2, rel=0.03
    )  # in 6 groups


def test_zero_rows_give_their_bias() -> None:
    model = chain((24, 6))
    model.nodes[0].weight[2] = 0.0
    net = quantize(model, calibration=data(), ratio=2, quantizer="plain", input_scale=255)
    layer = dense_layers(net)[0]
    assert layer.mult[2, 0] == 0
    out = net.predict(net.quantize_input(data(), 255))[:, 2] * net.output.scale
    assert out == pytest.approx(model.nodes[0].bias[2], abs=2 * net.output.scale)


def test_plain_needs_no_data_where_the_model_carries_ranges() -> None:
    model = chain()
    ranges = {"x": (0.0, 1.0), "r1": (0.0, 3.0), "r2": (0.0, 3.0), "d3": (-4.0, 4.0)}
    with_ranges = Model(**{**model.__dict__, "ranges": ranges})
    net = quantize(with_ranges, quantizer="plain", ratio=0.5)
    assert net.layers[1].output.scale == pytest.approx(3 / 255)
    with pytest.raises(InputError, match="Calibrated quantization must have calibration data"):
        quantize(with_ranges)


def test_data_may_come_as_an_object_with_x() -> None:
    bare = quantize(chain(), calibration=data(), ratio=2, input_scale=255)
    assert (
        quantize(chain(), calibration=SimpleNamespace(x=data()), ratio=2, input_scale=255) == bare
    )


def test_progress_ends_at_one_for_every_layer() -> None:
    seen: dict[str, float] = {}
    quantize(
        chain(), calibration=data(), ratio=2, input_scale=255,
        progress=lambda name, part: seen.__setitem__(name, part),
    )  # fmt: skip
    assert {name: seen[name] for name in ("fc1", "fc2", "fc3")} == dict.fromkeys(
        ("fc1", "fc2", "fc3"), 1.0
    )


def test_a_clip_that_does_not_begin_at_0_is_refused_by_name() -> None:
    after = Clip("bounds", ("a",), "b", (4,), 0.25, 1.5)
    before = Clip("bounds", ("x",), "b", (3,), 0.25, 1.5)
    first = Dense("fc1", ("x",), "a", (4,), np.ones((4, 3)), np.zeros(4))
    text = "Layer 'bounds' must clip from 0 or less upwards, not from 0.25 to 1.5"
    for nodes in ((first, after), (before, replace(first, inputs=("b",)))):
        at = Model("m", "", "x", (3,), (0,), (3,), nodes)
        with pytest.raises(InputError, match=text):
            quantize(at, calibration=np.ones((16, 3)), ratio=1.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"calibration": None}, "must have calibration data.*--calibrate TRAIN.npz"),
        ({"calibration": None, "quantizer": "plain"}, "carries no range for 'x'; give --calibrate"),
        ({"calibration": data(5)}, "must hold at least 16 frames, not 5"),
        ({"calibration": np.full((64, 24), np.nan)}, "must be finite"),
        ({"ratio": 0.0}, "The ratio N/K must be a positive number, not 0"),
        ({"ratio": float("nan")}, "The ratio N/K must be a positive number"),
        ({"ratio": 1e9}, "N/K must leave each of 33 rows of 'fc1', 'fc2', 'fc3' a pulse, but"),
        ({"quantizer": "best"}, "Quantizer must be calibrated, plain or given, not 'best'"),
        ({"activation_bits": 0}, "Activation width must be 1 to 16 bits, not 0"),
        ({"activation_bits": 1}, "Activations must have 2 to 16 bits after layer 'fc1', not 1"),
        ({"sweeps": -1}, "Sweeps must be at least 0, not -1"),
        ({"layers": {"nope": LayerOptions(k=2)}}, "Layer 'nope' must be one of fc1, fc2, fc3"),
        ({"banks": {"nope": 2}}, "Layer 'nope' must be one of"),
        ({"banks": {"fc1": 0}}, "Banks must be at least 1, not 0"),
        ({"banks": {"fc1": 25}}, "at most 24 banks, not 25"),
        ({"max_gap": {"fc1": 3}}, "must have banks where it has a largest gap"),
        ({"banks": {"fc1": 2}, "max_gap": {"fc1": 0}}, "The largest gap must be at least 1, not 0"),
        ({"banks": {"fc1": 4}, "layers": {"fc1": LayerOptions(k=6)}}, "multiple of 4 banks"),
        ({"layers": {"fc1": LayerOptions(unit=7)}}, "groups that divide 24 columns, not 7"),
        ({"layers": {"fc1": LayerOptions(ratio=100.0)}}, "N/K must leave K at least 1"),
        ({"input_scale": 0.0}, "The input scale must be a positive number"),
        ({"max_frames": 0}, "Calibration frames must be at least 1, not 0"),
    ],
)
def test_bad_requests_are_refused_in_one_line(options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        quantize(chain(), **({"calibration": data(), "input_scale": 255} | options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"k": 0}, "K must be a whole number of at least 1, not 0"),
        ({"k": 2, "ratio": 2.0}, "ratio or k, not both"),
        ({"encoding": "float"}, "Encoding must be pvq or int8, not 'float'"),
        ({"ratio": -1.0}, "The ratio N/K must be a positive number"),
        ({"unit": "column"}, "Unit must be row, layer or a number of columns, not 'column'"),
    ],
)
def test_bad_layer_options_are_refused(options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        LayerOptions(**options)


def test_weights_that_are_not_finite_are_refused_by_layer() -> None:
    model = chain()
    model.nodes[0].weight[0, 0] = np.nan
    with pytest.raises(InputError, match="Layer 'fc1' must have finite weights"):
        quantize(model, calibration=data(), input_scale=255)


def test_options_are_one_value_and_single_fields_take_its_place() -> None:
    options = QuantizerOptions(ratio=3.0, input_scale=255, sweeps=0)
    one = quantize(chain(), options, calibration=data(), ratio=2.0)
    assert one == quantize(chain(), calibration=data(), ratio=2.0, input_scale=255, sweeps=0)
    assert (one.meta["ratio"], one.meta["sweeps"]) == (2.0, 0)
    with pytest.raises(TypeError, match="ratios"):
        quantize(chain(), options, calibration=data(), ratios=2.0)
