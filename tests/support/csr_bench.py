"""Registers and streams of an exported core against a model of their own, under cocotb.

The model sees pins alone: it counts what passes, and says what each register must be at the clock
at which it is read. Masters, source and sink pause at random and independently.
"""

import os
import random
from collections import deque

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

TAKEN, GIVEN, IDENTITY = 3, 2, bytes(range(1, 9))
CLEARING = 8


def value(signal):
    return int(signal.value) if signal.value.is_resolvable else 0


class Model:
    """What the registers hold, from the transfers that were seen."""

    def __init__(self):
        self.left = 0  # clocks of reset after a clear
        self.reset()

    def reset(self):
        self.beats = self.results = self.cycles = self.first = self.last = 0
        self.frames = [0, 0]
        self.misaligned = 0

    def registers(self):
        inside = int(self.beats > 0 or self.frames[0] != self.frames[1] or self.results % GIVEN > 0)
        low, high = (int.from_bytes(IDENTITY[k : k + 4], "little") for k in (0, 4))
        status = inside | self.misaligned << 1
        return [int.from_bytes(b"PVQ1", "little"), low, high, status, 0, *self.frames,
                self.cycles, self.first, self.last, TAKEN, GIVEN, 0, 0, 0, 0]  # fmt: skip

    def edge(self, took, last, gave, clear):
        if self.left:
            self.left -= 1
            self.reset()
        else:
            if took:
                self.misaligned |= int(last != (self.beats == TAKEN - 1))
                self.beats = (self.beats + 1) % TAKEN
                self.frames[0] += self.beats == 0
            if gave:
                self.results += 1
                if self.results % GIVEN == 0:
                    self.first = self.first if self.frames[1] else self.cycles
                    self.last = self.cycles
                    self.frames[1] += 1
            self.cycles += 1
        if clear:
            self.left = CLEARING


