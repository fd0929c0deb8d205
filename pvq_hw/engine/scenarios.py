"""What every simulator puts a circuit through: one list of traffic scenarios.

`scenarios` is the list; `sim.scenarios` runs it in Amaranth's simulator, on Icarus with cocotb and
in compiled models, and `gateware.export.testbench` writes it into the testbenches that ship with
the Verilog. Frames are counted in rounds of V (`GraphSpec.frames`), which is mostly 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pvq_hw.engine.code_stream import stream_startup, streamed_core
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE, Pattern
from pvq_hw.engine.timing import round_ends

__all__ = ["BURSTS", "Pace", "Scenario", "pace_of", "scenarios", "short_scenarios"]

BURSTS = (1, 2, 3, 5, 13, 60, 250, 1_000, 10_000)
"""Cycles of the pauses at either end."""

_ROUNDS = 6  # at least, whose exact times are compared
_TRANSFERS = 20_000  # about, at both ends; more take long to compute
_RESETS = 48  # pairs of resets in a scenario, if they take no more than so many cycles
_RESET_WORK = 60_000


@dataclass(frozen=True)
class Pace:
    """How a circuit takes and gives frames, as the plan has it.

    Parameters
    ----------
    columns, rows : int
        Transfers of a round at the input and at the output.
    inside : int
        Rounds that find room in the circuit while its output is blocked; maybe fewer.
    ends : tuple of int
        Cycles from the first input transfer to the last output transfer of each of the first
        rounds, input always valid and output always ready.
    interval : int
        Cycles between rounds in the steady state.
    waiting : int
        Results that wait at the output once it has been blocked for long; maybe more.
    startup : int
        Cycles after a reset before the first input is taken, about.
    """

    columns: int
    rows: int
    inside: int
    ends: tuple[int, ...]
    interval: int
    waiting: int
    startup: int = 0

    @property
    def latency(self) -> int:
        """Cycles from the first input transfer to the last output transfer of one round."""
        return self.ends[0]


@dataclass(frozen=True)
class Scenario:
    """Traffic at both ends of a circuit.

    Parameters
    ----------
    name : str
    rounds : int
        Rounds of frames to send after the last reset.
    idle, stall : Pattern
        Pauses of the input and of the output.
    seed : int
        Of the input's pauses; the output's is one more.
    resets : tuple of int
        Cycles that end with a reset, after which the frames are sent again from the first.
    ends : tuple of int
        See `Pace`, of the first rounds after each reset; empty where cycles are not compared.
    waiting : int
        See `Pace`: so many first results must leave one a cycle; 0 where that is not compared.
    """

    name: str
    rounds: int
    idle: Pattern = NONE
    stall: Pattern = NONE
    seed: int = 1
    resets: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    waiting: int = 0


def pace_of(graph: GraphSpec, images: Sequence[CoreImage], interval: int) -> Pace:
    """The pace of a graph, with the contents of its cores, whose interval is known."""
    inside = 2 + sum(unit.rounds for unit in graph.units)
    columns, rows = graph.transfers
    rounds = max(_ROUNDS, min(inside + 2, _TRANSFERS // (columns + rows)))
    ends = round_ends(graph, graph.named(images), rounds)
    streamed = streamed_core(graph.cores, images)
    startup = 0 if streamed is None else stream_startup(streamed[0])
    return Pace(columns, rows, inside, ends, interval, graph.last.waiting, startup)


def scenarios(pace: Pace, longest: int = BURSTS[-1]) -> tuple[Scenario, ...]:
    """Every scenario, the short ones first.

    Full rate with the cycles compared; random pauses; pauses of 1 to ``longest`` cycles at the
    input, at the output and at both; the output blocked from the start, and in full flight, for
    longer than it takes to fill everything inside; resets at every phase of a frame, with both
    ends running, with random pauses, and while the output is blocked.
    """
    rounds, rows = pace.inside + 2, pace.rows
    # So many that the output is once full at each word of a frame, if it isn't long.
    some = max(4, min(24, 800 // (rows + pace.columns)))
    bursts = [cycles for cycles in BURSTS if cycles <= longest]
    # Longer than all memory takes to fill.
    blocked = pace.startup + rounds * pace.interval + pace.latency + 200
    part = 2 * pace.columns // 5 + 1
    idle = Pattern.script(*(step for cycles in bursts for step in (part, cycles)))
    stall = Pattern.script(*(step for cycles in bursts for step in (rows + 3, cycles)))
    enough = len(bursts) + rounds

    def short(pattern: Pattern) -> Pattern:
        return Pattern.script(*pattern.steps[:14])

    half, seldom = Pattern.random(0.5), Pattern.random(0.9)
    waves = Pattern.bursts(2 * rows + pace.interval // 2)
    return (
        Scenario("full rate", len(pace.ends), ends=pace.ends),
        _resets("resets while computing", pace, ends=pace.ends),
        Scenario("random pauses", some, half, half, 3),
        Scenario(
            "output blocked from the start",
            rounds + 2,
            stall=Pattern.script(0, blocked),
            waiting=pace.waiting,
        ),
        Scenario(
            "output blocked in full flight",
            rounds + pace.inside,
            stall=Pattern.script(pace.latency + pace.interval // 3, blocked),
        ),
        _resets("resets among random pauses", pace, half, half, 5, most=16),
        _resets("resets while the output is blocked", pace, stall=waves, seed=7, most=12),
        Scenario("waves at the output", rounds + 4, stall=waves, seed=8),
        Scenario("seldom an input", some // 2, idle=seldom, seed=9),
        Scenario("seldom ready", some, stall=seldom, seed=11),
        Scenario("short bursts at both ends", enough, short(idle), short(stall)),
        Scenario("bursts at the output", enough, stall=stall),
        Scenario("bursts at the input", part * len(bursts) // pace.columns + 3, idle),
    )


def short_scenarios(pace: Pace, rounds: int, seed: int = 1) -> tuple[Scenario, ...]:
    """For slow simulations: full rate, random pauses, and a few resets while computing."""
    pauses, few = Pattern.random(0.5), Pattern.random(0.25)
    resets = _resets("resets while computing", pace, few, seed=seed, most=2)
    return (
        Scenario("full rate", rounds),
        Scenario("random pauses", rounds, pauses, pauses, seed),
        replace(resets, rounds=rounds),
    )


def _resets(
    name: str,
    pace: Pace,
    idle: Pattern = NONE,
    stall: Pattern = NONE,
    seed: int = 1,
    *,
    most: int = _RESETS,
    ends: tuple[int, ...] = (),
) -> Scenario:
    """Resets spread over the phases of a frame while all units work, every other one followed by
    one before the first result. What comes between is compared: what a reset leaves behind must
    not be wiped out by the next one unseen."""
    slow = 3 if idle.pauses or stall.pauses else 1
    work = pace.startup + slow * (pace.latency + pace.interval)
    count = min(most, max(8, _RESET_WORK // work))
    resets, now = [], 0
    for k in range(count):
        # By a step prime to their number, so that early and late ones mix.
        early = (7 * k + 3) % count
        now += work + k * pace.interval // count + 1
        resets.append(now)
        if k % 2 == 0:
            now += 1 + early * pace.latency // count
            resets.append(now)
    # So many that not all can come between two resets.
    rounds = 4 + work // pace.interval
    return Scenario(name, rounds, idle, stall, seed, tuple(resets), ends[:rounds])
