"""Hand-written Verilog: the ROM that reads its image, and a self-checking testbench."""

from string import Template

__all__ = ["ROM_VERILOG", "SPRAM_VERILOG", "testbench"]

ROM_VERILOG = """\
// Read-only memory of an exported PVQ core. Its words come from INIT_FILE ($readmemh text), so
// that new weights need new files only. INIT_FILE is looked up in the simulator's or synthesis
// tool's working folder.
//
// data is the word of addr from LATENCY clock edges before: one read a cycle, no reset, no stall.
// Latency 1 is the block RAM's own register; at 2 and 3 further registers follow, which most
// devices have inside the block RAM.

module pvq_rom #(
  parameter INIT_FILE = "",
  parameter WIDTH = 1,       // bits of a word
  parameter DEPTH = 1,       // words
  parameter ADDR_BITS = 1,
  parameter LATENCY = 2,     // clock edges from addr to data, 1 or more
  parameter STYLE = "block"  // "block": block RAM; "logic": LUTs
) (
  input  wire                 clk,
  input  wire [ADDR_BITS-1:0] addr,
  output wire [WIDTH-1:0]     data
);
  reg [WIDTH*LATENCY-1:0] pipe;
  assign data = pipe[WIDTH*LATENCY-1 -: WIDTH];

  generate
    if (STYLE == "logic") begin : in_luts
      (* rom_style = "logic", ram_style = "logic" *)
      reg [WIDTH-1:0] words [0:DEPTH-1];
      if (INIT_FILE != "") initial $readmemh(INIT_FILE, words);
      always @(posedge clk) pipe[WIDTH-1:0] <= words[addr];
    end else begin : in_blocks
      (* rom_style = "block", ram_style = "block" *)
      reg [WIDTH-1:0] words [0:DEPTH-1];
      if (INIT_FILE != "") initial $readmemh(INIT_FILE, words);
      always @(posedge clk) pipe[WIDTH-1:0] <= words[addr];
    end
    if (LATENCY > 1) begin : further
      always @(posedge clk) pipe[WIDTH*LATENCY-1:WIDTH] <= pipe[WIDTH*(LATENCY-1)-1:0];
    end
  endgenerate
endmodule
"""

SPRAM_VERILOG = """\
// Single-ported RAM of 16,384 words of 16 bits that holds codes of a PVQ core. It has no initial
// contents: write them before the first frame.
//
// data is the word of addr from the clock edge before, unless that edge wrote. With
// PVQ_SB_SPRAM256KA defined it is the iCE40 UltraPlus's own; else any tool's RAM.

module pvq_spram (
  input  wire        clk,
  input  wire        w_en,
  input  wire [13:0] addr,
  input  wire [15:0] w_data,
  output wire [15:0] data
);
`ifdef PVQ_SB_SPRAM256KA
  SB_SPRAM256KA spram (
    .CLOCK(clk), .ADDRESS(addr), .DATAIN(w_data), .MASKWREN(4'b1111), .WREN(w_en),
    .CHIPSELECT(1'b1), .STANDBY(1'b0), .SLEEP(1'b0), .POWEROFF(1'b1), .DATAOUT(data)
  );
`else
  reg [15:0] words [0:16383];
  reg [15:0] read;
  assign data = read;
  always @(posedge clk) begin
    if (w_en) begin
      words[addr] <= w_data;
      read <= 16'hxxxx;
    end else
      read <= words[addr];
  end
`endif
endmodule
"""

