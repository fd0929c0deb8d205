"""Verilog for other flows."""
