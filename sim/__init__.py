"""Testbenches: the golden model's vectors through Amaranth's simulator and the exported Verilog.

Names are imported when they are first used, so that a testbench inside a simulator starts at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.result import Comparison, SimResult, compare
    from sim.run import SIMULATORS, simulate

__all__ = ["SIMULATORS", "Comparison", "SimResult", "compare", "simulate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    home = "sim.run" if name in ("SIMULATORS", "simulate") else "sim.result"
    return getattr(importlib.import_module(home), name)
