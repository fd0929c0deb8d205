"""The SPI peripheral at awkward phases and rates, and the top behind it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Cat
from amaranth.sim import Simulator
from stand_in import small_top

from gateware.export.export import export_verilog
from gateware.link.spi import SpiPeripheral
from pvq_hw.host.octets import ESCAPE, FILL, Unstuffer, stuffed
from pvq_hw.host.protocol import Counters, ErrorCode, Kind, Packet, PacketDecoder
from sim.agents.pins import PinSimulation
from sim.agents.spi_controller import SpiController

# Stuffed bytes first, last and side by side.
DATA = bytes((FILL, 0x00, 0xFF, ESCAPE, ESCAPE, FILL, 0x5E, 0x5D, 0x50, 0x56, 0x01, 0x80, ESCAPE))


def _exchange(line, replies=b"", *, done, limit=60_000):
    """Bytes from the controller, and the framing errors; ``replies`` go the other way, a byte
    offered now and then."""
    dut = SpiPeripheral()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    got, errors, rng = bytearray(), 0, random.Random(5)

    async def testbench(ctx):
        nonlocal errors
        at, offered = 0, 0
        for _ in range(limit):
            ctx.set(Cat(dut.pins.cs_n, dut.pins.clk, dut.pins.copi), line.level)
            offered = at < len(replies) and (offered or rng.random() < 0.02)
            ctx.set(dut.i.valid, offered)
            ctx.set(dut.i.payload, replies[at] if offered else 0xA5)
            _, _, cipo, selected, ready, valid, byte, bad = await ctx.tick().sample(
                dut.pins.cipo, dut.pins.selected, dut.i.ready, dut.o.valid, dut.o.payload,
                dut.framing_error,
            )  # fmt: skip
            line.clock(cipo if selected else 1)
            if offered and ready:
                at, offered = at + 1, 0
            errors += bad
            if valid:
                got.append(byte)
            if done(got):
                return
        raise AssertionError("the peripheral was not done")

    simulator.add_testbench(testbench)
    simulator.run()
    return bytes(got), errors


@pytest.mark.parametrize(
    ("period", "phase", "burst"),
    [(6, 0.0, 64), (6, 0.5, 1), (6.01, 0.99, 5), (6.37, 0.3, 3), (7, 0.7, 2), (11.9, 0.2, 64)],
)
def test_bytes_go_both_ways_at_any_phase_and_rate(period, phase, burst):
    line = SpiController(period, phase, burst=burst)
    line.send(DATA)
    replies = DATA[::-1] * 2
    got, errors = _exchange(
        line,
        replies,
        done=lambda got: len(got) == len(DATA) and len(line.received) == 2 * len(DATA),
    )
    assert (got, bytes(line.received), errors) == (DATA, replies, 0)
    # What is on the wire is what the host's own rule makes of it, but for the fill between.
    assert bytes(line.octets).replace(bytes((FILL,)), b"") == stuffed(replies)


def test_a_transaction_that_ends_within_a_byte_costs_that_byte_alone():
    line = SpiController(8, burst=4, poll=False)
    line.send(b"ab")
    line.cut(0x55, 3)
    line.send(b"cd")
    line.exchange(bytes((ESCAPE,)))
    line.cut(0x12, 7)  # and what was begun before it
    line.exchange(b"e" + bytes((FILL,)) * 8)
    replies = bytes((0x11, FILL, 0x33))
    got, errors = _exchange(line, replies, done=lambda got: line.empty)
    assert (got, errors) == (b"abcde", 2)
    assert bytes(line.received) == replies  # what was cut short was sent again


def test_bytes_of_another_peripheral_are_none_of_ours():
    """The clock runs while the board is not selected."""

    class Deselected(SpiController):
        @property
        def level(self):
            return super().level | 1

    line = Deselected(6)
    line.send(b"abc")
    got, errors = _exchange(line, b"xyz", done=lambda got: len(line.octets) >= 20)
    assert (got, errors) == (b"", 0)
    assert set(line.octets) == {0xFF}  # the wire is left alone


def test_stuffing_comes_apart_wherever_it_is_cut():
    rng = random.Random(2)
    data = bytes(rng.choice((FILL, ESCAPE, rng.randrange(256))) for _ in range(200))
    line = stuffed(data)
    assert FILL not in line
    apart, found, at = Unstuffer(), b"", 0
    while at < len(line):
        size = rng.randrange(1, 9)
        found += apart.feed(bytes((FILL,)) * rng.randrange(3) + line[at : at + size])
        at += size
    assert found == data


def _talk(top, packets, line=None):
    """Sends packets one after another, each once the reply to the one before is whole."""
    pins = PinSimulation(top, line, limit=400_000)
    queue, sent = list(packets), 0

    def each_cycle():
        nonlocal sent
        if pins.cycle % 16 or len(PacketDecoder().feed(bytes(pins.line.received))) < sent:
            return False
        if sent == len(queue):
            return True
        pins.line.send(queue[sent])
        sent += 1
        return False

    pins.run(each_cycle)
    return bytes(pins.line.received)


def test_replies_over_spi_are_those_over_the_serial_line(tmp_path):
    tops = [small_top(link=link) for link in ("uart", "spi")]
    frame = tops[0].description.input.encode([0x7E, 0x7D, 0, 255, 0x5E, 3])
    good = Packet(Kind.INFER, 0x7E, frame).encode()
    packets = [
        Packet(Kind.DESCRIBE, 1).encode(),
        good,
        good[:-1] + bytes((good[-1] ^ 1,)),
        b"noise" + Packet(Kind.CLASSIFY, 0x7D, frame).encode(),
        Packet(0x33, 4, b"?").encode(),
        Packet(Kind.STATUS, 5).encode(),
    ]
    serial = _talk(tops[0], packets)
    assert len(PacketDecoder().feed(serial)) == len(packets)
    assert _talk(tops[1], packets, SpiController(6.4, 0.3, burst=7)) == serial
    # And the exported Verilog's, at a little less than a sixth of its clock: any phase comes up.
    assert _exported(tmp_path / "exported", packets, 30_017) == serial


RUN = """
import os
from cocotb_tools.runner import get_results, get_runner
runner = get_runner("icarus")
runner.build(sources=["top.v"], hdl_toplevel="top", build_dir="build", timescale=("1ps", "1ps"))
results = runner.test(hdl_toplevel="top", test_module="spi_bench", build_dir="build",
                      test_dir=".", results_xml=os.path.abspath("results.xml"))
