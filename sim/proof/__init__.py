"""Proofs over exported Verilog: for all inputs, where simulation shows some."""
