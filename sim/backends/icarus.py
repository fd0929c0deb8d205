"""The exported Verilog on Icarus Verilog, with cocotb testbenches (`sim.backends.cocotb_tests`)."""

import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.errors import ToolError
from pvq_hw.tools.find import find_tool
from pvq_hw.tools.process import python_module, run_command
from sim.agents.streams import StreamError
from sim.backends.design import Design

__all__ = ["Recorded", "check_tools", "run_icarus"]

_PROGRESS = re.compile(r"pvq-hw frames done: (\d+)")


@dataclass(frozen=True, eq=False)
class Recorded:
    """Payloads of one stream and the cycles, counted from the reset's end, of their transfers."""

    payloads: list[int]
    cycles: npt.NDArray[np.int64]


def check_tools() -> None:
    """Raises one ToolError unless cocotb and Icarus Verilog are there."""
    if importlib.util.find_spec("cocotb_tools") is None:
        raise ToolError("cocotb is missing: pip install 'pvq-hw[sim]'")
    for name in ("iverilog", "vvp"):
        find_tool(name)


def run_icarus(
    design: Design,
    payloads: Iterable[int],
    outputs: int,
    *,
    idle: Pattern = NONE,
    stall: Pattern = NONE,
    seed: int = 0,
    after_valid: bool = False,
    resets: Iterable[int] = (),
    quiet: int = 100_000,
    timeout: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Recorded]:
    """Streams payloads through a design until it gave ``outputs`` payloads.

    Parameters
    ----------
    design : Design
    payloads : iterable of int
        Bit patterns for ``i``.
    outputs : int
    idle, stall, seed, after_valid
        Pauses of the source and the sink; see `sim.agents.streams`.
    resets : iterable of int
        Cycles that end with a reset, after which everything starts again.
    quiet : int
        Cycles without a transfer that the watchdog takes for a lost handshake.
    timeout : float, optional
        Seconds.
    progress : callable, optional
        Is told the frames done.

    Returns
    -------
    list of Recorded
        Streams ``i``, ``o`` and then the design's links, in order.

    Raises
    ------
    ToolError
        cocotb or Icarus is missing or fails.
    StreamError
        A stream broke its protocol or stood still.
    """
    check_tools()
    with tempfile.TemporaryDirectory(prefix="pvq-hw-") as name:
        folder = Path(name)
        for memory in design.memories:
            shutil.copy(memory, folder / memory.name)
        words = [f"{payload:x}" for payload in payloads]
        np.save(folder / "payloads.npy", np.array(words, dtype=np.str_))
        job = {
            "top": design.top,
            "sources": [str(source.resolve()) for source in design.sources],
            "links": [link.to_json() for link in design.links],
            "loads": design.loads,
            "outputs": outputs,
            "rows": design.output.transfers,
            "idle": str(idle),
            "stall": str(stall),
            "seed": seed,
            "after_valid": after_valid,
            "resets": sorted(resets),
            "quiet": quiet,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        return _run(folder, len(design.links), timeout, progress)


def _reason(folder: Path) -> str:
    """What cocotb wrote about a testbench that failed."""
    try:
        failure = ElementTree.parse(folder / "results.xml").find(".//failure")
    except (OSError, ElementTree.ParseError):
        failure = None
    return "it told no reason" if failure is None else failure.get("message", "")


def _run(
    folder: Path,
    links: int,
    timeout: float | None,
    progress: Callable[[int], None] | None,
) -> list[Recorded]:
    command, environment = python_module("sim.backends.cocotb_tests", "job.json")

    def line(text: str) -> None:
        if progress is not None and (done := _PROGRESS.search(text)):
            progress(int(done[1]))

    try:
        run_command(
            command,
            name="Icarus Verilog with cocotb",
            folder=folder,
            timeout=timeout,
            on_line=line,
            env=environment,
        )
    except ToolError:
        if not (folder / "error.txt").exists():
            raise
    if (folder / "error.txt").exists():
        raise StreamError((folder / "error.txt").read_text(encoding="utf-8"))
    if not (folder / "results.npz").exists():
        raise ToolError(f"Icarus Verilog with cocotb gave no results: {_reason(folder)}")
    with np.load(folder / "results.npz", allow_pickle=False) as found:
        return [
            Recorded(
                [int(word, 16) for word in found[f"payloads_{index}"].tolist()],
                found[f"at_{index}"],
            )
            for index in range(links + 2)
        ]