print("RESULTS", get_results(results))
"""


def _exported(folder, packets, half):
    """What the exported top says to packets, by cocotb on Icarus Verilog."""
    folder.mkdir()
    (folder / "top.v").write_text(export_verilog(small_top(link="spi"), "top"))
    job = folder / "job.json"
    job.write_text(json.dumps({"packets": [list(packet) for packet in packets], "half": half}))
    support = Path(__file__).parents[1] / "support"
    env = os.environ | {"PYTHONPATH": str(support), "SPI_JOB": str(job)}
    ran = subprocess.run(
        [sys.executable, "-c", RUN], env=env, cwd=folder, capture_output=True, text=True
    )
    assert "RESULTS (1, 0)" in ran.stdout, (ran.stdout + ran.stderr)[-3000:]
    return bytes(json.loads(job.with_suffix(".replies").read_text()))


def test_fill_keeps_no_packet_open_and_broken_bytes_are_counted():
    line = SpiController(7)
    line.cut(0x50, 5)
    whole = Packet(Kind.STATUS, 9).encode()
    replies = _talk(small_top(link="spi"), [whole[:5], whole], line)
    broken, counters = PacketDecoder().feed(replies)
    assert (broken.kind, broken.payload[0]) == (Kind.ERROR, ErrorCode.TRUNCATED)
    assert Counters.decode(counters.payload) == Counters(0, 0, 0, truncated=1, framing_errors=1)
