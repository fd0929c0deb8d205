"""Other weights for a board that runs: loaded over the line, without a new bitstream."""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pvq_hw.engine.live_image import LiveLayout, live_contents, live_layout
from pvq_hw.errors import InputError
from pvq_hw.files import check_writable, whole_file
from pvq_hw.flow.board import describe_output
from pvq_hw.host.code_link import code_status, load_live, other_bank
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import Description
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.progress import Steps
from pvq_hw.target.families import family

__all__ = ["LiveWeights", "layout_of", "load_weights", "words_of"]

_MAGIC = b"PVQL\x01"  # the last byte is the format's version
_MOST_BYTES = 1 << 24  # of a file; the words of the largest device are a tenth


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


@dataclass(frozen=True)
class LiveWeights:
    """All that is loaded of one network: by itself, in a folder, or in a file.

    The file is ``PVQL`` and the version 1 (a byte), the circuit's hash (32 bytes), then the words
    as they go over the line, deflated. Their own checksum is among them.

    Parameters
    ----------
    name : str
        For messages.
    layout : LiveLayout
    words : tuple of tuples of int
        Of every block RAM.
    description : Description
        What the board says of itself with them.
    """

    name: str
    layout: LiveLayout
    words: Sequence[Sequence[int]]
    description: Description

    @classmethod
    def of(cls, accelerator: Accelerator) -> "LiveWeights":
        """Those of an output folder; raises InputError where it isn't live."""
        layout = layout_of(accelerator)
        said = describe_output(accelerator)
        return cls(str(accelerator.out), layout, words_of(accelerator), said)

    @classmethod
    def read(cls, path: Path, accelerator: Accelerator) -> "LiveWeights":
        """Those of a file, for the circuit of an accelerator; raises InputError where it is
        another circuit's, or damaged."""
        layout = layout_of(accelerator)
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        start = len(_MAGIC) + len(layout.circuit)
        if len(data) > _MOST_BYTES or not data.startswith(_MAGIC):
            raise InputError(f"{path} must be a file that pvq-hw load --pack wrote")
        if data[len(_MAGIC) : start] != layout.circuit:
            raise _other_circuit(str(path), accelerator)
        unpacked = zlib.decompressobj()
        try:
            words = unpacked.decompress(data[start:], layout.size + 1)
        except zlib.error:
            words = b""
        whole = unpacked.eof and not unpacked.unused_data and len(words) == layout.size
        if not whole or zlib.crc32(words, layout.seed) != layout.right:
            raise InputError(f"{path} must be whole, but its checksum is wrong")
        blocks = layout.decoded(words)
        said = layout.said(blocks)[: Description.SIZE]
        return cls(str(path), layout, blocks, Description.decode(said))

    def save(self, path: Path) -> int:
        """Writes the file, whole or not at all; gives its bytes."""
        check_writable(path)
        data = b"".join(map(self.layout.encoded, self.words))
        text = _MAGIC + self.layout.circuit + zlib.compress(data, 9)
        with whole_file(path) as new:
            new.write_bytes(text)
        return len(text)


def load_weights(
    accelerator: Accelerator,
    board: Link,
    weights: Accelerator | LiveWeights | None = None,
    steps: Steps | None = None,
    *,
    keep: bool = False,
) -> dict[str, Any]:
    """Loads weights into a board with an accelerator's bitstream.

    Parameters
    ----------
    accelerator : Accelerator
        Compiled with ``live``; whose bitstream the board has.
    board : Link
    weights : Accelerator or LiveWeights, optional
        The same circuit with other weights, as `pvq_hw.update` makes it; the accelerator's own
        bring back what the bitstream came with.
    keep : bool
        Of a board with two banks: leave the bank alone from which it starts after a reset, with
        the bitstream's weights. They answer while others are loaded into the second bank.

    Returns
    -------
    dict
        ``bytes``, ``seconds``, ``identity``, whether the board ``answered_meanwhile``, and
        ``after_reset``: the identity of the network that a reset brings.

    Raises
    ------
    InputError
        The accelerator isn't live, the weights are another circuit's, or there is nothing to keep.
    CheckError
        The board then holds another network than these.
    ToolError
        The board does not answer, or its checksum stays wrong.
    """
    tell = steps or Steps()
    new = weights if isinstance(weights, LiveWeights) else LiveWeights.of(weights or accelerator)
    layout, built = layout_of(accelerator), describe_output(accelerator)
    if new.layout != layout or replace(new.description, identity=built.identity) != built:
        raise _other_circuit(new.name, accelerator)
    banks, count = accelerator.plan.live, layout.size
    if keep:
        _first_bank(board, accelerator)
    first = new.description.identity
    if banks == 2 and not code_status(board).second:
        board.forget()
        first = board.describe().identity
    started = time.monotonic()
    if keep and first == new.description.identity:
        count = 0  # it is in service
    else:
        with tell.step(f"Load {layout.size:,} bytes of weights"):
            load_live(
                board, layout, new.words, lambda done, total: tell.progress(done, total, "words")
            )
    seconds = time.monotonic() - started
    board.forget()
    board.describe().require(new.description)
    return {
        "bytes": count,
        "seconds": seconds,
        "identity": new.description.identity.hex(),
        "answered_meanwhile": banks == 2,
        "after_reset": first.hex(),
    }


def _first_bank(board: Link, accelerator: Accelerator) -> None:
    """Goes back to the bank that a reset goes to; raises InputError, with the banks as they were,
    unless it has the bitstream's weights."""
    if accelerator.plan.live != 2:
        raise InputError(
            "The bitstream's weights can't be kept: this board has a single bank, which is loaded"
        )
    wanted = describe_output(accelerator).identity
    moved = code_status(board).second
    whole = not moved or other_bank(board)
    board.forget()
    if whole and board.describe().identity == wanted:
        return
    if moved and whole:
        other_bank(board)
        board.forget()
    raise InputError(
        "The bitstream's weights can't be kept, since others were loaded over them; load without "
        "--keep, or bring them back with pvq-hw program"
    )


def _other_circuit(name: str, accelerator: Accelerator) -> InputError:
    return InputError(
        f"{name} must have the circuit of {accelerator.out}: make it by pvq-hw update in a copy of "
        "that folder"
    )
