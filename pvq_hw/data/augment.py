"""Distorted copies of calibration inputs: more of them than a training set holds.

A network is surest of the inputs that it was trained on, so these show least of what rounding its
weights does; distorted ones are nearer to what it meets later. No labels are needed, since
calibration follows the float network, whatever it says.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pvq_hw.errors import InputError

__all__ = ["DEFAULTS", "augmented", "parse_kinds"]

DEFAULTS = {
    "shift": 2.0,
    "rotate": 20.0,
    "scale": 0.12,
    "shear": 0.2,
    "mirror": 0.5,
    "noise": 0.05,
    "mix": 0.5,
}
"""How much at most: pixels, degrees, part of the size, slope, probability, part of the inputs'
standard deviation, part that is another input's."""

_MOST = {
    "shift": 1024.0, "rotate": 180.0, "scale": 0.9, "shear": 2.0, "mirror": 1.0, "noise": 10.0,
    "mix": 1.0,
}  # fmt: skip
_UNMOVED = ("noise", "mix")  # kinds that need no height and width
_PART = 0.7  # of the frames are distorted, the others stay
_CHUNK = 1 << 22  # values at a time

FloatArray = npt.NDArray[np.float32]


def parse_kinds(text: str) -> dict[str, float]:
    """``"shift,rotate=10"`` as distortions and how much of each.

    Raises InputError for unknown names, and amounts that are no numbers above 0 or too large.
    """
    found: dict[str, float] = {}
    for item in text.split(","):
        name, equals, amount = item.strip().partition("=")
        if name not in DEFAULTS:
            raise InputError(
                f"Augmentation must be some of {', '.join(DEFAULTS)}, not {item.strip()[:40]!r}"
            )
        try:
            value = float(amount) if equals else DEFAULTS[name]
        except ValueError:
            value = float("nan")
        if not 0 < value <= _MOST[name]:
            raise InputError(
                f"Augmentation {name} must be a number above 0 and at most {_MOST[name]:g}, "
                f"not {amount[:40]!r}"
            )
        found[name] = value
    return found