_TESTBENCH = Template("""\
// Self-checking testbench of $core: plain Verilog, no other tool or library needed.
//
//   iverilog -o tb *.v && vvp tb
//
// Sends the frames of input.hex and compares every result with expected.hex, three times: at full
// rate, with random stalls on both sides, and again after a reset in mid-frame. It also checks
// the protocol of the output stream: once offered, a result stays until it is taken, and no bit
// of it is unknown. Prints PASS or FAIL with counts. Other stalls: vvp tb +seed=7

`timescale 1ns / 1ps

module tb;
  localparam INPUTS  = $inputs;   // transfers at the input: frames x columns
  localparam COLUMNS = $columns;
  localparam RESULTS = $results;   // transfers at the output: frames x rows
  localparam PATIENCE = $patience; // cycles without a transfer before giving up

  reg clk = 0;
  reg rst = 1;
  always #5 clk = ~clk;

  reg  [$input_top:0] stimulus [0:INPUTS-1];
  reg  [$output_top:0] expected [0:RESULTS-1];

  reg                i_valid = 0;
  wire               i_ready;
  reg  [$input_top:0] i_payload = 0;
  wire               o_valid;
  reg                o_ready = 0;
  wire [$output_top:0] o_payload;

  $core dut (
    .clk(clk), .rst(rst),
    .i__valid(i_valid), .i__ready(i_ready), .i__payload(i_payload),
    .o__valid(o_valid), .o__ready(o_ready), .o__payload(o_payload)
  );

  integer seed = 1;
  integer stall = 0;      // how many of 8 cycles each side waits
  integer limit = 0;      // transfers to send in this run
  integer offered = 0;    // transfers put on the input
  integer got = 0;
  integer quiet = 0;
  integer compared = 0, mismatches = 0, violations = 0, timeouts = 0;
  integer cycles = 0;
  reg                 waiting = 0;
  reg [$output_top:0] held = 0;

  function integer chance(input integer eighths);
    chance = ($$unsigned($$random(seed)) % 8) >= eighths;
  endfunction

  always @(posedge clk) if (!rst) begin
    cycles <= cycles + 1;
    quiet <= ((i_valid && i_ready) || (o_valid && o_ready)) ? 0 : quiet + 1;

    if (!i_valid || i_ready) begin
      if (offered < limit && chance(stall)) begin
        i_valid <= 1;
        i_payload <= stimulus[offered];
        offered = offered + 1;
      end else begin
        i_valid <= 0;
        i_payload <= $$random(seed);
      end
    end

    o_ready <= chance(stall);
    if (o_valid !== 0 && o_valid !== 1) violations = violations + 1;
    if (waiting && (o_valid !== 1 || o_payload !== held)) begin
      violations = violations + 1;
      $$display("result %0d was withdrawn or changed while it waited", got);
    end
    waiting <= o_valid && !o_ready;
    held <= o_payload;
    if (o_valid && o_ready) begin
      if (got >= RESULTS) begin
        violations = violations + 1;
        $$display("a result too many: %h", o_payload);
      end else begin
        compared = compared + 1;
        if (o_payload !== expected[got]) begin
          mismatches = mismatches + 1;
          if (mismatches <= 10)
            $$display("frame %0d row %0d: got %h, expected %h",
                     got / $rows, got % $rows, o_payload, expected[got]);
        end
      end
      got = got + 1;
    end
  end

  task reset;
    begin
      rst <= 1;
      i_valid <= 0;
      o_ready <= 0;
      waiting <= 0;
      repeat (4) @(posedge clk);
      offered = 0; got = 0; quiet <= 0; cycles <= 0;
      rst <= 0;
    end
  endtask

  task run(input integer stalls);
    begin
      stall = stalls;
      limit = INPUTS;
      while (got < RESULTS && quiet < PATIENCE) @(posedge clk);
      if (got < RESULTS) begin
        timeouts = timeouts + 1;
        $$display("no transfer for %0d cycles after %0d of %0d results", PATIENCE, got, RESULTS);
      end
      repeat (100) @(posedge clk); // a result too many would show up here
    end
  endtask

  initial begin
    $$readmemh("input.hex", stimulus);
    $$readmemh("expected.hex", expected);
    if ($$value$$plusargs("seed=%d", seed)) $$display("seed %0d", seed);
    reset; run(0);
    $$display("full rate: %0d results, %0d cycles", got, cycles - 100);
    reset; run(4);
    reset;
    stall = 2; limit = COLUMNS / 2;
    repeat (4 * COLUMNS + 20) @(posedge clk);
    reset; run(2);
    if (mismatches == 0 && violations == 0 && timeouts == 0 && compared == 3 * RESULTS)
      $$display("PASS: %0d results compared, 0 mismatches", compared);
    else
      $$display("FAIL: %0d results compared of %0d, %0d mismatches, %0d protocol violations, ",
               compared, 3 * RESULTS, mismatches, violations, "%0d time-outs", timeouts);
    $$finish;
  end
endmodule
""")


def testbench(
    core: str,
    *,
    columns: int,
    rows: int,
    transfers: int,
    input_bits: int,
    output_bits: int,
    patience: int,
) -> str:
    """Testbench of module ``core``.

    Parameters
    ----------
    columns, rows : int
        Transfers per frame (or per V frames) at the input and at the output.
    transfers : int
        Frames (or groups of V frames).
    input_bits, output_bits : int
        Widths of the payloads.
    patience : int
        Cycles without a transfer after which the testbench gives up.
    """
    return _TESTBENCH.substitute(
        core=core,
        columns=columns,
        rows=rows,
        inputs=columns * transfers,
        results=rows * transfers,
        input_top=input_bits - 1,
        output_top=output_bits - 1,
        patience=patience,
    )
