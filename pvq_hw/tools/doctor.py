"""What is here, what is missing, and the command that mends it."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pvq_hw.tools import find as tools
from pvq_hw.tools import yowasp

__all__ = ["Check", "doctor", "exit_code", "render", "to_json"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Parameters
    ----------
    group : str
        ``python``, ``package``, ``tool``, ``cache``, ``disk``, ``serial`` or ``verb``.
    name : str
    ok : bool
    detail : str
        Version and place; for a verb, what it lacks.
    remedy : str
        The command that mends it; empty where nothing needs mending.
    needed_by : tuple of str
        The verbs that don't work without it.
    """

    group: str
    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed_by: tuple[str, ...] = ()


_COMPILER = ("compile", "layer", "simulate", "build", "verify", "report", "run")
# Distribution, what mends it, the verbs that need it.
PACKAGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("numpy", "pip install pvq-hw", _COMPILER),
    ("onnx", "pip install pvq-hw", ("compile",)),
    ("amaranth", "pip install pvq-hw", _COMPILER),
    ("cocotb", "pip install 'pvq-hw[sim]'", ("simulate --simulator icarus",)),
    ("pyserial", "pip install pvq-hw", ("run",)),
)
_TOOL_VERBS: dict[str, tuple[str, ...]] = {
    "yosys": ("compile", "layer", "simulate --simulator icarus", "build"),
    "nextpnr-ice40": ("build",),
    "nextpnr-ecp5": ("build",),
    "icepack": ("build",),
    "ecppack": ("build",),
    "iverilog": ("simulate --simulator icarus",),
    "vvp": ("simulate --simulator icarus",),
    "g++": ("simulate --simulator compiled",),
}
_DISK_MB = 1000  # the tools' compiled code takes 250 MB, a build of network A about 300 MB


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        "python",
        "python",
        ok,
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{sys.executable}",
        "" if ok else "install Python 3.11 or newer",
        () if ok else _COMPILER,
    )


def _package(name: str, mend: str, verbs: tuple[str, ...]) -> Check:
    try:
        return Check("package", name, True, importlib.metadata.version(name), "", verbs)
    except importlib.metadata.PackageNotFoundError:
        return Check("package", name, False, "missing", mend, verbs)


def _tool(name: str) -> Check:
    verbs = _TOOL_VERBS.get(name, ())
    try:
        tool = tools.find_tool(name)
    except tools.ToolError as error:
        return Check("tool", name, False, str(error), tools.remedy(name), verbs)
    detail = f"{tool.version or 'version not told'}, {tool.source}: {tool.path}"
    return Check("tool", name, True, f"{tools.TOOLS[name].purpose}: {detail}", "", verbs)


def _cache() -> Check:
    folder = yowasp.cache_folder()
    cold = tools.cold_tools(name for name in tools.TOOLS if name in yowasp.MODULES)
    if not cold:
        return Check("cache", "compiled tools", True, f"warm: {folder}")
    low, high = (sum(yowasp.MODULES[name].seconds[i] for name in cold) for i in (0, 1))
    return Check(
        "cache",
        "compiled tools",
        True,
        f"cold in {folder}: the first use compiles {', '.join(cold)} for {low} to {high} s",
    )


def _disk(folder: Path) -> Check:
    place = folder
    while not place.is_dir() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free // 10**6
    ok = free >= _DISK_MB
    mend = "" if ok else f"free {_DISK_MB} MB on the disk of {folder}"
    return Check("disk", str(folder), ok, f"{free} MB free", mend, () if ok else ("build",))


def _serial() -> Check:
    try:
        from serial.tools import list_ports

        ports = sorted(f"{port.device} ({port.description})" for port in list_ports.comports())
    except ImportError:
        mend = "pip install pvq-hw"
        return Check("serial", "ports", False, "pyserial is missing", mend, ("run",))
    detail = ", ".join(ports) or "none: no board is plugged in"
    return Check("serial", "ports", True, detail, "", ("run",))


def _verbs(checks: Iterable[Check]) -> list[Check]:
    lacking: dict[str, list[Check]] = {}
    for check in checks:
        for verb in check.needed_by:
            lacking.setdefault(verb, [])
            if not check.ok:
                lacking[verb].append(check)
    return [
        Check(
            "verb",
            verb,
            not missing,
            "works" if not missing else f"needs {', '.join(c.name for c in missing)}",
            "; ".join(dict.fromkeys(c.remedy for c in missing)),
        )
        for verb, missing in sorted(lacking.items())
    ]


def doctor(folder: Path | None = None) -> list[Check]:
    """Looks at Python, packages, tools, cache, disk and ports, then says which verbs work.

    Parameters
    ----------
    folder : Path, optional
        Where output will go; the current folder by default.

    Takes about a second; starts no YoWASP tool, since its first start may take minutes.
    """
    checks = [_python()]
    checks += [_package(*entry) for entry in PACKAGES]
    checks += [_tool(name) for name in tools.TOOLS]
    checks += [_cache(), _disk(folder or Path.cwd()), _disk(yowasp.cache_folder()), _serial()]
    return checks + _verbs(checks)


def exit_code(checks: Iterable[Check]) -> int:
    """0 when `compile` works, else 2."""
    return 0 if all(c.ok for c in checks if c.group == "verb" and c.name == "compile") else 2


def to_json(checks: Iterable[Check]) -> dict[str, Any]:
    """The checks as JSON values: ``ok`` and ``checks``."""
    listed = list(checks)
    return {"ok": exit_code(listed) == 0, "checks": [asdict(check) for check in listed]}


def render(checks: Iterable[Check], write: Callable[[str], None] = print) -> None:
    """Writes the report as text, a group at a time."""
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            write(f"{group}:")
        write(f"  {'ok ' if check.ok else 'NO '} {check.name:<28} {check.detail}")
        if check.remedy:
            write(f"      mend it with: {check.remedy}")
