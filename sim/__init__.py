"""Testbenches: the same vectors through the golden model, Amaranth's simulator and the exported Verilog."""
