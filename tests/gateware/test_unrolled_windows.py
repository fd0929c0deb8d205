"""Unrolled convolutions against the golden model, and every cycle against the timing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from graph_cases import STALLS, check
from random_graphs import Built, RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.patterns import NONE
from pvq_hw.plan.plan import core_images, plan

U8, S8 = IntFormat(8, False), IntFormat(8, True)
SAME = ((1, 1), (1, 1))

# Map, kernel, rows of weights and what else of the convolution.
CASES = {
    "same": ((6, 5, 2), (3, 3), 3, {"pads": SAME}),
    "valid": ((6, 5, 2), (3, 3), 9, {}),
    "uneven": ((7, 8, 3), (3, 3), 4, {"stride": (2, 2), "pads": ((0, 1), (1, 0))}),
    "depthwise": ((5, 6, 4), (3, 3), 4, {"groups": 4, "pads": SAME}),
    "one_dimension": ((1, 14, 3), (1, 5), 4, {"stride": (1, 2), "pads": ((0, 0), (2, 2))}),
    "dilated": ((5, 5, 2), (3, 3), 3, {"pads": ((2, 2), (2, 2)), "dilation": (2, 2)}),
    "gaps": ((9, 9, 1), (2, 2), 2, {"stride": (3, 3)}),
    "points": ((5, 4, 4), (1, 1), 5, {}),
    "whole_map": ((4, 4, 2), (4, 4), 3, {}),
    "in_the_padding": ((4, 4, 2), (2, 2), 3, {"stride": (2, 2), "pads": ((3, 3), (3, 3))}),
    "narrow": ((6, 1, 1), (3, 1), 1, {"pads": ((1, 1), (0, 0))}),
}


def convolution(case: str, form: IntFormat = U8, family: str = "ecp5", frames: int = 2) -> Built:
    shape, kernel, rows, geometry = CASES[case]
    net = RandomNetwork(len(case), shape, form)
    net.conv(net.input, rows, kernel, k=4, **geometry)
    return build(net, family=family, frames=frames, unrolled={"conv0"})


@pytest.mark.parametrize("case", CASES)
def test_convolutions_are_exact_and_take_the_planned_cycles(case):
    built = convolution(case, S8 if case == "uneven" else U8)
    check(built, built.graph)
    (unit,) = built.graph.units
    tight = replace(built.graph, units=(
        replace(unit, window=replace(unit.window, rows=unit.window.least_rows)),
    ))  # fmt: skip
    check(built, tight, STALLS)
    assert GraphSpec.from_json(json.loads(json.dumps(tight.to_json()))) == tight


def test_signs_which_have_no_zero_are_read_too():
    """A row begins with columns that only fill the registers, before the map."""
    built = convolution("valid", IntFormat(1, True))
    check(built, built.graph)


def test_a_serial_multiplier_keeps_the_pace_of_the_windows():
    built = convolution("depthwise", S8, "hx8k", frames=1)
    assert built.graph.cores[0].multiplier == "serial"
    check(built, built.graph, NONE, STALLS)


def test_a_mixed_network_runs_as_planned():
    """Unrolled, folded and unrolled on one branch of a sum, which the planner chose so."""
    net = RandomNetwork(4, (6, 6, 2))
    x = net.conv(net.input, 6, (3, 3), k=5, pads=SAME)
    y = net.conv(x, 6, (3, 3), k=12, pads=SAME)
    net.dense(net.maxpool(net.add(x, y), (2, 2), stride=(2, 2)), 3)
    network = net.network()
    planned = plan(network, "ulx3s-25f", engine="auto", windows=1)
    assert {layer.unrolled for layer in planned.layers} == {True, False}
    images = planned.graph.named(core_images(network, planned))
    x = np.random.default_rng(4).integers(0, 256, (2, *network.input.shape))
    check(Built(network, planned.graph, images, x), planned.graph)
