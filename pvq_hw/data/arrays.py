"""Arrays in files that nobody vouches for: npy, npz and idx, read without pickle.

Sizes are checked against the file and against a limit before memory is taken. What is written
is the same bytes for the same arrays: stored zip members with fixed times.
"""

import ast
import contextlib
import gzip
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pvq_hw.documents import no_pipe
from pvq_hw.errors import InputError
from pvq_hw.files import whole_file
from pvq_hw.naming import quoted

__all__ = ["BYTES_LIMIT", "npz_keys", "read_array", "read_npz", "write_npz"]

BYTES_LIMIT = 1 << 31  # bytes of all arrays of one file: far above any data set used here
_VALUE_BYTES = 8  # what a value takes at least, since all is computed in 64 bits
_HEADER_LIMIT = 10_000
_MEMBERS_LIMIT = 4096
_DEFLATE_RATIO = 1032  # the most that deflate can expand
_CHUNK = 1 << 20
_NPY = b"\x93NUMPY"
_GZIP = b"\x1f\x8b"
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy's
_BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)
Array = npt.NDArray[Any]


@contextlib.contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Turns what the standard library raises on broken files into one InputError."""
    no_pipe(path)
    try:
        yield
    except InputError:
        raise
    except (*_BROKEN, ValueError, struct.error) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        line = " ".join(ascii(text)[1:-1].split())[:120]
        raise InputError(f"{path} must be {what}: {line or type(error).__name__}") from None


def _fill(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    """Reads ``prod(shape)`` values; the caller has checked that this much may be allocated."""
    flat = np.empty(math.prod(shape), dtype=dtype)
    view = memoryview(flat.view(np.uint8)) if flat.size else memoryview(b"")  # type: ignore[arg-type]
    position = 0
    while position < len(view):
        piece = file.read(min(_CHUNK, len(view) - position))
        if not piece:
            raise InputError(f"{where} is cut off: {len(view):,} bytes of values were announced")
        view[position : position + len(piece)] = piece
        position += len(piece)
    return flat


def _exactly(file: IO[bytes], count: int, where: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise InputError(f"{where} is cut off in its header")
    return data


def _npy_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, type and header length in bytes of an npy stream."""
    magic = _exactly(file, 8, where)
    if magic[:6] != _NPY or magic[6] not in (1, 2, 3):
        raise InputError(f"{where} must be a NumPy array (npy), but does not begin like one")
    prefix = _exactly(file, 2 if magic[6] == 1 else 4, where)
    length = int.from_bytes(prefix, "little")
    if length > _HEADER_LIMIT:
        raise InputError(f"{where} must have a header of at most {_HEADER_LIMIT} bytes")
    text = _exactly(file, length, where)
    try:
        header = ast.literal_eval(text.decode("utf-8" if magic[6] == 3 else "latin1").strip())
        shape, fortran, descr = header["shape"], header["fortran_order"], header["descr"]
        if not isinstance(descr, str) or len(descr) > 16 or not isinstance(shape, tuple):
            raise TypeError
        dtype = np.dtype(descr)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise InputError(f"{where} has a broken npy header") from None
    if dtype.hasobject:
        raise InputError(f"{where} must hold numbers, not pickled Python objects")
    if dtype.kind not in "fiub":
        raise InputError(f"{where} must hold real numbers, not {dtype}")
    if any(type(n) is not int or n < 0 for n in shape):
        raise InputError(f"{where} must have a shape of integers >= 0, not {str(shape)[:60]}")
    return shape, bool(fortran), dtype, 8 + len(prefix) + length


def _read_npy(file: IO[bytes], available: int, limit: int, where: str) -> Array:
    """An npy stream of ``available`` bytes in all."""
    shape, fortran, dtype, header = _npy_header(file, where)
    size = math.prod(shape) * dtype.itemsize
    _check_taken(math.prod(shape), dtype, limit, where)
    if size != available - header:
        raise InputError(
            f"{where} must hold {size:,} bytes of values for its shape {shape}, "
            f"not {available - header:,}"
        )
    flat = _fill(file, dtype, shape, where)
    return _native(flat.reshape(shape, order="F" if fortran else "C"))


def _taken(count: int, dtype: np.dtype[Any]) -> int:
    """Bytes that ``count`` values take in the end."""
    return count * max(dtype.itemsize, _VALUE_BYTES)


