"""The fast path: the exported Verilog as a compiled model, for whole test sets."""

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.errors import InputError, ToolError
from pvq_hw.tools.process import run_command
from sim.agents.streams import StreamError
from sim.backends.compilers import BACKENDS, default_backend, source_files
from sim.backends.design import Design
from sim.backends.models import cached, digest

__all__ = ["Run", "build_model", "run_compiled"]


@dataclass(frozen=True, eq=False)
class Run:
    """What one thread of the model recorded, from its reset on.

    ``links`` holds each link's payloads as (transfers, 32-bit words); ``starts`` and ``ends`` the
    cycles of each frame's first input and last output transfer.
    """

    cycles: int
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    links: list[npt.NDArray[np.uint32]]


def build_model(design: Design, backend: str | None = None, optimize: str = "-O1") -> Path:
    """The program that simulates a design; built unless in the cache.

    Raises
    ------
    ToolError
        There is no C++ compiler, or a tool failed.
    """
    backend = backend or default_backend()
    if backend not in BACKENDS:
        raise InputError(f"Backend must be one of {sorted(BACKENDS)}, not {backend!r}")
    chosen = BACKENDS[backend]
    files = [*source_files(), *design.sources, *(design.memories if chosen.embeds else ())]
    ports = (
        design.top,
        design.form,
        design.vector,
        design.links,
        design.out_width,
        bool(design.loads),
    )
    parts = [backend.encode(), optimize.encode(), repr(ports).encode()]
    parts += [part for file in files for part in (file.name.encode(), file.read_bytes())]

    def make(folder: Path) -> None:
        work = folder.with_name("work")
        work.mkdir()
        chosen.build(design, work, optimize)
        (work / "model").rename(folder / "model")

    return cached(digest(*parts), make) / "model"


def run_compiled(
    design: Design,
    payloads: npt.NDArray[np.uint32],
    *,
    idle: Pattern = NONE,
    stall: Pattern = NONE,
    seed: int = 0,
    resets: Iterable[int] = (),
    threads: int = 1,
    quiet: int = 1_000_000,
    backend: str | None = None,
    optimize: str = "-O1",
    progress: Callable[[int], None] | None = None,
) -> list[Run]:
    """Streams payloads through a design: whole frames, or batches of them, (payloads, words).

    The frames are dealt in ranges to ``threads`` models. ``progress`` is told the frames done.
    See `sim.backends.icarus.run_icarus` for the other parameters.

    Raises
    ------
    ToolError
        No C++ compiler, or a tool failed.
    StreamError
        A stream broke its protocol or stood still.
    """
    model = build_model(design, backend, optimize)
    numbers: list[Any] = [threads, len(payloads) // design.n, design.n, design.output.transfers]
    numbers += [quiet, _pauses(idle, seed), _pauses(stall, seed + 1), *resets]
    said: list[str] = []

    def line(text: str) -> None:
        if text.isdigit():
            if progress is not None:
                progress(int(text))
        else:
            said.append(text)

    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as name:
        folder = Path(name)
        for memory in design.memories:
            shutil.copy(memory, folder / memory.name)
        payloads.astype("<u4").tofile(folder / "input.bin")
        loads = np.array([address << 16 | word for address, word in design.loads], dtype="<u4")
        loads.tofile(folder / "loads.bin")
        command = [str(model), "input.bin", "output.bin", *map(str, numbers)]
        try:
            run_command(command, name="The compiled model", folder=folder, on_line=line)
        except ToolError:
            if said and said[-1].startswith(("No stream moved", "Stream ")):
                raise StreamError(said[-1]) from None
            raise
        return _read(folder / "output.bin", design)


def _pauses(pattern: Pattern, seed: int) -> str:
    return ",".join(map(str, (*pattern.thresholds, seed, *pattern.steps)))


def _read(path: Path, design: Design) -> list[Run]:
    """The runs in the file that the model wrote."""
    words = np.fromfile(path, dtype="<u4")
    position = 0

    def take(count: int) -> npt.NDArray[np.uint32]:
        nonlocal position
        position += count
        return words[position - count : position]

    def numbers(count: int) -> npt.NDArray[np.int64]:
        return take(2 * count).copy().view("<i8").astype(np.int64)

    runs = []
    while position < len(words):
        cycles, frames = (int(v) for v in numbers(2))
        starts, ends = numbers(frames), numbers(frames)
        links = []
        for link in design.links:
            links.append(take(int(numbers(1)[0])).reshape(-1, link.words))
        runs.append(Run(cycles, starts, ends, links))
    return runs
