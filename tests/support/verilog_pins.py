"""A board's top as compiled Verilog, from serial pin to serial pin: for talks of many packets."""

import os
import subprocess
from pathlib import Path

from gateware.export.export import export_verilog
from pvq_hw.tools.find import find_tool

__all__ = ["talk_in_verilog"]

_SEND, _BEGIN, _AWAIT, _WAIT, _END = range(5)

_MAIN = """\
#include "Vbench.h"
int main() {
  Vbench bench;
  for (bench.clk = 0; !Verilated::gotFinish(); bench.clk = !bench.clk) bench.eval();
}
"""

_BENCH = """\
module bench (input wire clk);
  localparam BIT = {divisor};
  reg rst = 1, rx = 1;
  wire tx;
  integer resets = 0;
  always @(posedge clk) begin
    resets <= resets + 1;
    if (resets == 8) rst <= 0;
  end
  top dut (.clk(clk), .rst(rst), .rx(rx), .tx(tx), .busy(), .heartbeat());

  reg [31:0] script [0:{steps}-1];
  integer at = 0, bits = 0, left = 0, packets = 0, seen = 0, number, file;
  reg [9:0] shift = 10'h3ff;
  wire [31:0] now = script[at];

  // Bytes of replies: counted as packets, by the length that stands in each.
  integer age = -1, place = 0, size = 0;
  reg [7:0] byte_;
  always @(posedge clk)
    if (age < 0) begin
      if (!rst && tx === 1'b0) age <= 0;
    end else begin
      age <= age + 1;
      for (number = 1; number < 9; number = number + 1)
        if (age == number * BIT + BIT / 2 - 1) byte_[number - 1] = tx;
      if (age == 9 * BIT + BIT / 2 - 1) begin
        age <= -1;
        $fwrite(file, "%02x\\n", byte_);
        if (place == 4) size = byte_;
        if (place == 5) size = size + 256 * byte_;
        place = place + 1;
        if (place == 8 + size && place > 5) begin place = 0; packets = packets + 1; end
      end
    end

  initial begin
    file = $fopen("replies.hex");
    $readmemh("script.hex", script);
  end

  // As `sim.agents.serial_line.SerialLine`: bytes back to back.
  always @(posedge clk) if (!rst)
    if (left > 1) left <= left - 1;
    else if (bits > 0) begin
      rx <= shift[0]; shift <= shift >> 1; bits <= bits - 1; left <= BIT;
    end else case (now[31:28])
      {send}: begin shift <= {{1'b1, now[7:0]}}; rx <= 0; bits <= 9; left <= BIT; at <= at + 1; end
      {begin}: begin seen <= packets; at <= at + 1; end
      {await_}: if (packets - seen >= now[27:0]) at <= at + 1;
      {wait_}: begin left <= now[27:0]; at <= at + 1; end
      default: begin $fclose(file); $finish; end
    endcase
endmodule
"""


def talk_in_verilog(folder: Path, top, steps) -> bytes:
    """The bytes that a top replies to steps: ``(bytes, replies)``, where so many packets are
    awaited, or cycles of waiting. Verilator compiles it in some 12 processor seconds and runs more
    than a million cycles a second, a hundred times as many as Icarus or Amaranth's simulator."""
    words = []
    for step in steps:
        if isinstance(step, int):
            words.append(_WAIT << 28 | step)
            continue
        data, replies = step
        sent = [_SEND << 28 | byte for byte in data]
        words += [_BEGIN << 28, *sent, _AWAIT << 28 | replies]
    words.append(_END << 28)
    (folder / "script.hex").write_text("".join(f"{word:08x}\n" for word in words))
    (folder / "top.v").write_text(export_verilog(top, "top"))
    (folder / "bench.v").write_text(
        _BENCH.format(
            divisor=top.timing.divisor,
            steps=len(words),
            send=_SEND,
            begin=_BEGIN,
            await_=_AWAIT,
            wait_=_WAIT,
        )
    )
    (folder / "main.cc").write_text(_MAIN)
    tool = find_tool("verilator")
    flags = "--cc --exe --build -O3 -Wno-fatal -Wno-lint -Wno-style -CFLAGS -O1 --top-module bench"
    sources = ("main.cc", "bench.v", "top.v")
    for command in ([*tool.command, *flags.split(), *sources], ["obj_dir/Vbench"]):
        subprocess.run(
            command, cwd=folder, check=True, env=os.environ | tool.env, capture_output=True
        )
    return bytes.fromhex((folder / "replies.hex").read_text().replace("\n", ""))
