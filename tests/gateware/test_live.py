"""Weights that are loaded while the board runs, from pin to pin: never a wrong answer."""

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator
from live_board import LiveBoard
from verilog_pins import talk_in_verilog

from gateware.board import patch_bitstream
from gateware.link.code_control import CodeControl
from gateware.link.code_loader import CodeLoader
from pvq_hw.host.code_state import CodeState, CodeStatus
from pvq_hw.host.protocol import Description, ErrorCode, Kind, Packet, PacketDecoder
from sim.agents.pins import PinSimulation

OPEN, CHECK, RELOAD, STATUS = (
    Packet(kind, tag)
    for tag, kind in enumerate(
        (Kind.CODES_OPEN, Kind.CODES_CHECK, Kind.CODES_RELOAD, Kind.CODES_STATUS), 201
    )
)
DESCRIBE = Packet(Kind.DESCRIBE, 200)


class Talk:
    """Bytes to a top's simulated pins and the replies, and the golden model beside it; in
    ``folder``, if there is one, as compiled Verilog."""

    def __init__(self, board, folder=None):
        self.board, self.golden, self._folder = board, board.responder(), folder
        self._pins = PinSimulation(board.top(), limit=10_000_000) if folder is None else None
        self.checked = board.checked
        self.found, self.expected = [], []

    def run(self, steps):
        """Lists of packets, whose replies are awaited, tuples of packets that are sent without
        waiting, as some may be refused in silence, or cycles to wait; gives the replies."""
        if self._folder is not None:
            return self._compiled(steps)
        decoder, queue = PacketDecoder(), list(steps)
        wanted, until = 0, self.checked
        found = []

        def each_cycle():
            nonlocal wanted, until
            if self._pins.cycle % 16:
                return False
            found.extend(decoder.feed(bytes(self._pins.line.received)))
            self._pins.line.received.clear()
            if not self._pins.line.empty or self._pins.cycle < until or len(found) < wanted:
                return False
            if not queue:
                return True
            step = queue.pop(0)
            if isinstance(step, int):
                until = self._pins.cycle + step
            else:
                self._pins.line.send(b"".join(packet.encode() for packet in step))
                wanted = len(found) + len(step) * isinstance(step, list)
            return False

        self._pins.run(each_cycle)
        assert not decoder.bad
        return found

    def _compiled(self, steps):
        flat = [
            step
            if isinstance(step, int)
            else (b"".join(p.encode() for p in step), len(step) * isinstance(step, list))
            for step in steps
        ]
        decoder = PacketDecoder()
        data = talk_in_verilog(self._folder, self.board.top(), [self.checked, *flat])
        found = decoder.feed(data)
        assert not decoder.bad
        return found

    def expect(self, steps):
        """What the golden model replies."""
        decoder = PacketDecoder()
        return [
            reply
            for step in steps
            if not isinstance(step, int)
            for packet in step
            for reply in decoder.feed(self.golden.feed(packet.encode()))
        ]


def infer(board, frame, tag, kind=Kind.INFER):
    return Packet(kind, tag, board.input.encode(frame))


def writes(board, words, spoiled=None):
    """The words of all blocks in two packets; ``spoiled`` is the number of a wrong one."""
    places = [n << 14 | at for n, block in enumerate(words) for at in range(len(block))]
    flat = [word for block in words for word in block]
    if spoiled is not None:
        flat[spoiled] ^= 1
    half = len(flat) // 2
    for part in (slice(0, half), slice(half, None)):
        address = places[part][0].to_bytes(4, "little")
        yield Packet(Kind.CODES_WRITE, 210, address + board.layout.encoded(flat[part]))


def word(board, words, number):
    """A packet with one word."""
    places = [(n << 14 | at, w) for n, block in enumerate(words) for at, w in enumerate(block)]
    place, value = places[number]
    data = place.to_bytes(4, "little") + board.layout.encoded([value])
    return Packet(Kind.CODES_WRITE, 211, data)


