"""The pulses and the layers of 8-bit weights that a given loss allows, chosen for a goal.

A part of the calibration inputs is held out and decides, with the caution that their number asks
for (`pvq_hw.evaluate.caution`). All layers as 8-bit weights are one
choice; for pulses, the largest N/K within the loss is found by halving a ladder of ratios, with
quick quantizations; then the layers that lose most get 8-bit weights, one by one, where that
lets the others have fewer pulses and the goal is better served. What comes out is quantized
with full effort and measured again on the inputs held out; where it loses too much after all, the
next best is taken.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pvq_hw.arith.formats import significant
from pvq_hw.data.dataset import Data
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.evaluate.attribution import network_losses
from pvq_hw.evaluate.caution import cautious_loss
from pvq_hw.evaluate.metrics import answers
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.options_toml import options_toml
from pvq_hw.flow.reach import Made, Planner, TooSlowError, reach
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.progress import Steps
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.target.boards import Target

__all__ = ["Choice", "Trial", "choose"]

_RATIOS = tuple(significant(40 / 2 ** (step / 2), 3) for step in range(12))  # 40 down to 0.88
_LEAST_FRAMES = 20
_HELD = 5  # one frame of so many is held out
_SPARED = 3  # layers that are tried as 8-bit weights at a ratio
_HYBRIDS = 6  # quantizations that may be spent on them
_NEITHER = float("nan"), float("nan")  # losses of what does not fit
_CLASS_HEADS = ("Softmax", "LogSoftmax", "ArgMax", "Hardmax")


@dataclass(frozen=True)
class Trial:
    """One choice and what came of it.

    Parameters
    ----------
    ratio : float
        N/K of the layers of pulses; 0 where there are none.
    int8 : tuple of str
        Layers of 8-bit weights that the choice, not the user, asked for.
    full : bool
        Whether it was quantized with full effort.
    loss : float
        On the inputs held out; NaN where it doesn't fit.
    reckoned : float
        What decides: of right answers the loss that is to be reckoned with on other inputs, no
        less than ``loss``; else the same.
    figures : mapping
        ``inferences_per_second``, ``interval_cycles``, ``latency_cycles``, ``luts``, ``code_bits``
        and ``energy_nj`` of the plan; empty where it doesn't fit.
    why : str
        Why it doesn't fit.
    """

    ratio: float
    int8: tuple[str, ...]
    full: bool
    loss: float
    reckoned: float
    figures: Mapping[str, float]
    why: str = ""

    @property
    def fits(self) -> bool:
        """Whether the board holds it."""
        return bool(self.figures)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "ratio": self.ratio or None,
            "int8_layers": list(self.int8),
            "full": self.full,
            "loss": significant(self.loss, 4) if self.fits else None,
            "reckoned_loss": significant(self.reckoned, 4) if self.fits else None,
            **self.figures,
            "fits": self.fits,
            "why": self.why,
        }

    def text(self, unit: str) -> str:
        """One line for people."""
        what = f"N/K {self.ratio:g}" if self.ratio else "all layers as 8-bit weights"
        if self.ratio and self.int8:
            what += f", 8-bit weights in {', '.join(self.int8)}"
        if not self.fits:
            return f"{what}: {self.why}"
        careful = f", {self.reckoned:.2f} reckoned with" if self.reckoned != self.loss else ""
        return (
            f"{what}: loses {self.loss:.2f} {unit}{careful}, "
            f"{self.figures['inferences_per_second']:,.0f} inferences a second"
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen.

    Parameters
    ----------
    options : CompileOptions
        With the ratio and the layers of 8-bit weights, and no loss to look for.
    made : Made
        Network and plan.
    document : dict
        JSON values: ``max_loss``, ``objective``, ``unit`` of the loss, ``frames`` held out,
        ``trials`` in the order they were made, ``chosen`` (the trial's number) and ``config``, the
        options as TOML.
    """

    options: CompileOptions
    made: Made
    document: dict[str, Any]


