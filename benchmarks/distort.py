"""Slightly distorted copies of images: more calibration inputs than the training set holds.

A network is surest of the images that it was trained on, so these show least of what rounding its
weights does; distorted ones are nearer to what it meets later. No labels are needed: calibration
follows the float network, whatever it says.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["distorted"]

_MARGIN = 8  # pixels of background around an image


def distorted(images: npt.NDArray[np.uint8], seed: int, part: float = 0.7) -> npt.NDArray[np.uint8]:
    """The images, of which ``part`` are turned, scaled, sheared and moved at random.

    By up to 20 degrees, 12 %, 0.2 and 2 pixels, with bilinear interpolation.

    Parameters
    ----------
    images : uint8 array (frames, ..., height, width)
    seed : int
    part : float
    """
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(rng.random(len(images)) < part)
    result = images.copy()
    for start in range(0, len(chosen), 4096):
        some = chosen[start : start + 4096]
        flat = images[some].reshape(len(some), *images.shape[-2:])
        result[some] = _warp(flat, rng).reshape(images[some].shape)
    return result


def _warp(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Every image (frames, height, width) by a random affine map around its center."""
    count, height, width = images.shape
    angle = np.deg2rad(rng.uniform(-20, 20, count))
    shear = rng.uniform(-0.2, 0.2, count)
    scale_x, scale_y = 1 + rng.uniform(-0.12, 0.12, (2, count))
    move_x, move_y = rng.uniform(-2, 2, (2, count))
    matrix = np.array(
        [
            [np.cos(angle) * scale_x, (shear - np.sin(angle)) * scale_y],
            [np.sin(angle) * scale_x, np.cos(angle) * scale_y],
        ]
    ).astype(np.float32)[..., None, None]
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    row, column = row - center_y, column - center_x
    u = matrix[0, 0] * column + matrix[0, 1] * row + (move_x + center_x)[:, None, None]
    v = matrix[1, 0] * column + matrix[1, 1] * row + (move_y + center_y)[:, None, None]
    left, top = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    right_part, low_part = u - left, v - top
    padded = np.pad(images.astype(np.float32), ((0, 0), (_MARGIN,) * 2, (_MARGIN,) * 2))
    frame = np.arange(count)[:, None, None]

    def pixel(y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        y = np.clip(y + _MARGIN, 0, height + 2 * _MARGIN - 1)
        x = np.clip(x + _MARGIN, 0, width + 2 * _MARGIN - 1)
        return np.asarray(padded[frame, y, x])

    upper = pixel(top, left) * (1 - right_part) + pixel(top, left + 1) * right_part
    lower = pixel(top + 1, left) * (1 - right_part) + pixel(top + 1, left + 1) * right_part
    mixed = upper * (1 - low_part) + lower * low_part
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
