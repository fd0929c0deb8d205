"""Unrolled convolutions that read a window with each pixel: exact, every cycle the timing's."""

import json
from dataclasses import replace

import pytest
from graph_cases import STALLS, check
from random_graphs import RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import time_graph
from pvq_hw.errors import InputError
from pvq_hw.plan.plan import Plan, plan

U8, S8 = IntFormat(8, False), IntFormat(8, True)
SAME = ((1, 1), (1, 1))

# Map, kernel, rows of weights, results a transfer, bits a cycle, and what else of the convolution.
CASES = {
    "same": ((6, 5, 1), (3, 3), 4, 4, 0, {"pads": SAME}),
    "valid, several channels": ((6, 5, 3), (3, 3), 6, 2, 0, {}),
    "uneven": ((7, 8, 2), (3, 3), 4, 4, 0, {"stride": (2, 2), "pads": ((0, 1), (1, 0))}),
    "depthwise, digit by digit": ((5, 6, 4), (3, 3), 4, 1, 2, {"groups": 4, "pads": SAME}),
    "one dimension": ((1, 14, 3), (1, 5), 4, 4, 0, {"stride": (1, 2), "pads": ((0, 0), (2, 2))}),
    "points": ((5, 4, 4), (1, 1), 5, 5, 1, {}),
    "the whole map": ((4, 4, 2), (4, 4), 3, 1, 4, {}),
    "a narrow map": ((6, 1, 1), (3, 1), 1, 1, 0, {"pads": ((1, 1), (0, 0))}),
}


@pytest.mark.parametrize("case", CASES)
def test_windows_are_exact_and_come_in_the_planned_cycles(case):
    shape, kernel, rows, width, digit, geometry = CASES[case]
    net = RandomNetwork(len(case), shape, S8 if case == "uneven" else U8)
    net.conv(net.input, rows, kernel, k=4, **geometry)
    pixel = shape[2]
    built = build(
        net, by_pixel={"conv0"}, digits={"conv0": digit}, widths={"conv0": width},
        ends=(pixel, width), frames=3, family="up5k" if pixel == 3 else "ecp5",
    )  # fmt: skip
    graph = built.graph
    assert GraphSpec.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    check(built, graph, NONE, STALLS)


def test_a_pixel_a_clock_goes_through_without_a_pause():
    """Rows and maps follow one another; what comes narrower takes as long as its pixels."""
    net = RandomNetwork(3, (6, 7, 2))
    x = net.conv(net.input, 4, (3, 3), k=6, pads=SAME)
    net.conv(x, 3, (2, 2), k=9, stride=(2, 2))
    names = {"conv0", "conv1"}
    found = []
    for pixel in (2, 1):
        built = build(
            net, by_pixel=names, widths={"conv0": 4, "conv1": 3}, ends=(pixel, 3), frames=3
        )
        found.append(time_graph(built.graph, built.images).interval_cycles)
    assert found == [6 * 7, 2 * 6 * 7]
    check(built, built.graph, NONE)


def test_the_planner_reads_windows_by_the_pixel_where_that_is_faster():
    net = RandomNetwork(5, (9, 9, 1))
    x = net.maxpool(net.conv(net.input, 4, (3, 3), k=4, pads=SAME), (3, 3), stride=(3, 3))
    net.dense(x, 3)
    network = net.network()
    planned = plan(network, "ulx3s-85f", each={"conv0": {"engine": "unrolled"}})
    first = planned.layers[0]
    assert first.spec.by_pixel
    assert "a window with each pixel that comes" in first.reason
    assert planned.interval_cycles == 81
    assert Plan.from_json(planned.to_json()) == planned
    assert plan(network, "ulx3s-85f", engine="folded").interval_cycles > 81


def test_what_cannot_be_read_by_the_pixel_is_refused():
    net = RandomNetwork(5, (6, 6, 2))
    net.conv(net.input, 2, (2, 2), k=4, dilation=(2, 2))
    with pytest.raises(InputError, match="must not read windows as pixels come: it is dilated"):
        time_graph((b := build(net, by_pixel={"conv0"})).graph, b.images)
    net = RandomNetwork(5, (6, 6, 2))
    net.conv(net.input, 2, (2, 2), k=4)
    (spec,) = build(net, by_pixel={"conv0"}).graph.cores
    with pytest.raises(InputError, match="must be pipelined to read windows as pixels come"):
        replace(spec, pipelined=False)
