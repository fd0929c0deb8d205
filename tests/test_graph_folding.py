"""Lanes of convolutions: what the choice rests on is near the exact cycles."""

import numpy as np
import pytest

from pvq_hw.core import make_core
from pvq_hw.core_layers import core_layers
from pvq_hw.folding import FoldLayer
from pvq_hw.geometry import Geometry
from pvq_hw.graph import GraphSpec
from pvq_hw.graph_folding import GraphLayer, fold_graph
from pvq_hw.graph_folding import _options as options
from pvq_hw.graph_timing import time_graph
from pvq_hw.layers import TensorSpec
from pvq_hw.layers_window import Conv
from pvq_hw.network import Network
from pvq_hw.numeric import IntFormat
from pvq_hw.resources import Resources
from pvq_hw.targets import get_target
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
    found = [option for option in options(layer, TARGET) if option[2] <= 12]
    assert len(found) >= 5
    for cycles, _, lanes in found:
        spec, image = make_core(core.dense, core.x, lanes, family="ecp5", name="d")
        unit = CoreUnit("d", ("i",), ("o",), spec, make_window(g, U8, lanes))
        exact = time_graph(GraphSpec((unit,)), {"d": image}).interval_cycles
        assert cycles == pytest.approx(exact, rel=0.15), lanes


def test_depthwise_lanes_spread_a_row_over_several_banks() -> None:
    layer, _ = depthwise(16, 5)
    (lanes,) = fold_graph([layer], TARGET, Resources())
    # The taps of a channel are 16 columns apart: with 8 lanes or 16 all are in one bank.
    assert len({16 * tap % lanes for tap in range(9)}) > 1
    assert fold_graph([layer], TARGET, Resources(), lanes=[8]) == [8]
