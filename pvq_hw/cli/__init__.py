"""The command ``pvq-hw``: one verb per step, each on one output folder."""

import argparse
import contextlib
import gc
import math
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from pvq_hw import __version__
from pvq_hw.cli import verbs
from pvq_hw.cli.completion import complete
from pvq_hw.cli.streams import StreamError, complain, open_streams, silence
from pvq_hw.cli.ui import Ui

__all__ = ["build_parser", "main"]

_EPILOG = """\
exit status: 0 done and right; 1 a check failed (mismatch, accuracy, timing, verify);
2 the input or the environment is at fault. `pvq-hw VERB --help` explains a verb.
"""


_INTEGERS = 1 << 63
_LEAST, _MOST = 1e-30, 1e30


def _integer(text: str) -> int:
    if len(text) > 20 or not -_INTEGERS < int(text) < _INTEGERS:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isfinite(value) and value != 0 and not _LEAST <= abs(value) <= _MOST:
        raise ValueError(text)
    return value


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does.

    Options that are integers or floats take only numbers that all later arithmetic can hold.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, kind in (("int", _integer), ("float", _number)):
            kind.__name__ = name  # as messages call it
            self.register("type", {"int": int, "float": float}[name], kind)

    def error(self, message: str) -> NoReturn:
        if len(message) > 300:
            message = f"{message[:300]}..."
        complain(f"{message} (see {self.prog} --help)")
        sys.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        try:
            print(message or "", end="", file=file or sys.stderr, flush=True)
        except OSError as error:
            silence()
            complain(f"Standard output can't be written: {error.strerror}")
            sys.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; imports nothing heavy."""
    parser = _Parser(
        prog="pvq-hw",
        description="Turns a trained network into a verified FPGA accelerator, with open tools.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pvq-hw {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs.add_verbs(subparsers)
    return parser


@contextlib.contextmanager
def _no_remains() -> Iterator[None]:
    """Frees what a verb that ends early held. Amaranth warns of circuits that nothing has used,
    which is no news then.

    What was there before the verb, all modules for a start, is left alone: looking through it takes
    a tenth of a second in a process of some size.
    """
    gc.freeze()
    try:
        yield
    except BaseException as error:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chain: BaseException | None = error
            while chain is not None:
                traceback.clear_frames(chain.__traceback__)
                chain = chain.__context__
            gc.collect()
        raise
    finally:
        gc.unfreeze()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns its exit status and never shows a traceback for an expected fault."""
    open_streams()
    parser = build_parser()
    complete(parser)
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(argv)
    ui = Ui(as_json=args.json, quiet=args.quiet)
    if args.junit is None:
        return _run(args, ui)
    from pvq_hw.cli.junit import write_junit
    from pvq_hw.errors import InputError
    from pvq_hw.files import check_writable

    begun = time.monotonic()
    try:
        check_writable(args.junit)
        status = _run(args, ui)
        subject = str(next((getattr(args, n) for n in ("out", "model") if hasattr(args, n)), ""))
        seconds = time.monotonic() - begun
        write_junit(args.junit, args.verb, subject, status, seconds, ui.document, ui.complaint)
    except InputError as error:
        return ui.error(str(error), error.exit_code)
    return status


def _run(args: argparse.Namespace, ui: Ui) -> int:
    """One verb; every expected fault becomes one line and a status."""
    from pvq_hw.errors import PvqError
    from pvq_hw.tools.process import sigterm_raises

    try:
        with sigterm_raises(), _no_remains():
            document, status = verbs.run_verb(args, ui)
        ui.result(document)
        return status
    except PvqError as error:
        return ui.error(str(error), error.exit_code)
    except KeyboardInterrupt as interrupt:
        return ui.error(str(interrupt) or "interrupted; earlier output is as it was", 130)
    except StreamError as error:
        silence()
        complain(f"Standard output can't be written: {error.reason}")
        return 2
    except MemoryError:
        text = "Memory is exhausted; use fewer calibration frames or a smaller model"
        return ui.error(text, 2)
    except ModuleNotFoundError as error:
        if (error.name or "pvq_hw").partition(".")[0] in ("pvq_hw", "gateware", "sim"):
            raise  # a fault of this program, not of the environment
        text = f"The Python package {error.name!r} is missing; pvq-hw doctor says what to do"
        return ui.error(text, 2)
    except OSError as error:
        name = f" {error.filename!r}" if error.filename is not None else ""
        return ui.error(f"{error.strerror or error}{name}", 2)
