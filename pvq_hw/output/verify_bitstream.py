"""Checks a bitstream: unpacks it and compares every block RAM with the memory files' contents."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np

from pvq_hw.documents import OPEN, Format, load_json, read
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.live_image import TOLD, live_contents, live_layout
from pvq_hw.engine.roms import rom_contents
from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.protocol import DESCRIPTION_ROM
from pvq_hw.output.build_record import BUILD, BUILD_FILE, load_memories, read_build
from pvq_hw.output.verify_content import Finding
from pvq_hw.plan.image import Image
from pvq_hw.plan.plan import Plan
from pvq_hw.target.architectures import architecture
from pvq_hw.target.block_contents import Bits, block_words, sections
from pvq_hw.target.block_ram import Piece, memory_layout
from pvq_hw.tools import find as tools

__all__ = ["MEMORIES", "check_bitstream"]

MEMORIES = "memories.json"
"""Where place and route put each block RAM; a file of a build's folder."""

_SCRIPT = Format("a build's script")
_MOST = 20  # findings of one kind
_LIMIT = 1 << 30  # bytes of a file


@dataclass(frozen=True)
class _Rom:
    """A memory whose contents are in the bitstream: words of a core's memory, from one on; or of
    a table, which has no core, or of the board's top, which is no layer's."""

    layer: str
    core: tuple[CoreBase, CoreImage] | None
    memory: str
    name: str
    width: int
    first: int
    words: list[int]


def check_bitstream(
    folder: Path, plan: Plan, image: Image, told: bytes | None = None
) -> tuple[list[Finding], str]:
    """Where an output's bitstream differs from its image, and what was compared, in words.
    ``told`` is what the board says of itself, where that is in block RAM.

    The bitstream is unpacked; the contents of every block RAM that the design fills, found by its
    place, must be the image's to the last bit, and those of all other blocks zeros. All else of
    the bitstream must be what the placed design beside it packs to.

    Raises
    ------
    InputError
        There is no build, or a file of it is not as it was built.
    ToolError
        A packer is missing.
    """
    build, device = folder / BUILD, plan.target.device.architecture
    name, blocks = device.bitstream, device.name
    file = f"{BUILD}/{name}"
    if read_build(folder, strict=False)["bitstream"] != name:
        raise InputError(f"{build / BUILD_FILE} must name the bitstream {name}")
    command = _pack_command(build / "build_top.json", device.packer)
    places = load_memories(build / MEMORIES)["memories"]
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as place:
        try:
            text = unpack_bitstream(build / name, Path(place), blocks)
            found = sections(text, blocks)
        except (ToolError, InputError) as error:
            if isinstance(error, ToolError) and not tools.have_tool(device.unpack[0]):
                raise
            return [Finding(file, "", "can't be unpacked: it is damaged")], ""
        findings = (
            []
            if _same_design(build, name, Path(place), command)
            else [Finding(file, "", f"is not what {device.placed} beside it packs to")]
        )
    compared = 0
    for rom in _roms(plan, image, blocks, told):
        for number, piece in enumerate(memory_layout(rom.width, len(rom.words), blocks)):
            cells = [cell for cell in places if f".{rom.name}_{number}." in cell]
            if len(cells) != 1 or places[cells[0]] not in found:
                where = f"{_owner(rom)} {rom.memory}"
                findings.append(Finding(file, where, f"has no place for its block RAM {number}"))
                continue
            findings += _compare(file, rom, piece, found.pop(places[cells[0]]), blocks)
            compared += piece.bits * piece.words
    for heading, bits in found.items():
        if bits.any():
            findings.append(Finding(file, heading[1:], "holds bits, but no memory is there"))
    return findings[:_MOST], f"{compared:,} bits of codes, parameters and tables in block RAM"


class _Script(TypedDict):
    """A build's script, of which only the commands are read."""

    commands: list[list[str]]


