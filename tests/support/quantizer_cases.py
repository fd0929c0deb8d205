"""What tests of several folders take from those of `test_quantizer`."""

from itertools import pairwise

import numpy as np

from pvq_hw.model.model import Clip, Dense, Model, Relu
from pvq_hw.network.layer import Dense as IntDense

SIZES = (24, 16, 12, 5)


def chain(sizes: tuple[int, ...] = SIZES, seed: int = 0, high: float | None = None) -> Model:
    """A random chain of dense layers with ReLU (or a clip) between them."""
    rng = np.random.default_rng(seed)
    nodes: list = []
    tensor = "x"
    for i, (n, m) in enumerate(pairwise(sizes), 1):
        weight = rng.laplace(size=(m, n)) / np.sqrt(n)
        nodes.append(Dense(f"fc{i}", (tensor,), f"d{i}", (m,), weight, rng.normal(size=m) * 0.1))
        tensor = f"d{i}"
        if i < len(sizes) - 1:
            after = (
                Relu(f"act{i}", (tensor,), f"r{i}", (m,))
                if high is None
                else Clip(f"act{i}", (tensor,), f"r{i}", (m,), 0.0, high)
            )
            nodes.append(after)
            tensor = f"r{i}"
    shape = (sizes[0],)
    return Model("net", "0" * 64, "x", shape, (0,), shape, tuple(nodes))


def data(frames: int = 400, n: int = SIZES[0], seed: int = 1) -> np.ndarray:
    """Correlated bytes."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(frames, 6)) @ rng.normal(size=(6, n)) * 30 + 90
    return np.clip(np.rint(mixed + rng.normal(size=(frames, n)) * 8), 0, 255).astype(np.uint8)


def dense_layers(network) -> list[IntDense]:
    return [layer for layer in network.layers if isinstance(layer, IntDense)]
