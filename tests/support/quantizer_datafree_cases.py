"""What tests of several folders take from those of `test_quantizer_mend`."""

from dataclasses import replace

import numpy as np
from quantizer_cases import chain

from pvq_hw.model.model import Model

SIZES = (64, 48, 24, 6)


def ranged(uneven: bool = False, seed: int = 0) -> Model:
    """A chain with the ranges of uniform inputs; ``uneven``: units of very different scales."""
    model = chain(SIZES, seed)
    if uneven:
        size = np.exp(np.random.default_rng(seed).normal(size=48) * 1.5)
        model.nodes[0].weight[:] *= size[:, None]
        model.nodes[0].bias[:] *= size
        model.nodes[2].weight[:] /= size
    x = np.random.default_rng(5).random((500, 64))
    seen = {name: (float(v.min()), float(v.max())) for name, v in model.trace(x).items()}
    return replace(model, ranges=seen | {"x": (0.0, 1.0)})
