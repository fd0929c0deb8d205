"""Convolutions on a shared engine with maps: golden model, circuit and timing model agree."""

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import RandomNetwork

import sim
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.map_core import MapSpec
from pvq_hw.engine.shared_listing import listing
from pvq_hw.errors import InputError
from pvq_hw.network.network import Network
from pvq_hw.output.verify_content import Finding, check_image, check_plan
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from sim.reference import load_reference, reference_outputs

S8 = IntFormat(8, True)
SAME = ((1, 1), (1, 1))


def convolutions() -> Network:
    """Odd channels, padding, strides, dilation, signed and unsigned activations; a dense layer of
    a map."""
    net = RandomNetwork(3, (5, 4, 3))
    x = net.conv(net.input, 3, (3, 3), pads=SAME, k=5)
    x = net.conv(x, 3, (2, 2), pads=((1, 1), (1, 1)), dilation=(2, 2), k=5)
    x = net.conv(x, 5, (2, 3), out=S8, k=6, stride=(2, 1))
    net.dense(x, 9)
    return net.network()


def depthwise() -> Network:
    """Rows of one channel, in chunks of 2; points; an average of the whole map, at a time."""
    net = RandomNetwork(5, (5, 4, 1))
    x = net.conv(net.input, 10, (3, 2), stride=(2, 2), pads=((1, 1), (0, 1)), k=4)
    x = net.conv(x, 20, (3, 3), groups=10, pads=SAME, k=3)
    x = net.average(net.conv(x, 6, (1, 1), k=3), (3, 2))
    net.dense(x, 9)
    return net.network()


def flat() -> Network:
    """One dimension."""
    net = RandomNetwork(7, (1, 9, 1))
    net.dense(net.conv(net.input, 3, (1, 3), k=3), 9)
    return net.network()


def residual() -> Network:
    """Sums of maps: of one memory and of both, signed with unsigned ones; a strided shortcut."""
    net = RandomNetwork(11, (4, 4, 2))
    x = net.conv(net.input, 3, (3, 3), pads=SAME, k=4)
    y = net.conv(net.conv(x, 3, (1, 1), k=2), 3, (3, 3), pads=SAME, out=S8, k=4)
    x = net.add(x, y)
    y = net.conv(net.conv(x, 4, (3, 3), pads=SAME, stride=(2, 2), k=4), 4, (1, 1), out=S8, k=2)
    x = net.add(y, net.conv(x, 4, (1, 1), stride=(2, 2), out=S8, k=2))
    net.dense(net.average(x, (2, 2)), 5)
    return net.network()


def maxima() -> Network:
    """Maxima of signed and unsigned maps, of all channels at a time and of some, with padding that
    never wins, overlapping and of single activations; a frame of one channel, and a sum."""
    net = RandomNetwork(13, (6, 5, 1))
    x = net.conv(net.input, 12, (3, 2), pads=SAME, out=S8, k=5)
    y = net.maxpool(x, (3, 3), stride=(2, 2), pads=SAME)
    y = net.maxpool(net.add(y, y), (1, 2))
    x = net.maxpool(net.conv(y, 3, (1, 1), k=3), (1, 1), stride=(2, 1))
    net.dense(net.maxpool(x, x.shape[:2]), 5)
    return net.network()


def pooled() -> Network:
    """Maxima of 2 x 2 that are written with what gives them, of signed and unsigned results, of odd
    numbers of rows, columns and channels; one that another layer's results are read beside."""
    net = RandomNetwork(17, (9, 11, 1))
    x = net.maxpool(net.conv(net.input, 3, (3, 3), out=S8, k=5, pads=SAME), (2, 2), stride=(2, 2))
    y = net.conv(x, 4, (3, 3), pads=SAME, k=4)
    x = net.add(y, net.conv(y, 4, (1, 1), k=2, out=S8))
    x = net.maxpool(x, (2, 2), stride=(2, 2))
    net.dense(x, 5)
    return net.network()


def tabled() -> Network:
    """Functions of signed and unsigned activations, one whose maxima are written, of a map and of a
    vector, the last layer's too."""
    net = RandomNetwork(19, (6, 5, 2))
    x = net.table(net.conv(net.input, 10, (3, 3), out=S8, k=5, pads=SAME), out=S8)
    x = net.table(net.conv(x, 3, (1, 1), k=3))
    x = net.dense(net.maxpool(x, (2, 2), stride=(2, 2)), 9)
    net.table(net.dense(net.table(x, out=S8), 10), out=IntFormat(10, True))
    return net.network()


