"""DATA.npz: inputs ``x``, or several by their names, frames first, and labels ``y`` where there
are some."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import LARGEST
from pvq_hw.data.arrays import npz_keys, read_array, read_npz, write_npz
from pvq_hw.documents import no_pipe
from pvq_hw.errors import InputError
from pvq_hw.inputs import Input, join_inputs
from pvq_hw.naming import quoted

__all__ = ["Data", "load_data", "make_data", "save_data"]

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True, eq=False)
class Data:
    """Frames and, perhaps, labels.

    Parameters
    ----------
    x : array (frames, ...)
        As in the file: integers stay integers.
    y : array (frames, ...) or None
        Class numbers, (frames,), or targets.
    input_scale : float
        What integer ``x`` is divided by to give what the model expects; floats are not divided.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None = None
    input_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1e-30 <= self.input_scale <= 1e30:
            raise InputError(f"Input scale must be a number > 0, not {self.input_scale}")
        for name, array in (("x", self.x), ("y", self.y)):
            if array is None:
                continue
            if array.dtype.kind not in "fiub":
                raise InputError(f"Data {name!r} must be numbers, not {array.dtype}")
            if array.ndim < 1 or array.size == 0:
                raise InputError(f"Data {name!r} must have frames, not the shape {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"Data {name!r} must be finite, but holds NaN or infinities")
            if max(-float(array.min()), float(array.max())) > LARGEST:
                raise InputError(f"Data {name!r} must be at most {LARGEST:g} in magnitude")
        if self.y is not None and len(self.y) != len(self.x):
            raise InputError(f"Data must have a label per frame, not {len(self.y)} for {len(self)}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sha256(self) -> str:
        """Hash of ``x`` and ``y``, whatever file they come from: hex digits."""
        found = hashlib.sha256()
        for array in (self.x, self.y):
            if array is not None:
                plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
                found.update(f"{plain.dtype.str} {plain.shape}\n".encode())
                found.update(plain.tobytes())
        return found.hexdigest()

    def head(self, count: int | None) -> "Data":
        """The first ``count`` frames; all of them for None."""
        if count is None:
            return self
        if count < 1:
            raise InputError(f"Count must be at least 1, not {count}")
        y = None if self.y is None else self.y[:count]
        return Data(self.x[:count], y, self.input_scale)

    def real(self) -> npt.NDArray[np.float64]:
        """``x`` as the model expects it, float64 (frames, ...)."""
        real = self.x.astype(np.float64)
        return real if self.x.dtype.kind == "f" else real / self.input_scale


def load_data(
    path: str | Path,
    input_scale: float = 1.0,
    inputs: Sequence[Input] | Callable[[], Sequence[Input]] = (),
) -> Data:
    """Reads a DATA.npz: ``x`` and perhaps ``y``; other arrays are ignored.

    For a model of several ``inputs`` (those of a Model or Network, or a function that gives them,
    which is called where the file holds more than ``x`` and ``y``) it may hold an array for each by
    its name instead of ``x``; they are joined to one, see `pvq_hw.inputs.join_inputs`.

    Raises InputError for anything else, without pickle, and before memory is taken for what
    the file only claims to hold.
    """
    path = Path(path)
    keys = npz_keys(path)
    if not {*keys} <= {"x", "y"}:
        several = inputs() if callable(inputs) else inputs
        names = {each.name for each in several}
        if names and ("x" not in keys or "x" in names):
            found = read_npz(path, [key for key in keys if key in {*names, "y"}])
            y = _labels(found.pop("y", None))
            return _with_place(
                path, lambda: Data(join_inputs(several, found, input_scale), y, input_scale)
            )
    if "x" not in keys:
        held = ", ".join(map(quoted, keys[:20])) or "nothing"
        raise InputError(
            f"{path} must hold 'x', but holds {held}; pvq-hw data --keys makes such a file"
        )
    arrays = read_npz(path, [k for k in ("x", "y") if k in keys])
    return _with_place(path, lambda: Data(arrays["x"], _labels(arrays.get("y")), input_scale))


def save_data(data: Data, path: str | Path) -> None:
    """Writes a DATA.npz, the same bytes for the same data. ``input_scale`` isn't stored."""
    arrays = {"x": data.x} if data.y is None else {"x": data.x, "y": data.y}
    write_npz(Path(path), arrays)


def make_data(
    files: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    count: int | None = None,
    shape: Sequence[int] | None = None,
    keys: Sequence[str] | None = None,
) -> Data:
    """Makes a DATA.npz of idx, npz or npy files.

    Parameters
    ----------
    files : one or two paths
        Inputs, then labels: idx (``.gz`` or not) or npy; or one npz that holds both.
    output : path, optional
        Where to write; nothing is written without it.
    count : int, optional
        Only the first frames.
    shape : ints, optional
        Shape of one frame, for instance ``(1, 28, 28)``; the order of the values stays.
    keys : one or two names, optional
        Arrays of the npz files for x and y, for instance ``("x_test", "y_test")``; by default
        ``x`` and ``y``, or the only array.
    """
    paths = [Path(f) for f in files]
    if len(paths) not in (1, 2):
        raise InputError(f"Data must come from one or two files, not {len(paths)}")
    arrays = _collect(paths, list(keys) if keys is not None else None)
    x, y = arrays[0], _labels(arrays[1] if len(arrays) > 1 else None)
    data = _with_place(paths[0], lambda: Data(x, y)).head(count)
    if shape is not None:
        data = Data(_reshaped(data.x, tuple(shape)), data.y)
    if output is not None:
        save_data(data, output)
    return data


def _with_place(path: Path, make: Any) -> Data:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _labels(y: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    """A column of labels becomes a row of them."""
    if y is not None and y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind in "iub":
        return y[:, 0]
    return y


def _reshaped(x: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if any(n < 1 for n in shape) or math.prod(shape) != x[0].size:
        raise InputError(f"Shape must have {x[0].size} values like the data's frames, not {shape}")
    return x.reshape(len(x), *shape)


def _is_npz(path: Path) -> bool:
    no_pipe(path)
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIP_MAGICS
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None


def _collect(paths: list[Path], keys: list[str] | None) -> list[npt.NDArray[Any]]:
    """x and perhaps y; ``keys`` are used up by the npz files in turn."""
    if keys is not None and len(keys) not in (1, 2):
        raise InputError(f"Keys must be one or two names, not {len(keys)}")
    found: list[npt.NDArray[Any]] = []
    for i, path in enumerate(paths):
        if not _is_npz(path):
            found.append(read_array(path))
            continue
        wanted = _choose(path, keys, single=len(paths) == 2, first=i == 0)
        if keys is not None and len(paths) == 2:
            keys = keys[1:]
        arrays = read_npz(path, wanted)
        found.extend(arrays[key] for key in wanted)
    return found


def _choose(path: Path, keys: list[str] | None, *, single: bool, first: bool) -> list[str]:
    """The arrays to take from one npz file."""
    if keys:
        return keys[:1] if single else keys
    held = npz_keys(path)
    if len(held) == 1:
        return held
    if single and ("x" if first else "y") in held:
        return ["x" if first else "y"]
    if not single and "x" in held:
        return [key for key in ("x", "y") if key in held]
    names = ", ".join(map(quoted, held[:20])) or "nothing"
    raise InputError(f"{path} holds {names}; choose arrays with --keys, for instance x_test,y_test")
