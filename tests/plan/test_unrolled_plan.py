"""Layers that are unrolled: what is planned, said, verified and refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import MODEL, refused, run
from plan_networks import random_network
from random_graphs import RandomNetwork

import pvq_hw
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.engines import Unrolled
from pvq_hw.engine.unrolled_core import UnrolledSpec, make_unrolled_core
from pvq_hw.errors import InputError
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.geometry import Geometry
from pvq_hw.output.verify import verify_output
from pvq_hw.output.verify_limits import unchecked
from pvq_hw.plan.candidates import Question, engine_choices, engine_offer, synthetic_rows
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.folding import FoldLayer, fold, fold_best, known_layers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan, remake
from pvq_hw.plan.resources import core_resources, top_resources
from pvq_hw.plan.unrolled_reckoning import reckoned_unrolled
from pvq_hw.target.boards import get_target
from sim.board import simulated_port

U8 = IntFormat(8, False)
PADS = ((1, 1), (1, 1))
FIRST = {"fc1": {"engine": "unrolled"}}


def test_a_plan_mixes_engines_and_says_which_layer_is_what(tmp_path):
    network, _ = random_network((40, 12, 5), (20, 8))
    planned = plan(network, "ulx3s-25f", each=FIRST)
    first, second = planned.layers
    assert isinstance(first.spec, UnrolledSpec)
    assert (first.unrolled, second.unrolled) == (True, False)
    assert first.cycles == planned.interval_cycles == 40
    assert (first.code_bits, first.utilization, first.encoding) == (0, None, "pvq")
    assert first.pulses == 12 * 20
    assert f"{first.spec.adders} adders in {first.spec.levels} levels" in first.reason
    assert "new ones need synthesis" in first.reason
    assert "unrolled" in planned.summary()
    planned.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == planned
    said = [part["new_weights"] for part in planned.to_json()["layers"]]
    assert said == ["synthesis", "memory contents"]
    image = emit(network, planned)
    image.write(tmp_path)
    assert image.load(tmp_path, planned) == image
    x = np.random.default_rng(1).integers(0, 256, (6, 40))
    outputs = planned.graph.compute(planned.graph.named(image.cores), x)
    assert np.array_equal(outputs[planned.graph.last.name], network.predict(x))
    made = remake(core_layers(network)[0], first.spec, "ecp5")
    assert made == (first.spec, image.cores[0])


def test_flip_flops_are_counted_too():
    """Many columns wait in many of them, however few the pulses are."""
    network, _ = random_network((4000, 4), (2,))
    text = (
        r"needs about 4\d,\d{3} flip-flops, but ulx3s-25f has 24,288; layer 'fc1' takes about "
        r"4\d,\d{3} of them unrolled: fold it"
    )
    with pytest.raises(InputError, match=text):
        plan(network, "ulx3s-25f", each=FIRST)
    planned = plan(network, "ulx3s-25f", each={"fc1": {"engine": "auto"}})
    assert not planned.layers[0].unrolled


def test_what_is_planned_before_the_codes_are_there_is_near_the_codes():
    network, _ = random_network((40, 24, 5), (20, 12), seed=3)
    known = known_layers(network)
    board = get_target("ulx3s-25f")
    unknown = [replace(layer, given=None) for layer in known]
    before, after = (fold(layers, board, each=FIRST) for layers in (unknown, known))
    assert before.lanes[0] == after.lanes[0] == 40
    assert not before.balanced[0]
    assert "fc1" not in before.banks
    assert abs(before.cost.luts / after.cost.luts - 1) < 0.1


def test_an_unrolled_convolution_is_planned_to_the_cycle_that_estimates_are_near():
    net = RandomNetwork(1, (10, 9, 3))
    conv = net.conv(net.input, 16, (3, 3), k=18, pads=((1, 1), (1, 1)))
    net.dense(net.conv(conv, 16, (3, 3), groups=16, k=4, stride=(2, 2)), 4)
    network = net.network()
    each = {name: {"engine": "unrolled"} for name in ("conv0", "conv1")}
    planned = plan(network, "ulx3s-25f", each=each, stream_width=1)
    first, second, _ = planned.layers
    assert (first.positions, first.cycles) == (90, 90 * 16)
    assert (second.conv_groups, second.unrolled) == (16, True)
    assert 90 * 16 <= planned.interval_cycles <= 90 * 16 * 1.02
    assert Plan.from_json(planned.to_json()) == planned
    unknown = [replace(layer, given=None) for layer in known_layers(network)]
    before = fold(unknown, get_target("ulx3s-25f"), each=each, stream_width=1)
    assert abs(before.interval_cycles / planned.interval_cycles - 1) < 0.02


def test_the_planner_unrolls_what_makes_a_network_faster_and_no_more():
    """A first convolution of few weights sets the pace of whatever lanes follow."""
    half = Geometry((16, 16, 16), (3, 3), (2, 2), PADS)
    layers = [
        FoldLayer("first", 16, 27, 9, U8, U8, geometry=Geometry((16, 16, 3), (3, 3), pads=PADS)),
        FoldLayer("wide", 24, 144, 60, U8, U8, geometry=half),
        FoldLayer("last", 10, 1536, 200, U8, U8),
    ]
    board = get_target("ulx3s-85f")
    auto = {layer.name: {"engine": "auto"} for layer in layers}
    # Windows side by side would be another way to the same pace, wider streams to a shorter one.
    one = {"windows": 1, "stream_width": 1}
    folded, mixed = (fold(layers, board, each=each, **one) for each in (None, auto))
    assert mixed.engine("first") == "unrolled"
    assert mixed.engine("last") == "folded"
    assert mixed.fits
    assert mixed.interval_cycles < 0.9 * folded.interval_cycles
    assert f"would take about {folded.interval_cycles:,} cycles" in mixed.engine_reasons["first"]
    assert mixed.engine_reasons["last"].startswith("folded: ")
    # What is given lanes, a code or a gap is folded, as is all of a network that is fast enough.
    assert fold(layers, board, each=auto, lanes=(9, None, None)).engine("first") == "folded"
    coded = [replace(layer, code="pulse") for layer in layers]
    assert fold(coded, board, each=auto).memories == fold(coded, board).memories
    small = [FoldLayer("a", 8, 40, 10, U8, U8), FoldLayer("b", 4, 8, 4, U8, U8)]
    fast = fold(small, board, each={"a": auto["last"], "b": auto["last"]})
    assert (fast.engine("a"), fast.engine("b")) == ("folded", "folded")
    assert fast.interval_cycles == 40
    assert "it would make the network no faster" in fast.engine_reasons["a"]


def test_wires_reach_a_goal_where_that_is_notably_smaller():
    """Wires that add a few bits a clock, where lanes would wait for one another."""
    g = Geometry((32, 32, 16), (3, 3), pads=PADS)
    layers = [
        FoldLayer("wide", 16, 144, 90, U8, U8, geometry=g),
        FoldLayer("last", 10, 2048, 100, U8, U8),
    ]
    board = get_target("ulx3s-85f")
    auto = {layer.name: {"engine": "auto"} for layer in layers}
    folded, mixed = (
        fold(layers, board, each=each, goal=11_900, input_width=2) for each in (None, auto)
    )
    assert max(folded.interval_cycles, mixed.interval_cycles) <= 11_900
    assert (mixed.engine("wide"), mixed.engine("last")) == ("unrolled", "folded")
    assert mixed.cost.luts < 0.8 * folded.cost.luts
    cores = folded.cost - top_resources(board, 144)
    assert f"the cores would take about {cores.luts:,} LUTs" in mixed.engine_reasons["wide"]
    assert mixed.engine_reasons["last"].endswith("it would make the network no smaller")
    # A goal that few lanes reach is no reason for wires.
    slow = fold(layers, board, each=auto, goal=200_000, input_width=2)
    assert slow.engine("wide") == "folded"


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]
)
def test_a_mixed_network_is_never_slower_than_a_folded_one(seed):
    rng = np.random.default_rng(seed)
    side, channels = int(rng.integers(6, 11)), int(rng.integers(1, 4))
    net = RandomNetwork(seed, (side, side, channels))
    x = net.conv(net.input, int(rng.integers(3, 9)), (3, 3), k=int(rng.integers(4, 12)), pads=PADS)
    x = net.conv(x, int(rng.integers(3, 12)), (2, 2), k=int(rng.integers(6, 30)), stride=(2, 2))
    net.dense(x, int(rng.integers(3, 20)), k=int(rng.integers(10, 60)))
    network = net.network()
    for board in ("ulx3s-25f", "hx8k"):
        auto, folded = (plan(network, board, engine=kind) for kind in ("auto", "folded"))
        assert auto.interval_cycles <= folded.interval_cycles
        for layer in auto.layers:
            kind = layer.spec.kind if layer.spec.kind in ("unrolled", "depthwise") else "folded"
            assert f"; {kind}: " in layer.reason


def test_reckoned_adders_are_near_those_that_are_made():
    for rows, n, k in ((16, 27, 9), (10, 32, 16), (32, 64, 32), (24, 40, 13), (16, 72, 24)):
        made, _ = make_unrolled_core(*synthetic_rows(FoldLayer("a", rows, n, k, U8, U8)))
        near = reckoned_unrolled(rows, n, k, U8, U8, "ecp5")
        luts = [core_resources(spec, "ecp5").luts for spec in (near, made)]
        assert abs(luts[0] / luts[1] - 1) < 0.1


def test_layers_that_cannot_be_unrolled_are_refused_by_name():
    chain, _ = random_network((40, 64, 5), (40, 12))
    with pytest.raises(InputError, match=r"'fc1' takes about [\d,]+ of them unrolled: fold it"):
        plan(chain, "hx8k", each=FIRST)
    layers = [FoldLayer("fc1", 8, 20, 5, U8, U8), FoldLayer("fc2", 4, 8, 5, U8, U8)]
    last = {"fc2": {"engine": "unrolled"}}
    with pytest.raises(InputError, match=r"'fc2' takes one frame .* has weights that are wires"):
        fold(layers, get_target("ulx3s-25f"), frames=2, each=last)
    assert fold_best(layers, get_target("ulx3s-25f"), frames=None, each=last).frames == 1


def test_options_say_what_an_unrolled_layer_has_none_of():
    with pytest.raises(
        InputError, match=r"Engine must be folded, unrolled, .* or auto, not 'wide'"
    ):
        CompileOptions(engine="wide")
    with pytest.raises(InputError, match="An unrolled layer must have no lanes"):
        LayerChoice(engine="unrolled", lanes=4)
    options = CompileOptions(engine="unrolled", layers={"b": LayerChoice(engine="folded")})
    assert options.asked(["a", "b"], "ecp5") == {"a": {"engine": "unrolled"}}
    with pytest.raises(InputError, match="'a' is unrolled and has no lanes"):
        replace(options, lanes=(2, 2)).asked(["a", "b"], "ecp5")
    kept = replace(options, int8=("a",), layers={"a": LayerChoice(engine="unrolled")})
    assert kept.resolved(["a", "b"]).layers["a"] == LayerChoice(encoding="int8", engine="unrolled")


def test_adders_take_as_few_bits_a_cycle_as_keep_the_pace():
    network, _ = random_network((24, 16, 4), (12, 8))
    each = {"engine": "unrolled"}

    def digits(board="ulx3s-25f", **asked):
        planned = plan(network, board, **each, **asked)
        return planned, [layer.spec.digit for layer in planned.layers]

    free, own = digits()
    assert own == [1, 1]
    whole, none = digits(digit=0)
    assert none == [0, 0]
    assert free.interval_cycles == whole.interval_cycles == 24
    assert free.resources.luts < 0.75 * whole.resources.luts
    assert "that add 1 bit of" in free.layers[0].reason
    # Where frames come sooner than sums have bits, digits are wider; else these are what limits.
    fast, wider = digits(widths=(6, 4))
    assert min(wider) > 1 or 0 in wider
    slow, _ = digits(widths=(6, 4), digit=1)
    bits = slow.layers[0].spec.acc_bits
    assert slow.interval_cycles == bits > fast.interval_cycles
    assert slow.limit == f"layer 'fc1' is unrolled: its sums of {bits} bits are added 1 bit a cycle"
    pairs, _ = digits(widths=(2, 4))
    assert pairs.interval_cycles == 12
    assert pairs.limit == "layer 'fc1' takes the 24 activations 2 a cycle"
    one, mixed = digits(each={"fc2": {"engine": "unrolled", "digit": 8}})
    assert mixed == [1, 8]
    assert Plan.from_json(one.to_json()) == one
    with pytest.raises(InputError, match="'fc1' is folded: only unrolled layers add digit by"):
        plan(network, "hx8k", each={"fc1": {"engine": "folded", "digit": 1}})
    with pytest.raises(InputError, match="must be unrolled to have a digit, not depthwise"):
        LayerChoice(engine="depthwise", digit=2)


def test_a_layer_too_large_for_whole_adders_is_unrolled_digit_by_digit():
    """A first layer of many positions sets the pace; its adders fit only bit by bit."""
    layers = [
        FoldLayer("first", 32, 288, 96, U8, U8, geometry=Geometry((24, 24, 32), (3, 3), pads=PADS)),
        FoldLayer("last", 10, 32 * 576, 200, U8, U8),
    ]
    auto = {layer.name: {"engine": "auto"} for layer in layers}
    found = fold(layers, get_target("ulx3s-25f"), each=auto, windows=1, stream_width=1)
    chosen = found.memories[0]
    assert (chosen["engine"], chosen["digit"]) == ("unrolled", 1)
    assert found.fits
    whole = fold(layers, get_target("ulx3s-25f"), each=auto, windows=1, stream_width=1, digit=0)
    assert found.interval_cycles < whole.interval_cycles


def test_multipliers_are_adders_where_blocks_are_too_few_for_a_frame_a_clock():
    """The 25F has 28 multiplier blocks, and 42 rows leave at once."""
    network, _ = random_network((64, 32, 10), (10, 16))
    asked = {"widths": (64, 10), "engine": "unrolled", "digit": 0}
    planned = plan(network, "ulx3s-25f", **asked)
    assert planned.interval_cycles == 1
    assert [layer.spec.multiplier for layer in planned.layers] == ["wires", "mult18"]
    assert planned.resources.dsps == 10
    layer, spec = core_layers(network)[0], planned.layers[0].spec
    assert remake(layer, spec, "ecp5")[0] == spec
    # On a board the link gathers a frame in registers, and gives results of 16 bits in parts.
    tops = []
    for more in (asked, {}):
        whole, bare = (plan(network, "ulx3s-25f", **more, top=top).resources for top in (1, 0))
        tops.append((whole - bare).ffs)
    assert 64 * 8 + 10 * 16 < tops[0] - tops[1] < 64 * 8 + 10 * 16 + 30
    blocks = plan(network, "ulx3s-25f", **asked, multiplier="mult18")
    assert blocks.interval_cycles == 2
    cells = planned.layers[0].resources.luts - blocks.layers[0].resources.luts
    assert cells > 50 * 32


def test_compile_unrolls_a_layer_and_verify_finds_a_changed_weight(tmp_path, digits_data):
    out, (train, _) = tmp_path / "out", digits_data
    args = (MODEL, "-o", out, "--target", "ulx3s-25f", "--ratio", 5, "--quantizer", "plain")
    args += ("--calibrate", train, "--input-scale", 16)
    wide = ("--stream-width", "logits=5", "--input-width", 4, "--output-width", 10)
    wide += ("--digit", "logits=4")
    ran = run("compile", *args, "--engine", "h=folded,logits=unrolled", *wide)
    assert ran.code == 0, ran.err
    assert "cycles for its sums, 5 a transfer" in ran.out
    planned = Plan.load(out / "plan.json")
    assert planned.graph.widths == (4, 10)
    assert planned.layers[1].spec.digit == 4
    assert "that add 4 bits of" in ran.out
    assert "unrolled was asked for" in ran.out
    report = json.loads((out / "report.json").read_text())["compile"]["layers"]
    assert [layer["new_weights"] for layer in report] == ["memory contents", "synthesis"]
    header = (out / "verilog" / "accelerator.v").read_text().partition("\nmodule")[0]
    assert "10 x 32 weights; unrolled, its weights as wires of" in header
    assert "logits_weights.hex" not in header
    checked = run("verify", out)
    assert checked.code == 0
    assert "the weights of 'logits' as wires in the Verilog" in checked.out
    accelerator = pvq_hw.load(out)  # the board's link has one activation a transfer
    with (
        simulated_port(accelerator) as port,
        pvq_hw.Board(port, accelerator, timeout=60) as board,
    ):
        x = np.load(train)["x"][:3]
        assert np.array_equal(board.predict(x), accelerator.predict(x))
    weights = out / "image" / "logits_weights.hex"
    lines = weights.read_text().splitlines()
    lines[33] = format(int(lines[33], 16) ^ 1, f"0{len(lines[33])}x")
    weights.write_text("\n".join(lines) + "\n")
    found = [str(finding) for finding in verify_output(out)]
    assert any("logits_weights.hex (layer 'logits' row 1): decodes to" in line for line in found)
    refused(tmp_path, "Engine must be", "compile", *args, "--engine", "wide")
    text = "Stream width must be numbers like 4 or conv1=4, not 'logits=x'"
    refused(tmp_path, text, "compile", *args, "--stream-width", "logits=x")
    text = "Unrolled layer: digit must be 1, 2, 4, 8 bits a cycle, or 0 for all, not 3"
    refused(tmp_path, text, "compile", *args, "--digit", "logits=3")


def test_verify_says_that_a_bitstreams_wires_are_not_compared(tmp_path):
    network, _ = random_network((40, 12, 5), (20, 8))
    planned = plan(network, "ulx3s-25f", each=FIRST)
    said = [unchecked(tmp_path, network, {}, False, None, b, plan=planned) for b in (True, False)]
    wires = [[line for line in lines if "as wires in the bitstream" in line] for lines in said]
    assert [len(lines) for lines in wires] == [1, 0]
    assert "the weights of 'fc1' as wires" in wires[0][0]


def test_layers_of_very_many_digits_are_in_wires_only_where_they_are_asked_for():
    """To share their sub-sums would take longer than all else that the planner does."""
    asked = Question(get_target("ulx3s-85f"), reckoned=True)
    heavy = FoldLayer("heavy", 40, 96, 960, U8, U8, encoding="int8")
    light = replace(heavy, name="light", n=24)
    known = replace(heavy, given=synthetic_rows(heavy))
    assert engine_offer(Unrolled(), light, asked, 10**6)
    assert not engine_offer(Unrolled(), heavy, asked, 10**6)
    assert not engine_offer(Unrolled(), known, asked, 10**6)
    assert engine_choices(Unrolled(), heavy, (), asked)
