"""What tests of several folders take from those of `test_quantizer_graphs`."""

import numpy as np

from pvq_hw.model.model import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Dense,
    MaxPool,
    Model,
    Relu,
    Sign,
)
from pvq_hw.quantizer.metric import Metric, temperature_of

PADS = ((1, 1), (1, 1))


def conv(name: str, source: str, output: str, size: int, groups: int = 1, **more: object) -> Conv:
    rng = np.random.default_rng(len(name) + size)
    side = more.pop("side", 6)
    channels = more.pop("channels", 4)
    stride = more.get("stride", (1, 1))
    return Conv(
        name, (source,), output, (side // stride[0], side // stride[1], size),
        (side, side, channels), (3, 3), pads=PADS,
        weight=rng.normal(size=(size, 3, 3, channels // groups)) / 3,
        bias=rng.normal(size=size) / 3, groups=groups, **more,
    )  # fmt: skip


def branched(faint: float = 1.0) -> Model:
    """Convolutions, also depthwise, poolings, a sum and a concatenation; ``faint`` scales what
    one branch adds."""
    rng = np.random.default_rng(3)
    head = rng.normal(size=(3, 3 * 3 * 8)) / 8
    head[:, np.arange(72) % 8 >= 4] *= faint
    nodes = (
        conv("stem", "x", "s_r", 4, channels=2),
        Relu("stem_relu", ("s_r",), "s", (6, 6, 4)),
        conv("left", "s", "l_r", 4),
        Relu("left_relu", ("l_r",), "l", (6, 6, 4)),
        conv("each", "s", "e", 4, groups=4),
        Add("sum", ("l", "e"), "a_r", (6, 6, 4)),
        Relu("sum_relu", ("a_r",), "a", (6, 6, 4)),
        MaxPool("most", ("a",), "m", (3, 3, 4), (6, 6, 4), (2, 2), (2, 2)),
        conv("right", "s", "r", 4, stride=(2, 2)),
        Concat("both", ("m", "r"), "c", (3, 3, 8)),
        AveragePool("mean", ("c",), "v", (3, 3, 8), (3, 3, 8), (3, 3), pads=PADS),
        Dense("head", ("v",), "out", (3,), head, rng.normal(size=3)),
    )
    return Model("branched", "", "x", (6, 6, 2), (0, 1, 2), (6, 6, 2), nodes)


def dense_behind_maps(sign: bool = False) -> Model:
    """A convolution, a pooling and two dense layers."""
    rng = np.random.default_rng(2)
    first = Dense("first", ("p",), "f", (12,), rng.normal(size=(12, 36)) / 6, rng.normal(size=12))
    after = Sign("act", ("f",), "g", (12,)) if sign else Relu("act", ("f",), "g", (12,))
    nodes = (
        conv("conv", "x", "a", 4, channels=2), Relu("relu", ("a",), "r", (6, 6, 4)),
        MaxPool("most", ("r",), "p", (3, 3, 4), (6, 6, 4), (2, 2), (2, 2)), first, after,
        Dense("last", ("g",), "out", (3,), rng.normal(size=(3, 12)) / 3, np.zeros(3)),
    )  # fmt: skip
    return Model("net", "0" * 64, "x", (6, 6, 2), (0, 1, 2), (6, 6, 2), nodes)


def inputs(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 6, 6, 2))


def weighed_error(model: Model, network, x: np.ndarray) -> float:
    """As the sweeps see it: what all outputs share hardly counts."""
    real = network.predict(network.quantize_input(x)) * network.output.scale
    exact = model.predict(x).reshape(len(x), -1).astype(np.float32)
    residual = real.reshape(exact.shape).astype(np.float32) - exact
    metric = Metric(exact, temperature_of(exact))
    return float(np.square(metric.weigh(residual)).sum(axis=1).mean())
