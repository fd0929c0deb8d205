"""Testbenches: the golden model's vectors through Amaranth's simulator and the exported Verilog."""

from sim.result import Comparison, SimResult, compare
from sim.run import SIMULATORS, simulate

__all__ = ["SIMULATORS", "Comparison", "SimResult", "compare", "simulate"]
