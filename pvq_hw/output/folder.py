"""The output folder: replaced as a whole or part by part, and never seen half written.

A writer holds a lock on a file beside the folder, writes into a new folder beside it, brings
that to the disk, and swaps the two by one rename. Whatever kills the process, the name holds the
earlier folder or the new one; what lies about is removed by the next writer. Where the system
cannot exchange two names at once (Linux can), the earlier folder is first moved aside, and a
process killed between the two renames is made good by `OutputFolder.recover`.
"""

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from pvq_hw.documents import OPEN, Format, load_json, read
from pvq_hw.errors import InputError
from pvq_hw.output.build_record import BUILD, built_files
from pvq_hw.output.exchange import exchange

try:
    import fcntl
except ImportError:  # pragma: no cover  no POSIX: a second writer is then not noticed
    fcntl = None  # type: ignore[assignment]

__all__ = ["MANIFEST", "OPTIONS", "OUTPUT_ENTRIES", "OUTPUT_FORMAT", "OutputFolder", "check_tree"]

MANIFEST = "manifest.json"
OPTIONS = "options.toml"
OUTPUT_FORMAT = "pvq-hw output"

OUTPUT_ENTRIES = frozenset(
    (
        MANIFEST,
        OPTIONS,
        BUILD,
        "constraints",
        "image",
        "network",
        "plan.json",
        "proof.json",
        "report.html",
        "report.json",
        "simulation.json",
        "testbench",
        "vectors",
        "verilog",
    )
)
"""What the verbs write at the top of an output folder; anything else there is the user's own."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_MANIFEST_LIMIT = 1 << 28


class OutputFolder:
    """One accelerator's folder, ``OUT``.

    Parameters
    ----------
    path : path
        Need not exist. Its parents are made when the first writer starts.

    Raises
    ------
    InputError
        From every method, in one line: the folder is a symbolic link or holds one, is not a
        pvq-hw output, has another writer, or the disk is full. The earlier folder is then
        untouched.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(path)
        self.path = Path(os.path.abspath(given))
        if not self.path.name or "\0" in str(given):
            raise InputError(f"Output folder must be a folder of its own, not {str(given)!r}")
        self._shown = str(given)
        self._prefix = f".{self.path.name}.pvq-hw-"

    # -- readers --------------------------------------------------------------------------------

    def check(self) -> Path:
        """The path, once it is sure that a finished pvq-hw output without links lies there."""
        self.recover()
        self._check_kind()
        if not self.path.is_dir():
            raise InputError(f"Output folder {self._shown!r} must exist; run pvq-hw compile first")
        if not self._is_output():
            raise InputError(f"{self._shown!r} must be a pvq-hw output, but lacks its manifest")
        check_tree(self.path)
        return self.path

    def recover(self) -> None:
        """Puts back what a writer that was killed between two renames had moved aside.

        Does nothing while another writer is at work, or when there is nothing to put back.
        """
        if self.path.parent.is_dir() and any(self._leftovers("old", "was")):
            with contextlib.suppress(InputError), self._lock():
                self._restore()

    # -- writers --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def replace(self) -> Iterator[Path]:
        """Context in which the caller fills a new folder that takes the place of ``OUT`` whole.

        Yields the folder to fill, a sibling of ``OUT``. It must hold ``manifest.json`` at the
        end. When the body raises, ``OUT`` stays as it was.
        """
        with self._writing() as staging:
            if self.path == Path.cwd():
                raise InputError("Output folder must not be the current folder")
            self.check_replaceable()
            yield staging
            if not _has_manifest(staging):
                raise InputError(f"An output must hold {MANIFEST}, but the new one lacks it")
            check_tree(staging)
            _sync_tree(staging)
            self.check_replaceable()
            self._swap(staging, self.path, self._sibling("old"))

    @contextlib.contextmanager
    def update(self, *folders: str) -> Iterator[Path]:
        """Context in which the caller writes parts of an existing ``OUT`` anew.

        Yields an empty folder, a sibling of ``OUT``. At the end each of its entries, a file or a
        folder, takes the place of the one of that name in ``OUT``, each by one rename; the others
        stay. When the body raises, all stay. ``folders`` are those that will be among them: that
        pvq-hw wrote all that is in them is checked before the body, and for each at the end.
        """
        with self._writing() as staging:
            self._check_kind()
            if not self.path.is_dir() or not self._is_output():
                raise InputError(
                    f"Output folder {self._shown!r} must be a pvq-hw output; run pvq-hw compile "
                    "first"
                )
            check_tree(self.path)
            self._check_own(folders)
            yield staging
            check_tree(staging)
            _sync_tree(staging)
            self._check_own(sorted(os.listdir(staging)))
            aside = self._sibling("was")
            aside.mkdir()
            for name in sorted(os.listdir(staging)):
                self._swap(staging / name, self.path / name, aside / name)
            _sync(self.path)

    # -- the lock -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Path]:
        """Lock, recovery, an empty staging folder, and one-line errors."""
        made = self._make_parents()
        done = False
        try:
            with self._lock():
                self._restore()
                self._clean()
                staging = self._sibling("new")
                staging.mkdir()
                try:
                    yield staging
                    done = True
                except OSError as error:
                    self._raise_disk(error, staging)
                    raise
                finally:
                    self._clean()
        finally:
            if not done:
                for folder in made:
                    with contextlib.suppress(OSError):
                        folder.rmdir()

    def _make_parents(self) -> list[Path]:
        missing = []
        folder = self.path.parent
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = folder.parent
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"Output folder {self._shown!r} cannot be made: {error.strerror}"
            ) from None
        return missing

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """An exclusive lock on a sibling file, which goes away with it; the kernel frees it when
        the process dies."""
        path = self._sibling("lock", unique=False)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        while True:
            try:
                handle = os.open(path, flags, 0o666)
            except OSError as error:
                raise InputError(
                    f"Output folder {self._shown!r} cannot be locked: {error.strerror}"
                ) from None
            try:
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(handle)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise InputError(
                        f"Output folder {self._shown!r} cannot be locked: {error.strerror}"
                    ) from None
                raise InputError(
                    f"Output folder {self._shown!r} is being written by another pvq-hw; "
                    "wait for it or choose another folder"
                ) from None
            if _same_file(handle, path):
                break
            os.close(handle)  # its last holder removed it between our open and our lock
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)

    # -- renames --------------------------------------------------------------------------------

    def _swap(self, new: Path, place: Path, aside: Path) -> None:
        """``new`` takes ``place``; what was there goes to ``new`` or ``aside``."""
        if not os.path.lexists(place):
            os.rename(new, place)
        elif new.is_file() and place.is_file():
            os.replace(new, place)
        elif not exchange(new, place):
            os.rename(place, aside)
            os.rename(new, place)
        _sync(place.parent)

    def _restore(self) -> None:
        """Undoes a first rename whose second never came."""
        for old in self._leftovers("old"):
            if not os.path.lexists(self.path) and _is_folder(old):
                os.rename(old, self.path)
        for was in self._leftovers("was"):
            if self.path.is_dir() and _is_folder(was):
                for name in os.listdir(was):
                    if not os.path.lexists(self.path / name):
                        os.rename(was / name, self.path / name)

    def _clean(self) -> None:
        for path in self._leftovers("new", "old", "was"):
            _remove(path)

    def _sibling(self, role: str, *, unique: bool = True) -> Path:
        tail = f"-{os.getpid()}" if unique else ""
        return self.path.parent / f"{self._prefix}{role}{tail}"

    def _leftovers(self, *roles: str) -> list[Path]:
        starts = tuple(f"{self._prefix}{role}-" for role in roles)
        names = sorted(n for n in os.listdir(self.path.parent) if n.startswith(starts))
        return [self.path.parent / name for name in names]

    # -- checks ---------------------------------------------------------------------------------

    def _check_kind(self) -> None:
        if self.path.is_symlink():
            raise InputError(f"Output folder {self._shown!r} must not be a symbolic link")
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise InputError(f"Output folder {self._shown!r} must be a folder, not a file")

    def _is_output(self) -> bool:
        return _has_manifest(self.path)

    def check_replaceable(self) -> None:
        """Raises InputError unless nothing is lost when a new folder takes the place of ``OUT``."""
        self._check_kind()
        if not self.path.is_dir():
            return
        names = sorted(os.listdir(self.path))
        if not names:
            return
        if not self._is_output():
            raise InputError(
                f"Output folder {self._shown!r} must be new, empty or a pvq-hw output, "
                "but holds other files"
            )
        for name in names:
            if name not in OUTPUT_ENTRIES:
                raise InputError(
                    f"Output folder {self._shown!r} must hold pvq-hw's files only, but has "
                    f"{name!r}; move it away"
                )
        check_tree(self.path)
        self._check_own(names)

    def _check_own(self, entries: Iterable[str]) -> None:
        """Raises InputError for a file that no verb wrote in one of the folders of ``OUT``."""
        folders = [self.path / entry for entry in entries]
        found = [path for folder in folders for path in sorted(folder.rglob("*"))]
        files = _manifest_files(self.path) | built_files(self.path) if found else frozenset()
        for path in found:
            name = path.relative_to(self.path).as_posix()
            if path.is_file() and name not in files:
                raise InputError(
                    f"Output folder {self._shown!r} must hold pvq-hw's files only, but has "
                    f"{name!r}, which pvq-hw did not write; move it away"
                )

    def _raise_disk(self, error: OSError, staging: Path) -> None:
        """One line for what the disk refuses; the body's other errors are its own affair."""
        inside = str(error.filename or "").startswith(str(self.path.parent / self._prefix))
        if error.errno in _DISK or inside or error.filename == str(self.path):
            raise InputError(
                f"Output folder {self._shown!r} cannot be written: {error.strerror}"
            ) from None


