"""What the simulators of Verilog take: sources, memory files, and where the streams are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.code_stream import (
    STREAM_BENCH,
    STREAM_FILE,
    STREAM_INSTANCE,
    has_stream,
    stream_file,
)
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.hexfile import read_hex
from pvq_hw.engine.spram_image import CODES_FILE, SPRAM_FILE, code_layout, code_writes, has_spram
from pvq_hw.errors import InputError
from sim.taps import Tap, taps_of

__all__ = ["Design", "design_of"]

_TOP = "accelerator"


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
        Transfers of a frame (of V side by side) at the input.
    form : IntFormat
        Format of the input.
    links : tuple of Tap
        Every layer's output, in order; the last one's rows leave at ``o``.
    vector : int
        Activations per payload of ``i``: of V frames, or W of one.
    out_width : int, optional
        Activations of a frame in a transfer of ``o``, where they are not those of the last link.
    loads : tuple of (int, int)
        Addresses and words that are written through the port ``codes`` first, if there is one.
    """

    top: str
    sources: tuple[Path, ...]
    memories: tuple[Path, ...]
    n: int
    form: IntFormat
    links: tuple[Tap, ...]
    vector: int = 1
    loads: tuple[tuple[int, int], ...] = ()
    out_width: int | None = None

    @property
    def output(self) -> Tap:
        """The stream ``o``."""
        wide = self.links[-1].width if self.out_width is None else self.out_width
        return replace(self.links[-1], name="o", scope=(), width=wide)

    @property
    def words(self) -> int:
        """32-bit words of a payload of ``i``."""
        return -(-self.form.bits * self.vector // 32)


def design_of(graph: GraphSpec, folder: Path) -> Design:
    """The design in an output folder's ``verilog/`` and ``image/``.

    Raises
    ------
    InputError
        A file is missing.
    """
    cores, image = graph.cores, folder / "image"
    streamed = has_stream(cores)
    spram = [SPRAM_FILE] if any(core.in_spram for core in cores) else []
    names = [f"{_TOP}.v", "pvq_rom.v", *spram, *([STREAM_FILE] if streamed else [])]
    sources = tuple(folder / "verilog" / name for name in names)
    memories = tuple(image / f"{name}.hex" for core in cores for name in core.memories)
    loaded = (image / CODES_FILE,) if has_spram(cores) or streamed else ()
    for file in (*sources, *memories, *loaded):
        if file.is_symlink() or not file.is_file():
            raise InputError(f"{file} must be a file")
    loads: tuple[tuple[int, int], ...] = ()
    if streamed:
        _check_stream(graph, image)
    for file in loaded if not streamed else ():
        loads = tuple(code_writes(code_layout(cores), file.read_bytes()))
    links = tuple(taps_of(graph))
    (n, _), (vector, _), (_, given) = graph.frame_transfers, graph.together, graph.widths
    top = _TOP
    if streamed:  # the accelerator is inside, with its flash
        top = f"{_TOP}{STREAM_BENCH}"
        links = tuple(replace(tap, scope=(STREAM_INSTANCE, *tap.scope)) for tap in links)
    return Design(top, sources, memories, n, graph.x[1], links, vector, loads, given)


def _check_stream(graph: GraphSpec, image: Path) -> None:
    """Raises InputError unless the file for the flash has the words that are simulated."""
    spec: Any = next(core for core in graph.cores if core.code_memory == "flash")
    words = read_hex(image / f"{spec.stream_memory}.hex", spec.word_bits, spec.stream_words)
    if (image / CODES_FILE).read_bytes() != stream_file(spec, words):
        raise InputError(f"{image / CODES_FILE} must hold the words of {spec.name}'s codes")
