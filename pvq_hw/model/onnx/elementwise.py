"""Lowering of matrix products, element-wise operations, branches and the network's end."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import bits_for
from pvq_hw.model.model import Add, Affine, Clip, Concat, Dense, Quantize, Relu, Sign
from pvq_hw.model.onnx.lowering import ENDS, Lowering, Op, Steps, View, handles
from pvq_hw.model.onnx.pointwise import lower_function

__all__ = ["affine", "affined", "as_steps"]

Array = npt.NDArray[Any]


# -- matrix products ----------------------------------------------------------------------------


def _dense(low: Lowering, op: Op, x: View, weight: Array, addend: Array | None,
           shape: tuple[int, ...], batch: int) -> None:  # fmt: skip
    """Emits ``weight @ x + addend``: weight (M, N) in the file's order of the N activations."""
    rows, columns = weight.shape
    if x.index.size != columns:
        op.refuse(f"must have weights for {x.index.size} activations, not {columns}")
    low.charge(op, weights=weight.size)
    permuted = np.empty(weight.shape)
    permuted[:, x.index.ravel()] = weight
    bias = np.zeros(rows)
    if addend is not None:
        if addend.ndim > len(shape) or not _fits(addend.shape, shape):
            op.refuse(f"must have a C that broadcasts to {rows} outputs, not {addend.shape}")
        bias = np.broadcast_to(addend, shape).reshape(rows).copy()
    output = low.emit(op, Dense, (x.tensor,), (rows,), weight=permuted, bias=bias)
    low.put(op, View(output, np.arange(rows).reshape(shape), batch))


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether ``shape`` broadcasts to exactly ``target``."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


@handles("Gemm")
def _gemm(low: Lowering, op: Op) -> None:
    alpha, beta = float(op.attribute("alpha", 1.0)), float(op.attribute("beta", 1.0))
    trans = [bool(op.attribute("transA", 0)), bool(op.attribute("transB", 0))]
    addend = low.weights(op, 2, "C") * beta if low.given(op, 2) else None
    on_left = low.constant(op, 0) is not None
    x = low.view(op, 1 if on_left else 0)
    weight = low.weights(op, 0 if on_left else 1, "weights", 2)
    if len(x.shape) != 2:
        op.refuse(f"must read frames of one dimension, not of {len(x.shape) - 1}; flatten before")
    # y = A' B' with frames along the rows of A' or the columns of B'.
    frames = x.batch ^ trans[1 if on_left else 0]
    if frames != int(on_left):
        op.refuse("must not sum over the frames; check transA and transB")
    matrix = weight if trans[0 if on_left else 1] != on_left else weight.T
    rows = len(matrix)
    shape = (rows, 1) if on_left else (1, rows)
    _dense(low, op, x, alpha * matrix, addend, shape, int(on_left))


@handles("MatMul")
def _matmul(low: Lowering, op: Op) -> None:
    on_left = low.constant(op, 0) is not None
    x = low.view(op, 1 if on_left else 0)
    weight = low.weights(op, 0 if on_left else 1, "weights", 2)
    axis = len(x.shape) - (2 if on_left else 1)
    if axis < 0 or axis == x.batch or x.shape[axis] != x.index.size:
        op.refuse(f"must multiply one vector per frame, not the shape {x.shape[1:]}")
    matrix = weight if on_left else weight.T
    shape = tuple(len(matrix) if i == axis else 1 for i in range(len(x.shape)))
    _dense(low, op, x, matrix, None, shape, x.batch)


# -- element by element -------------------------------------------------------------------------


def affine(low: Lowering, op: Op, x: View, scale: Array | float, offset: Array | float) -> None:
    """Sets the output to ``x * scale + offset``; the constants broadcast against the file's shape
    of ``x``."""
    low.put(op, affined(low, op, x, scale, offset))


