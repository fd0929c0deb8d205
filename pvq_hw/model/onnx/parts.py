"""Lowering of Slice and Split: parts of activations, and of constants."""

import math
from dataclasses import replace

import numpy as np

from pvq_hw.model.model import Part
from pvq_hw.model.onnx.lowering import Lowering, Op, View, handles

__all__ = ["take_part"]


def take_part(low: Lowering, op: Op, x: View, axis: int, start: int, stop: int) -> View:
    """Activations ``start`` to ``stop - 1`` along an axis of the file's shape of ``x``.

    They must be as many of every so many in the channel-last tensor, which a slice of one of its
    axes is: that is what a circuit picks while a frame goes by.
    """
    if axis == x.batch:
        op.refuse("must keep all frames")
    index = np.take(x.index, range(start, stop), axis=axis)
    if index.size == x.index.size:
        return x
    places = np.sort(index.ravel())
    shape, size = low.shapes[x.tensor], x.index.size
    for k, length in enumerate(shape):
        inner = math.prod(shape[k + 1 :])
        period = length * inner
        first, count = int(places[0]) % period, index.size * period // size
        runs = np.arange(0, size, period)[:, None] + np.arange(first, first + count)
        if first + count <= period and np.array_equal(runs.ravel(), places):
            break
    else:
        op.refuse("must take a part of one axis of its activations, not of several in one")
    whole = count % inner == 0
    part = (*shape[:k], count // inner, *shape[k + 1 :]) if whole else (index.size,)
    fields = {"start": first, "count": count, "period": period}
    output = low.emit(op, Part, (x.tensor,), part, **fields)
    if x.tensor in low.nonnegative:
        low.nonnegative.add(output)
    return replace(x, tensor=output, index=np.searchsorted(places, index))


@handles("Slice")
def _slice(low: Lowering, op: Op) -> None:
    constant = low.constant(op, 0)
    x = None if constant is not None else low.view(op, steps=True)
    rank = low.values[op.proto.input[0]].index.ndim if x is not None else constant.ndim  # type: ignore[union-attr]
    ranges = _ranges(low, op, rank)
    if constant is not None:
        cut = [slice(None)] * rank
        for axis, (start, stop, step) in ranges.items():
            cut[axis] = slice(start, stop, step)
        low.put(op, constant[tuple(cut)])
        return
    assert x is not None
    for axis, (start, stop, step) in ranges.items():
        if step != 1:
            op.refuse(f"must slice activations by steps of 1, not {step}")
        begin, end, _ = slice(start, stop).indices(x.shape[axis])
        if axis == x.batch and (begin, end) == (0, 1):
            # Frames are 1 here, and in the file as many as there are.
            if start != 0 or stop < (low.batch or (1 << 31) - 1):
                op.refuse("must keep all frames")
            continue
        if begin >= end:
            op.refuse(f"must keep something of axis {axis}")
        x = take_part(low, op, x, axis, begin, end)
    low.put(op, x)


def _ranges(low: Lowering, op: Op, rank: int) -> dict[int, tuple[int, int, int]]:
    """Start, end and step by the axis."""
    if low.file.opset < 10:
        starts, ends = op.attribute("starts", []), op.attribute("ends", [])
        axes, steps = op.attribute("axes", list(range(len(starts)))), [1] * len(starts)
    else:
        lists = [low.need_constant(op, i, "ranges").reshape(-1).tolist() if low.given(op, i)
                 else None for i in range(1, 5)]  # fmt: skip
        starts, ends = lists[0] or [], lists[1] or []
        axes = list(range(len(starts))) if lists[2] is None else lists[2]
        steps = [1] * len(starts) if lists[3] is None else lists[3]
    if not len(starts) == len(ends) == len(axes) == len(steps) or not all(steps):
        op.refuse("must have a start, an end and a step other than 0 for each axis")
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -rank <= axis < rank or axis % rank in found:
            op.refuse(f"must slice each axis of its data once, not {axis}")
        # Before the first value, where steps are backwards, is no place that Python's slices have.
        stop = None if step < 0 and end < -(1 << 31) else int(end)
        found[axis % rank] = (int(start), stop, int(step))
    return found  # type: ignore[return-value]


@handles("Split")
def _split(low: Lowering, op: Op) -> None:
    x = low.view(op, steps=True)
    count, rank = len(op.proto.output), len(x.shape)
    axis = int(op.attribute("axis", 0))
    if not -rank <= axis < rank or axis % rank == x.batch:
        op.refuse(f"must split an axis of its activations, not {axis}")
    length = x.shape[axis]
    sizes = op.attribute("split", None)
    if low.given(op, 1):
        sizes = low.need_constant(op, 1, "sizes").reshape(-1).tolist()
    if sizes is None:
        each = -(-length // count)
        sizes = [min(each, length - k * each) for k in range(count)]
    if len(sizes) != count or sum(sizes) != length or min(sizes) < 1:
        op.refuse(f"must split {length} activations into {count} parts, not {str(sizes)[:60]}")
    start = 0
    for which, size in enumerate(sizes):
        if op.proto.output[which]:
            low.put(op, take_part(low, op, x, axis % rank, start, start + size), which)
        start += size
