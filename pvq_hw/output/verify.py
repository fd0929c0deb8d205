"""Verifies an output: hashes, codes against the network, the plan's figures, golden vectors; with
the original model every figure of the manifest and every number of the network that follows from
it; with data what was fitted to such data."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.data.dataset import Data
from pvq_hw.documents import write
from pvq_hw.engine.core import CoreImage, is_threshold
from pvq_hw.engine.spans import unit_spans
from pvq_hw.errors import InputError
from pvq_hw.evaluate.code_error import model_weights
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.network.rule import decided
from pvq_hw.output.build_record import build_changes, built_from
from pvq_hw.output.description import describe
from pvq_hw.output.folder import MANIFEST, OutputFolder, check_tree
from pvq_hw.output.manifest import (
    file_changes,
    is_unchanged,
    load_manifest,
    make_manifest,
)
from pvq_hw.output.proof_record import PROOF, proof_change, proof_lines, read_proof
from pvq_hw.output.verify_bitstream import check_bitstream
from pvq_hw.output.verify_codes import check_codes
from pvq_hw.output.verify_content import (
    Finding,
    check_image,
    check_plan,
    check_vectors,
    differences,
)
from pvq_hw.output.verify_data import check_data_figures
from pvq_hw.output.verify_limits import unchecked
from pvq_hw.output.verify_model import check_numbers
from pvq_hw.plan.image import Image
from pvq_hw.plan.plan import Plan

__all__ = ["Finding", "Verdict", "examine_output", "verify_output"]

_ERROR_KEYS = ("cosine", "relative_error", "row_cosine", "row_relative_error")
_MOST = 20  # findings of one kind


@dataclass(frozen=True)
class Verdict:
    """What `examine_output` finds.

    Parameters
    ----------
    findings : list of Finding
        Everything that is wrong; empty when the output is as it was written.
    unchecked : list of str
        What was not looked at, and what it takes.
    bitstream : str
        What of the bitstream was compared; empty where it wasn't looked at.
    proof : list of (state, text)
        What `pvq-hw prove` has shown of these files, see
        `pvq_hw.output.proof_record.proof_lines`; empty where it hasn't.
    """

    findings: list[Finding]
    unchecked: list[str]
    bitstream: str = ""
    proof: Sequence[tuple[str, str]] = ()


def verify_output(out: str | os.PathLike[str], **known: Any) -> list[Finding]:
    """The findings of `examine_output`."""
    return examine_output(out, **known).findings


def examine_output(
    out: str | os.PathLike[str],
    *,
    model: Model | None = None,
    weights: Mapping[str, npt.NDArray[np.float64]] | None = None,
    data: Data | None = None,
    bitstream: bool = False,
) -> Verdict:
    """Everything that is wrong with an output, and what was not checked.

    One changed bit in any file that the manifest or the build's report covers, or in these, gives
    at least one finding that names the file, and layer and row where they can be told.

    Parameters
    ----------
    out : path
    model : Model, optional
        The original model: its hash, and every cosine, error, gain, scale and bias, are then
        recomputed or bounded; see `pvq_hw.output.verify_model.check_numbers`.
    weights : mapping of layer name to float64 array (M, N), optional
        Original weights, where there is no model.
    data : Data, optional
        Beside the model: see `pvq_hw.output.verify_data.check_data_figures`. Integers are divided
        by the network's ``input_scale``.
    bitstream : bool
        Unpacks the build's; see `pvq_hw.output.verify_bitstream.check_bitstream`.

    Raises
    ------
    InputError
        ``out`` is no folder, holds links, or has no manifest; the model lacks a layer, or the
        data is of another shape than the network's input; there is no build.
    """
    folder = _folder(out)
    document, findings = _manifest(folder)
    findings += _files(folder, document)
    proof = _proof(folder, document, findings)
    network = _network(folder, findings)
    plan = _plan(folder, findings)
    compared = ""
    if network is not None:
        findings += _decision(network)
    if network is not None and plan is not None:
        if model is not None and model.outputs and network.scored:
            model = model.for_output(network.scored)
        if model is not None:
            weights = _model(model, network, document, findings)
        cores = check_plan(folder, network, plan, findings)
        if cores is not None:
            images = [image for _, image in cores]
            same = [spec for spec, _ in cores] == plan.specs
            check_image(folder, network, plan, cores, findings)
            check_vectors(folder, network, findings)
            if same:
                check_codes(folder, plan, images, findings)
            if document is not None:
                findings += _figures(folder, document, network, plan, weights)
                findings += _schedule(document, plan, images) if same else []
            if bitstream and same:
                image = Image(tuple(plan.specs), tuple(images))
                told = _told(plan, network, document)
                found, compared = check_bitstream(folder, plan, image, told)
                findings += found
        if weights is not None:
            findings += check_gains(network)
        if model is not None:
            findings += check_numbers(model, network.undecided)
            if data is not None:
                data = replace(data, input_scale=network.input_scale)
                findings += check_data_figures(model, network.undecided, document or {}, data)
    open_ends = unchecked(
        folder, network, document or {}, model is not None, data, bitstream, bool(proof), plan
    )
    return Verdict(list(dict.fromkeys(findings)), open_ends, compared, proof)


def _told(plan: Plan, network: Network, document: dict[str, Any] | None) -> bytes | None:
    """What an updatable board says of itself out of block RAM; None where the manifest, which names
    it, is damaged."""
    if not plan.updatable or document is None:
        return None
    try:
        return describe(plan, network, document).encode()
    except ValueError:
        return None


def _folder(out: str | os.PathLike[str]) -> Path:
    folder = Path(out)
    if folder.is_symlink():
        raise InputError(f"Output folder {str(out)!r} must not be a symbolic link")
    OutputFolder(folder).recover()
    if not folder.is_dir():
        raise InputError(f"Output folder {str(out)!r} must exist; run pvq-hw compile first")
    check_tree(folder)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{str(out)!r} must be a pvq-hw output, but lacks its manifest")
    return folder


def _manifest(folder: Path) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The manifest as far as it can be read, and what is wrong with it."""
    try:
        document = load_manifest(folder, strict=False)
    except InputError as error:
        return None, [Finding(MANIFEST, "", str(error).replace(f"{folder}/", ""))]
    if is_unchanged(document, (folder / MANIFEST).read_bytes()):
        return document, []
    return document, [Finding(MANIFEST, "", "differs from its own hash")]


