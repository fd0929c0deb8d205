"""``pvq-hw tune``: sensitivity of each layer, search, the chosen configuration, files."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data, load_data
from pvq_hw.documents import document_text
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import check_data, metric_for, scale_warning
from pvq_hw.files import whole_file
from pvq_hw.flow.choose import Choice, choose
from pvq_hw.flow.compile import plan_for, quantize_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.output.hashes import file_sha256
from pvq_hw.progress import Steps
from pvq_hw.target.boards import get_target
from pvq_hw.tune.executor import Runner, dask_runner, process_runner
from pvq_hw.tune.finalists import FINALISTS, build_finalist, finalist_key, finalists
from pvq_hw.tune.journal import Journal
from pvq_hw.tune.report import write_page
from pvq_hw.tune.space import Space, make_space
from pvq_hw.tune.study import Goal, Trial, check_optuna, fronts, ranked, search
from pvq_hw.tune.trial import (
    Job,
    Outcome,
    Task,
    float_outputs,
    judge,
    labels,
    plan_figures,
    split,
)

__all__ = ["TuneOptions", "tune"]

_FINALISTS = 5  # that are compiled with all frames until one fits
Sensitivity = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class TuneOptions:
    """What decides the result of a search, besides model and data; and where it runs.

    Parameters
    ----------
    target : str
        A board of `pvq_hw.target.boards`.
    min_accuracy : float, optional
        What the metric must reach on the validation frames: percent of right answers, AUC, a
        user's figure at least; RMSE at most.
    max_loss : float, optional
        Points of accuracy that may be lost: asks for the float model's on the validation frames
        less these, in the place of ``min_accuracy``, and starts the search from what `compile`
        chooses of the calibration frames for the same loss.
    budget_cycles : int, optional
        Most cycles between frames.
    trials : int
        Configurations to try, the sensitivity of the layers not counted.
    seed : int
        Seeds the split, the quantizer and the sampler.
    input_scale : float
        What integer data is divided by.
    metric : str, optional
        ``"accuracy"``, ``"rmse"``, ``"auc"`` or ``"module:function"``; what fits the
        labels by default.
    output : str, optional
        The one of several outputs that labels belong to.
    engine : str
        ``"auto"``, or ``"folded"``: no layer is unrolled. Where lanes are fewer than planned, none
        is either way.
    build_finalists : int
        Configurations, the first of the ranking, that are placed and routed.
    seeds : int
        Seeds of place and route that each of them is placed with.
    workers : int, optional
        Processes; one per core by default. Does not change the result.
    dask : str, optional
        Address of a scheduler, instead of processes.
    """

    target: str
    min_accuracy: float | None = None
    budget_cycles: int | None = None
    trials: int = 64
    seed: int = 0
    input_scale: float = 1.0
    metric: str | None = None
    build_finalists: int = 0
    seeds: int = 3
    workers: int | None = None
    dask: str | None = None
    output: str | None = None
    engine: str = "auto"
    max_loss: float | None = None

    def __post_init__(self) -> None:
        if self.max_loss is not None and self.min_accuracy is not None:
            raise InputError("Either a loss or an accuracy must be given, not both")
        if self.engine not in ("auto", "folded"):
            raise InputError(f"Engine of a search must be auto or folded, not {self.engine!r}")
        if self.trials < 1:
            raise InputError(f"Trials must be at least 1, not {self.trials}")
        if self.budget_cycles is not None and self.budget_cycles < 1:
            raise InputError(f"Budget must be at least 1 cycle, not {self.budget_cycles}")
        if self.min_accuracy is not None and not abs(self.min_accuracy) < float("inf"):
            raise InputError(f"Accuracy to reach must be a number, not {self.min_accuracy}")
        if not 0 <= self.build_finalists <= 100:
            raise InputError(f"Finalists must be 0 to 100, not {self.build_finalists}")
        if not 1 <= self.seeds <= 100:
            raise InputError(f"Seeds must be 1 to 100, not {self.seeds}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"Workers must be at least 1, not {self.workers}")
        _ = self.asked  # checks seed, input scale and loss

    def runner(self) -> AbstractContextManager[Runner]:
        """Where trials run."""
        if self.dask is not None:
            return dask_runner(self.dask)
        return process_runner(self.workers or os.cpu_count() or 1)

    @property
    def base(self) -> CompileOptions:
        """What is common to all configurations."""
        return CompileOptions(
            target=self.target,
            input_scale=self.input_scale,
            seed=self.seed,
            output=self.output,
            engine=self.engine,
        )

    @property
    def asked(self) -> CompileOptions:
        """What a start within the loss is asked for, as an aim."""
        return replace(self.base, max_loss=self.max_loss, aim=True)


def tune(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: TuneOptions,
    *,
    evaluate: str | os.PathLike[str] | None = None,
    resume: bool = False,
    runner: Runner | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Searches encoding and N/K per layer, groups, activation width and lanes; writes a folder.

    The search sees ``data`` alone: three quarters to calibrate with, a quarter (10,000 frames at
    most) to judge by. The chosen configuration is then compiled with all of ``data`` and, where
    given, evaluated on ``evaluate``, which nothing else sees.

    Parameters
    ----------
    model, data, evaluate : path
    out : path
        Gets ``config.toml``, ``trials.json``, ``report.html`` and the journal ``trials.jsonl``;
        and ``finalists/<trial>``, an output folder with a bitstream for each that is built.
    options : TuneOptions
    resume : bool
        Whether to take the outcomes that the journal holds.
    runner : Runner, optional
        Instead of the one that ``options`` ask for: any executor.
    steps : Steps, optional
        Is told of the steps.

    Returns
    -------
    dict
        What ``trials.json`` holds; ``chosen`` is None where every trial failed, ``ok`` says whether
        what was asked for is met.
    """
    check_optuna()
    get_target(options.target)
    tell = steps or Steps()
    with tell.step("Read model and data"):
        setup = _set_up(Path(model), Path(data), options, evaluate)
    warning = scale_warning(setup.model, setup.data)
    if warning:
        tell.note(warning)
    setup, start = _started(setup, options, tell)
    with (
        Journal(Path(out), resume) as journal,
        contextlib.nullcontext(runner) if runner else options.runner() as place,
        _kept(journal),
    ):
        trying = _Trying(setup, journal, place, tell)
        with tell.step("Sensitivity of each layer"):
            sensitivity = trying.sensitivity()
        with tell.step(f"Search: {options.trials} trials"):
            trials = trying.search(options, sensitivity, start)
        with tell.step("Compile the chosen one with all frames"):
            final = _final(setup, trials, tell)
        built = _build(setup, Path(out), options, trials, journal, tell)
        document = _document(setup, options, trials, sensitivity, final, built)
        document |= {"start": None if start is None else start.document}
        with tell.step("Write the files"):
            _write(Path(out), document)
    return document


