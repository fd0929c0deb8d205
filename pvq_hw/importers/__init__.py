"""Importers: a model file -> `pvq_hw.model.Model`."""

from pathlib import Path

from pvq_hw.errors import InputError
from pvq_hw.model import Model

__all__ = ["import_model"]

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")


def import_model(path: Path) -> Model:
    """Reads a ``.npz`` (by its first bytes) or an ONNX file; raises InputError otherwise."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} must be a model file, not a folder or a device")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"{path} must be a readable model file: {error.strerror}") from None
    if magic in _ZIP_MAGICS:
        from pvq_hw.importers.npz import import_npz

        return import_npz(path)
    from pvq_hw.importers.onnx import import_onnx

    return import_onnx(path)
