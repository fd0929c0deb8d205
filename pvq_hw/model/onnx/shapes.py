"""Lowering of what only relabels: Flatten, Reshape, Transpose, and constants that give shapes."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.model.onnx.lowering import Lowering, Op, View, handles

__all__ = ["axes_of"]

Array = npt.NDArray[Any]
_RANK_LIMIT = 8


def _relabel(low: Lowering, op: Op, x: View, shape: tuple[int, ...]) -> None:
    """The same activations as ``shape``, frames first."""
    if len(shape) > _RANK_LIMIT:
        op.refuse(f"must give at most {_RANK_LIMIT} dimensions, not {len(shape)}")
    low.put(op, replace(x, index=x.index.reshape(shape), batch=0))


def _ended(low: Lowering, op: Op) -> bool:
    """After a final operation that was left out, shapes no longer matter."""
    value = low.values[op.proto.input[0]]
    if isinstance(value, View) and value.dropped:
        low.put(op, value)
        return True
    return False


def _frames_first(op: Op, x: View) -> None:
    if x.batch != 0:
        op.refuse("must have the frames on its first axis")


@handles("Flatten")
def _flatten(low: Lowering, op: Op) -> None:
    if _ended(low, op):
        return
    constant = low.constant(op, 0)
    axis = int(op.attribute("axis", 1))
    rank = len(low.values[op.proto.input[0]].shape)
    axis += rank if axis < 0 else 0
    if not 0 <= axis <= rank:
        op.refuse(f"must have an axis of the input, not {axis}")
    if constant is not None:
        low.put(op, constant.reshape(math.prod(constant.shape[:axis]), -1))
        return
    x = low.view(op, steps=True)
    _frames_first(op, x)
    if (axis == 0 and low.batch != 1) or math.prod(x.shape[:axis]) != 1:
        op.refuse(f"must keep the frames apart, and nothing else (axis 1), not axis {axis}")
    _relabel(low, op, x, (1, x.index.size))


@handles("Reshape")
def _reshape(low: Lowering, op: Op) -> None:
    if _ended(low, op):
        return
    target = low.need_constant(op, 1, "shape")
    if target.ndim != 1 or target.dtype != np.int64 or len(target) > _RANK_LIMIT:
        op.refuse(f"must have a shape that is a list of at most {_RANK_LIMIT} integers")
    dims = [int(n) for n in target]
    keep_zeros = bool(op.attribute("allowzero", 0))
    constant = low.constant(op, 0)
    if constant is not None:
        low.put(op, constant.reshape(_resolve(op, dims, constant.shape, keep_zeros)))
        return
    x = low.view(op, steps=True)
    _frames_first(op, x)
    frames = {-1, 1} | ({0} if not keep_zeros else set()) | ({low.batch} if low.batch else set())
    if not dims or dims[0] not in frames:
        op.refuse(f"must keep the frames apart on the first axis, not give the shape {dims}")
    _relabel(low, op, x, _resolve(op, [1, *dims[1:]], x.shape, keep_zeros))


def _resolve(op: Op, dims: list[int], shape: tuple[int, ...], keep_zeros: bool) -> tuple[int, ...]:
    """The target shape with 0 (copy) and -1 (the rest) put in."""
    size = math.prod(shape)
    filled = [shape[i] if n == 0 and not keep_zeros and i < len(shape) else n
              for i, n in enumerate(dims)]  # fmt: skip
    known = math.prod(n for n in filled if n != -1)
    if filled.count(-1) == 1 and known > 0 and size % known == 0:
        filled[filled.index(-1)] = size // known
    if any(n < 1 for n in filled) or math.prod(filled) != size:
        op.refuse(f"must give {size} values, frames not counted, not the shape {str(dims)[:60]}")
    return tuple(filled)


@handles("Transpose")
def _transpose(low: Lowering, op: Op) -> None:
    if _ended(low, op):
        return
    value = low.values[op.proto.input[0]]
    rank = len(value.shape)
    perm = [int(a) for a in op.attribute("perm", range(rank)[::-1])]
    if sorted(perm) != list(range(rank)):
        op.refuse(f"must have a permutation of {rank} axes, not {str(perm)[:60]}")
    if not isinstance(value, View):
        low.put(op, value.transpose(perm))
        return
    x = low.view(op, pads=True, steps=True)
    pads = tuple(x.pads[a] for a in perm) if x.pads else ()
    low.put(op, replace(x, index=x.index.transpose(perm), batch=perm.index(x.batch), pads=pads))


def axes_of(low: Lowering, op: Op, rank: int) -> list[int] | None:
    """The axes of Squeeze, Unsqueeze or ReduceMean and its like: an attribute, later an input."""
    raw = op.attribute("axes", None)
    if low.given(op, 1):
        raw = low.need_constant(op, 1, "axes").reshape(-1).tolist()
    if raw is None:
        return None
    rank += len(raw) if op.kind == "Unsqueeze" else 0
    axes = sorted(int(a) + (rank if a < 0 else 0) for a in raw)
    if len(set(axes)) != len(axes) or any(not 0 <= a < rank for a in axes) or rank > _RANK_LIMIT:
        op.refuse(f"must have axes of {rank} dimensions, each once, not {str(raw)[:60]}")
    return axes


@handles("Squeeze", "Unsqueeze")
def _squeeze(low: Lowering, op: Op) -> None:
    if _ended(low, op):
        return
    value = low.values[op.proto.input[0]]
    grow = op.kind == "Unsqueeze"
    axes = axes_of(low, op, len(value.shape))
    if axes is None:
        if grow or (isinstance(value, View) and low.batch == 1):
            op.refuse("must name its axes")
        batch = value.batch if isinstance(value, View) else -1
        axes = [a for a, n in enumerate(value.shape) if n == 1 and a != batch]
    if not isinstance(value, View):
        low.put(op, _reaxed(op, value, axes, grow))
        return
    x = low.view(op, steps=True)
    if not grow and x.batch in axes:
        op.refuse("must keep the axis of the frames")
    index = _reaxed(op, x.index, axes, grow)
    others = [a for a in range(index.ndim) if a not in axes] if grow else None
    batch = others[x.batch] if others else x.batch - sum(a < x.batch for a in axes)
    low.put(op, replace(x, index=index, batch=batch))


def _reaxed(op: Op, array: Array, axes: list[int], grow: bool) -> Array:
    if not grow and any(array.shape[a] != 1 for a in axes):
        op.refuse(f"must squeeze axes of length 1, not {axes} of {array.shape}")
    return np.expand_dims(array, tuple(axes)) if grow else np.squeeze(array, tuple(axes))


# -- constants ----------------------------------------------------------------------------------


@handles("Constant")
def _constant(low: Lowering, op: Op) -> None:
    held = [a.name for a in op.proto.attribute]
    if held == ["value"]:
        low.put(op, low.file.array(op.attribute("value", None)))
    elif held in (["value_float"], ["value_floats"]):
        low.put(op, np.asarray(op.attribute(held[0], 0), dtype=np.float64))
    elif held in (["value_int"], ["value_ints"]):
        low.put(op, np.asarray(op.attribute(held[0], 0), dtype=np.int64))
    else:
        op.refuse("must hold one dense value of numbers")


@handles("ConstantOfShape")
def _filled(low: Lowering, op: Op) -> None:
    shape = low.need_constant(op, 0, "shape")
    if shape.ndim != 1 or shape.dtype != np.int64 or len(shape) > _RANK_LIMIT or (shape < 0).any():
        op.refuse(f"must have a shape of at most {_RANK_LIMIT} integers of 0 or more")
    dims = [int(n) for n in shape]
    low.charge(op, weights=math.prod(dims))
    value = op.attribute("value", None)
    filler = np.zeros(1) if value is None else low.file.array(value)
    if filler.size != 1:
        op.refuse(f"must have one value, not {filler.size}")
    low.put(op, np.full(dims, filler.reshape(-1)[0]))


@handles("Shape")
def _shape(low: Lowering, op: Op) -> None:
    """The shape of a value; its frames become 0, which Reshape reads as "as it was"."""
    value = low.values[op.proto.input[0]]
    dims = list(value.shape)
    if isinstance(value, View):
        dims[value.batch] = 0
    start, end = op.attribute("start", 0), op.attribute("end", len(dims))
    low.put(op, np.asarray(dims[start:end], dtype=np.int64))


@handles("Gather")
def _gather(low: Lowering, op: Op) -> None:
    data, picks = low.need_constant(op, 0, "data"), low.need_constant(op, 1, "indices")
    axis = int(op.attribute("axis", 0))
    if data.ndim == 0 or not -data.ndim <= axis < data.ndim or picks.dtype != np.int64:
        op.refuse("must pick from an axis of its data by integers")
    low.charge(op, weights=data.size // max(1, data.shape[axis]) * picks.size)
    try:
        low.put(op, np.take(data, picks, axis=axis))
    except IndexError:
        op.refuse("must pick within its data")
