"""Loads a bitstream, and codes into the board's flash, with the board's own loader."""

import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pvq_hw.engine.spram_image import FLASH_OFFSET
from pvq_hw.errors import InputError, ToolError
from pvq_hw.target.boards import LoaderChoice, Target, get_target
from pvq_hw.tools.process import run_command

__all__ = ["Loader", "find_loader", "make_loader", "program", "with_dfu_suffix"]

_SECONDS = 600.0


@dataclass(frozen=True)
class Loader:
    """A program that loads a board.

    Parameters
    ----------
    name : str
        On PATH.
    arguments : tuple of str
        Before the bitstream's name.
    remedy : str
        How to get it.
    lasting : bool
        Whether the board keeps the bitstream without power.
    offset : tuple of str
        Arguments instead, before an offset into the flash that holds the bitstream.
    dfu : tuple of int
        USB vendor and product for the suffix of a DFU file, where it wants one.
    """

    name: str
    arguments: tuple[str, ...]
    remedy: str
    lasting: bool
    offset: tuple[str, ...] = ()
    dfu: tuple[int, ...] = ()


_REMEDIES = {
    "dfu-util": "apt-get install dfu-util",
    "fujprog": "see github.com/kost/fujprog",
    "iceprog": "apt-get install fpga-icestorm",
    "icesprog": "see github.com/wuxx/icesugar",
    "openFPGALoader": "apt-get install openfpgaloader",
    "tinyprog": "pip install tinyprog",
}


def make_loader(choice: LoaderChoice) -> Loader:
    """The command line of a board's loader."""
    name, remedy = choice.program, _REMEDIES[choice.program]
    if name == "openFPGALoader":
        board = ("--board", choice.board) if choice.board else ("--cable", choice.cable)
        arguments: tuple[str, ...] = (*board, "--write-flash") if choice.flash else board
        offset = (*arguments, "--offset") if choice.flash else ()
        return Loader(name, arguments, remedy, choice.flash, offset)
    if name == "dfu-util":
        reset = ("--reset",) if choice.reset else ()
        arguments = ("--device", choice.usb, "--alt", "0", *reset, "--download")
        vendor, product = (int(part, 16) for part in choice.usb.split(":"))
        return Loader(name, arguments, remedy, choice.flash, dfu=(vendor, product))
    plain = ("--program",) if name == "tinyprog" else ()
    return Loader(name, plain, remedy, choice.flash, ("-o",) if name == "iceprog" else ())


def find_loader(target: str | Target) -> Loader:
    """The loader that will be used for a target; ToolError names what to install."""
    board = get_target(target)
    loaders = [make_loader(choice) for choice in board.loaders]
    if not loaders:
        raise InputError(f"Board {board.name!r} must name a loader in its file to be programmed")
    for loader in loaders:
        if shutil.which(loader.name):
            return loader
    names = " or ".join(loader.name for loader in loaders)
    verb = "is" if len(loaders) == 1 else "are"
    raise ToolError(f"{names}, which loads {board.name}, {verb} missing: {loaders[0].remedy}")


def with_dfu_suffix(bitstream: bytes, vendor: int, product: int) -> bytes:
    """The file with the suffix that dfu-util wants: USB DFU specification 1.1, appendix B."""
    data = bitstream + struct.pack("<HHHH3sB", 0xFFFF, product, vendor, 0x0100, b"UFD", 16)
    return data + struct.pack("<I", zlib.crc32(data) ^ 0xFFFFFFFF)


def program(
    bitstream: Path,
    target: str | Target,
    *,
    codes: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Loader:
    """Loads ``bitstream`` onto the board; gives the loader that did.

    Parameters
    ----------
    bitstream : Path
        ``.bin`` for iCE40, ``.bit`` for ECP5, as the build makes it.
    target : str or Target
    codes : Path, optional
        File that goes into the flash first, at `pvq_hw.engine.spram_image.FLASH_OFFSET`: the
        bitstream, which starts when it is written, reads it.
    on_line : function of str, optional
        Is given every line that the loader prints.

    Raises
    ------
    InputError
        There is no such file.
    ToolError
        The loader is missing, or fails: no board, no permission. One line with its last words.
    """
    loader = find_loader(target)
    if not bitstream.is_file():
        raise InputError(f"{bitstream} must be a bitstream, but is no file: run `pvq-hw build`")
    if codes is not None:
        _write_flash(loader, codes, on_line)
    with tempfile.TemporaryDirectory() as folder:
        path = bitstream.resolve()
        if loader.dfu:
            path = Path(folder, bitstream.stem + ".dfu")
            path.write_bytes(with_dfu_suffix(bitstream.read_bytes(), *loader.dfu))
        run_command(
            (loader.name, *loader.arguments, str(path)),
            name=loader.name,
            folder=path.parent,
            timeout=_SECONDS,
            on_line=on_line,
        )
    return loader


def _write_flash(loader: Loader, codes: Path, on_line: Callable[[str], None] | None) -> None:
    """A file into the flash behind the bitstream."""
    if not loader.offset:
        raise InputError(
            f"{loader.name} must be able to write codes, but knows no offset; load them over the "
            "serial line with --port"
        )
    if not codes.is_file():
        raise InputError(f"{codes} must be the codes, but is no file: run `pvq-hw compile`")
    run_command(
        (loader.name, *loader.offset, str(FLASH_OFFSET), str(codes.resolve())),
        name=loader.name,
        folder=codes.resolve().parent,
        timeout=_SECONDS,
        on_line=on_line,
    )
