"""What a model would become, before anything is quantized: operations, fit and speed."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pvq_hw.arith.formats import significant
from pvq_hw.errors import InputError
from pvq_hw.flow.examine import Examination, examine_model
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.model.model import Model
from pvq_hw.model.objects import model_file
from pvq_hw.naming import quoted
from pvq_hw.plan.resources import budget
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.target.boards import TARGETS, Target, get_target

__all__ = ["RATIOS", "Estimate", "ModelCheck", "check", "estimate"]

RATIOS = (1.0, 2.0, 5.0, 10.0)
"""N/K that estimates are made for."""


@dataclass(frozen=True)
class Estimate:
    """What a plan would say of a model on a board.

    Parameters
    ----------
    target : str
    ratio : float
        Mean N/K.
    fits : bool
    reason : str
        Why it doesn't fit; else which layer or part of the device stops it from being faster.
    interval_cycles : int
        Between frames; 0 where the ratio is impossible.
    clock_mhz : float
    luts, brams, dsps, sprams : int
        What it takes; of ``budget``, in the same order, may be used.
    budget : tuple of int
    """

    target: str
    ratio: float
    fits: bool
    reason: str
    interval_cycles: int = 0
    clock_mhz: float = 0.0
    luts: int = 0
    brams: int = 0
    dsps: int = 0
    sprams: int = 0
    budget: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def inferences_per_second(self) -> float:
        """Clock / cycles."""
        cycles = self.interval_cycles
        return self.clock_mhz * 1e6 / cycles if cycles else 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        names = ("luts", "brams", "dsps", "sprams")
        return dict(vars(self)) | {
            "budget": dict(zip(names, self.budget, strict=True)),
            "inferences_per_second": significant(self.inferences_per_second),
        }

    def line(self) -> str:
        """The estimate for people, without the board's name."""
        head = f"N/K {self.ratio:<4g}"
        if not self.interval_cycles:
            return f"{head} no    {self.reason}"
        names = ("LUTs", "block RAMs", "multipliers", "SPRAMs")
        used = (self.luts, self.brams, self.dsps, self.sprams)
        parts = [
            f"{count:,} of {have:,} {name}"
            for count, have, name in zip(used, self.budget, names, strict=True)
            if have
        ]
        speed = f"{self.inferences_per_second:>12,.0f}/s" if self.fits else ""
        return f"{head} {'fits' if self.fits else 'no  '}{speed}  {', '.join(parts)}"


@dataclass(frozen=True, eq=False)
class ModelCheck:
    """What `check` found; the estimates are made when they are first asked for.

    Parameters
    ----------
    name : str
        Of the file, or of the object's class; safe to show.
    examination : Examination
    targets : tuple of Target
    ratios : tuple of float
    options : CompileOptions
        Of which only the engines count.
    """

    name: str
    examination: Examination
    targets: tuple[Target, ...]
    ratios: tuple[float, ...] = RATIOS
    options: CompileOptions = field(default_factory=CompileOptions)

    @cached_property
    def estimates(self) -> tuple[Estimate, ...]:
        """One for every board and ratio; none where the model is refused."""
        return tuple(e for _, group in self.each_device() for each in group for e in each)

    def each_device(self) -> Iterator[tuple[list[str], Iterator[list[Estimate]]]]:
        """Boards of one device and clock, and for each ratio the estimates of all of them, made as
        they are asked for."""
        model = self.examination.model
        if model is None or not self.examination.ok:
            return
        groups: dict[tuple[Any, ...], list[Target]] = {}
        for target in self.targets:
            key = (target.engine, target.clock_mhz, budget(target))
            groups.setdefault(key, []).append(target)
        for boards in groups.values():
            yield [board.name for board in boards], self._each_ratio(model, boards)

    def _each_ratio(self, model: Model, boards: Sequence[Target]) -> Iterator[list[Estimate]]:
        for ratio in self.ratios:
            found = estimate(model, boards[0], ratio, self.options)
            yield [replace(found, target=board.name) for board in boards]

    @property
    def ok(self) -> bool:
        """Whether the model will compile: nothing is refused, and one of the estimates fits."""
        return self.examination.ok and any(e.fits for e in self.estimates)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        found = self.examination
        shapes = {} if found.model is None else {
            "input_shape": list(found.model.input_shape),
            "output_shape": list(found.model.output_shape),
            **({"inputs": [i.to_json() for i in found.model.inputs]}
               if found.model.inputs else {}),
            **({"outputs": [o.to_json() for o in found.model.outputs]}
               if found.model.outputs else {}),
        }  # fmt: skip
        return {
            "model": self.name,
            "ok": self.ok,
            "taken": found.ok,
            "operations": [operation.to_json() for operation in found.operations],
            "faults": list(found.faults),
            "parameters": found.parameters,
            "macs": found.macs,
            **shapes,
            "estimates": [e.to_json() for e in self.estimates],
        }

    def operation_lines(self) -> list[str]:
        """The operations for people, then what is wrong besides, then the verdict."""
        found = self.examination
        lines = []
        for op in found.operations:
            answer = {True: "yes", False: "no ", None: "?  "}[op.taken]
            text = f"{op.macs:,} MACs, {op.parameters:,} parameters" if op.macs else ""
            if op.taken is False:
                text = f"{op.reason}; {op.remedy}" if op.remedy else op.reason
            elif op.taken is None:
                text = "reads what a refused operation gives"
            lines.append(f"  {answer} {op.kind:<18} {op.name:<24} {text}".rstrip())
        lines += [f"  no  {fault}" for fault in found.faults]
        count = sum(op.taken is False for op in found.operations) + len(found.faults)
        verdict = "every operation is taken" if found.ok else f"{count} things stop it"
        lines.append(
            f"{self.name}: {verdict}; {found.parameters:,} parameters, {found.macs:,} MACs a frame"
        )
        return lines

    def summary(self) -> str:
        """All of it for people."""
        return "\n".join([*self.operation_lines(), *self.estimate_lines()])

    def estimate_lines(self) -> Iterator[str]:
        """The boards of a device, and a line for each ratio, as they come; with the last one
        `estimates` are there."""
        made: list[Estimate] = []
        for names, group in self.each_device():
            yield f"  {', '.join(names)}"
            for each in group:
                yield f"    {each[0].line()}"
                made += each
        self.__dict__["estimates"] = tuple(made)  # so that they are made once

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"


