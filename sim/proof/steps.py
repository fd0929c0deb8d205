"""Cells between registers, run once from many states side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pvq_hw.errors import InputError
from sim.proof.cones import Bits
from sim.proof.evaluate import Evaluator
from sim.proof.netlist import Netlist

__all__ = ["States", "Step"]

States = dict[str, Any]
"""Values of nets by their names: a number, or one for each state."""


class Step:
    """What some nets are, given those that stand before them.

    Parameters
    ----------
    netlist : Netlist
    cut : mapping of str to bits
        Nets that are given, by their names in the netlist.
    wanted : mapping of str to bits

    Raises
    ------
    InputError
        Something else decides what is wanted: another register, a memory or an input but reset.
    """

    def __init__(
        self, netlist: Netlist, cut: Mapping[str, Bits], wanted: Mapping[str, Bits]
    ) -> None:
        self._cut, self._wanted = cut, wanted
        ends = [bit for bits in wanted.values() for bit in bits]
        stops = {bit for bits in cut.values() for bit in bits} | set(netlist.port("rst"))
        todo, seen = list(ends), set(stops)
        while todo:
            bit = todo.pop()
            if bit in seen or not isinstance(bit, int):
                continue
            seen.add(bit)
            cell = netlist.makers.get(bit)
            if cell is None or cell.type in ("$dff", "$mem_v2"):
                raise InputError("windows of a map are not walked as expected")
            todo += cell.inputs
        self._run = Evaluator(netlist, 1, cut=list(cut), wanted=ends)

    def __call__(self, values: States, rst: int = 0) -> States:
        """What is wanted, an array each, where nets are so; 0 where nothing is said."""
        self._run.set("rst", rst)
        size = max((np.size(value) for value in values.values()), default=1)
        for name, bits in self._cut.items():
            value = np.broadcast_to(np.asarray(values.get(name, 0)), (size,))
            self._run.set(name, value.astype(np.int64) & ((1 << len(bits)) - 1))
        self._run.settle()
        return {
            name: np.broadcast_to(np.asarray(self._run.get(bits)), (size,))
            for name, bits in self._wanted.items()
        }
