"""Runs the scenarios of `pvq_hw.engine.scenarios` in any of the simulators."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.scenarios import Scenario
from pvq_hw.errors import CheckError
from sim.agents.streams import StreamError
from sim.result import Comparison, SimResult, compare
from sim.run import Images, simulate

__all__ = ["Outcome", "run_scenarios"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A scenario, what the circuit did in it, and how that compares with the golden model."""

    scenario: Scenario
    result: SimResult
    comparison: Comparison

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        found = self.comparison
        return {
            "name": self.scenario.name,
            "frames": found.frames,
            "outputs_compared": found.outputs_compared,
            "mismatches": found.mismatches,
            "cycles": self.result.cycles,
        }


def run_scenarios(
    chosen: Sequence[Scenario],
    graph: GraphSpec,
    images: Images,
    x: npt.NDArray[np.int64],
    trace: Mapping[str, npt.NDArray[Any]],
    simulator: str = "compiled",
    *,
    names: Sequence[str] | None = None,
) -> Iterator[Outcome]:
    """The outcome of one scenario after the other; frames of ``x`` are sent round and round.

    ``trace`` is `Network.trace` of ``x``; for the other parameters see `sim.run.simulate`.

    Raises
    ------
    CheckError
        A stream broke its protocol or stood still, or rounds took other cycles than the plan's;
        the line names the scenario.
    """
    frames = graph.frames
    for scenario in chosen:
        count = scenario.rounds * frames
        inputs = np.resize(x.reshape(len(x), -1), (count, x[0].size))
        golden = {n: np.resize(v.reshape(len(x), -1), (count, v[0].size)) for n, v in trace.items()}
        if graph.last.remembers:  # a second round isn't the first one again
            *_, scores, decisions = trace
            golden[decisions] = graph.last.compute(golden[scores])
        try:
            result = simulate(
                graph,
                images,
                inputs,
                simulator,
                names=names,
                idle=scenario.idle,
                stall=scenario.stall,
                seed=scenario.seed,
                resets=scenario.resets,
                settle=False,
            )
        except StreamError as error:
            raise StreamError(f"Scenario {scenario.name!r}: {error}") from None
        ends = (result.ends - result.starts[0])[frames - 1 :: frames][: len(scenario.ends)]
        for k, (took, planned) in enumerate(zip(ends.tolist(), scenario.ends, strict=True)):
            if took != planned:
                raise CheckError(
                    f"Scenario {scenario.name!r}: frame {k} must take {planned} cycles from the "
                    f"first input to its last result, as planned, not {took}"
                )
        yield Outcome(scenario, result, compare(result, golden))