class Streams:
    """A source of random frames, one in some with a wrong TLAST, and a sink that checks them."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.total = self.beat = self.checked = 0
        self.expected = deque()
        self.wrong_last = False

    def forget(self):
        self.total = self.beat = 0
        self.expected.clear()
        self.dut.s_axis_tvalid.value = 0

    def edge(self, open_):
        dut, rng = self.dut, self.rng
        took = value(dut.s_axis_tvalid) and value(dut.s_axis_tready)
        gave = value(dut.m_axis_tvalid) and value(dut.m_axis_tready)
        if took:
            self.total += value(dut.s_axis_tdata) & 31
            self.beat += 1
            if self.beat == TAKEN:
                self.expected.extend((self.total, self.total + 1))
                self.total = self.beat = 0
        if gave:
            assert value(dut.m_axis_tdata) == self.expected.popleft() & 0x7FF
            assert value(dut.m_axis_tlast) == (len(self.expected) % GIVEN == 0)
            self.checked += 1
        last = value(dut.s_axis_tlast)
        if took or not value(dut.s_axis_tvalid):
            dut.s_axis_tvalid.value = int(open_ and rng.random() < 0.7)
            dut.s_axis_tdata.value = rng.randrange(256)
            dut.s_axis_tlast.value = int((self.beat == TAKEN - 1) != self.wrong_last)
        dut.m_axis_tready.value = int(rng.random() < 0.6)
        return bool(took), bool(last), bool(gave)


class AxiLite:
    """A master: each channel waits for its own number of clocks."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.pending, self.reads, self.held = None, 0, None
        for name in ("awvalid", "wvalid", "arvalid", "bready", "rready", "awprot", "arprot"):
            getattr(dut, f"s_axi_{name}").value = 0
        dut.s_axi_wstrb.value = 15

    def pin(self, name):
        return getattr(self.dut, f"s_axi_{name}")

    def edge(self, model, turn):
        passed = {c: value(self.pin(f"{c}valid")) and value(self.pin(f"{c}ready"))
                  for c in ("aw", "w", "b", "ar", "r")}  # fmt: skip
        assert passed["aw"] == passed["w"]
        clear = passed["w"] and value(self.pin("awaddr")) == 16
        clear = clear and value(self.pin("wdata")) & value(self.pin("wstrb")) & 1
        if passed["ar"]:
            self.pending = model.registers()[value(self.pin("araddr")) // 4]
        if value(self.pin("rvalid")):
            seen = value(self.pin("rdata")), value(self.pin("rresp"))
            assert seen == (self.pending if not passed["ar"] else self.held[0], 0)
            assert self.held in (None, seen)
            self.held = None if passed["r"] else seen
            self.reads += bool(passed["r"])
        if value(self.pin("bvalid")):
            assert value(self.pin("bresp")) == 0
        for channel in ("aw", "w", "ar"):
            valid = self.pin(f"{channel}valid")
            if passed[channel]:
                valid.value = 0
        busy = value(self.pin("arvalid")) or value(self.pin("rvalid")) or passed["ar"]
        if not busy and self.rng.random() < 0.4:
            self.pin("araddr").value = 4 * self.rng.randrange(16)
            self.pin("arvalid").value = 1
        self._write(passed, turn)
        self.pin("bready").value = int(self.rng.random() < 0.5)
        self.pin("rready").value = int(self.rng.random() < 0.5)
        return bool(clear)

    def _write(self, passed, turn):
        """Address and data come in any order; few of the writes clear."""
        idle = not (value(self.pin("awvalid")) or value(self.pin("wvalid")) or passed["w"])
        if idle and self.rng.random() < 0.05:
            clears = self.rng.random() < 0.15
            self.pin("awaddr").value = 16 if clears else 4 * self.rng.choice([0, 3, 5, 15])
            self.pin("wdata").value = 1
            self.pin("wstrb").value = 15
            first = self.rng.choice(["aw", "w"])
            self.pin(f"{first}valid").value = 1
        elif value(self.pin("awvalid")) != value(self.pin("wvalid")) and self.rng.random() < 0.3:
            self.pin("awvalid").value = 1
            self.pin("wvalid").value = 1


class Wishbone:
    """A master of classic cycles."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.pending, self.reads, self.wrote = None, 0, False
        for name in ("stb", "cyc", "we", "adr", "dat_w"):
            getattr(dut, f"wb_{name}").value = 0
        dut.wb_sel.value = 15

    def edge(self, model, turn):
        dut, rng = self.dut, self.rng
        asked = value(dut.wb_cyc) and value(dut.wb_stb)
        acknowledged = value(dut.wb_ack)
        clear = False
        if acknowledged:
            assert asked
            if not value(dut.wb_we):
                assert value(dut.wb_dat_r) == self.pending
                self.reads += 1
        elif asked:
            self.pending = model.registers()[value(dut.wb_adr)]
            clear = value(dut.wb_we) and value(dut.wb_adr) == 4 and value(dut.wb_dat_w) & 1
        if not asked or acknowledged:
            go = int(rng.random() < 0.4)
            dut.wb_cyc.value = dut.wb_stb.value = go
            dut.wb_we.value = int(rng.random() < 0.1)
            dut.wb_adr.value = rng.randrange(16)
            dut.wb_dat_w.value = int(rng.random() < 0.3)
        return bool(clear)


@cocotb.test()
async def registers_and_streams(dut):
    rng = random.Random(int(os.environ["CSR_SEED"]))
    wishbone = hasattr(dut, "wb_adr")
    clock, reset = (dut.clk, dut.rst) if wishbone else (dut.aclk, dut.aresetn)
    cocotb.start_soon(Clock(clock, 10, "step").start())
    for name in ("s_axis_tvalid", "s_axis_tlast", "s_axis_tdata", "m_axis_tready"):
        getattr(dut, name).value = 0
    master = (Wishbone if wishbone else AxiLite)(dut, rng)
    streams, model = Streams(dut, rng), Model()
    reset.value = int(wishbone)
    for _ in range(4):
        await RisingEdge(clock)
    reset.value = int(not wishbone)
    clears = frames = 0
    for turn in range(int(os.environ["CSR_CLOCKS"])):
        await RisingEdge(clock)
        open_ = model.left <= 1
        streams.wrong_last = turn % 1000 > 900
        took, last, gave = streams.edge(open_)
        clear = master.edge(model, turn)
        frames += gave
        model.edge(took, last, gave, clear)
        if clear:
            streams.forget()
            clears += 1
    assert clears >= 2
    assert frames > 100
    assert master.reads > 200
