"""One trial of a search: a configuration in, what it gives out. Runs in any process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import numpy.typing as npt

import pvq_hw
from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data, load_data
from pvq_hw.documents import OPEN, Place, one_of, read
from pvq_hw.errors import InputError, PvqError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.evaluate.caution import cautious_loss
from pvq_hw.flow.compile import plan_for, quantize_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.quantize import quantizer_options
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.plan.plan import Plan
from pvq_hw.target.board_file import board_from
from pvq_hw.target.boards import Target, get_target

__all__ = [
    "Job",
    "Outcome",
    "Task",
    "evaluate_trial",
    "float_outputs",
    "judge",
    "labels",
    "loaded",
    "plan_figures",
    "split",
]

_LARGEST_SPLIT = 10_000  # frames that judge a trial


@dataclass(frozen=True)
class Task:
    """What all trials of a search have in common.

    Parameters
    ----------
    model, data : str
        Paths, readable under these names wherever trials run.
    model_sha256, data_sha256 : str
        Of the files; other content is refused.
    input_scale : float
        What integer data is divided by.
    metric : str, optional
        See `pvq_hw.evaluate.metrics.find_metric`.
    seed : int
        Of the split into calibration and validation frames.
    version : str
        Of this program; another one is refused.
    board : str
        `Target.definition` of a board that a file describes: the file need not be where trials
        run, and another board under its name is another search.
    """

    model: str
    data: str
    model_sha256: str
    data_sha256: str
    input_scale: float
    metric: str | None
    seed: int
    version: str = pvq_hw.__version__
    board: str = ""

    def target(self, name: str) -> Target:
        """The board: the file's that was read at the start, else the shipped one of that name."""
        return board_from(json.loads(self.board)) if self.board else get_target(name)


@dataclass(frozen=True)
class Job:
    """A configuration to try; picklable.

    Parameters
    ----------
    task : Task
    options : CompileOptions
    lane_share : int
        The planner's lanes are divided by it.
    planned : bool
        Whether cores are planned; else only the outputs are judged, without regard to lanes.
    """

    task: Task
    options: CompileOptions
    lane_share: int = 1
    planned: bool = True

    @property
    def key(self) -> str:
        """Text that is equal for jobs that have the same outcome; paths do not count."""
        value = asdict(self)
        value["task"].pop("model")
        value["task"].pop("data")
        if not self.task.board:
            value["task"].pop("board")
        value["options"].pop("min_accuracy")
        return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


@dataclass(frozen=True)
class Outcome:
    """What a trial gave.

    Parameters
    ----------
    reason : str
        Why it failed; empty for a success.
    figures : mapping
        ``metric``, ``reckoned_loss`` (see `judge`), ``output_error`` (RMS of the difference to the
        float network's outputs over their standard deviation), ``n_over_k`` and, where cores were
        planned, ``interval_cycles``, ``code_bits``, ``luts``, ``energy_nj`` and more.
    layers : tuple of mappings
        ``name``, ``n_over_k``, ``lanes``, ``pulses`` of each.
    lanes : tuple of int, optional
        Where they are not the planner's own choice: what `compile` must be told.
    """

    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    lanes: tuple[int, ...] | None = None

    @property
    def failed(self) -> bool:
        """Whether there are no figures."""
        return bool(self.reason)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        if self.failed:
            return {"state": "FAIL", "reason": self.reason}
        lanes = None if self.lanes is None else list(self.lanes)
        return {
            "state": "COMPLETE",
            "figures": dict(self.figures),
            "layers": [dict(layer) for layer in self.layers],
            "lanes": lanes,
        }

    @classmethod
    def from_json(cls, value: Any, place: Place, planned: bool = True) -> "Outcome":
        """Inverse of `to_json`; raises InputError on anything else, and where a figure is missing
        that a job has, ``planned`` or not."""
        if isinstance(value, dict) and value.get("state") == "FAIL":
            return cls(reason=read(Failed, value, place)["reason"] or "unknown")
        told = read(Complete, value, place)
        figures, where = told["figures"], place.key("figures")
        for name in (*_JUDGED, *(COUNTED if planned else ())):
            if name not in figures:
                raise InputError(f"{where.key(name)} is missing")
            if name not in _SIGNED and figures[name] < 0:
                raise where.key(name).wrong("at least 0", figures[name])
        return cls(figures=figures, layers=told["layers"], lanes=told["lanes"])


class Failed(TypedDict):
    """A trial that gave nothing, in a journal."""

    state: Annotated[str, one_of("FAIL")]
    reason: str


class TriedLayer(TypedDict):
    """What is read of a layer's figures."""

    n_over_k: float | None
    lanes: int


class Complete(TypedDict):
    """A trial that gave figures, in a journal."""

    state: Annotated[str, one_of("COMPLETE")]
    figures: dict[str, float]
    layers: tuple[Annotated[TriedLayer, OPEN], ...]
    lanes: tuple[int, ...] | None


def evaluate_trial(job: Job) -> Outcome:
    """Quantizes (quickly: fewer frames, no sweeps over the whole network), runs the golden model
    on the validation frames, and plans the cores.

    Gives the same outcome for the same job and files in every process. What does not work (it
    does not fit, K is impossible, the metric fails) is an outcome with a reason; raises InputError
    only where model or data are not those of the task.
    """
    model, calibration, validation = loaded(job.task)
    try:
        return _tried(job, model, calibration, validation)
    except MemoryError:
        return Outcome(reason="Memory is exhausted")
    except PvqError as error:
        return Outcome(reason=" ".join(str(error).split()))
    except Exception as error:  # one odd configuration must not end hours of search
        return Outcome(reason=" ".join(f"{type(error).__name__}: {error}".split())[:300])


