"""A network with sign activations, trained in numpy in seconds, the same on every run."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["save_onnx", "train"]


def train(x, y, hidden=(96,), epochs=60, seed=0):
    """Weights and biases of dense layers with signs between them: straight-through gradients,
    which pass where the sum is small, and Adam."""
    rng = np.random.default_rng(seed)
    sizes = (x.shape[1], *hidden, int(y.max()) + 1)
    params = []
    for n, m in pairwise(sizes):
        params += [rng.normal(size=(m, n)) / np.sqrt(n), np.zeros(m)]
    first = [np.zeros_like(p) for p in params]
    second = [np.zeros_like(p) for p in params]
    want, step = np.eye(sizes[-1])[y], 0
    for epoch in range(epochs):
        rate = 0.01 * (1 - epoch / epochs)
        order = rng.permutation(len(x))
        for at in range(0, len(x), 64):
            step += 1
            grads = _gradients(params, x[order[at : at + 64]], want[order[at : at + 64]])
            for p, g, a, b in zip(params, grads, first, second, strict=True):
                a += 0.1 * (g - a)
                b += 0.001 * (g * g - b)
                p -= rate * a / (1 - 0.9**step) / (np.sqrt(b / (1 - 0.999**step)) + 1e-8)
    return params


def _gradients(params, x, want):
    inputs, sums = [x], []
    for w, b in zip(params[::2], params[1::2], strict=True):
        sums.append(inputs[-1] @ w.T + b)
        inputs.append(np.where(sums[-1] < 0, -1.0, 1.0))
    z = np.exp(sums[-1] - sums[-1].max(axis=1, keepdims=True))
    slope = (z / z.sum(axis=1, keepdims=True) - want) / len(x)
    grads = []
    for k in range(len(sums) - 1, -1, -1):
        grads += [slope.sum(axis=0), slope.T @ inputs[k]]
        if k:
            slope = (slope @ params[2 * k]) * (np.abs(sums[k - 1]) < 1)
    return grads[::-1]


def save_onnx(path: Path, params) -> Path:
    """Gemm, Sign, Gemm, ..."""
    nodes, constants, tensor = [], [], "x"
    count = len(params) // 2
    for k in range(count):
        constants += [
            numpy_helper.from_array(params[2 * k].astype(np.float32), f"w{k}"),
            numpy_helper.from_array(params[2 * k + 1].astype(np.float32), f"b{k}"),
        ]
        last = k == count - 1
        out = "y" if last else f"z{k}"
        gemm = ["Gemm", [tensor, f"w{k}", f"b{k}"], [out]]
        nodes.append(helper.make_node(*gemm, name=f"fc{k}", transB=1))
        if not last:
            nodes.append(helper.make_node("Sign", [out], [f"s{k}"], name=f"sign{k}"))
            tensor = f"s{k}"
    graph = helper.make_graph(
        nodes,
        "signs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, params[0].shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(params[-1])])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
