"""Codes to a board over the serial line."""

import struct
import time
from collections.abc import Callable, Sequence

from pvq_hw.engine.live_image import LiveLayout
from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.link import Link
from pvq_hw.host.protocol import Kind

__all__ = ["code_status", "load_codes", "load_live", "other_bank", "require_codes"]

CHUNK_WORDS = 1024
_SECONDS = 5.0  # for the check, which takes 10 ms, or for the flash, 100 ms
_PAUSE = 0.001
_TIMES = 3


def code_status(link: Link) -> CodeStatus:
    """What the board says of its codes."""
    return CodeStatus.decode(link.ask(Kind.CODES_STATUS, Kind.CODES))


def require_codes(link: Link) -> None:
    """Raises InputError unless the board's codes are right; waits while it reads the flash."""
    state = _settled(link).state
    if state is not CodeState.READY:
        said = {CodeState.WRONG: "their checksum is wrong", CodeState.OPEN: "a load was cut short"}
        raise InputError(
            f"Board must have its codes, but {said.get(state, 'its flash holds none of them')}; "
            "write them with `pvq-hw program`, or use `pvq-hw run --load`"
        )


def load_codes(
    link: Link,
    blocks: Sequence[Sequence[int]],
    crc: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the words of all blocks, and has the board check them.

    Parameters
    ----------
    link : Link
    blocks : sequence of sequences of int
        16-bit words of each SPRAM, `pvq_hw.engine.spram_image.code_words`.
    crc : int
        The CRC of the right codes.
    progress : callable
        Is told the words written and their total.

    Raises
    ------
    ToolError
        The board does not answer, or its checksum stays wrong.
    InputError
        The board takes no codes, or another network's.
    """
    chunks = [
        (len(chunk), struct.pack(f"<{1 + len(chunk)}H", number << 14 | at, *chunk))
        for number, words in enumerate(blocks)
        for at in range(0, len(words), CHUNK_WORDS)
        if (chunk := words[at : at + CHUNK_WORDS])
    ]
    for _ in range(_TIMES):
        status = _written(link, chunks, progress)
        if status.state is CodeState.READY:
            return
        if status.crc == crc:
            raise InputError(
                "The board holds another network, which wants other codes; "
                "load the bitstream with `pvq-hw program`"
            )
    raise ToolError(
        f"Board must have codes of checksum {crc:08x}, but has {status.crc:08x} "
        f"after {_TIMES} loads"
    )


def load_live(
    link: Link,
    layout: LiveLayout,
    blocks: Sequence[Sequence[int]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the words of all block RAMs of a board that runs, and has it check and use them.

    Parameters
    ----------
    link : Link
    layout : LiveLayout
    blocks : sequence of sequences of int
        `LiveLayout.words` of the new contents.
    progress : callable
        Is told the words written and their total.

    Raises
    ------
    ToolError
        The board does not answer, or its checksum stays wrong.
    InputError
        The board is not made for this.
    """
    addresses = [n << 14 | at for n, words in enumerate(blocks) for at in range(len(words))]
    words = [word for block in blocks for word in block]
    chunks = [
        (len(chunk), addresses[at].to_bytes(layout.address_bytes, "little") + layout.encoded(chunk))
        for at in range(0, len(words), CHUNK_WORDS)
        if (chunk := words[at : at + CHUNK_WORDS])
    ]
    for _ in range(_TIMES):
        if _written(link, chunks, progress).state is CodeState.READY:
            return
    raise ToolError(
        f"Board must find the weights whole, but their checksum is wrong after {_TIMES} loads; is "
        "its bitstream this accelerator's?"
    )


def other_bank(link: Link) -> bool:
    """Has the bank that is not in service checked, and changes to it if it is right; whether."""
    link.ask(Kind.CODES_RELOAD, Kind.CODES)
    return _settled(link).state is CodeState.READY


def _written(
    link: Link, chunks: Sequence[tuple[int, bytes]], progress: Callable[[int, int], None]
) -> CodeStatus:
    """Writes chunks of so many words, has them checked, and gives what the board says of them."""
    total, done = sum(count for count, _ in chunks), 0
    link.ask(Kind.CODES_OPEN, Kind.CODES)
    for count, payload in chunks:
        link.ask(Kind.CODES_WRITE, Kind.CODES, payload)
        done += count
        progress(done, total)
    link.ask(Kind.CODES_CHECK, Kind.CODES)
    return _settled(link)


def _settled(link: Link) -> CodeStatus:
    """The status once nothing goes on any more."""
    deadline = time.monotonic() + _SECONDS
    while True:
        status = code_status(link)
        if status.state not in (CodeState.READING, CodeState.CHECKING):
            return status
        if time.monotonic() > deadline:
            raise ToolError(f"Board must have its codes after {_SECONDS:g} s, but still loads them")
        time.sleep(_PAUSE)