def _tried(job: Job, model: Model, calibration: Data, validation: Data) -> Outcome:
    options = job.options
    if options.output is not None:
        model = model.for_output(options.output)
    target = job.task.target(options.target)
    if not job.planned:
        network = _alone(model, options, calibration)
        return Outcome(figures=judge(job.task, model, network, validation))
    lanes = None
    if job.lane_share > 1:
        plain = replace(options, quantizer="plain", engine="folded")
        _, folding = quantize_for(model, target, plain, calibration, quick=True)
        lanes = tuple(max(1, p // job.lane_share) for p in folding.lanes)
        options = replace(options, lanes=lanes)  # which fold all layers
    network, folding = quantize_for(model, target, options, calibration, quick=True)
    planned = plan_for(network, target, options, folding)
    figures = judge(job.task, model, network, validation) | plan_figures(planned)
    layers = tuple(
        {key: layer[key] for key in ("layer", "n_over_k", "lanes", "pulses") if key in layer}
        for layer in planned.to_json()["layers"]
    )
    return Outcome(figures=figures, layers=layers, lanes=lanes)


def _alone(model: Model, options: CompileOptions, calibration: Data) -> Network:
    """Quantized without regard to lanes."""
    from pvq_hw.quantizer.quantize import quantize

    return quantize(model, quantizer_options(options, quick=True), calibration=calibration.x)


def judge(task: Task, model: Model, network: Network, data: Data) -> dict[str, float]:
    """How the golden model does on labeled data, the figures of a trial without a plan.

    ``reckoned_loss`` is what it loses against the float model: points of accuracy as
    `pvq_hw.evaluate.caution` reckons them, of other metrics the metric's own loss.
    """
    exact, golden = float_outputs(model, data), _outputs(network, data)
    y = labels(data)
    spread = float(exact.std()) or 1.0
    metric = metric_for(model, y, task.metric)
    value = metric.compute(golden, y)
    if metric.name == "accuracy":
        reckoned = cautious_loss(exact, golden, y, metric.answers)
    else:
        reckoned = metric.loss(value) - metric.loss(metric.compute(exact, y))
    return {
        "metric": value,
        "reckoned_loss": significant(reckoned),
        "output_error": significant(float(np.sqrt(np.mean((golden - exact) ** 2))) / spread),
        "n_over_k": significant(network.n_over_k),
    }


def plan_figures(planned: Plan) -> dict[str, float]:
    """Cycles, bits, resources and modelled energy of a plan."""
    value = planned.to_json()
    figures = {key: value[key] for key in _PLANNED}
    figures |= {key: value["resources"][key] for key in _USED}
    figures["energy_nj"] = value["energy"]["nj_per_inference"]
    figures["energy_int8_nj"] = value["energy"]["int8_nj_per_inference"]
    return figures


_JUDGED = ("metric", "output_error", "n_over_k", "reckoned_loss")
_SIGNED = ("metric", "reckoned_loss")
_PLANNED = (
    "interval_cycles",
    "latency_cycles",
    "inferences_per_second",
    "code_bits",
    "bits_per_weight",
    "parameter_bits_per_weight",
)
_USED = ("luts", "ffs", "brams", "dsps")
COUNTED = (*_PLANNED, *_USED, "energy_nj", "energy_int8_nj")


def _outputs(network: Network, data: Data) -> npt.NDArray[np.float64]:
    integers = network.predict(network.quantize_input(data.x, data.input_scale))
    return network.real(integers)


def float_outputs(model: Model, data: Data) -> npt.NDArray[np.float64]:
    """What the float model gives, (frames, outputs)."""
    exact = model.predict(data.x, data.input_scale)
    return np.asarray(exact.reshape(len(exact), -1), dtype=float)


def labels(data: Data) -> npt.NDArray[Any]:
    """The labels; raises InputError where there are none."""
    if data.y is None:
        raise InputError("Data to tune with must have labels y")
    return data.y


def split(data: Data, seed: int) -> tuple[Data, Data]:
    """Calibration and validation frames, drawn by ``seed``, each in the order of the data: a
    quarter validates, 10,000 at most, and the rest calibrates.

    Raises InputError without labels, and for fewer than 8 frames.
    """
    y, count = labels(data), len(data)
    if count < 8:
        raise InputError(f"Data to tune with must have at least 8 frames, not {count}")
    order = np.random.default_rng([seed, 0x7E57]).permutation(count)
    held = min(_LARGEST_SPLIT, count // 4)
    parts = (np.sort(order[held:]), np.sort(order[:held]))
    first, second = (Data(data.x[part], y[part], data.input_scale) for part in parts)
    return first, second


@lru_cache(maxsize=1)
def loaded(task: Task) -> tuple[Model, Data, Data]:
    """Model, calibration and validation frames of a task; raises InputError unless the files are
    the task's."""
    from pvq_hw.output.hashes import file_sha256

    if task.version != pvq_hw.__version__:
        raise InputError(f"A worker must have pvq-hw {task.version}, not {pvq_hw.__version__}")
    model, data = Path(task.model), Path(task.data)
    for path, digest in ((model, task.model_sha256), (data, task.data_sha256)):
        try:
            same = file_sha256(path) == digest
        except OSError as error:
            raise InputError(
                f"{path} can't be read, which every worker does: {error.strerror}"
            ) from None
        if not same:
            raise InputError(f"{path} must stay as it was when the search started")
    loaded = load_model(model)
    found = load_data(data, task.input_scale, loaded.inputs)
    return loaded, *split(found, task.seed)
