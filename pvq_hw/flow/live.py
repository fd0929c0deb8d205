"""Other weights for a board that runs: loaded over the line, without a new bitstream."""

import time
from dataclasses import replace
from typing import Any

from pvq_hw.engine.live_image import LiveLayout, live_contents, live_layout
from pvq_hw.errors import InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.host.code_link import load_live
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import Description
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.progress import Steps
from pvq_hw.target.families import family

__all__ = ["layout_of", "load_weights", "words_of"]


def layout_of(accelerator: Accelerator) -> LiveLayout:
    """What of an accelerator is loaded while it runs; raises InputError where nothing is."""
    plan = accelerator.plan
    if not plan.live:
        raise InputError(
            f"{accelerator.out} must have been compiled with --live to take other weights while "
            "it runs; run pvq-hw compile again"
        )
    return live_layout(plan.graph, family(plan.target.engine).blocks, Description.SIZE)


def words_of(accelerator: Accelerator) -> tuple[tuple[int, ...], ...]:
    """The words of every block RAM that is loaded, with the identity and the checksum."""
    layout, plan = layout_of(accelerator), accelerator.plan
    contents = live_contents(plan.graph, accelerator.image.cores, layout.family)
    return layout.words(contents, describe_output(accelerator).encode())


def load_weights(
    accelerator: Accelerator,
    board: Link,
    weights: Accelerator | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Loads weights into a board with an accelerator's bitstream.

    Parameters
    ----------
    accelerator : Accelerator
        Compiled with ``live``; whose bitstream the board has.
    board : Link
    weights : Accelerator, optional
        The same circuit with other weights, as `pvq_hw.update` makes it; the accelerator's own
        bring back what the bitstream came with.

    Returns
    -------
    dict
        ``bytes``, ``seconds``, ``identity``, and whether the board ``answered_meanwhile``.

    Raises
    ------
    InputError
        The accelerator isn't live, or the weights are another circuit's.
    CheckError
        The board then holds another network than these.
    ToolError
        The board does not answer, or its checksum stays wrong.
    """
    tell = steps or Steps()
    new = accelerator if weights is None else weights
    layout, wanted = layout_of(accelerator), describe_output(new)
    same = replace(wanted, identity=describe_output(accelerator).identity)
    if layout_of(new) != layout or same != describe_output(accelerator):
        raise InputError(
            f"{new.out} must have the circuit of {accelerator.out}: make it by pvq-hw update in a "
            "copy of that folder"
        )
    words = words_of(new)
    with tell.step(f"Load {layout.size:,} bytes of weights"):
        started = time.monotonic()
        load_live(board, layout, words, lambda done, total: tell.progress(done, total, "words"))
        seconds = time.monotonic() - started
        board.forget()
        board.describe().require(wanted)
    return {
        "bytes": layout.size,
        "seconds": seconds,
        "identity": wanted.identity.hex(),
        "answered_meanwhile": accelerator.plan.live == 2,
    }