@dataclass(frozen=True, eq=False)
class _Setup:
    """What is fixed before the first trial."""

    task: Task
    model: Model
    data: Data
    evaluation: Data | None
    space: Space
    base: CompileOptions
    goal: Goal
    exact: float


def _set_up(
    path: Path, data_path: Path, options: TuneOptions, evaluate: str | os.PathLike[str] | None
) -> _Setup:
    model = load_model(path)
    if options.output is not None:
        model = model.for_output(options.output)
    data = load_data(data_path, options.input_scale, model.inputs)
    if data.y is None:
        raise InputError(f"{data_path} must have labels y, which the search judges by")
    evaluation = None
    if evaluate is not None:
        evaluation = load_data(Path(evaluate), options.input_scale, model.inputs)
    check_data(model, data, str(data_path), labels=False)
    if evaluation is not None:
        labels(evaluation)
        check_data(model, evaluation, "Evaluation data", metric=options.metric)
    _, validation = split(data, options.seed)
    exact = float_outputs(model, validation)
    metric = metric_for(model, labels(data), options.metric)
    value = metric.compute(exact, labels(validation))
    task = Task(
        model=os.path.abspath(path),
        data=os.path.abspath(data_path),
        model_sha256=file_sha256(path),
        data_sha256=file_sha256(data_path),
        input_scale=options.input_scale,
        metric=metric.name,
        seed=options.seed,
        board=get_target(options.target).definition,
    )
    goal = Goal(metric, options.min_accuracy, options.budget_cycles)
    return _Setup(task, model, data, evaluation, make_space(model), options.base, goal, value)


def _started(setup: _Setup, options: TuneOptions, tell: Steps) -> tuple[_Setup, Choice | None]:
    """What `compile` chooses of the calibration frames for a loss, and the setup with this loss as
    its goal and room for the choice; as it is where no loss is given."""
    if options.max_loss is None:
        return setup, None
    metric = setup.goal.metric
    if metric.name != "accuracy":
        raise InputError(f"A loss must come with labels that are classes, not with {metric.name}")
    calibration, _ = split(setup.data, options.seed)
    target = setup.task.target(options.target)
    with tell.step("Choose where to start"):
        start = choose(setup.model, target, options.asked, calibration, plan_for, tell)
    goal = replace(setup.goal, bound=setup.exact - options.max_loss, most_loss=options.max_loss)
    return replace(setup, goal=goal, space=setup.space.holding(_ratios(start))), start


