"""Decisions on a board's pins: what they show, when, and which pins there are."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from stand_in import IDENTITY, S8, U8, Through

from gateware.board.boards import BoardTop, make_platform
from gateware.link.decision_pins import DecisionPins
from gateware.link.top import make_top
from pvq_hw.host.protocol import WireFormat
from pvq_hw.target.boards import TARGETS, get_target


def shown(pins, frames, idle):
    """What the pins hold after each cycle in which a value of some frames is transferred."""
    sim, found = Simulator(pins), []
    sim.add_clock(1e-6)

    async def drive(ctx):
        for value in np.ravel(frames):
            ctx.set(pins.value, int(value) & 0xFF)
            ctx.set(pins.moved, 1)
            await ctx.tick()
            ctx.set(pins.moved, 0)
            ctx.set(pins.value, 0)
            found.append(ctx.get(pins.pins))
            for _ in range(idle):
                await ctx.tick()

    sim.add_testbench(drive)
    sim.run_until(1e-6 * (np.size(frames) + 2) * (idle + 2))
    return found


@pytest.mark.parametrize("idle", [0, 3])
def test_a_place_stays_until_the_next(idle):
    frames = [[5, -3], [2, 7], [9, 1]]
    assert shown(DecisionPins(8, 2, 3, True), frames, idle) == [5, 5, 2, 2, 1, 1]  # 9: low bits


@pytest.mark.parametrize("idle", [0, 3])
def test_thresholds_change_together(idle):
    frames = [[1, 0, 1], [0, 1, 1], [1, 1, 0]]
    assert shown(DecisionPins(8, 3, 5, False), frames, idle) == [0, 0, 5, 5, 5, 6, 6, 6, 3]
    assert shown(DecisionPins(8, 3, 2, False), frames, idle) == [0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert shown(DecisionPins(8, 1, 2, False), [[1], [0]], idle) == [1, 0]


def test_a_boards_top_drives_its_pins():
    """And only of an accelerator that decides."""
    board, x, out = get_target("icebreaker"), WireFormat(3, U8), WireFormat(2, S8)
    for decision in (None, (5, True)):
        top = make_top(Through(x, out), board, board.clock_mhz, None, x, out, IDENTITY,
                       decision=decision)  # fmt: skip
        platform = make_platform(board)
        plan = platform.prepare(BoardTop(top, board, board.clock_mhz), "top")
        text = plan.files["top.pcf"]
        text = text if isinstance(text, str) else text.decode()
        held = [pin.name for _, pin in board.decision if f" {pin.name}\n" in text]
        assert held == ([] if decision is None else ["26", "27", "25", "23", "21"])


def test_shipped_boards_name_their_leds():
    known = {name: len(board.decision) for name, board in TARGETS.items() if board.decision}
    assert known == {"hx8k": 6, "icebreaker": 5} | {f"ulx3s-{n}f": 6 for n in (12, 25, 45, 85)}