def _pack_command(path: Path, packer: str) -> list[str]:
    """The command that packed the bitstream, in which every word is an option, a number or the name
    of a file: it runs again, in a folder of its own."""
    commands = read(Annotated[_Script, OPEN], load_json(path, _SCRIPT), str(path))["commands"]
    for words in commands:
        if words[:1] == [packer] and all(re.fullmatch(r"[\w.=-]+", word) for word in words):
            return list(words)
    raise InputError(f"{path} must have a command of {packer} on files beside it")


def unpack_bitstream(bitstream: Path, place: Path, blocks: str) -> str:
    """The text of a bitstream; ToolError where the tool refuses it."""
    if bitstream.stat().st_size > _LIMIT:
        raise InputError(f"{bitstream} must be below {_LIMIT:,} bytes")
    (place / "in").write_bytes(bitstream.read_bytes())
    tool, *arguments = architecture(blocks).unpack
    tools.run(tool, arguments, folder=place, log=place / "log")
    return (place / "out").read_text(encoding="ascii", errors="replace")


def _same_design(build: Path, bitstream: str, place: Path, command: list[str]) -> bool:
    """Whether the placed design packs to the bitstream, byte for byte."""
    for word in command[1:]:
        if (build / word).is_file():
            (place / word).write_bytes((build / word).read_bytes())
    (place / bitstream).unlink(missing_ok=True)
    tools.run(command[0], command[1:], folder=place, log=place / "log")
    return (place / bitstream).read_bytes() == (build / bitstream).read_bytes()


def _roms(plan: Plan, image: Image, blocks: str, told: bytes | None) -> Iterator[_Rom]:
    """The ROMs in block RAM, as the circuits build them."""
    if told is not None and plan.live:
        layout = live_layout(plan.graph, blocks, len(told))
        words = layout.told(live_contents(plan.graph, image.cores, blocks), told)
        width = layout.memories[-1].width
        yield _Rom("", None, "the board's description", TOLD, width, 0, list(words))
    elif told is not None:
        yield _Rom("", None, "the board's description", DESCRIPTION_ROM, 8, 0, list(told))
    cores = {
        spec.name: (part.layer, (spec, core))
        for part, spec, core in zip(plan.layers, image.specs, image.cores, strict=True)
    }
    for rom in rom_contents(plan.graph, image.cores, blocks):
        layer, core = cores.get(rom.owner, (rom.owner, None))
        yield _Rom(layer, core, rom.memory, rom.name, rom.width, rom.first, list(rom.words))


def _compare(file: str, rom: _Rom, piece: Piece, bits: Bits, blocks: str) -> list[Finding]:
    """Bits of a block that are not the memory's, by word and bit of the memory."""
    mask = (1 << piece.bits) - 1
    words = rom.words[piece.word : piece.word + piece.words]
    wanted = np.zeros(piece.shape[1], dtype=np.int64)
    wanted[: len(words)] = [word >> piece.bit & mask for word in words]
    found = block_words(bits, piece.shape[0], blocks)
    findings = []
    for at in np.flatnonzero(found != wanted)[:_MOST]:
        word = rom.first + piece.word + int(at)
        wrong = int(found[at] ^ wanted[at])
        bit = piece.bit + (wrong & -wrong).bit_length() - 1
        where = f"{_owner(rom)}{_row(rom, word)} {rom.memory} word {word} bit {bit}"
        findings.append(Finding(file, where, f"is {found[at] >> bit - piece.bit & 1}"))
    return findings


def _owner(rom: _Rom) -> str:
    return f"layer {rom.layer!r}" if rom.layer else "top"


def _row(rom: _Rom, word: int) -> str:
    """The row that a word belongs to, in words."""
    if rom.core is None:
        return ""
    spec, core = rom.core
    if rom.memory != spec.memory_name("weights"):
        per = spec.groups if rom.memory.endswith("_mult") else 1
        return f" row {word // per}"
    ends = np.cumsum(spec.row_slots(core))
    return f" row {int(np.searchsorted(ends, word, side='right'))}"
