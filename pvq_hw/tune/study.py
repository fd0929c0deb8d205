"""The search itself: Optuna asks for batches of configurations and is told what they gave."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pvq_hw.errors import InputError, ToolError
from pvq_hw.evaluate.metrics import Metric
from pvq_hw.tune.space import Space
from pvq_hw.tune.trial import Outcome

__all__ = ["BATCH", "COSTS", "Goal", "Trial", "check_optuna", "fronts", "ranked", "search"]

BATCH = 8
"""Trials that are asked for before the sampler is told any of them: a constant, so that the search
does not depend on the number of workers."""

COSTS = ("interval_cycles", "code_bits", "luts", "energy_nj")
_RANDOM = 8  # trials before the sampler has a model of its own


@dataclass(frozen=True)
class Goal:
    """What is looked for.

    Parameters
    ----------
    metric : Metric
    bound : float, optional
        What the metric must reach.
    budget_cycles : int, optional
        Most cycles between frames.
    most_loss : float, optional
        Points of accuracy below the float model's that may be lost, reckoned with the caution that
        the number of validation frames asks for; decides instead of ``bound``, which then is where
        the metric would be.
    """

    metric: Metric
    bound: float | None = None
    budget_cycles: int | None = None
    most_loss: float | None = None

    def excess(self, outcome: Outcome) -> dict[str, float]:
        """How far an outcome is from meeting each constraint; 0 or less where it does."""
        found = {}
        if self.most_loss is not None:
            found["metric"] = outcome.figures["reckoned_loss"] - self.most_loss
        elif self.bound is not None:
            loss = self.metric.loss(outcome.figures["metric"])
            found["metric"] = loss - self.metric.loss(self.bound)
        if self.budget_cycles is not None:
            cycles = outcome.figures["interval_cycles"]
            found["cycles"] = float(cycles - self.budget_cycles)
        return found

    def met_on_test(self, exact: float, ours: float) -> bool:
        """Whether the metric on test data is as good as asked for; a loss is asked for against the
        float model on the same data."""
        if self.most_loss is None:
            return self.metric.meets(ours, self.bound)
        return self.metric.loss(ours) - self.metric.loss(exact) <= self.most_loss

    def met(self, outcome: Outcome) -> bool:
        """Whether an outcome meets every constraint."""
        return not outcome.failed and all(v <= 0 for v in self.excess(outcome).values())


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried.

    Parameters
    ----------
    number : int
    params : mapping
        The choices, see `Space`.
    outcome : Outcome
    """

    number: int
    params: Mapping[str, Any]
    outcome: Outcome

    @property
    def figures(self) -> Mapping[str, float]:
        """The outcome's."""
        return self.outcome.figures


def check_optuna() -> None:
    """Raises ToolError, with the remedy, where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ToolError("pvq-hw tune needs the package optuna; pip install 'pvq-hw[tune]'")


def search(
    space: Space,
    goal: Goal,
    run: Callable[[Sequence[Mapping[str, Any]]], Sequence[Outcome]],
    *,
    count: int,
    seed: int,
    starts: Sequence[Mapping[str, Any]] = (),
    told: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Tries ``count`` configurations: ``starts`` first, then what the sampler asks for.

    Batch by batch, and what a batch gave is told in the order of its trials: the same ``seed``
    gives the same trials, whoever runs them. The sampler (a tree-structured Parzen estimator)
    weighs the metric against cycles, code bits, LUTs and modelled energy, and prefers what meets
    the goal's constraints. Failures are kept and take part in nothing else.
    """
    check_optuna()
    if count < 1:
        raise InputError(f"Trials must be at least 1, not {count}")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials: list[Trial] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental interfaces; pyproject pins the version
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=_RANDOM
        )
        down = optuna.study.StudyDirection.MINIMIZE
        up = optuna.study.StudyDirection.MAXIMIZE
        first = up if goal.metric.higher_is_better else down
        study = optuna.create_study(directions=[first, *(down for _ in COSTS)], sampler=sampler)
        for params in starts[:count]:
            study.enqueue_trial(dict(params))
        while len(trials) < count:
            asked = [study.ask() for _ in range(min(BATCH, count - len(trials)))]
            batch = [space.suggest(trial) for trial in asked]
            for trial, params, outcome in zip(asked, batch, run(batch), strict=True):
                trials.append(Trial(trial.number, params, outcome))
                _tell(study, trial, goal, outcome)
                if told is not None:
                    told(trials[-1])
    return trials


def _tell(study: Any, trial: Any, goal: Goal, outcome: Outcome) -> None:
    import optuna

    if outcome.failed:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for name, excess in goal.excess(outcome).items():
        trial.set_constraint(name, excess)
    study.tell(trial, [float(outcome.figures[name]) for name in ("metric", *COSTS)])


def ranked(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """Trials that did not fail, the chosen one first.

    Where a bound is asked for and met, those that meet it (and the budget) come first: fewest
    cycles, then fewest code bits, then the better metric. Else the best metric, among those within
    the budget of cycles first; equal ones by cycles, then bits.
    """
    good = [trial for trial in trials if not trial.outcome.failed]

    def cost(trial: Trial) -> tuple[float, float]:
        return trial.figures["interval_cycles"], trial.figures["code_bits"]

    def key(trial: Trial) -> tuple[Any, ...]:
        loss = goal.metric.loss(trial.figures["metric"])
        if goal.bound is not None and goal.met(trial.outcome):
            return (0, *cost(trial), loss, trial.number)
        over = goal.budget_cycles is not None and cost(trial)[0] > goal.budget_cycles
        return (1, over, loss, *cost(trial), trial.number)

    return sorted(good, key=key)


def fronts(trials: Sequence[Trial], goal: Goal) -> dict[str, list[int]]:
    """Numbers of the trials on the Pareto front of metric and cost, the cheapest first: one
    front for each cost."""
    good = [trial for trial in trials if not trial.outcome.failed]
    found: dict[str, list[int]] = {}
    for cost in COSTS:
        best = float("inf")
        found[cost] = []
        order = sorted(
            good, key=lambda t: (t.figures[cost], goal.metric.loss(t.figures["metric"]), t.number)
        )
        for trial in order:
            loss = goal.metric.loss(trial.figures["metric"])
            if loss < best:
                best = loss
                found[cost].append(trial.number)
    return found
