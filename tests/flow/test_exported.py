"""Residual networks as PyTorch's default exporter writes them, from the file to simulated RTL."""

import warnings

import numpy as np
import onnx
import pytest
from exported_residual import exported_residual
from onnx_graphs import reference, save

import pvq_hw
from pvq_hw.model.load import load_model
from pvq_hw.tools import find as tools
from sim.result import compare
from sim.run import simulate

pytestmark = pytest.mark.skipif(
    not (tools.have_tool("yosys") and tools.have_tool("iverilog")),
    reason="needs yosys and Icarus Verilog",
)


def computes(path, x, expected, out):
    """The names of the layers; asserts that model, integers and circuit are the file's."""
    assert np.allclose(load_model(path).predict(x), expected, rtol=1e-4, atol=1e-5)
    made = pvq_hw.compile(
        path, out, target="colorlight-i5", ratio=2, calibrate=x, quantizer="plain"
    )
    assert np.abs(made.predict(x) - expected).mean() < expected.std()
    network = made.network
    frames, names = network.quantize_input(x[:2]), [layer.name for layer in network.layers]
    result = simulate(made.plan.graph, out, frames, "icarus", names=names, settle=False)
    assert compare(result, network.trace(frames)).mismatches == 0
    assert made.verify(path) == []
    return names


def test_names_and_shape_of_an_exported_residual_network(tmp_path):
    model = exported_residual()
    x = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
    expected = reference(model, x)[0]
    names = computes(save(tmp_path, model), x, expected, tmp_path / "out")
    assert names == [
        "node_Conv_45", "node_Conv_47", "node_add_40", "node_mean", "node_linear",
        "node_linear_1", "node_linear_2", "node_add", "node_linear_3",
    ]  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "optimize"), [("maps", True), ("dense", True), ("dense", False)])
def test_the_exporter_itself(tmp_path, kind, optimize):
    """Batch normalizations in use, of the batch size that the export fixes or of any."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    nn = torch.nn
    torch.manual_seed(0)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            if kind == "maps":
                self.start = nn.Sequential(
                    nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()
                )
                self.branch = nn.Sequential(
                    nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
                    nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3),
                )  # fmt: skip
                self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
            else:
                self.start = nn.Sequential(nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU())
                self.branch = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
                self.end = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))

        def forward(self, x):
            x = self.start(x)
            return self.end(torch.relu(x + self.branch(x)))

    net = Residual()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    x = torch.randn(40, *((1, 4, 4) if kind == "maps" else (16,)))
    path, some = tmp_path / "m.onnx", {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), (x[:2] if optimize else x[:1],), path, verbose=False, optimize=optimize,
            **(some if optimize else {}),
        )  # fmt: skip
    assert any(node.name.startswith("node_linear") for node in onnx.load(path).graph.node)
    with torch.no_grad():
        expected = net(x).numpy()
    computes(path, x.numpy(), expected, tmp_path / "out")
