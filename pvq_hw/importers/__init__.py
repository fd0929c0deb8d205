"""Importers: a model file -> `pvq_hw.model.Model`."""

from pathlib import Path

from pvq_hw.errors import InputError
from pvq_hw.model import Model

__all__ = ["import_model", "is_npz"]

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")


def is_npz(path: Path) -> bool:
    """Whether a file is an archive, by its first bytes; InputError where it can't be read."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} must be a model file, not a folder or a device")
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIP_MAGICS
    except OSError as error:
        raise InputError(f"{path} must be a readable model file: {error.strerror}") from None


def import_model(path: Path) -> Model:
    """Reads a ``.npz`` (by its first bytes) or an ONNX file; raises InputError otherwise."""
    if is_npz(path):
        from pvq_hw.importers.npz import import_npz

        return import_npz(path)
    from pvq_hw.importers.onnx import import_onnx

    return import_onnx(path)