def _files(folder: Path, document: dict[str, Any] | None) -> list[Finding]:
    """Hashes of all files that the manifest covers, and of the build's."""
    changes = file_changes(folder, document) if document else []
    findings = [Finding(name, "", message) for name, message in changes + build_changes(folder)]
    made_from = built_from(folder)
    if document and made_from not in (None, document.get("manifest_sha256")):
        findings.append(Finding("build/build.json", "", "is a build of another output"))
    return findings


def _proof(
    folder: Path, document: dict[str, Any] | None, findings: list[Finding]
) -> list[tuple[str, str]]:
    """What the proof says, where it is one of these files as they are."""
    changed = proof_change(folder, document)
    if changed:
        findings.append(Finding(PROOF, "", f"{changed}; run pvq-hw prove again"))
    proof = read_proof(folder)
    if proof is None or findings:
        return []
    lines = proof_lines(proof["parts"])
    findings += [Finding(PROOF, "", text) for state, text in lines if state == "wrong"]
    return lines


def _network(folder: Path, findings: list[Finding]) -> Network | None:
    try:
        network = Network.load(folder / "network")
        return network if network.layers else None
    except InputError as error:
        text = str(error)
        name = "weights.pvq" if "weights.pvq" in text else "network.json"
        findings.append(Finding(f"network/{name}", "", text.replace(f"{folder}/", "")))
    return None


def _plan(folder: Path, findings: list[Finding]) -> Plan | None:
    try:
        return Plan.load(folder / "plan.json")
    except InputError as error:
        findings.append(Finding("plan.json", "", str(error).replace(f"{folder}/", "")))
    return None