@pytest.mark.parametrize(
    ("family", "banks"), [("up5k", 2), pytest.param("ecp5", 1, marks=pytest.mark.slow)]
)
def test_loads_as_the_golden_model_does_and_never_answers_wrong(family, banks):
    """Frames before, during and after a load, one with a wrong word, and the way back. With one
    bank frames and descriptions are refused until it is right."""
    board = LiveBoard(family, banks)
    talk = Talk(board)
    frames, new = board.frames(3), board.words(board.networks[1])
    first, second = writes(board, new, spoiled=5)
    ask = [infer(board, frames[0], 1)]
    steps = [
        ask, [OPEN], [first], ask, [DESCRIBE], [second], [CHECK], talk.checked, [STATUS], ask,
        [OPEN], [word(board, new, 5)], [CHECK], talk.checked, [STATUS], ask, [DESCRIBE],
        [infer(board, frames[1], 2, Kind.CLASSIFY)], [RELOAD], talk.checked, [STATUS], ask,
    ]  # fmt: skip
    found, expected = talk.run(steps), talk.expect(steps)
    at_once = (CHECK.tag, RELOAD.tag)  # which the golden model is through with before it replies
    assert [r for r in found if r.tag not in at_once] == [
        r for r in expected if r.tag not in at_once
    ]
    assert [r.kind for r in found] == [r.kind for r in expected]
    told = [Description.decode(r.payload).identity[0] for r in found if r.kind == Kind.DESCRIPTION]
    said = [CodeStatus.decode(r.payload) for r in found if r.tag == STATUS.tag]
    states = [status.state for status in said]
    refused = [r.payload[0] for r in found if r.kind == Kind.ERROR]
    assert states == [CodeState.WRONG, CodeState.READY, CodeState.READY]
    assert [status.second for status in said] == [False, banks == 2, False]
    assert told == ([0, 1] if banks == 2 else [1])
    assert refused == ([] if banks == 2 else [ErrorCode.NOT_READY] * 3)
    values = [board.output.decode(r.payload).tolist() for r in found if r.kind == Kind.RESULTS]
    golden = [network.compute(frames[0]).tolist() for network in board.networks]
    served = (0, 0, 0, 1, 0) if banks == 2 else (0, 1, 1)
    assert values == [golden[n] for n in served]


def swaps(board, count, load, folder=None):
    """Each swap in the midst of frames that are sent without waiting, at another time for every
    swap, then one more frame; asserts that the new network answers from the swap on, and none
    before."""
    talk, asked = Talk(board, folder), []
    steps = [] if load else [[OPEN], *([p] for p in loading(board, 1)), [CHECK], talk.checked,
                             [RELOAD], talk.checked]  # fmt: skip
    for turn in range(count):
        if load:
            steps += [[OPEN], *([packet] for packet in loading(board, turn + 1))]
        asked.append(board.frames(4, seed=turn))
        burst = [infer(board, frame, tag) for tag, frame in enumerate(asked[-1])]
        burst.insert(1, CHECK if load else RELOAD)
        steps += [tuple(burst[:2]), 1 + 3 * turn % 300, tuple(burst[2:]), talk.checked + 3000]
        steps.append([infer(board, asked[-1][0], 4)])
    found = [reply for reply in talk.run(steps) if reply.kind != Kind.CODES]
    for turn, frames in enumerate(asked):
        end = next(k for k, reply in enumerate(found) if reply.tag == 4) + 1
        mine, found, served = found[:end], found[end:], []
        for reply in mine:
            if reply.kind == Kind.ERROR:
                assert reply.payload[0] == ErrorCode.OVERRUN
                continue
            values = board.output.decode(reply.payload).tolist()
            golden = [net.compute(frames[reply.tag % 4]).tolist() for net in board.networks]
            served.append(golden.index(values))
        first, last = turn % 2, (turn + 1) % 2
        assert served in [[first] * k + [last] * (len(served) - k) for k in range(1, len(served))]


def loading(board, number):
    return writes(board, board.words(board.networks[number % 2]))


@pytest.mark.slow
def test_banks_change_places_between_two_frames():
    swaps(LiveBoard(banks=2), 3, load=False)


