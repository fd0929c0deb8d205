"""PLL settings, the boards' clocks and resets."""

import json
import math
import re
from fractions import Fraction

import pytest
from amaranth.hdl import ClockDomain, Fragment, Module
from amaranth.sim import Simulator
from simulated_pins import SimulatedPins
from stand_in import IDENTITY, S16, U8, Through

from gateware.board.boards import board_pins, make_board_top, make_platform
from gateware.board.build import build
from gateware.device.pll import ButtonReset, ResetHold
from pvq_hw.errors import InputError
from pvq_hw.host.protocol import WireFormat
from pvq_hw.target.boards import TARGETS
from pvq_hw.target.pll import CrystalClock, Ecp5Pll, Ice40Pll, solve_pll

X, OUT = WireFormat(64, U8), WireFormat(64, S16)


def _board(target, clock_mhz=None, link="uart"):
    clock = clock_mhz or TARGETS[target].clock_mhz
    return make_board_top(Through(X, OUT), target, clock, None, X, OUT, IDENTITY, link=link)


def _ice40_brute(reference, wish):
    """All of the data sheet's settings, the slow way: the highest frequency up to the wish."""
    best = Fraction(0)
    for divr in range(16):
        for divf in range(128):
            for divq in range(1, 7):
                pfd = Fraction(reference, divr + 1)
                vco = pfd * (divf + 1)
                out = vco / 2**divq
                if 10 <= pfd <= 133 and 533 <= vco <= 1066 and 16 <= out <= 275 and out <= wish:
                    best = max(best, out)
    return best


@pytest.mark.parametrize("wish", [16, 16.5, 17, 24, 25.125, 36, 47.99, 48, 60, 100, 133.7, 275])
def test_ice40_settings_are_the_best_there_are(wish):
    pll = solve_pll(TARGETS["hx8k"], wish)
    best = _ice40_brute(12, Fraction(str(wish)))
    assert pll.output == max(best, 12) * 10**6
    if isinstance(pll, Ice40Pll):
        assert pll.output == Fraction(12 * 10**6, pll.divr + 1) * (pll.divf + 1) / 2**pll.divq


# 12 MHz needs filter range 1: the vendor's tool and icepll say so too.
def test_ice40_settings_known_from_the_vendors_tool():
    assert solve_pll(TARGETS["icebreaker"], 48) == Ice40Pll(12_000_000, 0, 63, 4)
    assert solve_pll(TARGETS["icebreaker"], 36) == Ice40Pll(12_000_000, 0, 47, 4)
    assert solve_pll(TARGETS["icebreaker"], 36).filter_range == 1
    assert [Ice40Pll(f * 10**6, 0, 0, 1).filter_range for f in (16, 17, 26, 44, 66, 101)] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["ulx3s-25f", "orangecrab-25f"])
@pytest.mark.parametrize("wish", [10, 12.5, 33.3333, 50, 80, 96, 100, 133.7, 200, 244, 399, 400])
def test_ecp5_settings_are_within_the_data_sheet_and_near_the_wish(target, wish):
    pll = solve_pll(TARGETS[target], wish)
    assert pll.output <= Fraction(str(wish)) * 10**6
    assert pll.output >= Fraction(str(wish)) * 10**6 * Fraction(98, 100)
    if isinstance(pll, Ecp5Pll):
        assert 10**7 <= pll.pfd <= 4 * 10**8
        assert 4 * 10**8 <= pll.vco <= 8 * 10**8
        assert pll.vco / pll.opdiv <= 4 * 10**8
        assert pll.output == Fraction(pll.reference_hz, pll.refdiv) * pll.fbdiv * pll.opdiv / (
            pll.osdiv
        )
        assert 1 <= pll.fbdiv <= 80
        assert 1 <= pll.opdiv <= 128
        assert 1 <= pll.osdiv <= 128


def test_whole_multiples_are_met_exactly_by_the_simple_form():
    pll = solve_pll(TARGETS["ulx3s-85f"], 100)
    assert (pll.hz, pll.opdiv) == (100_000_000, pll.osdiv)
    assert solve_pll(TARGETS["orangecrab-25f"], 96).hz == 96_000_000


def test_below_its_range_or_at_its_frequency_the_crystal_itself_is_the_clock():
    assert solve_pll(TARGETS["icebreaker"], 12) == CrystalClock(12_000_000)
    assert solve_pll(TARGETS["icebreaker"], 15.9) == CrystalClock(12_000_000)
    assert solve_pll(TARGETS["ulx3s-25f"], 25) == CrystalClock(25_000_000)


