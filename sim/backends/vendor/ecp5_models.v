// Models of the ECP5 primitives that pvq-hw instantiates and that Yosys has as black boxes only:
// the block RAM DP16KD (Lattice FPGA-TN-02204) and the multiplier MULT18X18D (FPGA-TN-02205).
//
// What the documents leave open reads as unknown (x) here: outputs before the first clock edge, a
// word read on one port while the other one writes it, and contents after a write whose enable or
// address is unknown. A mode that is not modeled stops the simulation.

`timescale 1ns / 1ps

// Block RAM of 2048 bytes of 9 bits, two ports with words of 1 to 18 bits. Words of 1, 2 and 4
// bits use 8 bits of each byte. In the wide modes the lowest address lines of a port that writes
// are byte enables.
//
// With a width of 36 it is what Lattice calls PDPW16KD: port A only writes, {DIB, DIA}, and port B
// only reads, 36 bits at {DOB, DOA}. That primitive has byte enables and no write enable, so WEA
// must be 1 there: what a write without it does is unknown.
module DP16KD (
  input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
  input DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0,
  input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7,
  input ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
  output DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0,
  input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
  input DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
  input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7,
  input ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
  output DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG";
  parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC", GSR = "DISABLED";
  parameter [39:0] CSDECODE_A = "0b000", CSDECODE_B = "0b000";
  parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
  parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB";
  parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0;
  parameter [319:0] INITVAL_04 = 0, INITVAL_05 = 0, INITVAL_06 = 0, INITVAL_07 = 0;
  parameter [319:0] INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0;
  parameter [319:0] INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0;
  parameter [319:0] INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0;
  parameter [319:0] INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0;
  parameter [319:0] INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0;
  parameter [319:0] INITVAL_1C = 0, INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F = 0;
  parameter [319:0] INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0;
  parameter [319:0] INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0;
  parameter [319:0] INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0;
  parameter [319:0] INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0;
  parameter [319:0] INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0;
  parameter [319:0] INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0, INITVAL_37 = 0;
  parameter [319:0] INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0;
  parameter [319:0] INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0;

  // A row of contents is 16 x 18 bits in steps of 20; each 18 bits are two bytes.
  reg [8:0] memory [0:2047];
  reg [20479:0] rows;
  reg [319:0] row;
  integer n;
  initial begin
    rows = {
      INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C,
      INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38,
      INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34,
      INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
      INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C,
      INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
      INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
      INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20,
      INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C,
      INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18,
      INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14,
      INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10,
      INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C,
      INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
      INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
      INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00
    };
    for (n = 0; n < 1024; n = n + 1) begin
      if (n % 16 == 0) row = rows[20 * n +: 320];
      {memory[2 * n + 1], memory[2 * n]} = row[20 * (n % 16) +: 18];
    end
  end

  wire [17:0] dia = {
    DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9,
    DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0
  };
  wire [17:0] dib = {
    DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9,
    DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0
  };
  wire [13:0] ada = {
    ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5,
    ADA4, ADA3, ADA2, ADA1, ADA0
  };
  wire [13:0] adb = {
    ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5,
    ADB4, ADB3, ADB2, ADB1, ADB0
  };

  localparam PSEUDO = DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36;
  wire [1:0] clk = {CLKBMUX == "INV" ? ~CLKB : CLKB, CLKAMUX == "INV" ? ~CLKA : CLKA};
  wire [1:0] we = {WEB, WEA}, rst = {RSTB, RSTA}, oce = {OCEB, OCEA};
  wire [1:0] ce = {
    CEB & ({CSB2, CSB1, CSB0} == {CSDECODE_B[16], CSDECODE_B[8], CSDECODE_B[0]}),
    CEA & ({CSA2, CSA1, CSA0} == {CSDECODE_A[16], CSDECODE_A[8], CSDECODE_A[0]})
  };
  genvar p;
  generate
    for (p = 0; p < 2; p = p + 1) begin : port
      localparam WIDTH = p ? DATA_WIDTH_B : DATA_WIDTH_A;
      localparam MODE = p ? WRITEMODE_B : WRITEMODE_A;
      localparam OUTREG = (p ? REGMODE_B : REGMODE_A) == "OUTREG";
      localparam WRITES = p == 0 || !PSEUDO, READS = p == 1 || !PSEUDO;
      localparam BYTES = WIDTH == 36 ? 4 : WIDTH == 18 ? 2 : 1;
      localparam [35:0] WORD = {36{1'b1}} >> (36 - WIDTH);

      wire [13:0] ad = p ? adb : ada;
      wire [35:0] di = WIDTH == 36 ? {dib, dia} : p ? {18'b0, dib} : {18'b0, dia};
      wire [10:0] first = WIDTH == 36 ? {ad[13:5], 2'b00} : WIDTH == 18 ? {ad[13:4], 1'b0}
                        : ad[13:3];
      wire [2:0] below = WIDTH == 1 ? ad[2:0] : WIDTH == 2 ? {ad[2:1], 1'b0}
                       : WIDTH == 4 ? {ad[2], 2'b00} : 3'b000;
      wire [3:0] enables = WIDTH == 36 ? ad[3:0] : WIDTH == 18 ? {2'b00, ad[1:0]} : 4'b0001;
      wire [13:0] location = ad & (WIDTH >= 18 ? ~((1 << BYTES) - 1) : ~0);

      wire clear = RESETMODE == "ASYNC" && rst[p];
      real at = -1; // when it last was clocked
      reg reads, writes, collides;
      reg [35:0] old, fresh, latched = 36'bx, register = 36'bx;
      integer i, j;

      always @(posedge clear) begin
        latched <= 0;
        register <= 0;
      end
      always @(posedge clk[p]) begin
        at = $realtime;
        writes = WRITES && ce[p] !== 0 && rst[p] !== 1 && enables !== 0
               && (we[p] !== 0 || WIDTH == 36);
        reads = READS && ce[p] !== 0 && !(writes && MODE == "NORMAL");
        old = 0;
        for (i = 0; i < BYTES; i = i + 1) old[9 * i +: 9] = memory[first + i];
        fresh = old;
        if (writes) begin
          for (i = 0; i < BYTES; i = i + 1)
            if ((ce[p] & we[p] & enables[i] & (rst[p] === 0)) === 1)
              fresh[9 * i +: 9] = WIDTH >= 9 ? di[9 * i +: 9]
                                : (old & ~(WORD << below)) | ((di & WORD) << below);
            else if (enables[i] !== 0 || WIDTH < 18) fresh[9 * i +: 9] = 9'bx;
          for (i = 0; i < BYTES; i = i + 1) memory[first + i] <= fresh[9 * i +: 9];
          if (^location === 1'bx) for (i = 0; i < 2048; i = i + 1) memory[i] <= 9'bx;
        end
        if (READS && rst[p]) latched <= 0;
        else if (reads && ce[p] !== 1) latched <= 36'bx;
        else if (reads) latched <= ((MODE == "WRITETHROUGH" ? fresh : old) >> below) & WORD;
        if (READS && OUTREG && rst[p]) register <= 0;
        else if (READS && OUTREG && oce[p]) register <= latched;

        // The port that comes second in a moment sees to both.
        if (port[1 - p].at == at) begin
          collides = 0;
          for (i = 0; i < BYTES; i = i + 1)
            for (j = 0; j < port[1 - p].BYTES; j = j + 1)
              if (first + i == port[1 - p].first + j
                  && ((WORD << below) >> 9 * i & (port[1 - p].WORD << port[1 - p].below) >> 9 * j
                      & 9'h1ff) != 0) begin
                if (writes && port[1 - p].writes) memory[first + i] <= 9'bx;
                collides = 1;
              end
          if (collides && reads && port[1 - p].writes) latched <= 36'bx;
          if (collides && writes && port[1 - p].reads) port[1 - p].latched <= 36'bx;
        end
      end
    end
  endgenerate

  wire [35:0] a = REGMODE_A == "OUTREG" ? port[0].register : port[0].latched;
  wire [35:0] b = REGMODE_B == "OUTREG" ? port[1].register : port[1].latched;
  assign {
    DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9,
    DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0
  } = DATA_WIDTH_B == 36 ? b[17:0] : a[17:0];
  assign {
    DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9,
    DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0
  } = DATA_WIDTH_B == 36 ? b[35:18] : b[17:0];

  function known(input integer width);
    known = width == 1 || width == 2 || width == 4 || width == 9 || width == 18 || width == 36;
  endfunction
  initial
    if (!known(DATA_WIDTH_A) || !known(DATA_WIDTH_B) 
        || (RESETMODE != "SYNC" && RESETMODE != "ASYNC")
        || (REGMODE_A != "OUTREG" && REGMODE_A != "NOREG")
        || (REGMODE_B != "OUTREG" && REGMODE_B != "NOREG")
        || (DATA_WIDTH_B == 36 && REGMODE_A != REGMODE_B)) begin
      $display("DP16KD: a mode that is not modeled");
      $finish;
    end
endmodule

// Multiplier, with a register at each input, one in the middle and one at the output, each of
// which may be left out ("NONE"). The operands' signs go through the input registers with them.
module MULT18X18D (
  input A17, A16, A15, A14, A13, A12, A11, A10, A9,
  input A8, A7, A6, A5, A4, A3, A2, A1, A0,
  input B17, B16, B15, B14, B13, B12, B11, B10, B9,
  input B8, B7, B6, B5, B4, B3, B2, B1, B0,
  input C17, C16, C15, C14, C13, C12, C11, C10, C9,
  input C8, C7, C6, C5, C4, C3, C2, C1, C0,
  input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  input CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0, RST3, RST2, RST1, RST0,
  output P35, P34, P33, P32, P31, P30, P29, P28, P27,
  output P26, P25, P24, P23, P22, P21, P20, P19, P18,
  output P17, P16, P15, P14, P13, P12, P11, P10, P9,
  output P8, P7, P6, P5, P4, P3, P2, P1, P0,
  output SIGNEDP
);
  parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0";
  parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0";
  parameter REG_INPUTC_CLK = "NONE", REG_INPUTC_CE = "CE0", REG_INPUTC_RST = "RST0";
  parameter REG_PIPELINE_CLK = "NONE", REG_PIPELINE_CE = "CE0", REG_PIPELINE_RST = "RST0";
  parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0";
  parameter SOURCEB_MODE = "B_SHIFT", MULT_BYPASS = "DISABLED", RESETMODE = "SYNC";
  parameter GSR = "ENABLED", HIGHSPEED_CLK = "NONE", CAS_MATCH_REG = "FALSE";
  parameter CLK0_DIV = "ENABLED", CLK1_DIV = "ENABLED";
  parameter CLK2_DIV = "ENABLED", CLK3_DIV = "ENABLED";

  wire [17:0] operand_a = {
    A17, A16, A15, A14, A13, A12, A11, A10, A9,
    A8, A7, A6, A5, A4, A3, A2, A1, A0
  };
  wire [17:0] operand_b = {
    B17, B16, B15, B14, B13, B12, B11, B10, B9,
    B8, B7, B6, B5, B4, B3, B2, B1, B0
  };
  wire signed [18:0] a, b;
  wire signed [36:0] product;
  wire [36:0] middle, result;
  wire [3:0] clk = {CLK3, CLK2, CLK1, CLK0}, ce = {CE3, CE2, CE1, CE0};
  wire [3:0] rst = {RST3, RST2, RST1, RST0};
  pvq_dsp_register #(19, REG_INPUTA_CLK, REG_INPUTA_CE, REG_INPUTA_RST) input_a (
    clk, ce, rst, {SIGNEDA & operand_a[17], operand_a}, a
  );
  pvq_dsp_register #(19, REG_INPUTB_CLK, REG_INPUTB_CE, REG_INPUTB_RST) input_b (
    clk, ce, rst, {SIGNEDB & operand_b[17], operand_b}, b
  );
  assign product = a * b;
  pvq_dsp_register #(37, REG_PIPELINE_CLK, REG_PIPELINE_CE, REG_PIPELINE_RST) pipeline (
    clk, ce, rst, product, middle
  );
  pvq_dsp_register #(37, REG_OUTPUT_CLK, REG_OUTPUT_CE, REG_OUTPUT_RST) out (
    clk, ce, rst, middle, result
  );
  assign {
    P35, P34, P33, P32, P31, P30, P29, P28, P27,
    P26, P25, P24, P23, P22, P21, P20, P19, P18,
    P17, P16, P15, P14, P13, P12, P11, P10, P9,
    P8, P7, P6, P5, P4, P3, P2, P1, P0
  } = result[35:0];
  assign SIGNEDP = result[36];

  always @(SOURCEA, SOURCEB)
    if (SOURCEA !== 0 || SOURCEB !== 0 || MULT_BYPASS != "DISABLED" || RESETMODE != "SYNC"
        || HIGHSPEED_CLK != "NONE" || SOURCEB_MODE != "B_SHIFT") begin
      $display("MULT18X18D: a mode that is not modeled");
      $finish;
    end
endmodule

// One of the multiplier's registers: clock, clock enable and reset are chosen by name.
module pvq_dsp_register #(
  parameter WIDTH = 1,
  parameter CLK = "NONE",
  parameter CE = "CE0",
  parameter RST = "RST0"
) (
  input  wire [3:0] clk, ce, rst,
  input  wire [WIDTH-1:0] d,
  output wire [WIDTH-1:0] q
);
  reg [WIDTH-1:0] held = {WIDTH{1'bx}};
  wire clock = CLK == "CLK3" ? clk[3] : CLK == "CLK2" ? clk[2] : CLK == "CLK1" ? clk[1] : clk[0];
  wire enable = CE == "CE3" ? ce[3] : CE == "CE2" ? ce[2] : CE == "CE1" ? ce[1] : ce[0];
  wire reset = RST == "RST3" ? rst[3] : RST == "RST2" ? rst[2] : RST == "RST1" ? rst[1] : rst[0];
  always @(posedge clock)
    if (reset) held <= 0;
    else if (enable) held <= d;
  assign q = CLK == "NONE" ? d : held;
endmodule