def affined(low: Lowering, op: Op, x: View, scale: Array | float, offset: Array | float) -> View:
    """Emits ``x * scale + offset`` likewise."""
    constants = [np.asarray(scale, dtype=np.float64), np.asarray(offset, dtype=np.float64)]
    rank = max(len(x.shape), *(c.ndim for c in constants))
    grown = rank - len(x.shape)
    index = x.index.reshape((1,) * grown + x.shape)
    if any(not _fits(c.shape, index.shape) for c in constants):
        op.refuse(f"must have a constant that broadcasts to {index.shape}")
    low.charge(op, activations=2 * index.size)
    shape = low.shapes[x.tensor]
    vectors = []
    for constant in constants:
        if not np.isfinite(constant).all():
            op.refuse("must have a finite constant, but it holds NaN, infinities or divides by 0")
        vector = np.empty(index.size)
        vector[index.ravel()] = np.broadcast_to(constant, index.shape).ravel()
        vectors.append(vector)
    channels = [v.reshape(-1, shape[-1]) for v in vectors]
    if all((c == c[0]).all() for c in channels):
        vectors = [c[0].copy() for c in channels]
    output = low.emit(op, Affine, (x.tensor,), shape, scale=vectors[0], offset=vectors[1])
    return replace(x, tensor=output, index=index, batch=x.batch + grown)


@handles("Add", "Sub", "Mul", "Div")
def _arithmetic(low: Lowering, op: Op) -> None:
    left, right = low.constant(op, 0), low.constant(op, 1)
    if left is not None and right is not None:
        low.put(op, _fold(low, op, left, right))
    elif left is None and right is None:
        if op.kind == "Add":
            _add(low, op)
        else:
            lower_function(low, op)
    else:
        which = 0 if left is not None else 1
        c = low.weights(op, which, "operands")
        x = low.view(op, 1 - which)
        if op.kind == "Div" and which == 0:
            lower_function(low, op)
            return
        if op.kind == "Div" and not c.all():
            op.refuse("must not divide by 0")
        scale: Array | float = 1.0
        offset: Array | float = 0.0
        if op.kind == "Add":
            offset = c
        elif op.kind == "Sub":
            scale, offset = (1.0, -c) if which == 1 else (-1.0, c)
        else:
            scale = c if op.kind == "Mul" else _inverse(c)
        affine(low, op, x, scale, offset)


def _inverse(c: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1.0 / c


def _fold(low: Lowering, op: Op, left: Array, right: Array) -> Array:
    """Arithmetic of two constants, of real numbers or of integers, which give shapes."""
    whole = left.dtype == right.dtype == np.int64
    if not whole:
        left, right = low.weights(op, 0, "operands"), low.weights(op, 1, "operands")
    try:
        shape = np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        op.refuse(f"must have operands that broadcast, not {left.shape} and {right.shape}")
    low.charge(op, weights=math.prod(shape))
    if whole and op.kind in ("Div", "Mod") and not right.all():
        op.refuse("must not divide by 0")
    functions: dict[str, Any] = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Mod": np.mod,
        "Div": _truncated if whole else np.divide,
    }  # fmt: skip
    with np.errstate(all="ignore"):
        return np.asarray(functions[op.kind](left, right))


def _truncated(a: Array, b: Array) -> Array:
    """The quotient of integers towards 0."""
    return np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


@handles("Mod")
def _modulo(low: Lowering, op: Op) -> None:
    left, right = (low.need_constant(op, i, "integers") for i in (0, 1))
    if not left.dtype == right.dtype == np.int64 or op.attribute("fmod", 0):
        op.refuse("must be of integers, by the rule of fmod 0")
    low.put(op, _fold(low, op, left, right))


@handles("Sum", "Mean")
def _sum(low: Lowering, op: Op) -> None:
    """The sum or mean of branches."""
    count = len(op.proto.input)
    total = low.view(op, 0)
    for i in range(1, count):
        total = _added(low, op, total, low.view(op, i))
    if op.kind == "Mean" and count > 1:
        affine(low, op, total, 1.0 / count, 0.0)
    else:
        low.put(op, total)


def _add(low: Lowering, op: Op) -> None:
    low.put(op, _added(low, op, low.view(op, 0), low.view(op, 1)))


def _added(low: Lowering, op: Op, a: View, b: View) -> View:
    """The sum of two branches."""
    if a.tensor == b.tensor and np.array_equal(a.index, b.index):
        return affined(low, op, a, 2.0, 0.0)
    if a.shape != b.shape or a.batch != b.batch:
        op.refuse(f"must add two branches of one shape, not {a.shape[1:]} and {b.shape[1:]}")
    if not np.array_equal(a.index, b.index):
        op.refuse("must add two branches whose activations are in the same order")
    shape = max(low.shapes[a.tensor], low.shapes[b.tensor], key=len)
    return replace(a, tensor=low.emit(op, Add, (a.tensor, b.tensor), shape))


