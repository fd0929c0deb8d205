"""Trained network in, verified FPGA accelerator out."""

__version__ = "0.1.0"
