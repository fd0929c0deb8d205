"""A residual network as PyTorch's default exporter writes it, without PyTorch."""

import numpy as np
import onnx
from onnx import helper
from onnx_graphs import as_single, graph_model

N = helper.make_node


def exported_residual() -> onnx.ModelProto:
    """Convolutions with a residual sum, a mean over maps, then dense layers with another, one of
    them normalized after its sum; operations, and names of nodes and tensors, as
    ``torch.onnx.export`` (2.13, operator set 20) gives them."""
    rng = np.random.default_rng(5)
    shapes = {
        "c.weight": (3, 1, 3, 3), "c.bias": (3,),
        "r.c1.weight": (3, 3, 3, 3), "r.c1.weight_bias": (3,),
        "i.weight": (6, 3), "i.bias": (6,), "r.a.weight": (6, 6), "r.a.bias": (6,),
        "r.b.weight": (6, 6), "r.b.bias": (6,), "o.weight": (2, 6), "o.bias": (2,),
        "n2.weight": (6,), "n2.bias": (6,), "n2.running_mean": (6,),
    }  # fmt: skip
    constants = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    constants["n2.running_var"] = rng.uniform(0.5, 2, 6)
    constants |= {"val_34": np.array([2, 3]), "val_39": np.array([-1, 3])}
    norm = "node__native_batch_norm_legit_no_training_1__0"
    nodes = [
        N("Conv", ["x", "c.weight", "c.bias"], ["getitem"], "node_Conv_45", pads=[1] * 4),
        N("Relu", ["getitem"], ["relu"], "node_relu"),
        N("Conv", ["relu", "r.c1.weight", "r.c1.weight_bias"], ["getitem_3"], "node_Conv_47",
          pads=[1] * 4),
        N("Add", ["relu", "getitem_3"], ["add_40"], "node_add_40"),
        N("Relu", ["add_40"], ["relu_1"], "node_relu_1"),
        N("ReduceMean", ["relu_1", "val_34"], ["mean"], "node_mean", keepdims=1),
        N("Reshape", ["mean", "val_39"], ["view"], "node_Reshape_52", allowzero=1),
        N("Gemm", ["view", "i.weight", "i.bias"], ["linear"], "node_linear", transB=1),
        N("Relu", ["linear"], ["relu_2"], "node_relu_2"),
        N("Gemm", ["relu_2", "r.a.weight", "r.a.bias"], ["linear_1"], "node_linear_1", transB=1),
        N("Relu", ["linear_1"], ["relu_3"], "node_relu_3"),
        N("Gemm", ["relu_3", "r.b.weight", "r.b.bias"], ["linear_2"], "node_linear_2", transB=1),
        N("Add", ["relu_2", "linear_2"], ["add"], "node_add"),
        N("Relu", ["add"], ["relu_4"], "node_relu_4"),
        N("BatchNormalization",
          ["relu_4", *(f"n2.{part}" for part in ("weight", "bias", "running_mean", "running_var"))],
          ["getitem_6"], norm),
        N("Gemm", ["getitem_6", "o.weight", "o.bias"], ["linear_3"], "node_linear_3", transB=1),
    ]  # fmt: skip
    return as_single(graph_model(nodes, constants, ("s77", 1, 4, 4), opset=20, ir=10,
                                  output="linear_3"))  # fmt: skip
