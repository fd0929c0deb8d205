"""Importers: a model file -> `pvq_hw.model.model.Model`."""

from pathlib import Path

from pvq_hw.errors import InputError
from pvq_hw.model.file_kind import file_magic, is_npz_magic, is_tflite_magic, other_format
from pvq_hw.model.model import Model

__all__ = ["load_model"]


def load_model(path: str | Path) -> Model:
    """Reads a model file, by its first bytes; raises InputError on one line when it can't.

    The file is not trusted: nothing in it is executed, sizes are checked before memory is
    taken, and external data is read from the model's own folder only.
    """
    path = Path(path)
    magic = file_magic(path)
    other = other_format(path, magic)
    if other:
        raise InputError(f"{path} must be an ONNX, TensorFlow Lite or npz file, but is {other}")
    if is_npz_magic(magic):
        from pvq_hw.model.npz import import_npz

        return import_npz(path)
    if is_tflite_magic(magic):
        from pvq_hw.model.tflite.read import import_tflite

        return import_tflite(path)
    from pvq_hw.model.onnx.read import import_onnx

    return import_onnx(path)
