"""Testbenches: the golden model's vectors through Amaranth's simulator and the exported Verilog."""

from sim.entry import SIMULATORS, simulate
from sim.result import Comparison, SimResult, compare

__all__ = ["SIMULATORS", "Comparison", "SimResult", "compare", "simulate"]
