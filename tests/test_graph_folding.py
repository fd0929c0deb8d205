"""Lanes of convolutions: what the choice rests on is near the exact cycles."""

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import RandomNetwork

from pvq_hw.core import make_core
from pvq_hw.core_layers import core_layers
from pvq_hw.errors import InputError
from pvq_hw.flow import plan_for
from pvq_hw.folding import Folding, FoldLayer
from pvq_hw.geometry import Geometry
from pvq_hw.graph import GraphSpec
from pvq_hw.graph_choices import GraphLayer, graph_choices
from pvq_hw.graph_folding import as_dense, dense_layers, fold_graph
from pvq_hw.layers import TensorSpec
from pvq_hw.layers_window import Conv
from pvq_hw.network import Network
from pvq_hw.numeric import IntFormat
from pvq_hw.options import CompileOptions
from pvq_hw.resources import Resources
from pvq_hw.targets import get_target
from pvq_hw.timing import time_graph
from pvq_hw.units import CoreUnit
from pvq_hw.window import make_window

U8 = IntFormat(8, False)
TARGET = get_target("ulx3s-25f")


def depthwise(channels: int, k: int) -> tuple[GraphLayer, Conv]:
    """A 3 x 3 convolution of each channel, as it is known before and after quantization."""
    rng = np.random.default_rng(1)
    g = Geometry((8, 8, channels), (3, 3), (1, 1), ((1, 1), (1, 1)))
    y = np.zeros((channels, 9), dtype=np.int64)
    for row in y:
        np.add.at(row, rng.integers(0, 9, k), 1)
    out = TensorSpec("y", (8, 8, channels), U8, 1.0)
    ones = np.ones((channels, 1))
    conv = Conv("d", "x", out, g, channels, y, 30 * ones.astype(int), y[:, 0] * 0, 7, ones)
    core = FoldLayer("d", channels, 9 * channels, k, U8, U8)
    return GraphLayer(core, g, channels), conv


@pytest.mark.parametrize(("channels", "k"), [(16, 5), (12, 3), (10, 4)])
def test_cycles_of_depthwise_choices_are_near_the_exact_ones(channels: int, k: int) -> None:
    layer, conv = depthwise(channels, k)
    g = conv.geometry
    x = TensorSpec("x", g.input_shape, U8, 1.0)
    (core,) = core_layers(Network("n", x, (conv,), g.input_shape, (0, 1, 2)))
    found = {}
    for lanes in range(1, 13):
        asked = {"bank_memory": "block", "shift_bits": 0}
        found[lanes] = min(c.cycles for c in graph_choices(layer, TARGET, lanes, None, asked))
    for lanes, cycles in found.items():
        spec, image = make_core(core.dense, core.x, lanes, family="ecp5", name="d")
        unit = CoreUnit("d", ("i",), ("o",), spec, make_window(g, U8, lanes))
        exact = time_graph(GraphSpec((unit,)), {"d": image}).interval_cycles
        assert cycles == pytest.approx(exact, rel=0.15), lanes


def test_depthwise_lanes_spread_a_row_over_several_banks() -> None:
    layer, _ = depthwise(16, 5)
    (choice,) = fold_graph([layer], TARGET, Resources())
    lanes = choice.lanes
    # The taps of a channel are 16 columns apart: with 8 lanes or 16 all are in one bank.
    assert len({16 * tap % lanes for tap in range(9)}) > 1
    assert [c.lanes for c in fold_graph([layer], TARGET, Resources(), lanes=[8])] == [8]


def stem(k: int, rows: int = 8) -> GraphLayer:
    """A 3 x 3 convolution of one map of 28 x 28, K pulses a row."""
    g = Geometry((28, 28, 1), (3, 3), (1, 1), ((1, 1), (1, 1)))
    return GraphLayer(FoldLayer("stem", rows, 9, k, U8, U8), g)


