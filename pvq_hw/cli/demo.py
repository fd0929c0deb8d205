"""``pvq-hw demo``: the whole path on the bundled digits."""

import argparse
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["run"]

TARGET = "icebreaker"
_SHADES = " .:-=+*#%@"


def run(args: argparse.Namespace, ui: Ui) -> tuple[dict[str, Any], int]:
    """Compiles, simulates, verifies and builds the digits network; exit status 1 when any check
    fails."""
    from pvq_hw.bundled import DIGITS, DIGITS_DATA, DIGITS_RATIO
    from pvq_hw.cli import build, compile, simulate
    from pvq_hw.data.dataset import make_data
    from pvq_hw.flow.compile import compile_model
    from pvq_hw.flow.options import load_options
    from pvq_hw.output.accelerator import load
    from pvq_hw.target.boards import get_target
    from pvq_hw.tools import find as tools

    model = DIGITS
    train = make_data([DIGITS_DATA], keys=["x_train", "y_train"])
    test = make_data([DIGITS_DATA], keys=["x_test", "y_test"])
    target = get_target(args.target or TARGET)
    needed = ["yosys"]
    if not args.no_build:
        needed += [f"nextpnr-{target.family}", target.device.architecture.packer]
    with ui.step("Warm up the tools (once on a machine)"):
        tools.warm_up(needed, ui.note)
    options = load_options(None, {"target": args.target or TARGET, "ratio": DIGITS_RATIO})
    compiled = compile_model(model, args.out, options, calibration=train, evaluation=test, steps=ui)
    _show_digits(compiled, test, ui)
    compile.describe(compiled.document, ui)
    accelerator = load(args.out)
    simulated = accelerator.simulate(test.x, labels=test.y, steps=ui)
    simulate.describe(simulated, ui)
    with ui.step("Verify the files against the network and the original weights"):
        findings = accelerator.verify(model)
    ui.say(f"verify: {len(findings)} findings")
    document: dict[str, Any] = {
        "compile": compiled.document,
        "simulate": simulated,
        "verify": {"ok": not findings, "findings": [f.to_json() for f in findings]},
        "out": str(args.out),
    }
    if not args.no_build:
        with ui.step("Synthesis, place and route, bitstream"):
            document["build"] = accelerator.build(steps=ui)
        build.describe(document["build"], ui)
    _show_times(ui)
    ui.say(f"\nAll of it is in {args.out}; look at {args.out / 'report.html'}.")
    if not args.no_build:
        ui.say(f"With a board plugged in ({target.board}): pvq-hw program {args.out}")
    document["seconds"] = ui.seconds
    return document, 1 if findings or simulated["mismatches"] else 0


def _show_digits(compiled: Any, test: Any, ui: Ui) -> None:
    """One digit as the network sees it, then those on which float and PVQ disagree."""
    judged = compiled.evaluation
    ui.say("\nA digit, and what the networks say of it:\n")
    _show(0, judged, test, ui)
    if len(judged.disagreements):
        ui.say(
            f"\nFloat and PVQ disagree on {len(judged.disagreements)} of {judged.frames}; one:\n"
        )
        _show(int(judged.disagreements[0]), judged, test, ui)


def _show(index: int, judged: Any, test: Any, ui: Ui) -> None:
    image = test.x[index].reshape(8, 8)
    notes = [
        f"test image {index}",
        f"label {test.y[index]}",
        f"float says {judged.float_answers[index]}",
        f"PVQ says   {judged.pvq_answers[index]}",
    ]
    for row in range(8):
        line = "".join(2 * _SHADES[int(v) * (len(_SHADES) - 1) // 16] for v in image[row])
        note = notes[row - 2] if 2 <= row < 6 else ""
        ui.say(f"    |{line}|  {note}".rstrip())


def _show_times(ui: Ui) -> None:
    ui.say("\nSeconds:")
    for title, seconds in ui.seconds.items():
        ui.say(f"  {seconds:7.1f}  {title}")
    ui.say(f"  {sum(ui.seconds.values()):7.1f}  in all")
