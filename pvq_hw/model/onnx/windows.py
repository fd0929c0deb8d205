"""Lowering of convolutions, poolings, padding and batch normalization."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from pvq_hw.model.model import AveragePool, Conv, MaxPool
from pvq_hw.model.nodes import NO_PADS, Pads
from pvq_hw.model.onnx.elementwise import affine, affined
from pvq_hw.model.onnx.lowering import Lowering, Op, View, handles
from pvq_hw.model.onnx.shapes import axes_of

__all__: list[str] = []

_SIDE_LIMIT = 1 << 16  # of a padded map
_MEAN_RULE = "must be over the height and width of a map, like a GlobalAveragePool"


class _Geometry:
    """Kernel, stride, dilation, pads and output size of a window operation, two-dimensional."""

    def __init__(self, low: Lowering, op: Op, x: View, kernel: tuple[int, ...]) -> None:
        self.input_shape = low.as_map(op, x)
        rank = len(x.shape) - 2
        if len(kernel) != rank or any(not 0 < k <= _SIDE_LIMIT for k in kernel):
            op.refuse(f"must have a kernel of {rank} sides, not {str(kernel)[:60]}")
        line = (1,) * (2 - rank)  # 1-D operations get a height of 1
        self.kernel = (*line, *kernel)
        self.stride = (*line, *op.integers("strides", rank, 1))
        self.dilation = (*line, *op.integers("dilations", rank, 1))
        self.outside = self._outside(x)
        self.own = self._own_pads(op, rank)
        self.pads: Pads = tuple(  # type: ignore[assignment]
            (a + c, b + d) for (a, b), (c, d) in zip(self.own, self.outside, strict=True)
        )
        self.padded = [n + sum(p) for n, p in zip(self.input_shape[:2], self.pads, strict=True)]
        self.span = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        if any(n > _SIDE_LIMIT for n in (*self.padded, *self.span)):
            op.refuse(f"must work on maps of at most {_SIDE_LIMIT} a side")
        if any(s > n for s, n in zip(self.span, self.padded, strict=True)):
            op.refuse(f"must have a kernel within its padded input {tuple(self.padded)}")
        low.charge(op, activations=math.prod(self.padded) * self.input_shape[2])

    def _outside(self, x: View) -> Pads:
        """Pads of height and width by a Pad before."""
        if x.padded_by is None:
            return NO_PADS
        if any(map(any, x.pads[:2])):
            x.padded_by.refuse("must pad height and width only")
        return ((0, 0), x.pads[2]) if len(x.pads) == 3 else (x.pads[2], x.pads[3])

    def _own_pads(self, op: Op, rank: int) -> Pads:
        mode = op.attribute("auto_pad", b"NOTSET")
        if mode in (b"NOTSET", b""):
            ends = op.integers("pads", 2 * rank, 0)
            pairs = [(ends[i], ends[i + rank]) for i in range(rank)]
        elif mode == b"VALID":
            pairs = [(0, 0)] * rank
        elif mode in (b"SAME_UPPER", b"SAME_LOWER"):
            pairs = [self._same(axis, mode == b"SAME_UPPER") for axis in range(2 - rank, 2)]
        else:
            op.refuse(f"must have an auto_pad that the format knows, not {str(mode)[:40]}")
        return ((0, 0), pairs[0]) if rank == 1 else (pairs[0], pairs[1])

    def _same(self, axis: int, upper: bool) -> tuple[int, int]:
        size, stride = self.input_shape[axis] + sum(self.outside[axis]), self.stride[axis]
        span = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        total = max(0, (-(-size // stride) - 1) * stride + span - size)
        small, large = total // 2, total - total // 2
        return (small, large) if upper else (large, small)

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        h, w = (
            (n - s) // t + 1 for n, s, t in zip(self.padded, self.span, self.stride, strict=True)
        )
        return h, w

    def ceil(self) -> bool:
        """Rounds the output size up by padding at the ends; returns whether anything changed."""
        extra = []
        for size, span, stride, n, pads in zip(
            self.padded, self.span, self.stride, self.input_shape[:2], self.pads, strict=True
        ):
            last = -(-(size - span) // stride) * stride  # where the last window begins
            if last >= n + pads[0]:  # not in the padding
                last -= stride
            extra.append(max(0, last + span - size))
        self.pads = tuple((a, b + e) for (a, b), e in zip(self.pads, extra, strict=True))  # type: ignore[assignment]
        self.padded = [n + e for n, e in zip(self.padded, extra, strict=True)]
        return any(extra)

    def fields(self) -> dict[str, Any]:
        """The fields that every window node has."""
        return {
            "input_shape": self.input_shape,
            "kernel": self.kernel,
            "stride": self.stride,
            "pads": self.pads,
            "dilation": self.dilation,
        }


@handles("Conv")
def _conv(low: Lowering, op: Op) -> None:
    x = low.view(op, pads=True)
    weight = low.weights(op, 1, "weights")
    if weight.ndim not in (3, 4) or weight.ndim != len(x.shape):
        op.refuse(f"must be 1-D or 2-D like its input, but has weights {weight.shape}")
    if tuple(op.attribute("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        op.refuse("must have the kernel_shape of its weights")
    geometry = _Geometry(low, op, x, weight.shape[2:])
    groups, outputs = int(op.attribute("group", 1)), len(weight)
    if groups < 1 or outputs % groups or weight.shape[1] * groups != geometry.input_shape[2]:
        op.refuse(
            f"must have weights for {geometry.input_shape[2]} channels in {groups} groups, "
            f"not {weight.shape}"
        )
    bias = low.weights(op, 2, "biases", 1) if low.given(op, 2) else np.zeros(outputs)
    if bias.shape != (outputs,):
        op.refuse(f"must have {outputs} biases, not {bias.shape}")
    low.charge(op, weights=weight.size)
    last = np.moveaxis(weight if weight.ndim == 4 else weight[:, :, None], 1, -1)
    output = low.emit(
        op, Conv, (x.tensor,), (*geometry.output, outputs), **geometry.fields(),
        weight=np.ascontiguousarray(last), bias=bias.copy(), groups=groups,
    )  # fmt: skip
    low.put_map(op, output, len(x.shape))


@handles("MaxPool", "AveragePool")
def _pool(low: Lowering, op: Op) -> None:
    if len(op.proto.output) > 1 and op.proto.output[1]:
        op.refuse("must have one output: indices aren't supported")
    x = low.view(op, pads=True, steps=op.kind == "MaxPool")
    geometry = _Geometry(low, op, x, tuple(op.attribute("kernel_shape", ())))
    if geometry.dilation != (1, 1):
        op.refuse(f"must have dilations of 1, not {geometry.dilation}")
    for pads, k in zip(geometry.own, geometry.kernel, strict=True):
        if max(pads) >= k:
            op.refuse(f"must have pads below its kernel, not {max(pads)} for {k}")
    if op.kind == "MaxPool":
        _max_pool(low, op, x, geometry)
    else:
        _average_pool(low, op, x, geometry)


def _max_pool(low: Lowering, op: Op, x: View, geometry: _Geometry) -> None:
    if geometry.outside != NO_PADS:
        alone = any(max(p) >= k for p, k in zip(geometry.pads, geometry.kernel, strict=True))
        if x.tensor not in low.nonnegative or alone:
            op.refuse("must follow a Pad of zeros only after Relu, and by less than its kernel")
    if op.attribute("ceil_mode", 0):
        geometry.ceil()
    output = low.emit(
        op, MaxPool, (x.tensor,), (*geometry.output, geometry.input_shape[2]), **geometry.fields()
    )
    if x.tensor in low.nonnegative:
        low.nonnegative.add(output)
    low.put_map(op, output, len(x.shape), x.steps)


def _average_pool(low: Lowering, op: Op, x: View, geometry: _Geometry) -> None:
    counted = bool(op.attribute("count_include_pad", 0))
    if geometry.outside != NO_PADS:
        if geometry.own != NO_PADS and not counted:
            op.refuse("must count its padding (count_include_pad 1), since a Pad comes before it")
        counted = True
    before = geometry.pads
    if op.attribute("ceil_mode", 0) and geometry.ceil():
        if counted and before != NO_PADS:
            op.refuse("must have ceil_mode 0 where it counts padding")
        counted = False
    fields = geometry.fields()
    if geometry.pads == NO_PADS:
        counted = False
    output = low.emit(
        op, AveragePool, (x.tensor,), (*geometry.output, geometry.input_shape[2]), **fields,
        count_include_pad=counted,
    )  # fmt: skip
    if x.tensor in low.nonnegative:
        low.nonnegative.add(output)
    low.put_map(op, output, len(x.shape))


@handles("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")
def _global_pool(low: Lowering, op: Op) -> None:
    x = low.view(op)
    rank = len(x.shape)
    if op.kind.startswith("Reduce"):
        axes = axes_of(low, op, rank) or []
        if rank not in (3, 4) or x.batch in axes or len(axes) != rank - 2:
            op.refuse(_MEAN_RULE)
        _reduce(low, op, x, axes)
        return
    low.put_map(op, _global(low, op, x), rank)


def _global(low: Lowering, op: Op, x: View, rule: str = "") -> str:
    h, w, c = shape = low.as_map(op, x, rule)
    cls = MaxPool if "Max" in op.kind or "Min" in op.kind else AveragePool
    output = low.emit(op, cls, (x.tensor,), (1, 1, c), input_shape=shape, kernel=(h, w))
    if x.tensor in low.nonnegative:
        low.nonnegative.add(output)
    return output


def _reduce(low: Lowering, op: Op, x: View, axes: list[int]) -> None:
    """The mean, sum or extreme over height and width, wherever the channels are."""
    if op.kind == "ReduceMin":  # of what is negated, the largest
        x = affined(low, op, x, -1.0, 0.0)
    (channel,) = {*range(len(x.shape))} - {x.batch, *axes}
    turned = replace(x, index=x.index.transpose(x.batch, channel, *axes), batch=0)
    output = _global(low, op, turned, _MEAN_RULE)
    kept = range(len(x.shape)) if op.attribute("keepdims", 1) else sorted((x.batch, channel))
    shape = [x.shape[a] if a == channel else 1 for a in kept]
    found = View(output, np.arange(x.shape[channel]).reshape(shape), list(kept).index(x.batch))
    factor = {"ReduceMin": -1.0, "ReduceSum": math.prod(x.shape[a] for a in axes)}.get(op.kind)
    if factor is None:
        low.put(op, found)
    else:
        affine(low, op, found, factor, 0.0)


@handles("Pad")
def _pad(low: Lowering, op: Op) -> None:
    x = low.view(op, pads=True)
    mode = op.attribute("mode", b"constant")
    if mode != b"constant":
        op.refuse(f"must have the mode constant, not {str(mode)[:40]}")
    value = op.attribute("value", 0.0)
    if low.given(op, 2):
        value = low.need_constant(op, 2, "value")
    if np.any(value):
        op.refuse("must pad with 0")
    if low.given(op, 3):
        op.refuse("must give pads for all axes, without the input axes")
    raw = (
        low.need_constant(op, 1, "pads").tolist() if low.given(op, 1) else op.attribute("pads", [])
    )
    rank = len(x.shape)
    if len(raw) != 2 * rank or any(not 0 <= p <= _SIDE_LIMIT for p in raw):
        op.refuse(f"must have {2 * rank} pads of 0 or more, not {str(raw)[:60]}")
    pairs = [(int(raw[i]), int(raw[i + rank])) for i in range(rank)]
    if not any(map(any, pairs)):
        low.put(op, x)
        return
    if any(pairs[x.batch]):
        op.refuse("must not pad the axis of the frames")
    before = x.pads or ((0, 0),) * rank
    total = tuple((a + c, b + d) for (a, b), (c, d) in zip(before, pairs, strict=True))
    low.put(op, replace(x, pads=total, padded_by=op))


@handles("BatchNormalization")
def _batch_norm(low: Lowering, op: Op) -> None:
    if op.attribute("training_mode", 0):
        op.refuse("must have training_mode 0: the network is used for inference")
    x = low.view(op)
    if x.batch != 0 or len(x.shape) < 2:
        op.refuse("must read (N, C, ...)")
    scale, offset, mean, variance = (
        low.weights(op, i, what, 1)
        for i, what in ((1, "scales"), (2, "biases"), (3, "means"), (4, "variances"))
    )
    if any(a.shape != (x.shape[1],) for a in (scale, offset, mean, variance)):
        op.refuse(f"must have {x.shape[1]} scales, biases, means and variances")
    spread = variance + float(op.attribute("epsilon", 1e-5))
    if not (spread > 0).all():
        op.refuse("must have variances + epsilon above 0")
    gain = scale / np.sqrt(spread)
    shape = (-1, *(1,) * (len(x.shape) - 2))
    affine(low, op, x, gain.reshape(shape), (offset - mean * gain).reshape(shape))
