"""Finalists of a search: compiled, placed and routed over seeds; failures are results too."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TypedDict

from pvq_hw.data.dataset import Data
from pvq_hw.documents import OPEN, Checked, Place, read
from pvq_hw.errors import PvqError
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.progress import Steps
from pvq_hw.tune.study import Goal, Trial, fronts, ranked

__all__ = ["FINALIST", "FINALISTS", "build_finalist", "finalist_key", "finalists"]

FINALISTS = "finalists"
"""Folder of the finalists' outputs, ``DIR/finalists/<trial>``."""

_UNITS = {
    "luts": ("TRELLIS_COMB", "ICESTORM_LC"),
    "brams": ("DP16KD", "ICESTORM_RAM"),
    "dsps": ("MULT18X18D", "ICESTORM_DSP"),
}


def finalists(trials: Sequence[Trial], goal: Goal, count: int) -> list[Trial]:
    """The first of the ranking, one for each speed and size: those of a front come first."""
    order = ranked(trials, goal)
    on_front = {number for numbers in fronts(trials, goal).values() for number in numbers}
    order = sorted(order, key=lambda t: t.number not in on_front and t is not order[0])
    found: list[Trial] = []
    seen: set[tuple[float, float]] = set()
    for trial in order:
        place = trial.figures["interval_cycles"], trial.figures["luts"]
        if place not in seen:
            seen.add(place)
            found.append(trial)
    return found[:count]


def finalist_key(options: CompileOptions, seeds: int, hashes: Sequence[str]) -> str:
    """Text that is equal for finalists that are built alike from the same files."""
    return json.dumps([options_toml(options), seeds, *hashes])


def build_finalist(
    model: Path,
    out: Path,
    options: CompileOptions,
    calibration: Data,
    evaluation: Data | None,
    seeds: int,
    steps: Steps,
    compile_: Callable[..., Any] | None = None,
    metric: str | None = None,
) -> dict[str, Any]:
    """Compiles a configuration into ``out`` and builds its bitstream with every seed.

    Gives ``clock_mhz``, ``fmax_mhz`` (the seeds' median) and ``seeds``, ``met``, ``estimated``
    and ``used`` parts, cycles, inferences a second and, where there is evaluation data, the
    metric; or ``reason`` where anything refuses.
    """
    from pvq_hw.flow.compile import compile_model
    from pvq_hw.output.accelerator import load

    try:
        made = (compile_ or compile_model)(
            model, out, options, calibration=calibration, evaluation=evaluation,
            metric=metric if evaluation is not None else None, steps=steps,
        )  # fmt: skip
        built = load(out).build(seeds=range(1, seeds + 1), steps=steps, every_seed=True)
    except PvqError as error:
        return {"reason": " ".join(str(error).split())}
    compiled = made.document
    result = {
        "clock_mhz": built["clock_mhz"],
        "fmax_mhz": median(attempt["fmax_mhz"] for attempt in built["seeds"]),
        "seeds": [{k: a[k] for k in ("seed", "fmax_mhz", "met")} for a in built["seeds"]],
        "interval_cycles": compiled["interval_cycles"],
        "inferences_per_second": built["inferences_per_second"],
        "estimated": {key: compiled["resources"][key] for key in _UNITS},
        "used": _used(built["utilization"]),
        "bitstream": built["bitstream"],
    }
    if "accuracy" in compiled:
        result["evaluation"] = compiled["accuracy"]
    return result


class Cells(TypedDict):
    """What a circuit takes."""

    luts: float
    brams: float
    dsps: float


class SeedResult(TypedDict):
    """What is read of a seed."""

    fmax_mhz: float


class Finalist(TypedDict):
    """What is read of what `build_finalist` gives, where it could be built."""

    clock_mhz: float
    fmax_mhz: float
    interval_cycles: int
    inferences_per_second: float
    seeds: list[Annotated[SeedResult, OPEN]]
    used: Annotated[Cells, OPEN]
    estimated: Annotated[Cells, OPEN]


class Refused(TypedDict):
    """Why it could not."""

    reason: str


def _finalist(value: dict[str, Any]) -> dict[str, Any]:
    kind = Refused if "reason" in value else Annotated[Finalist, OPEN]
    found: dict[str, Any] = read(kind, value, Place(""))
    return found


FINALIST = Checked("what was built of a finalist", _finalist)
"""How a journal holds what `build_finalist` gives."""


def _used(utilization: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {
        key: sum(utilization[name]["used"] for name in names if name in utilization)
        for key, names in _UNITS.items()
    }
