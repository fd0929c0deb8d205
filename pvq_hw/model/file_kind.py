"""What a model file is, by its first bytes."""

import struct
import zipfile
from pathlib import Path

from pvq_hw.errors import InputError

__all__ = [
    "file_content",
    "file_magic",
    "is_npz",
    "is_npz_magic",
    "is_onnx",
    "is_tflite",
    "is_tflite_magic",
    "other_format",
]

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_TFLITE_MAGIC = b"TFL3"
_TORCH = "a PyTorch file; export it with torch.onnx.export"
_KERAS = "a Keras file; export it with model.export(..., format='onnx') or tf2onnx"


def is_npz_magic(magic: bytes) -> bool:
    """Whether these are the first bytes of an archive."""
    return magic[:4] in _ZIP_MAGICS


def is_tflite_magic(magic: bytes) -> bool:
    """Whether these are the first bytes of a TensorFlow Lite file."""
    return magic[4:8] == _TFLITE_MAGIC


def is_npz(path: Path) -> bool:
    """Whether a file is an archive, by its first bytes; InputError where it can't be read."""
    return is_npz_magic(file_magic(path))


def is_onnx(path: Path) -> bool:
    """Whether `pvq_hw.model.load.load_model` would read it as ONNX."""
    magic = file_magic(path)
    return not (is_npz_magic(magic) or is_tflite_magic(magic)) and not other_format(path, magic)


def is_tflite(path: Path) -> bool:
    """Whether a file is of TensorFlow Lite, likewise."""
    return is_tflite_magic(file_magic(path))


def file_magic(path: Path) -> bytes:
    """The first 16 bytes."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} must be a model file, not a folder or a device")
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None


def file_content(path: Path, most: int) -> bytes:
    """All bytes, of which a file has at most ``most``; InputError where it can't be read."""
    try:
        size = path.stat().st_size
        if size > most:
            raise InputError(f"{path} must have at most {most:,} bytes, not {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None


def other_format(path: Path, magic: bytes) -> str:
    """What the file is, and how it becomes ONNX, where it is a known format of others."""
    if magic.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"):  # of torch.save before 1.6
        return _TORCH
    if magic.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file (Keras?); export it to ONNX, for instance with tf2onnx"
    if not is_npz_magic(magic):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        return ""  # the npz reader says what is broken
    if any(name.endswith("/data.pkl") for name in names):
        return _TORCH
    return _KERAS if "model.weights.h5" in names else ""
