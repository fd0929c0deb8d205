"""Counters that walk through frames: one strobe alone moves them, so that all states they can have
are one round, which is run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.engine.units import Pool
from pvq_hw.errors import CheckError, InputError
from sim.proof.cones import Bits
from sim.proof.evaluate import Evaluator
from sim.proof.formulas import Formulas, Solver
from sim.proof.netlist import Bit, Cell, Netlist

__all__ = ["check_pool_walk", "pooled", "walk"]

IntArray = npt.NDArray[np.int64]


def walk(
    netlist: Netlist, step: str, wanted: Mapping[str, Bits], steps: int, where: str
) -> dict[str, IntArray]:
    """What some nets are in each step of a round of ``steps``, from reset on.

    Shown first is that the registers behind them are moved by the strobe ``step`` alone, are as
    after configuration after reset, and are there again after the round.

    Raises
    ------
    CheckError
        A reset leaves a register as it was, one moves without the strobe, or a round has another
        length.
    InputError
        Something else decides them too.
    """
    (strobe,) = netlist.net(step)
    registers = _behind(netlist, strobe, [bit for bits in wanted.values() for bit in bits])
    _check_moves(netlist, strobe, registers, where)
    alone = replace(
        netlist,
        cells=[c for c in netlist.cells if c.output != [strobe]],
        ports={
            **{name: netlist.ports[name] for name in ("clk", "rst")},
            "valid": ("input", [strobe]),
        },
    )  # no payload: all runs are one
    state = [bit for cell in registers for bit in cell.output]
    seen = [*state, *(bit for bits in wanted.values() for bit in bits)]
    inputs = [bit for cell in registers for bit in cell.ports["D"]]
    evaluator = Evaluator(alone, 1, wanted=[*seen, *inputs])
    evaluator.set("valid", 1)
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    first = evaluator.get(state)
    for number in range(steps):
        evaluator.settle()
        for name, bits in wanted.items():
            found[name].append(evaluator.get(bits))
        evaluator.clock()
        if (evaluator.get(state) == first) != (number == steps - 1):
            raise CheckError(f"{where}: counters must go round in {steps:,} steps")
    return {name: np.array(values, dtype=np.int64) for name, values in found.items()}


def _behind(netlist: Netlist, strobe: Bit, bits: Bits) -> list[Cell]:
    """The registers that bits follow from, and these from one another."""
    known = {strobe, *netlist.port("rst")}
    found: dict[str, Cell] = {}
    todo, seen = list(bits), set()
    while todo:
        bit = todo.pop()
        if bit in known or bit in seen or not isinstance(bit, int):
            continue
        seen.add(bit)
        cell = netlist.makers.get(bit)
        if cell is None or cell.written:
            raise InputError("counters are not built as expected")
        if cell.type == "$dff":
            found[cell.name] = cell
        todo += cell.inputs
    return list(found.values())


def _check_moves(netlist: Netlist, strobe: Bit, registers: list[Cell], where: str) -> None:
    solver = Solver()
    formulas = Formulas(netlist, solver)
    step = solver.unknown("step", 1)
    formulas.define(strobe, step)
    idle = solver.same(step, solver.number(0, 1))
    reset = formulas.is_set(netlist.port("rst")[0])
    running = [idle, solver.op("NOT", [reset])]
    for cell in registers:
        if any(bit not in netlist.init for bit in cell.output):
            raise InputError("counters are not built as expected")
        start = sum((netlist.init[bit] == "1") << k for k, bit in enumerate(cell.output))
        later = formulas.later(cell.output)
        if not solver.follows(running, solver.same(later, formulas.read(cell.output))):
            raise CheckError(f"{where}: a counter moves without a step")
        if not solver.follows([reset], solver.same(later, solver.number(start, len(cell.output)))):
            raise CheckError(f"{where}: reset leaves a counter as it was")


def check_pool_walk(netlist: Netlist, unit: Pool) -> int:
    """Compares the walk of a pooling of activations as they come with its windows: which transfer
    is within one, its first and its last; returns how many. Raises CheckError where one is
    another."""
    where = f"Unit {unit.name!r}"
    firsts = ("column_first", "row_first", "row_last") if unit.chained else ("first",)
    inner = (*firsts, "address")
    flags = ("inside", "last", *inner)
    nets = {what: netlist.either(f"walk.{what}_", f"walk.{what}") for what in flags}
    expected = pooled(unit)
    within = expected["inside"] == 1
    found = walk(netlist, "walk.take", nets, len(within), where)
    for what in flags:
        relevant = within if what in inner else np.ones_like(within)
        wrong = np.flatnonzero((found[what] != expected[what]) & relevant)
        if len(wrong):
            raise CheckError(f"{where}: transfer {wrong[0]} of a frame must have another {what!r}")
    return len(within)


def pooled(unit: Pool) -> dict[str, npt.NDArray[Any]]:
    """Of every transfer of a frame whether it is within a window, its first and its last; in its
    first column, its first row, and its last column; and which partial result of a row it is of."""
    y, x = (
        np.array(_axis(unit, axis, size), dtype=np.int64).T
        for axis, size in enumerate(unit.geometry.input_shape[:2])
    )
    places = {
        "inside": y[0][:, None] & x[0],
        "first": y[1][:, None] & x[1],
        "last": y[2][:, None] & x[2],
        "column_first": np.ones_like(y[1][:, None]) & x[1],
        "row_first": y[1][:, None] & np.ones_like(x[1]),
        "row_last": np.ones_like(y[1][:, None]) & x[2],
    }
    found = {what: np.repeat(flags.ravel(), unit.pixel_transfers) for what, flags in places.items()}
    word = x[3][:, None] * unit.pixel_transfers + np.arange(unit.pixel_transfers)
    return found | {"address": np.tile(word.ravel(), len(y[0]))}


def _axis(unit: Pool, axis: int, size: int) -> list[tuple[int, ...]]:
    """Of every place of an axis whether it is within a window, the first and the last of it, and
    of which."""
    g = unit.geometry
    windows = [
        [p for p in range(start, start + g.kernel[axis]) if 0 <= p < size]
        for start in range(-g.pads[axis][0], size, g.stride[axis])
    ][: g.output_size[axis]]
    places: list[tuple[int, ...]] = [(0, 0, 0, 0)] * size
    for number, window in enumerate(windows):
        for place in window:
            places[place] = (1, int(place == window[0]), int(place == window[-1]), number)
    return places
