"""Bitstreams: what is built, what is reported, what is refused."""

import json
import threading

import pytest

pytest.importorskip("amaranth_boards")
from amaranth.hdl import Elaboratable, Instance, Module, Signal
from amaranth.lib import io
from amaranth_boards.icebreaker import ICEBreakerPlatform
from amaranth_boards.ulx3s import ULX3S_25F_Platform

from gateware.board import build as module
from gateware.board.build import Attempt, build, rebuild
from gateware.device.memory import Rom
from pvq_hw.errors import CheckError, InputError, ToolError
from pvq_hw.output.build_record import NETLIST, build_changes
from pvq_hw.tools import find as tools
from pvq_hw.tools.process import StoppedError

pytestmark = pytest.mark.build


class Blinky(Elaboratable):
    """A counter, on an LED, behind a chain of ``deep`` adders."""

    def __init__(self, width=20, deep=0):
        self.width, self.deep = width, deep

    def elaborate(self, platform):
        m = Module()
        count = Signal(self.width)
        value = count
        for _ in range(self.deep):
            stage = Signal(self.width)
            m.d.comb += stage.eq(value + (value >> 1))
            value = stage
        last = Signal()
        m.d.sync += [count.eq(count + 1), last.eq(value[-1])]
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.d.comb += led.o.eq(last)
        return m


_TWO = """
module two(input a, output y);
  SB_LUT4 #(.LUT_INIT(16'h0002)) l0 (.I0(a), .O(y));
  SB_LUT4 #(.LUT_INIT(16'h0001)) l1 (.I0(a), .O(y));
endmodule
"""


