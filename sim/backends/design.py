"""What the simulators of Verilog take: sources, memory files, and where the streams are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.batch import is_serial, last_frame_format
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.spram_image import CODES_FILE, SPRAM_FILE, code_layout, code_writes, has_spram
from pvq_hw.errors import InputError

__all__ = ["BATCHES", "Design", "Link", "design_files", "design_of"]

BATCHES = "(batches)"
"""Name of the stream that numbers the last frame of each batch; no layer is called so."""

_TOP = "accelerator"


@dataclass(frozen=True)
class Link:
    """The output stream of one layer.

    Parameters
    ----------
    name : str
        The layer's name.
    scope : tuple of str
        Names of the instances from the top module down to the one that gives the stream; empty
        for the top module itself.
    rows : int
        Activations per frame.
    form : IntFormat
    vector : int
        Frames per payload (V).
    """

    name: str
    scope: tuple[str, ...]
    rows: int
    form: IntFormat
    vector: int = 1

    @property
    def bits(self) -> int:
        """Width of the payload."""
        return self.form.bits * self.vector

    @property
    def words(self) -> int:
        """32-bit words of the payload."""
        return -(-self.bits // 32)

    def to_json(self) -> dict[str, Any]:
        """What a testbench outside this process needs."""
        return {"name": self.name, "scope": list(self.scope), "bits": self.bits}


@dataclass(frozen=True)
class Design:
    """Verilog of a module with streams ``i`` and ``o``, ``clk`` and ``rst``.

    Parameters
    ----------
    top : str
        Name of the top module. Its ports are called as Amaranth does: ``i__valid`` and so on.
    sources : tuple of Path
    memories : tuple of Path
        Files that ``$readmemh`` reads, by their plain names, from the working folder.
    n : int
        Activations per input frame.
    form : IntFormat
        Of the input.
    links : tuple of Link
        Every layer's output, in order; the last one's rows leave at ``o``.
    vector : int
        Frames per payload of ``i`` (V).
    loads : tuple of (int, int)
        Addresses and words that are written through the port ``codes`` first, if there is one.
    """

    top: str
    sources: tuple[Path, ...]
    memories: tuple[Path, ...]
    n: int
    form: IntFormat
    links: tuple[Link, ...]
    vector: int = 1
    loads: tuple[tuple[int, int], ...] = ()

    @property
    def words(self) -> int:
        """32-bit words of a payload of ``i``."""
        return -(-self.form.bits * self.vector // 32)


def design_of(specs: Sequence[CoreBase], folder: Path) -> Design:
    """The design in an output folder's ``verilog/`` and ``image/``.

    Raises
    ------
    InputError
        A file is missing.
    """
    top, sources, memories = design_files(specs, folder)
    links = tuple(
        Link(spec.name, (f"core{index}",), spec.rows, spec.out, spec.frames)
        for index, spec in enumerate(specs)
    )
    if is_serial(specs):
        links = _batch_links(specs, links)
    first = specs[0]
    loads: tuple[tuple[int, int], ...] = ()
    if has_spram(specs):
        loads = tuple(code_writes(code_layout(specs), (folder / "image" / CODES_FILE).read_bytes()))
    return Design(top, sources, memories, first.n, first.x, links, first.input_frames, loads)


def _batch_links(specs: Sequence[CoreBase], links: Sequence[Link]) -> tuple[Link, ...]:
    """As `sim.taps.batch_taps.batch_taps` has them."""
    inner = (replace(link, scope=("chain", *link.scope)) for link in links[:-1])
    number = last_frame_format(specs[0].frames)
    results = replace(links[-1], scope=("unpacker",), vector=1)
    return (*inner, Link(BATCHES, ("batches",), 1, number), results)


def design_files(
    specs: Sequence[CoreBase], folder: Path
) -> tuple[str, tuple[Path, ...], tuple[Path, ...]]:
    """Top module, sources and memory files of an output folder; InputError where one lacks."""
    verilog, image = folder / "verilog", folder / "image"
    sources = tuple(verilog / name for name in (f"{_TOP}.v", "pvq_rom.v"))
    memories = tuple(image / f"{name}.hex" for spec in specs for name in spec.memories)
    loaded: tuple[Path, ...] = ()
    if has_spram(specs):
        sources += (verilog / SPRAM_FILE,)
        loaded = (image / CODES_FILE,)
    for file in (*sources, *memories, *loaded):
        if file.is_symlink() or not file.is_file():
            raise InputError(f"{file} must be a file")
    return _TOP, sources, memories
