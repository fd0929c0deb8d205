"""Mutants of the sources against the tests of their own circuit or module: how many are found.

Run as ``make mutate``, or ``python -m benchmarks.mutate [KIND ...] [--mutants N] [--only NAME]
[--minutes M]``; with ``--fixed`` the few of `make test`.
``circuits`` are the Amaranth sources, ``python`` formats, codes, packing and protocol;
`benchmarks.mutate_checks` says which tests look at which file, and why a mutant that none finds is
no other circuit. Mutants are drawn by the seed from all that there are; each runs in a copy of the
sources, until the first test fails. What was tried is kept in ``results/mutate.json`` and not tried
again, unless no test found it and nobody said why, so the run may be stopped at any time. The exit
status is 1 where a mutant is left without a reason.
"""

import argparse
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mutate_checks import CHECKS, EQUIVALENT, FIXED
from benchmarks.mutations import Mutation, mutations_of
from pvq_hw import __version__
from pvq_hw.documents import document_text
from pvq_hw.errors import InputError, PvqError

__all__ = ["KINDS", "Tree", "main", "missed", "mutants_of", "mutate", "score"]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutate.json"
KINDS = tuple(CHECKS)
_PACKAGES = ("pvq_hw", "gateware", "sim", "benchmarks", "tests")
_COPIED = (*_PACKAGES, "docs", "examples", "constraints", "README.md", "pyproject.toml", "Makefile")
_SECONDS = 60  # of the processor, for one mutant
_PATIENCE = 20  # times that, by the clock: the machine has other things to do
_QUICK = "not slow and not torch and not build"


@dataclass(frozen=True)
class Outcome:
    """``found``, ``left``, or ``hangs``; by which test; seconds of the processor."""

    what: str
    by: str
    seconds: float


class Tree:
    """A copy of the sources, in which one file at a time is another one.

    Parameters
    ----------
    place : Path
        A folder that is there.
    """

    def __init__(self, place: Path) -> None:
        self.root = place
        self._sound: set[str] = set()
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():  # with what was compiled, which its time tells from a mutant's
                shutil.copytree(source, place / name)
            else:
                shutil.copy2(source, place / name)

    def judged(self, tests: Sequence[str], mutation: Mutation) -> Outcome:
        """What the tests say of a mutation; the one that fails must pass without it."""
        outcome = self.run(tests, mutation)
        if outcome.by and outcome.by not in self._sound:
            # A file that can't be imported is no test.
            alone = [outcome.by] if "::" in outcome.by else [outcome.by, "--collect-only"]
            if self.run(alone).what != "left":
                raise InputError(f"Test {outcome.by} must pass without a mutant")
            self._sound.add(outcome.by)
        return outcome

    def run(self, tests: Sequence[str], mutation: Mutation | None = None, *options: str) -> Outcome:
        """The tests, until one fails, of the sources with a mutation; ``options`` are pytest's."""
        tests = [*options, *tests]
        if mutation is None:
            return self._forked(tests)
        path = self.root / mutation.path
        whole, times = path.read_bytes(), path.stat()
        try:
            path.write_bytes(mutation.of(whole))
            return self._forked(tests)
        finally:
            path.write_bytes(whole)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _forked(self, tests: Sequence[str]) -> Outcome:
        """In a process of its own, that has numpy and the simulator already."""
        told = self.root / "found"
        told.write_text("")
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = _tests(self.root, tests, told)
            finally:
                os._exit(status)
        status, seconds, late = _waited(child)
        by = told.read_text()
        if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            return Outcome("hangs", by, seconds)
        code = os.waitstatus_to_exitcode(status)
        if code in (0, 1, 2) or code < 0:
            return Outcome("found" if code else "left", by, seconds)
        raise InputError(f"pytest must run {' '.join(tests)}; its exit status was {code}")


def _waited(child: int) -> tuple[int, float, bool]:
    """A child's status, its seconds, and whether it had to be ended."""
    end = time.monotonic() + _SECONDS * _PATIENCE
    late = False
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, round(usage.ru_utime + usage.ru_stime, 1), late
        if time.monotonic() > end and not late:
            late = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)


def _tests(root: Path, tests: Sequence[str], told: Path) -> int:
    """What a child does: pytest's exit status."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS + 5))
    log = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(root)
    # Plugins that are there for others take longer to import than most tests.
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:] = [str(root), *(p for p in sys.path if p and Path(p).resolve() != ROOT)]
    for name in [n for n in sys.modules if n.partition(".")[0] in _PACKAGES]:
        del sys.modules[name]
    import pytest

    class Teller:
        """Notes what failed."""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                told.write_text(report.nodeid)

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                told.write_text(report.nodeid)

    options = ["-x", "-q", "-m", _QUICK, "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *tests], plugins=[Teller()]))


# -- the run ------------------------------------------------------------------------------------


def mutants_of(kind: str) -> list[Mutation]:
    """All mutants of a kind's files."""
    return [mutation for path in CHECKS[kind] for mutation in mutations_of(ROOT, path)]


def _drawn(kind: str, count: int | None, seed: int, only: Sequence[str]) -> list[Mutation]:
    mutants = [m for m in mutants_of(kind) if not only or any(o in m.name for o in only)]
    random.Random(f"{seed} {kind}").shuffle(mutants)
    return mutants[:count]


