"""What the planner chooses by itself or is told: code, frames, memory and multiplier of layers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, refused, run
from onnx import helper
from onnx_graphs import graph_model, save
from plan_networks import S16, U8, random_network
from quantizer_graphs_cases import branched

from pvq_hw.bundled import DIGITS_DATA
from pvq_hw.data.dataset import Data
from pvq_hw.engine.kinds import make_layer_core
from pvq_hw.errors import InputError
from pvq_hw.flow.compile import plan_for
from pvq_hw.flow.options import CompileOptions, LayerChoice, load_options
from pvq_hw.flow.quantize import quantize_for
from pvq_hw.geometry import Geometry
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Conv
from pvq_hw.network.layer import Dense
from pvq_hw.plan.candidates import can_balance
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.folding import FoldLayer, fold, fold_best
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.target.boards import get_target

NAMES = ("a", "b", "c")


def mlp(sizes, pulses):
    """Layers before quantization, of so many pulses a row."""
    last = len(pulses) - 1
    return [
        FoldLayer(name, m, n, k, U8, S16 if i == last else U8)
        for i, (name, n, m, k) in enumerate(zip(NAMES, sizes[:-1], sizes[1:], pulses, strict=False))
    ]


# -- code -----------------------------------------------------------------------------------------


def test_layers_are_free_unless_something_is_asked_of_their_pulses():
    asked = {
        "ratio": LayerChoice(ratio=2),
        "k": LayerChoice(k=4),
        "zeros": LayerChoice(keep_zeros=True),
        "int8": LayerChoice(encoding="int8"),
        "pvq": LayerChoice(encoding="pvq"),
        "pulse": LayerChoice(code="pulse"),
        "lanes": LayerChoice(lanes=3, multiplier="logic"),
    }
    names = [*asked, "other"]
    assert CompileOptions().free(names) == set()  # who asks for pulses gets pulses
    assert CompileOptions(code="auto", layers=asked).free(names) == {"lanes", "other"}
    assert CompileOptions(layers=asked).free(names) == set()
    assert CompileOptions(code="auto", quantizer="given").free(names) == set()
    one = CompileOptions(layers={"b": LayerChoice(code="auto")})
    assert one.free(NAMES) == {"b"}
    assert one.codes(NAMES) == {}


def test_a_dense_layer_of_more_pulses_than_weights_gets_8_bit_weights():
    board = get_target("ulx3s-25f")
    layers = mlp((16, 24, 4), (64, 8))
    free = {"a", "b"}
    kept = fold_best(layers, board)
    assert kept.reasons == {}
    found = fold_best(layers, board, free=free)
    assert list(found.reasons) == ["a"]
    assert "rows of 16 weights were to have 64 pulses" in found.reasons["a"]
    assert found.interval_cycles <= kept.interval_cycles
    assert fold_best(layers, board, free={"b"}).reasons == {}
    # Few pulses: never, though 8-bit weights may be no slower where the input binds.
    assert fold_best(mlp((16, 24, 4), (8, 8)), board, free=free).reasons == {}


def test_compile_makes_such_a_layer_dense_and_says_why(tmp_path):
    data = np.load(BUNDLED / "digits.npz")
    np.savez(tmp_path / "train.npz", x=data["x_train"][:300])
    common = (MODEL, "--target", "ulx3s-85f", "--calibrate", tmp_path / "train.npz")
    common += ("--ratio", "0.3", "--quantizer", "plain", "--engine", "folded")
    out = tmp_path / "out"
    ran = run("compile", *common, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["int8_layers"] == []
    assert all("8-bit weights" in layer["reason"] for layer in ran.json["layers"])
    ran = run("compile", *common, "-o", out, "--code", "auto")
    assert ran.code == 0, ran.err
    plans = json.loads((out / "plan.json").read_text())["layers"]
    dense = [layer for layer in plans if layer["encoding"] == "int8"]
    assert dense
    for layer in dense:
        assert "8-bit weights: rows of" in layer["reason"]
        assert layer["reason"] in ran.out
        assert layer["reason"] in (out / "report.html").read_text()
    assert run("verify", out, "--json").json["findings"] == []


def test_reasons_compare_the_codes():
    network, _ = random_network((40, 12, 5), (60, 12))
    planned = plan(network, "ulx3s-85f", lanes=(4, 1), codes={"fc1": "shifted", "fc2": "pulse"})
    first, second = (layer.reason for layer in planned.layers)
    assert first.startswith(f"powers of two: {planned.layers[0].spec.words:,} slots; pulses of 1 ")
    assert second.startswith(f"pulses of 1: {planned.layers[1].spec.words:,} slots")
    assert "8-bit weights 120 with as many lanes" in first  # 12 rows of 40 / 4
    pulses = plan(network, "ulx3s-85f", lanes=(4, 1), codes={"fc1": "pulse", "fc2": "pulse"})
    assert f"pulses of 1 would take {pulses.layers[0].spec.words:,}," in first
    value = planned.to_json()
    assert Plan.from_json(json.loads(json.dumps(value))) == planned
    for bad in ("two\nlines", "x" * 301):
        value["layers"][0]["reason"] = bad
        with pytest.raises(InputError, match="reason must be a line"):
            Plan.from_json(value)


# -- frames ---------------------------------------------------------------------------------------


def test_frames_are_those_of_most_inferences_a_second():
    board = get_target("ulx3s-25f")
    layers = mlp((64, 200, 10), (32, 40))
    best = fold_best(layers, board, frames=None)
    assert best.frames > 1
    rates = {}
    for v in (1, 2, 3, 4, 6, 8, 12, 16):
        found = fold(layers, board, frames=v)
        rates[v] = v / found.interval_cycles if found.fits else 0
    assert rates[best.frames] >= max(rates.values()) / 1.03**2
    # One activation a clock at the ends: where that binds, more frames bring nothing.
    assert fold_best(mlp((784, 16, 10), (78, 4)), board, frames=None).frames == 1
    plain = [FoldLayer("a", 200, 64, 32, U8, S16, "int8")]
    assert fold_best(plain, board, frames=None).frames == 1


def test_compile_takes_the_frames_that_were_chosen(tmp_path):
    data = np.load(BUNDLED / "digits.npz")
    np.savez(tmp_path / "train.npz", x=data["x_train"][:300])
    common = (MODEL, "--target", "icebreaker", "--calibrate", tmp_path / "train.npz")
    common += ("--ratio", "2", "--quantizer", "plain", "--frames", "auto", "-o", tmp_path / "out")
    ran = run("compile", *common, "--json")
    assert ran.code == 0, ran.err
    loaded = Plan.load(tmp_path / "out" / "plan.json")
    assert ran.json["frames_side_by_side"] == loaded.frames
    for text in ("0", "17", "many"):
        refused(tmp_path, "Frames side by side must be 1 to 16 or auto", "compile", *common[:-4],
                "--frames", text, "-o", tmp_path / "no")  # fmt: skip


# -- memory and multiplier ------------------------------------------------------------------------


def test_single_layers_are_given_their_memory_and_multiplier(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('multiplier = "dsp"\n[layers.a]\ncode_memory = "spram"\nmultiplier = "logic"')
    options = load_options(config, {})
    assert options.asked(NAMES, "up5k") == {
        "a": {"code_memory": "spram", "multiplier": "serial"},
        "b": {"multiplier": "mac16", "engine": "auto"},
        "c": {"multiplier": "mac16", "engine": "auto"},
    }
    assert CompileOptions(code_memory="auto", engine="folded").asked(NAMES, "up5k") == {}
    with pytest.raises(InputError, match="there are no DSP blocks to multiply with"):
        options.asked(NAMES, "hx8k")
    config.write_text('int8 = ["a"]\n[layers.a]\ncode_memory = "spram"\n')
    with pytest.raises(InputError, match="Layer 'a': 8-bit weights are in block RAM, not in SPRAM"):
        load_options(config, {}).resolved(NAMES).asked(NAMES, "up5k")
    for wrong in ('code_memory = "disk"', '[layers.a]\nmultiplier = "abacus"'):
        config.write_text(wrong)
        text = r"must be (block, spram, flash|dsp, logic) or auto, not"
        with pytest.raises(InputError, match=text):
            load_options(config, {})


def test_plans_keep_to_what_is_asked_of_single_layers():
    network, _ = random_network((40, 30, 5), (12, 12))
    board = get_target("icebreaker")
    layers = {"fc1": LayerChoice(code_memory="spram"), "fc2": LayerChoice(multiplier="logic")}
    options = CompileOptions(layers=layers)
    each = options.asked(["fc1", "fc2"], board.engine)
    folded = fold_best(mlp((40, 30, 5), (12, 12)), board)
    planned = plan_for(network, board, options, folded)
    first, second = planned.specs
    assert (first.code_memory, second.code_memory) == ("spram", "block")
    assert (first.multiplier, second.multiplier) == ("mac16", "serial")
    assert plan(network, board, each=each).specs[0].code_memory == "spram"
    free = plan(network, board)
    assert [spec.code_memory for spec in free.specs] == ["block", "block"]
    assert [spec.multiplier for spec in free.specs] == ["mac16", "mac16"]


def test_lanes_may_be_given_for_some_layers_alone():
    network, _ = random_network((40, 30, 5), (12, 12))
    board = get_target("icebreaker")
    options = CompileOptions(layers={"fc1": LayerChoice(lanes=3)})
    folded = fold_best(mlp((40, 30, 5), (12, 12)), board, lanes=(3, None))
    assert folded.lanes[0] == 3
    assert plan(network, board, lanes=(None, 2)).lanes[1] == 2
    # Codes too large for the lanes they were made for: those that were asked for stay.
    huge = replace(folded, names=("fc1", "fc2"), lanes=(40, 30))
    with pytest.raises(InputError, match="The network needs"):
        plan_for(network, board, CompileOptions(lanes=(40, 30)), huge)
    assert plan_for(network, board, options, huge).lanes[0] == 3


def test_8_bit_weights_multiply_in_luts_where_that_is_asked():
    network, _ = random_network((40, 30, 5), (12, 12))
    core = core_layers(network)[0]
    layer, x = core.dense, core.x
    y = np.clip(layer.y * 9, -127, 127)
    dense = Dense(**(vars(layer) | {"y": y, "encoding": "int8"}))
    plain, _ = make_layer_core(dense, x, 2, family="up5k")
    asked, _ = make_layer_core(dense, x, 2, family="up5k", multiplier="serial")
    assert (plain.products, asked.products) == ("mac16", "logic")


def test_the_command_line_takes_layers_and_kinds(tmp_path):
    data = np.load(BUNDLED / "digits.npz")
    np.savez(tmp_path / "train.npz", x=data["x_train"][:300])
    out = tmp_path / "out"
    common = (MODEL, "--target", "icebreaker", "--calibrate", tmp_path / "train.npz")
    common += ("--ratio", "4", "--quantizer", "plain")
    kinds = ("--code-memory", "h=spram", "--multiplier", "dsp,logits=logic")
    ran = run("compile", *common, *kinds, "-o", out)
    assert ran.code == 0, ran.err
    first, second = Plan.load(out / "plan.json").specs
    assert (first.code_memory, second.code_memory) == ("spram", "block")
    assert (first.multiplier, second.multiplier) == ("mac16", "serial")
    refused(tmp_path, "Layer 'z' must be one of", "compile", *common, "--multiplier", "z=dsp",
            "-o", tmp_path / "no")  # fmt: skip
    refused(tmp_path, "Multiplier must be dsp, logic or auto, not 'x'", "compile", *common,
            "--multiplier", "x", "-o", tmp_path / "no")  # fmt: skip


# -- windows side by side ---------------------------------------------------------------------


def convolutions(folder):
    """A file of two convolutions and a dense layer, and inputs."""
    rng, relu = np.random.default_rng(2), helper.make_node
    nodes = [
        helper.make_node("Conv", ["x", "A"], ["a"]), relu("Relu", ["a"], ["ra"]),
        helper.make_node("Conv", ["ra", "B"], ["b"]), relu("Relu", ["b"], ["rb"]),
        helper.make_node("Flatten", ["rb"], ["c"]), helper.make_node("Gemm", ["c", "V"], ["out"]),
    ]  # fmt: skip
    shapes = {"A": (3, 1, 2, 2), "B": (2, 3, 1, 2), "V": (32, 4)}
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    np.savez(folder / "d.npz", x=rng.random((40, 1, 5, 6)))
    return save(folder, graph_model(nodes, weights, ("N", 1, 5, 6))), folder / "d.npz"


def test_compile_with_windows_from_the_command_line(tmp_path):
    model, data = convolutions(tmp_path)
    out = tmp_path / "out"
    args = ("compile", model, "--target", "ulx3s-25f", "--calibrate", data, "-o", out)
    args += ("--quantizer", "plain", "--ratio", 2)
    made = run(*args, "--windows", "a=3,b=2", "--json")
    assert made.code == 0, made.err
    assert [layer["windows"] for layer in made.json["layers"]] == [3, 2, 1]
    assert run("verify", out, "--model", model).code == 0
    done = run("simulate", out, "--data", data, "--count", 5, "--json")
    assert (done.code, done.json["mismatches"]) == (0, 0)
    assert done.json["interval_cycles"] == made.json["interval_cycles"]
    for text, line in (
        ("two", "Windows must be numbers like 4 or conv1=4, not 'two'"),
        ("0", "Windows side by side must be 1 to 16, not 0"),
        ("a=6", "Layer 'a': windows side by side must be 1 to 5, not 6"),
        ("out=2", "Layer 'out' must take one window at a time, not 2: it is dense"),
        ("d=2", "Layer 'd' must be one of a, b, out"),
    ):
        refused(out, line, *args, "--windows", text)
    line = "Layer 'a' must take one window at a time, not 2: it has 8-bit weights"
    refused(out, line, *args, "--windows", "a=2", "--int8", "a")


def test_plain_codes_are_balanced_only_where_banks_have_columns_to_choose_from():
    # Pulses of 64 columns in 14 banks cost the digits 22 points at N/K = 2.
    model, digits = load_model(MODEL), np.load(DIGITS_DATA)
    train, test, y = (digits[name] for name in ("x_train", "x_test", "y_test"))
    for name, ratio in (("hx8k", 2.0), ("hx8k", 1.0), ("ulx3s-25f", 2.0)):
        options = CompileOptions(ratio=ratio, quantizer="plain", target=name)
        network, folding = quantize_for(model, get_target(name), options, Data(train))
        right = network.predict(network.quantize_input(test)).argmax(1) == y
        assert right.mean() > 0.88, (name, ratio)
        assert all(
            n >= 12 * folding.banks.get(layer, 1) for layer, n in (("h", 64), ("logits", 32))
        )
    # Wide rows keep their balance, and so do codes that data refines.
    wide = FoldLayer("a", 64, 784, 392, U8, S16, bank_columns=12)
    assert fold_best([wide], get_target("icebreaker")).banks
    assert can_balance(replace(wide, n=64), 5)
    assert not can_balance(replace(wide, n=64), 6)
    assert can_balance(replace(wide, n=64, bank_columns=4), 16)


def test_windows_of_few_pulses_are_balanced_where_that_is_asked_for():
    model, board = branched(), get_target("ulx3s-25f")
    x = np.random.default_rng(1).normal(size=(16, *model.input_shape)).astype(np.float32)
    names = [node.name for node in model.nodes if isinstance(node, Conv)]
    options = CompileOptions(ratio=3, quantizer="plain", lanes=(2,) * 5, engine="folded")
    _, folding = quantize_for(model, board, options, Data(x))
    assert not folding.banks.keys() & set(names)
    _, folding = quantize_for(model, board, replace(options, window_pulses=1), Data(x))
    assert folding.banks.keys() & set(names)
    with pytest.raises(InputError, match="Window pulses must be 1 to 1,024, not 0"):
        CompileOptions(window_pulses=0)


def test_windows_of_many_pulses_are_balanced_over_banks_of_many_columns_alone():
    """A 1 x 1 convolution of 64 channels, 8 pulses a lane and more: at N/K 0.44 even banks of four
    columns are three times as far from the weights as unbalanced ones."""
    geometry = Geometry((5, 5, 64), (1, 1))
    window = FoldLayer("a", 64, 64, 36, U8, S16, geometry=geometry)
    for k, lanes in ((21, 2), (36, 4), (64, 5), (145, 1), (256, 1)):
        layer = replace(window, k=k)
        assert can_balance(layer, lanes)
        assert not can_balance(layer, lanes + 1)
    assert can_balance(replace(window, k=36, window_pulses=1), 16)