def side_by_side() -> Network:
    """Channels beside others: given by their layers, copied once and twice, from both memories, of
    other formats; of the frame, of maxima, of an average and a flat map, of a concatenation; an odd
    number of them the last."""
    net = RandomNetwork(23, (6, 4, 2))  # the last position has its maximum, too
    x = net.conv(net.input, 4, (1, 1), k=2)
    a = net.conv(x, 4, (1, 1), out=S8, k=3)
    b = net.conv(x, 3, (3, 3), pads=SAME, out=S8, k=5)
    y = net.concat(a, b, same=(0, 1))
    y = net.concat(net.input, x, y, same=(1,))
    y = net.maxpool(net.conv(y, 4, (3, 3), pads=SAME, k=6), (2, 2), stride=(2, 2))
    z = net.maxpool(net.conv(x, 2, (1, 1), k=3), (2, 2), stride=(2, 2))
    y = net.concat(z, y, out=IntFormat(8, False), same=(0, 1))
    v = net.concat(net.average(y, (3, 2)), z, shape=(18,), same=(1,))
    net.dense(net.concat(net.dense(v, 10), v, same=(0,)), 5)
    return net.network()


NETWORKS = {
    "side_by_side": side_by_side,
    "tabled": tabled,
    "pooled": pooled,
    "maxima": maxima,
    "residual": residual,
    "convolutions": convolutions,
    "depthwise": depthwise,
    "flat": flat,
}
SPRAM = {"code_memory": "spram", "map_memory": "spram"}
RING = {"map_memory": "ring"}
# The last one's V: positions, one below the other, that are computed together.
CASES = [
    ("depthwise", "hx8k", 4, RING, 1),
    ("side_by_side", "icebreaker", 4, SPRAM, 2),
    ("tabled", "icebreaker", 4, SPRAM, 2),
    ("pooled", "icebreaker", 4, SPRAM, 2),
    ("maxima", "icebreaker", 4, SPRAM, 2),
    ("residual", "icebreaker", 4, SPRAM, 4),
    ("convolutions", "hx8k", 2, {}, 1),
    ("convolutions", "ulx3s-25f", 4, {}, 2),
    ("depthwise", "icebreaker", 4, SPRAM, 3),
    ("residual", "icebreaker", 4, SPRAM, 2),
    ("side_by_side", "icebreaker", 4, SPRAM, 3),
    ("pooled", "icebreaker", 4, SPRAM, 3),
    ("maxima", "ulx3s-25f", 4, {}, 4),
    ("tabled", "icebreaker", 4, SPRAM, 4),
    ("flat", "ulx3s-25f", 6, {}, 2),
    ("residual", "ulx3s-25f", 2, {}, 1),
    ("maxima", "hx8k", 4, {}, 1),
    ("side_by_side", "hx8k", 4, {}, 1),
    ("tabled", "ulx3s-25f", 4, {}, 1),
    ("pooled", "ulx3s-25f", 6, {}, 2),
    ("pooled", "icebreaker", 4, SPRAM | {"code_memory": "block"}, 1),
    ("depthwise", "ulx3s-25f", 6, {}, 1),
    ("pooled", "ulx3s-25f", 4, RING, 2),
    ("residual", "icebreaker", 2, RING, 3),
    ("side_by_side", "ulx3s-25f", 4, RING, 2),
    ("maxima", "hx8k", 4, RING, 1),
]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in CASES[7:]]


def planned(name: str, board: str, lanes: int, options: dict) -> tuple[Network, Plan, np.ndarray]:
    network = NETWORKS[name]()
    made = plan(network, board, engine="shared", lanes=[lanes] * 9, **options)
    form = network.input.format
    x = np.random.default_rng(1).integers(form.min, form.max + 1, (2, network.input.size))
    return network, made, x


