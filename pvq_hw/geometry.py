"""How a window slides over a map, channels last; shared by convolutions and poolings."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.documents import Document
from pvq_hw.errors import InputError

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry(Document):
    """A window and its way over a map.

    Parameters
    ----------
    input_shape : (height, width, channels)
        1-D operations have height 1.
    kernel, stride, dilation : (height, width)
    pads : ((top, bottom), (left, right))
    """

    input_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        flat = (*self.input_shape, *self.kernel, *self.stride, *self.dilation)
        if min(flat) < 1 or min(*self.pads[0], *self.pads[1]) < 0:
            raise InputError(f"A window must have sizes of at least 1, not {self}")
        if min(self.output_size) < 1:
            raise InputError(f"A window must fit into its padded map: {self}")

    @property
    def span(self) -> tuple[int, int]:
        """Height and width that a dilated window covers."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def single(self) -> bool:
        """Whether the window is one value high and wide and sees every value once."""
        steps = (*self.kernel, *self.stride)
        return steps == (1, 1, 1, 1) and not any(map(any, self.pads))

    @cached_property
    def output_size(self) -> tuple[int, int]:
        """Rows and columns of window positions."""
        h, w = (
            (size + sum(pad) - span) // step + 1
            for size, pad, span, step in zip(
                self.input_shape[:2], self.pads, self.span, self.stride, strict=True
            )
        )
        return h, w

    def windows(self, x: npt.NDArray[Any], fill: float = 0) -> npt.NDArray[Any]:
        """``x`` (frames, ...) -> a view (frames, rows, columns, channels, kh, kw)."""
        x = x.reshape(len(x), *self.input_shape)
        if any(map(any, self.pads)):
            x = np.pad(x, ((0, 0), *self.pads, (0, 0)), constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(x, self.span, axis=(1, 2))
        (sh, sw), (dh, dw) = self.stride, self.dilation
        return view[:, ::sh, ::sw, :, ::dh, ::dw]

    def columns(self, x: npt.NDArray[Any], groups: int = 1) -> npt.NDArray[Any]:
        """``x`` (frames, ...) -> (groups, frames * rows * columns, kh * kw * channels / groups).

        Within a vector the order is (kernel row, kernel column, channel of the group). A window
        that sees every value by itself gives a view of ``x``.
        """
        if groups == 1 and self.single:
            return x.reshape(1, -1, self.input_shape[2])
        view = self.windows(x)
        f, h, w, c, kh, kw = view.shape
        split = view.reshape(f, h, w, groups, c // groups, kh, kw)
        return split.transpose(3, 0, 1, 2, 5, 6, 4).reshape(groups, f * h * w, -1)

    def counts(self, *, include_pads: bool) -> npt.NDArray[np.int64]:
        """Values that count at every window position, (rows, columns)."""
        if include_pads:
            return np.full(self.output_size, self.kernel[0] * self.kernel[1], dtype=np.int64)
        ones = np.ones((1, *self.input_shape[:2], 1), dtype=np.int64)
        single = Geometry(
            (*self.input_shape[:2], 1), self.kernel, self.stride, self.pads, self.dilation
        )
        return np.asarray(single.windows(ones).sum(axis=(3, 4, 5))[0], dtype=np.int64)
