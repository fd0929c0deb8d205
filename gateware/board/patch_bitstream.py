"""New memory contents in a placed design: a new bitstream without synthesis, place and route.

Neither synthesis nor place and route looks at what block RAMs hold, so the placed design of other
weights serves as long as the designs differ in nothing else. What synthesis would read (RTLIL)
proves that; then the contents are written into the placed design's text and packed. The bitstream
is byte for byte the one that a build with the same seed gives.
"""

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pvq_hw.documents import document_text
from pvq_hw.errors import CheckError, InputError
from pvq_hw.output.build_record import load_memories
from pvq_hw.output.verify_bitstream import MEMORIES
from pvq_hw.registry import ValueFace
from pvq_hw.target.architectures import ARCHITECTURES
from pvq_hw.target.block_contents import section_lines

__all__ = ["pack_netlist", "record_memories", "replace_contents", "replace_netlist"]

_TYPES = ("SB_RAM40_4K", "DP16KD")
_MAX_BYTES = 1 << 30


def _read(text: str) -> tuple[dict[str, dict[str, str]], str]:
    """Contents of the block RAMs of a design, by cell as the flat netlist calls it, and the hash of
    everything else.

    ``text`` is RTLIL as Amaranth writes it: a module for each instance, called by its place.
    """
    contents: dict[str, dict[str, str]] = {}
    digest, module, found = hashlib.sha256(), "", None
    for line in text.splitlines():
        word = line.split(maxsplit=2)
        if line.startswith("module "):
            module = word[1].removeprefix("\\").partition(".")[2]
        elif word[:1] == ["cell"]:
            found = None
            if word[1].removeprefix("\\").startswith(_TYPES):
                name = ".".join(filter(None, (module, word[2].removeprefix("\\"))))
                found = contents[name] = {}
        elif found is not None and word[:1] == ["parameter"] and word[1].startswith("\\INIT"):
            found[word[1].removeprefix("\\")] = word[2].partition("'")[2]
            continue
        digest.update(line.encode() + b"\n")
    return contents, digest.hexdigest()


def record_memories(design: Path, placed: Path, target: Path) -> None:
    """Writes where place and route put each block RAM, and the hash of the design without them.

    Parameters
    ----------
    design, placed : Path
        What yosys read, and what nextpnr (``--write``) wrote.
    target : Path
    """
    contents, digest = _read(design.read_text(encoding="utf-8"))
    document = json.loads(placed.read_text(encoding="utf-8"))
    places = {}
    for module in document["modules"].values():
        for name, cell in module["cells"].items():
            if cell["type"] == "ICESTORM_RAM":
                x, y = re.findall(r"\d+", cell["attributes"]["NEXTPNR_BEL"])[:2]
                places[name.removesuffix("_RAM")] = f".ram_data {x} {y}"
            elif cell["type"] == "DP16KD":
                places[name] = f".bram_init {int(cell['attributes']['WID'], 2)}"
    memories = {name: places[name] for name in sorted(contents) if name in places}
    text = document_text({"netlist": digest, "memories": memories})
    target.write_text(text, encoding="utf-8", newline="\n")


def pack_netlist(netlist: Any, target: Path) -> None:
    """Writes a netlist without the primitives' declarations, whose names follow their contents: the
    same bytes for the same one."""
    modules = {
        name: module
        for name, module in netlist["modules"].items()
        if not {"blackbox", "whitebox"} & module.get("attributes", {}).keys()
    }
    text = json.dumps({**netlist, "modules": modules}, separators=(",", ":"))
    target.write_bytes(gzip.compress(text.encode(), 6, mtime=0))


def replace_netlist(packed: Path, design: str) -> None:
    """Puts the contents of ``design``'s block RAMs into a packed netlist, where there is one."""
    if not packed.exists():
        return
    netlist = json.loads(gzip.decompress(packed.read_bytes()))
    contents, _ = _read(design)
    for module in netlist["modules"].values():
        for name, cell in module["cells"].items():
            if cell["type"] in _TYPES and name in contents:
                cell["parameters"].update(contents[name])
    pack_netlist(netlist, packed)


def _bits(text: str, width: int) -> int:
    """A binary number of yosys; what is undefined becomes 0, as in nextpnr."""
    return int(re.sub("[^01]", "0", text)[-width:] or "0", 2)


block_parts: ValueFace[[dict[str, str]], list[tuple[int, int]]] = ARCHITECTURES.face(
    "block parameters"
)
"""Contents of a block RAM, in its order, from the parameters of its primitive: numbers, and how
many of the lowest bits of each are meant."""


@block_parts.of("ice40")
def _of_ram40(family: str, contents: dict[str, str]) -> list[tuple[int, int]]:
    return [(_bits(contents[f"INIT_{row:X}"], 256), 256) for row in range(16)]


@block_parts.of("ecp5")
def _of_dp16kd(family: str, contents: dict[str, str]) -> list[tuple[int, int]]:
    """INITVAL holds 16 x 18 bits in steps of 20 (FPGA-TN-02204)."""
    words = [_bits(contents.get(f"INITVAL_{row:02X}", "0"), 320) for row in range(64)]
    return [(word >> 20 * step, 18) for word in words for step in range(16)]


def _lines(contents: dict[str, str], family: str) -> list[str]:
    """Contents in the text of a placed design."""
    parts = block_parts(family, contents)
    bits = [word >> bit & 1 for word, width in parts for bit in range(width)]
    return section_lines(np.array(bits, dtype=np.uint8), family)


def _patch(text: str, sections: dict[str, list[str]]) -> str:
    """Replaces the lines under each heading of a placed design's text."""
    lines = text.split("\n")
    missing = set(sections)
    for number, line in enumerate(lines):
        if line in sections:
            new = sections[line]
            old = lines[number + 1 : number + 1 + len(new)]
            if [len(word) for word in old] != [len(word) for word in new]:
                raise InputError(f"The placed design must have {len(new)} lines after {line!r}")
            lines[number + 1 : number + 1 + len(new)] = new
            missing.discard(line)
    if missing:
        raise InputError(f"The placed design lacks the section {sorted(missing)[0]!r}")
    return "\n".join(lines)


def replace_contents(
    built: Path,
    design: str,
    folder: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> None:
    """Puts the contents of ``design``'s block RAMs into the placed design of ``built``.

    Parameters
    ----------
    built : Path
        A build folder, with its `MEMORIES`.
    design : str
        The new one, as yosys would read it.
    folder : Path
        Gets ``top.asc`` or ``top.config`` with the new contents, and a copy of `MEMORIES`.

    Raises
    ------
    CheckError
        The designs differ in more than the contents of block RAMs: they need a build of their
        own.
    InputError
        ``built`` is not a build folder, or a broken one.
    """
    placed = {built / device.placed: name for name, device in ARCHITECTURES.kinds().items()}
    source = next((path for path in placed if path.is_file()), None)
    if source is None or source.stat().st_size > _MAX_BYTES:
        raise InputError(f"{built} must hold a placed design")
    recorded = load_memories(built / MEMORIES)
    digest, memories = recorded["netlist"], recorded["memories"]
    contents, now = _read(design)
    if now != digest or set(memories) - set(contents):
        raise CheckError(
            "The designs must differ in the contents of block RAMs only; run a full build"
        )
    family = placed[source]
    progress(f"New contents for {len(memories)} block RAMs")
    sections = {heading: _lines(contents[name], family) for name, heading in memories.items()}
    text = _patch(source.read_text(encoding="ascii"), sections)
    (folder / source.name).write_text(text, encoding="ascii", newline="\n")
    shutil.copyfile(built / MEMORIES, folder / MEMORIES)
