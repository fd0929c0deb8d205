"""Hand-written Verilog: the ROM that reads its image, RAM for codes that are loaded, and a flash
that holds codes in simulations."""

from string import Template

__all__ = ["ROM_VERILOG", "SPRAM_VERILOG", "flash_verilog"]

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

_FLASH_VERILOG = Template("""\
// For simulations only: $core with the SPI flash that holds its codes at its pins.

module $bench (
  input  wire clk,
  input  wire rst,
  input  wire i__valid,
  output wire i__ready,
  input  wire [$input_top:0] i__payload,
  output wire o__valid,
  input  wire o__ready,
  output wire [$output_top:0] o__payload
);
  wire cs_n, sck, copi, copi_oe;
  wire [$data_top:0] cipo;

  pvq_flash #(
    .INIT_FILE("$file"), .WIDTH($width), .DEPTH($depth), .START($start), .BITS($data_bits)
  ) flash (.clk(clk), .cs_n(cs_n), .sck(sck), .copi(copi), .copi_oe(copi_oe), .cipo(cipo));

  $core $instance (
    .clk(clk), .rst(rst),
    .flash__cs_n(cs_n), .flash__clk(sck), .flash__copi(copi), .flash__cipo(cipo),$turn
    .codes_right(), .codes_wrong(),
    .i__valid(i__valid), .i__ready(i__ready), .i__payload(i__payload),
    .o__valid(o__valid), .o__ready(o__ready), .o__payload(o__payload)
  );
${driven}endmodule

// Knows one command with an address of 24 bits, in SPI mode 0, once it has been woken up by 0xAB:
// 0x03, or where BITS, which it gives a clock, are 2 or 4, 0x3B or 0x6B, with a dummy byte behind
// the address. From byte START on it holds the words of INIT_FILE ($$readmemh text), each behind
// zeros up to a multiple of BITS, the most significant bit first; else it reads ones. What it gives
// follows the fall of its clock within a cycle of clk, which the pins come from. A pin that the
// FPGA drives (copi_oe) while the flash does is at the FPGA's level.

module pvq_flash #(
  parameter INIT_FILE = "",
  parameter WIDTH = 1,
  parameter DEPTH = 1,
  parameter START = 0,
  parameter BITS = 1
) (
  input  wire clk,
  input  wire cs_n,
  input  wire sck,
  input  wire copi,
  input  wire copi_oe,
  output wire [BITS-1:0] cipo
);
  localparam SENT = (WIDTH + BITS - 1) / BITS * BITS;
  localparam ASKED = BITS == 1 ? 32 : 40;
  localparam [7:0] READ = BITS == 1 ? 8'h03 : BITS == 2 ? 8'h3B : 8'h6B;

  reg [WIDTH-1:0] words [0:DEPTH-1];
  generate
    if (INIT_FILE != "") initial $$readmemh(INIT_FILE, words);
  endgenerate

  reg was = 0, awake = 0;
  reg [5:0] count = 0;      // clocks of the command and what is behind it
  reg [31:0] command = 0;
  reg [31:0] word = 0, place = 0; // the next bits: of a word, from the most significant on
  reg early = 0;            // the address is before START, or not the first bit of a word
  reg [BITS-1:0] given = {BITS{1'b1}};
  wire [SENT-1:0] sent = words[word];

  generate
    if (BITS == 1) begin : one
      assign cipo = given;
    end else if (BITS == 2) begin : two
      assign cipo = {given[1], copi_oe ? copi : given[0]};
    end else begin : four
      assign cipo = copi_oe ? {2'b11, given[1], copi} : given;
    end
  endgenerate

  always @(posedge clk) begin
    was <= sck;
    if (cs_n) begin
      if (count == 8 && command[7:0] == 8'hAB) awake <= 1;
      count <= 0;
      given <= {BITS{1'b1}};
    end else if (sck && !was) begin
      if (count < 32) command <= {command[30:0], copi};
      if (count < ASKED) count <= count + 1;
      if (count == 31) begin
        early <= {command[22:0], copi} != START;
        word <= 0;
        place <= 0;
      end
    end else if (!sck && was && count == ASKED) begin
      if (command[31:24] == READ && awake && !early && word < DEPTH) begin
        given <= sent[SENT - BITS - place +: BITS];
        place <= place + BITS == SENT ? 0 : place + BITS;
        if (place + BITS == SENT) word <= word + 1;
      end else
        given <= {BITS{1'b1}};
    end
  end
endmodule
""")


def flash_verilog(
    core: str, bench: str, instance: str, file: str, size: tuple[int, int], start: int,
    bits: tuple[int, int], width: int,
) -> str:  # fmt: skip
    """Module ``bench`` with the streams of ``core``, which is its ``instance``, and a flash.

    ``size`` is the words' width and their number, in ``file``, from byte ``start`` of the flash on;
    ``bits`` are those of the payloads of ``i`` and ``o``, ``width`` those that it gives a clock.
    """
    turns = width > 1
    return _FLASH_VERILOG.substitute(
        core=core, bench=bench, instance=instance, file=file, width=size[0], depth=size[1],
        start=start, input_top=bits[0] - 1, output_top=bits[1] - 1,
        data_bits=width, data_top=width - 1, turn=" .flash__copi_oe(copi_oe)," if turns else "",
        driven="" if turns else "  assign copi_oe = 1;\n",
    )  # fmt: skip