def _ratios(start: Choice) -> dict[str, float]:
    """N/K of the layers that have pulses."""
    layers = start.made.network.weighted
    return {
        layer.name: float(f"{layer.weights.size / layer.k.sum():.3g}")
        for layer in layers if layer.encoding == "pvq"
    }  # fmt: skip


@contextlib.contextmanager
def _kept(journal: Journal) -> Iterator[None]:
    """Says what a Ctrl-C left behind."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {len(journal)} trials are kept, --resume goes on from there"
        ) from None


class _Trying:
    """Runs configurations, each once, and tells how far it is."""

    def __init__(self, setup: _Setup, journal: Journal, runner: Runner, tell: Steps) -> None:
        self._setup = setup
        self._journal = journal
        self._runner = runner
        self._tell = tell
        self._done = 0
        self._total = 1
        self._best = ""

    def sensitivity(self) -> Sensitivity:
        """Metric and output error of every layer alone at several N/K."""
        setup = self._setup
        points = [
            (layer, ratio) for layer in setup.space.layers for ratio in setup.space.levels(layer)
        ]
        jobs = [
            Job(setup.task, setup.space.alone(layer, ratio, setup.base), planned=False)
            for layer, ratio in points
        ]
        self._total = len(jobs)
        found: Sensitivity = {layer.name: [] for layer in setup.space.layers}
        for (layer, ratio), outcome in zip(points, self._run(jobs), strict=True):
            if not outcome.failed:
                found[layer.name].append({"asked": ratio, **outcome.figures})
        return found

    def search(
        self, options: TuneOptions, sensitivity: Sensitivity, start: Choice | None
    ) -> list[Trial]:
        """The trials, the choice that they start from first."""
        setup = self._setup
        first = [] if start is None else [setup.space.params(_ratios(start))]
        self._done, self._total = 0, options.trials
        tried: list[Trial] = []

        def run(batch: Sequence[Mapping[str, Any]]) -> list[Outcome]:
            return self._run([_job(setup, params) for params in batch])

        def told(trial: Trial) -> None:
            tried.append(trial)
            best = ranked(tried, setup.goal)
            if best:
                figures = best[0].figures
                self._best = (
                    f"best {setup.goal.metric.text(figures['metric'])}, "
                    f"{figures['interval_cycles']:,} cycles"
                )
            self._tell.progress(self._done, self._total, self._what())

        errors = {
            name: [(point["asked"], point["output_error"]) for point in points]
            for name, points in sensitivity.items()
        }
        return search(
            setup.space,
            setup.goal,
            run,
            count=options.trials,
            seed=options.seed,
            starts=[*first, *setup.space.starts(errors)],
            told=told,
        )

    def _run(self, jobs: Sequence[Job]) -> list[Outcome]:
        new: dict[str, Job] = {}
        for job in jobs:
            if self._journal.get(job) is None:
                new.setdefault(job.key, job)
        self._done += len(jobs) - len(new)
        todo = list(new.values())

        def done(number: int, outcome: Outcome) -> None:
            self._journal.add(todo[number], outcome)
            self._done += 1
            self._tell.progress(self._done, self._total, self._what())

        self._runner.run(todo, done)
        outcomes = [self._journal.get(job) for job in jobs]
        return [outcome for outcome in outcomes if outcome is not None]

    def _what(self) -> str:
        return f"{self._done} of {self._total} {self._best}".rstrip()


def _job(setup: _Setup, params: Mapping[str, Any]) -> Job:
    from pvq_hw.tune.space import LANE_SHARES

    options = setup.space.options(params, setup.base)
    return Job(setup.task, options, LANE_SHARES[params["lanes"]])


def _chosen_options(setup: _Setup, trial: Trial) -> CompileOptions:
    return replace(setup.space.options(trial.params, setup.base), lanes=trial.outcome.lanes)


def _final(setup: _Setup, trials: Sequence[Trial], tell: Steps) -> dict[str, Any] | None:
    """The first of the ranking that still fits when all frames calibrate it; None without one."""
    for trial in ranked(trials, setup.goal)[:_FINALISTS]:
        options = _chosen_options(setup, trial)
        target = setup.task.target(options.target)
        try:
            network, folding = quantize_for(setup.model, target, options, setup.data, tell.progress)
            planned = plan_for(network, target, options, folding)
        except InputError:
            continue
        budget = setup.goal.budget_cycles
        within = trial.figures["interval_cycles"] <= (budget or 0)
        if budget is not None and within and planned.interval_cycles > budget:
            continue
        figures = plan_figures(planned) | {"n_over_k": significant(network.n_over_k)}
        evaluated = None
        if setup.evaluation is not None:
            judged = judge(setup.task, setup.model, network, setup.evaluation)
            exact = setup.goal.metric.compute(
                float_outputs(setup.model, setup.evaluation), labels(setup.evaluation)
            )
            evaluated = {
                "metric": setup.goal.metric.name,
                "float": exact,
                "pvq": judged["metric"],
                "frames": len(setup.evaluation),
            }
        return {
            "number": trial.number,
            "config": options_toml(options),
            "figures": figures,
            "evaluation": evaluated,
        }
    return None


def _build(
    setup: _Setup,
    out: Path,
    options: TuneOptions,
    trials: Sequence[Trial],
    journal: Journal,
    tell: Steps,
) -> list[dict[str, Any]]:
    """Place and route of the finalists; what the journal knows of is not built again."""
    found = []
    hashes = (setup.task.model_sha256, setup.task.data_sha256)
    for trial in finalists(trials, setup.goal, options.build_finalists):
        chosen = _chosen_options(setup, trial)
        key = finalist_key(chosen, options.seeds, hashes)
        result = journal.built(key)
        if result is None:
            folder = out / FINALISTS / str(trial.number)
            folder.parent.mkdir(exist_ok=True)
            with tell.step(f"Build trial {trial.number}"):
                result = build_finalist(
                    Path(setup.task.model), folder, chosen, setup.data, setup.evaluation,
                    options.seeds, tell, metric=setup.task.metric,
                )  # fmt: skip
            journal.add_built(key, result)
        found.append({"number": trial.number, **result})
    return found


def _document(
    setup: _Setup,
    options: TuneOptions,
    trials: Sequence[Trial],
    sensitivity: Sensitivity,
    final: dict[str, Any] | None,
    built: list[dict[str, Any]],
) -> dict[str, Any]:
    goal = setup.goal
    chosen = next((t for t in trials if final and t.number == final["number"]), None)
    met = chosen is not None and goal.met(chosen.outcome)
    met_on_test = None
    if final and final["evaluation"] is not None:
        met_on_test = goal.met_on_test(final["evaluation"]["float"], final["evaluation"]["pvq"])
    asked = asdict(options)
    for name in ("workers", "dask"):  # where it ran says nothing of the result
        asked.pop(name)
    asked["min_accuracy"] = goal.bound  # whichever way it was asked for
    return {
        "format": "pvq-hw tune",
        "format_version": 1,
        "pvq_hw_version": setup.task.version,
        "model": setup.model.name,
        "model_sha256": setup.task.model_sha256,
        "data_sha256": setup.task.data_sha256,
        "frames": _frames(setup),
        "options": asked,
        "metric": {
            "name": goal.metric.name,
            "why": goal.metric.why,
            "higher_is_better": goal.metric.higher_is_better,
        },
        "float": setup.exact,
        "ok": met and met_on_test is not False,
        "met": {"validation": met, "test": met_on_test},
        "chosen": None if chosen is None else chosen.number,
        "final": final,
        "finalists": built,
        "fronts": fronts(trials, goal),
        "sensitivity": sensitivity,
        "failed": sum(trial.outcome.failed for trial in trials),
        "trials": [
            {"number": t.number, "params": dict(t.params), **t.outcome.to_json()} for t in trials
        ],
    }


def _frames(setup: _Setup) -> dict[str, int]:
    calibration, validation = split(setup.data, setup.task.seed)
    return {"calibration": len(calibration), "validation": len(validation)}


def _write(out: Path, document: Mapping[str, Any]) -> None:
    """Each file is replaced as a whole; ``trials.json``, which ends a search, comes last."""
    final = document["final"]
    if final is not None:
        head = (
            "# Chosen by pvq-hw tune. Calibrated with all of its --data:\n"
            "# pvq-hw compile MODEL --config config.toml --calibrate DATA.npz -o OUT\n"
        )
        _replace(out / "config.toml", head + final["config"])
    write_page(out / "report.html", document, _replace)
    _replace(out / "trials.json", document_text(document))


def _replace(path: Path, text: str) -> None:
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8", newline="\n")
