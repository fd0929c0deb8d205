"""Distorted copies of calibration inputs."""

import numpy as np
import pytest
import quantizer_cases
from cli_tools import MODEL, refused

import pvq_hw
from pvq_hw.data.augment import DEFAULTS, augmented, parse_kinds
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import quantize_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.target.boards import get_target


def images(count: int = 60) -> np.ndarray:
    """A bright square on black, off the center."""
    x = np.zeros((count, 1, 12, 10), dtype=np.uint8)
    x[:, :, 4:8, 3:6] = 200
    return x


def test_a_part_is_distorted_and_the_rest_stays() -> None:
    x = images(400)
    found = augmented(x, "shift,rotate,scale,shear")
    assert found.dtype == x.dtype
    assert found.shape == x.shape
    same = (found == x).reshape(400, -1).all(axis=1)
    assert 0.2 < same.mean() < 0.4
    assert np.array_equal(found, augmented(x, "shift,rotate,scale,shear"))
    assert not np.array_equal(found, augmented(x, "shift,rotate,scale,shear", seed=1))
    assert not (augmented(x, "shift", part=1.0) == x).reshape(400, -1).all(axis=1).any()


def test_shifts_move_the_whole_by_the_amount_at_most() -> None:
    found = augmented(images(), "shift=3", part=1.0).astype(float)[:, 0]
    row, column = np.mgrid[0:12, 0:10]
    mass = found.sum(axis=(1, 2))
    down = (found * row).sum(axis=(1, 2)) / mass - 5.5
    right = (found * column).sum(axis=(1, 2)) / mass - 4
    assert np.allclose(mass, mass[0], rtol=0.02)
    for off in (down, right):
        assert 2 < np.abs(off).max() <= 3.05
        assert off.min() < -1
        assert off.max() > 1


def test_mirrors_are_exact_and_turned_channels_stay_together() -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 7, 9, 3), dtype=np.uint8)
    found = augmented(x, "mirror", axes=(0, 1, 2), part=1.0)
    flipped = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(found, x, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(found, x, strict=True)])
    assert (flipped ^ kept).all()
    assert 10 < flipped.sum() < 40
    gray = np.repeat(x[..., :1], 3, axis=3)
    turned = augmented(gray, "rotate=90", axes=(0, 1, 2), part=1.0)
    assert np.array_equal(turned[..., 0], turned[..., 2])


def test_beyond_the_border_is_what_lies_on_it() -> None:
    x = np.full((40, 8, 8), 7, dtype=np.int8)
    x[0] = 9
    assert (augmented(x, "shift=6,rotate,scale,shear", part=1.0)[1:] == 7).all()


def test_noise_takes_any_shape_and_stays_in_the_range() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 20))
    found = augmented(x, "noise=0.1", part=1.0)
    assert (found - x).std() == pytest.approx(0.1 * x.std(), rel=0.05)
    assert found.min() >= x.min()
    assert found.max() <= x.max()


def test_mixed_inputs_lie_between_two_of_the_file() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 20))
    found = augmented(x, "mix=0.5", part=1.0)
    assert np.array_equal(found, augmented(x, "mix=0.5", part=1.0))
    moved = found - x
    # What of an input is left is its projection: 1 - w, with w uniform up to a half.
    left = (found * x).sum(axis=1) / (x * x).sum(axis=1)
    assert left.mean() == pytest.approx(0.75, abs=0.02)
    assert left.min() > 0.5 - 0.5 * 1.2  # the other may point the other way
    # From an input the mixture lies straight toward another one of the file.
    toward = x[None] - x[:50, None]
    length = np.linalg.norm(toward, axis=2).clip(1e-9)
    along = np.einsum("if,ijf->ij", moved[:50], toward) / length
    other = along.argmax(axis=1)
    row = np.arange(50)
    assert len(set(other)) > 40  # not always the same one
    assert np.allclose(along[row, other], np.linalg.norm(moved[:50], axis=1), rtol=1e-5, atol=1e-6)
    w = along[row, other] / length[row, other]
    assert 0.4 < w.max() <= 0.5


def test_integers_stay_integers_when_mixed() -> None:
    x = np.array([[0, 255], [255, 0]] * 50, dtype=np.uint8)
    found = augmented(x, "mix=1", part=1.0)
    assert found.dtype == np.uint8
    assert len(np.unique(found)) > 20
    assert set(found.astype(int).sum(axis=1)) <= {254, 255, 256}  # rounded one by one


def test_frames_are_taken_again_where_more_are_wanted() -> None:
    x = images(10)
    x[:, 0, 0, 0] = np.arange(10)
    found = augmented(x, "noise", frames=25, part=0.0)
    assert np.array_equal(found, x[np.arange(25) % 10])


def test_what_is_asked_is_read_and_refused_in_one_line() -> None:
    assert parse_kinds("shift, rotate=10") == {"shift": DEFAULTS["shift"], "rotate": 10.0}
    for text, why in (
        ("turn", "must be some of shift, rotate, scale, shear, mirror, noise, mix, not 'turn'"),
        ("", "must be some of"),
        ("scale=x", "scale must be a number above 0 and at most 0.9, not 'x'"),
        ("noise=-1", "noise must be a number above 0"),
        ("shift=nan", "shift must be a number above 0"),
    ):
        with pytest.raises(InputError, match=why):
            parse_kinds(text)
    with pytest.raises(InputError, match="shear must have inputs of a height and a width"):
        augmented(np.zeros((9, 20)), "shear")


def test_options_of_compile_reach_the_quantizer() -> None:
    model = quantizer_cases.chain((16, 8, 3))
    data = pvq_hw.Data(np.random.default_rng(0).integers(0, 256, (40, 16)), None, 255.0)
    found = []
    for more in ({}, {"augment": "noise=0.2", "calibration_frames": 100}, {"sweeps": 3}):
        options = CompileOptions(target="hx8k", ratio=2.0, input_scale=255.0, **more)
        network, _ = quantize_for(model, get_target("hx8k"), options, data)
        found.append((network.meta["calibration_frames"], network.meta["sweeps"]))
    assert found == [(40, 1), (100, 1), (40, 3)]


def test_what_compile_cannot_distort_is_refused(tmp_path) -> None:
    args = ("compile", MODEL, "-o", tmp_path / "out", "--target", "hx8k")
    refused(tmp_path, "Augmentation must be some of", *args, "--augment", "turn")
    refused(tmp_path, "must come with calibration data", *args, "--augment", "noise")
    refused(tmp_path, "Calibration frames must be 1 to", *args, "--calibration-frames", "0")
    refused(tmp_path, "Sweeps must be 0 to 100", *args, "--sweeps", "-1")
