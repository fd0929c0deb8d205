"""The claimed rate confirmed by the board itself: compiled with ``measure``, in simulated pins."""

from dataclasses import replace

import numpy as np
import pytest
from board_port import BoardPort
from cli_tools import run

import pvq_hw
from pvq_hw import InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.flow.layer import LayerRequest, layer_network
from pvq_hw.flow.measure import Measured
from pvq_hw.model.objects import model_file
from pvq_hw.plan.plan import plan
from sim.board import simulated_port


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A small network with two frames side by side, by the command line."""
    folder = tmp_path_factory.mktemp("measured")
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(6, 12)), None, "relu"), (rng.normal(size=(4, 6)), None, None)]
    np.savez(folder / "x.npz", x=rng.uniform(0, 1, (50, 12)))
    with model_file(layers) as model:
        ran = run(
            "compile", model, "--target", "icebreaker", "--ratio", 2, "--sweeps", 0, "--calibrate",
            folder / "x.npz", "--measure", "--frames", 2, "-o", folder / "out",
        )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "measures              its own cycles" in ran.out + ran.err
    return folder / "out"


@pytest.fixture(scope="module")
def accelerator(out):
    return pvq_hw.load(out)


class Measuring(BoardPort):
    """A board's model that takes as long as the plan says, or longer."""

    def __init__(self, accelerator, *, late=0, slow=0, **more):
        super().__init__(accelerator, **more)
        plan = accelerator.plan

        def cycles(frames):
            steps = plan.interval_cycles + slow
            return plan.latency_cycles + late + steps * (frames // plan.frames - 1)

        self.board.cycles = cycles


def test_pins_take_the_planned_cycles_and_the_self_test_says_so(accelerator, out):
    plan = accelerator.plan
    assert plan.measure
    assert plan.frames == 2
    bare = replace(plan, measure=False)
    assert plan.resources.luts - bare.resources.luts == 310
    with simulated_port(accelerator) as port:
        ran = run("selftest", out, "--port", port, "--frames", 2, "--timeout", 60, "--json")
    assert ran.code == 0, ran.err
    measured = ran.json["measured"]
    assert measured["right"]
    assert measured["interval_cycles"] == plan.interval_cycles
    assert measured["latency_cycles"] == plan.latency_cycles
    assert measured["frames"] == 200
    speed = f"{plan.inferences_per_second:,.0f} a second at"
    assert f"; by itself {plan.interval_cycles} cycles a frame as planned" in ran.json["verdict"]
    assert describe_output(accelerator).measures
    assert Measured(**measured).frames_per_second == pytest.approx(
        plan.inferences_per_second * measured["clock_hz"] / plan.clock_hz
    ), speed


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ({"late": 1}, "latency is {} cycles instead of {} as planned"),
        ({"slow": 1}, "{}.00 cycles between frames instead of {}"),
    ],
)
def test_a_self_test_fails_where_cycles_are_not_the_plans(accelerator, fault, verdict):
    plan = accelerator.plan
    wanted = plan.latency_cycles if "late" in fault else plan.interval_cycles
    document = pvq_hw.selftest(accelerator, Measuring(accelerator, **fault), frames=6)
    assert not document["ok"]
    assert document["verdict"] == verdict.format(wanted + 1, wanted)


def test_wrong_outputs_of_repeated_frames_are_seen(accelerator):
    """The third frame of every run is wrong in one output."""
    board = Measuring(accelerator)
    honest = board.board._measure

    def spoiled(payload):
        found = honest(payload)
        return replace(found, sums=(found.sums[0] ^ (found.frames > 2), found.sums[1]))

    board.board._measure = spoiled
    document = pvq_hw.selftest(accelerator, board, frames=6)
    assert document["verdict"] == "outputs of 200 repeated frames differ"


def test_a_board_measures_and_a_profile_has_it(accelerator):
    x = np.random.default_rng(1).uniform(0, 1, (3, 12))
    with pvq_hw.Board(Measuring(accelerator), accelerator) as board:
        found, profile = board.predict(x, profile=True)
        assert np.array_equal(found, accelerator.predict(x))
        measured = board.measure(x, frames=41)
        assert measured.frames == 44
        assert measured.frames_per_second == accelerator.plan.inferences_per_second
        assert profile.measured == replace(measured, frames=200)
        for frames in (1, 65_533):
            with pytest.raises(InputError, match="Repeated frames must be 2 to 65,532, not"):
                board.measure(x, frames=frames)
    few = pytest.raises(InputError, match=r"Repeated frames must be at most 4,09\d here")
    with pvq_hw.Board(Measuring(accelerator, late=1 << 21), accelerator) as slow, few:
        slow.measure(x, frames=5000)


def test_a_board_that_does_not_measure_says_so(digits):
    plain = pvq_hw.load(digits.out)
    x = pvq_hw.load_data(digits.test).x[:2]
    with pvq_hw.Board(BoardPort(plain), plain) as board:
        with pytest.raises(InputError, match="The board must have been compiled with --measure"):
            board.measure(x)
        assert board.predict(x, profile=True)[1].measured is None


def test_frames_too_long_to_be_repeated_are_refused_by_the_plan():
    weights = np.random.default_rng(0).normal(size=(2, 65_534))
    network = layer_network(weights, None, LayerRequest(k=64))
    assert plan(network, "ulx3s-85f", check=False).input_bytes == 65_534
    with pytest.raises(InputError, match="at most 65,533 bytes, not 65,534: leave out --measure"):
        plan(network, "ulx3s-85f", check=False, measure=True)


def test_wide_transfers_are_refused_where_a_board_measures():
    """What comes over the link an activation at a time doesn't keep up with them."""
    weights = np.random.default_rng(0).normal(size=(2, 8))
    network = layer_network(weights, None, LayerRequest(k=8, engine="unrolled"))
    wide = {"engine": "unrolled", "widths": (4, 1)}
    assert plan(network, "ulx3s-25f", **wide).graph.widths == (4, 1)
    with pytest.raises(InputError, match=r"one activation a transfer, not 4 and 1: leave out"):
        plan(network, "ulx3s-25f", measure=True, **wide)
