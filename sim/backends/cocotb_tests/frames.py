"""Streams frames through a Verilog module, with idle cycles, stalls and resets, and records."""

import json
import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from pvq_hw.engine.patterns import Pattern
from sim.agents.streams import Monitor, Sink, Source, StreamError, Watchdog

_PERIOD_NS = 10


class _Wires:
    """The three handles of a stream; `levels` reads them, unknown levels as None."""

    def __init__(self, scope: Any, port: str) -> None:
        self.valid, self.ready, self.payload = (
            scope[f"{port}__{wire}"] for wire in ("valid", "ready", "payload")
        )

    def levels(self) -> tuple[int | None, ...]:
        return tuple(_level(handle) for handle in (self.valid, self.ready, self.payload))


def _level(handle: Any) -> int | None:
    value = handle.value
    return int(value) if value.is_resolvable else None


def _find(dut: Any, scope: list[str]) -> Any:
    for name in scope:
        dut = dut[name]
    return dut


class _Bench:
    """The agents of one run."""

    def __init__(self, dut: Any, job: dict[str, Any], payloads: list[int]) -> None:
        self.dut = dut
        self.resets = set(job["resets"])
        self.i, self.o = _Wires(dut, "i"), _Wires(dut, "o")
        self.source = Source(payloads, Pattern.parse(job["idle"]), job["seed"])
        self.sink = Sink(Pattern.parse(job["stall"]), job["seed"] + 1, job["after_valid"])
        self.inside = [
            (_Wires(_find(dut, link["scope"]), "o"), Monitor(link["name"])) for link in job["links"]
        ]
        self.monitors = [(self.i, Monitor("i")), (self.o, Monitor("o")), *self.inside]
        self.watchdog = Watchdog(job["quiet"], self._state)
        self.cycle = 0

    def _state(self) -> str:
        return "transfers so far: " + ", ".join(
            f"{m.name} {len(m.payloads)}" for _, m in self.monitors
        )

    def drive(self) -> None:
        """Sets the inputs for the cycle to come."""
        self.i.valid.value = self.source.valid
        self.i.payload.value = self.source.payload
        self.o.ready.value = self.sink.ready
        self.dut.rst.value = int(self.cycle in self.resets)

    def clock(self) -> None:
        """Takes the levels of a cycle, as the clock edge saw them."""
        if self.cycle in self.resets:
            for _, monitor in self.monitors:
                monitor.reset()
            self.source.reset()
        else:
            levels = [wires.levels() for wires, _ in self.monitors]
            moved = [
                monitor.clock(self.cycle, *seen)
                for (_, monitor), seen in zip(self.monitors, levels, strict=True)
            ]
            self.source.clock(levels[0][1])
            self.sink.clock(levels[1][0])
            self.watchdog.clock(any(moved))
        self.cycle += 1

    def results(self) -> dict[str, Any]:
        """Payloads and cycles of every stream, by position."""
        found = {"cycles": np.array(self.cycle)}
        for index, (_, monitor) in enumerate(self.monitors):
            words = [f"{payload:x}" for payload in monitor.payloads]
            found[f"payloads_{index}"] = np.array(words, dtype=np.str_)
            found[f"at_{index}"] = np.array(monitor.cycles, dtype=np.int64)
        return found


async def _reset(dut: Any, loads: list[tuple[int, int]]) -> None:
    """Loads codes, if there are any; two clock edges in reset, with all inputs known."""
    for handle in (dut.i__valid, dut.i__payload, dut.o__ready):
        handle.value = 0
    dut.rst.value = 1
    # The clock's first edge comes before any of these values.
    off = [(0, 0, 0)] * bool(loads)
    for on, addr, word in [*off, *((1, *write) for write in loads), *off]:
        dut.codes__load.value = dut.codes__w_en.value = on
        dut.codes__addr.value = addr
        dut.codes__w_data.value = word
        await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)


@cocotb.test()  # type: ignore[misc, unused-ignore]
async def frames(dut: Any) -> None:
    """Runs the job named by ``PVQ_HW_SIM_JOB`` and leaves ``results.npz`` or ``error.txt``."""
    path = Path(os.environ["PVQ_HW_SIM_JOB"])
    job = json.loads(path.read_text(encoding="utf-8"))
    words = np.load(path.parent / "payloads.npy", allow_pickle=False)
    payloads = [int(word, 16) for word in words.tolist()]
    Clock(dut.clk, _PERIOD_NS, unit="ns").start()
    await _reset(dut, job["loads"])
    bench = _Bench(dut, job, payloads)
    out = bench.monitors[1][1]
    told = 0
    try:
        bench.drive()
        while len(out.payloads) < job["outputs"]:
            await RisingEdge(dut.clk)
            bench.clock()
            bench.drive()
            if len(out.payloads) // job["rows"] > told:
                told = len(out.payloads) // job["rows"]
                print(f"pvq-hw frames done: {told}", flush=True)
    except StreamError as error:
        (path.parent / "error.txt").write_text(str(error), encoding="utf-8")
        raise
    np.savez(path.parent / "results.npz", **bench.results())
