"""Cores whose codes are loaded after configuration: their netlist once they are, and the loading.

While ``codes__load`` is low no word is written and the sequencer's address reads the memories, so
they are as read-only ones with the words that were loaded: what other parts show of these holds of
the core from one loading to the next. Units are in reset while codes are loaded and a cycle longer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.spram_image import CodeLayout, code_words
from pvq_hw.errors import InputError
from pvq_hw.target.block_ram import SPRAM_WIDTH
from sim.proof.claims import Claims, View
from sim.proof.formulas import Solver
from sim.proof.netlist import Cell, Netlist, passing
from sim.proof.structure import factors

__all__ = ["check_loading", "with_codes"]


def _block(netlist: Netlist, number: int) -> Cell:
    """The memory of a block."""
    start = f"codes.block{number}."
    found = [c for c in netlist.cells if c.type == "$mem_v2" and c.name.startswith(start)]
    if len(found) != 1:
        raise InputError(f"code memory {number} is not built as expected")
    return found[0]


def _own(layout: CodeLayout, core: int) -> list[int]:
    """The numbers of a core's blocks."""
    return [number for number, block in enumerate(layout.blocks) if block.core == core]


def with_codes(
    netlist: Netlist, layout: CodeLayout, images: Sequence[CoreImage], core: int
) -> Netlist:
    """A core's netlist as it is once its codes are loaded, while none are.

    Parameters
    ----------
    netlist : Netlist
        The core's unit's.
    layout : CodeLayout
    images : sequence of CoreImage
        Of all cores.
    core : int
        Its number.

    Raises
    ------
    InputError
        The memories are built in another way.
    """
    load, words = netlist.port("codes__load")[0], code_words(layout, images)
    memories = {}
    for number in _own(layout, core):
        cell = _block(netlist, number)
        fill = "x" * (cell.number("WIDTH") * (cell.number("SIZE") - len(words[number])))
        contents = "".join(f"{word:0{SPRAM_WIDTH}b}" for word in reversed(words[number]))
        memories[cell.name] = replace(
            cell,
            ports={name: [] if name.startswith("WR_") else b for name, b in cell.ports.items()},
            parameters={**cell.parameters, "WR_PORTS": "0", "INIT": fill + contents},
        )
    cells = [memories.get(cell.name, cell) for cell in netlist.cells]
    # Nothing is written: what multiplexers choose then is what they give.
    passed = {
        out: a
        for cell in cells
        if cell.type == "$mux" and (load, False) in factors(netlist, cell.ports["S"][0])
        for out, a in zip(cell.output, cell.ports["A"], strict=True)
    }
    return passing(replace(netlist, cells=cells), passed)


def check_loading(netlist: Netlist, spec: CoreBase, layout: CodeLayout, core: int) -> int:
    """Shows that each word that is loaded goes to its place of its block, and that none is written
    otherwise; returns how many words are loaded.

    Raises
    ------
    CheckError
        A word goes elsewhere.
    InputError
        The memories are built in another way, or the solver is not installed.
    """
    blocks = _own(layout, core)
    _Loading(netlist, f"Core {spec.name!r}", blocks).run()
    return sum(layout.blocks[number].words for number in blocks)


class _Loading(Claims):
    """The claims about writes."""

    def __init__(self, netlist: Netlist, where: str, blocks: list[int]) -> None:
        super().__init__(netlist, where, 8, Solver())
        self._blocks = blocks

    def _invariants(self, v: View) -> dict[str, Any]:
        return {}

    def _empty(self, v: View) -> dict[str, Any]:
        return {}

    def _cases(self) -> list[tuple[str, list[Any], dict[str, Any]]]:
        """Codes are loaded in reset too."""
        return [("", [], self._steps())]

    def _steps(self) -> dict[str, Any]:
        s, n, now = self._s, self._n, self._now
        load, enable = (now.one(n.port(f"codes__{name}")[0]) for name in ("load", "w_en"))
        address, data = n.port("codes__addr"), n.port("codes__w_data")
        claims = {}
        for number in self._blocks:
            ports = _block(n, number).ports
            size, low = len(ports["WR_EN"]), len(ports["WR_ADDR"])
            here = s.same(now.bits(address[low:]), s.number(number, len(address) - low))
            writes = s.both(load, enable, here)
            claims[f"words of block {number} are written when they are loaded"] = s.same(
                now.bits(ports["WR_EN"]), s.choose(writes, s.number(-1, size), s.number(0, size))
            )
            claims[f"words of block {number} go to their places"] = self._implies(
                writes,
                s.both(
                    s.same(now.bits(ports["WR_ADDR"]), now.bits(address[:low])),
                    s.same(now.bits(ports["WR_DATA"]), now.bits(data)),
                ),
            )
        return claims
