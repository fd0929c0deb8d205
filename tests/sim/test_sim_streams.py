"""The stream agents in Amaranth's simulator, against good circuits and against mutants."""

import itertools

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.engine.patterns import NONE, Pattern, draws
from pvq_hw.errors import CheckError, InputError
from sim.agents.bench import Bench
from sim.agents.streams import Monitor, Sink, Source, StreamError, Watchdog

PATTERNS = ["none", "random:0.5", "random:0.9", "bursts:7"]


class Stage(wiring.Component):
    """A register between two streams, and broken ones."""

    def __init__(self, mutant: str = "") -> None:
        self.mutant = mutant
        super().__init__(
            {
                "i": In(stream.Signature(data.ArrayLayout(8, 2))),
                "o": Out(stream.Signature(data.ArrayLayout(8, 2))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full = Signal()
        word = Signal(16)
        tick = Signal(4)
        m.d.sync += tick.eq(tick + 1)
        m.d.comb += [
            self.i.ready.eq(~full | (self.o.valid & self.o.ready)),
            self.o.valid.eq(full),
            self.o.payload.eq(word),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += full.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [full.eq(1), word.eq(self.i.payload)]
        match self.mutant:
            case "valid waits":
                m.d.comb += self.o.valid.eq(full & self.o.ready)
            case "valid falls":
                m.d.comb += self.o.valid.eq(full & (tick != 5))
            case "payload moves":
                m.d.comb += self.o.payload.eq(word ^ (tick == 5))
            case "drops":
                m.d.comb += self.i.ready.eq((tick == 5) | ~full)
            case "repeats":
                with m.If(tick == 5):
                    m.d.sync += word.eq(word)
            case "sleeps":
                with m.If(tick == 5):
                    m.d.sync += tick.eq(5)
                    m.d.comb += self.i.ready.eq(0)
        return m


def transfer(stage, items, idle="none", stall="none", after_valid=False, resets=()):
    bench = Bench(stage, quiet=60)
    bench.source(stage.i, Source(items, Pattern.parse(idle), 1))
    out = bench.sink(stage.o, Sink(Pattern.parse(stall), 2, after_valid))
    bench.run(lambda: len(out.payloads) >= len(items), resets)
    return out


ITEMS = [(i * 40503) & 0xFFFF for i in range(120)]


@pytest.mark.parametrize("idle", PATTERNS)
@pytest.mark.parametrize("stall", PATTERNS)
def test_items_pass_in_order(idle, stall):
    assert transfer(Stage(), ITEMS, idle, stall).payloads == ITEMS


def test_unstalled_stream_moves_every_cycle():
    out = transfer(Stage(), ITEMS)
    assert out.cycles == list(range(1, len(ITEMS) + 1))


def test_ready_after_valid_moves_every_other_cycle():
    out = transfer(Stage(), ITEMS, after_valid=True)
    assert out.payloads == ITEMS
    assert set(itertools.starmap(lambda a, b: b - a, itertools.pairwise(out.cycles))) == {2}


def test_reset_starts_again():
    out = transfer(Stage(), ITEMS, "random:0.5", "random:0.5", resets=[1, 40, 41, 100])
    assert out.payloads == ITEMS


@pytest.mark.parametrize(
    ("mutant", "message"),
    [
        ("valid falls", "valid must hold until ready, but fell"),
        ("payload moves", "payload must hold until ready, but went from"),
        ("sleeps", "No stream moved for 60 cycles; transfers so far: i 5, o 5"),
    ],
)
def test_checker_catches_mutants(mutant, message):
    with pytest.raises(StreamError, match=message):
        transfer(Stage(mutant), ITEMS, stall="random:0.7" if mutant != "sleeps" else "none")


def test_valid_that_waits_for_ready_is_caught():
    assert transfer(Stage("valid waits"), ITEMS, stall="random:0.5").payloads == ITEMS
    with pytest.raises(StreamError, match="No stream moved for 60 cycles; transfers so far: i 1"):
        transfer(Stage("valid waits"), ITEMS, after_valid=True)


@pytest.mark.parametrize("mutant", ["drops", "repeats"])
def test_lost_and_repeated_items_show(mutant):
    try:
        got = transfer(Stage(mutant), ITEMS, stall="random:0.5").payloads
    except StreamError:
        return
    assert got != ITEMS


def test_unknown_levels_are_caught():
    for levels, what in [
        ((None, 1, 0), "valid and ready"),
        ((1, None, 0), "valid and ready"),
        ((1, 1, None), "payload must be known"),
    ]:
        with pytest.raises(StreamError, match=f"Stream 'o', cycle 3: {what}"):
            Monitor("o").clock(3, *levels)
    assert Monitor("o").clock(3, 0, 1, None) is False


def test_source_holds_its_offer():
    source = Source([7, 8], Pattern.parse("random:0.5"), 3)
    for _ in range(20):
        before = source.valid, source.payload
        source.clock(0)
        assert not before[0] or (source.valid, source.payload) == before
    assert not source.empty
    for _ in range(40):
        source.clock(1)
    assert source.empty
    assert not source.valid


def test_watchdog_counts_quiet_cycles_only():
    watchdog = Watchdog(3, lambda: "stuck")
    for moved in (False, False, False, True, False, False, False):
        watchdog.clock(moved)
    with pytest.raises(CheckError, match="No stream moved for 3 cycles; stuck"):
        watchdog.clock(False)


def test_patterns_are_seeded_and_as_frequent_as_asked():
    for text, share in [("none", 0), ("random:0.25", 0.25), ("random:0.9", 0.9), ("bursts:8", 0.5)]:
        pattern = Pattern.parse(text)
        one, same, other = (
            list(itertools.islice(draws(pattern, seed), 5000)) for seed in (1, 1, 2)
        )
        assert one == same
        assert text == "none" or one != other
        assert abs(sum(one) / len(one) - share) < 0.05
        assert str(pattern) == text
    assert Pattern.parse(NONE) is NONE


@pytest.mark.parametrize(
    "text", ["", "random", "random:1", "random:x", "bursts:0.5", "none:1", "steps:", "steps:-1"]
)
def test_unknown_patterns_are_refused(text):
    with pytest.raises(
        InputError, match=r"Pattern must be none, random:P, bursts:CYCLES or steps:RUN,PAUSE,\.\.\."
    ):
        Pattern.parse(text)