@handles("Relu")
def _relu(low: Lowering, op: Op) -> None:
    x = low.view(op, pads=True)
    output = low.emit(op, Relu, (x.tensor,), low.shapes[x.tensor])
    low.nonnegative.add(output)
    low.put_same(op, output, x)


@handles("Sign")
def _sign(low: Lowering, op: Op) -> None:
    x = low.view(op)
    low.put_same(op, low.emit(op, Sign, (x.tensor,), low.shapes[x.tensor]), x)


def as_steps(low: Lowering, op: Op, x: View, steps: Steps) -> None:
    """Emits the rounding of ``x`` to what a file stores, and sets the output to its integers."""
    least, most = steps.low - steps.zero, steps.high - steps.zero
    if not least <= 0 <= most or least == most:
        op.refuse(f"must have a zero point from {steps.low} to {steps.high}, not {steps.zero}")
    if bits_for(least, most) > 16:
        op.refuse(f"must give activations of at most 16 bits, not {bits_for(least, most)}")
    shape = low.shapes[x.tensor]
    output = low.emit(op, Quantize, (x.tensor,), shape, scale=steps.scale, low=least, high=most)
    if least == 0 or x.tensor in low.nonnegative:
        low.nonnegative.add(output)
    low.put(op, replace(x, tensor=output, steps=steps))


def _clip_steps(low: Lowering, op: Op, x: View, steps: Steps) -> None:
    """A Clip of integers, which narrows what they may be."""
    bounds = [steps.low, steps.high]
    for i in (1, 2):
        if low.given(op, i):
            value = low.need_constant(op, i, "bounds")
            if value.size != 1 or value.dtype != np.int64:
                op.refuse(f"must have bounds that are single integers, not {value.shape}")
            bounds[i - 1] = int(np.clip(value.reshape(()), steps.low, steps.high))
    as_steps(low, op, x, replace(steps, low=bounds[0], high=bounds[1]))


@handles("Clip")
def _clip(low: Lowering, op: Op) -> None:
    value = low.values[op.proto.input[0]]
    if isinstance(value, View) and value.steps is not None:
        _clip_steps(low, op, low.view(op, pads=True, steps=True), value.steps)
        return
    bounds = []
    for i, name in ((1, "min"), (2, "max")):
        infinite = -math.inf if i == 1 else math.inf
        value = op.attribute(name, infinite)
        if low.given(op, i):
            value = low.need_constant(op, i, "bounds")
            if value.size != 1 or value.dtype != np.float64:
                op.refuse(f"must have bounds that are single real numbers, not {value.shape}")
            value = value.reshape(())
        bounds.append(float(value))
    lowest, highest = bounds
    if not lowest < highest:
        op.refuse(f"must have a min below its max, not {lowest} and {highest}")
    x = low.view(op, pads=lowest <= 0 <= highest)
    if highest >= 3.0e38 and lowest <= -3.0e38:
        low.put(op, x)
        return
    shape = low.shapes[x.tensor]
    if lowest == 0 and highest >= 3.0e38:
        output = low.emit(op, Relu, (x.tensor,), shape)
    else:
        low_, high_ = (-math.inf if lowest <= -3.0e38 else lowest), highest
        high_ = math.inf if high_ >= 3.0e38 else high_
        output = low.emit(op, Clip, (x.tensor,), shape, low=low_, high=high_)
    if lowest >= 0:
        low.nonnegative.add(output)
    low.put_same(op, output, x)


@handles("Scaler")
def _scaler(low: Lowering, op: Op) -> None:
    """``(x - offset) * scale``, as scikit-learn's converter writes its scalers."""
    x = low.view(op)
    offset, scale = (np.asarray(op.attribute(name, [default]), dtype=np.float64)
                     for name, default in (("offset", 0.0), ("scale", 1.0)))  # fmt: skip
    if len(x.shape) != 2 or any(c.size not in (1, x.index.size) for c in (offset, scale)):
        op.refuse(f"must have an offset and a scale for each of {x.index.size} inputs, or for all")
    affine(low, op, x, scale, -offset * scale)