def traced(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    trace = network.trace(x.reshape(len(x), *network.input.shape))
    return {x.name: np.asarray(trace[x.name]).reshape(len(trace[x.name]), -1)
            for x in network.layers}  # fmt: skip


@pytest.mark.parametrize(("name", "board", "lanes", "options", "side"), [*CASES[:7], *SLOW])
def test_every_layer_s_outputs_and_the_cycles(name, board, lanes, options, side):
    network, made, x = planned(name, board, lanes, options | {"side": side})
    names = [layer.name for layer in network.layers]
    images = emit(network, made).cores
    result = sim.simulate(made.graph, images, x, "amaranth", names=names, settle=False)
    compared = sim.compare(result, traced(network, x))
    assert compared.mismatches == 0, str(compared.first)
    assert (result.interval_cycles, result.latency_cycles) in (
        (None, made.latency_cycles), (made.interval_cycles, made.latency_cycles),
    )  # fmt: skip
    assert made.interval_cycles == made.specs[0].frame_cycles


@pytest.mark.slow
@pytest.mark.parametrize(("name", "board", "lanes", "options", "side"), CASES)
def test_the_exported_verilog_under_stalls_and_resets(name, board, lanes, options, side):
    network, made, x = planned(name, board, lanes, options | {"side": side})
    names = [layer.name for layer in network.layers]
    images = emit(network, made).cores
    steady = sim.simulate(made.graph, images, x, "compiled", names=names)
    assert sim.compare(steady, traced(network, x)).mismatches == 0
    assert steady.interval_cycles == made.interval_cycles
    result = sim.simulate(
        made.graph, images, x, "compiled", names=names, idle="random:0.4", stall="bursts:9",
        seed=5, resets=(30, 31, 140),
    )  # fmt: skip
    assert sim.compare(result, traced(network, x)).mismatches == 0


@pytest.mark.parametrize(("name", "board", "lanes", "options", "side"), CASES)
def test_golden_model_reference_and_files(tmp_path, name, board, lanes, options, side):
    network, made, x = planned(name, board, lanes, options | {"side": side})
    spec = made.shared
    assert isinstance(spec, MapSpec)
    assert spec.side == side
    assert spec.map_memory == options.get("map_memory", "block")
    assert Plan.from_json(made.to_json()) == made
    steps = listing(spec)
    assert sum(step.cycles for step in steps) + spec.n + 1 == made.interval_cycles
    assert all(max(s.words, s.fetched, s.written) < s.cycles for s in steps)
    image = emit(network, made)
    trace, found = traced(network, x), spec.trace(image.cores[0], x)
    for layer in network.layers:
        assert np.array_equal(found[layer.name], trace[layer.name]), layer.name
    image.write(tmp_path)
    made.save(tmp_path / "plan.json")
    findings: list[Finding] = []
    cores = check_plan(tmp_path, network, made, findings)
    check_image(tmp_path, network, made, cores, findings)
    assert findings == []
    cores = load_reference([spec.to_json()], tmp_path / "image")
    outputs = reference_outputs(made.graph.to_json(), cores, x.tolist())
    assert outputs[made.graph.last.name] == trace[network.layers[-1].name].tolist()


def test_parts_of_a_map_that_do_not_make_it_are_refused():
    """A plan's file may say anything of them."""
    _, made, _ = planned("side_by_side", "icebreaker", 4, {"side": 1})
    layers = made.shared.layers
    number = next(k for k, x in enumerate(layers) if x.beside and x.beside.first)
    wrong = (
        {"first": 1}, {"map": -1}, {"map": 99}, {"pixels": 0}, {"words": 3}, {"channels": 6},
        {"after": 99}, {"name": "other"},
    )  # fmt: skip
    for change in wrong:
        part = replace(layers[number], beside=replace(layers[number].beside, **change))
        with pytest.raises(InputError, match=r"Core 'engine': .* must"):
            replace(made.shared, layers=(*layers[:number], part, *layers[number + 1 :]))
    whole = next(x.beside.map for x in layers if x.beside and x.beside.map > 2)
    read = next(k for k, x in enumerate(layers) if whole in x.reads)
    part = next(k for k, x in enumerate(layers) if x.beside and x.beside.map == whole)
    changed = replace(layers[read], reads=(part,))
    with pytest.raises(InputError, match="must"):
        replace(made.shared, layers=(*layers[:read], changed, *layers[read + 1 :]))


def test_what_has_no_place_among_maps_is_refused_by_name():
    def refusal(net: RandomNetwork, **options) -> str:
        with pytest.raises(InputError) as caught:
            plan(net.network(), "icebreaker", engine="shared", **options)
        return str(caught.value)

    net = RandomNetwork(1, (6, 6, 4))
    x = net.conv(net.input, 4, (3, 3), pads=SAME)
    net.dense(net.table(x, tables=4), 3)
    assert "can't be on a shared engine: it has a table for each channel" in refusal(net)
    net = RandomNetwork(1, (6, 6, 4))
    x = net.conv(net.input, 4, (3, 3), pads=SAME)
    net.dense(net.concat(net.conv(x, 3, (1, 1)), net.input), 3)
    assert "it has an odd number of channels before others" in refusal(net)
    net = RandomNetwork(1, (1, 1, 4))
    net.concat(net.dense(net.input, 4), net.dense(net.input, 3))
    assert "can't be on a shared engine: it joins channels at the network's end" in refusal(net)
    net = RandomNetwork(1, (6, 6, 4))
    net.dense(net.slice(net.conv(net.input, 4, (3, 3)), 2, 0, 2), 3)
    assert "can't be on a shared engine: it takes a part of a map" in refusal(net)
    net = RandomNetwork(1, (20,))
    a, b = net.parts((8,), (12,))
    net.dense(net.concat(net.dense(a, 4), net.dense(b, 4)), 3)
    assert "can't be on a shared engine: it is one of several inputs" in refusal(net)
    net = RandomNetwork(1, (6, 6, 4))
    x = net.conv(net.input, 4, (3, 3), pads=SAME)
    net.dense(net.add(x, x, x), 3)
    assert "can't be on a shared engine: it adds more than two maps" in refusal(net)
    net = RandomNetwork(1, (6, 6, 4))
    net.dense(net.conv(net.input, 4, (3, 3)), 3)
    assert "Lanes must be even where layers have windows, not 3" in refusal(net, lanes=[3, 3])
    net = RandomNetwork(1, (6, 6, 4))
    net.conv(net.input, 4, (3, 3))
    assert "layer 'conv0', its last, must have one position" in refusal(net)
