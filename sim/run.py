"""Runs an accelerator's frames in any of the simulators; what ``pvq-hw simulate`` stands on."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.code_stream import stream_cycles
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.errors import InputError
from sim.agents.wire import pack_frames, pack_words, unpack_frames, unpack_words
from sim.backends.design import Design, design_of
from sim.result import SimResult, Stamps, assemble
from sim.taps import BATCHES, deal, layer_taps, taps_of

__all__ = ["SIMULATORS", "exported", "simulate"]

SIMULATORS = ("compiled", "amaranth", "icarus")
_FEW_ROWS = 8  # a frame of them takes fewer cycles than its results wait

IntArray = npt.NDArray[np.int64]
Images = Sequence[CoreImage] | os.PathLike[str]


def simulate(
    graph: GraphSpec,
    images: Images,
    x: IntArray,
    simulator: str = "compiled",
    *,
    count: int | None = None,
    names: Sequence[str] | None = None,
    idle: Pattern | str = NONE,
    stall: Pattern | str = NONE,
    seed: int = 0,
    resets: Sequence[int] = (),
    settle: bool = True,
    progress: Callable[[int], None] | None = None,
) -> SimResult:
    """Streams frames through a graph of units and gives every layer's outputs.

    Parameters
    ----------
    graph : GraphSpec
    images : sequence of CoreImage, or path
        Of the graph's cores, in order. A path is an output folder: its ``verilog/`` and ``image/``
        are what is simulated.
    x : int64 array (frames, ...)
        Integers in the input's format.
    simulator : str
        ``"compiled"`` (the exported Verilog; a million cycles a second or more),
        ``"icarus"`` (the exported Verilog with cocotb; some thousand cycles a second) or
        ``"amaranth"`` (Amaranth's simulator; a thousand).
    count : int, optional
        Frames to simulate, the first of ``x``; all by default.
    names : sequence of str, optional
        What the layers' outputs are called; the units' names by default.
    idle, stall : Pattern or str
        Pauses of the input and of the output; see `pvq_hw.engine.patterns.Pattern.parse`.
    seed : int
        Of the pauses.
    resets : sequence of int
        Cycles that end with a reset, after which everything starts again.
    settle : bool
        Without pauses: simulate further frames where there are too few to tell the interval.
        Otherwise all frames go through one circuit, one after the other.
    progress : callable, optional
        Is told the frames done.

    Returns
    -------
    SimResult
        Interval and latency are None with pauses or resets.

    Raises
    ------
    InputError
        Frames of a wrong shape or out of range, or an unknown simulator.
    ToolError
        A tool is missing or fails.
    StreamError
        A stream broke its protocol or stood still.
    """
    if simulator not in SIMULATORS:
        raise InputError(f"Simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    frames, layers = _frames(graph, x, count), layer_taps(graph)
    names = list(names or (tap.name for tap in layers))
    if len(names) != len(layers) or len(set(names)) != len(names):
        raise InputError(f"Names must be {len(layers)} different ones, not {names}")
    patterns = Pattern.parse(idle), Pattern.parse(stall)
    steady = not (any(pattern.pauses for pattern in patterns) or resets)
    job = _Job(graph, frames, *patterns, seed, tuple(resets), steady, progress, names)
    job.whole = not settle
    if steady and settle:
        job.frames = _filled(frames, job.settling)
    if graph.lags:
        # A layer may not be done when the results are.
        job.frames = _filled(job.frames, len(job.frames) + graph.frames)
    if simulator == "amaranth":
        return job.amaranth(images)
    with exported(graph, images) as design:
        return job.compiled(design) if simulator == "compiled" else job.icarus(design)


def _frames(graph: GraphSpec, x: IntArray, count: int | None) -> IntArray:
    n, form = graph.x
    if count is not None and count < 1:
        raise InputError(f"The number of frames must be at least 1, not {count}")
    given = np.asarray(x)
    if given.ndim < 1 or not len(given) or given.size != len(given) * n:
        raise InputError(f"Frames must be (frames, {n}), not {given.shape}")
    frames = given[:count].reshape(-1, n)
    if frames.dtype.kind not in "iu" or not form.contains(frames):
        raise InputError(f"Frames must be integers within {form.min}..{form.max}")
    return frames.astype(np.int64)


def _filled(frames: IntArray, least: int) -> IntArray:
    """The frames, repeated up to ``least``."""
    return frames if len(frames) >= least else np.resize(frames, (least, frames.shape[1]))


@contextlib.contextmanager
def exported(graph: GraphSpec, images: Images) -> Iterator[Design]:
    """Verilog and memory files: an output folder's own, or exported for as long as needed."""
    if not isinstance(images, Sequence):
        yield design_of(graph, Path(images))
        return
    from gateware.export.export import export_accelerator
    from pvq_hw.plan.image import Image

    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as name:
        folder = Path(name)
        (folder / "verilog").mkdir()
        for file, text in export_accelerator(graph, images).items():
            (folder / "verilog" / file).write_text(text, encoding="utf-8")
        Image(tuple(graph.cores), tuple(images)).write(folder)
        yield design_of(graph, folder)


class _Job:
    """One simulation; ``frames`` may be more than asked for, `SimResult` has those asked for."""

    def __init__(
        self,
        graph: GraphSpec,
        frames: IntArray,
        idle: Pattern,
        stall: Pattern,
        seed: int,
        resets: tuple[int, ...],
        steady: bool,
        progress: Callable[[int], None] | None,
        names: list[str],
    ) -> None:
        self.graph, self.frames, self.asked = graph, frames, len(frames)
        self.taps = taps_of(graph)
        self.whole = False
        self.idle, self.stall, self.seed, self.resets = idle, stall, seed, resets
        self.steady, self.names = steady, names
        self.progress = None
        if progress is not None:
            self.progress = lambda done: progress(min(done, self.asked))
        # A frame's first results may take as long as all cores' codes, one after the other.
        work = sum(tap.work for tap in self.taps)
        pause = max(1 / p.resume for p in (idle, stall))
        streamed: list[Any] = [core for core in graph.cores if core.code_memory == "flash"]
        work += sum(map(stream_cycles, streamed))
        self.quiet = int(20 * pause) * work + 10_000 + idle.longest + stall.longest

    @property
    def batch(self) -> int:
        """Frames in a round: V."""
        return self.graph.frames

    @property
    def vector(self) -> int:
        """Frames in a transfer of the input, as of the output."""
        return self.graph.vectors[0]

    @property
    def settling(self) -> int:
        """Frames after which the interval is surely steady: twice the buffers, and some.

        The results' FIFO of a core of very few rows holds several frames, and such cores settle to
        a pattern of several frames.
        """
        few = [core for core in self.graph.cores if core.rows < _FEW_ROWS]
        held = sum(4 * (core.fifo_depth // core.rows) for core in few)
        return (2 * len(self.names) + 8 + held) * self.batch

    @property
    def links(self) -> list[str]:
        """What the taps are called: as the layers are, or as the stream of batches."""
        names = iter(self.names)
        return [BATCHES if tap.name == BATCHES else next(names) for tap in self.taps]

    def deal(self, outputs: dict[str, IntArray]) -> dict[str, IntArray]:
        """Outputs by the layers' names, without what no frame came for."""
        taps = [replace(t, name=n) for t, n in zip(self.taps, self.links, strict=True)]
        return deal(outputs, taps)

    def amaranth(self, images: Images) -> SimResult:
        from sim.backends.amaranth_runner import simulate_amaranth

        if not isinstance(images, Sequence):
            from pvq_hw.plan.image import Image

            images = Image.load(Path(images), self.graph.cores).cores
        result = simulate_amaranth(
            self.graph,
            images,
            self.frames,
            idle=self.idle,
            stall=self.stall,
            seed=self.seed,
            resets=self.resets,
            quiet=self.quiet,
            progress=self.progress,
        )
        return result.first(self.asked, dict(zip(result.outputs, self.names, strict=True)))

    def icarus(self, design: Design) -> SimResult:
        from sim.backends.icarus import run_icarus

        payloads = pack_frames(self.frames, design.form, self.vector, self.graph.widths[0])
        rows = design.output.transfers
        i, o, *links = run_icarus(
            design,
            payloads,
            len(payloads) // design.n * rows,
            idle=self.idle,
            stall=self.stall,
            seed=self.seed,
            resets=self.resets,
            quiet=self.quiet,
            progress=self.progress,
        )
        outputs = {
            name: unpack_frames(link.payloads, tap.form, tap.frames, tap.rows, tap.width)
            for name, link, tap in zip(self.links, links, self.taps, strict=True)
        }
        last = int(o.cycles[-1]) + 1
        runs = [(i.cycles[:: design.n], o.cycles[rows - 1 :: rows], last)]
        return self.assemble("icarus", self.deal(outputs), runs)

    def compiled(self, design: Design) -> SimResult:
        from sim.backends.compiled import run_compiled

        payloads = pack_words(self.frames, design.form, self.vector, self.graph.widths[0])
        # Several models are worth it where each has enough frames to settle and to be useful.
        batches = len(payloads) // design.n
        threads = (
            1
            if self.graph.lags
            or self.graph.last.remembers
            or self.whole
            or self.resets
            or self.idle.steps
            or self.stall.steps
            else max(1, min(2, os.cpu_count() or 1, batches * self.vector // self.settling))
        )
        runs = run_compiled(
            design,
            payloads,
            idle=self.idle,
            stall=self.stall,
            seed=self.seed,
            resets=self.resets,
            threads=threads,
            quiet=self.quiet,
            progress=self.progress,
        )
        found = []
        for run in runs:
            parts = zip(self.links, run.links, self.taps, strict=True)
            outputs = {
                n: unpack_words(w, tap.form, tap.frames, tap.rows, tap.width) for n, w, tap in parts
            }
            found.append(self.deal(outputs))
        outputs = {name: np.concatenate([part[name] for part in found]) for name in self.names}
        stamps = [(run.starts, run.ends, run.cycles) for run in runs]
        return self.assemble("compiled", outputs, stamps)

    def assemble(
        self,
        simulator: str,
        outputs: dict[str, IntArray],
        runs: Sequence[tuple[Stamps, Stamps, int]],
    ) -> SimResult:
        """The result of the frames asked for."""
        batch = self.batch // self.vector
        return assemble(simulator, self.asked, outputs, runs, self.vector, self.steady, batch)
