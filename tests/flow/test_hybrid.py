"""Networks in which layers of pulses and layers of 8-bit weights stand side by side."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, ROOT, refused, run
from graph_cases import STALLS, check
from plan_networks import random_network
from random_graphs import RandomNetwork, build
from some_boards import SOME_BOARDS

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreBase
from pvq_hw.engine.int8_core import Int8Spec, make_int8_core
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.model.load import load_model
from pvq_hw.network.network import Network
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.folding import FoldLayer, fold
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan, remake
from pvq_hw.plan.resources import core_resources
from pvq_hw.quantizer.quantize import LayerOptions, quantize
from pvq_hw.target.boards import TARGETS
from sim.reference import load_reference, reference_outputs

PLAIN = ("fc1", "fc3")


def plain(source: RandomNetwork, *numbers: int) -> RandomNetwork:
    """The network with 8-bit weights in some of its layers."""
    for number in numbers:
        layer = source.layers[number]
        y = source.rng.integers(-128, 128, layer.y.shape)
        mult = np.maximum(layer.mult // 16, 1)
        source.layers[number] = replace(layer, y=y, mult=mult, encoding="int8")
    return source


def hybrid(seed=0) -> Network:
    """A chain of three layers, the first and the last one plain."""
    network, _ = random_network((30, 14, 9, 5), (9, 6, 5), seed=seed)
    rng = np.random.default_rng(seed)
    layers = [
        replace(x, y=rng.integers(-127, 128, x.y.shape), mult=x.mult // 40 + 1, encoding="int8")
        if x.name in PLAIN
        else x
        for x in network.layers
    ]
    return replace(network, layers=tuple(layers))


@pytest.mark.parametrize("pattern", ["none", "stalls"])
@pytest.mark.parametrize("family", ["ecp5", "hx8k"])
def test_convolutions_of_both_kinds(family, pattern):
    source = RandomNetwork(3, (6, 5, 2))
    x = source.conv(source.input, 4, (3, 3), pads=((1, 1), (1, 1)))
    y = source.conv(x, 6, (3, 2), out=IntFormat(8, True))
    source.dense(source.maxpool(y, (2, 2), stride=(2, 2)), 3)
    # Windows of 18 columns over 4 lanes end with a short word.
    built = build(plain(source, 0, 3), family=family, lanes={"conv0": 4, "fc3": 5}, frames=1)
    check(built, built.graph, *([STALLS] if pattern == "stalls" else []))


def test_grouped_and_strided_convolutions_with_plain_weights():
    source = RandomNetwork(5, (7, 6, 4), IntFormat(8, True))
    x = source.conv(source.input, 4, (3, 3), groups=4, stride=(2, 1), pads=((0, 1), (1, 0)))
    source.conv(x, 3, (1, 1))
    built = build(plain(source, 0, 1), lanes={"conv0": 6, "conv1": 2}, frames=2)
    check(built, built.graph)


@pytest.mark.parametrize("target", ["icebreaker", "hx8k", "ulx3s-25f"])
def test_plan_image_and_reference_of_a_hybrid_chain(tmp_path, target):
    network = hybrid()
    planned = plan(network, target, top=False)
    assert [layer.encoding for layer in planned.layers] == ["int8", "pvq", "int8"]
    planned.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == planned
    image = emit(network, planned)
    image.write(tmp_path)
    assert image.load(tmp_path, planned) == image
    x = np.random.default_rng(1).integers(0, 256, (5, 30))
    expected = network.predict(x)
    outputs = planned.graph.compute(planned.graph.named(image.cores), x)
    assert np.array_equal(outputs[planned.graph.last.name], expected)
    specs = json.loads(json.dumps([spec.to_json() for spec in planned.specs]))
    graph = json.loads(json.dumps(planned.graph.to_json()))
    found = reference_outputs(graph, load_reference(specs, tmp_path / "image"), x.tolist())
    assert found[planned.specs[-1].name] == expected.tolist()


def test_figures_count_pulses_of_pulses_and_eight_bits_of_the_rest():
    network = hybrid()
    assert network.int8_layers == list(PLAIN)
    weights, pulses = 9 * 14, int(np.abs(network.layers[1].y).sum())
    assert network.n_over_k == weights / pulses
    planned = plan(network, "ulx3s-25f", lanes=(5, 2, 3), top=False)
    first, middle, last = planned.layers
    assert (first.n_over_k, last.n_over_k) == (None, None)
    assert middle.n_over_k == weights / pulses
    assert first.code_bits == 8 * 14 * 30  # 30 columns are six whole words of five
    assert last.code_bits == 8 * 5 * 9
    assert (first.cycles, last.spec.words) == (14 * 6, 5 * 3)
    assert first.utilization == 1.0
    # A multiplier a lane, and those of the requantizer.
    assert first.resources.dsps == 5 + first.spec.multiplier_parts


def test_lanes_of_plain_weights_are_bounded_by_the_multiplier_blocks():
    network = hybrid()
    for name, most in (("icebreaker", 8), ("ulx3s-25f", 28)):
        planned = plan(network, name)
        assert planned.resources.dsps <= most
    wide = plan(network, "icebreaker", lanes=(16, 1, 1), top=False, check=False)
    products = wide.layers[0].spec.products
    assert core_resources(wide.layers[0].spec, "up5k").dsps == (8 if products == "mac16" else 0)


def test_plain_layers_get_the_lanes_that_keep_pace():
    u8, s16 = IntFormat(8, False), IntFormat(16, True)
    layers = [
        FoldLayer("a", 64, 784, 157, u8, u8),
        FoldLayer("b", 32, 64, 1, u8, u8, "int8"),  # K says nothing
        FoldLayer("c", 10, 32, 1, u8, s16, "int8"),
    ]
    folding = fold(layers, TARGETS["ulx3s-25f"])
    # The activations come one a cycle: less than 784 cycles cannot be.
    assert folding.interval_cycles == 784
    assert folding.lanes[1:] == (4, 1)  # 4: one block RAM of 512 words; 3 would be two
    assert set(folding.banks) == {"a"}


def test_remade_cores_are_the_plan_s():
    network = hybrid()
    planned = plan(network, "hx8k", lanes=(4, 2, 3))
    for layer, part in zip(core_layers(network), planned.layers, strict=True):
        spec, _ = remake(layer, part.spec, part.engine)
        assert spec == part.spec == CoreBase.from_json(part.spec.to_json())


def test_what_a_core_cannot_do_is_refused():
    network = hybrid()
    (first, x), (middle, inner), _ = ((core.dense, core.x) for core in core_layers(network))
    with pytest.raises(InputError, match="must be encoded as pvq, not int8"):
        make_core(first, x, 2)
    with pytest.raises(InputError, match="must be encoded as int8, not pvq"):
        make_int8_core(middle, inner, 2)
    with pytest.raises(InputError, match="must be encoded as pvq to take several frames"):
        make_layer_core(first, x, 2, frames=2)
    with pytest.raises(InputError, match=r"kind must be .* or unrolled, not 'x'"):
        CoreBase.from_json({"kind": "x"})
    spec, _ = make_layer_core(first, x, 2)
    with pytest.raises(InputError, match="must have a multiplier unless its rows give signs"):
        replace(spec, multiplier="none", mult_bits=1)


@pytest.mark.parametrize("target", SOME_BOARDS)
def test_quantized_hybrids_stay_near_the_float_model(target):
    model = load_model(MODEL)
    data = np.load(BUNDLED / "digits.npz")
    layers = {"h": LayerOptions(encoding="int8")}
    network = quantize(model, calibration=data["x_train"][:200], ratio=2, layers=layers)
    assert [layer.encoding for layer in network.layers] == ["int8", "pvq"]
    x = data["x_test"]
    exact = model.predict(x).argmax(axis=1)
    got = network.predict(network.quantize_input(x)).argmax(axis=1)
    assert (exact == got).mean() > 0.98
    planned = plan(network, target)
    assert isinstance(planned.specs[0], Int8Spec)


def test_graphs_keep_plain_layers():
    source = RandomNetwork(3, (6, 5, 2))
    source.dense(source.conv(source.input, 4, (3, 3)), 3)
    network = plain(source, 0).network()
    assert [x.dense.encoding for x in core_layers(network)] == ["int8", "pvq"]
    planned = plan(network, "ulx3s-25f")
    assert [x.encoding for x in planned.layers] == ["int8", "pvq"]
    assert Plan.from_json(json.loads(json.dumps(planned.to_json()))) == planned


def test_a_convolutional_network_with_a_plain_first_layer():
    model = load_model(ROOT / "examples" / "japanese_vowels_cnn.onnx")
    train = np.load(ROOT / "examples" / "japanese_vowels_train.npz")["x"]
    test = np.load(ROOT / "examples" / "japanese_vowels_test.npz")
    layers = {"conv1": LayerOptions(encoding="int8")}
    network = quantize(model, calibration=train, ratio=3, layers=layers)
    assert network.int8_layers == ["conv1"]
    assert 3 <= network.n_over_k < 3.3  # of the other layers
    x = network.quantize_input(test["x"])
    right = (network.predict(x).reshape(len(x), -1).argmax(axis=1) == test["y"]).mean()
    assert right > 0.94  # float: 0.973
    planned = plan(network, "ulx3s-25f")
    image = emit(network, planned)
    images = {spec.name: core for spec, core in zip(image.specs, image.cores, strict=True)}
    found = planned.graph.compute(images, x[:3])
    for name, value in network.trace(x[:3]).items():
        assert np.array_equal(found[name].reshape(3, -1), value.reshape(3, -1)), name


NAMES = ("a", "b", "c")


def test_options_name_plain_layers():
    only = CompileOptions(only=("b",), layers={"a": LayerChoice(ratio=3, lanes=2)})
    found = only.resolved(NAMES).layers
    assert found == {
        "a": LayerChoice(encoding="int8", lanes=2),
        "c": LayerChoice(encoding="int8"),
    }
    found = CompileOptions(int8=("c",), layers={"b": LayerChoice(k=3)}).resolved(NAMES).layers
    assert found == {"b": LayerChoice(k=3), "c": LayerChoice(encoding="int8")}
    assert not CompileOptions().resolved(NAMES).layers
    for options in (CompileOptions(only=("d",)), CompileOptions(int8=("d",))):
        with pytest.raises(InputError, match="Layer 'd' must be one of a, b, c"):
            options.resolved(NAMES)
    with pytest.raises(InputError, match="Layer 'a' must be in int8 or in only, not in both"):
        CompileOptions(int8=("a",), only=("a",))
    with pytest.raises(InputError, match="must have no ratio, k or unit"):
        LayerChoice(encoding="int8", ratio=2)


def test_options_come_from_a_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('target = "hx8k"\nint8 = ["a"]\n[layers.b]\nencoding = "int8"\n')
    options = load_options(path, {"only": None})
    assert options.int8 == ("a",)
    assert options.layers == {"b": LayerChoice(encoding="int8")}
    path.write_text('target = "hx8k"\nonly = [3]\n')
    with pytest.raises(InputError, match=r"only\[0\] must be text, not 3"):
        load_options(path, {})


def test_one_layer_is_rolled_out_from_the_command_line(tmp_path):
    data = np.load(BUNDLED / "digits.npz")
    np.savez(tmp_path / "train.npz", x=data["x_train"])
    np.savez(tmp_path / "test.npz", x=data["x_test"][:3], y=data["y_test"][:3])
    common = (MODEL, "--target", "hx8k", "--calibrate", tmp_path / "train.npz")
    out = tmp_path / "out"
    ran = run("compile", *common, "--only", "h", "--ratio", "4", "-o", out, "--json")
    assert ran.code == 0, ran.err
    document = ran.json
    assert document["int8_layers"] == ["logits"]
    assert [x["encoding"] for x in document["layers"]] == ["pvq", "int8"]
    assert 4 <= document["n_over_k"] < 4.05
    assert run("verify", out, "--model", MODEL).code == 0
    ran = run("simulate", out, "--data", tmp_path / "test.npz", "--simulator", "amaranth", "--json")
    assert ran.json["mismatches"] == 0
    assert "int8" in (out / "report.html").read_text()
    words = out / "image" / "logits_weights.hex"
    text = words.read_text()
    words.write_text(text.replace(text[:2], "01" if text[:2] != "01" else "02", 1))
    ran = run("verify", out)
    assert ran.code == 1
    assert "layer 'logits' row 0" in ran.out
    refused(tmp_path, "Layer 'z' must be one of", "compile", *common, "--only", "z", "-o", out)
