"""Testbenches that cocotb runs inside a Verilog simulator; `sim.backends.icarus` starts them."""
