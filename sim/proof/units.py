"""Units around the cores for all inputs: tables and sums, value by value."""

from itertools import product

import numpy as np
import numpy.typing as npt

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.units import Join, Lookup
from pvq_hw.errors import CheckError, InputError
from sim.proof.evaluate import Evaluator
from sim.proof.netlist import Bit, Netlist

__all__ = ["check_sum", "check_table"]

_MOST_BITS = 20  # of all operands together


def _values(form: IntFormat) -> npt.NDArray[np.int64]:
    least, most = form.limits
    return np.arange(least, most + 1)


def check_table(netlist: Netlist, unit: Lookup) -> int:
    """Looks every value up in every table; returns how many. Raises CheckError where one is not
    the unit's."""
    wanted = netlist.net("queue.w_data")
    tables = len(unit.entries)
    channels, x = (
        a.ravel() for a in np.meshgrid(np.arange(tables), _values(unit.x), indexing="ij")
    )
    cut = ["channel"] if tables > 1 else []
    if len(netlist.payload_ports) != 1:
        raise InputError(f"table {unit.name!r} must read one payload")
    (payload,) = netlist.payload_ports
    evaluator = Evaluator(netlist, len(x), cut=[payload, *cut], wanted=wanted)
    evaluator.set(payload, x & ((1 << unit.x.bits) - 1))
    for name in cut:
        evaluator.set(name, channels)
    expected = np.array(unit.entries)[channels, x - unit.x.limits[0]]
    _compare(evaluator, wanted, unit.latency, expected, unit.out, f"Table {unit.name!r}")
    return len(x)


def check_sum(netlist: Netlist, unit: Join) -> int:
    """Adds every combination of activations; returns how many. Raises CheckError where a result
    is not the unit's.

    Raises InputError where the unit is no sum, or there are too many combinations.
    """
    if unit.runs:
        raise InputError("a concatenation takes its inputs in turn, which is not followed")
    if sum(x.bits for x in unit.x) > _MOST_BITS:
        raise InputError(f"its operands have more than {_MOST_BITS} bits")
    wanted = netlist.net("queue.w_data")
    x = np.array(list(product(*map(_values, unit.x)))).T
    ports = [f"i{k}__payload" for k in range(len(x))]
    evaluator = Evaluator(netlist, x.shape[1], cut=ports, wanted=wanted)
    for port, values, form in zip(ports, x, unit.x, strict=True):
        evaluator.set(port, values & ((1 << form.bits) - 1))
    total = sum(int(mult) * values for mult, values in zip(unit.mult, x, strict=True))
    expected = unit.out.clamp((total + (1 << (unit.scale.shift - 1))) >> unit.scale.shift)
    _compare(evaluator, wanted, unit.scale.delay, expected, unit.out, f"Sum {unit.name!r}")
    return x.shape[1]


def _compare(
    evaluator: Evaluator,
    wanted: list[Bit],
    delay: int,
    expected: npt.NDArray[np.int64],
    out: IntFormat,
    what: str,
) -> None:
    for _ in range(delay):
        evaluator.settle()
        evaluator.clock()
    evaluator.settle()
    wrong = np.flatnonzero(evaluator.get(wanted) != (expected & ((1 << out.bits) - 1)))
    if len(wrong):
        raise CheckError(f"{what} must give {expected[wrong[0]]} for input {wrong[0]}")
