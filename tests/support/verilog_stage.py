"""A little Verilog module with streams, and broken ones, for the tests of the simulators."""

from pathlib import Path

from pvq_hw.arith.formats import IntFormat
from sim.backends.design import Design
from sim.taps import Tap

__all__ = ["MUTANTS", "TABLE", "stage_design"]

# The memory `mutant` says what is broken, so that one compiled model serves for all mutants.
_STAGE = """
module stage(input clk, rst, input i__valid, output i__ready, input [7:0] i__payload,
             output o__valid, input o__ready, output [7:0] o__payload);
  reg full = 0; reg [7:0] word; reg [3:0] tick = 0;
  reg [7:0] table_ [0:255]; reg [3:0] mutant [0:0];
  initial $readmemh("stage.hex", table_);
  initial $readmemh("mutant.hex", mutant);
  wire [3:0] m = mutant[0];
  wire now = tick == 5;
  assign i__ready = (~full | (o__valid & o__ready)) & (m != 6);
  assign o__valid = m == 1 ? full & o__ready
                  : m == 2 ? full & ~now
                  : m == 4 & now ? 1'bx : full;
  assign o__payload = m == 3 ? word ^ now : m == 5 & now ? 8'bx : word;
  always @(posedge clk) begin
    tick <= tick + 1;
    if (o__valid & o__ready) full <= 0;
    if (i__valid & i__ready) begin full <= 1; word <= table_[i__payload]; end
    if (rst) begin full <= 0; tick <= 0; end
  end
endmodule
module top(input clk, rst, input i__valid, output i__ready, input [7:0] i__payload,
           output o__valid, input o__ready, output [7:0] o__payload);
  wire valid, ready; wire [7:0] payload;
  stage first_one(.clk(clk), .rst(rst), .i__valid(i__valid), .i__ready(i__ready),
    .i__payload(i__payload), .o__valid(valid), .o__ready(ready), .o__payload(payload));
  stage second(.clk(clk), .rst(rst), .i__valid(valid), .i__ready(ready), .i__payload(payload),
    .o__valid(o__valid), .o__ready(o__ready), .o__payload(o__payload));
endmodule
"""
MUTANTS = (
    "",
    "valid waits",
    "valid falls",
    "payload moves",
    "unknown valid",
    "unknown payload",
    "sleeps",
)
TABLE = [(i * 77 + 5) % 256 for i in range(256)]


def stage_design(folder: Path, mutant: str = "") -> Design:
    """Two stages, each of which looks its payload up in `TABLE`; written into ``folder``."""
    (folder / "top.v").write_text(_STAGE, encoding="utf-8")
    (folder / "stage.hex").write_text("".join(f"{v:02x}\n" for v in TABLE), encoding="utf-8")
    (folder / "mutant.hex").write_text(f"{MUTANTS.index(mutant):x}\n", encoding="utf-8")
    form = IntFormat(8, False)
    links = (Tap("first", ("first_one",), 4, form), Tap("second", ("second",), 4, form))
    memories = (folder / "stage.hex", folder / "mutant.hex")
    return Design("top", (folder / "top.v",), memories, 4, form, links)
