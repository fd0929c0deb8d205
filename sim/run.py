"""Runs an accelerator's frames in any of the simulators; what ``pvq-hw simulate`` stands on."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.errors import InputError
from sim.agents.wire import pack_frames, pack_words, unpack_frames, unpack_words
from sim.backends.design import BATCHES, Design, design_of
from sim.result import SimResult, Stamps, assemble
from sim.taps.batch_taps import batch_taps, deal
from sim.taps.graph_taps import graph_design, graph_taps

__all__ = ["SIMULATORS", "exported", "simulate"]

SIMULATORS = ("compiled", "amaranth", "icarus")
_FEW_ROWS = 8  # a frame of them takes fewer cycles than its results wait

IntArray = npt.NDArray[np.int64]
Images = Sequence[CoreImage] | os.PathLike[str]


def simulate(
    specs: Sequence[CoreBase],
    images: Images,
    x: IntArray,
    simulator: str = "compiled",
    *,
    count: int | None = None,
    names: Sequence[str] | None = None,
    graph: GraphSpec | None = None,
    idle: Pattern | str = NONE,
    stall: Pattern | str = NONE,
    seed: int = 0,
    resets: Sequence[int] = (),
    settle: bool = True,
    progress: Callable[[int], None] | None = None,
) -> SimResult:
    """Streams frames through a chain of cores and gives every core's outputs.

    Parameters
    ----------
    specs : sequence of CoreBase
    images : sequence of CoreImage, or path
        A path is an output folder: its ``verilog/`` and ``image/`` are what is simulated.
    x : int64 array (frames, ...)
        Integers in the first core's format.
    simulator : str
        ``"compiled"`` (the exported Verilog; a million cycles a second or more),
        ``"icarus"`` (the exported Verilog with cocotb; some thousand cycles a second) or
        ``"amaranth"`` (Amaranth's simulator; a thousand).
    count : int, optional
        Frames to simulate, the first of ``x``; all by default.
    names : sequence of str, optional
        What the outputs are called; the specifications' names by default.
    graph : GraphSpec, optional
        Of the cores; every layer's output is then given, not only the cores'.
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
    watched: Sequence[Any] = specs if graph is None else graph_taps(graph)
    frames = _frames(watched, x, count)
    names = list(names or (spec.name for spec in watched))
    if len(names) != len(watched) or len(set(names)) != len(names):
        raise InputError(f"Names must be {len(watched)} different ones, not {names}")
    patterns = Pattern.parse(idle), Pattern.parse(stall)
    steady = not (any(pattern.pauses for pattern in patterns) or resets)
    job = _Job(watched, frames, *patterns, seed, tuple(resets), steady, progress, names)
    job.graph, job.cores = graph, specs
    job.whole = not settle
    if graph is None:
        job.taps = batch_taps(specs)
    if steady and settle:
        job.frames = _filled(frames, job.settling)
    if graph is not None:
        # One more: a map's last activations may matter to no window, so that a layer before it
        # is not done when the results are.
        job.frames = _filled(job.frames, len(job.frames) + 1)
    if simulator == "amaranth":
        return job.amaranth(images)
    with exported(specs, images, graph) as design:
        return job.compiled(design) if simulator == "compiled" else job.icarus(design)


def _frames(specs: Sequence[CoreBase], x: IntArray, count: int | None) -> IntArray:
    if not specs:
        raise InputError("There must be at least one core to simulate")
    if count is not None and count < 1:
        raise InputError(f"The number of frames must be at least 1, not {count}")
    given = np.asarray(x)
    if given.ndim < 1 or not len(given) or given.size != len(given) * specs[0].n:
        raise InputError(f"Frames must be (frames, {specs[0].n}), not {given.shape}")
    frames = given[:count].reshape(-1, specs[0].n)
    if frames.dtype.kind not in "iu" or not specs[0].x.contains(frames):
        form = specs[0].x
        raise InputError(f"Frames must be integers within {form.min}..{form.max}")
    return frames.astype(np.int64)


def _filled(frames: IntArray, least: int) -> IntArray:
    """The frames, repeated up to ``least``."""
    return frames if len(frames) >= least else np.resize(frames, (least, frames.shape[1]))


@contextlib.contextmanager
def exported(
    specs: Sequence[CoreBase], images: Images, graph: GraphSpec | None = None
) -> Iterator[Design]:
    """Verilog and memory files: an output folder's own, or exported for as long as needed."""

    def design(folder: Path) -> Design:
        return design_of(specs, folder) if graph is None else graph_design(graph, folder)

    if not isinstance(images, Sequence):
        yield design(Path(images))
        return
    from gateware.export.export import export_accelerator
    from pvq_hw.plan.image import Image

    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as name:
        folder = Path(name)
        (folder / "verilog").mkdir()
        for file, text in export_accelerator(specs, images, graph=graph).items():
            (folder / "verilog" / file).write_text(text, encoding="utf-8")
        Image(tuple(specs), tuple(images)).write(folder)
        yield design(folder)


class _Job:
    """One simulation; ``frames`` may be more than asked for, `SimResult` has those asked for."""

    def __init__(
        self,
        specs: Sequence[Any],
        frames: IntArray,
        idle: Pattern,
        stall: Pattern,
        seed: int,
        resets: tuple[int, ...],
        steady: bool,
        progress: Callable[[int], None] | None,
        names: list[str],
    ) -> None:
        self.specs, self.frames, self.asked = list(specs), frames, len(frames)
        self.graph: GraphSpec | None = None
        self.taps = self.specs
        self.whole = False
        self.cores: Sequence[CoreBase] = ()
        self.idle, self.stall, self.seed, self.resets = idle, stall, seed, resets
        self.steady, self.names = steady, names
        self.progress = None
        if progress is not None:
            self.progress = lambda done: progress(min(done, self.asked))
        # A frame's first results may take as long as all cores' codes, one after the other.
        work = sum(spec.words + spec.n * spec.frames + spec.output_delay for spec in specs)
        pause = max(1 / p.resume for p in (idle, stall))
        self.quiet = int(20 * pause) * work + 10_000 + idle.longest + stall.longest

    @property
    def batch(self) -> int:
        """Frames in a batch: V."""
        return int(self.specs[0].frames)

    @property
    def vector(self) -> int:
        """Frames in a transfer."""
        return 1 if len(self.taps) > len(self.specs) else self.batch

    @property
    def settling(self) -> int:
        """Frames after which the interval is surely steady: twice the buffers, and some.

        The results' FIFO of a core of very few rows holds several frames, and such cores settle to
        a pattern of several frames.
        """
        few = [s for s in self.specs if isinstance(s, CoreBase) and s.rows < _FEW_ROWS]
        held = sum(4 * (spec.fifo_depth // spec.rows) for spec in few)
        return (2 * len(self.specs) + 8 + held) * self.batch

    @property
    def links(self) -> list[str]:
        """What the taps are called: as the layers are, or as the stream of batches."""
        if len(self.taps) == len(self.specs):
            return self.names
        return [*self.names[:-1], BATCHES, self.names[-1]]

    def amaranth(self, images: Images) -> SimResult:
        from sim.backends.amaranth_runner import simulate_amaranth

        if not isinstance(images, Sequence):
            from pvq_hw.plan.image import Image

            images = Image.load(Path(images), self.cores).cores
        result = simulate_amaranth(
            self.cores,
            images,
            self.frames,
            idle=self.idle,
            stall=self.stall,
            seed=self.seed,
            resets=self.resets,
            quiet=self.quiet,
            progress=self.progress,
            graph=self.graph,
        )
        return result.first(self.asked, dict(zip(result.outputs, self.names, strict=True)))

    def icarus(self, design: Design) -> SimResult:
        from sim.backends.icarus import run_icarus

        payloads = pack_frames(self.frames, design.form, self.vector)
        rows = self.specs[-1].rows
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
            name: unpack_frames(link.payloads, tap.out, tap.frames, tap.rows)
            for name, link, tap in zip(self.links, links, self.taps, strict=True)
        }
        last = int(o.cycles[-1]) + 1
        runs = [(i.cycles[:: design.n], o.cycles[rows - 1 :: rows], last)]
        return self.assemble("icarus", deal(outputs, self.batch), runs)

    def compiled(self, design: Design) -> SimResult:
        from sim.backends.compiled import run_compiled

        payloads = pack_words(self.frames, design.form, self.vector)
        # Several models are worth it where each has enough frames to settle and to be useful.
        batches = len(payloads) // design.n
        threads = (
            1
            if self.graph or self.whole or self.resets or self.idle.steps or self.stall.steps
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
            outputs = {n: unpack_words(w, tap.out, tap.frames, tap.rows) for n, w, tap in parts}
            found.append(deal(outputs, self.batch))
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
