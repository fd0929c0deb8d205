"""Activation functions as files have them: single operators, and the patterns of exporters."""

from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx_graphs import graph_model

__all__ = ["ACTIVATIONS", "CONSTANTS", "REFUSED", "SATURATED", "all_in_one", "nodes_of", "one"]

# What makes "a" of "g"; ``name:value`` are attributes.
ACTIVATIONS = {
    "LeakyRelu": "a=LeakyRelu(g) alpha:0.1",
    "PRelu": "a=PRelu(g,slope)",
    "PRelu per channel": "a=PRelu(g,slopes)",
    "Elu": "a=Elu(g) alpha:0.7",
    "Selu": "a=Selu(g)",
    "Celu": "a=Celu(g) alpha:2.0",
    "Sigmoid": "a=Sigmoid(g)",
    "HardSigmoid": "a=HardSigmoid(g)",
    "Tanh": "a=Tanh(g)",
    "HardTanh": "a=Clip(g,minus,one)",
    "upper bound": "a=Min(g,one)",
    "Softplus": "a=Softplus(g)",
    "Softsign": "a=Softsign(g)",
    "Gelu": "a=Gelu(g)",
    "Gelu by tanh": "a=Gelu(g) approximate:tanh",
    "Gelu of PyTorch": "d=Div(g,root2); e=Erf(d); f=Add(e,one); m=Mul(g,f); a=Mul(m,half)",
    "Gelu by tanh of PyTorch": "p=Pow(g,three); q=Mul(p,cubic); r=Add(g,q); s=Mul(r,root); "
    "t=Tanh(s); u=Add(t,one); h=Mul(g,half); a=Mul(h,u)",
    "Silu": "s=Sigmoid(g); a=Mul(g,s)",
    "HardSwish": "a=HardSwish(g)",
    "HardSwish by Clip": "p=Add(g,three); c=Clip(p,zero,six); m=Mul(g,c); a=Div(m,six)",
    "Mish": "a=Mish(g)",
    "Mish of PyTorch": "p=Softplus(g); t=Tanh(p); a=Mul(g,t)",
    "Erf": "a=Erf(g)",
    "ThresholdedRelu": "a=ThresholdedRelu(g) alpha:0.5",
    "Shrink": "a=Shrink(g) lambd:0.5 bias:0.2",
    "chain": "t=Tanh(g); q=Mul(t,two); r=Sub(one,q); s=Abs(r); a=Sqrt(s)",
    "quotient": "n=Abs(g); c=Add(n,one); a=Div(g,c)",
    "constant quotient": "n=Neg(g); e=Exp(n); f=Add(e,one); a=Div(one,f)",
    "reciprocal": "e=Exp(g); f=Add(e,one); h=Reciprocal(f); a=Log(h)",
    "larger of two": "m=Mul(g,slope); a=Max(g,m)",
    "difference": "t=Tanh(g); a=Sub(g,t)",
    "power": "p=Abs(g); a=Pow(p,half)",
    "square": "a=Mul(g,g)",
    "sign of a function": "t=Tanh(g); u=Add(t,half); a=Sign(u)",
}

# Of these, what a layer's saturation does where it is the only one that reads its sums.
SATURATED = ("HardSigmoid", "HardTanh", "upper bound")

# What cannot be, and the words of the refusal.
REFUSED = {
    "two branches": ("p=Gemm(x,w,b) transB:1; a=Mul(g,p)", "node 'a' (Mul) must have one"),
    "unknown": ("a=Cos(g)", "node 'a' has the operation 'Cos', which isn't supported"),
    "infinite attribute": ("a=Elu(g) alpha:inf", "node 'a' (Elu) must have finite numbers"),
    "operand of another size": ("a=PRelu(g,two_slopes)", "node 'a' (PRelu) must have a constant"),
    "too few operands": ("a=Max(g)", "node 'a' (Max) must have 2 operands, not 1"),
}  # fmt: skip

_rng = np.random.default_rng(3)
CONSTANTS: dict[str, Any] = {
    "w": 2 * _rng.normal(size=(6, 5)), "b": _rng.normal(size=6), "v": _rng.normal(size=(3, 6)),
    "slope": np.array([0.25]), "slopes": np.linspace(0.1, 0.6, 6), "two_slopes": np.ones(2),
    "minus": np.array(-1.0), "zero": np.array(0.0), "one": np.array(1.0), "half": np.array(0.5),
    "two": np.array(2.0), "three": np.array(3.0), "six": np.array(6.0),
    "root2": np.array(2**0.5), "cubic": np.array(0.044715), "root": np.array((2 / np.pi) ** 0.5),
}  # fmt: skip


def nodes_of(text: str, rename: dict[str, str] | None = None) -> list[Any]:
    """``"y=Op(a,b) name:1; ..."`` as nodes; ``rename`` changes tensors' names."""
    names, nodes = rename or {}, []
    for part in text.split("; "):
        output, rest = part.split("=", 1)
        call, *given = rest.split(" ")
        kind, inputs = call.rstrip(")").split("(")
        pairs = (item.split(":") for item in given)
        attributes = {n: v if v == "tanh" else int(v) if n == "transB" else float(v)
                      for n, v in pairs}  # fmt: skip
        read = [names.get(i, i) for i in inputs.split(",")]
        nodes.append(helper.make_node(kind, read, [names.get(output, output)], **attributes))
    return nodes


def one(text: str, end: str = "out=Gemm(a,v) transB:1") -> onnx.ModelProto:
    """Gemm (5 to 6), the activation, Gemm (6 to 3)."""
    nodes = nodes_of(f"g=Gemm(x,w,b) transB:1; {text}; {end}")
    return _model(nodes, CONSTANTS)


def all_in_one() -> onnx.ModelProto:
    """Every activation on a branch of its own; a Gemm (3 outputs) reads all of them joined."""
    nodes, ends = nodes_of("g=Gemm(x,w,b) transB:1"), []
    for number, text in enumerate(ACTIVATIONS.values()):
        given = {part.split("=")[0] for part in text.split("; ")}
        nodes += nodes_of(text, {name: f"{name}{number}" for name in given})
        ends.append(f"a{number}")
    nodes.append(helper.make_node("Concat", ends, ["joined"], axis=1))
    nodes += nodes_of("out=Gemm(joined,wide) transB:1")
    wide = np.random.default_rng(4).normal(size=(3, 6 * len(ends)))
    return _model(nodes, CONSTANTS | {"wide": wide})


def _model(nodes: list[Any], constants: dict[str, Any]) -> onnx.ModelProto:
    read = {name for item in nodes for name in item.input}
    used = {name: value for name, value in constants.items() if name in read}
    return graph_model(nodes, used, ("N", 5), opset=20, dtype=np.float32, out_type=1, ir=9)
