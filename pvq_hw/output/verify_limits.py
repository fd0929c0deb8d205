"""What a verification did not look at, in words: nothing is right because nobody checked it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pvq_hw.data.dataset import Data
from pvq_hw.naming import quoted
from pvq_hw.network.network import Network
from pvq_hw.output.build_record import BUILD
from pvq_hw.output.verify_data import MIN_FRAMES, is_evaluated_on, is_users_metric
from pvq_hw.output.verify_model import is_bounded_only, is_equalized
from pvq_hw.plan.plan import Plan

__all__ = ["unchecked"]


def unchecked(
    folder: Path,
    network: Network | None,
    manifest: Mapping[str, Any],
    with_model: bool,
    data: Data | None,
    bitstream: bool,
    proven: bool = False,
    plan: Plan | None = None,
) -> list[str]:
    """What was not checked, each with what it takes; ``data`` counts beside a model only.
    ``proven``: a proof of the Verilog says itself what it leaves open."""
    found = []
    if network is None:
        found.append("all that follows from the network, which cannot be read")
    elif not with_model:
        found.append("gains, scales, biases and the manifest's errors, against --model MODEL")
    else:
        found += _numbers(network, data)
    found += _figures(manifest, data if with_model else None)
    if _extra(manifest).get("agreement"):
        found.append("how far codes and rounding are from the float model, as the manifest has it")
    if plan is not None:
        found.append("what was asked of the plan, and its words on reasons and limits")
    if (folder / "verilog").is_dir() and not proven:
        found.append("the Verilog beyond its hashes: pvq-hw simulate runs it")
    if (folder / "testbench").is_dir():
        found.append("the testbench beyond its hashes: its README.txt says how it is run")
    wired = [layer.layer for layer in plan.layers if layer.unrolled] if plan else []
    if wired and not proven:
        found.append(
            f"the weights of {', '.join(map(quoted, wired))} as wires in the Verilog, which the "
            "files of weights only repeat: pvq-hw simulate runs it"
        )
    if wired and bitstream:
        found.append(
            f"the weights of {', '.join(map(quoted, wired))} as wires in the bitstream, of which "
            "only memories are compared: pvq-hw build makes it again"
        )
    if (folder / BUILD).is_dir():
        found.append(
            "the logic in the bitstream: pvq-hw build makes it again"
            if bitstream
            else "the bitstream beyond its hash: give --bitstream"
        )
    if (folder / "simulation.json").exists() or (folder / "report.json").exists():
        found.append("simulation.json and the reports, which have no hashes")
    return found


def _numbers(network: Network, data: Data | None) -> list[str]:
    """The network's numbers that follow from calibration data."""
    if is_equalized(network):
        return ["scales and biases, which were mended between layers"]
    found = []
    if data is None and network.meta.get("calibration_frames"):
        found.append("the scales, beyond bounds that the model gives: give --data DATA.npz")
    if is_bounded_only(network):
        if data is None:
            found.append("the biases, beyond bounds that the model gives: give --data DATA.npz")
        elif len(data) < MIN_FRAMES:
            found.append(f"the biases on data: give at least {MIN_FRAMES} frames")
    return found


def _extra(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = manifest.get("extra")
    return extra if isinstance(extra, Mapping) else {}


def _figures(manifest: Mapping[str, Any], data: Data | None) -> list[str]:
    """The manifest's figures that come from evaluation data."""
    if not _extra(manifest).get("accuracy"):
        return []
    if data is None:
        return ["accuracy and losses: give --model MODEL and --data with the evaluation's data"]
    if not is_evaluated_on(manifest, data):
        return ["accuracy and losses of the manifest, which are of other data than --data's"]
    if is_users_metric(manifest):
        return ["accuracy and losses, by a metric whose code is not run here"]
    return ["losses of layers and rows, as the manifest has them"]
