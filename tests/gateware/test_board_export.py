"""A board's top as Verilog: it answers at its pins, and its own commands place it."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import pvq_hw
from gateware.board.constraints import constraints_file
from pvq_hw import InputError
from pvq_hw.flow.board import describe_output
from pvq_hw.host.board_model import Responder
from pvq_hw.host.protocol import Kind, Packet
from pvq_hw.target.boards import TARGETS
from pvq_hw.tools import find as tools
from sim.backends.netlist import cell_models

RNG = np.random.default_rng(4)
X = RNG.random((16, 6))

BENCH = """\
module EHXPLLL (input CLKI, CLKFB, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP,
  PHASELOADREG, PLLWAKESYNC, ENCLKOP, output CLKOP, CLKOS, LOCK);
{parameters}
  assign CLKOP = CLKI;
  assign CLKOS = CLKI;
  assign LOCK = 1'b1;
endmodule

module tb;
  reg clk = 0, rx = 1, button = 0;
  wire tx, heartbeat, busy;
  reg [7:0] bytes [0:{last}];
  reg [7:0] got;
  integer i, k, n;
  wire esp32;
  top dut (.esp32_gpio0(esp32), .clk(clk), .rx(rx), .tx(tx), .heartbeat(heartbeat), .busy(busy),
    .reset(button));
  always #1 clk = ~clk;
  initial begin
    $readmemh("bytes.hex", bytes);
    repeat (2000) @(posedge clk);
    for (i = 0; i <= {last}; i = i + 1) begin
      rx = 0;
      for (k = 0; k < 8; k = k + 1) begin
        repeat ({bit}) @(posedge clk);
        rx = bytes[i][k];
      end
      repeat ({bit}) @(posedge clk);
      rx = 1;
      repeat (2 * {bit}) @(posedge clk);
      if (i % 14 == 7) repeat (36 * 10 * {bit}) @(posedge clk);
      if (i == {pressed}) button = 1;
    end
    repeat (9 * 10 * {bit}) @(posedge clk);
    $finish;
  end
  always begin
    @(negedge tx);
    repeat ({bit} + {bit} / 2) @(posedge clk);
    for (n = 0; n < 8; n = n + 1) begin
      got = {{tx, got[7:1]}};
      repeat ({bit}) @(posedge clk);
    end
    $display("%02x", got);
  end
