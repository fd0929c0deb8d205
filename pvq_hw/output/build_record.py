"""``build/build.json``: what a build made, of what, and every file's hash."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvq_hw.errors import InputError
from pvq_hw.output.hashes import canonical_text, changed_files, file_entries, is_unchanged, sealed

__all__ = [
    "BUILD",
    "BUILD_FILE",
    "build_changes",
    "built_files",
    "built_from",
    "read_build",
    "write_build",
]

BUILD = "build"
BUILD_FILE = "build.json"
"""The report of a build, in the folder `BUILD` of an output."""

_SELF = "build_sha256"
_LIMIT = 1 << 26  # bytes of a report


def write_build(folder: Path, document: Mapping[str, Any]) -> None:
    """Writes ``document`` and the hashes of all files in a build's folder, as its last file."""
    rest = {key: value for key, value in document.items() if key not in ("files", _SELF)}
    files = file_entries(folder, _found(folder))
    text = canonical_text(sealed(rest | {"files": files}, _SELF))
    (folder / BUILD_FILE).write_text(text, encoding="ascii", newline="\n")


def read_build(out: Path, *, strict: bool = True) -> dict[str, Any]:
    """The report of an output's build, whose bitstream is as it was built.

    Raises InputError where there is no build, or, if ``strict``, where anything of it differs.
    """
    path = out / BUILD / BUILD_FILE
    if not path.is_file():
        raise InputError(f"{path} must exist; run pvq-hw build first")
    changes = build_changes(out)
    document = _document(out)
    if document is not None and not strict and document["bitstream"] in document["files"]:
        return document
    if changes or document is None:
        name, message = changes[0]
        remedy = "move it away" if message.startswith("is not in") else "run pvq-hw build again"
        raise InputError(f"{out / name} must be as it was built, but {message}; {remedy}")
    return document


def build_changes(out: Path) -> list[tuple[str, str]]:
    """What of an output's build differs from its report: names below ``out``, and messages.

    Nothing where there is no build.
    """
    found = _found(out / BUILD)
    name = f"{BUILD}/{BUILD_FILE}"
    if not (out / BUILD / BUILD_FILE).is_file():
        return [(name, "is missing")] if found else []
    document = _document(out)
    if document is None:
        return [(name, "is no report of a build")]
    changes = changed_files(out / BUILD, document["files"], found, BUILD_FILE)
    changes = [(f"{BUILD}/{file}", message) for file, message in changes]
    if not is_unchanged(document, _SELF, (out / BUILD / BUILD_FILE).read_bytes()):
        changes.insert(0, (name, "differs from its own hash"))
    elif document["bitstream"] not in document["files"]:
        changes.insert(0, (name, "names no bitstream beside it"))
    return changes


def built_files(out: Path) -> frozenset[str]:
    """The files below ``out`` that its build says it wrote."""
    document = _document(out) or {"files": {}}
    return frozenset(f"{BUILD}/{name}" for name in (BUILD_FILE, *document["files"]))


def built_from(out: Path) -> Any:
    """The hash of the manifest that a build was made from; None where there is no build."""
    return (_document(out) or {}).get("manifest_sha256")


def _found(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files)
    return sorted(name for name in names if name != BUILD_FILE)


def _document(out: Path) -> dict[str, Any] | None:
    """The report as far as it can be read: ``files`` is a dict, ``bitstream`` a text."""
    path = out / BUILD / BUILD_FILE
    try:
        if path.stat().st_size > _LIMIT:
            return None
        value = json.loads(path.read_bytes().decode("ascii"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
        return None
    return value if isinstance(value.get("bitstream"), str) else None
