"""``manifest.json``: what an output is made of, of what, how good it is, and every file's hash.

Its text is canonical (sorted keys, one space of indent) and carries the hash of itself without
that hash, so that one changed bit of it shows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

import pvq_hw
from pvq_hw.arith.formats import significant
from pvq_hw.documents import Format, document_text, load_json, read
from pvq_hw.errors import InputError
from pvq_hw.evaluate.code_error import layer_codes, layer_errors
from pvq_hw.network.network import Network
from pvq_hw.output.folder import MANIFEST, OPTIONS, OUTPUT_FORMAT
from pvq_hw.output.hashes import FileEntry, changed_files, file_entries, sealed
from pvq_hw.output.hashes import is_unchanged as is_sealed
from pvq_hw.plan.plan import Plan

__all__ = [
    "COVERED",
    "FORMAT",
    "Manifest",
    "check_files",
    "covered_files",
    "file_changes",
    "is_unchanged",
    "load_manifest",
    "make_manifest",
    "reclocked_manifest",
    "write_manifest",
]

FORMAT = Format("a manifest of pvq-hw", OUTPUT_FORMAT, 1, 1 << 28)
COVERED = (
    "constraints", "image", "network", OPTIONS, "plan.json", "testbench", "vectors", "verilog",
)  # fmt: skip
"""What a manifest covers, folders with all that is below them. A build comes later and has hashes
of its own (`pvq_hw.output.build_record`); simulations and reports can be made again, and have
none."""

_SELF = "manifest_sha256"


class Manifest(TypedDict):
    """What a manifest holds besides its header."""

    pvq_hw_version: str
    network: str
    model: dict[str, Any]
    quantization: dict[str, Any]
    n_over_k: float
    input: dict[str, Any]
    output: dict[str, Any]
    inputs: NotRequired[list[dict[str, Any]]]
    outputs: NotRequired[list[dict[str, Any]]]
    target: dict[str, Any]
    plan: dict[str, Any]
    layers: list[dict[str, Any]]
    files: dict[str, FileEntry]
    extra: dict[str, Any]
    manifest_sha256: str


def covered_files(folder: Path) -> list[str]:
    """Relative paths, with ``/``, of the files that a manifest covers, sorted."""
    found = []
    for entry in COVERED:
        path = folder / entry
        files = path.rglob("*") if path.is_dir() else [path]
        found += [f.relative_to(folder).as_posix() for f in files if f.is_file()]
    return sorted(found)


def file_changes(folder: Path, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Covered files that are missing, there besides, or of other bytes than the manifest says:
    (name, message)."""
    return changed_files(folder, document["files"], covered_files(folder), "the manifest")


def check_files(folder: Path, document: Mapping[str, Any]) -> None:
    """Raises InputError unless the covered files are as the manifest says."""
    changes = file_changes(folder, document)
    if changes:
        name, message = changes[0]
        more = f", and so on for {len(changes) - 1} more" if len(changes) > 1 else ""
        raise InputError(
            f"{folder / name} {message}{more}; see pvq-hw verify, or run pvq-hw compile again"
        )


def make_manifest(
    folder: Path,
    network: Network,
    plan: Plan,
    *,
    weights: Mapping[str, npt.NDArray[np.float64]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest of a folder that holds all files it is to cover.

    Parameters
    ----------
    folder : Path
    network : Network
        Its ``meta`` (source hash, quantizer, seed) goes in as it is.
    plan : Plan
    weights : mapping of layer name to float64 array (M, N), optional
        Original weights; without them cosines and errors are left out.
    extra : mapping, optional
        JSON values under ``extra``: accuracy, options of the run.
    """
    layers = []
    for layer in network.weighted:
        figures = layer_codes(layer)
        if weights is not None and layer.name in weights:
            figures |= layer_errors(layer, weights[layer.name])
        layers.append(figures)
    document = {
        **FORMAT.header,
        "pvq_hw_version": pvq_hw.__version__,
        "network": network.name,
        "model": {"sha256": network.meta.get("source_sha256")},
        "quantization": dict(network.meta),
        "n_over_k": significant(network.n_over_k, 10),
        "input": {**network.input.to_json(), **_input(network)},
        "output": {**network.output.to_json(), "scale_value": network.output.scale},
        **({"inputs": network.input_documents()} if network.inputs else {}),
        **({"outputs": network.output_documents()} if network.outputs else {}),
        "target": plan.target.to_json(),
        "plan": _plan_summary(plan),
        "layers": layers,
        "files": file_entries(folder, covered_files(folder)),
        "extra": dict(extra or {}),
    }
    return sealed(document, _SELF)


def _input(network: Network) -> dict[str, Any]:
    """How data becomes integers: ``clamp(floor(x / scale + 1/2))``, axes to channel-last."""
    return {
        "scale_value": network.input.scale,
        "file_shape": list(network.input_shape),
        "file_axes": list(network.input_axes),
        "rule": "clamp(floor(x / scale + 0.5)), axes permuted to channel-last",
    }


def _plan_summary(plan: Plan) -> dict[str, Any]:
    value = plan.to_json()
    keys = (
        "clock_mhz",
        "link",
        "baud",
        "interval_cycles",
        "latency_cycles",
        "bits_per_weight",
        "parameter_bits_per_weight",
        "resources",
    )
    return {key: value[key] for key in keys} | {"lanes": list(plan.lanes)}


def write_manifest(
    folder: Path,
    network: Network,
    plan: Plan,
    *,
    weights: Mapping[str, npt.NDArray[np.float64]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes `make_manifest` to ``manifest.json``, the last file of an output; returns it."""
    document = make_manifest(folder, network, plan, weights=weights, extra=extra)
    (folder / MANIFEST).write_text(document_text(document), encoding="ascii", newline="\n")
    return document


def reclocked_manifest(folder: Path, document: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The manifest of a folder whose ``plan.json`` has another clock and baud rate now."""
    files = dict(document["files"]) | file_entries(folder, ["plan.json"])
    return sealed(dict(document) | {"plan": _plan_summary(plan), "files": files}, _SELF)


def load_manifest(folder: Path, *, strict: bool = True) -> dict[str, Any]:
    """Reads a manifest.

    Raises InputError where it is none, and with ``strict`` where a bit of it has changed.
    """
    path = folder / MANIFEST
    document = FORMAT.header | read(Manifest, load_json(path, FORMAT), str(path))
    data = path.read_bytes()
    if strict and not is_unchanged(document, data):
        raise InputError(f"{path} differs from its own hash")
    return document


def is_unchanged(document: Mapping[str, Any], data: bytes) -> bool:
    """Whether a manifest's bytes are canonical and agree with the hash in it."""
    return is_sealed(document, _SELF, data)
