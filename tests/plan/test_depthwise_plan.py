"""Layers that are computed channel by channel: what is planned, said, verified and refused."""

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import RandomNetwork

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.network.network import Network
from pvq_hw.output.verify_content import Finding, check_image, check_plan
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.depthwise import not_depthwise
from pvq_hw.plan.folding import fold, known_layers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan, remake
from pvq_hw.target.boards import get_target

AUTO = {name: {"engine": "auto"} for name in ("conv0", "conv1", "conv2", "fc3")}
SAME = ((1, 1), (1, 1))


def network() -> Network:
    """Points, channel by channel, points, and a dense layer."""
    net = RandomNetwork(1, (6, 5, 8))
    points = net.conv(net.input, 16, (1, 1), k=4)
    channels = net.conv(points, 16, (3, 3), groups=16, k=5, pads=SAME)
    net.dense(net.conv(channels, 4, (1, 1), k=8), 3)
    return net.network()


def test_depthwise_layers_are_planned_channel_by_channel_and_verified(tmp_path):
    net = network()
    # With several results a transfer, lanes are faster.
    planned = plan(net, "ulx3s-25f", each=AUTO, stream_width=1)
    layer = planned.layers[1]
    assert isinstance(layer.spec, DepthwiseSpec)
    assert (layer.cycles, layer.encoding, layer.unrolled) == (16 * 30, "pvq", False)
    assert layer.pulses == np.abs(net.layers[1].y).sum()
    assert "a row of 9 weights a cycle" in layer.reason
    assert "; depthwise: " in layer.reason
    assert "depthwise" in planned.summary()
    assert Plan.from_json(planned.to_json()) == planned
    image = emit(net, planned)
    x = np.random.default_rng(1).integers(0, 256, (3, 6, 5, 8))
    outputs = planned.graph.compute(planned.graph.named(image.cores), x)
    assert np.array_equal(outputs[planned.graph.last.name], net.predict(x).reshape(3, -1))
    assert remake(core_layers(net)[1], layer.spec, "ecp5") == (layer.spec, image.cores[1])
    image.write(tmp_path)
    planned.save(tmp_path / "plan.json")
    findings: list[Finding] = []
    cores = check_plan(tmp_path, net, planned, findings)
    check_image(tmp_path, net, planned, cores, findings)
    assert findings == []
    weights = tmp_path / "image" / "conv1_weights.hex"
    lines = weights.read_text().splitlines()
    row = next(k for k, line in enumerate(lines) if int(line, 16) % 2 == 0)
    lines[row] = format(int(lines[row], 16) ^ 1, f"0{len(lines[row])}x")
    weights.write_text("\n".join(lines) + "\n")
    check_image(tmp_path, net, planned, cores, findings)
    assert any(f"layer 'conv1' row {row})" in str(finding) for finding in findings)


def test_what_is_asked_for_is_what_is_planned():
    net = network()
    for asked, kind in (("depthwise", DepthwiseSpec), ("folded", CoreSpec)):
        planned = plan(net, "ulx3s-25f", each={"conv1": {"engine": asked}})
        assert isinstance(planned.layers[1].spec, kind)
    assert isinstance(plan(net, "ulx3s-25f", lanes=[1] * 4, each=AUTO).layers[1].spec, CoreSpec)
    with pytest.raises(InputError, match=r"'fc3' must be folded.*it is no convolution"):
        plan(net, "ulx3s-25f", each={"fc3": {"engine": "depthwise"}})
    with pytest.raises(InputError, match="A depthwise layer must have no lanes"):
        LayerChoice(engine="depthwise", lanes=4)
    with pytest.raises(InputError, match="name what is depthwise"):
        CompileOptions(engine="depthwise")
    options = CompileOptions(layers={"a": LayerChoice(engine="depthwise")})
    assert options.asked(["a"], "ecp5") == {"a": {"engine": "depthwise"}}


REFUSED = {
    "more than one channel": ({"groups": 2}, {}),
    "dilated": ({"groups": 4}, {"dilation": (2, 2), "pads": ((2, 2), (2, 2))}),
    "padding": ({"groups": 4}, {"pads": ((2, 1), (1, 1))}),
    "smaller than its kernel": ({"groups": 4, "shape": (1, 5, 4)}, {"pads": ((1, 1), (1, 1))}),
    "binary": ({"groups": 4, "form": IntFormat(1, True)}, {}),
    "more than 8 bits": ({"groups": 4, "k": 400_000}, {}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_depthwise_is_folded_and_refused_by_its_reason(reason):
    options, geometry = REFUSED[reason]
    options = {"shape": (6, 5, 4), "form": None, "k": 5} | options
    net = RandomNetwork(2, options["shape"], options["form"])
    net.conv(net.input, 4, (3, 3), groups=options["groups"], k=options["k"], **geometry)
    layers = known_layers(net.network())
    assert reason in not_depthwise(layers[0])
    with pytest.raises(InputError, match=f"'conv0' must be folded, .*{reason}"):
        fold(layers, get_target("ulx3s-25f"), each={"conv0": {"engine": "depthwise"}})


def test_what_is_planned_before_the_codes_are_there_is_near_the_codes():
    known = known_layers(network())
    unknown = [replace(layer, given=None) for layer in known]
    board = get_target("ulx3s-25f")
    before, after = (fold(layers, board, each=AUTO, stream_width=1) for layers in (unknown, known))
    assert before.engine("conv1") == after.engine("conv1") == "depthwise"
    assert "conv1" not in before.banks
    assert abs(before.cost.luts / after.cost.luts - 1) < 0.15
