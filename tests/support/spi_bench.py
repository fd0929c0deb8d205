"""The exported Verilog of a top at its SPI pins, under cocotb: a controller in its own time.

Nothing is shared with the simulation in Amaranth: the controller's clock is none of the circuit's,
its bytes go through a stuffing that is written out here.
"""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Timer

JOB = json.loads(Path(os.environ["SPI_JOB"]).read_text())
PERIOD = 10_000  # ps of the circuit's clock


def pins(dut, **levels):
    for name, level in levels.items():
        getattr(dut, f"spi__{name}").value = level


async def transaction(dut, octets, half):
    """Octets both ways, mode 0, high bit first."""
    came = []
    pins(dut, cs_n=0)
    await Timer(4 * PERIOD - half, "ps")
    for octet in octets:
        got = 0
        for bit in f"{octet:08b}":
            pins(dut, copi=int(bit))
            await Timer(half, "ps")
            got = got << 1 | int(dut.spi__cipo.value)
            pins(dut, clk=1)
            await Timer(half, "ps")
            pins(dut, clk=0)
        came.append(got)
    await Timer(half, "ps")
    pins(dut, cs_n=1)
    await Timer(5 * PERIOD + 77, "ps")
    return came


def plain(octets):
    data, escaped = [], False
    for octet in octets:
        if octet == 0x7E:
            continue
        if octet == 0x7D:
            escaped = True
            continue
        data.append(octet ^ 0x20 if escaped else octet)
        escaped = False
    return data


@cocotb.test()
async def run(dut):
    half = JOB["half"]
    pins(dut, cs_n=1, clk=0, copi=0)
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, PERIOD, "ps").start())
    await ClockCycles(dut.clk, 5)
    dut.rst.value = 0
    await Timer(1234, "ps")
    came = []
    for packet in JOB["packets"]:
        octets = []
        for byte in packet:
            octets += [0x7D, byte ^ 0x20] if byte in (0x7D, 0x7E) else [byte]
        came += await transaction(dut, octets, half)
        silent = 0
        while silent < 8:
            asked = await transaction(dut, [0x7E] * 5, half)
            silent = 0 if plain(asked) else silent + 1
            came += asked
    Path(os.environ["SPI_JOB"]).with_suffix(".replies").write_text(json.dumps(plain(came)))
