"""The command line inside this process, and what a folder holds, for tests of the verbs."""

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pvq_hw.bundled
from pvq_hw.cli import main
from pvq_hw.documents import document_text
from pvq_hw.output.hashes import file_entries, sealed
from pvq_hw.output.manifest import covered_files

__all__ = [
    "BUNDLED", "MODEL", "ROOT", "VERBS", "Ran", "refused", "reseal", "run", "snapshot", "twin",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = Path(pvq_hw.bundled.__file__).parent
MODEL = BUNDLED / "digits_mlp_64_32_10.onnx"
VERBS = (
    "demo", "check", "compile", "tune", "finetune", "layer", "simulate", "build", "update",
    "load", "verify", "prove", "report", "export", "program", "run", "selftest", "boards", "data",
    "init", "doctor",
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What a verb gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON object and nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def complaint(self) -> str:
        """The one line of error on stderr, without its prefix."""
        lines = [line for line in self.err.splitlines() if line.startswith("pvq-hw: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert lines[0].isprintable()
        return lines[0].removeprefix("pvq-hw: ")


def run(*args: object) -> Ran:
    """Runs ``pvq-hw ARGS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too: its hash, or where a link points to."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            key = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            elif path.is_file():
                at = path.stat()
                found[key] = _hash(path, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
            else:
                found[key] = "folder"
    return found


@functools.lru_cache(4096)
def _hash(path: Path, *state: int) -> str:
    """A file's hash, taken again when anything of its state is another: its change time is set by
    every write, and nobody can set it back."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(folder: Path, text: str, *args: object, code: int = 2) -> str:
    """Runs a verb that must end with one line that contains ``text`` and leave ``folder`` alone."""
    before = snapshot(folder)
    ran = run(*args)
    assert ran.code == code, ran
    assert text in ran.complaint, ran.complaint
    assert ran.out == ""
    assert snapshot(folder) == before
    return ran.complaint


def twin(out: Path, place: Path) -> Path:
    """A copy of an output folder that a test may spoil."""
    shutil.copytree(out, place)
    return place


def reseal(out: Path) -> None:
    """Makes all hashes of an output's manifest right again, as someone with intent would."""
    document = json.loads((out / "manifest.json").read_text())
    document["files"] = file_entries(out, covered_files(out))
    text = document_text(sealed(document, "manifest_sha256"))
    (out / "manifest.json").write_text(text)
