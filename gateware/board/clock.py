"""Builds at another clock than was planned: one that is asked for, or the highest that is met."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from gateware.board.build import UnmetError
from pvq_hw.documents import document_text
from pvq_hw.errors import CheckError, InputError
from pvq_hw.output.accelerator import Accelerator, load
from pvq_hw.output.build_record import BUILD
from pvq_hw.output.folder import MANIFEST, OutputFolder
from pvq_hw.output.manifest import reclocked_manifest
from pvq_hw.output.proof_record import PROOF
from pvq_hw.output.report import document_of, read_report, write_report
from pvq_hw.plan.plan import Plan
from pvq_hw.progress import Steps
from pvq_hw.target.baud import choose_rate
from pvq_hw.target.board import Target
from pvq_hw.target.pll import solve_pll

__all__ = ["MAX", "build_at_clock", "check_clock", "plan_at_clock"]

MAX = "max"
_ROUNDS = 5
_WORTH = 1.01  # times a clock that is met: a higher one is worth another place and route

Maker = Callable[[Accelerator, Path], dict[str, Any]]
"""Builds an accelerator into a folder, and gives the document; raises UnmetError."""


@dataclass(frozen=True)
class _Met:
    """A clock that was met: the plan with it, where its build is, and the build's document."""

    plan: Plan
    folder: Path
    document: dict[str, Any]


def check_clock(clock: Any, target: Target) -> None:
    """Raises InputError unless a clock is `MAX` or MHz that the board's PLL comes near."""
    if clock == MAX:
        return
    if isinstance(clock, bool) or not isinstance(clock, int | float) or not math.isfinite(clock):
        raise InputError(f"Clock must be {MAX} or a number of MHz, not {clock!r:.60}")
    solve_pll(target, float(clock))


def plan_at_clock(plan: Plan, clock_mhz: float) -> Plan:
    """The plan with the highest clock of the board up to ``clock_mhz``, and the fastest rate of
    its link up to its own that this clock makes; raises InputError where a speed was asked for that
    it then hasn't."""
    settings = solve_pll(plan.target, clock_mhz)
    exact = math.ceil(settings.output / Fraction(100)) / 10_000  # MHz, from above
    baud = choose_rate(plan.link, settings.hz, plan.baud)
    found = replace(plan, clock_mhz=min(exact, clock_mhz), baud=baud)
    found.verify()
    return found


def build_at_clock(
    accelerator: Accelerator, clock: float | str, make: Maker, steps: Steps
) -> dict[str, Any]:
    """Builds an accelerator with another clock, which plan, manifest and report then have too.

    The folder is replaced whole or not at all. A proof, which was of another plan, goes.

    Parameters
    ----------
    accelerator : Accelerator
    clock : float or str
        MHz; or ``"max"``: after place and route at the plan's clock, the PLL is set to what the
        best seed reached, and so on as long as that gains a hundredth; of the clocks that were
        met the highest is kept.
    make : callable
        Builds, as `gateware.board.flow` does it.
    steps : Steps

    Raises
    ------
    InputError
        The board's PLL doesn't come near the clock, or it is too slow for what was asked for.
    CheckError
        The clock is not met on any seed; of ``"max"``, no clock is.
    """
    check_clock(clock, accelerator.plan.target)
    out = accelerator.out
    with OutputFolder(out).replace() as staging:
        shutil.copytree(out, staging, dirs_exist_ok=True,
                        ignore=lambda folder, names: {BUILD, PROOF} & set(names)
                        if Path(folder) == out else set())  # fmt: skip
        attempts = _Attempts(accelerator, staging, make, steps)
        met = attempts.highest() if clock == MAX else attempts.at(float(clock))
        fresh = _reclock(staging, accelerator, met.plan)
        met.folder.rename(staging / BUILD)
        for folder in attempts.folders:
            shutil.rmtree(folder, ignore_errors=True)
        document = met.document | {"clocks_tried": attempts.tried}
        parts = {k: v for k, v in read_report(out).items() if k == "simulate"}
        compiled = document_of(staging, fresh.network, fresh.plan, fresh.manifest)
        write_report(staging, {"compile": compiled, **parts, "build": document})
    return document


class _Attempts:
    """Builds of one accelerator at some clocks, each in a folder of its own."""

    def __init__(self, accelerator: Accelerator, staging: Path, make: Maker, steps: Steps) -> None:
        self._accelerator, self._staging, self._make = accelerator, staging, make
        self._steps = steps
        self.folders: list[Path] = []
        self.tried: list[dict[str, Any]] = []

    def at(self, clock_mhz: float) -> _Met:
        """The build at one clock; raises UnmetError where no seed meets it."""
        plan = plan_at_clock(self._accelerator.plan, clock_mhz)
        if plan.baud != self._accelerator.plan.baud:
            self._steps.note(f"The link has {plan.baud:,} bits a second at {plan.clock_mhz:g} MHz")
        fresh = _reclock(self._staging, self._accelerator, plan)
        self.folders.append(self._staging / f"{BUILD}-{len(self.folders)}")
        tried = {"clock_mhz": plan.clock_hz / 1e6, "met": False}
        self.tried.append(tried)
        try:
            document = self._make(fresh, self.folders[-1])
        except UnmetError as error:
            tried["fmax_mhz"] = error.fmax_mhz
            raise
        tried |= {"fmax_mhz": document["fmax_mhz"], "met": True}
        return _Met(plan, self.folders[-1], document)

    def highest(self) -> _Met:
        """The build at the highest clock that was met."""
        target = self._accelerator.plan.target
        low, high = target.clock_range_mhz
        if (stream := self._accelerator.plan.stream) is not None:
            high = min(high, stream.most_clock_mhz)
        best: _Met | None = None
        unmet: CheckError | None = None
        wish = self._accelerator.plan.clock_hz / 1e6
        clocks: set[int] = set()
        for _ in range(_ROUNDS):
            hz = solve_pll(target, wish).hz
            if hz in clocks or (best is not None and hz <= _WORTH * best.plan.clock_hz):
                break
            clocks.add(hz)
            try:
                best = self.at(wish)
                reached = float(best.document["fmax_mhz"])
            except UnmetError as error:
                unmet, reached = error, error.fmax_mhz
            wish = min(max(reached, low), high)
        if best is None:
            assert unmet is not None
            raise unmet
        return best


def _reclock(folder: Path, accelerator: Accelerator, plan: Plan) -> Accelerator:
    """Writes a plan and the manifest with it into a copy of the accelerator's folder."""
    plan.save(folder / "plan.json")
    manifest = reclocked_manifest(folder, accelerator.manifest, plan)
    (folder / MANIFEST).write_text(document_text(manifest), encoding="ascii", newline="\n")
    return load(folder)