def _model(
    model: Model, network: Network, document: dict[str, Any] | None, findings: list[Finding]
) -> dict[str, npt.NDArray[np.float64]]:
    """The model's weights, once its hash is compared."""
    listed = document.get("model") if document else None
    sha256 = listed.get("sha256") if isinstance(listed, dict) else None
    if sha256 != model.source_sha256:
        findings.append(
            Finding(MANIFEST, "model", f"is of model {sha256}, not of {model.source_sha256}")
        )
    return model_weights(model, network)


def _figures(
    folder: Path,
    document: dict[str, Any],
    network: Network,
    plan: Plan,
    weights: Mapping[str, npt.NDArray[np.float64]] | None,
) -> list[Finding]:
    """The manifest's figures against those that network, plan and weights give."""
    extra = document.get("extra")
    try:
        expected = make_manifest(
            folder,
            network,
            plan,
            weights=weights,
            extra=extra if isinstance(extra, dict) else {},
        )
    except InputError as error:
        return [Finding(MANIFEST, "layers", str(error))]
    stored = dict(document)
    for key in ("files", "manifest_sha256", "pvq_hw_version"):
        stored.pop(key, None)
        expected.pop(key, None)
    if weights is None and isinstance(stored.get("layers"), list):
        stored["layers"] = [
            {k: v for k, v in layer.items() if k not in _ERROR_KEYS}
            if isinstance(layer, dict)
            else layer
            for layer in stored["layers"]
        ]
    expected = write(expected)
    return [
        Finding(MANIFEST, _place(path, network), f"is {old!r:.60}, but must be {new!r:.60}")
        for path, old, new in differences(stored, expected)[:_MOST]
    ]


def _schedule(document: dict[str, Any], plan: Plan, images: Sequence[CoreImage]) -> list[Finding]:
    """When units work, as the report draws it, against the exact timing."""
    extra = document.get("extra")
    stored = extra.get("schedule") if isinstance(extra, dict) else None
    if stored is None:
        return []
    spans = unit_spans(plan.graph, plan.graph.named(images))
    if stored == [span.to_json() for span in spans]:
        return []
    return [Finding(MANIFEST, "extra.schedule", "is not the plan's timing")]


def _place(path: tuple[str | int, ...], network: Network) -> str:
    """A place in the manifest in words: layer and row where it is one's figure."""
    dense = [layer.name for layer in network.weighted]
    if len(path) >= 3 and path[0] == "layers" and isinstance(path[1], int):
        layer = dense[path[1]] if path[1] < len(dense) else str(path[1])
        row = f" row {path[3]}" if len(path) > 3 else ""
        return f"layer {layer!r}{row} {path[2]}"
    return ".".join(str(key) for key in path)


def _decision(network: Network) -> list[Finding]:
    """The layer that decides against the rule that was asked for."""
    try:
        same = decided(network.undecided, str(network.meta.get("decide", ""))) == network
    except InputError:
        same = False
    text = "has a decision that is not by its rule"
    return [] if same else [Finding("network/network.json", "meta.decide", text)]


def check_gains(network: Network) -> list[Finding]:
    """Multipliers against the gains and scales that they hold."""
    findings = []
    scales = {name: spec.scale for name, spec in network.tensors().items()}
    for layer in network.weighted:
        if layer.encoding != "pvq" or is_threshold(layer):
            continue  # the gains of thresholds have gone into them
        ratio = layer.gain * (scales[layer.input] / layer.output.scale)
        wanted = np.where(layer.k_groups > 0, ratio * 2.0**layer.shift, 0)
        # Half a unit of rounding, and one for a largest multiplier cut to its width.
        for row, _ in np.argwhere(np.abs(wanted - layer.mult) > 1.5)[:_MOST]:
            place = f"layer {layer.name!r} row {row}"
            findings.append(
                Finding("network/network.json", place, "has a multiplier that is not its gain's")
            )
    return findings
