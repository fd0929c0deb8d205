"""How near the codes are to the original weights: cosine and relative error of rows and layers."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import significant
from pvq_hw.errors import InputError
from pvq_hw.network.layer import Weighted
from pvq_hw.network.network import Network

__all__ = ["layer_codes", "layer_errors", "model_weights"]

FloatArray = npt.NDArray[np.float64]


def model_weights(model: Any, network: Network) -> dict[str, FloatArray]:
    """Original weights (M, N) of the network's layers, columns channel-last, by name."""
    from pvq_hw.quantizer.fused import network_steps

    found = {s.name: s.weight for s in network_steps(model) if s.weighted}
    names = [layer.name for layer in network.weighted]
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"The model must have the layer {missing[0]!r}")
    return {name: np.asarray(found[name], dtype=np.float64) for name in names}


def layer_codes(layer: Weighted) -> dict[str, Any]:
    """N, K, N/K and the gains: what the codes themselves say of a layer and of its rows.

    Plain 8-bit weights have no pulses: their K is 0, their N/K None.
    """
    m, n = layer.y.shape
    plain = layer.encoding == "int8"
    pulses = 0 if plain else int(layer.k.sum())
    return {
        "name": layer.name,
        "encoding": layer.encoding,
        "rows": m,
        "n": n,
        "groups": layer.gain.shape[1],
        "k": pulses,
        "n_over_k": None if plain else significant(m * n / max(1, pulses), 10),
        "row_n": [n] * m,
        "row_k": [0 if plain else int(k) for k in layer.k],
        "row_rho": [[gain.hex() for gain in row] for row in layer.gain.tolist()],
    }


def layer_errors(layer: Weighted, weights: FloatArray) -> dict[str, Any]:
    """Cosine and relative error ``|w - rho y| / |w|`` of a layer and of its rows.

    Where a row's weights and codes are all 0, the cosine is 1 and the error 0; where those of one
    of the two are, they are 0 and 1. Sums are exactly rounded (`math.fsum`), so the figures are the
    same on every machine.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != layer.y.shape:
        raise InputError(
            f"Layer {layer.name!r} must have original weights {layer.y.shape}, not {w.shape}"
        )
    approximation = layer.y * np.repeat(layer.gain, w.shape[1] // layer.gain.shape[1], axis=1)
    dot, square, other, error = (
        [math.fsum(row) for row in product.tolist()]
        for product in (
            w * approximation,
            w * w,
            approximation * approximation,
            (w - approximation) ** 2,
        )
    )
    rows = [_row(*sums) for sums in zip(dot, square, other, error, strict=True)]
    cosine, relative = _row(*(math.fsum(sums) for sums in (dot, square, other, error)))
    return {
        "cosine": cosine,
        "relative_error": relative,
        "row_cosine": [row[0] for row in rows],
        "row_relative_error": [row[1] for row in rows],
    }


def _row(dot: float, square: float, other: float, error: float) -> tuple[float, float]:
    if square == 0 or other == 0:
        same = square == other
        return (1.0, 0.0) if same else (0.0, 1.0)
    return significant(dot / math.sqrt(square) / math.sqrt(other), 10), significant(
        math.sqrt(error / square), 10
    )