def choose(
    model: Model,
    target: Target,
    options: CompileOptions,
    calibration: Data | None,
    planner: Planner,
    steps: Steps | None = None,
) -> Choice:
    """Finds ratio and 8-bit layers for ``options.max_loss`` and ``options.objective``.

    Parameters
    ----------
    model : Model
    target : Target
    options : CompileOptions
        What they say layer by layer stays as it is.
    calibration : Data
        A fifth of it is held out. With class numbers as labels the loss is in points of accuracy;
        without labels, of a model that ends in a softmax or the like, in percent of frames with
        another answer, which is at least as much; of others the root mean square error of
        the outputs in percent of their standard deviation.
    planner : callable
        As `pvq_hw.flow.compile.plan_for`.
    steps : Steps, optional

    Raises
    ------
    InputError
        There are no or too few calibration inputs, or nothing fits the board.
    CheckError
        Nothing that fits loses so little, unless that is merely an aim, or nothing is as fast as
        ``options.goal``.
    """
    if calibration is None or len(calibration) < _LEAST_FRAMES:
        count = 0 if calibration is None else len(calibration)
        raise InputError(
            f"--max-loss must come with --calibrate and at least {_LEAST_FRAMES} inputs to choose "
            f"by, not {count}; with fewer, give --ratio"
        )
    return Search(model, target, options, calibration, planner, steps or Steps()).run()