def check(
    model: Any,
    target: str | None = None,
    *,
    example_inputs: Any = None,
    ratios: Sequence[float] = RATIOS,
    engine: str = "auto",
    engines: Mapping[str, str] | None = None,
) -> ModelCheck:
    """Says whether a model will compile, and about how large and fast it becomes.

    Nothing is quantized. Cycles were within 25 % of the plan's in 21 of 22 comparisons, and 45 %
    too many in one (``docs/decisions/check.md``).

    Parameters
    ----------
    model : path or object
        As `pvq_hw.api.compile` takes it.
    target : str, optional
        A board; all of them by default.
    example_inputs : optional
        For a ``torch.nn.Module``.
    ratios : sequence of float
        N/K to estimate for.
    engine, engines : str, and mapping of layer name to str
        ``"folded"``, ``"unrolled"`` or ``"auto"``, of all layers and of single ones.

    Raises
    ------
    InputError
        The file is broken, of another format, or the board isn't known.
    """
    choices = {name: LayerChoice(engine=kind) for name, kind in (engines or {}).items()}
    options = CompileOptions(engine=engine, layers=choices)
    boards = tuple(TARGETS.values()) if target is None else (get_target(target),)
    with model_file(model, example_inputs) as path:
        found = examine_model(path)
        if found.model is not None and found.ok:
            options.resolved([step.name for step in network_steps(found.model) if step.weighted])
        name = quoted(path.name)[1:-1]
        return ModelCheck(name, found, boards, tuple(map(float, ratios)), options)


def estimate(
    model: Model, target: Target, ratio: float, options: CompileOptions | None = None
) -> Estimate:
    """Fit and speed of a model on a board at a mean N/K."""
    from pvq_hw.flow.quantize import can_share, fold_layers
    from pvq_hw.plan.folding import fold
    from pvq_hw.plan.sharing import fold_network

    try:
        layers, reserve, pace = fold_layers(model, target, ratio)
        asked = options or CompileOptions()
        each = asked.asked([layer.name for layer in layers], target.engine)
        found = fold_network(
            layers, target, may_share=can_share(model, asked), best=fold, reserve=reserve,
            pace=pace, reckoned=True, each=each,
        )  # fmt: skip
    except InputError as error:
        return Estimate(target.name, ratio, False, str(error))
    cost, limit = found.cost, budget(target)
    short = [
        f"{getattr(cost, key):,} {name} of {getattr(limit, key):,}"
        for key, name in (("luts", "LUTs"), ("brams", "block RAMs"), ("dsps", "multipliers"),
                          ("sprams", "SPRAMs"))
        if getattr(cost, key) > getattr(limit, key)
    ]  # fmt: skip
    return Estimate(
        target.name, ratio, found.fits,
        found.limit if found.fits else f"takes {' and '.join(short) or 'too much'}",
        found.interval_cycles, target.clock_mhz, cost.luts, cost.brams, cost.dsps, cost.sprams,
        (limit.luts, limit.brams, limit.dsps, limit.sprams),
    )  # fmt: skip
