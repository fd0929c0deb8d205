"""Lowering of quantized files: QuantizeLinear and DequantizeLinear, and ONNX Runtime's operators
on integers, which are taken as the operators on real values between the two."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from pvq_hw.model.onnx.elementwise import affine, as_steps
from pvq_hw.model.onnx.lowering import STANDARD, Lowering, Op, Steps, View, handlers, handles

__all__: list[str] = []

Array = npt.NDArray[Any]
_MICROSOFT = ("com.microsoft",)
_LIMITS: dict[int, tuple[int, int]] = {
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.INT32: (-(1 << 31), (1 << 31) - 1),
}


# -- scales and zero points ---------------------------------------------------------------------


def _grid(low: Lowering, op: Op, i: int) -> tuple[Array, Array]:
    """The scales that are input ``i`` and the zero points after it, of one shape."""
    scale = low.weights(op, i, "scales")
    if scale.ndim > 1 or not (scale > 0).all():
        op.refuse("must have scales that are positive numbers, one or one for each channel")
    if not low.given(op, i + 1):
        return scale, np.zeros(scale.shape, dtype=np.int64)
    zero = low.need_constant(op, i + 1, "zero points")
    if zero.dtype != np.int64 or zero.size not in (1, scale.size):
        op.refuse("must have a zero point for each scale, of an integer type")
    return scale, np.broadcast_to(zero.reshape(zero.shape if zero.ndim else (1,)).ravel()
                                  if scale.ndim else zero.reshape(()), scale.shape)  # fmt: skip


def _limits(low: Lowering, op: Op, i: int) -> tuple[int, int]:
    """Smallest and largest integer of the type of the zero point that is input ``i``."""
    kind = int(op.attribute("output_dtype", 0)) or TensorProto.UINT8
    if low.given(op, i):
        kind = low.file.kinds.get(op.proto.input[i], 0)
    if kind not in _LIMITS:
        op.refuse("must have a zero point that is a constant of 4, 8, 16 or 32 bits")
    return _LIMITS[kind]


def _steps(low: Lowering, op: Op, i: int) -> Steps:
    """What an activation's integers stand for: input ``i`` is its scale."""
    scale, zero = _grid(low, op, i)
    if (scale != scale.flat[0]).any() or (zero != zero.flat[0]).any():
        op.refuse("must have one scale and zero point for all of its activations")
    return Steps(float(scale.flat[0]), int(zero.flat[0]), *_limits(low, op, i + 1))


def _along(op: Op, vector: Array, rank: int, axis: int) -> Array:
    """A vector along ``axis`` of ``rank`` axes; a single number as it is."""
    if vector.size == 1:
        return vector.reshape(())
    axis += rank if axis < 0 else 0
    if not 0 <= axis < rank:
        op.refuse(f"must have an axis of its {rank}, not {axis}")
    return vector.reshape([-1 if a == axis else 1 for a in range(rank)])


