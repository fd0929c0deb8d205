"""A little Verilog module with streams, and broken ones, for the tests of the simulators."""

from pathlib import Path

from pvq_hw.numeric import IntFormat
from sim.design import Design, Link

_STAGE = """
module stage(input clk, rst, input i__valid, output i__ready, input [7:0] i__payload,
             output o__valid, input o__ready, output [7:0] o__payload);
  reg full = 0; reg [7:0] word; reg [3:0] tick = 0; reg [7:0] table_ [0:255];
  initial $readmemh("stage.hex", table_);
  assign i__ready = @READY@;
  assign o__valid = @VALID@;
  assign o__payload = @PAYLOAD@;
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
_GOOD = {"READY": "~full | (o__valid & o__ready)", "VALID": "full", "PAYLOAD": "word"}
MUTANTS = {
    "": {},
    "valid waits": {"VALID": "full & o__ready"},
    "valid falls": {"VALID": "full & (tick != 5)"},
    "payload moves": {"PAYLOAD": "word ^ (tick == 5)"},
    "unknown valid": {"VALID": "tick == 5 ? 1'bx : full"},
    "unknown payload": {"PAYLOAD": "tick == 5 ? 8'bx : word"},
    "sleeps": {"READY": "1'b0"},
}
TABLE = [(i * 77 + 5) % 256 for i in range(256)]


def stage_design(folder: Path, mutant: str = "") -> Design:
    """Two stages, each of which looks its payload up in `TABLE`; written into ``folder``."""
    text = _STAGE
    for name, expression in (_GOOD | MUTANTS[mutant]).items():
        text = text.replace(f"@{name}@", expression)
    (folder / "top.v").write_text(text, encoding="utf-8")
    (folder / "stage.hex").write_text("".join(f"{v:02x}\n" for v in TABLE), encoding="utf-8")
    form = IntFormat(8, False)
    links = (Link("first", ("first_one",), 4, form), Link("second", ("second",), 4, form))
    return Design("top", (folder / "top.v",), (folder / "stage.hex",), 4, form, links)
