"""REPEAT from pin to pin: cycles as the timing has them, sums as the golden model has them."""

from dataclasses import replace

import numpy as np
import pytest
from engine import random_layer, tensor
from stand_in import IDENTITY, S8, S16, U8, StandIn, Through

from gateware.accelerator.accelerator import Accelerator
from gateware.link.top import Top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.timing import round_ends
from pvq_hw.host.board_model import Responder
from pvq_hw.host.protocol import (
    REPEATING_VERSION,
    Counters,
    Description,
    ErrorCode,
    Kind,
    Measurement,
    Packet,
    PacketDecoder,
    WireFormat,
    output_sums,
)
from sim.agents.pins import PinSimulation

S12, BINARY = IntFormat(12, True), IntFormat(1, True)
U16, U3 = IntFormat(16, False), IntFormat(3, False)


def top_of(accelerator, x, out):
    said = Description(x, out, 4_000_000, 1_000_000, 4, IDENTITY, REPEATING_VERSION)
    return Top(accelerator, said, 512)


def talk(top, steps):
    """Sends each step's bytes and waits for its number of replies; gives all replies."""
    pins, decoder = PinSimulation(top, limit=400_000), PacketDecoder()
    queue, found, wanted = list(steps), [], 0

    def each_cycle():
        nonlocal wanted
        if pins.cycle % 16 or not pins.line.empty:
            return False
        found.extend(decoder.feed(bytes(pins.line.received)))
        pins.line.received.clear()
        if len(found) < wanted:
            return False
        if not queue:
            return True
        data, replies = queue.pop(0)
        pins.line.send(data)
        wanted += replies
        return False

    pins.run(each_cycle)
    assert not decoder.bad
    return found


def repeat(top, frame, frames, tag=1):
    payload = top.description.input.encode(frame) + (frames - 1).to_bytes(2, "little")
    return Packet(Kind.REPEAT, tag, payload)


def frames_of(wire, count):
    rng = np.random.default_rng(count)
    if wire.format.binary:
        return rng.choice([-1, 1], (count, wire.count))
    return rng.integers(wire.format.min, wire.format.max + 1, (count, wire.count))


def test_cycles_are_those_of_the_timing():
    """A chain of cores at full rate: one frame, two, and enough for the steady state."""
    rng, sizes = np.random.default_rng(0), (6, 3, 2)
    formats = (U8, IntFormat(4, False), S16)
    cores = [
        make_layer_core(
            random_layer(rng, rows, columns, x, out, density=0.9), tensor(columns, x), 2, name=name
        )
        for name, columns, rows, x, out in zip(
            "ab", sizes, sizes[1:], formats, formats[1:], strict=False
        )
    ]
    graph = chain_graph([spec for spec, _ in cores])
    images = [image for _, image in cores]
    x, out = WireFormat(sizes[0], U8), WireFormat(sizes[2], S16)
    top = top_of(Accelerator(graph, images), x, out)
    ends = round_ends(graph, graph.named(images), 13)

    def predict(frame):
        return graph.compute(graph.named(images), frame.reshape(1, -1))[graph.units[-1].name][0]

    board = Responder(top.description, predict, cycles=lambda frames: ends[frames - 1])
    packets = [repeat(top, frames_of(x, 1)[0], frames) for frames in (1, 13, 2)]
    expected = PacketDecoder().feed(b"".join(board.feed(p.encode()) for p in packets))
    assert talk(top, [(p.encode(), 1) for p in packets]) == expected
    assert [p.kind for p in expected] == [Kind.MEASURED] * 3


@pytest.mark.parametrize(
    ("x", "out"),
    [(U8, S16), (S8, U8), (S12, S12), (U16, U3), (BINARY, BINARY)],
)
def test_an_activation_goes_in_and_an_output_comes_out_every_cycle(x, out):
    """Formats of one and two bytes; what gives as it takes is as long as its frames."""
    wire = WireFormat(5, x)
    top = top_of(Through(wire, wire), wire, wire)
    frame = frames_of(wire, 1)[0]
    steps = [(repeat(top, frame, frames).encode(), 1) for frames in (1, 9)]
    found = [Measurement.decode(p.payload) for p in talk(top, steps)]
    assert found == [
        Measurement(frames, 5 * frames - 1, output_sums(wire, frame, frames)) for frames in (1, 9)
    ]
    narrow = WireFormat(1 if x.binary else 3, out)
    top = top_of(StandIn(wire, narrow), wire, narrow)
    outputs = top.accelerator.compute(frame)
    found = Measurement.decode(talk(top, [(repeat(top, frame, 4).encode(), 1)])[0].payload)
    assert (found.frames, found.sums) == (4, output_sums(narrow, outputs, 4))


def test_frames_and_repeats_do_not_disturb_one_another():
    """Frames before, after and meanwhile; a repeat while a frame is under way is refused, as a
    frame is while one is repeated. STATUS is answered meanwhile, and counts packets."""
    x, out = WireFormat(6, U8), WireFormat(3, S16)
    top = top_of(StandIn(x, out, wait=3), x, out)
    first, second = frames_of(x, 2)
    infer = [Packet(Kind.INFER, tag, x.encode(f)) for tag, f in enumerate((first, second))]
    again = repeat(top, second, 60, tag=7)
    status = Packet(Kind.STATUS, 9)
    found = talk(
        top,
        [
            (infer[0].encode(), 1),
            (again.encode() + infer[0].encode(), 2),
            (again.encode() + status.encode(), 2),
            (infer[1].encode(), 1),
            (status.encode(), 1),
        ],
    )
    results = [
        Packet(Kind.RESULTS, tag, out.encode(top.accelerator.compute(f)))
        for tag, f in enumerate((first, second))
    ]
    assert found[0] == results[0]
    assert found[1] == Packet(Kind.ERROR, 0, bytes((ErrorCode.OVERRUN, Kind.INFER)))
    assert [reply.kind for reply in found[2:5]] == [Kind.MEASURED, Kind.COUNTERS, Kind.MEASURED]
    assert found[2] == found[4]
    sums = output_sums(out, top.accelerator.compute(second), 60)
    assert Measurement.decode(found[2].payload).sums == sums
    assert found[5] == results[1]
    assert Counters.decode(found[3].payload) == Counters(3, 0, 1, 0, 0)
    assert Counters.decode(found[6].payload).frames == 4
    slow = top_of(StandIn(x, out, wait=800), x, out)
    twice = repeat(top, second, 2)
    found = talk(slow, [(infer[1].encode() + again.encode(), 2), (twice.encode(), 1)])
    assert found[0] == Packet(Kind.ERROR, 7, bytes((ErrorCode.OVERRUN, Kind.REPEAT)))
    assert found[1] == results[1]
    assert Measurement.decode(found[2].payload).frames == 2


def test_lengths_and_boards_that_do_not_measure():
    x, out = WireFormat(6, U8), WireFormat(3, S16)
    top = top_of(StandIn(x, out), x, out)
    plain = Top(StandIn(x, out), replace(top.description, version=1), 512)
    for circuit, code in ((top, ErrorCode.BAD_LENGTH), (plain, ErrorCode.BAD_KIND)):
        board = Responder(circuit.description, lambda frame: frame[:3])
        packets = [Packet(Kind.DESCRIBE, 1), Packet(Kind.REPEAT, 2, bytes(6))]
        expected = [PacketDecoder().feed(board.feed(p.encode()))[0] for p in packets]
        assert talk(circuit, [(p.encode(), 1) for p in packets]) == expected
        assert Description.decode(expected[0].payload).measures == (circuit is top)
        assert expected[1].payload[0] == code
