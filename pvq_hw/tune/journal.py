"""The journal of a search: every finished trial, a line each, so that nothing is tried twice."""

import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from pvq_hw.errors import InputError
from pvq_hw.output.folder import OutputFolder
from pvq_hw.tune.finalists import is_built
from pvq_hw.tune.trial import Job, Outcome

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "trials.jsonl"
_LOCK = ".lock"
_ENTRIES = frozenset((JOURNAL, "trials.json", "config.toml", "report.html"))
_FINALISTS = "finalists"  # a folder of outputs
_HEADER = {"format": "pvq-hw tune journal", "format_version": 1}
_LIMIT = 1 << 28  # bytes


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
            raise InputError(f"{folder} must be a writable folder: {error.strerror}") from None
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
            raise InputError(f"{self.path} must not be in use by another search") from None

    def _start(self, folder: Path, resume: bool) -> None:
        self._file.seek(0)
        try:
            text = self._file.read(_LIMIT + 1)
        except UnicodeDecodeError:
            raise InputError(f"{self.path} must be UTF-8 text, but is damaged") from None
        if len(text) > _LIMIT:
            raise InputError(f"{self.path} must be at most {_LIMIT >> 20} MiB")
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
            self._write(_HEADER)
            return
        whole = text[: text.rfind("\n") + 1]
        self._read(whole)
        self._file.seek(0)
        self._file.truncate(len(whole.encode("utf-8")))
        (folder / "trials.json").unlink(missing_ok=True)  # unfinished again
        if not whole:
            self._write(_HEADER)

    def _read(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                value = json.loads(line)
                if number == 1:
                    good = value == _HEADER
                elif "built" in value:
                    result = dict(value["result"])
                    self._built[str(value["built"])] = result
                    good = is_built(result)
                else:
                    key = json.dumps(
                        value["job"], sort_keys=True, ensure_ascii=True, separators=(",", ":")
                    )
                    planned = bool(value["job"]["planned"])
                    self._known[key] = Outcome.from_json(value["outcome"], planned=planned)
                    good = True
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                good = False
            if not good:
                raise InputError(f"{self.path}, line {number}, must be of a journal of this format")

    def _write(self, value: Any) -> None:
        line = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        self._file.write(line + "\n")
        self._file.flush()


def _check_finalists(folder: Path) -> None:
    """Raises InputError for a file among an earlier search's finalists that is not pvq-hw's."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        unfinished = path.name.startswith(".") and ".pvq-hw-" in path.name
        failed = path.name.endswith(".build-failed") and all(
            log.suffix == ".log" for log in path.rglob("*")
        )
        if not (unfinished or failed):
            OutputFolder(path).check_replaceable()
