"""A board's top as compiled Verilog, from serial pin to serial pin: for talks of many packets."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from gateware.export.export import export_verilog
from pvq_hw.tools.find import find_tool

__all__ = ["RESET", "judged_talk", "talk_in_verilog", "write_talk"]

_SEND, _BEGIN, _AWAIT, _WAIT, _END, _RESET = range(6)
RESET = "reset"

_MAIN = """\
#include "Vbench.h"
int main() {
  Vbench bench;
  for (bench.clk = 0; !Verilated::gotFinish(); bench.clk = !bench.clk) bench.eval();
}
"""

_JUDGE = """\
module tb;
  reg clk = 0;
  always #5 clk = ~clk;
  reg [7:0] expected [0:{bytes}-1];
  integer heard_so_far = 0;
  bench bench (.clk(clk));
  initial begin
    $readmemh("expected.hex", expected);
    #{time} $display("FAIL: no reply in time");
    $finish;
  end
  task heard(input [7:0] value);
    begin
      if (expected[heard_so_far] !== 8'hxx && value !== expected[heard_so_far]) begin
        $display("FAIL: byte %0d is %h", heard_so_far, value);
        $finish;
      end
      heard_so_far = heard_so_far + 1;
    end
  endtask
  task over;
    begin
      if (heard_so_far == {bytes}) $display("PASS: %0d bytes at %0t", heard_so_far, $time);
      else $display("FAIL: only %0d bytes", heard_so_far);
      $finish;
    end
  endtask
endmodule

"""

_BENCH = """\
module bench (input wire clk);
  localparam BIT = {divisor};
  reg rst = 1, again = 0, rx = 1;
  wire tx;
  integer resets = 0;
  always @(posedge clk) begin
    resets <= resets + 1;
    if (resets == 8) rst <= 0;
  end
  top dut (.clk(clk), .rst(rst | again), .rx(rx), .tx(tx), .busy(), .heartbeat());

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
  always @(posedge clk) again <= !rst && left <= 1 && bits == 0 && now[31:28] == {reset} && !again;
  always @(posedge clk) if (!rst)
    if (left > 1) left <= left - 1;
    else if (bits > 0) begin
      rx <= shift[0]; shift <= shift >> 1; bits <= bits - 1; left <= BIT;
    end else case (now[31:28])
      {send}: begin shift <= {{1'b1, now[7:0]}}; rx <= 0; bits <= 9; left <= BIT; at <= at + 1; end
      {begin}: begin seen <= packets; at <= at + 1; end
      {await_}: if (packets - seen >= now[27:0]) at <= at + 1;
      {reset}: if (again) at <= at + 1;
      {wait_}: begin left <= now[27:0]; at <= at + 1; end
      default: begin $fclose(file); $finish; end
    endcase
endmodule
"""


def write_talk(folder: Path, top, steps) -> None:
    """A top and what talks with it, `talk_in_verilog`'s steps, as ``top.v`` and ``bench.v``. A step
    may be `RESET` too, while the line is idle."""
    words = []
    for step in steps:
        if isinstance(step, int):
            words.append(_WAIT << 28 | step)
            continue
        if step == RESET:
            words.append(_RESET << 28)
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
            reset=_RESET,
        )
    )


def judged_talk(folder: Path, top, steps, expected: Iterable[int | None], cycles: int) -> None:
    """The same as a testbench ``tb.v`` for `benchmarks.mutate_verilog`: it fails at the first byte
    that is another one, or when the talk takes longer. ``None`` is any byte."""
    write_talk(folder, top, steps)
    texts = ["xx" if byte is None else f"{byte:02x}" for byte in expected]
    (folder / "expected.hex").write_text("\n".join(texts))
    bench = (folder / "bench.v").read_text()
    for before, after in (
        ('$fwrite(file, "%02x\\n", byte_);', "tb.heard(byte_);"),
        ("$fclose(file); $finish;", "tb.over;"),
        ('file = $fopen("replies.hex");', ""),
    ):
        assert before in bench
        bench = bench.replace(before, after)
    (folder / "tb.v").write_text(_JUDGE.format(bytes=len(texts), time=10 * cycles) + bench)
    (folder / "bench.v").unlink()


def talk_in_verilog(folder: Path, top, steps) -> bytes:
    """The bytes that a top replies to steps: ``(bytes, replies)``, where so many packets are
    awaited, or cycles of waiting. Verilator compiles it in some 12 processor seconds and runs more
    than a million cycles a second, a hundred times as many as Icarus or Amaranth's simulator."""
    write_talk(folder, top, steps)
    (folder / "main.cc").write_text(_MAIN)
    tool = find_tool("verilator")
    flags = "--cc --exe --build -O3 -Wno-fatal -Wno-lint -Wno-style -CFLAGS -O1 --top-module bench"
    sources = ("main.cc", "bench.v", "top.v")
    for command in ([*tool.command, *flags.split(), *sources], ["obj_dir/Vbench"]):
        subprocess.run(
            command, cwd=folder, check=True, env=os.environ | tool.env, capture_output=True
        )
    return bytes.fromhex((folder / "replies.hex").read_text().replace("\n", ""))
