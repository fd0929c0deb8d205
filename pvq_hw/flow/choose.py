"""The pulses and the layers of 8-bit weights that a given loss allows, chosen for a goal.

A part of the calibration inputs is held out and decides, with the caution that their number asks
for (`pvq_hw.evaluate.caution`). Where LUTs or cycles decide, quick quantizations of large networks
are not planned: the planner reckons these before. All layers as 8-bit weights are one
choice; for pulses, the largest N/K within the loss is found on a ladder of ratios, with quick
quantizations, each where the ones before say that the loss should be just small enough; then the
layers that lose most get 8-bit weights, one by one, where that lets the others have fewer pulses
and the planner reckons that the goal is better served. What comes out is quantized
with full effort and measured again on the inputs held out; where it loses too much after all, the
next best is taken.
"""

import math
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
from pvq_hw.flow.quantize import quantize_for, reckon
from pvq_hw.flow.reach import Made, Planner, TooSlowError, reach
from pvq_hw.model.model import Model
from pvq_hw.network.network import Network
from pvq_hw.plan.plan import Plan
from pvq_hw.progress import Steps
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.target.boards import Target
from pvq_hw.target.pll import solve_pll

__all__ = ["LARGE", "Choice", "Trial", "choose"]

LARGE = 1_000_000
"""Multiplications of a frame from which quick quantizations are not planned: it takes longer."""

