"""A TensorFlow Lite file run by its own runtime: what it says without this package's importer."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.model.tflite.file import TfliteFile, read_tflite

__all__ = ["rounds_activations", "run_tflite"]

FloatArray = npt.NDArray[np.float64]
_WEIGHTED = ("Conv2D", "DepthwiseConv2D", "FullyConnected")


def rounds_activations(file: TfliteFile) -> bool:
    """Whether weights are quantized and the activations that they multiply are not.

    The runtime then rounds those activations to 8 bits, by the largest value of each frame, which
    the file doesn't say: its outputs differ by a percent or two from what the file says.
    """
    return any(
        file.tensors[op.inputs[1]].scale is not None and file.tensors[op.inputs[0]].scale is None
        for op in file.operators
        if op.kind in _WEIGHTED and len(op.inputs) > 1 and min(op.inputs[:2]) >= 0
    )


def run_tflite(path: Path, dropped: int, frames: FloatArray, output: int = 0) -> FloatArray:
    """An output of ai-edge-litert, in real units, before its last ``dropped`` operations.

    Parameters
    ----------
    path : Path
    dropped : int
        Final operations that the accelerator leaves out.
    frames : float64 array (frames, ...)
        Real inputs; any shape of the file's size per frame, of several inputs one after the other.
    output : int
        Which of the file's.

    Returns
    -------
    float64 array (frames, outputs)
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    file = read_tflite(path)
    result = file.outputs[output]
    makers = {op.outputs[0]: op for op in file.operators}
    for _ in range(dropped):
        result = makers[result].inputs[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that inner tensors take memory
        interpreter: Any = Interpreter(
            str(path),
            experimental_op_resolver_type=OpResolverType.AUTO,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    batch = file.tensors[file.inputs[0]].shape[0]
    flat = frames.reshape(len(frames), -1)
    outputs = []
    for start in range(0, len(frames), batch):
        part = flat[start : start + batch]
        padded = np.concatenate((part, np.repeat(part[-1:], batch - len(part), axis=0)))
        at = 0
        for source in file.inputs:
            shape = file.tensors[source].shape
            wide = math.prod(shape[1:])
            stored = _stored(padded[:, at : at + wide].reshape(shape), file, source)
            interpreter.set_tensor(source, stored)
            at += wide
        interpreter.invoke()
        real = _real(interpreter.get_tensor(result), file, result)
        outputs.append(real.reshape(batch, -1)[: len(part)])
    return np.concatenate(outputs)


def _stored(real: FloatArray, file: TfliteFile, index: int) -> npt.NDArray[Any]:
    """Real values as the tensor stores them."""
    tensor = file.tensors[index]
    kind = np.dtype(tensor.kind)
    if tensor.scale is None or tensor.zero is None:
        return real.astype(kind)
    limits = np.iinfo(kind)
    steps = np.rint(real / tensor.scale.astype(np.float64)) + tensor.zero
    return np.clip(steps, limits.min, limits.max).astype(kind)


def _real(stored: npt.NDArray[Any], file: TfliteFile, index: int) -> FloatArray:
    """What stored values stand for."""
    tensor = file.tensors[index]
    if tensor.scale is None or tensor.zero is None:
        return stored.astype(np.float64)
    return np.asarray((stored.astype(np.float64) - tensor.zero) * tensor.scale.astype(np.float64))
