"""``pvq-hw verify``."""

import argparse
from typing import Any

from pvq_hw.cli.prove import tell_proof
from pvq_hw.cli.scores import tell_scores
from pvq_hw.cli.ui import Ui

__all__ = ["run"]


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Verifies an output folder; exit status 1 for findings."""
    from pvq_hw.errors import InputError
    from pvq_hw.evaluate.accuracy import check_data
    from pvq_hw.evaluate.attribution import check_log
    from pvq_hw.model.load import load_model
    from pvq_hw.model.own_graph import check_own_graph
    from pvq_hw.output.verify import examine_output

    if args.model is None and (args.data or args.log):
        raise InputError("--data and --log must come with --model MODEL")
    if args.metric is not None and not args.data:
        raise InputError("--metric must come with --data DATA.npz")
    if args.log:
        check_log(args.log)
    model = load_model(args.model) if args.model else None
    data = _data(args, model) if args.data else None
    if model is not None and data is not None:
        check_data(model, data, str(args.data), labels=not model.outputs)
        with ui.step("Compare the model with its file"):
            check_own_graph(args.model, model, data)
    with ui.step("Verify"):
        verdict = examine_output(args.out, model=model, data=data, bitstream=args.bitstream)
    findings = verdict.findings
    for finding in findings:
        ui.say(str(finding))
    if not findings:
        what = "files, codes and figures" if model else "files and codes"
        ui.say(f"{args.out}: {what} are right")
    if verdict.bitstream:
        ui.say(f"  compared in the bitstream: {verdict.bitstream}")
    tell_proof(verdict.proof, ui)
    for open_end in verdict.unchecked:
        ui.say(f"  not checked: {open_end}")
    document: dict[str, Any] = {
        "ok": not findings,
        "findings": [f.to_json() for f in findings],
        "unchecked": verdict.unchecked,
        "bitstream": verdict.bitstream,
        "proof": [{"state": state, "text": text} for state, text in verdict.proof],
    }
    if model is not None and not findings:
        document |= _losses(args, ui, model, data)
    return document, 1 if findings else 0


def _data(args: argparse.Namespace, model: Any) -> Any:
    """The data to verify with; integers beside floats are divided as they were in compiling."""
    from pvq_hw.data.dataset import load_data
    from pvq_hw.network.network import Network

    scale = Network.load(args.out / "network").input_scale if model.inputs else 1.0
    return load_data(args.data, scale, model.inputs)


def _losses(args: argparse.Namespace, ui: Ui, model: Any, data: Any) -> dict[str, Any]:
    """What each layer and row loses, told and logged where that is asked for."""
    from dataclasses import replace

    from pvq_hw.evaluate.attribution import network_losses, weight_log
    from pvq_hw.network.network import Network

    network, losses = Network.load(args.out / "network"), None
    if model.outputs and network.scored:
        model = model.for_output(network.scored)
    elif model.outputs and data is not None:
        data = replace(data, y=None)  # nobody said whose the labels are
    if data is not None:
        data = replace(data, input_scale=network.input_scale)
        with ui.step("Compare layer by layer"):
            losses = network_losses(model, network, data, args.metric)
        _tell(losses, ui)
    if args.log:
        weight_log(args.log, model, network, losses)
        ui.say(f"{args.log} is written")
    return {"losses": losses} if losses else {}


def _tell(losses: dict[str, Any], ui: Ui) -> None:
    """The losses for people: layers, and of each the rows that lose most."""
    if losses["metric"]:
        tell_scores(ui, losses, {"float": "float", "golden": "PVQ"})
    ui.say(f"  {'layer':<16}{'alone':>10}{'all but it':>12}{'share':>9}   rows that lose most")
    for layer in losses["layers"]:
        share = layer["row_share"]
        worst = sorted(range(len(share)), key=lambda row: (-share[row], row))[:3]
        rows = ", ".join(f"{row} ({100 * share[row]:.1f} %)" for row in worst)
        ui.say(
            f"  {layer['name']:<16}{layer['output_error_alone']:>10.2e}"
            f"{layer['output_error_without']:>12.2e}{100 * layer['share']:>7.1f} %   {rows}"
        )
