"""ROMs of a core, and the words of multipliers and biases that follow the rows along a pipeline."""

from typing import Any, Protocol

from amaranth.hdl import Module, Mux, Signal, Value

from gateware.device.memory import Rom
from pvq_hw.engine.core import CoreImage

__all__ = ["Strobe", "core_rom", "row_words"]


class Strobe:
    """A flag that belongs to a word, at any stage after the word's read; reset clears it."""

    def __init__(self, m: Module, name: str, flag: Value, stage: int) -> None:
        self._m, self._name, self._stages = m, name, {stage: flag}

    def __call__(self, stage: int) -> Value:
        top = max(self._stages)
        while top < stage:
            later = Signal(name=f"{self._name}_{top + 1}")
            self._m.d.sync += later.eq(self._stages[top])
            top += 1
            self._stages[top] = later
        return self._stages[stage]


class _Core(Protocol):
    """What a core's component has."""

    spec: Any
    image: CoreImage
    body: str


def core_rom(core: _Core, which: str, latency: int, kind: str) -> Rom:
    """A core's ROM: ``which`` is its role, see `CoreBase.memory_name`."""
    name = core.spec.memory_name(which)
    width, depth = core.spec.memories[name]
    contents = core.spec.contents(core.image)[name]
    live = getattr(core, "live", None)
    return Rom(name, width, depth, contents, latency=latency, kind=kind, body=core.body, live=live)


def row_words(m: Module, core: _Core, which: str, strobe: Strobe, stage: int) -> Value:
    """The word of a ROM of multipliers or biases that belongs to the row (or group) which is at
    ``stage``; ``strobe`` is high once for each of them, in order."""
    spec = core.spec
    rom = core_rom(core, which, spec.params_latency, spec.params_memory)
    m.submodules[which] = rom
    address = Signal(max(1, (rom.depth - 1).bit_length()), name=f"{which}_address")
    m.d.comb += rom.addr.eq(address)
    if rom.depth == 1:
        return rom.data
    with m.If(strobe(stage - spec.params_latency)):
        m.d.sync += address.eq(Mux(address == rom.depth - 1, 0, address + 1))
    return rom.data
