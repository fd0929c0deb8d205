"""What the command line shows: steps, progress, one JSON object, one error line."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from pvq_hw.cli.streams import StreamError, complain, printable, silence, write_line
from pvq_hw.progress import Steps

__all__ = ["Ui"]

_TOLD_FROM, _TOLD_AFTER = 0.05, 1.0  # part done and seconds from which a step's rest is told


class Ui(Steps):
    """Writes results to stdout and everything else to stderr.

    Parameters
    ----------
    as_json : bool
        Stdout gets one JSON object at the end and nothing else.
    quiet : bool
        No steps and no progress.

    Attributes
    ----------
    seconds : dict
        How long each step took, by its title.
    document : dict
        What `result` was given.
    complaint : str
        What `error` said.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.seconds: dict[str, float] = {}
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._line_open = False
        self._last_draw = 0.0
        self._last_said = ""
        self._begun = time.monotonic()
        self.document: dict[str, Any] = {}
        self.complaint = ""

    def say(self, text: str = "") -> None:
        """A line of result for people; not printed with ``--json``."""
        if not self.as_json:
            self._close_line()
            write_line(printable(text))

    def note(self, text: str) -> None:
        """A line on stderr: what is going on."""
        if not self.quiet:
            self._close_line()
            _tell(printable(text) + "\n")

    def progress(self, done: float, total: float, what: str = "") -> None:
        """Draws progress in place on a terminal, and a line each quarter elsewhere; with the time
        that the step will go on, if the rest takes as long as what is done."""
        if self.quiet:
            return
        share = min(1.0, done / total) if total else 1.0
        what = printable(what).replace("\n", " ")
        if not self._terminal:
            said = f"{what} {int(share * 4) * 25} %"
            if said != self._last_said:
                self._last_said = said
                _tell(f"    {said}{self._left(share)}\n")
            return
        now = time.monotonic()
        if share < 1 and now - self._last_draw < 0.1:
            return
        self._last_draw = now
        bar = "#" * int(share * 24)
        text = what[:40] + self._left(share)
        _tell(f"\r    [{bar:<24}] {share:4.0%} {text:<64}")
        self._line_open = True

    def _left(self, share: float) -> str:
        """What a step that has come so far will still take."""
        spent = time.monotonic() - self._begun
        if not _TOLD_FROM <= share < 1 or spent < _TOLD_AFTER:
            return ""
        left = spent * (1 - share) / share
        return f", about {left:.0f} s more" if left < 120 else f", about {left / 60:.0f} min more"

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announces a step and, when it is done, its time; kept in ``seconds``."""
        if not self.quiet:
            self._close_line()
            _tell(f"==> {printable(title)}\n")
        started = self._begun = time.monotonic()
        try:
            yield
        finally:
            self._close_line()
            self.seconds[title] = self.seconds.get(title, 0.0) + time.monotonic() - started
        if not self.quiet:
            _tell(f"    {self.seconds[title]:.1f} s\n")

    def result(self, document: dict[str, Any]) -> None:
        """Keeps the verb's JSON object, and prints it when asked for."""
        self.document = document
        if self.as_json:
            write_line(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True))

    def error(self, text: str, exit_code: int) -> int:
        """One line on stderr; with ``--json`` also an object with ``error``. Gives the status."""
        self._close_line()
        self.complaint = printable(" ".join(text.split()))
        complain(text)
        if self.as_json:
            try:
                write_line(json.dumps({"error": self.complaint, "exit_code": exit_code}))
            except StreamError:
                silence()
        return exit_code

    def _close_line(self) -> None:
        if self._line_open:
            _tell("\r" + " " * 78 + "\r")
            self._line_open = False


def _tell(text: str) -> None:
    """Text on stderr; work goes on where nobody can hear of it."""
    with contextlib.suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)
