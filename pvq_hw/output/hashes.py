"""Hashes of files, and JSON documents that carry the hash of themselves.

They show that files belong together and have not changed since; they prove nothing about who made
them, since anybody can make them again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from pvq_hw.documents import document_text

__all__ = [
    "FileEntry",
    "changed_files",
    "file_entries",
    "file_sha256",
    "is_unchanged",
    "sealed",
]


class FileEntry(TypedDict):
    """What a document says of a file."""

    bytes: int
    sha256: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """``bytes`` and ``sha256`` of files, by their names below ``folder``."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in names
    }


def changed_files(
    folder: Path, listed: Mapping[str, FileEntry], found: Iterable[str], by: str
) -> list[tuple[str, str]]:
    """What is missing, there besides, or of other bytes than ``file_entries`` once said.

    Parameters
    ----------
    folder : Path
    listed : mapping
        Of `file_entries`.
    found : iterable of str
        The files that are there, below ``folder``.
    by : str
        What the messages call the document.

    Returns
    -------
    list of (name, message)
    """
    names = sorted(found)
    changed = [(name[:200], "is missing") for name in sorted(set(listed) - set(names))]
    for name in names:
        entry = listed.get(name)
        if entry is None:
            changed.append((name, f"is not in {by}"))
        elif entry["sha256"] != file_sha256(folder / name):
            changed.append((name, f"differs from its hash in {by}"))
    return changed


def sealed(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The document with the hash of its canonical text, without that hash, under ``key``."""
    rest = {name: value for name, value in document.items() if name != key}
    return rest | {key: hashlib.sha256(document_text(rest).encode()).hexdigest()}


def is_unchanged(document: Mapping[str, Any], key: str, data: bytes) -> bool:
    """Whether a sealed document's bytes are canonical and agree with the hash in it."""
    return (
        document.get(key) == sealed(document, key)[key] and document_text(document).encode() == data
    )
