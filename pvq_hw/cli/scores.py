"""How good outputs are, for people: every verb that scores prints it by `tell_scores`."""

from collections.abc import Mapping
from typing import Any

from pvq_hw.cli.ui import Ui

__all__ = ["tell_scores"]


def tell_scores(
    ui: Ui, found: Mapping[str, Any], names: Mapping[str, str], what: str = "frames"
) -> None:
    """Says figures, of which metric, on how many frames, and why that metric.

    Parameters
    ----------
    ui : Ui
    found : mapping
        ``metric``, ``why``, ``frames`` and the figures; perhaps ``reference``, the name of
        ``float``, ``disagreements``, ``only_float`` and ``only_pvq``.
    names : mapping
        By the key of each figure, what it is called.
    what : str
        What the frames are called.
    """
    from pvq_hw.evaluate.metrics import metric_text

    metric, frames = found["metric"], found["frames"]
    names = dict(names) | ({"float": found["reference"]} if "reference" in found else {})
    figures = ", ".join(f"{names[key]} {metric_text(metric, found[key], frames)}" for key in names)
    text = f"  {metric:<21} {figures} on {frames:,} {what}"
    if found.get("disagreements") is not None:
        text += f"; answers differ on {found['disagreements']}"
    ui.say(text)
    if found.get("only_float") is not None:
        ui.say(
            f"  {'':<21} right only in {names['float']} on {found['only_float']:,}, "
            f"only in {names['pvq']} on {found['only_pvq']:,}"
        )
    chance = "; intervals of 95 %" if metric == "accuracy" else ""
    ui.say(f"  {'':<21} ({found['why']}{chance})")
