"""``proof.json``: what of an output's Verilog is proven for all inputs, of which files, by what.

Like a build's report it carries the hash of the manifest that it is about and that of itself.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from pvq_hw.documents import Format, document_text, load_json, one_of, read
from pvq_hw.errors import InputError
from pvq_hw.output.build_record import BUILD, NETLIST
from pvq_hw.output.hashes import is_unchanged, sealed

__all__ = [
    "PROOF",
    "ProofPart",
    "load_proof",
    "netlist_hash",
    "proof_change",
    "proof_lines",
    "read_proof",
    "write_proof",
]

PROOF = "proof.json"

FORMAT = Format("a proof", "pvq-hw proof", 1)
_SELF = "proof_sha256"
_STATES = ("proven", "shown", "open", "wrong")


class ProofPart(TypedDict):
    """A part of a proof: what of which unit, and what shows it."""

    part: str
    unit: str
    state: Annotated[str, one_of(*_STATES)]
    says: str


class Proof(TypedDict):
    """What a proof holds besides its header."""

    pvq_hw_version: NotRequired[str]
    manifest_sha256: str
    netlist_sha256: NotRequired[str]
    prover_sha256: NotRequired[str]
    tools: NotRequired[dict[str, str]]
    complete: bool
    parts: list[ProofPart]
    proof_sha256: str


def write_proof(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a document with its own hash; returns it."""
    rest = FORMAT.header | dict(document)
    value = sealed(rest, _SELF)
    (folder / PROOF).write_text(document_text(value), encoding="ascii", newline="\n")
    return value


def read_proof(folder: Path) -> dict[str, Any] | None:
    """The proof of an output; None where there is none or it is not as it was written."""
    try:
        return load_proof(folder)
    except InputError:
        return None


def load_proof(folder: Path) -> dict[str, Any]:
    """The proof of an output; raises InputError where there is none, or not as it was written."""
    path = folder / PROOF
    found = FORMAT.header | read(Proof, load_json(path, FORMAT), str(path))
    if not is_unchanged(found, _SELF, path.read_bytes()):
        raise InputError(f"{path} differs from its own hash")
    return found


def proof_change(folder: Path, manifest: Mapping[str, Any] | None) -> str:
    """Why a proof counts for nothing; empty where it is the output's, or there is none."""
    if not (folder / PROOF).exists():
        return ""
    document = read_proof(folder)
    if document is None:
        return "is not as pvq-hw prove wrote it"
    if manifest and document.get("manifest_sha256") != manifest.get("manifest_sha256"):
        return "is a proof of another output"
    if document.get("netlist_sha256", "") not in ("", netlist_hash(folder)):
        return "is a proof of another build"
    return ""


def netlist_hash(folder: Path) -> str:
    """Hash of the netlist that an output's build gave to place and route; empty where none is."""
    path = folder / BUILD / NETLIST
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def proof_lines(parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """A proof for people: (state, what and for which units), in the order of the states."""
    units: dict[tuple[str, str, str], list[str]] = {}
    for part in parts:
        reason = part["says"] if part["state"] in ("open", "wrong") else ""
        units.setdefault((part["state"], part["part"], reason), []).append(part["unit"])
    return [
        (state, f"{what} ({', '.join(names)})" + (f": {reason}" if reason else ""))
        for wanted in _STATES
        for (state, what, reason), names in units.items()
        if state == wanted
    ]
