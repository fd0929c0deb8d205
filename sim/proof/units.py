"""Units around the cores for all inputs: tables, sums, concatenations and thresholds, value by
value."""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.decision import AboveUnit
from pvq_hw.engine.units import Join, Lookup
from pvq_hw.errors import CheckError, InputError
from sim.proof.cones import Bits, Cones
from sim.proof.evaluate import Evaluator
from sim.proof.netlist import Netlist

__all__ = ["check_sum", "check_table", "check_thresholds"]

IntArray = npt.NDArray[np.int64]

_MOST_BITS = 20  # of all operands together
_WIDE = 62  # bits of an array's elements; of more, they are integers of Python


def _values(form: IntFormat) -> IntArray:
    least, most = form.limits
    return np.arange(least, most + 1)


def check_table(netlist: Netlist, unit: Lookup) -> int:
    """Looks every value up in every table; returns how many. Raises CheckError where one is not
    the unit's."""
    tables, step = len(unit.entries), unit.width if len(unit.entries) > 1 else 1
    starts, x = (
        a.ravel() for a in np.meshgrid(np.arange(0, tables, step), _values(unit.x), indexing="ij")
    )
    if len(netlist.payload_ports) != 1:
        raise InputError(f"table {unit.name!r} must read one payload")
    (payload,) = netlist.payload_ports
    held = {payload: [unit.x.bits] * unit.width}
    lanes = [np.roll(x, lane) for lane in range(unit.width)]
    entries = np.array(unit.entries)
    expected = [
        entries[starts + (lane if step > 1 else 0), found - unit.x.limits[0]]
        for lane, found in enumerate(lanes)
    ]
    given = {payload: lanes}
    if "channel" in netlist.nets and tables > step:
        held["channel"] = [len(netlist.net("channel"))]
        given["channel"] = [starts // step]
    _compare(netlist, held, given, unit.latency, expected, unit.out, f"Table {unit.name!r}")
    return len(x) * step


def check_sum(netlist: Netlist, unit: Join) -> int:
    """Adds every combination of activations, or brings every activation of each input of a
    concatenation to the output's scale; returns how many. Raises CheckError where a result is not
    the unit's.

    Raises InputError where there are too many combinations.
    """
    if not unit.runs and sum(x.bits for x in unit.x) > _MOST_BITS:
        raise InputError(f"its operands have more than {_MOST_BITS} bits")
    if unit.runs:
        turns = [(number, x) for number, form in enumerate(unit.x) for x in _values(form)]
        which, value = np.array(turns).T
        x = [np.where(which == k, value, np.roll(value, 1 + k)) for k in range(len(unit.x))]
        total = np.array(unit.mult)[which] * value
    else:
        x = list(np.array(list(product(*map(_values, unit.x)))).T)
        total = sum(int(mult) * values for mult, values in zip(unit.mult, x, strict=True))
    result = unit.out.clamp((total + (1 << (unit.scale.shift - 1))) >> unit.scale.shift)
    held = {f"i{k}__payload": [form.bits] * unit.width for k, form in enumerate(unit.x)}
    # All channels of a transfer are of one input, each another activation.
    size = len(unit.x) if unit.runs else 1
    order = [np.arange(len(result))] * unit.width
    if not unit.runs:
        order = [np.roll(order[0], lane) for lane in range(unit.width)]
    else:
        order = [_rolled(which, lane) for lane in range(unit.width)]
    given = {f"i{k}__payload": [values[at] for at in order] for k, values in enumerate(x)}
    if size > 1:
        held["which"], given["which"] = [len(netlist.net("which"))], [which]
    _compare(netlist, held, given, unit.scale.delay, [result[at] for at in order], unit.out,
             f"Sum {unit.name!r}")  # fmt: skip
    return len(result)


def _rolled(which: IntArray, places: int) -> IntArray:
    """Places of the same input, each so many further round."""
    found = np.arange(len(which))
    for number in np.unique(which):
        own = np.flatnonzero(which == number)
        found[own] = np.roll(own, places)
    return found


def check_thresholds(netlist: Netlist, unit: AboveUnit) -> int:
    """Compares every value with every threshold; returns how many. Raises CheckError where a result
    is not the unit's."""
    several = len(set(unit.thresholds)) > 1
    thresholds = np.array(unit.thresholds if several else unit.thresholds[:1])
    places, x = (
        a.ravel() for a in np.meshgrid(np.arange(len(thresholds)), _values(unit.x), indexing="ij")
    )
    (payload,) = netlist.payload_ports
    held, given = {payload: [unit.x.bits]}, {payload: [x]}
    if several:
        held["place"], given["place"] = [len(netlist.net("place"))], [places]
    expected = [(x >= thresholds[places]).astype(np.int64)]
    _compare(netlist, held, given, unit.result_delay, expected, unit.out, f"Unit {unit.name!r}")
    return len(x)


def _compare(
    netlist: Netlist,
    held: dict[str, list[int]],
    given: dict[str, list[IntArray]],
    delay: int,
    expected: list[IntArray],
    out: IntFormat,
    what: str,
) -> None:
    """Runs a unit on values of some nets, with other ones in the cycles behind them, and compares
    what goes into its queue."""
    wanted = _written(netlist)
    size = len(expected[0])
    evaluator = Evaluator(netlist, size, cut=list(held), wanted=wanted)
    for cycle in range(delay + 1):
        for name, bits in held.items():
            values = [np.roll(value, cycle) for value in given[name]]
            evaluator.set(name, _packed(values, bits))
        evaluator.settle()
        if cycle < delay:
            evaluator.clock()
    found = _packed(expected, [out.bits] * len(expected))
    wrong = np.flatnonzero(evaluator.get(wanted) != found)
    if len(wrong):
        raise CheckError(f"{what} must give {expected[0][wrong[0]]} for input {wrong[0]}")


def _written(netlist: Netlist) -> Bits:
    """What goes into a unit's queue when something does."""
    if "queue.w_data" in netlist.nets:
        return netlist.net("queue.w_data")
    (memory,) = (c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith("queue."))
    cell = Cones(netlist).maker(memory.ports["WR_DATA"][0], "$mux")
    if cell.output != memory.ports["WR_DATA"] or cell.ports["S"] != netlist.net("queue.w_en"):
        raise InputError("results are not written as expected")
    return cell.ports["B"]


def _packed(values: list[IntArray], bits: list[int]) -> Any:
    """Values side by side, the first one lowest."""
    wide = sum(bits) > _WIDE
    total: Any = 0
    for value, width, low in zip(values, bits, np.cumsum([0, *bits]).tolist(), strict=False):
        code = value & ((1 << width) - 1)
        total = total | (code.astype(object) if wide else code) << low
    return total
