"""Fine-tuning without options: inputs held out pick the recipe, and no worse network is given back.

A fifth of the data is held out. On the rest a few recipes are tried: gains and biases alone, then
pulses too, at rates and with teachers that suit different networks, maps varied at random. The best
of them and the best that moves pulses train longer; where pulses moved, gains and biases are
learned once more behind them. Each is judged by the integer golden model on the inputs held out;
where none answers better than the codes it started from, these are what comes out. Nothing is
trained where nothing can be better.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.evaluate.metrics import network_outputs
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.progress import Steps
from pvq_hw.train.finetune import FineTuned, Training, finetune, untrained

__all__ = ["HELD", "LEAST_FRAMES", "RECIPES", "Picked", "Tried", "pick", "suited", "variation"]

HELD = 5
"""One input of so many is held out."""

LEAST_FRAMES = 20
_STEPS = 400  # of a try, about
_LONG = (12, 1200)  # epochs and steps of a long run, at least
_EPOCHS = 100  # at most
_SETTLE = 3  # part of the epochs for gains and biases behind pulses that moved
_BATCHES = (16, 256)
_PER_EPOCH = 24  # steps, where there are enough frames
_MOST = 12_000  # inputs that recipes are tried on
_COLORS = 3  # channels of an image that may be mirrored
_EIGHTH = 8  # part of its sides by which it is moved
_CHUNK = 1000  # frames that are judged at a time
_PERFECT = {"accuracy": 100.0, "auc": 1.0, "rmse": 0.0}
_DISTANCE = "distance from the float network's outputs"

RECIPES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("gains and biases", {"rate": 0.0}),
    ("gains and biases, float network's outputs", {"rate": 0.0, "distill": 1.0}),
    ("few pulses move", {"rate": 5e-4, "distill": 0.5}),
    ("some pulses move", {"rate": 1e-3, "distill": 0.3}),
    (
        "some pulses move, float network's outputs of mixtures",
        {"rate": 1e-3, "distill": 1.0, "augment": "mix"},
    ),
    ("many pulses move", {"rate": 2e-3, "distill": 0.1, "project_every": 4, "by_row": True}),
)
"""What is tried first: names, and the fields of `Training` that make them."""


@dataclass(frozen=True)
class Tried:
    """A recipe and what came of it on the inputs held out.

    Parameters
    ----------
    name : str
    training : Training, optional
        None: the codes that training started from.
    figure : float
        The metric; of data without labels the root mean square distance from the float network's
        outputs.
    doubt : float
        What decides between recipes of equal figures, less is better: of class numbers the mean
        cross-entropy, else the figure.
    """

    name: str
    training: Training | None
    figure: float
    doubt: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "training": None if self.training is None else vars(self.training),
            "figure": significant(self.figure, 6),
            "doubt": significant(self.doubt, 6),
        }


@dataclass(frozen=True, eq=False)
class Picked:
    """What `pick` gives.

    Parameters
    ----------
    tuned : FineTuned
        The best of all.
    metric : str
        What the figures are.
    held : int
        Inputs held out.
    tried : tuple of Tried
        The codes as they were first.
    chosen : int
        Of ``tried``.
    """

    tuned: FineTuned
    metric: str
    held: int
    tried: tuple[Tried, ...]
    chosen: int

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "metric": self.metric,
            "held": self.held,
            "tried": [t.to_json() for t in self.tried],
            "chosen": self.chosen,
        }


def suited(frames: int, epochs: int = 1, steps: int = _STEPS, /, **asked: Any) -> Training:
    """A training whose batches suit so many frames, of so many epochs and steps at least (but of
    no more than 100 epochs), with what is ``asked`` for."""
    low, high = _BATCHES
    batch = asked.get("batch") or min(high, max(low, 1 << (frames // _PER_EPOCH).bit_length()))
    needed = math.ceil(steps / max(1, frames // batch))
    found: dict[str, Any] = {"batch": batch, "epochs": min(_EPOCHS, max(epochs, needed))}
    return Training(**found | asked)


def variation(model: Model) -> dict[str, Any]:
    """Fields of `Training` that vary the inputs of a model: images in color are mirrored and moved
    by up to an eighth of their shorter side, other maps and series moved by up to a place."""
    if len(model.shape) != 3 or max(model.shape[:2]) < 2:
        return {}
    side, channels = min(model.shape[:2]), model.shape[2]
    if channels == _COLORS and side >= _EIGHTH:
        return {"shift": side // _EIGHTH, "mirror": True}
    return {"shift": 1}


def pick(
    model: Model,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    start: Network,
    asked: Mapping[str, Any] | None = None,
    metric: str | None = None,
    input_scale: float = 1.0,
    seed: int = 0,
    steps: Steps | None = None,
    **options: Any,
) -> Picked:
    """Fine-tunes by several recipes and gives what answers best on inputs held out.

    Parameters
    ----------
    model, x, y, start, input_scale, seed
        As `pvq_hw.train.finetune.finetune` takes them; 20 inputs at least.
    asked : mapping, optional
        Fields of `Training` that all recipes have.
    metric : str, optional
        What labels are judged by; see `pvq_hw.evaluate.metrics.find_metric`.
    steps : Steps, optional
        Is told of the recipes.
    options
        More of `finetune`'s.

    Raises
    ------
    InputError
        There are too few inputs, or they can't be used.
    ToolError
        Without PyTorch.
    """
    data = Data(np.asarray(x), None if y is None else np.asarray(y), input_scale)
    if len(data) < LEAST_FRAMES:
        raise InputError(
            f"Data must have at least {LEAST_FRAMES} inputs to pick a recipe by, not {len(data)}"
        )
    given = {"start": start, "input_scale": input_scale, "seed": seed, **options}
    return _Picking(model, data, metric, dict(asked or {}), given, steps or Steps()).run()


class _Picking:
    """Runs on one model; see `pick`."""

    def __init__(
        self,
        model: Model,
        data: Data,
        metric: str | None,
        asked: dict[str, Any],
        given: dict[str, Any],
        steps: Steps,
    ) -> None:
        order = np.random.default_rng([given["seed"], 0xF17E]).permutation(len(data))
        count = len(data) // HELD
        self._held = _part(data, np.sort(order[:count]))
        self._fit = _part(data, np.sort(order[count:]))
        few = len(data) - count <= _MOST
        self._some = self._fit if few else _part(data, np.sort(order[count : count + _MOST]))
        self._model, self._asked, self._given, self._steps = model, asked, given, steps
        exact = model.predict(self._held.x, data.input_scale)
        self._exact = exact.reshape(len(exact), -1)
        self._metric = None if data.y is None else metric_for(model, data.y, metric)
        self.tried: list[Tried] = []
        self._made: list[FineTuned] = []

    @property
    def unit(self) -> str:
        """What the figures are."""
        return self._metric.name if self._metric else _DISTANCE

    def run(self) -> Picked:
        """Short runs on some of the data, then long ones of the best recipes on all of it."""
        with self._steps.step("Judge the codes to start from"):
            self._keep(
                "codes as they were", None, untrained(self._model, self._fit.x, **self._given)
            )
        if self._metric and self.tried[0].figure == _PERFECT.get(self._metric.name):
            return Picked(self._made[0], self.unit, len(self._held), tuple(self.tried), 0)
        self._try_recipes()
        for best in dict.fromkeys((self._best(), self._best(moves=True))):
            if best:
                self._lengthen(best)
        self._settle()
        better = self._best()
        worse = self._rank(self.tried[better])[0] >= self._rank(self.tried[0])[0]
        best = 0 if worse else better
        return Picked(self._made[best], self.unit, len(self._held), tuple(self.tried), best)

    def _try_recipes(self) -> None:
        """All recipes, maps varied; of few inputs the best that moves pulses also as they are."""
        free = not {"shift", "mirror", "augment"} & set(self._asked)
        varied = variation(self._model) if free else {}
        basis = replace(suited(len(self._some), **self._asked), **varied)
        for name, fields in RECIPES:
            own = {field: v for field, v in fields.items() if field not in self._asked}
            if self._fit.y is None:
                own["distill"] = 1.0
            self._train(name, replace(basis, **own), self._some)
        best = self._best(moves=True)
        training = self.tried[best].training
        if varied and training and self._some is self._fit:
            plain = replace(training, shift=0, mirror=False)
            self._train(f"{self.tried[best].name}, inputs as they are", plain, self._some)

    def _best(self, moves: bool = False) -> int:
        """The place of the best that was trained (with ``moves``, pulses too); 0 for none."""
        places = [
            i
            for i, tried in enumerate(self.tried)
            if tried.training and (tried.training.rate > 0 or not moves)
        ]
        return min(places, key=lambda i: self._rank(self.tried[i]), default=0)

    def _lengthen(self, place: int) -> None:
        """A recipe that was tried, for longer and on all the data."""
        tried = self.tried[place]
        assert tried.training is not None
        whole = suited(len(self._fit), *_LONG, **self._asked)
        longer = replace(tried.training, batch=whole.batch, epochs=whole.epochs)
        self._train(f"{tried.name}, longer", longer, self._fit)

    def _settle(self) -> None:
        """Gains and biases once more, where the best moved pulses."""
        best = self._best()
        training = self.tried[best].training
        if training and training.rate > 0:
            name = f"{self.tried[best].name}, then gains and biases"
            epochs = self._asked.get("epochs", -(-training.epochs // _SETTLE))
            after = replace(training, rate=0.0, epochs=epochs)
            self._train(name, after, self._fit, self._made[best].network)

    def _train(
        self, name: str, training: Training, data: Data, start: Network | None = None
    ) -> None:
        again = any(tried.training == training for tried in self.tried)
        if again and data is self._some and start is None:
            return
        given = self._given | ({} if start is None else {"start": start})
        with self._steps.step(f"Train: {name}"):
            tuned = finetune(
                self._model, data.x, data.y, training=training,
                progress=lambda what, part: self._steps.progress(part, 1, what), **given,
            )  # fmt: skip
        self._keep(name, training, tuned)

    def _keep(self, name: str, training: Training | None, tuned: FineTuned) -> None:
        found = Tried(name, training, *self._judged(tuned.network))
        self._steps.note(
            f"{name}: {self._shown(found.figure)} on {len(self._held)} inputs held out"
        )
        self.tried.append(found)
        self._made.append(tuned)

    def _shown(self, figure: float) -> str:
        return f"{self.unit} " + (self._metric.text(figure) if self._metric else f"{figure:.4g}")

    def _rank(self, tried: Tried) -> tuple[float, float]:
        """Less is better."""
        loss = self._metric.loss(tried.figure) if self._metric else tried.figure
        return loss, tried.doubt

    def _judged(self, network: Network) -> tuple[float, float]:
        held = self._held
        parts = [held.x[i : i + _CHUNK] for i in range(0, len(held), _CHUNK)]
        out = np.concatenate(
            [network.real(network.predict(network.quantize_input(x, held.input_scale)))
             for x in parts]
        )  # fmt: skip
        flat = out.reshape(len(out), -1)
        if self._metric is None or held.y is None:
            distance = float(np.sqrt(np.square(flat - self._exact).mean()))
            return distance, distance
        figure = self._metric.compute(flat, held.y)
        if self._metric.classes and flat.shape[1] > 1:
            logs = network_outputs(flat, ("LogSoftmax",))
            place = held.y.reshape(-1, 1).astype(np.int64)
            return figure, -float(np.take_along_axis(logs, place, axis=1).mean())
        return figure, self._metric.loss(figure)


def _part(data: Data, index: npt.NDArray[np.int64]) -> Data:
    return replace(data, x=data.x[index], y=None if data.y is None else data.y[index])
