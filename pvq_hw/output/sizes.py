"""What a network's weights take in several forms, beside the limit."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.network.network import Network
from pvq_hw.pyramid.nearest import log2_volume

__all__ = ["limit_bits", "sizes"]


def sizes(folder: Path, network: Network) -> dict[str, Any]:
    """Bytes of the weights in several forms, and bits per weight of the packed one."""
    matrices = [layer.weights for layer in network.layers if layer.weights is not None]
    weights = sum(m.size for m in matrices)
    packed = (folder / "network" / "weights.pvq").stat().st_size
    buffer = io.BytesIO()
    small = [m.astype(np.int8 if np.abs(m).max(initial=0) < 128 else np.int32) for m in matrices]
    np.savez_compressed(buffer, *small)
    limit = sum(
        8 * layer.weights.size
        if getattr(layer, "encoding", "pvq") == "int8"
        else limit_bits(layer.weights)
        for layer in network.layers
        if layer.weights is not None
    )
    return {
        "weights": weights,
        "packed_bytes": packed,
        "packed_bits_per_weight": 8 * packed / weights,
        "limit_bits_per_weight": limit / weights,
        "float32_bytes": 4 * weights,
        "int8_bytes": weights,
        "zipped_npz_bytes": len(buffer.getvalue()),
    }


def limit_bits(y: npt.NDArray[np.int64]) -> float:
    """``sum log2 V(N, K)`` over the rows: what numbering every codeword would take, in bits."""
    n = y.shape[1]
    k, count = np.unique(np.abs(y).sum(axis=1), return_counts=True)
    return float(sum(c * log2_volume(n, int(v)) for v, c in zip(k, count, strict=True)))
