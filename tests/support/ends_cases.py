"""What tests of several folders take from those of `test_ends`."""

import numpy as np
import onnx

_rng = np.random.default_rng(7)


CONSTANTS = {
    "wc": _rng.integers(-1, 2, (4, 2, 3, 3)) * 0.25, "bc": _rng.normal(size=4),
    "wd": _rng.integers(-1, 2, (4, 1, 3, 3)) * 0.5, "bd": _rng.normal(size=4),
    "wg": _rng.integers(-1, 2, (3, 72)) * 0.25, "bg": _rng.normal(size=3),
    "wm": _rng.integers(-1, 2, (72, 3)) * 0.25,
    "s": np.array([0.5, -1.0, 2.0, 0.75]), "t": _rng.normal(size=4),
    "mean": _rng.normal(size=4), "var": np.array([0.5, 1.0, 2.0, 1.5]),
    "s2": np.array([0.5, 2.0]), "t2": _rng.normal(size=2),
    "mean2": _rng.normal(size=2), "var2": np.array([0.5, 2.0]),
    "zero": np.float64(0), "two": np.float64(2), "half": np.float64(0.5),
    "c2": np.array([0.5, -0.5]).reshape(2, 1, 1),
}  # fmt: skip


# What makes "t0" of the input, or of a tensor of the same shape.
CONV = "c=Conv(x,wc,bc) pads=1,1,1,1"


ENDS = {
    "Gemm": ["f=Flatten(x)", "t0=Gemm(f,wg,bg) transB=1"],
    "MatMul": ["f=Flatten(x)", "t0=MatMul(f,wm)"],
    "MatMul and Add": ["f=Flatten(x)", "g=MatMul(f,wm)", "t0=Add(g,bg)"],
    "two layers": ["a=Relu(x)", "f=Flatten(a)", "t0=Gemm(f,wg,bg) transB=1"],
    "Conv": ["t0=Conv(x,wc,bc) pads=1,1,1,1"],
    "depthwise Conv": [CONV, "t0=Conv(c,wd,bd) group=4"],
    "Flatten": [CONV, "g=GlobalAveragePool(c)", "t0=Flatten(g)"],
    "Identity": [CONV, "t0=Identity(c)"],
    "BatchNormalization": [CONV, "t0=BatchNormalization(c,s,t,mean,var)"],
    "AveragePool": [CONV, "t0=AveragePool(c) kernel_shape=2,2 strides=2,2"],
    "padded AveragePool": [CONV, "t0=AveragePool(c) kernel_shape=3,3 pads=1,1,1,1"],
    "MaxPool": [CONV, "t0=MaxPool(c) kernel_shape=2,2 strides=2,2"],
    "GlobalAveragePool": [CONV, "t0=GlobalAveragePool(c)"],
    "GlobalMaxPool": [CONV, "t0=GlobalMaxPool(c)"],
    "ReduceMean": [CONV, "t0=ReduceMean(c) axes=2,3 keepdims=0"],
    "Add": [CONV, "d=Conv(c,wd,bd) group=4 pads=1,1,1,1", "t0=Add(c,d)"],
    "Concat": [CONV, "d=Conv(c,wd,bd) group=4 pads=1,1,1,1", "t0=Concat(c,d) axis=1"],
    "Mul": [CONV, "t0=Mul(c,half)"],
    "Sum": [CONV, "d=Conv(c,wd,bd) group=4 pads=1,1,1,1", "t0=Sum(c,d)"],
    "Mean": [CONV, "d=Conv(c,wd,bd) group=4 pads=1,1,1,1", "t0=Mean(c,d)"],
    "ReduceMax": [CONV, "t0=ReduceMax(c) axes=2,3 keepdims=0"],
    "ReduceMin": [CONV, "t0=ReduceMin(c) axes=2,3 keepdims=0"],
}  # fmt: skip


AFTER = {
    "nothing": ["out=Identity(t0)"],
    "Relu": ["out=Relu(t0)"],
    "Clip": ["out=Clip(t0,zero,two)"],
    "Relu, then Clip": ["r=Relu(t0)", "out=Clip(r,zero,two)"],
}


TAIL = ["c=Conv(t0,wc,bc) pads=1,1,1,1", "out=Relu(c)"]


STARTS = {
    "Relu": ["t0=Relu(x)"],
    "Clip": ["t0=Clip(x,zero,two)"],
    "Identity": ["t0=Identity(x)"],
    "Dropout": ["t0=Dropout(x)"],
    "Add": ["t0=Add(x,c2)"],
    "Sub": ["t0=Sub(x,c2)"],
    "Mul": ["t0=Mul(x,half)"],
    "Div": ["t0=Div(x,two)"],
    "BatchNormalization": ["t0=BatchNormalization(x,s2,t2,mean2,var2)"],
    "AveragePool": ["t0=AveragePool(x) kernel_shape=3,3 pads=1,1,1,1"],
    "MaxPool": ["t0=MaxPool(x) kernel_shape=3,3 pads=1,1,1,1"],
    "sum with itself": ["r=Relu(x)", "t0=Add(r,x)"],
}  # fmt: skip


def node(text: str):
    """``"y=Op(a,b) name=1,2"`` as a node."""
    output, rest = text.split("=", 1)
    call, *given = rest.split(" ")
    kind, inputs = call.rstrip(")").split("(")
    attributes = {}
    for item in given:
        name, value = item.split("=")
        numbers = [int(v) for v in value.split(",")]
        single = name in ("transB", "group", "axis", "keepdims", "to")
        attributes[name] = numbers[0] if single else numbers
    return onnx.helper.make_node(kind, inputs.split(","), [output], **attributes)
