"""Testbenches that cocotb runs inside a Verilog simulator; `sim.icarus` starts them."""
