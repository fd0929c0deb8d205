"""Standard output and error as they are given: closed, full, of any encoding."""

import contextlib
import io
import os
import sys

__all__ = ["StreamError", "complain", "open_streams", "printable", "silence", "write_line"]


class StreamError(Exception):
    """Standard output can't be written.

    Parameters
    ----------
    reason : str
        As the system says it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def open_streams() -> None:
    """Makes standard streams that are closed lead nowhere, and lets both show any text.

    A closed one is opened, so that no file that is opened later takes its number and gets what
    children write. What an encoding lacks is shown as an escape.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Text without what a terminal obeys instead of showing it: control and format characters,
    such as U+202E, which turns what follows around, stand as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def write_line(text: str) -> None:
    """A line on standard output; raises StreamError where it can't be written."""
    try:
        print(text, flush=True)
    except OSError as error:
        raise StreamError(error.strerror or str(error)) from None


def complain(text: str) -> None:
    """The one line on standard error that says what is wrong, where anybody listens."""
    line = printable(" ".join(text.split()))
    with contextlib.suppress(OSError):
        print(f"pvq-hw: {line}", file=sys.stderr, flush=True)


def silence() -> None:
    """Lets standard output lead nowhere: what is left of it would fail again at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
