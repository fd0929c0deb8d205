"""A real accelerator from serial pin to serial pin: frames in over rx, results out of tx."""

import struct

import numpy as np
import pytest
from chain_table import chain
from random_layers import Case, make_chain
from stand_in import IDENTITY

from gateware.accelerator.accelerator import Accelerator
from gateware.link.top import Top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.host.protocol import Description, Kind, Packet, PacketDecoder, WireFormat
from sim.agents.pins import PinSimulation

CLOCKS_PER_BIT = 4


def run(name, packets):
    """Packets for a chain's frames in, decoded packets out; and the top's description."""
    made = chain(name) if isinstance(name, str) else name
    first, last = made.specs[0], made.specs[-1]
    description = Description(
        WireFormat(first.n, first.x),
        WireFormat(last.rows, last.out),
        CLOCKS_PER_BIT * 1_000_000,
        1_000_000,
        4,
        IDENTITY,
    )
    top = Top(Accelerator(made.graph, made.images), description, 4096)
    pins = PinSimulation(top, limit=200_000)
    requests = packets(made, description)
    decoder = PacketDecoder()
    replies: list[Packet] = []
    seen = 0

    def each_cycle():
        nonlocal seen
        if len(pins.line.received) > seen:
            replies.extend(decoder.feed(bytes(pins.line.received[seen:])))
            seen = len(pins.line.received)
        return len(replies) == len(requests)

    for request in requests:
        pins.line.send(request.encode())
    pins.run(each_cycle)
    assert not decoder.bad
    return made, description, replies


@pytest.mark.parametrize("name", ["plain", "binary"])
def test_results_at_tx_equal_the_golden_model(name):
    def packets(made, description):
        return [
            Packet(Kind.INFER, tag, description.input.encode(frame))
            for tag, frame in enumerate(made.x[:4])
        ]

    made, description, replies = run(name, packets)
    golden = made.network.predict(made.x[:4])
    assert [(reply.kind, reply.tag) for reply in replies] == [(Kind.RESULTS, t) for t in range(4)]
    got = np.array([description.output.decode(reply.payload) for reply in replies])
    assert np.array_equal(got, golden)


def test_index_of_the_largest_equals_the_golden_model():
    def packets(made, description):
        return [
            Packet(Kind.CLASSIFY, tag, description.input.encode(frame))
            for tag, frame in enumerate(made.x)
        ]

    made, _, replies = run("one pulse", packets)
    golden = made.network.predict(made.x)
    expected = list(zip(golden.argmax(axis=1).tolist(), golden.max(axis=1).tolist(), strict=True))
    assert len({index for index, _ in expected}) > 1
    assert [struct.unpack("<Hh", reply.payload) for reply in replies] == expected


@pytest.mark.parametrize("flush", [8, 4000])
def test_frames_side_by_side_come_back_in_order(flush):
    # The line is slower than either time-out, or faster than the longer one.
    options = {"frames": 3}
    made = make_chain(
        4,
        12,
        IntFormat(8, False),
        Case(6, 8, 3, options=options | {"flush_cycles": flush}),
        Case(4, 5, 2, out=IntFormat(16, True), options=options),
        frames=3,
    )

    def packets(made, description):
        return [
            Packet(Kind.INFER, tag, description.input.encode(frame))
            for tag, frame in enumerate(made.x[:5])
        ]

    made, description, replies = run(made, packets)
    assert [(reply.kind, reply.tag) for reply in replies] == [(Kind.RESULTS, t) for t in range(5)]
    got = np.array([description.output.decode(reply.payload) for reply in replies])
    assert np.array_equal(got, made.network.predict(made.x[:5]))