class Search:
    """Trials on one model; see `choose`."""

    def __init__(
        self,
        model: Model,
        target: Target,
        options: CompileOptions,
        calibration: Data,
        planner: Planner,
        steps: Steps,
    ) -> None:
        order = np.random.default_rng([options.seed, 0xC105E]).permutation(len(calibration))
        held = len(calibration) // _HELD
        self._fit = _part(calibration, np.sort(order[held:]))
        self._held = _part(calibration, np.sort(order[:held]))
        self._loss, self.unit = _judge(model, self._held)
        self._model, self._target, self._options = model, target, options
        self._planner, self._steps = planner, steps
        names = [step.name for step in network_steps(model) if step.weighted]
        resolved = options.resolved(names)
        self._free = tuple(name for name in names if name not in resolved.layers)
        self._most = float(options.max_loss or 0.0)
        self.trials: list[Trial] = []
        self._made: dict[tuple[float, tuple[str, ...], bool], Made] = {}
        self._slow: list[TooSlowError] = []

    def run(self) -> Choice:
        what = "Aims at a loss of" if self._options.aim else "May lose"
        self._steps.note(
            f"{what} at most {self._most:g} {self.unit} on {len(self._held)} inputs held out; "
            "--ratio says how many pulses there are instead"
        )
        self._try(0.0, self._free)
        best = self._halve()
        if best is not None:
            self._spare(best)
        for ratio, int8 in self._order():
            trial = self._try(ratio, int8, full=True)
            if self._passes(trial):
                return self._chosen(trial)
        least = min(
            (t for t in self.trials if t.full and t.fits), key=lambda t: t.reckoned, default=None
        )
        if self._options.aim and least is not None:
            self._steps.note(f"Nothing found loses so little; the least: {least.text(self.unit)}")
            return self._chosen(least)
        raise self._refusal()

    # -- one trial ------------------------------------------------------------------------------

    def _asked(self, ratio: float, int8: tuple[str, ...]) -> CompileOptions:
        options = replace(
            self._options,
            max_loss=None,
            aim=False,
            int8=tuple(dict.fromkeys((*self._options.int8, *int8))),
        )
        return replace(options, ratio=ratio) if ratio else options

    def _try(self, ratio: float, int8: tuple[str, ...], *, full: bool = False) -> Trial:
        key = (ratio, int8, full)
        for trial in self.trials:
            if (trial.ratio, trial.int8, trial.full) == key:
                return trial
        what = f"N/K {ratio:g}" if ratio else "8-bit weights"
        more = f", 8-bit weights in {len(int8)}" if ratio and int8 else ""
        with self._steps.step(f"{'Quantize at' if full else 'Try'} {what}{more}"):
            trial = self.trial(ratio, int8, full)
        self.trials.append(trial)
        self._steps.note(trial.text(self.unit))
        return trial

    def trial(self, ratio: float, int8: tuple[str, ...], full: bool) -> Trial:
        options = self._asked(ratio, int8)
        try:
            made = reach(
                self._model, self._target, options, self._fit, self._planner,
                self._steps.progress, quick=not full,
            )  # fmt: skip
        except TooSlowError as error:
            self._slow.append(error)
            return Trial(ratio, int8, full, *_NEITHER, {}, str(error))
        except InputError as error:
            return Trial(ratio, int8, full, *_NEITHER, {}, str(error))
        self._made[ratio, int8, full] = made
        planned = made.plan
        figures = {
            "inferences_per_second": significant(planned.inferences_per_second, 6),
            "interval_cycles": planned.interval_cycles,
            "latency_cycles": planned.latency_cycles,
            "luts": planned.resources.luts,
            "code_bits": planned.code_bits,
            "energy_nj": significant(planned.energy_nj, 6),
        }
        return Trial(ratio, int8, full, *self._loss(made.network.undecided), figures)

    def _passes(self, trial: Trial) -> bool:
        return trial.fits and trial.reckoned <= self._most

    def _rank(self, trial: Trial) -> tuple[float, float, float]:
        """Less is better; of equal ones the smaller, then the one of less energy."""
        figures, objective = trial.figures, self._options.objective
        if self._options.goal and objective == "speed":
            objective = "size"
        rank = {
            "speed": -figures["inferences_per_second"],
            "latency": figures["latency_cycles"],
            "size": figures["luts"],
            "energy": figures["energy_nj"],
        }[objective]
        return rank, figures["luts"], figures["energy_nj"]

    # -- the search -----------------------------------------------------------------------------

    def _halve(self) -> Trial | None:
        """The largest ratio of the ladder that passes, by halving: the more pulses, the less is
        lost, until they don't fit."""
        weights = [step.weight for step in network_steps(self._model) if step.weighted]
        most = sum(w.size for w in weights) / sum(len(w) for w in weights)
        ladder = [ratio for ratio in _RATIOS if ratio <= most] or [_RATIOS[-1]]
        low, high, best = 0, len(ladder) - 1, None
        while low <= high and self._free:
            middle = (low + high) // 2
            trial = self._try(ladder[middle], ())
            if self._passes(trial):
                best, high = trial, middle - 1
            elif trial.fits:
                low = middle + 1
            else:
                high = middle - 1
        return best

    def _spare(self, best: Trial) -> None:
        """Tries 8-bit weights in the layers that lose most, at ratios above the best one's."""
        spent = 0
        spared: tuple[str, ...] = ()
        for ratio in reversed([r for r in _RATIOS if r > best.ratio]):
            trial = self._try(ratio, spared)
            if not trial.fits:
                return
            for name in self._losers(trial):
                if self._passes(trial) or spent == _HYBRIDS:
                    break
                wider = tuple(n for n in self._free if n in {*spared, name})
                found, spent = self._try(ratio, wider), spent + 1
                # One that is no better than what is there already is no way to go on.
                if found.fits and self._rank(found) < self._rank(best):
                    trial, spared = found, wider
            if not self._passes(trial) or not self._rank(trial) < self._rank(best):
                return
            best = trial

    def _losers(self, trial: Trial) -> list[str]:
        network = self._made[trial.ratio, trial.int8, trial.full].network
        layers = network_losses(self._model, network, replace(self._held, y=None))["layers"]
        layers.sort(key=lambda layer: -layer["share"])
        names = [layer["name"] for layer in layers]
        return [n for n in names if n in self._free and n not in trial.int8][:_SPARED]

    def _order(self) -> Iterator[tuple[float, tuple[str, ...]]]:
        """What to quantize with full effort: a notch above the best first, since that loses
        less than a quick trial, then all that passed, the best first."""
        passed = sorted((t for t in self.trials if self._passes(t)), key=self._rank)
        if passed and passed[0].ratio:
            above = [r for r in _RATIOS if r > passed[0].ratio]
            failed = {(t.ratio, t.int8) for t in self.trials if not t.fits}
            if above and (above[-1], passed[0].int8) not in failed:
                yield above[-1], passed[0].int8
        for trial in passed:
            yield trial.ratio, trial.int8
        # Quick trials lose more than full ones: perhaps the closest of them is good enough.
        rest = [t for t in self.trials if t.fits and not t.full and t not in passed]
        if rest:
            closest = min(rest, key=lambda trial: trial.reckoned)
            yield closest.ratio, closest.int8

    def _chosen(self, trial: Trial) -> Choice:
        options = self._asked(trial.ratio, trial.int8)
        document = {
            "max_loss": self._most,
            "aim": self._options.aim,
            "objective": self._options.objective,
            "goal": self._options.goal.text(),
            "unit": self.unit,
            "frames": len(self._held),
            "calibration_frames": len(self._fit),
            "trials": [t.to_json() for t in self.trials],
            "chosen": self.trials.index(trial),
            "config": options_toml(options),
        }
        return Choice(options, self._made[trial.ratio, trial.int8, True], document)

    def _refusal(self) -> CheckError | InputError:
        fitting = [trial for trial in self.trials if trial.fits]
        if not fitting and self._slow:
            return min(self._slow, key=lambda error: error.excess)
        if not fitting:
            return InputError(self.trials[-1].why)
        least = min(fitting, key=lambda trial: trial.reckoned)
        fast = f" with {self._options.goal.text()}" if self._options.goal else ""
        return CheckError(
            f"Loss must be at most {self._most:g} {self.unit}, but the least found{fast} on "
            f"{self._target.name} is {least.reckoned:.2f} ({least.text(self.unit).split(':')[0]}); "
            "give a larger board, more calibration inputs or a larger --max-loss"
        )


