"""Lanes of convolutions: what the choice rests on is near the exact cycles."""

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import RandomNetwork

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.engine.timing import time_graph
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import plan_for
from pvq_hw.flow.options import CompileOptions
from pvq_hw.geometry import Geometry
from pvq_hw.network.layer import TensorSpec
from pvq_hw.network.network import Network
from pvq_hw.network.window import Conv
from pvq_hw.plan.candidates import Choice, Question, coarse_lanes, layer_choices
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.folding import Folding, FoldLayer, fold, fold_best
from pvq_hw.plan.plan import plan
from pvq_hw.plan.resources import Resources
from pvq_hw.target.boards import get_target

U8 = IntFormat(8, False)
TARGET = get_target("ulx3s-25f")


def depthwise(channels: int, k: int) -> tuple[FoldLayer, Conv]:
    """A 3 x 3 convolution of each channel, as it is known before and after quantization."""
    rng = np.random.default_rng(1)
    g = Geometry((8, 8, channels), (3, 3), (1, 1), ((1, 1), (1, 1)))
    y = np.zeros((channels, 9), dtype=np.int64)
    for row in y:
        np.add.at(row, rng.integers(0, 9, k), 1)
    out = TensorSpec("y", (8, 8, channels), U8, 1.0)
    ones = np.ones((channels, 1))
    conv = Conv("d", "x", out, g, channels, y, 30 * ones.astype(int), y[:, 0] * 0, 7, ones)
    layer = FoldLayer("d", channels, 9 * channels, k, U8, U8, geometry=g, groups=channels)
    return layer, conv


def choices(layer: FoldLayer, lanes: int, windows: int) -> list[Choice]:
    asked = {"bank_memory": "block", "shift_bits": 0}
    question = Question(TARGET, tuple(asked.items()), windows=windows, width=1)
    return layer_choices(layer, [lanes], question)


@pytest.mark.parametrize(("channels", "k"), [(16, 5), (12, 3), (10, 4)])
def test_cycles_of_depthwise_choices_are_near_the_exact_ones(channels: int, k: int) -> None:
    layer, conv = depthwise(channels, k)
    g = conv.geometry
    x = TensorSpec("x", g.input_shape, U8, 1.0)
    (core,) = core_layers(Network("n", x, (conv,), g.input_shape, (0, 1, 2)))
    for lanes in range(1, 13):
        # 8 windows a row: whole rows, halves, and three with one of a row left for itself.
        side = (1, 1, 8, 4, 3)[lanes % 5]
        cycles = min(c.cycles for c in choices(layer, lanes, side))
        more = {"frames": side, "row_windows": 8 if side > 1 else 0}
        spec, image = make_core(core.dense, core.x, lanes, family="ecp5", name="d", **more)
        unit = CoreUnit("d", ("i",), ("o",), spec, make_window(g, U8, lanes, side=side))
        exact = time_graph(GraphSpec((unit,)), {"d": image}).interval_cycles
        assert cycles == pytest.approx(exact, rel=0.15), (lanes, side)


def test_windows_side_by_side_are_chosen_or_as_asked() -> None:
    layers = [stem(32, rows=4), head(128)]
    free = fold(layers, TARGET)
    assert free.memories[0]["frames"] > 1
    assert free.memories[0]["row_windows"] == 28
    one = fold(layers, TARGET, windows=1)
    assert "frames" not in one.memories[0]
    assert free.interval_cycles < one.interval_cycles
    asked = fold(layers, TARGET, each={"stem": {"windows": 5}})
    assert asked.memories[0]["frames"] == 5
    assert fold(layers, TARGET, windows=5).memories == asked.memories
    plain = [replace(layers[0], encoding="int8"), layers[1]]
    assert "frames" not in fold(plain, TARGET, windows=5).memories[0]
    for name, several, line in (
        ("head", layers, r"'head' must take one window at a time, not 5: it is dense"),
        ("stem", plain, r"'stem' must take one window at a time, not 5: it has 8-bit weights"),
    ):
        with pytest.raises(InputError, match=line):
            fold(several, TARGET, each={name: {"windows": 5}})
    with pytest.raises(InputError, match="windows side by side must be 1 to 16, not 17"):
        fold(layers, TARGET, each={"stem": {"windows": 17}})


def test_depthwise_lanes_spread_a_row_over_several_banks() -> None:
    layer, _ = depthwise(16, 5)
    (lanes,) = fold([layer], TARGET, reserve=Resources()).lanes
    # The taps of a channel are 16 columns apart: with 8 lanes or 16 all are in one bank.
    assert len({16 * tap % lanes for tap in range(9)}) > 1
    assert fold([layer], TARGET, reserve=Resources(), lanes=[8]).lanes == (8,)