def mutate(
    kinds: Sequence[str],
    results: Path,
    *,
    mutants: int | None = None,
    seed: int = 0,
    only: Sequence[str] = (),
    minutes: float = math.inf,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tries the mutants that ``results`` doesn't hold yet; gives, and keeps, what it holds then.

    Parameters
    ----------
    kinds : sequence of str
        Of `KINDS`.
    results : Path
        Made where there is none. Mutants of code that is no more are taken out.
    mutants : int, optional
        Of each kind, the first ones that the seed draws; all by default.
    seed : int
    minutes : float
        Of the processor, for all; the mutant that is tried then is the last.
    only : sequence of str
        One of which a mutant's name must hold: a file, say.
    tell : function of str
        Is told each mutant that is left, and how far it is.

    Returns
    -------
    dict
        ``pvq_hw_version``, ``seed`` and ``kinds``: how many mutants there are (``possible``), and
        of each that was tried by its name ``what``, ``by`` and ``seconds``.

    Raises
    ------
    InputError
        A kind that isn't known, or a test that fails without a mutant too.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"A kind must be one of {', '.join(KINDS)}, not {kind!r}")
    document: dict[str, Any] = {"pvq_hw_version": __version__, "seed": seed, "kinds": {}}
    if results.is_file():
        earlier = json.loads(results.read_text(encoding="utf-8"))
        if earlier["seed"] == seed:
            document |= {"kinds": earlier["kinds"]}
    spent = 0.0
    with tempfile.TemporaryDirectory(prefix="pvq_hw_") as place:
        tree = Tree(Path(place))
        for kind in kinds:
            every = {m.name for m in mutants_of(kind)}
            held = document["kinds"].setdefault(kind, {"possible": 0, "mutants": {}})
            kept = {n: m for n, m in held["mutants"].items() if n in every}
            held |= {"possible": len(every), "mutants": kept}
            drawn = _drawn(kind, mutants, seed, only)
            new = [m for m in drawn if _untold(m.name, kept)]
            for mutation in new:
                if spent > 60 * minutes:
                    break
                outcome = tree.judged(CHECKS[kind][mutation.path], mutation)
                spent += outcome.seconds
                kept[mutation.name] = vars(outcome)
                if outcome.what == "left" and mutation.name not in EQUIVALENT:
                    tell(f"left: line {mutation.line} of {mutation.name}")
                results.write_text(document_text(document), encoding="utf-8")
            tell(f"{kind}: {_words(score(kept))}")
    return document


def _untold(name: str, kept: dict[str, Any]) -> bool:
    """Whether a mutant has to be tried."""
    return name not in kept or (kept[name]["what"] == "left" and name not in EQUIVALENT)


def score(kept: dict[str, Any]) -> dict[str, Any]:
    """Of a kind's mutants: ``tried``, ``found`` (with those that never end), ``equivalent``,
    ``left``, and ``percent`` found of those that are not known to be equivalent."""
    found = sum(mutant["what"] != "left" for mutant in kept.values())
    equivalent = sum(m["what"] == "left" and name in EQUIVALENT for name, m in kept.items())
    left = len(kept) - found - equivalent
    percent = round(100 * found / (found + left), 1) if found + left else 100.0
    return {"tried": len(kept), "found": found, "equivalent": equivalent, "left": left,
            "percent": percent}  # fmt: skip


def _words(counts: dict[str, Any]) -> str:
    return (
        f"{counts['found']} of {counts['tried']} mutants found, {counts['equivalent']} equivalent, "
        f"{counts['left']} left: {counts['percent']} %"
    )


def missed(tell: Callable[[str], None] = lambda line: None) -> list[str]:
    """Those of `FIXED` that their tests do not find."""
    known = {m.name: m for kind in KINDS for m in mutants_of(kind)}
    found = []
    with tempfile.TemporaryDirectory(prefix="pvq_hw_") as place:
        tree = Tree(Path(place))
        for name, test in FIXED.items():
            outcome = tree.run([test], known[name], "--noconftest")
            if (outcome.what, outcome.by) != ("found", test):
                found.append(name)
                tell(f"{outcome.what}: {name}")
    tell(f"{len(FIXED) - len(found)} of {len(FIXED)} fixed mutants found")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 where a mutant is left that nobody gave a reason for."""
    parser = argparse.ArgumentParser(prog="benchmarks.mutate", description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--mutants", type=int, help="of each kind")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a file, say")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of the processor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    parser.add_argument("--fixed", action="store_true", help="those of `make test`, nothing kept")
    args = parser.parse_args(argv)
    import amaranth.sim
    import pytest

    del amaranth, pytest  # children have them from here

    def tell(line: str) -> None:
        print(line, flush=True)

    try:
        if args.fixed:
            return int(bool(missed(tell)))
        document = mutate(
            args.kinds or list(KINDS), args.results, mutants=args.mutants, seed=args.seed,
            minutes=args.minutes, only=args.only, tell=tell,
        )  # fmt: skip
    except PvqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return int(any(score(kind["mutants"])["left"] for kind in document["kinds"].values()))


if __name__ == "__main__":
    sys.exit(main())