@pytest.mark.parametrize(
    ("target", "wish", "message"),
    [
        ("icebreaker", 11.9, "Clock of icebreaker must be 12 to 275 MHz, not 11.9"),
        ("ulx3s-25f", 400.1, "Clock of ulx3s-25f must be 10 to 400 MHz, not 400.1"),
        ("hx8k", math.inf, "Clock of hx8k must be 12 to 275 MHz, not inf"),
    ],
)
def test_refuses_a_clock_out_of_range(target, wish, message):
    with pytest.raises(InputError, match=message):
        solve_pll(TARGETS[target], wish)


@pytest.mark.parametrize("clocks", [0, 1, 5])
def test_reset_comes_at_once_and_goes_in_step_after_the_lock(clocks):
    dut = ResetHold(clocks)
    m = Module()
    m.domains.sync = ClockDomain("sync", reset_less=True)
    m.submodules.dut = dut
    simulator = Simulator(m)
    simulator.add_clock(10e-6, phase=5e-6)
    held = []

    async def testbench(ctx):
        assert ctx.get(dut.rst) == 1
        await ctx.tick().repeat(4)
        assert ctx.get(dut.rst) == 1  # no lock, no release, whatever the time
        for _ in range(3):
            await ctx.delay(3e-6)
            ctx.set(dut.locked, 1)
            edges = 0
            while ctx.get(dut.rst):
                await ctx.tick()
                edges += 1
            held.append(edges)
            await ctx.tick().repeat(3)
            assert ctx.get(dut.rst) == 0
            await ctx.delay(3e-6)
            ctx.set(dut.locked, 0)
            await ctx.delay(1e-9)
            assert ctx.get(dut.rst) == 1  # long before the next edge
            await ctx.tick().repeat(2)

    simulator.add_testbench(testbench)
    simulator.run()
    assert held == [clocks + 3] * 3


@pytest.mark.parametrize(
    ("target", "primitive", "hold"),
    [
        ("icebreaker", "SB_PLL40_PAD", 540),
        ("hx8k", "SB_PLL40_CORE", 1080),
        ("ulx3s-25f", "EHXPLLL", 0),
        ("orangecrab-25f", "EHXPLLL", 0),
        ("tinyfpga-bx", "SB_PLL40_CORE", 720),
        ("ecpix5-45f", "EHXPLLL", 0),
    ],
)
def test_boards_files_constrain_the_derived_clock(target, primitive, hold):
    board = _board(target)
    plan = make_platform(target).prepare(board, "top", emit_src=False)
    netlist = plan.files["top.il"]
    netlist = netlist.decode() if isinstance(netlist, bytes) else netlist
    assert len(re.findall(rf"cell \\{primitive} ", netlist)) == 1
    assert board.hold_clocks == hold
    mhz = board.clock_mhz
    if TARGETS[target].family == "ice40":
        text = plan.files["top.pcf"]
        text = text.decode() if isinstance(text, bytes) else text
        assert re.findall(r"^set_io (\S+) (\S+)$", text, re.MULTILINE) == _ports(target)
        assert re.search(rf"set_frequency pll\.clk {mhz}\n", text)
        assert f"set_io uart_0__rx__io {TARGETS[target].rx.name}" in text
    else:
        text = plan.files["top.lpf"]
        text = text.decode() if isinstance(text, bytes) else text
        places = re.findall(r'^LOCATE COMP "(\S+)" SITE "(\S+)";$', text, re.MULTILINE)
        assert places == _ports(target)
        assert re.search(rf'FREQUENCY NET "pll\.clk" {mhz * 1e6} HZ;', text)
        assert f'SITE "{TARGETS[target].rx.name}"' in text
        assert f'SITE "{TARGETS[target].tx.name}"' in text
    # Three commands: synthesis, place and route, packing; no programmer's tools.
    _, place, _ = json.loads(plan.files["build_top.json"])["commands"]
    device = TARGETS[target].device
    tool, *options = device.nextpnr(TARGETS[target].package, TARGETS[target].speed)
    assert place[0] == tool
    assert " ".join(options) in " ".join(place)


# The netlist's ports decide what place and route makes: other names would be other bitstreams.
_PORTS = {
    "icebreaker": "clk12_0 35 button_0 10 uart_0__rx 6 uart_0__tx 9 led_g_0 37 led_r_0 11",
    "hx8k": "clk12_0 J3 uart_0__rx B10 uart_0__tx B12 led_0 C3 led_1 B3",
    "ulx3s-25f": "clk25_0 G2 button_0 R1 uart_0__rx M1 uart_0__tx L4 led_0 B2 led_1 C2 "
    "esp32_0__gpio0 L2",
    "orangecrab-25f": "clk_0 A9 button_0 J17 link_rx_0 N17 link_tx_0 M18 rgb_led_0__g M3 "
    "rgb_led_0__b J3",
    "tinyfpga-bx": "clk16_0 B2 uart_0__rx A1 uart_0__tx A2 led_0 B3",
    "ecpix5-45f": "clk100_0 K23 uart_0__rx R26 uart_0__tx R24 rgb_led_0__g R21 rgb_led_0__r T23",
}


