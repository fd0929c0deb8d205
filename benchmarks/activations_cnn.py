"""The small convolutional network of `benchmarks.activations`, trained with PyTorch."""

from typing import Any

from benchmarks.networks import SCALE
from pvq_hw.data.dataset import Data
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.model.objects import model_file
from pvq_hw.train.torch_extra import require_torch

__all__ = ["CLASSES", "train_cnn"]

CLASSES: dict[str, tuple[Any, ...]] = {
    "Relu": ("ReLU",),
    "LeakyRelu": ("LeakyReLU", 0.1),
    "Elu": ("ELU",),
    "Tanh": ("Tanh",),
    "HardTanh": ("Hardtanh",),
    "Sigmoid": ("Sigmoid",),
    "Gelu": ("GELU",),
    "Silu": ("SiLU",),
    "HardSwish": ("Hardswish",),
    "Mish": ("Mish",),
}
"""PyTorch's classes, and what they are made with."""

_BATCH, _RATE = 64, 4e-3


def train_cnn(name: str, data: Data, seed: int, epochs: int) -> Model:
    """Three convolutions of 8, 16 and 16 channels with batch normalization and a dense layer,
    7,578 parameters once folded: cross entropy by Adam, the rate falling as a cosine, on one
    thread.

    Parameters
    ----------
    name : str
        Of the activation function, in `CLASSES`.
    data : Data
        Images of 28 x 28 bytes, taken divided by 255, and labels.
    """
    torch = require_torch()
    nn = torch.nn
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    kind, *numbers = CLASSES[name]

    def convolution(inputs: int, outputs: int, padding: int = 0) -> list[Any]:
        convolved = nn.Conv2d(inputs, outputs, 3, padding=padding)
        return [convolved, nn.BatchNorm2d(outputs), getattr(nn, kind)(*numbers)]

    net = nn.Sequential(
        *convolution(1, 8), nn.MaxPool2d(2), *convolution(8, 16), nn.MaxPool2d(2),
        *convolution(16, 16, padding=1), nn.Flatten(), nn.Linear(400, 10),
    )  # fmt: skip
    x = torch.as_tensor(data.x / SCALE, dtype=torch.float32).reshape(-1, 1, 28, 28)
    y = torch.as_tensor(data.y, dtype=torch.long)
    optimizer = torch.optim.Adam(net.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // _BATCH))
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(_BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    with model_file(net.eval(), x[:1].numpy()) as path:
        return load_model(path)
