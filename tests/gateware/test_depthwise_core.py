"""Depthwise cores against the golden model, and every cycle against the timing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graph_cases import STALLS, check
from random_graphs import Built, RandomNetwork, build

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.line_buffer import make_window
from pvq_hw.engine.patterns import NONE
from pvq_hw.engine.timing import least_depths, time_graph, with_depths
from pvq_hw.engine.units import CoreUnit
from pvq_hw.errors import InputError
from pvq_hw.plan.image import Image
from sim.reference import load_reference, reference_outputs

U8, S8, S4 = IntFormat(8, False), IntFormat(8, True), IntFormat(4, True)
SAME = ((1, 1), (1, 1))

# Shape, kernel, rows of a channel, pulses of a row, and the rest of the geometry.
LAYERS = {
    "same": ((4, 5, 4), (3, 3), 1, 5, {"pads": SAME}),
    "valid": ((5, 4, 3), (3, 3), 1, 9, {}),
    "strided": ((5, 6, 3), (3, 3), 1, 4, {"stride": (2, 2), "pads": SAME}),
    "uneven": ((6, 7, 3), (3, 2), 1, 3, {"stride": (2, 3), "pads": ((0, 2), (1, 0))}),
    "rows of a channel": ((4, 4, 2), (3, 3), 3, 40, {"pads": SAME}),
    "rows of a channel, strided": ((5, 5, 2), (3, 3), 2, 6, {"stride": (2, 2), "pads": SAME}),
    "one dimension": ((1, 12, 3), (1, 5), 1, 6, {"pads": ((0, 0), (2, 2))}),
    "one column": ((9, 1, 3), (3, 1), 1, 6, {"pads": ((1, 1), (0, 0))}),
    "one dimension, early": ((1, 9, 3), (1, 4), 1, 6, {"pads": ((0, 0), (3, 0))}),
    "one dimension, late": ((1, 9, 3), (1, 4), 1, 6, {"pads": ((0, 0), (0, 3))}),
    "points": ((3, 3, 4), (1, 1), 1, 3, {}),
    "points of one channel, strided": ((4, 4, 1), (1, 1), 1, 3, {"stride": (2, 2)}),
    "one channel": ((6, 5, 1), (3, 3), 4, 9, {"pads": SAME}),
    "one channel, strided": ((7, 8, 1), (4, 3), 2, 9, {"stride": (2, 2), "pads": SAME}),
    "two narrow channels": ((7, 1, 2), (3, 1), 3, 9, {"stride": (2, 1), "pads": ((1, 1), (0, 0))}),
    "gaps between windows": ((9, 8, 3), (2, 2), 1, 4, {"stride": (3, 3)}),
    "wide kernel": ((6, 6, 3), (5, 5), 1, 12, {"pads": ((2, 2), (2, 2))}),
}


def depthwise(name: str, form: IntFormat = U8, **options: object) -> Built:
    shape, kernel, each, k, geometry = LAYERS[name]
    net = RandomNetwork(1, shape, form)
    net.conv(net.input, each * shape[2], kernel, groups=shape[2], k=k, **geometry)
    return build(net, depthwise=["conv0"], **options)


def core(built: Built) -> DepthwiseSpec:
    unit = built.graph.units[0]
    assert isinstance(unit, CoreUnit)
    assert isinstance(unit.core, DepthwiseSpec)
    return unit.core


@pytest.mark.parametrize("name", LAYERS)
def test_results_are_the_golden_models_and_cycles_the_timings(name: str) -> None:
    form, family = (S8, "up5k") if LAYERS[name][2] == 1 and len(name) % 2 else (U8, "ecp5")
    built = depthwise(name, form, family=family, frames=2)
    spec, image = core(built), built.images["conv0"]
    assert GraphSpec.from_json(json.loads(json.dumps(built.graph.to_json()))) == built.graph
    wanted = built.network.predict(built.x).reshape(2, -1)
    assert np.array_equal(spec.compute(image, built.x), wanted)
    check(built, built.graph, NONE, STALLS)
    timing = time_graph(built.graph, built.images)
    assert timing.interval_cycles == spec.frame_cycles


def test_a_position_takes_as_many_cycles_as_there_are_channels() -> None:
    """64 channels at 125 positions: 8,000 cycles, where lanes take 18,625 or more."""
    net = RandomNetwork(1, (25, 5, 64))
    net.conv(net.input, 64, (3, 3), groups=64, k=5, pads=SAME)
    built = build(net, depthwise=["conv0"], frames=1)
    spec = core(built)
    assert time_graph(built.graph, built.images).interval_cycles == 64 * 125
    assert spec.word_bits * spec.rows <= 3 * 9 * 64


def test_plain_weights_serial_multipliers_and_signs_are_computed_too(tmp_path: Path) -> None:
    """A layer of 8-bit weights, behind it one that gives signs, as a device without multipliers
    has them; the memory files, by the reference that shares no code, give the same."""
    net = RandomNetwork(6, (3, 4, 3), S8)
    first = net.conv(net.input, 3, (3, 3), groups=3, k=9, pads=SAME)
    net.conv(first, 6, (2, 2), groups=3, k=4, out=IntFormat(1, True))
    y = np.random.default_rng(1).integers(-128, 128, net.layers[0].y.shape)
    y[0, :2] = -128, 0
    plain, signs = net.layers
    rows = np.ones_like(signs.mult)
    net.layers = [
        replace(plain, y=y, encoding="int8", mult=plain.mult // 16 + 1, shift=12),
        replace(signs, mult=rows, bias=signs.bias - 1000, shift=1),
    ]
    built = build(net, family="hx8k", depthwise=["conv0", "conv1"], frames=2)
    cores = built.graph.cores
    assert [spec.multiplier for spec in cores] == ["serial", "none"]
    check(built, built.graph, STALLS, NONE)
    images = [built.images[spec.name] for spec in cores]
    Image(tuple(cores), tuple(images)).write(tmp_path)
    reference = load_reference([spec.to_json() for spec in cores], tmp_path / "image")
    frames = built.x.reshape(2, -1).tolist()
    found = reference_outputs(built.graph.to_json(), reference, frames)["conv1"]
    assert np.array_equal(found, built.network.predict(built.x).reshape(2, -1))


def test_a_skip_branch_around_a_depthwise_core_never_stands_still() -> None:
    """The last windows of a map never wait for the next map, whose activations may be held up."""
    net = RandomNetwork(2, (4, 3, 2))
    net.add(net.conv(net.input, 2, (3, 3), groups=2, pads=SAME), net.input)
    built = build(net, depthwise=["conv0"], frames=3)
    least = least_depths(built.graph, built.images)
    assert max(least.values()) > 2
    check(built, with_depths(built.graph, least), STALLS, NONE, quiet=500)


def test_broken_words_and_cores_are_refused() -> None:
    built = depthwise("same")
    spec, image = core(built), built.images["conv0"]
    for words, message in (
        (image.codes[:-1], "has 3 words, not 4"),
        ((1 << spec.word_bits, *image.codes[1:]), f"words must have {spec.word_bits} bits"),
    ):
        with pytest.raises(InputError, match=message):
            spec.decode(CoreImage(words, image.mult, image.bias))
    signs = sum(1 << k for k in np.cumsum([bits + 1 for bits in spec.magnitudes if bits]) - 1)
    with pytest.raises(InputError, match="weights of 0 must have no sign"):
        spec.decode(CoreImage((signs, *image.codes[1:]), image.mult, image.bias))
    other = [image.codes[0], image.codes[1] ^ 1, *image.codes[2:]]  # a weight that was 0
    y = spec.decode(CoreImage(tuple(other), image.mult, image.bias))
    assert np.count_nonzero(y != spec.decode(image)) == 1
    for changes, message in (
        ({"magnitudes": spec.magnitudes[1:]}, "a column for each activation"),
        ({"magnitudes": (9,) * 9}, "magnitudes must have 0 to 8 bits"),
        ({"lines_memory": "spram"}, "memories must be block or logic"),
        ({"code_latency": 4}, "code_latency must be bank_latency, 2"),
        ({"rows": 3}, "rows have weights for more than one channel"),
        ({"frames": 2}, "frames must be 1 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            replace(spec, **changes)
    unit = built.graph.units[0]
    window = make_window(spec.geometry, U8, 4)
    with pytest.raises(InputError, match="must have no window: it takes maps"):
        replace(unit, window=window)
