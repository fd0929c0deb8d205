"""Single files that a verb writes where the user says: whole or not at all, and never into a pipe.

Folders are `pvq_hw.output.folder`'s affair.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pvq_hw.errors import InputError

__all__ = ["check_writable", "whole_file"]


def check_writable(path: Path) -> None:
    """Raises InputError unless a file can come to lie at ``path``.

    Asked before long work, so that its result has a place. Devices and pipes are refused: to open
    one may wait for ever, and `whole_file` would put a file where it is.
    """
    try:
        usable = path.parent.is_dir() and (path.is_file() or not path.exists())
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{str(path)[:60]} can't be written: {error.strerror}") from None
    if not usable:
        raise InputError(f"{path} must be a file in a folder that exists")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the path of a new file beside ``path``, of the same suffix; it takes the place of
    ``path`` when it is on the disk, or goes where the body raises.

    A symbolic link at ``path`` is replaced, not followed.

    Raises
    ------
    InputError
        A path that `check_writable` refuses, or what the disk refuses.
    """
    check_writable(path)
    new = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
