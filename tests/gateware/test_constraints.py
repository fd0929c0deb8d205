"""The checked-in constraints: regenerated, held against the targets, taken by nextpnr."""

import json
import re
from pathlib import Path

import pytest
from amaranth.back import rtlil
from stand_in import small_top

from gateware.board.constraints import constraints_file, make_constraints, write_constraints
from pvq_hw.target.boards import TARGETS
from pvq_hw.tools import find as tools

FOLDER = Path(__file__).parents[2] / "constraints"
PORTS = ["clk", "rx", "tx", "heartbeat", "busy"]


@pytest.mark.parametrize("target", TARGETS)
def test_files_are_what_the_boards_files_say(target):
    assert (FOLDER / constraints_file(target)).read_text() == make_constraints(target)


def test_the_generator_writes_the_same_bytes(tmp_path):
    write_constraints(tmp_path / "new")
    for path in (tmp_path / "new").iterdir():
        assert path.read_bytes() == (FOLDER / path.name).read_bytes()
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {p.name for p in FOLDER.iterdir() if p.suffix in (".pcf", ".lpf")}
    assert len(names) == len(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_pins_and_crystal_are_the_targets(name):
    target = TARGETS[name]
    text = (FOLDER / constraints_file(name)).read_text()
    if target.family == "ice40":
        pins = dict(re.findall(r"^set_io (?:-pullup yes )?(\w+) (\w+)", text, re.MULTILINE))
        (frequency,) = re.findall(r"^set_frequency clk (\S+)$", text, re.MULTILINE)
    else:
        pins = dict(re.findall(r'^LOCATE COMP "(\w+)" SITE "(\w+)";$', text, re.MULTILINE))
        (frequency,) = re.findall(r'^FREQUENCY PORT "clk" (\S+) MHZ;$', text, re.MULTILINE)
    assert list(pins)[:3] == PORTS[:3]
    leds = [name for name, _ in target.leds]
    assert list(pins)[3 : 3 + len(leds)] == leds
    assert len(set(pins.values())) == len(pins)
    assert (pins["rx"], pins["tx"]) == (target.rx.name, target.tx.name)
    assert float(frequency) == target.crystal_mhz


_WRAPPER = """
module board(input clk, input rx, output tx, output heartbeat, output busy, output esp32_gpio0);
  assign esp32_gpio0 = 1'b1;
  link link_0(.clk(clk), .rst(1'b0), .rx(rx), .tx(tx), .heartbeat(heartbeat), .busy(busy));
endmodule
"""


@pytest.mark.slow
@pytest.mark.build
@pytest.mark.parametrize(
    ("target", "synthesis", "options"),
    [
        ("icebreaker", "synth_ice40", ["--up5k", "--package", "sg48", "--pcf"]),
        ("ulx3s-25f", "synth_ecp5", ["--25k", "--package", "CABGA381", "--lpf"]),
    ],
)
def test_nextpnr_takes_them_with_plain_verilog(target, synthesis, options, tmp_path):
    wrapper = _WRAPPER
    if target == "icebreaker":
        wrapper = wrapper.replace(", output esp32_gpio0", "")
        wrapper = wrapper.replace("  assign esp32_gpio0 = 1'b1;\n", "")
    (tmp_path / "link.il").write_text(rtlil.convert(small_top(divisor=12), name="link"))
    (tmp_path / "board.v").write_text(wrapper)
    name = constraints_file(target)
    (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    script = f"read_rtlil link.il; read_verilog board.v; {synthesis} -top board -json board.json"
    tools.run("yosys", ["-q", "-p", script], folder=tmp_path)
    family = TARGETS[target].family
    arguments = ["--json", "board.json", *options, name, "--report", "report.json"]
    tools.run(f"nextpnr-{family}", arguments, folder=tmp_path, log=tmp_path / "log")
    report = json.loads((tmp_path / "report.json").read_text())
    (clock,) = report["fmax"].values()
    assert clock["constraint"] == pytest.approx(TARGETS[target].crystal_mhz, rel=1e-3)
    assert "warning: unmatched" not in (tmp_path / "log").read_text().lower()


def _blink(target):
    """A counter in plain Verilog with the ports that the board's pin file names."""
    text = make_constraints(target)
    ports = re.findall(r'^(?:set_io (?:-pullup yes )?|LOCATE COMP ")(\w+)', text, re.MULTILINE)
    outputs = [name for name in ports if name not in ("clk", "rx")]
    lines = [
        f"module board(input clk, input rx, {', '.join(f'output {name}' for name in outputs)});",
        "  reg [11:0] count = 0;",
        "  always @(posedge clk) count <= count + rx;",
        *(f"  assign {name} = count[{11 - i}];" for i, name in enumerate(outputs)),
        "endmodule\n",
    ]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.build
@pytest.mark.parametrize("target", TARGETS)
def test_nextpnr_places_the_pins_of_every_board(target, tmp_path):
    board, name = TARGETS[target], constraints_file(target)
    (tmp_path / "board.v").write_text(_blink(target))
    (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    script = f"read_verilog board.v; synth_{board.family} -top board -json board.json"
    tools.run("yosys", ["-q", "-p", script], folder=tmp_path)
    tool, *options = board.device.nextpnr(board.package, board.speed)
    pins = ["--pcf" if board.family == "ice40" else "--lpf", name]
    arguments = ["--json", "board.json", *options, *pins, "--report", "report.json"]
    tools.run(tool, arguments, folder=tmp_path, log=tmp_path / "log")
    (clock,) = json.loads((tmp_path / "report.json").read_text())["fmax"].values()
    assert clock["constraint"] == pytest.approx(board.crystal_mhz, rel=1e-3)
