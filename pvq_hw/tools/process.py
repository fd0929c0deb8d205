"""Runs one external program: log, progress, time limit, and no process left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from pvq_hw.errors import ToolError

__all__ = ["StoppedError", "python_module", "run_command", "safe_environment", "sigterm_raises"]

_ROOT = Path(__file__).parents[2]

_GRACE = 2.0  # seconds between asking a process to end and ending it


def safe_environment() -> dict[str, str]:
    """Variables by which no new interpreter imports Python files of the folder that it runs in.

    ``PYTHONSAFEPATH`` keeps that folder off the path, and the parts of ``PYTHONPATH`` that mean it
    (empty ones) are left out. This project is found.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(_ROOT), *(os.path.abspath(path) for path in given if path)]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def python_module(name: str, *arguments: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Command and environment that run a module of this project in a new interpreter, which
    imports no Python files of the folder that it runs in; see `safe_environment`."""
    return (sys.executable, "-P", "-m", name, *arguments), safe_environment()


class StoppedError(Exception):
    """A program was ended because its result is not wanted any more."""


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the process and every process of its group, and waits for it."""
    group = hasattr(os, "killpg")
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM unwind the stack, so that tools end and unfinished files go with the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # someone else's handler: theirs to decide
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _later_signals() -> Iterator[None]:
    """Holds SIGINT and SIGTERM back until the end of the block.

    Between the start of a program and the return of `subprocess.Popen` there is nothing yet by
    which the program could be ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in caught:
            signal.raise_signal(held)


class _Output(threading.Thread):
    """Copies a program's output into its log, line by line, and keeps the last lines."""

    def __init__(
        self,
        stream: IO[bytes],
        log: IO[bytes] | None,
        on_line: Callable[[str], None] | None,
    ) -> None:
        super().__init__(daemon=True)
        self._stream, self._log, self._on_line = stream, log, on_line
        self.tail: deque[str] = deque(maxlen=200)
        self.error: Exception | None = None

    def run(self) -> None:
        # The pipe is read to its end whatever happens, so that the program never blocks on it.
        for raw in self._stream:
            line = raw.decode("utf-8", errors="replace").rstrip()
            self.tail.append(line)
            if self.error is None:
                try:
                    if self._log is not None:
                        self._log.write(raw)
                    if self._on_line is not None:
                        self._on_line(line)
                except Exception as error:
                    self.error = error

    def reason(self) -> str:
        """The line that most likely says why the program failed."""
        lines = [line for line in self.tail if line.strip()]
        for line in reversed(lines):
            if "ERROR" in line or line.lower().startswith(("error", "fatal")) or "error:" in line:
                return line.strip()[:300]
        return lines[-1].strip()[:300] if lines else "it printed nothing"


def run_command(
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    log: Path | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    env: Mapping[str, str] | None = None,
    hold_stdin: bool = False,
    check: bool = True,
) -> float:
    """Runs ``command`` in ``folder`` to its end.

    The program runs in a process group of its own, which is ended when this function is left by
    a signal, an interrupt, an exception of ``on_line`` or the time limit.

    Parameters
    ----------
    command : sequence of str
    name : str
        What error messages call the program.
    folder : Path
        Working folder. Arguments should be relative to it.
    log : Path, optional
        Receives standard output and error, replaced; relative to the current folder.
    timeout : float, optional
        Seconds.
    on_line : function of str, optional
        Is given every line of output, on a thread of its own.
    stop : threading.Event, optional
        Ends the program once it is set.
    env : mapping, optional
        Variables added to the environment.
    hold_stdin : bool
        Gives the program a pipe that closes when this process dies, instead of no input.
    check : bool
        Whether an exit code other than 0 is an error.

    Returns
    -------
    float
        Seconds taken.

    Raises
    ------
    ToolError
        The program cannot be started, fails, or takes longer than ``timeout``. One line, which
        names the log.
    StoppedError
        ``stop`` was set.
    """
    where = f"; see {log}" if log is not None else ""
    start = time.monotonic()
    process: subprocess.Popen[bytes] | None = None
    with contextlib.ExitStack() as stack:
        try:
            with sigterm_raises():
                with _later_signals():
                    process, file = _start(stack, command, name, folder, log, env, hold_stdin)
                assert process.stdout is not None
                output = _Output(process.stdout, file, on_line)
                output.start()
                _wait(process, output, timeout, stop)
        except subprocess.TimeoutExpired:
            if process is not None:
                _end(process)
            raise ToolError(f"{name} took longer than {timeout:g} s and was ended{where}") from None
        except BaseException:
            if process is not None:
                _end(process)
            raise
        output.join()
        if isinstance(output.error, OSError):
            raise ToolError(f"{name}: its log could not be written: {output.error}")
        if output.error is not None:
            raise output.error
        if check and process.returncode:
            code = process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ToolError(f"{name} failed with {how}: {output.reason()}{where}")
    return time.monotonic() - start


def _start(
    stack: contextlib.ExitStack,
    command: Sequence[str],
    name: str,
    folder: Path,
    log: Path | None,
    env: Mapping[str, str] | None,
    hold_stdin: bool,
) -> tuple["subprocess.Popen[bytes]", IO[bytes] | None]:
    """The program, started in a process group of its own, and its log."""
    try:
        file = stack.enter_context(log.open("wb")) if log is not None else None
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE if hold_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"{name} could not be started: {error}") from None
    return stack.enter_context(process), file


def _wait(
    process: "subprocess.Popen[bytes]",
    output: _Output,
    timeout: float | None,
    stop: threading.Event | None,
) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            process.wait(0.2)
            return
        except subprocess.TimeoutExpired:
            if output.error is not None:
                raise output.error from None
            if stop is not None and stop.is_set():
                raise StoppedError from None
            if deadline is not None and time.monotonic() > deadline:
                raise