def head(k: int) -> GraphLayer:
    return GraphLayer(FoldLayer("head", 10, 400, k, U8, IntFormat(16, True)), None)


def test_pulses_beyond_the_weights_make_a_layer_dense() -> None:
    """9 weights of 90 pulses: 8-bit weights are fewer words, and no larger."""
    board, reserve = TARGET, Resources(luts=1500, brams=8)
    layers, free = [stem(90), head(128)], {"stem", "head"}
    chosen = fold_graph(layers, board, reserve)
    assert dense_layers(layers, chosen, board, reserve, free) == ["stem"]
    assert dense_layers(layers, chosen, board, reserve, {"head"}) == []
    dense = fold_graph([as_dense(layers[0]), layers[1]], board, reserve)
    assert max(c.cycles for c in dense) <= max(c.cycles for c in chosen)
    few = [stem(8), head(128)]  # fewer pulses than weights
    chosen = fold_graph(few, board, reserve)
    assert dense_layers(few, chosen, board, reserve, free) == []


def test_dense_layers_leave_multiplier_blocks_that_are_there() -> None:
    board, reserve = TARGET, Resources(luts=1500, brams=8)
    layers = [stem(90), head(128)]
    chosen = fold_graph(layers, board, reserve)
    used = sum(choice.cost.dsps for choice in chosen[1:])
    some = dense_layers(layers, chosen, board, reserve, {"stem"})
    none_left = Resources(luts=1500, brams=8, dsps=28 - used)  # none for the layer
    assert some == ["stem"]
    # Its lanes would multiply in LUTs, which are more than those of pulses.
    assert dense_layers(layers, chosen, board, none_left, {"stem"}) == []


def test_small_banks_are_flip_flops_where_block_ram_is_scarce() -> None:
    board = get_target("icebreaker")
    roomy = fold_graph([stem(32)], board, Resources(luts=3400), lanes=[6])
    scarce = fold_graph([stem(32)], board, Resources(brams=26), lanes=[6])
    assert roomy[0].spec.bank_memory == "block"
    assert scarce[0].spec.bank_memory == "logic"
    assert scarce[0].cost.brams <= 4 < roomy[0].cost.brams


def test_multipliers_of_graphs_are_serial_where_dsp_blocks_are_too_few() -> None:
    board = get_target("icebreaker")
    some = fold_graph([stem(32), head(128)], board, Resources(dsps=7))
    assert "serial" in {choice.spec.multiplier for choice in some}
    assert sum(choice.cost.dsps for choice in some) <= 1
    asked = fold_graph([stem(32)], board, Resources(dsps=8), asked=[{"multiplier": "mac16"}])
    assert asked[0].spec.multiplier == "mac16"


def test_choices_are_those_that_no_other_beats() -> None:
    found = graph_choices(stem(32), TARGET)
    parts = [(c.cycles, c.cost.luts, c.cost.brams, c.cost.dsps) for c in found]
    for a in parts:
        assert not any(b != a and all(q <= p for p, q in zip(a, b, strict=True)) for b in parts)


def test_lanes_are_chosen_again_where_the_codes_came_out_too_large() -> None:
    source = RandomNetwork(4, (6, 6, 4))
    source.dense(source.conv(source.input, 6, (3, 3), k=60), 3, k=40)
    network, board = source.network(), get_target("icebreaker")
    names = tuple(layer.name for layer in network.layers)
    lanes = (30, 4)
    folding = Folding(names, lanes, (), ({}, {}), (0, 0), 0, True, (False, False))
    with pytest.raises(InputError, match="The network needs"):
        plan_for(network, board, CompileOptions(lanes=lanes), folding)
    planned = plan_for(network, board, CompileOptions(), folding)
    planned.verify()
    assert planned.lanes != lanes
    few = replace(folding, lanes=(2, 2))
    assert plan_for(network, board, CompileOptions(), few).lanes == (2, 2)
