"""Testbenches: the golden model's vectors through Amaranth's simulator and the exported Verilog."""