def stem(k: int, rows: int = 8) -> FoldLayer:
    """A 3 x 3 convolution of one map of 28 x 28, K pulses a row."""
    g = Geometry((28, 28, 1), (3, 3), (1, 1), ((1, 1), (1, 1)))
    return FoldLayer("stem", rows, 9, k, U8, U8, geometry=g)


def head(k: int) -> FoldLayer:
    return FoldLayer("head", 10, 400, k, U8, IntFormat(16, True))


def test_pulses_beyond_the_weights_make_a_layer_dense() -> None:
    """9 weights of 200 pulses: 8-bit weights are fewer words, and no larger."""
    layers, free = [stem(200), head(128)], {"stem", "head"}
    # 8-bit weights take one window at a time.
    asked = {"reserve": Resources(luts=1500, brams=8), "held": False, "windows": 1}
    chosen = fold(layers, TARGET, **asked)
    dense = fold_best(layers, TARGET, free=free, **asked)
    assert list(dense.reasons) == ["stem"]
    assert "rows of 9 weights were to have 200 pulses" in dense.reasons["stem"]
    assert dense.interval_cycles <= chosen.interval_cycles
    assert fold_best(layers, TARGET, free={"head"}, **asked).reasons == {}
    few = [stem(8), head(128)]  # fewer pulses than weights
    assert fold_best(few, TARGET, free=free, **asked).reasons == {}
    # No multiplier blocks are left: its lanes would multiply in LUTs, more than those of pulses.
    asked["reserve"] += Resources(dsps=27)
    assert fold_best(layers, TARGET, free={"stem"}, **asked).reasons == {}


def test_small_banks_are_flip_flops_where_block_ram_is_scarce() -> None:
    board = get_target("icebreaker")
    reserves = Resources(luts=3400), Resources(brams=26)
    roomy, scarce = (fold([stem(32)], board, reserve=r, lanes=[6]) for r in reserves)
    assert [f.memories[0]["bank_memory"] for f in (roomy, scarce)] == ["block", "logic"]
    assert scarce.cost.brams - 26 <= 4 < roomy.cost.brams


def test_multipliers_of_graphs_are_serial_where_dsp_blocks_are_too_few() -> None:
    board = get_target("icebreaker")
    some = fold([stem(32), head(128)], board, reserve=Resources(dsps=7))
    assert "serial" in {memories.get("multiplier") for memories in some.memories}
    assert some.fits
    each = {"stem": {"multiplier": "mac16"}}
    asked = fold([stem(32)], board, reserve=Resources(dsps=8), each=each)
    assert not asked.fits


def test_choices_are_those_that_no_other_beats() -> None:
    question = Question(TARGET)
    found = layer_choices(stem(32), coarse_lanes(stem(32)), question)
    parts = [(c.cycles, c.cost.luts, c.cost.brams, c.cost.dsps) for c in found]
    for a in parts:
        assert not any(b != a and all(q <= p for p, q in zip(a, b, strict=True)) for b in parts)


def test_lanes_are_chosen_again_where_the_codes_came_out_too_large() -> None:
    source = RandomNetwork(4, (6, 6, 4))
    source.dense(source.conv(source.input, 6, (3, 3), k=60), 3, k=40)
    network, board = source.network(), get_target("icebreaker")
    names = tuple(layer.name for layer in network.layers)
    lanes = (30, 4)
    folding = Folding(names, lanes, (None, None), ({}, {}), (0, 0), 0, True, (False, False))
    with pytest.raises(InputError, match="The network needs"):
        plan_for(network, board, CompileOptions(lanes=lanes, windows=1), folding)
    planned = plan_for(network, board, CompileOptions(), folding)
    planned.verify()
    assert planned.lanes != lanes
    few = replace(folding, lanes=(2, 2))
    assert plan_for(network, board, CompileOptions(), few).lanes == (2, 2)


@pytest.mark.parametrize("luts", [1700, 4250])
def test_lanes_are_chosen_again_where_queues_came_out_larger(luts):
    """What lanes are chosen by reckons with the shortest queues."""
    net, same = RandomNetwork(1, (6, 6, 4)), {"pads": ((1, 1), (1, 1))}
    x = net.conv(net.input, 8, (3, 3), k=12, **same)
    net.add(x, net.conv(x, 8, (3, 3), k=12, **same))
    board = get_target("hx8k")
    small = replace(board, device=replace(board.device, luts=int(luts / 0.85)))
    planned = plan(net.network(), small, top=False)
    assert planned.resources.luts <= luts
    with pytest.raises(InputError, match="The network needs about"):
        plan(net.network(), replace(board, device=replace(board.device, luts=1000)), top=False)
