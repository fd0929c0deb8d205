"""Blocks of shared engines: leaves, adder trees, accumulators, multiplier and finishes.

They are checked as those of cores of one layer are, on a netlist whose nets have the same names.
"""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from pvq_hw.engine.shared_core import SharedSpec
from pvq_hw.errors import CheckError, InputError
from sim.proof.accumulators import check_accumulators
from sim.proof.blocks import check_leaves, check_trees, leaf_values
from sim.proof.cones import Bits, Cones
from sim.proof.netlist import Bit, Cell, Netlist, accumulator
from sim.proof.requantizers import (
    bias_operand,
    block_product,
    check_block_product,
    check_finish,
)

__all__ = ["EngineBlocks"]

_NAMES = (
    (r"^leaf(\d+)\.", r"leaf\1_0."),
    (r"^accumulator\.", "accumulator0."),
    (r"^(multiplier|adder|saturate\d+)\.", r"requantizer0.\1."),
)


class EngineBlocks:
    """What can be shown of an engine's datapath for all inputs.

    Parameters
    ----------
    netlist : Netlist
    spec : SharedSpec
    """

    def __init__(self, netlist: Netlist, spec: SharedSpec) -> None:
        self._spec = spec
        nets = dict(netlist.nets)
        for old, new in _NAMES:
            nets |= {re.sub(old, new, name): bits for name, bits in nets.items()}
        self._netlist = replace(netlist, nets=nets)
        side = getattr(spec, "side", 1)
        self._like: Any = SimpleNamespace(
            name=spec.name, x=spec.lane_x, code=spec.code, lanes=spec.lanes, frames=side,
            bank_latency=spec.bank_latency, leaf_bits=spec.leaf_bits,
            tree_levels=spec.tree_levels, acc_bits=spec.acc_bits, acc_chunks=spec.acc_chunks,
            carry_chunk=spec.carry_chunk,
        )  # fmt: skip
        for lane in range(spec.lanes):
            for v in range(side):
                nets[f"leaf{lane}_{v}.x"] = self._activation(lane, v)

    def _activation(self, lane: int, v: int) -> Bits:
        """What a leaf reads: where layers are mixed, a word of the bank, and its sign."""
        module, nets = f"leaf{lane}_{v}.", self._netlist.nets
        if f"{module}x" in nets:
            return nets[f"{module}x"]
        controls = self._netlist.net(f"controls{lane}_{self._spec.bank_latency - 1}")
        makers = self._netlist.makers
        ports = {
            tuple(bits)
            for name, bits in nets.items()
            if name.startswith(f"{module}port_")
            and set(bits) <= set(makers)  # clock, reset and loading have none
            and not set(bits) <= set(controls)
        }
        found = [bit for bits in sorted(ports, key=len, reverse=True) for bit in bits]
        if len(found) != self._spec.lane_x.bits:
            raise InputError("leaves of an engine are not built as expected")
        return found

    def activations(self) -> list[Bits]:
        """What the leaves of all lanes read."""
        side = self._like.frames
        return [
            self._netlist.net(f"leaf{p}_{v}.x")
            for v in range(side)
            for p in range(self._spec.lanes)
        ]

    def leaves(self) -> int:
        """Checks every leaf; returns how many values. Errors: `sim.proof.blocks.check_leaves`."""
        return check_leaves(self._netlist, self._like)

    def trees(self) -> int:
        """Checks the adder trees; returns how many adders."""
        return check_trees(self._netlist, self._like, leaf_values(self._netlist, self._like))

    def accumulators(self) -> int:
        """Checks the accumulators; returns how many carry chains."""
        return check_accumulators(self._netlist, self._like, gated=False)

    def finishes(self) -> int:
        """Checks what every sum of products and every bias become, in each of the ways; and, of DSP
        blocks, every product. Returns how many ways.

        Raises
        ------
        CheckError
            A product or an activation is another one.
        InputError
            The multiplier is no DSP block, or takes the largest of several sums.
        """
        spec = self._spec
        for number, finish in enumerate(spec.finishes):
            nets = {
                re.sub(rf"^requantizer0\.saturate{number}\.", "requantizer0.saturate.", name): bits
                for name, bits in self._netlist.nets.items()
            }
            check_finish(replace(self._netlist, nets=nets), spec, finish.out, finish.shift)
        if not spec.multiplies.blocks:
            raise InputError("the multiplier of an engine without DSP blocks is not followed")
        operand, sums = (
            self._operand(),
            [
                accumulator(self._netlist, self._like.acc_chunks, v)
                for v in range(self._like.frames)
            ],
        )
        check_block_product(self._netlist, spec, operand, added=spec.joined)
        if spec.chosen:
            raise InputError("which of several sums is the largest is not followed")
        self._check_chosen(operand, sums, "sums must be multiplied as they are")
        if spec.joined:
            self._check_added()
        return len(spec.finishes)

    def _operand(self) -> Bits:
        """What the multiplier takes, of the registers of its parts."""
        cones, found = Cones(self._netlist), list[Bit]()
        step, bits = self._spec.multiplies.bits - 1, self._spec.acc_bits
        while len(found) < bits:
            part = self._netlist.net(f"requantizer0.multiplier.a{len(found) // step}")
            before = [cones.before(bit, resets=False) for bit in part]
            # Lower parts have a 0 above them.
            found += before if len(found) + len(before) == bits else before[:step]
        return found

    def _check_chosen(self, bits: Bits, sources: list[Bits], what: str) -> None:
        """Raises CheckError unless bits are those of one of the sources, which multiplexers choose,
        each its own."""
        own = {bit: k for source in sources for k, bit in enumerate(source)}
        for k, bit in enumerate(bits):
            todo, seen = [bit], set[Bit]()
            while todo:
                found = todo.pop()
                cell = self._netlist.makers.get(found)
                if found in seen or own.get(found) == k:
                    continue
                if found in own or cell is None or cell.type not in ("$mux", "$dff"):
                    raise CheckError(f"Core {self._spec.name!r}: {what}")
                seen.add(found)
                at = cell.output.index(found)
                todo += [cell.ports[port][at] for port in ("A", "B", "D") if port in cell.ports]

    def _check_added(self) -> None:
        """Raises CheckError unless sums of products are a product, or that of a row added to what
        they were, or what they were."""
        spec, names = self._spec, self._netlist.nets
        product = block_product(self._netlist, spec)
        wide = [*product, *[product[-1]] * spec.sum_bits]
        kept = [names[f"products{v}"] for v in range(self._like.frames)]
        for own in kept:
            register = Cones(self._netlist).maker(own[0], "$dff")
            todo, found = [register.ports["D"]], set[str]()
            while todo:
                bits = todo.pop()
                cell = self._netlist.makers.get(bits[0])
                if bits in (own, wide[: len(own)]):
                    found.add("kept" if bits == own else "product")
                elif cell is not None and cell.type == "$mux" and cell.output == bits:
                    todo += [cell.ports["A"], cell.ports["B"]]
                elif cell is not None and self._adds(cell, bits, own, wide):
                    found.add("sum")
                else:
                    found.add("other")
            if register.output != own or found != {"kept", "product", "sum"}:
                raise CheckError(f"Core {spec.name!r}: products of rows must be added up")
        self._check_chosen(bias_operand(self._netlist, spec), kept, "sums of products must be kept")

    def _adds(self, cell: Cell, bits: Bits, own: Bits, product: Bits) -> bool:
        """Whether a cell adds a product to what was kept."""
        a, b = cell.ports.get("A", []), cell.ports.get("B", [])
        size = len(bits)
        return (
            cell.type == "$add"
            and cell.output[:size] == bits
            and a[:size] == own
            and (b + [b[-1]] * size)[:size] == product[:size]
            and all("1" in cell.parameters[f"{port}_SIGNED"] for port in "AB")
        )
