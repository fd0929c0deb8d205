"""``OUT`` and data in, a comparison of simulated RTL with the golden model out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.documents import document_text
from pvq_hw.engine.scenarios import pace_of
from pvq_hw.engine.scenarios import scenarios as all_scenarios
from pvq_hw.engine.timing import round_ends
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.accuracy import metric_for
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.progress import Steps
from pvq_hw.tools import find as tools
from sim.result import SimResult, compare
from sim.run import simulate
from sim.scenarios import run_scenarios

__all__ = ["settled", "simulate_output"]

_STALL = "random:0.3"
_SCENARIO_FRAMES = 16  # of the data, round and round
_ENOUGH_ROUNDS = 7  # that show six distances


def simulate_output(
    accelerator: Accelerator,
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    simulator: str,
    stalls: bool,
    seed: int,
    steps: Steps,
    labels: npt.NDArray[Any] | None,
    metric: str | None = None,
    scenarios: bool = False,
    output: str | None = None,
) -> dict[str, Any]:
    """See `pvq_hw.output.accelerator.Accelerator.simulate`.

    Raises
    ------
    CheckError
        The simulated cycles are not the planned ones, or a stream broke its protocol. Mismatches
        are counted, not raised.
    """
    plan = accelerator.plan
    integers = accelerator.quantize_input(x)
    if not len(integers):
        raise InputError("There must be at least one frame to simulate")
    tools.warm_up(["yosys"] if simulator != "amaranth" else [], steps.note)
    with steps.step(f"Simulate {len(integers)} frames ({simulator})"):
        result = simulate(
            plan.graph,
            accelerator.image.cores if simulator == "amaranth" else accelerator.out,
            integers,
            simulator,
            names=[layer.name for layer in accelerator.network.layers],
            idle=_STALL if stalls else "none",
            stall=_STALL if stalls else "none",
            seed=seed,
            progress=lambda done: steps.progress(done, len(integers), "frames"),
        )
    if not stalls:
        result = settled(accelerator, result)
    with steps.step("Compare with the golden model"):
        document = _document(accelerator, result, integers, labels, metric, output)
    if scenarios:
        _add_scenarios(document, accelerator, integers[:_SCENARIO_FRAMES], simulator, steps)

    def fill(staging: Path) -> dict[str, Any]:
        text = document_text(document)
        (staging / "simulation.json").write_text(text, encoding="utf-8", newline="\n")
        return {"simulate": document}

    accelerator.update(fill)
    planned = (plan.interval_cycles, plan.latency_cycles)
    measured = (result.interval_cycles, result.latency_cycles)
    if not stalls and measured != planned:
        raise CheckError(
            f"Simulated interval and latency must be {planned} cycles as planned, not {measured}"
        )
    return document


def settled(accelerator: Accelerator, result: SimResult) -> SimResult:
    """The result with the plan's interval where the pattern of its rounds is longer than what was
    simulated: each round must have ended in the very cycle that the timing model has for it."""
    plan = accelerator.plan
    if result.interval_cycles == plan.interval_cycles or len(result.rounds) < _ENOUGH_ROUNDS:
        return result
    images = plan.graph.named(accelerator.image.cores)
    ends = round_ends(plan.graph, images, len(result.rounds))
    if not np.array_equal(ends, result.rounds):
        return result
    return replace(result, interval_cycles=plan.interval_cycles)


def _add_scenarios(
    document: dict[str, Any],
    accelerator: Accelerator,
    x: npt.NDArray[np.int64],
    simulator: str,
    steps: Steps,
) -> None:
    """Runs every scenario; its mismatches count as the document's."""
    plan, network = accelerator.plan, accelerator.network
    images = accelerator.image.cores
    chosen = all_scenarios(pace_of(plan.graph, images, plan.interval_cycles))
    document["scenarios"] = []
    with steps.step(f"Simulate {len(chosen)} scenarios ({simulator})"):
        for outcome in run_scenarios(
            chosen,
            plan.graph,
            images if simulator == "amaranth" else accelerator.out,
            x,
            network.trace(x),
            simulator,
            names=[layer.name for layer in network.layers],
        ):
            document["scenarios"].append(outcome.to_json())
            document["mismatches"] += outcome.comparison.mismatches
            first = outcome.comparison.first
            if first is not None and document["first_mismatch"] is None:
                document["first_mismatch"] = f"{outcome.scenario.name}: {first}"
            steps.progress(len(document["scenarios"]), len(chosen), "scenarios")


def _document(
    accelerator: Accelerator,
    result: SimResult,
    integers: npt.NDArray[np.int64],
    labels: npt.NDArray[Any] | None,
    metric: str | None,
    output: str | None,
) -> dict[str, Any]:
    network = accelerator.network
    compared = compare(result, network.trace(integers))
    document: dict[str, Any] = {
        "simulator": result.simulator,
        "frames": compared.frames,
        "frames_side_by_side": accelerator.plan.frames,
        "outputs_compared": compared.outputs_compared,
        "mismatches": compared.mismatches,
        "first_mismatch": str(compared.first) if compared.first else None,
        "interval_cycles": result.interval_cycles,
        "latency_cycles": result.latency_cycles,
        "cycles": result.cycles,
    }
    if labels is not None:
        network = network.for_output(output) if output else network
        scores = network.undecided
        outputs = scores.real(result.outputs[scores.layers[-1].name])
        y = labels[: len(outputs)]
        judge = metric_for(network, labels, metric)
        document["accuracy"] = {
            "metric": judge.name,
            "why": judge.why,
            "simulated": judge.compute(outputs, y),
            "frames": len(y),
        }
    return document
