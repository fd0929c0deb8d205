"""Hand-written Verilog: the ROM that reads its image, and RAM for codes that are loaded."""

__all__ = ["ROM_VERILOG", "SPRAM_VERILOG"]

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