def _check_taken(count: int, dtype: np.dtype[Any], limit: int, where: str) -> None:
    taken = _taken(count, dtype)
    if taken > limit:
        raise InputError(f"{where} claims {taken:,} bytes of memory; at most {limit:,} are read")


def _native(array: Array) -> Array:
    """Native byte order; nothing wider than float64."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return np.asarray(array, dtype=dtype, order="C")


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MEMBERS_LIMIT:
        raise InputError(f"{path} must hold at most {_MEMBERS_LIMIT} arrays, not {len(infos):,}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        key = info.filename.removesuffix(".npy")
        if key in members:
            raise InputError(f"{path} must hold each array once, but {quoted(key)} is there twice")
        members[key] = info
    return members


def npz_keys(path: Path) -> list[str]:
    """Names of the arrays in an npz file, in the file's order."""
    with _readable(path, "an npz file"), zipfile.ZipFile(path) as archive:
        return list(_members(path, archive))


def read_npz(
    path: Path, keys: Iterable[str] | None = None, limit: int = BYTES_LIMIT
) -> dict[str, Array]:
    """Arrays of an npz file, all or ``keys``, in the file's order.

    Raises InputError (one line) for anything that isn't an npz of plain numbers: pickles, cut
    or broken files, encrypted members, sizes that differ from the headers, and more than
    ``limit`` bytes in all, 8 for each value.
    """
    with _readable(path, "an npz file"), zipfile.ZipFile(path) as archive:
        members = _members(path, archive)
        wanted = list(members) if keys is None else list(keys)
        for key in wanted:
            if key not in members:
                held = ", ".join(map(quoted, list(members)[:20])) or "nothing"
                raise InputError(f"{path} must hold {quoted(key)}, but holds {held}")
        result = {}
        for key, info in members.items():
            if key not in wanted:
                continue
            where = f"{path}: array {quoted(key)}"
            if info.compress_type not in _METHODS:
                raise InputError(f"{where} must be stored or deflated, as NumPy does it")
            if info.file_size > limit:
                raise InputError(f"{where} claims {info.file_size:,} bytes; {limit:,} are left")
            if info.file_size > _DEFLATE_RATIO * info.compress_size + 64:
                raise InputError(f"{where} claims more bytes than its compressed data can hold")
            with archive.open(info) as file:
                result[key] = _read_npy(file, info.file_size, limit, where)
            limit -= _taken(result[key].size, result[key].dtype)
    return result


def _read_idx(path: Path, file: IO[bytes], compressed: bool, limit: int) -> Array:
    head = _exactly(file, 4, str(path))
    if head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or head[3] > 8:
        raise InputError(f"{path} must be an idx, npz or npy file, but begins with {head.hex()}")
    dims = struct.unpack(f">{head[3]}I", _exactly(file, 4 * head[3], str(path)))
    dtype = np.dtype(_IDX_TYPES[head[2]])
    size = math.prod(dims) * dtype.itemsize
    _check_taken(math.prod(dims), dtype, limit, str(path))
    possible = path.stat().st_size * (_DEFLATE_RATIO if compressed else 1)
    if size > possible:
        raise InputError(f"{path} claims {size:,} bytes; at most {possible:,} can be read from it")
    array = _fill(file, dtype, dims, str(path)).reshape(dims)
    if file.read(1):
        raise InputError(f"{path} must end after {size:,} bytes of values, but goes on")
    return _native(array)


def read_array(path: Path, limit: int = BYTES_LIMIT) -> Array:
    """The one array of an npy or idx file (``.gz`` or not), told by its first bytes."""
    with _readable(path, "an idx or npy file"), path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic == _NPY:
            return _read_npy(file, path.stat().st_size, limit, str(path))
        if magic[:2] == _GZIP:
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read_idx(path, unzipped, True, limit)  # type: ignore[arg-type]
        return _read_idx(path, file, False, limit)


def write_npz(path: Path, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Writes an npz whose bytes depend on the arrays only; replaces ``path`` atomically.

    Members are stored, not compressed: compressed bytes differ between versions of zlib.
    """
    with whole_file(path) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            body = io.BytesIO()
            np.lib.format.write_array(body, np.asarray(value), (1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, body.getvalue())
