"""From a model to the plan of its network: as fast as the board allows, or the smallest plan that
reaches the speed asked for.

The planner is given a pace, the cycles that every layer may take, and finds the cheapest choices
that keep it. What a pace comes to, with rows that end, buffers that fill and layers that wait for
one another, only the plan of real codes tells. So the longest pace whose plan is fast enough is
looked for by halving, on a network that is there: on the quantized one where the first guess is
missed, and for a latency on one that was quantized quickly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.quantize import Progress, quantize_for
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.network.rule import decided
from pvq_hw.plan.folding import Folding
from pvq_hw.plan.goal import SpeedGoal
from pvq_hw.plan.plan import Plan
from pvq_hw.progress import Steps
from pvq_hw.target.boards import Target
from pvq_hw.target.pll import solve_pll

__all__ = ["Made", "Planner", "TooSlowError", "reach"]

_HALVINGS = 4
_CLOSE = 1.03  # times a pace: a longer one is not worth another plan
_FASTEST = 1  # a pace that none is faster than

Planner = Callable[[Network, Target, CompileOptions, Folding, int], Plan]
"""The plan of a network, with the lanes it was quantized for, or, of a pace above 0, with those
that keep this pace at the least cost."""


@dataclass(frozen=True, eq=False)
class Made:
    """A network, decision included, the lanes that it was quantized for, and its plan."""

    network: Network
    folding: Folding
    plan: Plan


class TooSlowError(CheckError):
    """No plan is as fast as asked; ``excess`` says how many times too slow the fastest is."""

    def __init__(self, text: str, excess: float = math.inf) -> None:
        super().__init__(text)
        self.excess = excess


def reach(
    model: Model,
    target: Target,
    options: CompileOptions,
    calibration: Data | None,
    planner: Planner,
    progress: Progress | None = None,
    *,
    quick: bool = False,
    refuse: bool = True,
    steps: Steps | None = None,
) -> Made:
    """Quantizes a model for a target and plans it; ``quick`` and ``refuse`` as
    `pvq_hw.flow.quantize.quantize_for` has them.

    Raises
    ------
    InputError
        Something doesn't fit, as `quantize_for` and the planner have it.
    TooSlowError
        Nothing that fits is as fast as ``options.goal``: with the fastest, and what limits it.
    """
    goal, tell = options.goal, steps or Steps()

    def quantized(pace: int, quick: bool) -> tuple[Network, Folding]:
        with tell.step("Quantize to the pyramid"):
            network, folding = quantize_for(
                model, target, options, calibration, progress, quick=quick, goal=pace,
                refuse=refuse,
            )  # fmt: skip
        return decided(network, options.decide), folding

    def planned_as(network: Network, folding: Folding) -> Plan:
        with tell.step("Plan the cores"):
            return planner(network, target, options, folding, 0)

    if not goal:
        network, folding = quantized(0, quick)
        return Made(network, folding, planned_as(network, folding))
    clock_hz = solve_pll(target, options.clock_mhz or target.clock_mhz).hz
    pace = goal.pace(clock_hz)
    if goal.max_latency_us and not quick:
        pace, _ = _longest_pace(*quantized(_FASTEST, True), target, options, planner, pace)
    network, folding = quantized(pace, quick)
    planned = planned_as(network, folding)
    if not _reached(planned, goal):
        pace, planned = _longest_pace(
            network, folding, target, options, planner, goal.pace(clock_hz)
        )
    if not _reached(planned, goal) and pace > _FASTEST and not quick:
        network, folding = quantized(_FASTEST, quick)
        planned = planned_as(network, folding)
    if not _reached(planned, goal):
        raise _too_slow(planned, goal)
    return Made(network, folding, replace(planned, goal=goal))


def _longest_pace(
    network: Network,
    folding: Folding,
    target: Target,
    options: CompileOptions,
    planner: Planner,
    most: int,
) -> tuple[int, Plan]:
    """The longest pace of up to ``most`` cycles whose plan is fast enough, and this plan; the plan
    of the shortest pace where none is."""
    goal = options.goal

    def at(pace: int) -> Plan:
        return planner(network, target, options, folding, pace)

    slow = at(most)
    if _reached(slow, goal):
        return most, slow
    best = at(_FASTEST)
    if not _reached(best, goal):
        return most, best
    low, high = min(most, -(-best.interval_cycles // best.frames)), most
    kept = low
    for _ in range(_HALVINGS):
        if high <= _CLOSE * low:
            break
        middle = round(math.sqrt(low * high))
        made = at(middle)
        if _reached(made, goal):
            best, kept, low = made, middle, middle
        else:
            high = middle
    return kept, best


def _reached(plan: Plan, goal: SpeedGoal) -> bool:
    return goal.reached(plan.inferences_per_second, plan.latency_us)


def _too_slow(plan: Plan, goal: SpeedGoal) -> TooSlowError:
    figures = plan.inferences_per_second, plan.latency_us
    since = f", since {plan.limit}" if plan.limit else ""
    return TooSlowError(
        f"{plan.network} on {plan.target.name} must have {goal.text()} at "
        f"{plan.clock_hz / 1e6:g} MHz, but the best found has {goal.found(*figures)}{since}",
        goal.excess(*figures),
    )
