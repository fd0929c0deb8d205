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
        ``float``, and ``disagreements``.
    names : mapping
        By the key of each figure, what it is called.
    what : str
        What the frames are called.
    """
    from pvq_hw.evaluate.metrics import metric_text

    metric = found["metric"]
    names = dict(names) | ({"float": found["reference"]} if "reference" in found else {})
    figures = ", ".join(f"{names[key]} {metric_text(metric, found[key])}" for key in names)
    text = f"  {metric:<21} {figures} on {found['frames']:,} {what}"
    if found.get("disagreements") is not None:
        text += f"; answers differ on {found['disagreements']}"
    ui.say(text)
    ui.say(f"  {'':<21} ({found['why']})")
