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
from pvq_hw.target.boards import get_target
from pvq_hw.tools.process import run_command

__all__ = ["LOADERS", "Loader", "find_loader", "program", "with_dfu_suffix"]

_ORANGECRAB = (0x1209, 0x5AF0)  # USB vendor and product of its bootloader
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
    """

    name: str
    arguments: tuple[str, ...]
    remedy: str
    lasting: bool
    offset: tuple[str, ...] = ()


_ICEPROG = Loader("iceprog", (), "apt-get install fpga-icestorm", True, ("-o",))
_ICEBREAKER = (
    _ICEPROG,
    Loader(
        "openFPGALoader",
        ("--board", "ice40_generic", "--write-flash"),
        "apt-get install openfpgaloader",
        True,
        ("--board", "ice40_generic", "--write-flash", "--offset"),
    ),
)
_ULX3S = (
    Loader("openFPGALoader", ("--board", "ulx3s"), "apt-get install openfpgaloader", False),
    Loader("fujprog", (), "see github.com/kost/fujprog", False),
)
_DFU = Loader(
    "dfu-util",
    ("--device", "{:04x}:{:04x}".format(*_ORANGECRAB), "--alt", "0", "--download"),
    "apt-get install dfu-util",
    True,
)

# The first one that is there is used.
LOADERS: dict[str, tuple[Loader, ...]] = {
    "icebreaker": _ICEBREAKER,
    "hx8k": (_ICEPROG,),
    "ulx3s-25f": _ULX3S,
    "ulx3s-85f": _ULX3S,
    "orangecrab-25f": (_DFU,),
}


def find_loader(target: str) -> Loader:
    """The loader that will be used for a target; ToolError names what to install."""
    loaders = LOADERS[get_target(target).name]
    for loader in loaders:
        if shutil.which(loader.name):
            return loader
    names = " or ".join(loader.name for loader in loaders)
    verb = "is" if len(loaders) == 1 else "are"
    raise ToolError(f"{names}, which loads {target}, {verb} missing: {loaders[0].remedy}")


def with_dfu_suffix(bitstream: bytes, vendor: int, product: int) -> bytes:
    """The file with the suffix that dfu-util wants: USB DFU specification 1.1, appendix B."""
    data = bitstream + struct.pack("<HHHH3sB", 0xFFFF, product, vendor, 0x0100, b"UFD", 16)
    return data + struct.pack("<I", zlib.crc32(data) ^ 0xFFFFFFFF)


def program(
    bitstream: Path,
    target: str,
    *,
    codes: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Loader:
    """Loads ``bitstream`` onto the board; gives the loader that did.

    Parameters
    ----------
    bitstream : Path
        ``.bin`` for iCE40, ``.bit`` for ECP5, as the build makes it.
    target : str
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
        if loader is _DFU:
            path = Path(folder, bitstream.stem + ".dfu")
            path.write_bytes(with_dfu_suffix(bitstream.read_bytes(), *_ORANGECRAB))
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
        raise InputError(f"{loader.name} must be able to write codes, but knows no offset")
    if not codes.is_file():
        raise InputError(f"{codes} must be the codes, but is no file: run `pvq-hw compile`")
    run_command(
        (loader.name, *loader.offset, str(FLASH_OFFSET), str(codes.resolve())),
        name=loader.name,
        folder=codes.resolve().parent,
        timeout=_SECONDS,
        on_line=on_line,
    )
