"""The serial line's bit timing, receiver and transmitter."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from gateware.link.uart import UartReceiver, UartTransmitter
from pvq_hw.engine.patterns import NONE
from pvq_hw.errors import InputError
from pvq_hw.target.baud import BaudTiming, choose_baud
from sim.agents.bench import Bench
from sim.agents.serial_line import SerialLine
from sim.agents.streams import Source


def _receive(line: SerialLine, divisor: int, cycles: int) -> tuple[list[int], int]:
    """Bytes that the receiver gives, and the number of its framing errors."""
    dut = UartReceiver(BaudTiming(divisor * 1000, 1000))
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    got: list[int] = []
    errors = 0

    async def testbench(ctx):
        nonlocal errors
        for _ in range(cycles):
            ctx.set(dut.rx, line.level)
            _, _, valid, byte, bad = await ctx.tick().sample(
                dut.o.valid, dut.o.payload, dut.framing_error
            )
            line.clock(1)
            errors += bad
            if valid:
                got.append(byte)

    simulator.add_testbench(testbench)
    simulator.run()
    return got, errors


# At 4 clocks a bit the sampling point is known to a quarter of a bit only, which leaves 2 %.
@pytest.mark.parametrize("divisor", [4, 5, 7, 16, 25])
@pytest.mark.parametrize("error", [-0.02, 0.0, 0.02])
def test_receives_at_two_percent_error_back_to_back(divisor, error):
    data = bytes((0x00, 0xFF, 0x55, 0xAA, 0x80, 0x01, 0x50, 0x56))
    line = SerialLine(divisor * (1 + error))
    line.send(data)
    got, errors = _receive(line, divisor, round(12 * len(data) * divisor) + 20)
    assert bytes(got) == data
    assert errors == 0


def test_receiver_stands_four_percent_at_sixteen_clocks_a_bit():
    data = bytes(range(0, 256, 17))
    for error in (-0.04, 0.04):
        line = SerialLine(16 * (1 + error))
        line.send(data)
        got, errors = _receive(line, 16, 12 * len(data) * 16)
        assert (bytes(got), errors) == (data, 0)


def test_receiver_ignores_a_glitch_and_reports_a_missing_stop_bit_and_a_break():
    line = SerialLine(1)
    line.send_levels([1] * 5 + [0] * 3 + [1] * 40)  # a glitch of 3/8 bit
    frame = [0, *(0x5A >> i & 1 for i in range(8)), 0]
    line.send_levels([bit for bit in frame for _ in range(8)] + [1] * 20)
    line.send_levels([0] * 300 + [1] * 20)  # a break counts once
    line.send_levels([bit for bit in (0, *(0xC3 >> i & 1 for i in range(8)), 1) for _ in range(8)])
    got, errors = _receive(line, 8, 600)
    assert got == [0xC3]
    assert errors == 2


@pytest.mark.parametrize("divisor", [4, 5, 9])
def test_transmitter_sends_back_to_back_ten_bit_times_a_byte(divisor):
    data = [random.Random(3).randrange(256) for _ in range(12)]
    dut = UartTransmitter(BaudTiming(divisor * 1000, 1000))
    bench = Bench(dut)
    monitor = bench.source(dut.i, Source(data, NONE))
    line = SerialLine(divisor)
    simulator_line(bench, dut, line)
    bench.run(lambda: len(line.received) == len(data))
    assert list(line.received) == data
    steps = [b - a for a, b in zip(monitor.cycles, monitor.cycles[1:], strict=False)]
    assert steps == [10 * divisor] * (len(data) - 1)


def simulator_line(bench: Bench, dut: UartTransmitter, line: SerialLine) -> None:
    """Lets the line see the transmitter's pin: a monitor whose payload it is, never valid."""

    class Listener:
        valid = ready = payload = dut.tx

    class Ear:
        name, payloads = "tx", ()

        def clock(self, cycle, valid, ready, payload):
            line.clock(payload)
            return False

    bench.monitors.append((Listener, Ear()))


def test_what_one_sends_the_other_receives():
    timing = BaudTiming(6000, 1000)
    m = Module()
    m.submodules.transmitter = transmitter = UartTransmitter(timing)
    m.submodules.receiver = receiver = UartReceiver(timing)
    m.d.comb += receiver.rx.eq(transmitter.tx)
    data = [random.Random(4).randrange(256) for _ in range(20)]
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    got: list[int] = []

    async def testbench(ctx):
        index = 0
        for _ in range(61 * len(data) + 40):
            ctx.set(transmitter.i.valid, int(index < len(data)))
            if index < len(data):
                ctx.set(transmitter.i.payload, data[index])
            _, _, ready, valid, byte = await ctx.tick().sample(
                transmitter.i.ready, receiver.o.valid, receiver.o.payload
            )
            index += ready and index < len(data)
            if valid:
                got.append(byte)

    simulator.add_testbench(testbench)
    simulator.run()
    assert got == data


def test_divisor_is_the_nearest_whole_number():
    assert BaudTiming(36_000_000, 1_000_000).divisor == 36
    assert BaudTiming(12_000_000, 115_200).divisor == 104
    assert BaudTiming(132_142_857, 1_000_000).divisor == 132
    assert BaudTiming(12_000_000, 115_200).error == pytest.approx(0.0016, abs=1e-4)


@pytest.mark.parametrize(
    ("clock", "baud", "message"),
    [
        (16_500_000, 1_000_000, "Baud error must be at most 2%, but 1,000,000 is off by 2.9% at a"),
        (12_000_000, 4_000_000, "Baud must be at most 3,000,000 at a clock of 12 MHz"),
        (12_000_000, 0, "Clock and baud must be positive"),
        (12_000_000, -5, "Clock and baud must be positive"),
    ],
)
def test_refuses_a_baud_rate_that_is_off(clock, baud, message):
    with pytest.raises(InputError, match=message):
        BaudTiming(clock, baud)


def test_chooses_the_fastest_rate_that_the_clock_meets():
    assert choose_baud(36_000_000).baud == 1_000_000
    assert choose_baud(16_500_000).baud == 921_600
    assert choose_baud(36_000_000, at_most=115_200).baud == 115_200
    assert all(choose_baud(hz).error <= 0.02 for hz in range(12_000_000, 60_000_000, 777_777))
    with pytest.raises(InputError, match="Clock must allow a usual baud rate"):
        choose_baud(100_000)
