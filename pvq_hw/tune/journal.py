"""The journal of a search: every finished trial, a line each, so that nothing is tried twice."""

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, TypedDict

from filelock import FileLock, Timeout

from pvq_hw.documents import OPEN, Format, Place, read, read_json
from pvq_hw.errors import InputError
from pvq_hw.output.folder import OutputFolder
from pvq_hw.tune.finalists import FINALIST
from pvq_hw.tune.trial import Job, Outcome

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "trials.jsonl"
_LOCK = ".lock"
_ENTRIES = frozenset((JOURNAL, "trials.json", "config.toml", "report.html"))
_FINALISTS = "finalists"  # a folder of outputs
FORMAT = Format("a journal of pvq-hw tune", "pvq-hw tune journal", 2, 1 << 28)


class _Nothing(TypedDict):
    """The header has no more."""


class JobKey(TypedDict):
    """What is read of a job's key; its text tells it from all others."""

    planned: bool


class TriedLine(TypedDict):
    """What came out of a job."""

    job: Annotated[JobKey, OPEN]
    outcome: dict[str, Any]


class BuiltLine(TypedDict):
    """What place and route made of a finalist."""

    built: str
    result: Annotated[dict[str, Any], FINALIST]


class Journal:
    """Outcomes by job, on disk as soon as they are known.

    A search asks for the same trials in the same order whenever it runs with the same options:
    one that goes on takes the outcomes it finds here instead of working them out again. A last
    line that was cut off by a kill is dropped.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    resume : bool
        Whether to take over what the folder's journal holds.

    Raises
    ------
    InputError
        The journal is broken, in use, or unfinished while ``resume`` is not asked for.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self.path = folder / JOURNAL
        self._known: dict[str, Outcome] = {}
        self._built: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(folder / _LOCK, blocking=False)
        try:
            if folder.is_symlink() or self.path.is_symlink():
                raise InputError(f"{folder} must be a folder, not a symbolic link")
            folder.mkdir(parents=True, exist_ok=True)
            strange = set(os.listdir(folder)) - _ENTRIES - {_FINALISTS, _LOCK}
            if strange and not self.path.exists():
                raise InputError(f"{folder} must be empty or a folder of pvq-hw tune")
            self._file = self.path.open("a+", encoding="utf-8", newline="\n")
        except OSError as error:
            raise InputError(f"{folder} can't be written into: {error.strerror}") from None
        try:
            self._acquire()
            self._start(folder, resume)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._lock.release()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, job: Job) -> Outcome | None:
        """The outcome of a job, where it is known."""
        return self._known.get(job.key)

    def add(self, job: Job, outcome: Outcome) -> None:
        """Keeps an outcome."""
        self._known[job.key] = outcome
        self._write({"job": json.loads(job.key), "outcome": outcome.to_json()})

    def built(self, key: str) -> dict[str, Any] | None:
        """What place and route made of a finalist, where it is known."""
        return self._built.get(key)

    def add_built(self, key: str, result: dict[str, Any]) -> None:
        """Keeps what place and route made of a finalist."""
        self._built[key] = result
        self._write({"built": key, "result": result})

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(f"{self.path} is in use by another search") from None

    def _start(self, folder: Path, resume: bool) -> None:
        self._file.seek(0)
        try:
            text = self._file.read(FORMAT.limit + 1)
        except UnicodeDecodeError:
            raise InputError(f"{self.path} must be UTF-8 text, but is damaged") from None
        if len(text) > FORMAT.limit:
            raise InputError(f"{self.path} must be at most {FORMAT.limit >> 20} MiB")
        if text and not resume and not (folder / "trials.json").exists():
            raise InputError(
                f"{folder} holds an unfinished search; go on with --resume or choose another one"
            )
        if not resume or not text:
            _check_finalists(folder / _FINALISTS)
            for name in _ENTRIES - {JOURNAL}:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / _FINALISTS, ignore_errors=True)
            self._file.truncate(0)
            self._write(FORMAT.header)
            return
        whole = text[: text.rfind("\n") + 1]
        self._read(whole)
        self._file.seek(0)
        self._file.truncate(len(whole.encode("utf-8")))
        (folder / "trials.json").unlink(missing_ok=True)  # unfinished again
        if not whole:
            self._write(FORMAT.header)

    def _read(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            place = Place(f"{self.path}, line {number}")
            value = read_json(line, place, FORMAT.what)
            if number == 1:
                read(_Nothing, FORMAT.check(value, place), place)
            elif isinstance(value, dict) and "built" in value:
                line_of = read(BuiltLine, value, place)
                self._built[line_of["built"]] = line_of["result"]
            else:
                tried = read(TriedLine, value, place)
                where = place.key("outcome")
                outcome = Outcome.from_json(tried["outcome"], where, tried["job"]["planned"])
                self._known[_line(tried["job"])] = outcome

    def _write(self, value: Any) -> None:
        self._file.write(_line(value) + "\n")
        self._file.flush()


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _check_finalists(folder: Path) -> None:
    """Raises InputError for a file among an earlier search's finalists that is not pvq-hw's."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        unfinished = path.name.startswith(".") and ".pvq-hw-" in path.name
        failed = path.name.endswith(".build-failed") and all(
            log.suffix == ".log" for log in path.rglob("*")
        )
        if not (unfinished or failed):
            OutputFolder(path).check_replaceable()
