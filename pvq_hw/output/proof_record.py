"""``proof.json``: what of an output's Verilog is proven for all inputs, of which files, by what.

Like a build's report it carries the hash of the manifest that it is about and that of itself.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pvq_hw.output.hashes import canonical_text, is_unchanged, sealed

__all__ = ["PROOF", "are_parts", "proof_change", "proof_lines", "read_proof", "write_proof"]

PROOF = "proof.json"

_FORMAT = "pvq-hw proof"
_VERSION = 1
_SELF = "proof_sha256"
_LIMIT = 1 << 26  # bytes
_STATES = ("proven", "shown", "open", "wrong")


def write_proof(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a document with its own hash; returns it."""
    rest = {"format": _FORMAT, "format_version": _VERSION, **document}
    value = sealed(rest, _SELF)
    (folder / PROOF).write_text(canonical_text(value), encoding="ascii", newline="\n")
    return value


def read_proof(folder: Path) -> dict[str, Any] | None:
    """The proof of an output; None where there is none or it is not as it was written."""
    path = folder / PROOF
    try:
        if path.stat().st_size > _LIMIT:
            return None
        data = path.read_bytes()
        value = json.loads(data.decode("ascii"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not is_unchanged(value, _SELF, data):
        return None
    if value.get("format") != _FORMAT or value.get("format_version") != _VERSION:
        return None
    return value if are_parts(value.get("parts")) else None


def are_parts(parts: Any) -> bool:
    """Whether a value has what is read of a proof's parts."""
    return isinstance(parts, list) and all(
        isinstance(part, dict)
        and all(isinstance(part.get(key), str) for key in ("part", "unit", "state", "says"))
        and part["state"] in _STATES
        for part in parts
    )


def proof_change(folder: Path, manifest: Mapping[str, Any] | None) -> str:
    """Why a proof counts for nothing; empty where it is the output's, or there is none."""
    if not (folder / PROOF).exists():
        return ""
    document = read_proof(folder)
    if document is None:
        return "is not as pvq-hw prove wrote it"
    if manifest and document.get("manifest_sha256") != manifest.get("manifest_sha256"):
        return "is a proof of another output"
    return ""


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