def test_spi_takes_the_place_of_the_serial_line():
    board = _board("icebreaker", link="spi")
    plan = make_platform("icebreaker").prepare(board, "top", emit_src=False)
    found = re.findall(r"^set_io (\S+)__io (\S+)$", str(plan.files["top.pcf"]), re.MULTILINE)
    assert [line for line in found if "spi" in line[0]] == [
        ("spi_0__cs", "4"), ("spi_0__clk", "45"), ("spi_0__copi", "2"), ("spi_0__cipo", "47"),
    ]  # fmt: skip
    assert not [name for name, _ in found if name.startswith("uart")]
    # SB_IO's tristate output for cipo, as others may be on the wire.
    assert "connect \\OUTPUT_ENABLE \\oe" in str(plan.files["top.il"])


def test_spi_pins_of_a_board_are_driven_while_it_is_selected():
    board = TARGETS["hx8k"]
    pins = SimulatedPins(board, board_pins(board, "spi"))
    clk, cs = pins.ports["clk"].i, pins.ports["spi_cs"].i
    simulator = Simulator(Fragment.get(_board("hx8k", board.crystal_mhz, "spi"), pins))
    seen = []

    async def testbench(ctx):
        for level, clocks in ((1, 300), (0, 12), (1, 12)):
            ctx.set(cs, level)
            for _ in range(clocks):
                for edge in (1, 0):
                    ctx.set(clk, edge)
                    await ctx.delay(1e-6)
            seen.append(ctx.get(pins.ports["spi_cipo"].oe))

    simulator.add_testbench(testbench)
    simulator.run()
    assert seen == [0, 1, 0]


def test_a_button_resets_at_once_and_once_whatever_its_contacts_do():
    m = Module()
    m.domains.sync = sync = ClockDomain("sync")
    m.submodules.button = button = ButtonReset(8)
    m.submodules.hold = hold = ResetHold(2)
    m.d.comb += [hold.locked.eq(~button.on), sync.rst.eq(hold.rst)]
    simulator = Simulator(m)
    simulator.add_clock(10e-6)
    levels = []

    async def testbench(ctx):
        for step in "0" * 12 + "1" + "010110" * 3 + "0" * 6 + "1" + "0" * 20:
            ctx.set(button.pressed, int(step))
            await ctx.tick()
            levels.append(ctx.get(hold.rst))

    simulator.add_testbench(testbench)
    simulator.run()
    text = "".join(map(str, levels))
    power_up, quiet, held, _ = re.fullmatch("(1+)(0+)(1+)(0+)", text).groups()
    assert len(power_up) < 8  # a button that nobody presses holds nothing up
    assert len(power_up + quiet) == 12 + 2  # pressed in step 13
    assert len(power_up + quiet + held) >= 12 + 1 + 18 + 6 + 1 + 8


def _ports(target):
    words = _PORTS[target].split()
    return [(f"{name}__io", pin) for name, pin in zip(words[::2], words[1::2], strict=True)]


def _check_constraint(folder, board):
    """The log of place and route says that the derived clock's net was found and constrained."""
    log = (folder / "place_route.log").read_text()
    assert f"constraining clock net 'pll.clk' to {board.clock_mhz:.2f} MHz" in log
    assert "ignoring" not in log


@pytest.mark.build
@pytest.mark.parametrize(
    "target",
    [t if t == "icebreaker" else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS],
)
def test_every_board_is_placed_and_routed_and_meets_its_clock(target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "build"
    board = _board(target)
    report = build(board, make_platform(target), folder, clock_mhz=board.clock_mhz)
    _check_constraint(folder, board)
    assert report.fmax_mhz >= board.clock_mhz
    assert (folder / report.bitstream).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.build
def test_a_board_runs_from_its_crystal_and_from_a_divided_pll_output(tmp_path_factory):
    for target, clock in (("icebreaker", 12.0), ("ulx3s-25f", 77.0)):
        folder = tmp_path_factory.mktemp("board") / "build"
        board = _board(target, clock)
        report = build(board, make_platform(target), folder, clock_mhz=board.clock_mhz)
        if target != "icebreaker":
            _check_constraint(folder, board)
        assert report.fmax_mhz >= board.clock_mhz