def _fits(op: Op, x: Array, scale: Array) -> None:
    try:
        fits = np.broadcast_shapes(x.shape, scale.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        op.refuse(f"must have a scale for each channel of {x.shape}, not {scale.size}")


def _dequantized(low: Lowering, op: Op, x: Array, i: int, axis: int) -> Array:
    """What constant integers stand for; input ``i`` has their scales."""
    if x.dtype != np.int64:
        op.refuse(f"must have integers to dequantize, not {x.dtype}")
    scale, zero = _grid(low, op, i)
    scale, zero = (_along(op, v, x.ndim, axis) for v in (scale, zero))
    _fits(op, x, scale)
    low.charge(op, weights=x.size)
    return np.asarray((x - zero) * scale)


def _unblocked(op: Op) -> None:
    if op.attribute("block_size", 0):
        op.refuse("must have a scale for each channel, not for blocks of them")


@handles("QuantizeLinear", domains=(*STANDARD, *_MICROSOFT))
def _quantize(low: Lowering, op: Op) -> None:
    _unblocked(op)
    constant = low.constant(op, 0)
    if constant is not None:
        scale, zero = _grid(low, op, 1)
        real = low.weights(op, 0, "values")
        scale, zero = (_along(op, v, real.ndim, op.attribute("axis", 1)) for v in (scale, zero))
        _fits(op, real, scale)
        least, most = _limits(low, op, 2)
        low.put(op, np.clip(np.rint(real / scale) + zero, least, most).astype(np.int64))
        return
    x = low.view(op, pads=True, dropped=True)
    if x.dropped:
        low.put(op, x)
    else:
        as_steps(low, op, x, _steps(low, op, 1))


@handles("DequantizeLinear", domains=(*STANDARD, *_MICROSOFT))
def _dequantize(low: Lowering, op: Op) -> None:
    _unblocked(op)
    constant = low.constant(op, 0)
    if constant is not None:
        low.put(op, _dequantized(low, op, constant, 1, op.attribute("axis", 1)))
        return
    low.put(op, _real(low, op, low.view(op, pads=True, dropped=True, steps=True), 1))


def _real(low: Lowering, op: Op, x: View, i: int) -> View:
    """A computed value as real numbers; input ``i`` is its scale."""
    if x.dropped:
        return replace(x, steps=None)
    steps = _steps(low, op, i) if low.given(op, i + 1) else None
    if steps is None:
        scale, _ = _grid(low, op, i)
        steps = Steps(float(scale.flat[0]), 0, 0, 0)
    if x.steps is None:  # integers of the model's input
        affine(low, op, x, steps.scale, -steps.zero * steps.scale)
        made = low.values[op.proto.output[0]]
        assert isinstance(made, View)
        return made
    if (x.steps.scale, x.steps.zero) != (steps.scale, steps.zero):
        op.refuse(
            f"must have the scale and zero point that its input was quantized with, "
            f"{x.steps.scale:.6g} and {x.steps.zero}, not {steps.scale:.6g} and {steps.zero}"
        )
    return replace(x, steps=None)


# -- operators on integers ----------------------------------------------------------------------


def _operand(low: Lowering, op: Op, i: int, axis: int = 0) -> str:
    """Input ``i``, whose scale and zero point come next, as a value of real numbers."""
    name = f"{op.proto.output[0]} input {i}"
    constant = low.constant(op, i)
    if constant is not None:
        low.values[name] = _dequantized(low, op, constant, i + 1, axis)
    else:
        inner = replace(op, proto=helper.make_node(op.kind, op.proto.input, [name], name=op.name))
        x = low.view(op, i, pads=True, dropped=True, steps=True)
        low.values[name] = _real(low, inner, x, i + 1)
    return name


def _bias(low: Lowering, op: Op, i: int, scale: Array | float) -> list[str]:
    """Biases that are input ``i``, in units of ``scale``; none where there is no such input."""
    if not low.given(op, i):
        return []
    name = f"{op.proto.output[0]} input {i}"
    low.values[name] = low.need_constant(op, i, "biases") * scale
    return [name]


def _between(low: Lowering, op: Op, kind: str, inputs: list[str], i: int | None,
             skip: tuple[str, ...] = (), **attributes: Any) -> None:  # fmt: skip
    """Lowers ``op`` as the operator ``kind`` on real values, and quantizes what it gives: input
    ``i`` is the scale of that, None where it stays real."""
    proto = NodeProto()
    proto.CopyFrom(op.proto)
    name = op.proto.output[0] if i is None else f"{op.proto.output[0]} real"
    proto.op_type, proto.domain = kind, ""
    del proto.input[:], proto.output[:], proto.attribute[:]
    proto.input.extend(inputs)
    proto.output.append(name)
    proto.attribute.extend(a for a in op.proto.attribute if a.name not in (*skip, *attributes))
    proto.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    handlers()[kind](low, replace(op, proto=proto))
    if i is None:
        return
    made = low.values[name]
    assert isinstance(made, View)
    if made.dropped:
        low.put(op, made)
    else:
        as_steps(low, op, made, _steps(low, op, i))


@handles("QLinearConv")
def _conv(low: Lowering, op: Op) -> None:
    scale = _grid(low, op, 1)[0].reshape(-1)[:1] * _grid(low, op, 4)[0]
    inputs = [_operand(low, op, 0), _operand(low, op, 3), *_bias(low, op, 8, scale)]
    _between(low, op, "Conv", inputs, 6)


@handles("QLinearMatMul")
def _matmul(low: Lowering, op: Op) -> None:
    _between(low, op, "MatMul", [_operand(low, op, 0, -2), _operand(low, op, 3, -1)], 6)


@handles("QGemm", domains=_MICROSOFT)
def _gemm(low: Lowering, op: Op) -> None:
    alpha = float(op.attribute("alpha", 1.0))
    scale = alpha * _grid(low, op, 1)[0].reshape(-1)[:1] * _grid(low, op, 4)[0]
    axis = 0 if op.attribute("transB", 0) else 1
    inputs = [_operand(low, op, 0), _operand(low, op, 3, axis), *_bias(low, op, 6, scale)]
    _between(low, op, "Gemm", inputs, 7 if low.given(op, 7) else None)


@handles("QLinearAdd", "QLinearMul", domains=_MICROSOFT)
def _add(low: Lowering, op: Op) -> None:
    inputs = [_operand(low, op, 0), _operand(low, op, 3)]
    _between(low, op, op.kind.removeprefix("QLinear"), inputs, 6)


@handles("QLinearConcat", domains=_MICROSOFT)
def _concat(low: Lowering, op: Op) -> None:
    inputs = [_operand(low, op, i) for i in range(2, len(op.proto.input), 3)]
    _between(low, op, "Concat", inputs, 0)


@handles("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu",
         "QLinearSoftmax", domains=_MICROSOFT)  # fmt: skip
def _unary(low: Lowering, op: Op) -> None:
    if op.attribute("channels_last", 0):
        op.refuse("must have the channels on axis 1 (channels_last 0)")
    kind = op.kind.removeprefix("QLinear")
    if kind not in handlers():
        op.refuse(f"isn't supported, since {kind} isn't")
    _between(low, op, kind, [_operand(low, op, 0)], 3, ("channels_last", "opset"))


@handles("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", refused=True)
def _dynamic(low: Lowering, op: Op) -> None:
    op.refuse(
        "must have scales in the file: those of dynamic quantization depend on each frame; "
        "quantize statically, or give the float model"
    )
