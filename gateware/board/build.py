"""Builds a bitstream: synthesis, place and route, packing, and what they report.

Amaranth writes the files and the commands (its `BuildPlan`); the commands run here one after
the other.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateware.board.carry_chains import shorten_file
from gateware.board.patch_bitstream import (
    pack_netlist,
    record_memories,
    replace_contents,
    replace_netlist,
)
from gateware.board.placement import floorplan, slowest_path
from gateware.device.rtlil_text import plain_names
from pvq_hw.errors import CheckError, InputError, ToolError
from pvq_hw.output.build_record import NETLIST, load_build, write_build
from pvq_hw.output.verify_bitstream import MEMORIES
from pvq_hw.tools import find as tools
from pvq_hw.tools.process import StoppedError

__all__ = ["Attempt", "BuildReport", "UnmetError", "build", "design_text", "rebuild"]

_NAME = "top"
_DESIGN = "top.il"
_NETLIST = "top.json"
_NO_PLACE = "Unable to find legal placement"  # nextpnr's words
_PLACED = "nextpnr.json"
_ROUTED = "routed.json"
# Places that nextpnr's analytical placer tries for one cell before it gives the seed up. Its own
# limit is an eighth of the squared number of cells: a large design had no end after 20 minutes.
_MOST_TRIES = 1_000_000
_LOGS = {"yosys": "synthesis.log", "nextpnr": "place_route.log", "pack": "pack.log"}
# Written by the tools or by Amaranth and of no further use; the netlist, which may take 100 MB,
# stays packed.
_DROP = (_NETLIST, _ROUTED, "top.debug.v", "build_top.bat", "top.tim", "top.rpt", "top.svf")


class UnmetError(CheckError):
    """No seed meets the clock; ``fmax_mhz`` is what the best of them reached."""

    def __init__(self, text: str, fmax_mhz: float = 0.0) -> None:
        super().__init__(text)
        self.fmax_mhz = fmax_mhz


@dataclass(frozen=True)
class Attempt:
    """One run of place and route.

    Parameters
    ----------
    seed : int
    fmax_mhz : float
        Of the slowest clock that is constrained to the build's frequency.
    met : bool
        Whether every clock meets its constraint.
    seconds : float
    """

    seed: int
    fmax_mhz: float
    met: bool
    seconds: float


@dataclass(frozen=True)
class BuildReport:
    """What a build made and how well.

    Parameters
    ----------
    bitstream : str
        File name within the build folder.
    clock_mhz, fmax_mhz : float
        The frequency asked for, and the highest that nextpnr vouches for.
    clocks : dict
        By clock net: ``fmax_mhz`` and ``constraint_mhz``.
    utilization : dict
        By resource, as nextpnr names them: ``used`` and ``available``.
    seconds : dict
        By step: ``warm_up``, ``synthesis``, ``place_route`` (all seeds), ``pack``.
    seed : int
        The one chosen.
    attempts : tuple of Attempt
        In the order in which they ran.
    tools : dict
        By tool: ``source`` and ``version``.
    slowest_path, floorplan : dict
        See `gateware.board.placement`.
    """

    bitstream: str
    clock_mhz: float
    fmax_mhz: float
    clocks: dict[str, dict[str, float]]
    utilization: dict[str, dict[str, int]]
    seconds: dict[str, float]
    seed: int
    attempts: tuple[Attempt, ...]
    tools: dict[str, dict[str, str]] = field(default_factory=dict)
    slowest_path: dict[str, Any] | None = None
    floorplan: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, times rounded to 10 ms."""
        return {
            "bitstream": self.bitstream,
            "clock_mhz": self.clock_mhz,
            "fmax_mhz": self.fmax_mhz,
            "clocks": self.clocks,
            "utilization": self.utilization,
            "seconds": {step: round(time, 2) for step, time in self.seconds.items()},
            "seed": self.seed,
            "seeds": [
                {"seed": a.seed, "fmax_mhz": a.fmax_mhz, "met": a.met, "seconds": a.seconds}
                for a in self.attempts
            ],
            "tools": self.tools,
            "slowest_path": self.slowest_path,
            "floorplan": self.floorplan,
        }


def _prepared(platform: Any, top: Any, **overrides: Any) -> Any:
    plan = platform.prepare(top, _NAME, emit_src=False, **overrides)
    plan.files[_DESIGN] = plain_names(plan.files[_DESIGN])
    return plan


def design_text(platform: Any, top: Any) -> str:
    """The RTLIL that `build` gives to synthesis; ``platform`` and ``top`` as it takes them."""
    text: str = _prepared(platform, top).files[_DESIGN]
    return text