def augmented(
    x: npt.NDArray[np.generic],
    kinds: str | Mapping[str, float],
    *,
    axes: Sequence[int] | None = None,
    seed: int = 0,
    frames: int | None = None,
    part: float = _PART,
) -> npt.NDArray[np.generic]:
    """Inputs of which a part are distorted at random.

    Maps are turned, scaled, sheared and moved around their center together, with bilinear
    interpolation; beyond the border is what lies on it. Before that, an input may be mixed with
    another of ``x``: ``(1 - w) a + w b`` with w uniform up to the amount (H. Zhang et al., "mixup:
    beyond empirical risk minimization", arXiv 1710.09412, without its labels). Integers are
    rounded, and nothing leaves the range of ``x``.

    Parameters
    ----------
    x : array (frames, ...)
    kinds : str or mapping
        As `parse_kinds` reads or gives them: ``"shift"``, ``"rotate"``, ``"scale"``, ``"shear"``,
        ``"mirror"`` (left and right), ``"noise"`` and ``"mix"``, each with an amount of its own
        after ``=``.
    axes : sequence of int, optional
        Where height, width and channels are among the axes of a frame; by default a frame of two
        axes is (height, width), one of three (channels, height, width).
    seed : int
    frames : int, optional
        How many to give; where there are fewer, they are taken again, in the same order.
    part : float
        Part of the frames that are distorted.

    Returns
    -------
    array (frames, ...), of the dtype of ``x``; the same for the same arguments.
    """
    chosen = parse_kinds(kinds) if isinstance(kinds, str) else dict(kinds)
    count = len(x) if frames is None else frames
    result = x[np.arange(count) % len(x)]
    rng = np.random.default_rng(seed)
    warped = np.flatnonzero(rng.random(count) < part)
    moved = {n: a for n, a in chosen.items() if n not in _UNMOVED}
    order = _order(x.shape[1:], axes, moved)
    low, high, deviation = x.min(), x.max(), float(x.std(dtype=np.float64))
    step = max(1, _CHUNK // max(1, x[0].size))
    for start in range(0, len(warped), step):
        some = warped[start : start + step]
        values = result[some].astype(np.float32)
        if "mix" in chosen:
            values = _mixed(values, x, chosen["mix"], rng)
        if order is not None:
            back = 1 + np.argsort(order)
            maps = values.transpose(0, *(1 + a for a in order))
            shape = maps.shape
            maps = _warped(maps.reshape(*shape[:3], -1), moved, rng)
            values = maps.reshape(shape).transpose(0, *back)
        if "noise" in chosen:
            # Uniform, since the tails of a normal distribution differ by machine in last digits.
            reach = np.float32(chosen["noise"] * deviation * 3**0.5)
            values = values + reach * (2 * rng.random(values.shape, dtype=np.float32) - 1)
        if x.dtype.kind != "f":
            values = np.rint(values)
        result[some] = np.clip(values, low, high).astype(x.dtype)
    return result


def _mixed(
    values: FloatArray, x: npt.NDArray[np.generic], most: float, rng: np.random.Generator
) -> FloatArray:
    """Each input with up to a part ``most`` of one of ``x`` in its place."""
    others = x[rng.integers(0, len(x), len(values))].astype(np.float32)
    part = (most * rng.random(len(values))).astype(np.float32)
    part = part.reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray((1 - part) * values + part * others)


def _order(
    shape: tuple[int, ...], axes: Sequence[int] | None, moved: Mapping[str, float]
) -> tuple[int, ...] | None:
    """The axes of a frame as height, width and the rest; None where nothing moves."""
    if not moved:
        return None
    if axes is None:
        axes = {2: (0, 1), 3: (1, 2, 0)}.get(len(shape), ())
    if len(axes) < 2 or min(shape[axes[0]], shape[axes[1]]) < 2:
        raise InputError(
            f"Augmentation {min(moved)} must have inputs of a height and a width, "
            f"not of the shape {shape}; noise and mix take any"
        )
    return tuple(axes)


def _warped(maps: FloatArray, kinds: Mapping[str, float], rng: np.random.Generator) -> FloatArray:
    """Every map (frames, height, width, channels) by a random affine map around its center."""
    count, height, width = maps.shape[:3]

    def drawn(kind: str, size: int) -> npt.NDArray[np.float64]:
        return kinds.get(kind, 0.0) * (2 * rng.random((size, count)) - 1)

    angle, shear = np.deg2rad(drawn("rotate", 1)[0]), drawn("shear", 1)[0]
    scale_x, scale_y = 1 + drawn("scale", 2)
    move_x, move_y = drawn("shift", 2)
    flip = np.where(rng.random(count) < kinds.get("mirror", 0.0), -1.0, 1.0)
    sine, cosine = np.sin(angle), np.cos(angle)
    # The precision that interpolation has, so that last digits of sines make no difference.
    matrix = np.array([[cosine * scale_x * flip, shear - sine], [sine * flip, cosine * scale_y]])
    matrix[0, 1] *= scale_y
    matrix[1, 0] *= scale_x
    (xx, xy), (yx, yy) = (np.rint(matrix * 1024) / 1024).astype(np.float32)[..., None, None]
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    row, column = np.mgrid[0:height, 0:width].astype(np.float32)
    row, column = row - center_y, column - center_x
    u = xx * column + xy * row + (np.rint(move_x * 64) / 64 + center_x)[:, None, None]
    v = yx * column + yy * row + (np.rint(move_y * 64) / 64 + center_y)[:, None, None]
    u = np.clip(u, 0, width - 1).astype(np.float32)
    v = np.clip(v, 0, height - 1).astype(np.float32)
    left = np.minimum(u.astype(np.int64), width - 2)
    top = np.minimum(v.astype(np.int64), height - 2)
    right_part, low_part = (u - left)[..., None], (v - top)[..., None]
    frame = np.arange(count)[:, None, None]
    upper = maps[frame, top, left] * (1 - right_part) + maps[frame, top, left + 1] * right_part
    lower = maps[frame, top + 1, left] * (1 - right_part)
    lower = lower + maps[frame, top + 1, left + 1] * right_part
    return np.asarray(upper * (1 - low_part) + lower * low_part, dtype=np.float32)
