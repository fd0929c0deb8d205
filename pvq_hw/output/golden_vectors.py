"""Golden vectors: inputs and every layer's outputs, as hex text that any simulator reads."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.documents import Format, document_text, integer_range, load_json, read
from pvq_hw.engine.hexfile import hex_text, read_hex, signed, unsigned
from pvq_hw.errors import InputError
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import unit_names

__all__ = ["load_index", "load_vectors", "vector_files", "vector_index", "write_vectors"]

IntArray = npt.NDArray[np.int64]

FORMAT = Format("an index of vectors", "pvq-hw vectors", limit=1 << 20)
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
    files = {
        name: hex_text(_to_words(values, spec.format), spec.format.bits)
        for name, spec, values in tensors
    }
    files[_INDEX] = document_text(vector_index(network, len(x)))
    return dict(sorted(files.items()))


def vector_index(network: Network, frames: int) -> dict[str, Any]:
    """What ``vectors.json`` says of the files of so many frames."""
    named = zip(unit_names(network.layers), network.layers, strict=True)
    tensors = {_INPUT: network.input} | {f"{name}.hex": layer.output for name, layer in named}
    index = {
        name: {
            "activations": spec.size,
            "bits": spec.format.bits,
            "signed": spec.format.signed,
            "tensor": spec.name,
        }
        for name, spec in tensors.items()
    }
    return {**FORMAT.header, "frames": frames, "files": index}


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
    index = load_index(place / _INDEX)
    frames = index["frames"]
    if index["files"] != vector_index(network, frames)["files"]:
        raise InputError(f"{place / _INDEX} must describe the files of this network's layers")
    x = _load(place / _INPUT, network.input, frames)
    outputs = [
        _load(place / f"{name}.hex", layer.output, frames)
        for layer, name in zip(network.layers, unit_names(network.layers), strict=True)
    ]
    return x, outputs


class VectorFile(TypedDict):
    """What the index says of a file: activations of a frame, their width, whose they are."""

    activations: int
    bits: int
    signed: bool
    tensor: str


class VectorIndex(TypedDict):
    """What the index holds besides its header."""

    frames: Annotated[int, integer_range(1, 1 << 20)]
    files: dict[str, VectorFile]


def load_index(path: Path) -> dict[str, Any]:
    """The index of golden vectors; raises InputError where it is none."""
    found: dict[str, Any] = read(VectorIndex, load_json(path, FORMAT), str(path))
    return found


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
