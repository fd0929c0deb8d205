"""Time series of the UEA archive as DATA.npz: reads ``.ts`` files out of a wheel or a folder.

The wheels of aeon and sktime (``pip download --no-deps aeon``) ship JapaneseVowels and
BasicMotions; nothing of them is imported or run.

Run as ``python -m pvq_hw.train.timeseries WHEEL NAME -o FOLDER``.
"""

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pvq_hw.data.dataset import Data, save_data
from pvq_hw.errors import InputError

__all__ = ["main", "parse_ts", "read_series"]

_LIMIT = 1 << 26  # bytes of one file
_PARTS = ("TRAIN", "TEST")


def parse_ts(text: str, where: str, length: int | None = None) -> Data:
    """The series of a ``.ts`` file: x float32 (series, channels, length), y class numbers.

    Parameters
    ----------
    text : str
    where : str
        Names the file in errors.
    length : int, optional
        Shorter series are filled up with zeros at their end, longer ones cut; the longest one's
        by default.

    Classes are numbered in the order of their names.
    """
    head, found, body = text.partition("@data")
    classes = [
        line.split()[2:] for line in head.splitlines() if line.startswith("@classLabel true")
    ]
    if not found or len(classes) != 1:
        raise InputError(f"{where} must be a .ts file with @classLabel and @data")
    names = {name: i for i, name in enumerate(sorted(classes[0]))}
    series: list[list[list[float]]] = []
    labels: list[int] = []
    for line in body.split("\n"):
        if not line.strip():
            continue
        *channels, label = line.strip().split(":")
        try:
            series.append([[float(value) for value in c.split(",")] for c in channels])
            labels.append(names[label])
        except (ValueError, KeyError):
            raise InputError(f"{where} must hold numbers and known classes") from None
    if not series or len({len(frame) for frame in series}) != 1:
        raise InputError(f"{where} must hold series of the same channels")
    length = length or max(len(values) for frame in series for values in frame)
    x = np.zeros((len(series), len(series[0]), length), dtype=np.float32)
    for i, frame in enumerate(series):
        for j, values in enumerate(frame):
            x[i, j, : len(values)] = values[:length]
    return Data(x, np.array(labels, dtype=np.uint8))


def read_series(source: Path, name: str) -> tuple[Data, Data]:
    """The training and the test series of a data set in a wheel or a folder, of equal length."""
    texts = [_text(source, f"{name}_{part}.ts") for part in _PARTS]
    longest = max(parse_ts(t, name).x.shape[2] for t in texts)
    train, test = (parse_ts(t, f"{name}_{p}", longest) for t, p in zip(texts, _PARTS, strict=True))
    return train, test


def _text(source: Path, name: str) -> str:
    try:
        if source.is_dir():
            return _decoded((source / name).read_bytes(), name)
        with zipfile.ZipFile(source) as wheel:
            for info in wheel.infolist():
                if info.filename.endswith(f"/{name}") and info.file_size <= _LIMIT:
                    return _decoded(wheel.read(info), name)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} must be a wheel or a folder with {name}: {error}") from None
    raise InputError(f"{source} must hold {name}")


def _decoded(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(f"{name} must be text") from None


def _stem(name: str) -> str:
    """``JapaneseVowels`` -> ``japanese_vowels``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes ``<name>_train.npz`` and ``<name>_test.npz``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a wheel of aeon or sktime, or a folder")
    parser.add_argument("name", help="for instance JapaneseVowels")
    parser.add_argument("-o", "--out", type=Path, default=Path(), help="folder to write into")
    args = parser.parse_args(argv)
    for data, part in zip(read_series(args.source, args.name), _PARTS, strict=True):
        path = args.out / f"{_stem(args.name)}_{part.lower()}.npz"
        save_data(data, path)
        print(f"{path}: {len(data)} series of {data.x.shape[1]} x {data.x.shape[2]}")


if __name__ == "__main__":
    main()
