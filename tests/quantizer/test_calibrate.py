"""Activation scales: lattice of integer data, least error, ranges, and what is refused."""

import numpy as np
import pytest

from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.quantizer.scales import (
    calibration_array,
    error_minimizing_scale,
    input_spec,
    range_scale,
    round_to_lattice,
    tensor_spec,
)

U8, S8, BINARY = IntFormat(8, False), IntFormat(8, True), IntFormat(1, True)


def _error(v: np.ndarray, scale: float, fmt: IntFormat) -> float:
    return float(np.square(round_to_lattice(v, scale, fmt) * scale - v).sum())


def test_integer_data_that_fits_keeps_its_lattice() -> None:
    data = np.arange(64, dtype=np.uint8).reshape(16, 4)
    spec = input_spec("x", (4,), 8, data, input_scale=255.0)
    assert spec.scale == 1.0 / 255.0
    assert spec.format == U8
    assert np.array_equal(round_to_lattice(data / 255.0, spec.scale, spec.format), data)


def test_signed_integer_data_gets_a_signed_input() -> None:
    data = np.arange(-32, 32, dtype=np.int8).reshape(16, 4)
    assert input_spec("x", (4,), 8, data).format == S8


def test_integer_data_too_wide_gets_the_scale_of_least_error() -> None:
    data = np.arange(0, 4096, 64).reshape(16, 4)
    spec = input_spec("x", (4,), 8, data, input_scale=2.0)
    assert spec.scale != 0.5
    assert round_to_lattice(data / 2.0, spec.scale, spec.format).max() == 255


def test_float_data_on_a_lattice_is_found_without_error() -> None:
    data = np.arange(256, dtype=np.float64).reshape(64, 4) / 255.0
    spec = input_spec("x", (4,), 8, data)
    assert spec.format == U8
    assert _error(data.ravel(), spec.scale, U8) < 1e-20


@pytest.mark.parametrize("fmt", [U8, S8, IntFormat(4, False), IntFormat(2, True)])
def test_scale_beats_every_other_clip_point(fmt: IntFormat) -> None:
    rng = np.random.default_rng(7)
    v = rng.laplace(size=4000) if fmt.signed else np.maximum(rng.laplace(size=4000), 0)
    best = _error(v, error_minimizing_scale(v, fmt), fmt)
    full = np.abs(v).max() / fmt.max
    for clip in np.linspace(0.25, 1, 41):
        assert best <= _error(v, full * clip, fmt) * (1 + 1e-9)


def test_few_bits_clip_outliers() -> None:
    v = np.concatenate([np.random.default_rng(1).uniform(0, 1, 5000), [3.0]])
    assert error_minimizing_scale(v, IntFormat(3, False)) * 7 < 2.0


def test_binary_scale_is_the_mean_magnitude() -> None:
    assert error_minimizing_scale(np.array([-1.0, 3.0]), BINARY) == 2.0


def test_every_channel_counts_where_there_are_many_values() -> None:
    values = np.zeros((30_000, 16))
    values[:, 3] = np.linspace(0, 4, len(values))  # not one of every second or fourth
    values[:, 0] = np.linspace(0, 1, len(values))
    assert error_minimizing_scale(values, IntFormat(8, False)) * 255 > 3.9


def test_all_zero_values_get_a_usable_scale() -> None:
    assert error_minimizing_scale(np.zeros(8), U8) == 1.0


def test_ranges_stand_in_for_data() -> None:
    spec = tensor_spec("t", (3,), U8, None, {"t": (0.0, 51.0)})
    assert spec.scale == pytest.approx(0.2)
    assert range_scale(-128.0, 1.0, S8) == 1.0


@pytest.mark.parametrize("bounds", [(0.0, np.inf), (np.nan, 1.0), (2.0, 1.0)])
def test_impossible_ranges_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="An activation range must be finite and ordered"):
        range_scale(*bounds, U8)


def test_neither_data_nor_range_says_what_to_give() -> None:
    with pytest.raises(InputError, match=r"must come from calibration data.*--calibrate TRAIN.npz"):
        tensor_spec("t", (3,), U8, None, {})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.full((32, 4), np.nan), "must be finite numbers, but holds NaN"),
        (np.full((32, 4), np.inf), "must be finite numbers"),
        (np.zeros((3, 4)), "must hold at least 16 frames, not 3"),
        (np.zeros((32, 5)), r"must have the shape \(frames, 4\), not \(32, 5\)"),
        (np.array(1.0), r"must have the shape"),
        (np.full((32, 4), "a"), "must be numbers"),
    ],
)
def test_bad_calibration_data_is_refused_in_one_line(data: np.ndarray, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        calibration_array(data, (4,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_the_input_scale_is_positive(scale: float) -> None:
    with pytest.raises(InputError, match="The input scale must be a positive number"):
        input_spec("x", (4,), 8, np.zeros((16, 4), dtype=np.uint8), scale)
