"""Has the loops of the quantizer's moves compiled before anybody waits for them."""

import numpy as np

from pvq_hw.model.model import Conv, Dense, Model, Relu
from pvq_hw.quantizer.layer_options import LayerOptions
from pvq_hw.quantizer.quantize import quantize

__all__ = ["warm_up"]


def warm_up() -> None:
    """Quantizes a network of all that is compiled: about 15 s at the first time, then one. What was
    compiled is kept beside the sources, where that folder can be written."""
    rng = np.random.default_rng(0)
    nodes = (
        Conv("conv", ("x",), "a", (3, 3, 2), (3, 3, 2), (2, 2), pads=((0, 1), (0, 1)),
             weight=rng.normal(size=(2, 2, 2, 2)), bias=np.zeros(2)),
        Relu("relu", ("a",), "b", (3, 3, 2)),
        Conv("channels", ("b",), "c", (3, 3, 2), (3, 3, 2), (2, 2), pads=((0, 1), (0, 1)),
             groups=2, weight=rng.normal(size=(2, 2, 2, 1)), bias=np.zeros(2)),
        Relu("again", ("c",), "d", (3, 3, 2)),
        Dense("shared", ("d",), "e", (6,), rng.normal(size=(6, 18)), np.zeros(6)),
        Dense("dense", ("e",), "out", (3,), rng.normal(size=(3, 6)), np.zeros(3)),
    )  # fmt: skip
    model = Model("warm", "", "x", (3, 3, 2), (0, 1, 2), (3, 3, 2), nodes)
    layers = {"shared": LayerOptions(unit="layer")}
    quantize(model, calibration=rng.integers(0, 256, (100, 18)), ratio=1.5, layers=layers)