def test_banks_wait_until_nothing_is_under_way():
    """A check that is right changes nothing while frames or replies are; three quiet clocks later
    the banks have changed places, once."""
    board = LiveBoard(banks=2)
    words = board.words(board.networks[0])
    loader = CodeLoader(board.layout, board.layout.right, banks=2)
    simulator = Simulator(loader)
    simulator.add_clock(1e-6)
    quiet = [0] * 20 + [1, 1, 0] * 3 + [0] * 5 + [1] * 12
    seen = []

    async def testbench(ctx):
        for _ in range(board.checked):
            number, at = divmod(ctx.get(loader.codes.addr), 1 << 14)
            block = words[number] if number < len(words) else ()
            ctx.set(loader.codes.r_data, block[at] if at < len(block) else 0)
            if ctx.get(loader.waiting):
                break
            await ctx.tick()
        for level in quiet:
            ctx.set(loader.quiet, level)
            await ctx.tick()
            seen.append((ctx.get(loader.bank), ctx.get(loader.waiting), ctx.get(loader.ready)))

    simulator.add_testbench(testbench)
    simulator.run()
    still = len(quiet) - 12 + 3
    assert seen[:still] == [(1, 1, 0)] * still
    assert seen[still:] == [(0, 0, 1)] * (len(seen) - still)


@pytest.mark.slow
def test_a_hundred_loads_while_frames_come(tmp_path):
    """The check takes longer than a frame on the line, so that some swaps fall due in its midst."""
    swaps(LiveBoard("ecp5", banks=2), 100, load=True, folder=tmp_path)


@pytest.mark.slow
def test_a_hundred_loads_without_a_second_bank(tmp_path):
    board = LiveBoard(banks=1)
    talk, steps, golden = Talk(board, tmp_path), [], []
    for turn in range(100):
        new, frame = board.networks[(turn + 1) % 2], board.frames(1, seed=turn)[0]
        first, second = loading(board, turn + 1)
        ask = [infer(board, frame, 1)]
        steps += [[OPEN], [first], ask, [second], ask, [CHECK], talk.checked, ask]
        golden.append(new.compute(frame))
    found = [reply for reply in talk.run(steps) if reply.kind != Kind.CODES]
    refused = Packet(Kind.ERROR, 1, bytes((ErrorCode.NOT_READY, Kind.INFER)))
    assert found[::3] == found[1::3] == [refused] * 100
    assert np.array_equal([board.output.decode(r.payload) for r in found[2::3]], golden)


@pytest.mark.parametrize("body", ["ice40", "ecp5"])
def test_nothing_but_contents_follows_from_the_weights(body):
    """So an update of the bitstream finds the placed design."""
    board = LiveBoard("ecp5" if body == "ecp5" else "up5k")
    found = [
        patch_bitstream._read(rtlil.convert(board.top(body, network), emit_src=False))
        for network in board.networks
    ]
    assert found[0][1] == found[1][1]
    changed = {name for name in found[0][0] if found[0][0][name] != found[1][0][name]}
    for part in ("a_codes", "b_weights", "a_mult", "a_bias", "t_table", "description"):
        assert any(part in name for name in changed), part
    assert not any("spare" in name for name in changed)


def test_a_reset_in_the_cycle_of_a_request_forgets_it():
    """Whatever else the reset hits: here it is the request itself that is on its way."""
    layout, reset = LiveBoard(banks=1).layout, Signal()
    control = CodeControl(layout, 0, 0, 0)
    states = {}

    async def bench(ctx):
        ctx.set(control.quiet, 1)
        ctx.set(control.header.kind, Kind.CODES_OPEN)
        await ctx.tick().repeat(4)
        for when in (1, 0):  # with the request, and never
            ctx.set(control.right, 1)
            ctx.set(reset, when)
            await ctx.tick()
            ctx.set(control.right, 0)
            ctx.set(reset, 0)
            await ctx.tick().repeat(3)
            states[when] = ctx.get(control.status.state)

    simulator = Simulator(ResetInserter(reset)(control))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert (states[1] == CodeState.OPEN, states[0] == CodeState.OPEN) == (False, True)
