"""Golden vectors: inputs and every layer's outputs, as hex text that any simulator reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.hexfile import hex_text, read_hex, signed, unsigned
from pvq_hw.errors import InputError
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import unit_names

__all__ = ["load_vectors", "vector_files", "write_vectors"]

IntArray = npt.NDArray[np.int64]

_FOLDER = "vectors"
_INDEX = "vectors.json"
_INPUT = "input.hex"


def vector_files(network: Network, x: IntArray) -> dict[str, str]:
    """Text of every vector file by its name.

    ``input.hex`` and one ``<unit>.hex`` per layer hold one activation per line in two's
    complement (binary ones: 1 for -1), the frames one after the other; ``vectors.json`` says how
    many and how wide.
    """
    tensors = [(_INPUT, network.input, x)]
    trace = network.trace(x)
    for layer, name in zip(network.layers, unit_names(network.layers), strict=True):
        tensors.append((f"{name}.hex", layer.output, trace[layer.name]))
    index: dict[str, Any] = {"format": "pvq-hw vectors", "frames": len(x), "files": {}}
    files = {}
    for name, spec, values in tensors:
        index["files"][name] = {
            "activations": spec.size,
            "bits": spec.format.bits,
            "signed": spec.format.signed,
            "tensor": spec.name,
        }
        files[name] = hex_text(_to_words(values, spec.format), spec.format.bits)
    files[_INDEX] = json.dumps(index, indent=1, sort_keys=True) + "\n"
    return dict(sorted(files.items()))


def write_vectors(folder: Path, network: Network, x: IntArray) -> None:
    """Writes ``vectors/`` below an existing folder."""
    place = folder / _FOLDER
    place.mkdir(exist_ok=True)
    for name, text in vector_files(network, x).items():
        (place / name).write_text(text, encoding="ascii", newline="\n")


def load_vectors(folder: Path, network: Network) -> tuple[IntArray, list[IntArray]]:
    """Inputs (frames, *input.shape) and every layer's outputs; raises InputError, which names the
    file, on anything that `write_vectors` does not write."""
    place = folder / _FOLDER
    frames = _frames(place / _INDEX)
    x = _load(place / _INPUT, network.input, frames)
    outputs = [
        _load(place / f"{name}.hex", layer.output, frames)
        for layer, name in zip(network.layers, unit_names(network.layers), strict=True)
    ]
    return x, outputs


def _frames(path: Path) -> int:
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("too large")
        frames = json.loads(path.read_text(encoding="ascii"))["frames"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path.name} must be an index of vectors") from None
    if not isinstance(frames, int) or not 0 < frames <= 1 << 20:
        raise InputError(f"{path.name} must have frames, not {frames!r}"[:120])
    return frames


def _load(path: Path, spec: TensorSpec, frames: int) -> IntArray:
    words = read_hex(path, spec.format.bits, frames * spec.size)
    values = words
    if spec.format.binary:
        values = [1 - 2 * word for word in words]
    elif spec.format.signed:
        values = signed(words, spec.format.bits)
    return np.array(values, dtype=np.int64).reshape(frames, *spec.shape)


def _to_words(values: IntArray, fmt: IntFormat) -> list[int]:
    flat = np.asarray(values).ravel().tolist()
    return [int(value < 0) for value in flat] if fmt.binary else unsigned(flat, fmt.bits)
