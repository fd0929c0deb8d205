"""``build/build.json``: what a build made, of what, and every file's hash."""

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pvq_hw.documents import Format, Place, document_text, load_json, read
from pvq_hw.errors import InputError
from pvq_hw.output.hashes import FileEntry, changed_files, file_entries, is_unchanged, sealed

__all__ = [
    "BUILD",
    "BUILD_FILE",
    "NETLIST",
    "build_changes",
    "built_files",
    "built_from",
    "load_build",
    "load_memories",
    "load_netlist",
    "read_build",
    "write_build",
]

BUILD = "build"
BUILD_FILE = "build.json"
"""The report of a build, in the folder `BUILD` of an output."""

NETLIST = "netlist.json.gz"
"""What place and route was given: Yosys's JSON, packed."""

FORMAT = Format("a report of a build")
_MEMORIES = Format("places of block RAMs")
_SELF = "build_sha256"
_MOST_BYTES = 1 << 30  # of a netlist


class Build(TypedDict):
    """What a build's report holds; all but the files and the bitstream is for people."""

    bitstream: str
    files: dict[str, FileEntry]
    build_sha256: NotRequired[str]
    manifest_sha256: NotRequired[str]
    placer: NotRequired[str]
    clock_mhz: NotRequired[float]
    fmax_mhz: NotRequired[float]
    clocks: NotRequired[dict[str, Any]]
    utilization: NotRequired[dict[str, Any]]
    seconds: NotRequired[dict[str, float]]
    seed: NotRequired[int]
    seeds: NotRequired[list[dict[str, Any]]]
    tools: NotRequired[dict[str, Any]]
    slowest_path: NotRequired[dict[str, Any] | None]
    floorplan: NotRequired[dict[str, Any]]


class Memories(TypedDict):
    """Hash of the netlist without contents, and the place of each block RAM by its cell."""

    netlist: str
    memories: dict[str, str]


def write_build(folder: Path, document: Mapping[str, Any]) -> None:
    """Writes ``document`` and the hashes of all files in a build's folder, as its last file."""
    rest = {key: value for key, value in document.items() if key not in ("files", _SELF)}
    files = file_entries(folder, _found(folder))
    text = document_text(sealed(rest | {"files": files}, _SELF))
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
    """Files of an output's build that differ from its report: names below ``out``, and messages.

    Empty where there is no build.
    """
    found = _found(out / BUILD)
    name = f"{BUILD}/{BUILD_FILE}"
    if not (out / BUILD / BUILD_FILE).is_file():
        return [(name, "is missing")] if found else []
    try:
        document = load_build(out / BUILD)
    except InputError as error:
        return [(name, f"is no report of a build: {error}")]
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


def load_netlist(out: Path) -> dict[str, Any]:
    """What an output's build gave to place and route; raises InputError where it is none."""
    path = out / BUILD / NETLIST
    try:
        with gzip.open(path) as packed:
            text = packed.read(_MOST_BYTES)
        netlist = json.loads(text)
        cells = netlist["modules"]["top"]["cells"].values()
        whole = all({"type", "connections", "port_directions"} <= cell.keys() for cell in cells)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{path} must hold a netlist; run pvq-hw build again")
    found: dict[str, Any] = netlist
    return found


def _found(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files)
    return sorted(name for name in names if name != BUILD_FILE)


def _document(out: Path) -> dict[str, Any] | None:
    """The report; None where it can't be read."""
    try:
        return load_build(out / BUILD)
    except InputError:
        return None


def load_build(folder: Path) -> dict[str, Any]:
    """The report in a build's folder, whether or not it is as it was written.

    Raises InputError where it is none.
    """
    value = load_json(folder / BUILD_FILE, FORMAT, Place(BUILD_FILE))
    found: dict[str, Any] = read(Build, value, BUILD_FILE)
    return found


def load_memories(path: Path) -> dict[str, Any]:
    """Where place and route put each block RAM of a build; raises InputError where no one says."""
    found: dict[str, Any] = read(Memories, load_json(path, _MEMORIES), str(path))
    return found
