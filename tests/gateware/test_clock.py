"""Builds at another clock: plan, manifest, description and baud rate follow it."""

import json
import pickle
from dataclasses import replace

import pytest

pytest.importorskip("amaranth_boards")
from cli_tools import refused, run, snapshot, twin

import gateware.board.flow as flow
import pvq_hw
from gateware.board.build import UnmetError
from gateware.board.clock import plan_at_clock
from pvq_hw.errors import CheckError, InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.flow.reach import TooSlowError
from pvq_hw.output.build_record import BUILD, load_build, write_build
from pvq_hw.plan.goal import SpeedGoal


class _Report:
    """What the builder's report gives here."""

    def __init__(self, clock_mhz, fmax_mhz):
        self.numbers = {
            "bitstream": "top.bin", "clock_mhz": clock_mhz, "fmax_mhz": fmax_mhz, "clocks": {},
            "utilization": {}, "seconds": {}, "seed": 1, "seeds": [], "tools": {},
            "slowest_path": None,
        }  # fmt: skip

    def to_json(self):
        return self.numbers


@pytest.fixture
def placed(monkeypatch, digits, tmp_path):
    """The digits' output, and place and route that reaches what a function says of a clock."""
    out = tmp_path / "out"
    twin(digits.out, out)
    asked = []

    def with_fmax(fmax):
        def build(top, platform, folder, *, clock_mhz, every_seed, about, **more):
            asked.append((clock_mhz, every_seed, top))
            assert more["nextpnr_opts"] == f"--placer {about['placer']}"
            if fmax(clock_mhz) < clock_mhz:
                raise UnmetError(f"The clock of {clock_mhz:g} MHz must be met", fmax(clock_mhz))
            folder.mkdir()
            (folder / "top.bin").write_bytes(b"bits")
            report = _Report(clock_mhz, fmax(clock_mhz))
            write_build(folder, report.to_json() | about)
            return report

        monkeypatch.setattr(flow, "build", build)
        # No circuit: what the board's top is told.
        monkeypatch.setattr(flow, "Circuit", lambda *graph, **body: None)
        monkeypatch.setattr(flow, "make_board_top", lambda circuit, *told: told)
        return out

    return with_fmax, asked


def test_another_placer_is_told_and_kept(placed):
    with_fmax, asked = placed
    out = with_fmax(lambda clock: 50.0)
    for words, placer in (((), "heap"), (("--placer", "static"), "static")):
        ran = run("build", out, *words, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["placer"] == load_build(out / BUILD)["placer"] == placer
    with pytest.raises(InputError, match="Placer must be heap, sa or static, not 'best'"):
        pvq_hw.load(out).build(placer="best")
    assert len(asked) == 2


def test_the_highest_clock_that_is_met_is_kept(placed):
    with_fmax, asked = placed
    # Harder to place the higher the clock: 36 reaches 52, 51.75 only 49, 48.75 then 50.
    out = with_fmax(lambda clock: {36: 52.0, 51.75: 49.0, 48.75: 50.0}.get(clock, 10.0))
    before = pvq_hw.load(out)
    ran = run("build", out, "--clock", "max", "--json")
    assert ran.code == 0, ran.err
    assert [clock for clock, *_ in asked] == [36, 51.75, 48.75, 49.5]
    assert all(every for _, every, _ in asked)
    after = pvq_hw.load(out)
    assert after.plan.clock_hz == 48_750_000
    assert after.plan.interval_cycles == before.plan.interval_cycles
    assert after.manifest["manifest_sha256"] != before.manifest["manifest_sha256"]
    told = describe_output(after)
    _, clock_mhz, baud, _, _, identity, *_ = asked[2][2]
    assert (clock_mhz, baud, identity) == (48.75, told.baud, told.identity)
    assert (told.clock_hz, told.baud) == (48_750_000, after.plan.baud)
    rate = 48_750_000 / after.plan.interval_cycles
    assert ran.json["inferences_per_second"] == pytest.approx(rate)
    assert [t["met"] for t in ran.json["clocks_tried"]] == [True, False, True, False]
    report = json.loads((out / "report.json").read_text())
    assert report["compile"]["clock_mhz"] == report["build"]["clock_mhz"] == 48.75
    assert run("verify", out).code == 0
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]


def test_a_clock_may_be_given_and_the_plan_follows(placed):
    with_fmax, asked = placed
    out = with_fmax(lambda clock: 60.0)
    accelerator = pvq_hw.load(out)
    document = accelerator.build(clock=24, seeds=(4,))
    assert (document["clock_mhz"], asked[0][:2]) == (24.0, (24.0, False))
    assert accelerator.plan.clock_mhz == pvq_hw.load(out).plan.clock_mhz == 24.0
    assert accelerator.plan.baud == 1_000_000
    ran = run("build", out, "--clock", 50)
    assert ran.code == 0, ran.err
    assert "clock                 49.5 MHz, met with 21 % to spare" in ran.out
    assert run("build", out).code == 0  # as the plan has it now
    assert asked[-1][0] == asked[-2][0]


def test_clocks_that_cannot_be_leave_the_folder_as_it_was(placed):
    with_fmax, _ = placed
    out = with_fmax(lambda clock: 17.0 if clock > 20 else 5.0)
    before = snapshot(out)
    ran = run("build", out, "--clock", "max")
    assert (ran.code, "must be met" in ran.err.splitlines()[-1]) == (1, True)
    assert snapshot(out) == before
    refused(out, "Clock must be max or a number of MHz, not 'fast'", "build", out, "--clock",
            "fast")  # fmt: skip
    refused(out, "Clock of icebreaker must be 12 to 275 MHz, not 1000", "build", out, "--clock",
            1000)  # fmt: skip
    assert snapshot(out) == before
    with pytest.raises(CheckError):
        pvq_hw.load(out).build(clock=30)


def test_a_clock_too_slow_for_the_speed_asked_for_is_refused(placed):
    with_fmax, _ = placed
    plan = pvq_hw.load(with_fmax(lambda clock: 60.0)).plan
    asked = replace(plan, goal=SpeedGoal(plan.inferences_per_second))
    with pytest.raises(InputError, match=r"The plan must have .* inferences a second, but has"):
        plan_at_clock(asked, 20)
    slow = plan_at_clock(replace(plan, baud=3_000_000), 20)
    assert slow.baud == 2_000_000


@pytest.mark.parametrize(
    "error", [UnmetError("too slow", 41.5), TooSlowError("too slow", 2.0)], ids=["unmet", "reach"]
)
def test_what_an_error_carries_comes_back_from_another_process(error):
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), vars(found)) == (type(error), "too slow", vars(error))
