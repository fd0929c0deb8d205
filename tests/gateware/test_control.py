"""Replies of the board itself: each kind's bytes, taken at once or after pauses."""

import random

import pytest
from amaranth.sim import Simulator

from gateware.device.live import LiveBus
from gateware.link.control import CODES, COUNTERS, ControlReplies
from gateware.link.repeat import MEASURED
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.live_image import TOLD, LiveLayout, LiveMemory
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import (
    REPEATING_VERSION,
    Counters,
    Description,
    Kind,
    Measurement,
    WireFormat,
)

U8 = IntFormat(8, False)
DESCRIPTION = Description(
    WireFormat(300, U8), WireFormat(10, U8), 36_000_000, 1_000_000, 4, bytes(range(8, 16)),
    REPEATING_VERSION,
)  # fmt: skip
TOLD_COUNTERS = Counters(0x1234, 0x5678, 0x9ABC, 0xDEF0, 0x0FED)
STATUS = CodeStatus(CodeState.READY, 0xDEADBEEF)
MEASURED_FRAME = Measurement(7, 0x89ABCDEF, (0x1357, 0x2468))
REPLIES = {
    Kind.DESCRIPTION: DESCRIPTION.encode(),
    Kind.COUNTERS: TOLD_COUNTERS.encode(),
    Kind.CODES: STATUS.encode(),
    Kind.MEASURED: MEASURED_FRAME.encode(),
    Kind.ERROR: bytes((0x5A, 0xC3)),
}


def live():
    """A bus over which nothing but the description is loaded."""
    size = len(DESCRIPTION.encode())
    bare = LiveLayout((), "ecp5", bytes(32))
    width = bare.told_bytes
    memory = LiveMemory(TOLD, 8 * width, -(-size // width) + 4 // width)
    layout = LiveLayout((memory,), "ecp5", bytes(32))
    return LiveBus(layout, 1, layout.told({}, DESCRIPTION.encode()))


MADE = {
    "in logic": dict,
    "in block RAM": lambda: {"stored": True},
    "in block RAM that is loaded": lambda: {"live": live()},
}


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("made", MADE)
def test_every_reply_has_its_bytes_whenever_they_are_taken(made, stall):
    dut, chance, found = ControlReplies(DESCRIPTION, **MADE[made]()), random.Random(1), {}
    fields = {"counters": (COUNTERS, TOLD_COUNTERS), "codes": (CODES, STATUS),
              "measured": (MEASURED, MEASURED_FRAME)}  # fmt: skip
    head, body = dut.packets.head, dut.packets.body

    async def bench(ctx):
        for name, (layout, value) in fields.items():
            bits = int.from_bytes(value.encode(), "little")
            ctx.set(getattr(dut, name), layout.from_bits(bits))
        for tag, kind in enumerate(REPLIES):
            ctx.set(dut.request, {"kind": kind, "tag": tag, "code": 0x5A, "offender": 0xC3})
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick().repeat(6)  # the header goes first
            payload, offered = bytearray(), None
            for _ in range(2000):
                ctx.set(body.ready, chance.random() >= stall)
                *_, valid, ready, byte, told = await ctx.tick().sample(
                    body.valid, body.ready, body.payload, head.payload
                )
                assert offered is None or (valid and byte == offered)
                offered = byte if valid and not ready else None
                if valid and ready:
                    payload.append(byte)
                if len(payload) == len(REPLIES[kind]):
                    break
            assert (told.kind, told.tag, told.length) == (kind, tag, len(payload))
            ctx.set(body.ready, 0)
            ctx.set(head.ready, 1)
            *_, valid = await ctx.tick().sample(head.valid)
            assert valid
            ctx.set(head.ready, 0)
            *_, busy = await ctx.tick().sample(dut.busy)
            assert not busy
            found[kind] = bytes(payload)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == REPLIES
