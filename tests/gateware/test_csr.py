"""Registers of exported cores, on both buses, against a model that sees pins alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateware.export.csr import REGISTERS, csr_shells
from gateware.export.interfaces import Side, axis_shell
from pvq_hw.arith.formats import IntFormat

# What an exported accelerator's streams are like: 3 transfers of 5 bits make 2 of 11.
CORE = """\
module dut (
  input wire clk, input wire rst,
  input wire [4:0] i__payload, input wire i__valid, output wire i__ready,
  output wire [10:0] o__payload, output wire o__valid, input wire o__ready
);
  reg [1:0] beat; reg giving, second; reg [10:0] total;
  assign i__ready = !giving;
  assign o__valid = giving;
  assign o__payload = total + {10'b0, second};
  always @(posedge clk)
    if (rst) begin beat <= 0; giving <= 0; second <= 0; total <= 0; end
    else if (i__valid & i__ready) begin
      total <= (beat == 0 ? 11'd0 : total) + {6'b0, i__payload};
      beat <= beat == 2 ? 2'd0 : beat + 2'd1;
      giving <= beat == 2;
    end else if (o__valid & o__ready) begin
      second <= !second;
      giving <= !second;
    end
endmodule
"""

RUN = """
import sys
from pathlib import Path
from cocotb_tools.runner import get_runner
folder, top = Path(sys.argv[1]), sys.argv[2]
runner = get_runner("icarus")
runner.build(sources=sorted(folder.glob("*.v")), hdl_toplevel=top, build_dir=folder / top)
results = runner.test(hdl_toplevel=top, test_module="csr_bench", build_dir=folder / top,
                      test_dir=folder / top, results_xml=str(folder / top / "results.xml"))
from cocotb_tools.runner import get_results
print("RESULTS", get_results(results))
"""


def run_bench(folder, bus, clocks=3000, seed=1):
    taken, given = Side(3, IntFormat(5, False)), Side(2, IntFormat(11, False))
    files = csr_shells("dut", taken, given, bytes(range(1, 9)))
    files |= {"dut.v": CORE, "dut_axis.v": axis_shell("dut", taken, given)}
    for name, text in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)
    support = Path(__file__).parents[1] / "support"
    env = os.environ | {"PYTHONPATH": str(support), "CSR_SEED": str(seed),
                        "CSR_CLOCKS": str(clocks)}  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", RUN, folder, f"dut_{bus}"], env=env, cwd=folder,
        capture_output=True, text=True,
    )  # fmt: skip
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("bus", ["axilite", "wishbone"])
def test_registers_and_streams_are_the_models(tmp_path, bus):
    said = run_bench(tmp_path, bus)
    assert "RESULTS (1, 0)" in said, said[-3000:]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("last_given <= cycles;", "last_given <= cycles + 1;"),
        ("clearing <= 4'd8;", "clearing <= 4'd9;"),
        ("beat == TAKEN - 1) frames_taken", "beat == TAKEN - 2) frames_taken"),
    ],
)
def test_a_broken_register_is_caught(tmp_path, old, new):
    shells = csr_shells("dut", Side(3, IntFormat(5, False)), Side(2, IntFormat(11, False)),
                        bytes(range(1, 9)))  # fmt: skip
    text = shells["dut_csr.v"]
    assert text.count(old) == 1
    (tmp_path / "dut_csr.v").write_text(text.replace(old, new))
    assert "Failed 1 of 1 tests" in run_bench(tmp_path, "wishbone")


def test_every_register_is_told_at_the_top_of_both():
    shells = csr_shells("dut", Side(3, IntFormat(5, False)), Side(2, IntFormat(11, False)),
                        bytes(8))  # fmt: skip
    for number, (name, meaning) in enumerate(REGISTERS):
        for bus in ("axilite", "wishbone"):
            assert f"//   {number:2}  {name:13}  {meaning}" in shells[f"dut_{bus}.v"]