def _part(data: Data, index: Any) -> Data:
    return replace(data, x=data.x[index], y=None if data.y is None else data.y[index])


def _judge(model: Model, held: Data) -> tuple[Callable[[Network], tuple[float, float]], str]:
    """What a network loses on the inputs held out, and is to be reckoned to lose; and the unit of
    that."""
    exact = model.predict(held.x, held.input_scale)
    flat = exact.reshape(len(exact), -1)

    def real(network: Network) -> Any:
        integers = network.predict(network.quantize_input(held.x, held.input_scale))
        return network.real(integers).reshape(len(exact), -1)

    if held.y is not None and (not model.outputs or model.scored):
        y, judge = held.y, metric_for(model, held.y)
        if judge.name == "accuracy":
            right = judge.compute(exact, y)

            def points(network: Network) -> tuple[float, float]:
                ours = real(network)
                counted = right - judge.compute(ours, y)
                return counted, cautious_loss(flat, ours, y, judge.answers)

            return points, "points of accuracy"
    if not model.outputs and any(kind in _CLASS_HEADS for kind in model.dropped):
        named = answers(exact)

        def changed(network: Network) -> tuple[float, float]:
            ours = real(network)
            counted = 100.0 * float(np.mean(answers(ours) != named))
            return counted, cautious_loss(flat, ours, named)

        return changed, "% of answers"
    spread = float(np.sqrt(np.square(flat - flat.mean(axis=0)).mean())) or 1.0

    def error(network: Network) -> tuple[float, float]:
        found = 100.0 * float(np.sqrt(np.square(real(network) - flat).mean())) / spread
        return found, found

    return error, "% output error"
