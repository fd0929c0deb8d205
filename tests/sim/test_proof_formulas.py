"""Formulas of cells that shift and multiply say what the evaluator computes."""

import numpy as np
import pytest

from sim.proof.evaluate import Evaluator
from sim.proof.formulas import Formulas, Solver
from sim.proof.netlist import Cell, Netlist

KINDS = ["$shl", "$shr", "$sshl", "$sshr", "$mul", "$add", "$sub"]


def netlist(kind, sizes, signed):
    """One cell between an input and an output."""
    a, b, y = sizes
    bits = list(range(2, 2 + a + b + y))
    ports = {"A": bits[:a], "B": bits[a : a + b], "Y": bits[a + b :]}
    both = signed and kind not in ("$shl", "$shr", "$sshl", "$sshr")
    parameters = {"A_SIGNED": str(int(signed)), "B_SIGNED": str(int(both))}
    directions = {"A": "input", "B": "input", "Y": "output"}
    return Netlist(
        "cell",
        {name: (directions[name], found) for name, found in ports.items()},
        [Cell("cell", kind, ports, parameters)],
        ports,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("sizes", [(3, 2, 3), (2, 3, 4), (3, 3, 2)])
def test_a_cell_is_what_the_evaluator_says(kind, signed, sizes):
    found = netlist(kind, sizes, signed)
    a, b = (x.ravel() for x in np.meshgrid(*(np.arange(1 << n) for n in sizes[:2])))
    evaluator = Evaluator(found, len(a), cut=["A", "B"], wanted=found.net("Y"))
    evaluator.set("A", a)
    evaluator.set("B", b)
    evaluator.settle()
    values = np.broadcast_to(evaluator.get(found.net("Y")), a.shape)
    solver = Solver()
    formulas = Formulas(found, solver)
    operands = [formulas.read(found.net(name)) for name in "AB"]
    result = formulas.read(found.net("Y"))
    for x, y, value in zip(a, b, values, strict=True):
        given = [
            solver.same(term, solver.number(int(v), size))
            for term, v, size in zip(operands, (x, y), sizes, strict=False)
        ]
        assert solver.follows(given, solver.same(result, solver.number(int(value), sizes[2])))