def _commands(plan: Any) -> list[list[str]]:
    """The plan's commands: synthesis, place and route, pack; with their output not silenced."""
    script = json.loads(plan.files[f"build_{_NAME}.json"])
    return [
        [word for word in command if word not in ("-q", "--quiet")]
        for command in script["commands"]
    ]


def _give_up(netlist: Path) -> list[str]:
    """nextpnr's option for about `_MOST_TRIES`, which it divides the squared number of cells by."""
    cells = netlist.read_bytes().count(b'"type":')
    return ["--placer-heap-cell-placement-timeout", str(max(8, cells**2 // _MOST_TRIES))]


def _with_seed(command: Sequence[str], seed: int) -> list[str]:
    at = list(command).index("--seed")
    return [*command[: at + 1], str(seed), *command[at + 2 :]]


def _write_files(plan: Any, folder: Path) -> None:
    # BuildPlan.extract would change the working folder of the whole process.
    for name, content in plan.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def logs_kept(folder: Path, failed: Path) -> Iterator[None]:
    """After an error the logs lie in ``failed``, which the error's message names."""
    try:
        _forget_logs(failed)
        yield
    except (ToolError, CheckError) as error:
        failed.mkdir(parents=True, exist_ok=True)
        for log in sorted(folder.glob("*.log")):
            shutil.copyfile(log, failed / log.name)
        error.args = (str(error).replace(str(folder), str(failed)), *error.args[1:])
        raise
    except OSError as error:
        raise InputError(f"{folder} could not be written: {error.strerror or error}") from None


def _forget_logs(failed: Path) -> None:
    """Removes the logs of an earlier failure, and their folder where nothing else is in it."""
    if failed.is_dir():
        for name in _LOGS.values():
            (failed / name).unlink(missing_ok=True)
        with suppress(OSError):
            failed.rmdir()


def _check_synthesis(log: Path) -> None:
    """Refuses a netlist in which yosys met two drivers of one net.

    It then goes on with a constant: `synth_ice40 -dsp` does so to a multiplication followed by
    two registers, and only warns.
    """
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if re.search(r"warning.*conflict", line, re.IGNORECASE):
                raise CheckError(
                    f"Synthesis must give every net one driver, not several: {line.strip()[:200]}; "
                    f"see {log}"
                )


def check_constraints(log: Path) -> None:
    """Refuses a design in which nextpnr did not find a net that is constrained."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if "ignoring clock constraint" in line:
                raise CheckError(
                    f"Every constrained clock must be in the netlist: {line.strip()[:200]}; "
                    f"see {log}"
                )


def _clocks(placed: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        name.removeprefix("$glbnet$"): {
            "fmax_mhz": round(float(clock["achieved"]), 2),
            "constraint_mhz": round(float(clock["constraint"]), 2),
        }
        for name, clock in sorted(placed["fmax"].items())
    }


def judge(clocks: dict[str, dict[str, float]], clock_mhz: float) -> tuple[float, bool]:
    """Fmax of the clock at ``clock_mhz``, and whether all clocks meet their constraints."""
    # nextpnr rounds a constraint to whole picoseconds, a PLL its frequency to what it can make.
    main = [
        clock["fmax_mhz"]
        for clock in clocks.values()
        if 0.99 < clock["constraint_mhz"] / clock_mhz < 1.01
    ]
    if not main:
        listed = ", ".join(f"{name} at {c['constraint_mhz']}" for name, c in clocks.items())
        raise CheckError(
            f"A clock must be constrained to {clock_mhz:g} MHz, not {listed or 'none'}"
        )
    met = all(c["fmax_mhz"] >= c["constraint_mhz"] for c in clocks.values())
    return min(main), met and min(main) >= clock_mhz


class _UnplacedError(ToolError):
    """A seed's placement has cells without a legal place; another one's may not."""


class SeedSearch:
    """Place and route with several seeds, some at a time, each in a folder of its own.

    The result is that of one seed after the other: the first of them that meets the clock, however
    many run beside it. Those behind it are ended. A seed without a legal placement is passed over.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        clock_mhz: float,
        every_seed: bool,
        progress: Callable[[str], None],
    ) -> None:
        self._command, self._folder, self._clock_mhz = command, folder, clock_mhz
        self._every_seed, self._progress = every_seed, progress
        self._stops: dict[int, threading.Event] = {}
        self._files: dict[int, Path] = {}
        self.floorplan: dict[str, Any] = {}

    def run(self, seeds: Sequence[int], jobs: int) -> list[Attempt]:
        """The attempts in the order of ``seeds``; leaves the best one's files in the folder."""
        found: dict[int, Attempt] = {}
        unplaced: dict[int, ToolError] = {}
        inputs = [path for path in self._folder.iterdir() if path.is_file()]
        self._stops = {seed: threading.Event() for seed in seeds}  # in their order
        with ThreadPoolExecutor(min(jobs, len(seeds))) as pool:
            futures = {pool.submit(self._attempt, seed, inputs): seed for seed in seeds}
            try:
                for future in as_completed(futures):
                    with suppress(StoppedError):
                        try:
                            found[futures[future]] = future.result()
                        except _UnplacedError as error:
                            unplaced[futures[future]] = error
            finally:
                self._end(seeds)
        if not found:
            raise unplaced[min(unplaced)]
        attempts = [found[seed] for seed in seeds if seed in found]
        if not self._every_seed:
            met = next((i for i, a in enumerate(attempts) if a.met), len(attempts) - 1)
            attempts = attempts[: met + 1]
        self._keep(max(attempts, key=_merit).seed)
        return attempts

    def _end(self, seeds: Iterable[int]) -> None:
        for seed in seeds:
            self._stops[seed].set()

    def _attempt(self, seed: int, inputs: Iterable[Path]) -> Attempt:
        if self._stops[seed].is_set():
            raise StoppedError
        self._progress(f"Place and route, seed {seed}")
        self._files[seed] = folder = self._folder / f"seed_{seed}"
        folder.mkdir()
        for path in inputs:
            _link(path, folder / path.name)
        log = folder / _LOGS["nextpnr"]
        name, *rest = self._command
        try:
            seconds = tools.run(
                name, _with_seed(rest, seed), folder=folder, log=log, stop=self._stops[seed]
            )
            check_constraints(log)
        except (ToolError, CheckError) as error:
            shutil.copyfile(log, self._folder / log.name)
            said = str(error).replace(str(folder), str(self._folder))
            if _NO_PLACE in said:
                self._progress(f"Place and route, seed {seed}: no legal placement")
                raise _UnplacedError(said) from error
            error.args = (said, *error.args[1:])
            raise
        placed = json.loads((folder / _PLACED).read_text())
        fmax, met = judge(_clocks(placed), self._clock_mhz)
        self._progress(f"Place and route, seed {seed}: {fmax:g} MHz of {self._clock_mhz:g} MHz")
        if met and not self._every_seed:
            order = list(self._stops)
            self._end(order[order.index(seed) + 1 :])
        return Attempt(seed, fmax, met, round(seconds, 2))

    def _keep(self, best: int) -> None:
        folder = self._files[best]
        record_memories(folder / _DESIGN, folder / _ROUTED, folder / MEMORIES)
        self.floorplan = floorplan(folder / _ROUTED)
        for name in (_LOGS["nextpnr"], _PLACED, MEMORIES, "top.asc", "top.config"):
            if (folder / name).exists():
                os.replace(folder / name, self._folder / name)
        for folder in self._files.values():
            shutil.rmtree(folder)


def _merit(attempt: Attempt) -> tuple[bool, float]:
    return attempt.met, attempt.fmax_mhz


def _link(source: Path, target: Path) -> None:
    """The file under another name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def build(
    top: Any,
    platform: Any,
    folder: Path,
    *,
    clock_mhz: float,
    seeds: Sequence[int] = (1, 2, 3),
    every_seed: bool = False,
    jobs: int = 1,
    failed: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    nextpnr_opts: str = "",
    **overrides: Any,
) -> BuildReport:
    """Builds ``top`` for ``platform`` into ``folder``.

    The same design, tool versions and seeds give the same bitstream byte for byte.

    Parameters
    ----------
    top : Elaboratable
        The design, not yet elaborated.
    platform : amaranth.build.Platform
        A fresh one: a platform prepares one design.
    folder : Path
        New or empty; the caller puts it in its place when all is well. Gets the bitstream,
        ``nextpnr.json``, the logs, the placed design as text (``top.asc`` or ``top.config``),
        and ``build.json``: the report, and the hash of each of these files.
    clock_mhz : float
        Frequency that the design's main clock is constrained to and must reach.
    seeds : sequence of int
        nextpnr's seeds, tried in this order until one meets the clock.
    every_seed : bool
        Runs them all and keeps the fastest.
    jobs : int
        Seeds at a time. The result does not depend on it.
    failed : Path
        Where the logs of a failed build are kept; ``FOLDER.failed`` by default. Earlier logs
        there are removed first.
    about : mapping, optional
        Further JSON values for ``build.json``: what the design was made from.
    progress : function of str
        Is told each step as it starts.
    nextpnr_opts : str
        Further options of nextpnr.
    overrides
        Further overrides of the platform's templates (``synth_opts``, ...).

    Raises
    ------
    CheckError
        No seed meets the clock (`UnmetError`), synthesis found conflicting drivers, or a clock's
        constraint names no net.
    ToolError
        A tool is missing or fails; the message names the log.
    InputError
        ``folder`` cannot be written.
    """
    if not seeds:
        raise InputError("Place and route must have at least one seed")
    options = (
        f"--report {_PLACED} --write {_ROUTED} --seed {seeds[0]} --timing-allow-fail {nextpnr_opts}"
    ).strip()
    plan = _prepared(platform, top, nextpnr_opts=options, **overrides)
    synthesis, place, pack = commands = _commands(plan)
    used = {command[0]: tools.find_tool(command[0]) for command in commands}
    seconds = {"warm_up": tools.warm_up(used, progress)}
    failed = failed or folder.with_name(folder.name + ".failed")
    with logs_kept(folder, failed):
        _prepare_folder(folder)
        _write_files(plan, folder)
        log = folder / _LOGS["yosys"]
        progress("Synthesis")
        seconds["synthesis"] = tools.run(synthesis[0], synthesis[1:], folder=folder, log=log)
        _check_synthesis(log)
        if place[0] == "nextpnr-ecp5":
            shorten_file(folder / _NETLIST)
        limit = [] if "--placer-heap-cell" in nextpnr_opts else _give_up(folder / _NETLIST)
        runs = SeedSearch([*place, *limit], folder, clock_mhz, every_seed, progress)
        attempts = runs.run(seeds, jobs)
        seconds["place_route"] = sum(attempt.seconds for attempt in attempts)
        best = max(attempts, key=_merit)
        if not best.met:
            _refuse(folder, clock_mhz, attempts)
        progress("Bitstream")
        seconds["pack"] = tools.run(pack[0], pack[1:], folder=folder, log=folder / _LOGS["pack"])
        placed = json.loads((folder / _PLACED).read_text())
        report = BuildReport(
            bitstream=next(word for word in pack if word.endswith((".bin", ".bit"))),
            clock_mhz=clock_mhz,
            fmax_mhz=best.fmax_mhz,
            clocks=_clocks(placed),
            utilization=dict(sorted(placed["utilization"].items())),
            seconds=seconds,
            seed=best.seed,
            attempts=tuple(attempts),
            tools={name: {"source": t.source, "version": t.version} for name, t in used.items()},
            slowest_path=slowest_path(placed),
            floorplan=runs.floorplan,
        )
        pack_netlist(json.loads((folder / _NETLIST).read_bytes()), folder / NETLIST)
        for name in _DROP:
            (folder / name).unlink(missing_ok=True)
        write_build(folder, report.to_json() | dict(about or {}))
    return report


def rebuild(
    top: Any,
    platform: Any,
    built: Path,
    folder: Path,
    *,
    failed: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    **overrides: Any,
) -> None:
    """Builds ``top`` by new block RAM contents in the placed design of ``built``.

    For new weights of the same specification: takes packing, no synthesis, no place and route.
    The bitstream is the one that `build` gives with ``built``'s seed, and its timing is
    ``built``'s.

    Parameters
    ----------
    top, platform, overrides
        As for `build`.
    built : Path
        Folder that `build` filled.
    folder : Path
        New or empty; gets the bitstream, and what else is in ``built``.
    failed, about, progress
        As for `build`.

    Raises
    ------
    CheckError
        The design differs from ``built``'s in more than the contents of block RAMs.
    """
    plan = _prepared(platform, top, **overrides)
    pack = _commands(plan)[-1]
    tools.warm_up((pack[0],), progress)
    report = load_build(built)
    with logs_kept(folder, failed or folder.with_name(folder.name + ".failed")):
        _prepare_folder(folder)
        for name in report["files"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built / name, folder / name)
        (folder / _DESIGN).write_text(plan.files[_DESIGN], encoding="utf-8", newline="\n")
        replace_contents(built, plan.files[_DESIGN], folder, progress)
        replace_netlist(folder / NETLIST, plan.files[_DESIGN])
        progress("Bitstream")
        tools.run(pack[0], pack[1:], folder=folder, log=folder / _LOGS["pack"])
        write_build(folder, report | dict(about or {}))


def _prepare_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder} must be empty")


def _refuse(folder: Path, clock_mhz: float, attempts: Sequence[Attempt]) -> None:
    reached = ", ".join(f"seed {a.seed}: {a.fmax_mhz:g}" for a in attempts)
    slow = ", ".join(
        f"{name} {c['fmax_mhz']:g} of {c['constraint_mhz']:g} MHz"
        for name, c in _clocks(json.loads((folder / _PLACED).read_text())).items()
        if c["fmax_mhz"] < c["constraint_mhz"]
    )
    raise UnmetError(
        f"The clock of {clock_mhz:g} MHz is not met: place and route reached {reached} MHz "
        f"({slow}); choose a lower clock or fewer lanes; see {folder / _LOGS['nextpnr']}",
        max(a.fmax_mhz for a in attempts),
    )