def check_tree(folder: Path) -> None:
    """Raises InputError unless everything below ``folder`` is a plain file or folder."""
    stack = [folder]
    while stack:
        for entry in sorted(os.scandir(stack.pop()), key=lambda e: e.name):
            mode = entry.stat(follow_symlinks=False).st_mode
            name = os.path.relpath(entry.path, folder)
            if stat.S_ISLNK(mode):
                raise InputError(f"An output must not hold symbolic links, but {name!r} is one")
            if stat.S_ISDIR(mode):
                stack.append(Path(entry.path))
            elif not stat.S_ISREG(mode):
                raise InputError(f"An output must hold files and folders only, not {name!r}")


def _has_manifest(folder: Path) -> bool:
    path = folder / MANIFEST
    try:
        mode = path.lstat()
        if not stat.S_ISREG(mode.st_mode) or mode.st_size > _MANIFEST_LIMIT:
            return False
        return f'"format": "{OUTPUT_FORMAT}"'.encode() in path.read_bytes()
    except OSError:
        return False


class _Listing(TypedDict):
    """The part of a manifest that tells its files from the user's."""

    files: dict[str, Any]


def _manifest_files(folder: Path) -> frozenset[str]:
    """The files that a manifest lists."""
    try:
        listed = load_json(folder / MANIFEST, Format("a manifest", limit=_MANIFEST_LIMIT))
        return frozenset(read(Annotated[_Listing, OPEN], listed, MANIFEST)["files"])
    except InputError:
        raise InputError(
            f"{folder / MANIFEST} must list pvq-hw's files, but is damaged, so that others cannot "
            "be told from them; move the folder away"
        ) from None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _same_file(handle: int, path: Path) -> bool:
    try:
        here, there = os.fstat(handle), os.lstat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root) / name)
        _sync(Path(root))


def _remove(path: Path) -> None:
    """Removes a leftover; a tool that outlived its killed parent may still write there."""
    for _ in range(3):
        try:
            if _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return
        except OSError:
            time.sleep(0.05)