endmodule
"""


def _export(folder, target="ulx3s-25f", **options):
    layer = (RNG.normal(size=(3, 6)), RNG.normal(size=3), None)
    made = pvq_hw.compile(
        [layer], folder / "out", target=target, quantizer="plain", ratio=1, calibrate=X, **options
    )
    files = made.export(folder / "board", flow="board", name="top")
    assert constraints_file(target) in files
    return made, folder / "board"


def _spoken(accelerator, folder, packets, pressed):
    data = b"".join(packets)
    text = "\n".join(f"{byte:02x}" for byte in data)
    (folder / "bytes.hex").write_text(text + "\n")
    board = describe_output(accelerator)
    source = (folder / "top.v").read_text()
    pll = re.search(r"EHXPLLL #\((.*?)\) pll", source, re.DOTALL)[1]
    parameters = "\n".join(f"  parameter {p} = 0;" for p in re.findall(r"\.(\w+)\(", pll))
    bench = BENCH.format(
        last=len(data) - 1, bit=board.clock_hz // board.baud, pressed=pressed, parameters=parameters
    )
    (folder / "tb.v").write_text(bench)
    (folder / "models.v").write_text(cell_models("ecp5"))
    sources = ["-DNO_INCLUDES", "top.v", "tb.v", "models.v"]
    for command in (["iverilog", "-g2012", "-o", "tb", *sources], ["vvp", "tb"]):
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    return bytes.fromhex("".join(re.findall(r"^[0-9a-f]{2}$", ran.stdout, re.MULTILINE)))


def test_the_exported_top_answers_at_its_pins(tmp_path):
    made, folder = _export(tmp_path, updatable=True, clock_mhz=16.0)
    network = made.network
    golden = Responder(
        describe_output(made), lambda frame: network.predict(frame.reshape(1, -1))[0].reshape(-1)
    )
    frame = describe_output(made).input.encode(made.quantize_input(X[:1])[0])
    packets = [Packet(Kind.DESCRIBE, 1).encode(), Packet(Kind.INFER, 2, frame).encode()]
    expected = [golden.feed(packet) for packet in packets]
    # Behind them the button is pressed, which keeps the board silent.
    pressed = len(b"".join(packets)) - 1
    assert _spoken(made, folder, [*packets, packets[0]], pressed) == b"".join(expected)


def test_pins_are_those_of_the_link_and_of_what_is_decided(tmp_path):
    _, folder = _export(tmp_path, link="spi", decide="argmax")
    places = dict(
        re.findall('LOCATE COMP "(.*)" SITE "(.*)"', (folder / "ulx3s-25f.lpf").read_text())
    )
    board = TARGETS["ulx3s-25f"]
    ports = re.search(r"module top\((.*?)\);", (folder / "top.v").read_text())[1].split(", ")
    assert set(places) == set(ports)
    assert places["spi_cipo"] == dict(board.spi)["cipo"].name
    assert (places["decision_0"], places["reset"]) == (board.decision[0][1].name, "R1")
    assert "rx" not in places


@pytest.mark.parametrize(("memory", "turned"), [("spram", set()), ("flash", {"flash_copi"})])
def test_a_flash_that_codes_are_read_from_has_its_pins(tmp_path, memory, turned):
    made, folder = _export(tmp_path, target="icebreaker", code_memory=memory)
    verilog = (folder / "top.v").read_text()
    assert set(re.findall(r"^  inout (\w+);", verilog, re.MULTILINE)) == turned
    text = (folder / "icebreaker.pcf").read_text()
    assert "set_io flash_cs 16\n" in text
    assert "set_io flash_cipo 17\n" in text
    with pytest.raises(InputError, match="A board's top has pins, and no interface to choose"):
        made.export(tmp_path / "no", flow="board", interface="axis")


def test_an_ecp5_board_brings_what_shortens_its_carry_chains(tmp_path):
    _, folder = _export(tmp_path)
    readme = (folder / "README.txt").read_text()
    yosys, script, nextpnr, _ = re.findall(r"^    (\S.*)$", readme, re.MULTILINE)
    assert (yosys.split()[0], nextpnr.split()[0]) == ("yosys", "nextpnr-ecp5")
    wires = {"CIN": ["0"], "A0": [2], "B0": [3], "A1": [4], "B1": [5], "S0": [6], "S1": [7]}
    wires |= {p: ["1"] for p in ("C0", "D0", "C1", "D1")} | {"COUT": [8]}
    cell = {
        "type": "CCU2C", "connections": wires,
        "parameters": {"INIT0": f"{0x96AA:016b}", "INIT1": f"{0x96AA:016b}",
                       "INJECT1_0": "NO", "INJECT1_1": "NO"},
        "port_directions": {p: "output" if p in ("S0", "S1", "COUT") else "input" for p in wires},
    }  # fmt: skip
    ports = {"i": {"bits": [2, 3, 4, 5]}, "o": {"bits": [6, 7]}}
    module = {"cells": {"sum": cell}, "netnames": {}, "ports": ports}
    (folder / "top.json").write_text(json.dumps({"modules": {"top": module}}))
    # Without the project, as whoever got the folder has it.
    tool, *words = shlex.split(script)
    assert tool == "python3"
    subprocess.run([sys.executable, "-I", *words], cwd=folder, check=True)
    cells = json.loads((folder / "top.json").read_text())["modules"]["top"]["cells"]
    assert {c["type"] for c in cells.values()} == {"LUT4"}  # two bits need no chain
    assert subprocess.run([sys.executable, words[0]], cwd=folder, check=False).returncode == 1


@pytest.mark.slow
@pytest.mark.build
@pytest.mark.parametrize("target", ["icebreaker", "ulx3s-25f"])
def test_the_commands_of_its_readme_make_a_bitstream(tmp_path, target):
    made, folder = _export(tmp_path, target=target, link="spi")
    lines = re.findall(r"^    (\S.*)$", (folder / "README.txt").read_text(), re.MULTILINE)
    assert "-noflatten" not in lines[0]
    for line in lines:
        tool, *arguments = shlex.split(line)
        if tool == "python3":
            subprocess.run([sys.executable, *arguments], cwd=folder, check=True)
            continue
        if tool == "yosys":
            arguments = ["-q", *arguments]
        if tool.startswith("nextpnr"):
            arguments += ["--report", "report.json"]
        tools.run(tool, arguments, folder=folder, log=folder / f"{tool}.log")
    clocks = json.loads((folder / "report.json").read_text())["fmax"]
    assert max(clock["constraint"] for clock in clocks.values()) >= made.plan.clock_hz / 1e6 - 0.1
    assert all(clock["achieved"] >= clock["constraint"] for clock in clocks.values())
    assert (folder / made.plan.target.device.architecture.bitstream).stat().st_size > 1000