_RATIOS = tuple(significant(40 / 2 ** (step / 2), 3) for step in range(15))  # 40 down to 0.31
_START = 2.0  # N/K that is tried first for a loss of 1; it grows as the root of the loss
_POWER = 1.5  # of N/K that losses grow as, about
_FAR = 4  # rungs of the ladder at once, at most
_SLIGHT = 0.01  # a loss of no less says how far to go
_HOPE = 1.4  # times the loss asked for of a quick trial, from which full effort makes it
_LEAST_FRAMES = 20
_HELD = 5  # one frame of so many is held out
_SPARED = 3  # layers that are tried as 8-bit weights at a ratio
_HYBRIDS = 4  # quantizations that may be spent on them
_FAR_OFF = 2.5  # times the loss asked for, which a few layers of 8-bit weights don't bring down
_WORSE = 1.1  # times what was reckoned of the best, of choices that are not tried
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
        What decides: of right answers the loss that is to be reckoned with on other inputs, as
        `pvq_hw.evaluate.caution` has it; else the same.
    figures : mapping
        ``inferences_per_second``, ``interval_cycles`` and ``luts`` of the plan, or as reckoned;
        of a plan also ``latency_cycles``, ``code_bits`` and ``energy_nj``. Empty where it doesn't
        fit.
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
    def key(self) -> tuple[float, tuple[str, ...]]:
        """What tells the choice from others."""
        return self.ratio, self.int8

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
        said = options.resolved(names).layers
        self._free = tuple(n for n in names if n not in said or not said[n].settled)
        self._most = float(options.max_loss or 0.0)
        self._by = options.objective
        if options.goal and self._by == "speed":
            self._by = "size"
        large = model.macs >= LARGE
        self._reckons = large and self._by in ("speed", "size") and not options.goal
        # Losses of quick trials that are worth another: of small networks any, since it is cheap.
        self._hope, self._far_off = (
            (_HOPE * self._most, _FAR_OFF * self._most) if large else (math.inf, math.inf)
        )
        self._networks: dict[tuple[float, tuple[str, ...], bool], Network] = {}
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
        best = self._narrow()
        if best is not None and not any(map(self._near, self.trials)):
            self._spare(best)
        for ratio, int8 in self._order():
            trial = self._try(ratio, int8, full=True)
            if self._passes(trial):
                return self._chosen(self._better(trial))
        for ratio in self._denser():
            trial = self._try(ratio, (), full=True)
            if self._passes(trial):
                return self._chosen(self._better(trial))
        least = min(
            (t for t in self.trials if t.full and t.fits), key=lambda t: t.reckoned, default=None
        )
        if self._options.aim and least is not None:
            self._steps.note(f"Nothing found loses so little; the least: {least.text(self.unit)}")
            return self._chosen(least)
        raise self._refusal()

    def _better(self, taken: Trial) -> Trial:
        """The choice, or all 8-bit weights: what was reckoned of pulses may have been too good."""
        plain = self._try(0.0, self._free)
        if taken.ratio and self._passes(plain) and self._rank(plain) < self._rank(taken):
            full = self._try(*plain.key, full=True)
            if self._passes(full) and self._rank(full) < self._rank(taken):
                return full
        return taken

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
            if (*trial.key, trial.full) == key:
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
        if ratio and not full and self._reckons and (found := self._rough(options)):
            network, figures = found
        else:
            try:
                made = reach(
                    self._model, self._target, options, self._fit, self._planner,
                    self._steps.progress, quick=not full, refuse=False,
                )  # fmt: skip
            except TooSlowError as error:
                self._slow.append(error)
                return Trial(ratio, int8, full, *_NEITHER, {}, str(error))
            except InputError as error:
                return Trial(ratio, int8, full, *_NEITHER, {}, str(error))
            network, figures = made.network, _figures(made.plan)
            self._made[ratio, int8, full] = made
        self._networks[ratio, int8, full] = network
        return Trial(ratio, int8, full, *self._loss(network.undecided), figures)

    def _rough(self, options: CompileOptions) -> tuple[Network, dict[str, float]] | None:
        """A quick quantization, and what the planner reckons before; None where that is too much
        for the board, which the plan may say otherwise."""
        try:
            network, folding = quantize_for(
                self._model, self._target, options, self._fit, self._steps.progress, quick=True,
                reckoned=True,
            )  # fmt: skip
        except InputError:
            return None
        if not folding.fits:
            return None
        hz = solve_pll(self._target, options.clock_mhz or self._target.clock_mhz).hz
        rate = folding.frames * hz / folding.interval_cycles
        return network, {
            "inferences_per_second": significant(rate, 6),
            "interval_cycles": folding.interval_cycles,
            "luts": folding.cost.luts,
        }

    def _passes(self, trial: Trial) -> bool:
        return trial.fits and trial.reckoned <= self._most

    def _rank(self, trial: Trial) -> tuple[float, float, float]:
        """Less is better; of equal ones the smaller, then the one of less energy."""
        figures = trial.figures
        rank = {
            "speed": -figures["inferences_per_second"],
            "latency": figures.get("latency_cycles", 0),
            "size": figures["luts"],
            "energy": figures.get("energy_nj", 0.0),
        }[self._by]
        return rank, figures["luts"], figures.get("energy_nj", 0.0)

    # -- the search -----------------------------------------------------------------------------

    def _narrow(self) -> Trial | None:
        """The largest ratio of the ladder that passes: the more pulses, the less is lost, until
        they don't fit."""
        weights = [step.weight for step in network_steps(self._model) if step.weighted]
        most = sum(w.size for w in weights) / sum(len(w) for w in weights)
        ladder = [ratio for ratio in _RATIOS if ratio <= most] or [_RATIOS[-1]]
        start = math.log(_START * math.sqrt(max(_SLIGHT, self._most)))
        low, high, best = 0, len(ladder) - 1, None
        at = min(range(len(ladder)), key=lambda rung: abs(math.log(ladder[rung]) - start))
        while low <= high and self._free:
            at = min(high, max(low, at))
            trial = self._try(ladder[at], ())
            if not trial.fits:
                high, at = at - 1, (low + at - 1) // 2
                continue
            if self._near(trial):
                break
            if self._passes(trial):
                best, high = trial, at - 1
            else:
                low = at + 1
            at += self._rungs(trial)
        return best

    def _near(self, trial: Trial) -> bool:
        """Whether a quick trial loses so little more that full effort is the next to try: of large
        networks, where another quick one takes half as long."""
        tried = trial.fits and not trial.full and math.isfinite(self._hope)
        return tried and self._most < trial.reckoned <= self._hope

    def _rungs(self, trial: Trial) -> int:
        """How much further down the ladder the loss should be as asked for, at least one away."""
        over = max(_SLIGHT, trial.reckoned) / max(_SLIGHT, self._most)
        rungs = round(math.log(over) / (_POWER * math.log(_RATIOS[0] / _RATIOS[1])))
        return max(-_FAR, min(_FAR, rungs))

    def _spare(self, best: Trial) -> None:
        """Tries 8-bit weights in the layers that lose most, at ratios above the best one's."""
        spent = 0
        spared: tuple[str, ...] = ()
        for ratio in reversed([r for r in _RATIOS if r > best.ratio]):
            trial = self._try(ratio, spared)
            if not trial.fits or trial.reckoned > self._far_off:
                return
            for name in () if self._passes(trial) else self._losers(trial):
                wider = tuple(n for n in self._free if n in {*spared, name})
                if spent == _HYBRIDS or not self._promises(ratio, wider, best):
                    continue
                found, spent = self._try(ratio, wider), spent + 1
                if found.fits and found.reckoned >= trial.reckoned:
                    break  # the others' fewer pulses cost what it brings
                # One that is no better than what is there already is no way to go on.
                if found.fits and self._rank(found) < self._rank(best):
                    trial, spared = found, wider
                if self._passes(trial):
                    break
            if not self._passes(trial) or not self._rank(trial) < self._rank(best):
                return
            best = trial

    def _promises(self, ratio: float, int8: tuple[str, ...], best: Trial) -> bool:
        """Whether the planner reckons that a choice is not much worse than the best one."""
        found, known = (self._reckoned(*choice) for choice in ((ratio, int8), best.key))
        return found is None or known is None or found <= _WORSE * known

    def _reckoned(self, ratio: float, int8: tuple[str, ...]) -> float | None:
        """LUTs or cycles, where the choice is made by them; None where nothing can be said."""
        try:
            folding = reckon(self._model, self._target, self._asked(ratio, int8))
        except InputError:
            return None
        cycles = folding.interval_cycles
        return {"size": folding.cost.luts, "speed": cycles, "latency": cycles}.get(self._by)

    def _losers(self, trial: Trial) -> list[str]:
        network = self._networks[*trial.key, trial.full].undecided
        layers = network_losses(self._model, network, replace(self._held, y=None))["layers"]
        layers.sort(key=lambda layer: -layer["share"])
        names = [layer["name"] for layer in layers]
        return [n for n in names if n in self._free and n not in trial.int8][:_SPARED]

    def _order(self) -> Iterator[tuple[float, tuple[str, ...]]]:
        """What to quantize with full effort, which loses less than a quick trial: what nearly
        passed, else a notch above the best; then all that passed, the best first."""
        passed = sorted((t for t in self.trials if self._passes(t)), key=self._rank)
        near = sorted(filter(self._near, self.trials), key=self._rank)
        for trial in near:
            if not passed or self._rank(trial) < self._rank(passed[0]):
                yield trial.key
                below = [r for r in _RATIOS if r < trial.ratio]
                if below and not (passed and passed[0].ratio):
                    yield below[0], trial.int8
        if not near and passed and passed[0].ratio:
            above = [r for r in _RATIOS if r > passed[0].ratio]
            hopeless = {t.key for t in self.trials if not t.fits or t.reckoned > self._hope}
            if above and (above[-1], passed[0].int8) not in hopeless:
                yield above[-1], passed[0].int8
        yield from (trial.key for trial in passed)
        # Quick trials lose more than full ones: perhaps the closest of them is good enough.
        rest = [t for t in self.trials if t.fits and not t.full and t not in passed]
        if rest:
            yield min(rest, key=lambda trial: trial.reckoned).key

    def _denser(self) -> Iterator[float]:
        """Where nothing passed: N/K below those of full effort, which lose less as long as they
        fit. Each is as far away as the loss of the one before says."""
        while True:
            alone = [t for t in self.trials if t.ratio and not t.int8]
            full = [_RATIOS.index(t.ratio) for t in alone if t.full and t.fits]
            if not full:
                return
            last = max(full)
            beyond = [_RATIOS.index(t.ratio) for t in alone if not t.fits]
            most = min((at for at in beyond if at > last), default=len(_RATIOS)) - 1
            trial = next(t for t in alone if t.full and t.ratio == _RATIOS[last])
            at = min(most, last + max(1, self._rungs(trial)))
            if at <= last:
                return
            yield _RATIOS[at]

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


def _figures(planned: Plan) -> dict[str, float]:
    """What a choice is judged by, besides its loss."""
    return {
        "inferences_per_second": significant(planned.inferences_per_second, 6),
        "interval_cycles": planned.interval_cycles,
        "latency_cycles": planned.latency_cycles,
        "luts": planned.resources.luts,
        "code_bits": planned.code_bits,
        "energy_nj": significant(planned.energy_nj, 6),
    }


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
