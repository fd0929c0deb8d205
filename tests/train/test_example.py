"""The example that trains with PyTorch, as people run it; and modules as people have them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pvq_hw
from pvq_hw.model.load import load_model
from pvq_hw.model.objects import model_file

pytestmark = pytest.mark.torch
ROOT = Path(pvq_hw.__file__).parents[1]
IMAGE = (1, 8, 8)


def children_seconds():
    """Processor time of the processes that ended."""
    times = os.times()
    return times.children_user + times.children_system


def test_the_example_trains_compiles_and_simulates(tmp_path):
    script, started = ROOT / "examples" / "train_torch.py", children_seconds()
    ran = subprocess.run(
        [sys.executable, script, "-o", tmp_path / "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"simulated: 0 mismatches in 88,\d+ outputs", ran.stdout), ran.stdout
    found = re.search(r"PyTorch ([\d.]+) %, accelerator ([\d.]+) %", ran.stdout)
    assert found
    assert float(found[1]) > 95
    assert float(found[2]) > float(found[1]) - 2
    assert (tmp_path / "out" / "report.html").exists()
    assert children_seconds() - started > 1


def modules():
    """Modules by name, and the shape of a frame."""
    torch = pytest.importorskip("torch")
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
            self.n, self.m = (nn.BatchNorm2d(4) for _ in range(2))
            self.act = act

        def forward(self, x):
            return self.act(x + self.m(self.b(self.act(self.n(self.a(x))))))

    class Then(nn.Module):
        """A convolution, a function, and a dense layer."""

        def __init__(self, function):
            super().__init__()
            self.function, self.c, self.out = (
                function,
                nn.Conv2d(1, 4, 3, padding=1),
                nn.LazyLinear(3),
            )

        def forward(self, x):
            return self.out(self.function(self.c(x)))

    first, chain = nn.Conv2d(1, 4, 3, padding=1), nn.Sequential
    end = (nn.Flatten(), nn.LazyLinear(3))
    return {
        "residual": (chain(first, nn.BatchNorm2d(4), nn.ReLU(), Residual(nn.ReLU()),
                           nn.AdaptiveAvgPool2d(1), *end), IMAGE),
        "gelu": (chain(first, Residual(nn.GELU()), nn.Dropout(0.5), *end), IMAGE),
        "depthwise": (chain(first, nn.ReLU6(), nn.Conv2d(4, 4, 3, padding=1, groups=4),
                            nn.BatchNorm2d(4), nn.Hardswish(), nn.Conv2d(4, 6, 1), nn.SiLU(),
                            nn.AdaptiveAvgPool2d(2), *end), IMAGE),
        "leaky": (chain(first, nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, ceil_mode=True),
                        nn.Dropout2d(0.2), *end), IMAGE),
        "padded": (chain(nn.ZeroPad2d((1, 0, 2, 1)), first, nn.PReLU(4), *end), IMAGE),
        "line": (chain(nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ELU(),
                       nn.AvgPool1d(2), *end), (3, 16)),
        "unflattened": (chain(nn.Unflatten(1, IMAGE), first, nn.ReLU(), *end), (64,)),
        "dense": (chain(nn.BatchNorm1d(12), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 8),
                        nn.Hardtanh(-0.5, 0.7), nn.Linear(8, 8), nn.Softplus(),
                        nn.Identity(), nn.Linear(8, 2)), (12,)),
        "means": (Then(lambda x: x.relu().mean([2, 3])), IMAGE),
        "maxima": (Then(lambda x: x.relu().amax((2, 3))), IMAGE),
        "sized": (Then(lambda x: torch.nn.functional.avg_pool2d(x, x.shape[2:]).flatten(1)), IMAGE),
        "view": (Then(lambda x: x.relu().view(x.size(0), -1)), IMAGE),
        "shapes": (Then(lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])),
                   IMAGE),
        "joined": (Then(lambda x: torch.cat([x.relu(), x.tanh()], 1).flatten(1)), IMAGE),
        "permuted": (Then(lambda x: x.relu().permute(0, 2, 3, 1).flatten(1)), IMAGE),
        "halves": (Then(lambda x: (x.chunk(2, 1)[0] - x.chunk(2, 1)[1].relu()).flatten(1)), IMAGE),
        "part": (Then(lambda x: x[:, 1:3, 2:].flatten(1)), IMAGE),
        "scaled": (Then(lambda x: (x * 0.5 + 1).clamp(0, 1).flatten(1) / 3), IMAGE),
    }  # fmt: skip


NAMES = ("residual", "gelu", "depthwise", "leaky", "padded", "line", "unflattened", "dense",
         "means", "maxima", "sized", "view", "shapes", "joined", "permuted", "halves", "part",
         "scaled")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_modules_as_people_have_them_are_taken(name):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    assert [*modules()] == [*NAMES]
    module, shape = modules()[name]
    x = torch.randn(20, *shape)
    module(x)  # lazy layers, and means of batches
    with torch.no_grad():
        wanted = module.eval()(x).numpy()
    with model_file(module, x) as path:
        model = load_model(path)
    assert np.abs(model.predict(x.numpy()) - wanted).max() < 1e-5
    network = pvq_hw.quantize(model, calibration=x.numpy(), quantizer="plain", ratio=0.1)
    found = network.real(network.predict(network.quantize_input(x.numpy())))
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.3 * wanted.std()