# -- branches -----------------------------------------------------------------------------------


@handles("Concat")
def _concat(low: Lowering, op: Op) -> None:
    count = len(op.proto.input)
    constants = [low.constant(op, i) for i in range(count)]
    if all(c is not None for c in constants):
        low.charge(op, weights=sum(c.size for c in constants if c is not None))
        try:
            low.put(op, np.concatenate(constants, axis=int(op.attribute("axis", 0))))  # type: ignore[arg-type]
        except ValueError:
            op.refuse("must have constants whose shapes agree")
        return
    views = [low.view(op, i) for i in range(count)]
    first = views[0]
    rank = len(first.shape)
    axis = int(op.attribute("axis", 1))
    axis += rank if axis < 0 else 0
    if any(len(v.shape) != rank or v.batch != first.batch for v in views):
        op.refuse("must join branches of one rank")
    if not 0 <= axis < rank or axis == first.batch:
        op.refuse(f"must join branches along their channels, not along axis {axis}")
    if len(views) == 1:
        low.put(op, first)
    elif all(v.shape[axis] == v.index.size for v in views):
        _concat_vectors(low, op, views, axis)
    else:
        _concat_maps(low, op, views, axis)


def _concat_vectors(low: Lowering, op: Op, views: list[View], axis: int) -> None:
    starts = np.cumsum([0, *(v.index.size for v in views)])
    output = low.emit(op, Concat, tuple(v.tensor for v in views), (int(starts[-1]),))
    parts = [v.index + start for v, start in zip(views, starts[:-1], strict=True)]
    low.put(op, View(output, np.concatenate(parts, axis=axis), views[0].batch))


def _concat_maps(low: Lowering, op: Op, views: list[View], axis: int) -> None:
    maps = [low.as_map(op, v) for v in views]
    if axis != 1 or len({m[:2] for m in maps}) != 1:
        op.refuse("must join maps of one size along their channels (axis 1)")
    shape = (*maps[0][:2], sum(m[2] for m in maps))
    output = low.emit(op, Concat, tuple(v.tensor for v in views), shape)
    low.put_map(op, output, len(views[0].shape))


# -- the network's end, and operations that do nothing here -------------------------------------


@handles(*ENDS)
def _end(low: Lowering, op: Op) -> None:
    if op.kind == "Sigmoid" and op.proto.output[0] not in low.ends:
        lower_function(low, op)
        return
    x = low.view(op, dropped=True)
    if op.kind not in ("Sigmoid", "ZipMap") and not x.dropped:
        default = 0 if op.kind == "ArgMax" else (1 if low.file.opset < 13 else -1)
        axis = int(op.attribute("axis", default))
        axis += len(x.shape) if axis < 0 else 0
        coerced = op.kind != "ArgMax" and low.file.opset < 13
        wide = x.shape[axis:] if coerced else x.shape[axis : axis + 1]
        if axis == x.batch or math.prod(wide) != x.index.size:
            op.refuse(f"must be over all of a frame's outputs, not over axis {axis}")
    low.dropped.append(op.kind)
    low.put(op, replace(x, dropped=True))


@handles("Identity", "Dropout", "Cast")
def _identity(low: Lowering, op: Op) -> None:
    constant = low.constant(op, 0)
    if op.kind == "Dropout" and low.given(op, 2):
        training = low.need_constant(op, 2, "training_mode")
        if training.any():
            op.refuse("must have training_mode 0: the network is used for inference")
    if constant is None:
        x = low.view(op, pads=True, dropped=True, steps=op.kind != "Cast")
        if op.kind == "Cast" and not x.dropped and op.attribute("to", 1) not in (1, 10, 11, 16):
            op.refuse("must give floating point: activations are quantized by pvq-hw, not here")
        low.put(op, x)
    else:
        low.put(op, _cast(op, constant))


def _cast(op: Op, constant: Array) -> Array:
    if op.kind != "Cast":
        return constant
    to = op.attribute("to", 1)
    if to in (1, 10, 11, 16):
        return constant.astype(np.float64)
    if to in (6, 7) and np.abs(constant).max(initial=0) < 2**53:
        return constant.astype(np.int64)
    return op.refuse("must give floating point, int32 or int64")
