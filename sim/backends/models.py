"""Compiled models of Verilog: built once per source, kept in a cache folder."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pvq_hw.errors import ToolError
from pvq_hw.tools.find import find_tool
from pvq_hw.tools.process import run_command

__all__ = ["cache_folder", "cached", "compile_cpp", "digest"]

_KEEP = 24  # models kept, the latest used; each takes about a megabyte
_AGE = 24 * 3600  # seconds for which a model is kept in any case: it may be running


def cache_folder() -> Path:
    """Where built models are kept: ``PVQ_HW_CACHE``, else the user's cache folder."""
    if folder := os.environ.get("PVQ_HW_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pvq-hw"


def digest(*parts: bytes) -> str:
    """Name for what was made from the parts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:32]


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` filled for ``key``; made now unless it is there.

    A folder appears whole or not at all, also when two processes make it at the same time.
    """
    root = cache_folder()
    folder = root / key
    try:
        if not folder.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=root) as name:
                work = Path(name) / "model"
                work.mkdir()
                make(work)
                try:
                    work.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else someone was faster
                        raise
            _prune(root)
        os.utime(folder)
    except OSError as error:
        remedy = "set PVQ_HW_CACHE to another folder"
        raise ToolError(f"Cache folder {root} can't be written ({error}); {remedy}") from None
    return folder


def _prune(root: Path) -> None:
    """Removes the models that were used longest ago."""
    found = sorted((f.stat().st_mtime, f) for f in root.iterdir() if f.is_dir())
    for used, folder in found[:-_KEEP]:
        if time.time() - used > _AGE:
            shutil.rmtree(folder, ignore_errors=True)


def compile_cpp(folder: Path, arguments: list[str]) -> None:
    """Runs the C++ compiler; ToolError where there is none."""
    known = (os.environ.get("CXX"), "g++", "c++", "clang++")
    found = next(filter(None, (shutil.which(name) for name in known if name)), None)
    compiler = found or find_tool("g++").command[0]
    run_command([compiler, *arguments], name="The C++ compiler", folder=folder)