class TwoDrivers(Elaboratable):
    """A net with two drivers."""

    def elaborate(self, platform):
        m = Module()
        platform.add_file("two.v", _TWO)
        level = Signal()
        m.d.sync += level.eq(~level)
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.submodules.two = Instance("two", i_a=level, o_y=led.o)
        return m


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The blinky on iCEBreaker: its folder and report."""
    folder = tmp_path_factory.mktemp("built") / "build"
    return folder, build(Blinky(), ICEBreakerPlatform(), folder, clock_mhz=12)


def test_a_build_makes_a_bitstream_and_reports(built):
    _check_report(*built, "top.bin", 12.0, "ICESTORM_LC")


def test_a_build_for_ecp5_tells_its_steps(tmp_path):
    said: list[str] = []
    folder = tmp_path / "build"
    report = build(Blinky(), ULX3S_25F_Platform(), folder, clock_mhz=25, progress=said.append)
    _check_report(folder, report, "top.bit", 25.0, "TRELLIS_COMB")
    assert [line for line in said if "ompil" not in line] == [
        "Synthesis",
        "Place and route, seed 1",
        f"Place and route, seed 1: {report.fmax_mhz:g} MHz of 25 MHz",
        "Bitstream",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build"]


def _check_report(folder, report, bitstream, clock, cells):
    assert report.bitstream == bitstream
    assert (folder / bitstream).stat().st_size > 10_000
    assert report.fmax_mhz > clock == report.clock_mhz
    assert 20 <= report.utilization[cells]["used"] <= 60 < report.utilization[cells]["available"]
    assert [attempt.seed for attempt in report.attempts] == [1]
    assert set(report.seconds) == {"warm_up", "synthesis", "place_route", "pack"}
    document = json.loads((folder / "build.json").read_text())
    assert document.items() >= report.to_json().items()
    assert build_changes(folder.parent) == []
    assert set(document["files"]) == {path.name for path in folder.iterdir()} - {"build.json"}


def test_the_same_design_gives_the_same_bitstream(tmp_path, built):
    build(Blinky(), ICEBreakerPlatform(), tmp_path / "again", clock_mhz=12)
    files = [
        {
            path.name: path.read_bytes()
            for path in folder.iterdir()
            if path.suffix != ".log" and path.name not in ("build.json", "nextpnr.json")
        }
        for folder in (built[0], tmp_path / "again")
    ]
    assert files[0] == files[1]
    assert {"top.bin", "top.asc", "top.il", "memories.json"} <= set(files[0])
    places = (str(built[0]).encode(), str(tmp_path).encode())
    assert not any(place in content for content in files[0].values() for place in places)


def test_a_clock_that_no_seed_meets_fails(tmp_path):
    with pytest.raises(CheckError) as error:
        build(Blinky(16, deep=20), ICEBreakerPlatform(), tmp_path / "b", clock_mhz=12, seeds=(1, 2))
    text = str(error.value)
    assert text.startswith("The clock of 12 MHz is not met: place and route reached seed 1: ")
    assert "seed 2: " in text
    assert "\n" not in text
    assert f"see {tmp_path / 'b.failed' / 'place_route.log'}" in text
    assert (tmp_path / "b.failed" / "place_route.log").exists()


def test_a_main_clock_without_a_constraint_fails(tmp_path):
    with pytest.raises(CheckError, match=r"^A clock must be constrained to 30 MHz, not .* at 12"):
        build(Blinky(), ICEBreakerPlatform(), tmp_path / "b", clock_mhz=30)


def test_a_clock_constraint_without_a_net_fails(tmp_path):
    log = tmp_path / "place_route.log"
    log.write_text("Info: constraining clock net 'pll.clk' to 36.00 MHz\n")
    module.check_constraints(log)
    warning = "Warning: net 'clk_sync' does not exist in design, ignoring clock constraint"
    log.write_text(warning + "\n")
    with pytest.raises(CheckError) as error:
        module.check_constraints(log)
    text = f"Every constrained clock must be in the netlist: {warning}; see {log}"
    assert str(error.value) == text


@pytest.mark.slow
def test_seeds_are_tried_until_one_meets_the_clock(tmp_path, monkeypatch):
    fmax = iter([(10.0, False), (13.0, True), (14.0, True)])
    monkeypatch.setattr(module, "judge", lambda clocks, clock_mhz: next(fmax))
    run, placed = tools.run, []

    def noted(name, args, **how):
        if name == "nextpnr-ice40":
            placed.append(args)
        return run(name, args, **how)

    monkeypatch.setattr(tools, "run", noted)
    report = build(Blinky(), ICEBreakerPlatform(), tmp_path / "b", clock_mhz=12, seeds=(5, 6, 7))
    assert [args[-2:] for args in placed] == [["--placer-heap-cell-placement-timeout", "8"]] * 2
    assert report.seed == 6
    assert [(a.seed, a.met) for a in report.attempts] == [(5, False), (6, True)]


def test_seeds_at_a_time_give_what_one_after_the_other_gives(tmp_path, monkeypatch):
    """Seed 6 meets the clock first, while 5, which does not, still runs; 7 is ended, and 8 never
    begins, since 5 ends after 7."""
    done = {seed: threading.Event() for seed in (5, 6, 7, 8)}
    over, ended = threading.Event(), []

    def place(name, args, *, folder, log, stop):
        seed = int(args[args.index("--seed") + 1])
        if seed > 6:
            done[seed].set()
            assert stop.wait(60)
            ended.append(seed)
            over.set()
            raise StoppedError
        assert (done[7] if seed == 6 else over).wait(60)
        fmax = {5: 11.0, 6: 13.0}[seed]
        clock = {"clk": {"achieved": fmax, "constraint": 12.0}}
        (folder / "nextpnr.json").write_text(json.dumps({"fmax": clock}))
        (folder / "top.asc").write_text(f"seed {seed}")
        assert (folder / "top.json").read_text() == "netlist"
        log.write_text(f"log of {seed}")
        done[seed].set()
        return 1.5

    monkeypatch.setattr(tools, "run", place)
    monkeypatch.setattr(module, "record_memories", lambda *paths: None)
    monkeypatch.setattr(module, "floorplan", lambda path: {})
    (tmp_path / "top.json").write_text("netlist")
    search = module.SeedSearch(["nextpnr", "--seed", "5"], tmp_path, 12.0, False, lambda line: None)
    attempts = search.run((5, 6, 7, 8), 3)
    assert attempts == [Attempt(5, 11.0, False, 1.5), Attempt(6, 13.0, True, 1.5)]
    assert (tmp_path / "top.asc").read_text() == "seed 6"
    assert (tmp_path / "place_route.log").read_text() == "log of 6"
    assert ended == [7]  # 8 never began
    assert all(path.is_file() for path in tmp_path.iterdir())


@pytest.mark.parametrize(("cells", "divisor"), [(900, 8), (6_000, 36), (30_000, 900)])
def test_the_placer_gives_up_after_about_a_million_tries_for_a_cell(tmp_path, cells, divisor):
    netlist = tmp_path / "top.json"
    netlist.write_text(json.dumps({f"c{i}": {"type": "LUT4"} for i in range(cells)}))
    assert module._give_up(netlist) == ["--placer-heap-cell-placement-timeout", str(divisor)]


def test_a_seed_without_a_legal_placement_is_passed_over(tmp_path, monkeypatch):
    def place(name, args, *, folder, log, stop):
        log.write_text("log")
        if "6" not in args:
            raise ToolError(f"nextpnr failed: ERROR: {module._NO_PLACE} for all; see {log}")
        clock = {"clk": {"achieved": 13.0, "constraint": 12.0}}
        (folder / "nextpnr.json").write_text(json.dumps({"fmax": clock}))
        return 1.5

    monkeypatch.setattr(tools, "run", place)
    monkeypatch.setattr(module, "record_memories", lambda *paths: None)
    monkeypatch.setattr(module, "floorplan", lambda path: {})
    said = []
    for seeds in ((5, 6), (5, 7)):
        folder = tmp_path / str(seeds[1])
        folder.mkdir()
        search = module.SeedSearch(["nextpnr", "--seed", "5"], folder, 12.0, False, said.append)
        if seeds == (5, 6):
            assert search.run(seeds, 1) == [Attempt(6, 13.0, True, 1.5)]
        else:
            with pytest.raises(ToolError, match=r"legal placement .*7/place_route\.log"):
                search.run(seeds, 1)
    assert "Place and route, seed 5: no legal placement" in said


@pytest.mark.slow
def test_of_all_seeds_the_fastest_is_kept(tmp_path, monkeypatch):
    fmax = iter([(13.0, True), (15.0, True), (14.0, True)])
    monkeypatch.setattr(module, "judge", lambda clocks, clock_mhz: next(fmax))
    report = build(
        Blinky(),
        ICEBreakerPlatform(),
        tmp_path / "b",
        clock_mhz=12,
        seeds=(5, 6, 7),
        every_seed=True,
    )
    assert (report.seed, report.fmax_mhz) == (6, 15.0)
    assert len(report.attempts) == 3
    monkeypatch.undo()
    build(Blinky(), ICEBreakerPlatform(), tmp_path / "c", clock_mhz=12, seeds=(6,))
    assert (tmp_path / "b" / "top.bin").read_bytes() == (tmp_path / "c" / "top.bin").read_bytes()


def test_conflicting_drivers_fail(tmp_path):
    with pytest.raises(CheckError, match=r"^Synthesis must give every net one driver, .*conflict"):
        build(TwoDrivers(), ICEBreakerPlatform(), tmp_path / "b", clock_mhz=12)
    assert "conflict" in (tmp_path / "b.failed" / "synthesis.log").read_text()


def test_a_failing_tool_names_a_log_that_exists(tmp_path):
    with pytest.raises(ToolError, match=r"^yosys failed .*; see (\S+)$") as error:
        build(
            Blinky(),
            ICEBreakerPlatform(),
            tmp_path / "b",
            clock_mhz=12,
            synth_opts="-no-such-option",
        )
    assert str(error.value).endswith(str(tmp_path / "b.failed" / "synthesis.log"))
    assert (tmp_path / "b.failed" / "synthesis.log").read_text()


def test_a_missing_tool_is_told_before_any_work(tmp_path, monkeypatch):
    def missing(name):
        raise ToolError(f"{name} is missing: pip install 'pvq-hw[build]'")

    monkeypatch.setattr(tools, "find_tool", missing)
    with pytest.raises(ToolError, match="pip install"):
        build(Blinky(), ICEBreakerPlatform(), tmp_path / "b", clock_mhz=12)
    assert not (tmp_path / "b").exists()


def test_a_used_folder_and_no_seeds_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be empty"):
        build(Blinky(), ICEBreakerPlatform(), tmp_path, clock_mhz=12)
    with pytest.raises(InputError, match="at least one seed"):
        build(None, ICEBreakerPlatform(), tmp_path / "b", clock_mhz=12, seeds=())


class Table(Elaboratable):
    """A ROM of one block, walked through by a counter."""

    def __init__(self, seed, body, step=1):
        self.seed, self.body, self.step = seed, body, step

    def elaborate(self, platform):
        m = Module()
        words = [n >> 3 & 0xFF for n in range(self.seed, self.seed + 256 * 7919, 7919)]
        m.submodules.rom = rom = Rom("words", 8, 256, words, latency=2, body=self.body)
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.d.sync += rom.addr.eq(rom.addr + self.step)
        m.d.comb += led.o.eq(rom.data.xor())
        return m


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "clock", "body", "bitstream"),
    [
        (ICEBreakerPlatform, 12, "ice40", "top.bin"),
        (ULX3S_25F_Platform, 25, "ecp5", "top.bit"),
    ],
)
def test_new_contents_need_no_place_and_route(tmp_path, platform, clock, body, bitstream):
    for name, seed in (("old", 1), ("full", 2**20 + 5)):
        build(Table(seed, body), platform(), tmp_path / name, clock_mhz=clock)
    said: list[str] = []
    rebuild(
        Table(2**20 + 5, body),
        platform(),
        tmp_path / "old",
        tmp_path / "new",
        progress=said.append,
    )
    assert said == ["New contents for 1 block RAMs", "Bitstream"]
    old, full, new = ((tmp_path / name / bitstream).read_bytes() for name in ("old", "full", "new"))
    assert new == full
    assert new != old
    old, full, new = ((tmp_path / n / NETLIST).read_bytes() for n in ("old", "full", "new"))
    assert new == full != old
    with pytest.raises(CheckError, match="differ in the contents of block RAMs only"):
        rebuild(Table(1, body, step=3), platform(), tmp_path / "new", tmp_path / "other")


def test_files_of_the_user_beside_the_logs_of_a_failed_build_stay(tmp_path):
    folder, failed = tmp_path / "b", tmp_path / "b.failed"
    folder.mkdir()
    failed.mkdir()
    (failed / "mine.txt").write_text("mine")
    for text in ("first", "second"):
        (folder / "pack.log").write_text(text)
        with pytest.raises(ToolError, match="x"), module.logs_kept(folder, failed):
            raise ToolError("x")
        assert (failed / "pack.log").read_text() == text
    with module.logs_kept(folder, failed):
        assert [path.name for path in failed.iterdir()] == ["mine.txt"]
    (failed / "mine.txt").unlink()
    with module.logs_kept(folder, failed):
        assert not failed.exists()
