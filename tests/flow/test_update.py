"""Other weights for an accelerator that is there: the same circuit, other contents."""

import hashlib
import json
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
from board_port import ResponderPort
from cli_tools import refused, run
from onnx import helper
from onnx_graphs import graph_model

import pvq_hw
from gateware.board import patch_bitstream
from gateware.board.boards import make_platform
from gateware.board.flow import board_top
from pvq_hw.cli import main
from pvq_hw.errors import CheckError, InputError, ToolError
from pvq_hw.flow import quantize as placed_quantize
from pvq_hw.flow.board import describe_output
from pvq_hw.flow.live import layout_of, load_weights, words_of
from pvq_hw.host import link
from pvq_hw.host.board_model import Responder
from pvq_hw.host.live_memory import LiveMemory
from pvq_hw.model.objects import model_file
from pvq_hw.progress import Steps
from pvq_hw.tools import find as tools

OPTIONS = {"target": "icebreaker", "ratio": 2, "updatable": True, "sweeps": 0}


def network(seed, activation="sigmoid", sizes=(12, 9, 7, 5), scale=1.0):
    """Layers of random weights: the second of three ends in a table."""
    rng = np.random.default_rng(seed)
    names = ["relu", activation] + [None] * (len(sizes) - 3)
    return [
        (scale * rng.laplace(size=(m, n)), rng.normal(size=m), name)
        for n, m, name in zip(sizes, sizes[1:], names, strict=False)
    ]


def inputs(seed=0, n=12):
    return np.random.default_rng(seed).uniform(0, 1, (200, n))


def compiled(out, **options):
    return pvq_hw.compile(network(1), out, calibrate=inputs(), **(OPTIONS | options))


def design(accelerator):
    """Contents of block RAMs and hash of the rest of a board's design."""
    plan = make_platform(accelerator.plan.target).prepare(board_top(accelerator), "top")
    return patch_bitstream._read(plan.files["top.il"])


def tree(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("update") / "out"
    compiled(folder, int8=("fc2",), baud=2_000_000, live=True)
    return folder


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "out")


def test_new_weights_go_into_the_same_circuit(copy):
    """Pulses, 8-bit weights, a table, and what the board says of itself: all in block RAM."""
    before = pvq_hw.load(copy)
    old, held = design(before)
    assert {layer.encoding for layer in before.plan.layers} == {"pvq", "int8"}
    after = pvq_hw.update(copy, network(2, scale=1.7), calibrate=inputs(5))
    assert after.plan.specs == before.plan.specs
    assert after.manifest["model"] != before.manifest["model"]
    new, same = design(after)
    assert same == held
    changed = {name for name in old if old[name] != new[name]}
    for part in ("codes", "weights", "mult", "bias", "table", "description"):
        assert any(f"_{part}_" in name or f".{part}_" in name for name in changed), part
    assert not after.verify()
    found = after.simulate(inputs(9)[:1], simulator="amaranth")
    assert (found["mismatches"], found["outputs_compared"]) == (0, 9 + 7 + 7 + 5)


class Line(ResponderPort):
    """A port to the golden model of a board that takes other weights while it runs."""

    def __init__(self, accelerator, *others):
        found = {describe_output(a).identity: a for a in (accelerator, *others)}
        memory = LiveMemory(layout_of(accelerator), words_of(accelerator), accelerator.plan.live)

        def predict(frame):
            return found[memory.description.identity].network.predict(frame[None]).reshape(-1)

        super().__init__(Responder(describe_output(accelerator), predict, memory))


def test_new_weights_go_into_a_board_that_runs(copy, out, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    before, after = pvq_hw.load(out), pvq_hw.update(other, network(3), calibrate=inputs(5))
    assert before.plan.live == after.plan.live == 1  # a table takes 2 of 30 block RAMs
    line = Line(before, after)
    monkeypatch.setattr(link, "open_port", lambda port, baud: line)
    ran = run("load", out, "--port", "p", "--weights", other, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["identity"] == describe_output(after).identity.hex()
    assert ran.json["bytes"] == layout_of(before).size
    ran = run("load", out, "--port", "p")
    assert "no frames were taken meanwhile" in ran.out + ran.err
    with pvq_hw.Board(line, before) as board:
        x = inputs(7)[:4]
        assert np.array_equal(board.predict(x), before.predict(x))
        assert board.load(other)["identity"] == describe_output(after).identity.hex()
        assert np.array_equal(board.predict(x), after.predict(x))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two banks: an accelerator, and the same circuit with other weights."""
    folder = tmp_path_factory.mktemp("pair")
    before = compiled(folder / "out", target="ulx3s-25f", live=True)
    shutil.copytree(folder / "out", folder / "new")
    return before, pvq_hw.update(folder / "new", network(3), calibrate=inputs(5))


def test_a_reset_brings_the_bitstreams_weights_where_they_are_kept(pair):
    """Which network a reset brings is told, since the second load goes over the bitstream's."""
    before, after = pair
    assert before.plan.live == 2
    built, other = (describe_output(a).identity.hex() for a in pair)
    with pvq_hw.Board(Line(before, after), before) as board:
        memory = board.link.port.board.codes

        def loaded(weights, **options):
            done = board.load(weights, **options)
            assert memory.description.identity.hex() == done["identity"]
            first = [
                word
                for (n, _), word in memory._banks[0].items()
                if n == len(memory._live.blocks) - 1
            ]
            reset = memory._live.said([first])[18:26].hex()
            assert reset == done["after_reset"]
            return done["identity"], done["after_reset"], done["bytes"] > 0

        assert loaded(after, keep=True) == (other, built, True)
        assert loaded(after, keep=True) == (other, built, True)
        assert loaded(before, keep=True) == (built, built, False)  # nothing is sent
        assert loaded(after) == (other, built, True)
        assert loaded(after) == (other, other, True)
        with pytest.raises(InputError, match="can't be kept, since others were loaded over them"):
            board.load(before, keep=True)
        assert board.link.describe().identity.hex() == other
        assert loaded(before) == (built, other, True)


def test_weights_go_as_one_file(pair, out, tmp_path, monkeypatch):
    before, after = pair
    file = tmp_path / "new.live"
    ran = run("load", after.out, "--pack", file)
    assert ran.code == 0, ran.err
    line = Line(before, after)
    monkeypatch.setattr(link, "open_port", lambda port, baud: line)
    ran = run("load", before.out, "--port", "p", "--weights", file, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["identity"] == describe_output(after).identity.hex()
    integers = np.random.default_rng(0).integers(0, 256, (4, 12))
    with pvq_hw.Board(line, after) as board:
        board._placed = before
        assert board.load(file)["bytes"] == layout_of(before).size
        assert np.array_equal(board.predict_integers(integers), after.network.predict(integers))
        with pytest.raises(InputError, match="Real values need the accelerator"):
            board.predict(integers)
    data = file.read_bytes()
    bad = tmp_path / "bad.live"
    kept = (
        (data[:-1], "must be whole, but its checksum is wrong"),
        (data + b"!", "must be whole, but its checksum is wrong"),
        (data[:37] + zlib.compress(bytes(1 << 22)), "must be whole, but its checksum is wrong"),
        (data[:5] + bytes(32) + data[37:], "must have the circuit of"),
        (b"PVQ\x01" + data[4:], "must be a file that pvq-hw load --pack wrote"),
        (b"", "must be a file that pvq-hw load --pack wrote"),
    )
    for spoiled, text in kept:
        bad.write_bytes(spoiled)
        refused(tmp_path, text, "load", before.out, "--port", "p", "--weights", bad)
    for args, text in (
        (("--weights", tmp_path / "none"), "none cannot be read: No such file"),
        (("--pack", tmp_path), "must be a file in a folder that exists"),
        ((), "A board must be given by --port, or a file by --pack"),
    ):
        refused(tmp_path, text, "load", before.out, *args)
    line = Line(pvq_hw.load(out))
    refused(
        tmp_path, "can't be kept: this board has a single bank",
        "load", out, "--port", "p", "--keep",
    )  # fmt: skip


def test_weights_of_another_circuit_are_refused_before_anything_is_sent(out, copy, monkeypatch):
    accelerator, other = pvq_hw.load(out), pvq_hw.load(copy)
    board = link.Link(Line(accelerator))
    object.__setattr__(other, "plan", replace(other.plan, baud=1_000_000))
    with pytest.raises(InputError, match=r"must have the circuit of .*: make it by pvq-hw update"):
        load_weights(accelerator, board, other)
    object.__setattr__(other, "plan", replace(other.plan, live=0))
    with pytest.raises(InputError, match=r"must have been compiled with --live to take other"):
        load_weights(other, board)
    assert board.statistics.sent == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda: network(2, sizes=(12, 9, 7, 6)), r"Layer 'fc\d' must have 5 x 7 weights as in"),
        (lambda: network(2)[:2], "The model must have the layers fc1, fc2, fc3 as"),
        (lambda: network(2, activation="relu"), "must"),
    ],
)
def test_other_shapes_are_refused_and_the_folder_stays(copy, change, text):
    before = tree(copy)
    with pytest.raises(InputError, match=text):
        pvq_hw.update(copy, change(), calibrate=inputs())
    assert tree(copy) == before


def test_inputs_of_another_sign_are_refused(copy):
    with pytest.raises(InputError, match="The input must have 8 unsigned bits and the shape"):
        pvq_hw.update(copy, network(2), calibrate=inputs() - 0.5)


def test_what_is_not_accurate_enough_is_refused_and_the_folder_stays(copy):
    before = tree(copy)
    labels = pvq_hw.Data(inputs(3), np.arange(200) % 5)
    with pytest.raises(CheckError, match="Accuracy must be at least 99"):
        pvq_hw.update(copy, network(2), calibrate=inputs(), evaluate=labels, min_accuracy=99)
    assert tree(copy) == before


def test_codes_that_come_out_too_long_get_fewer_pulses(tmp_path, monkeypatch):
    """Powers of two share slots: how many there are depends on the weights. The next update has
    the pulses again that one gave up."""
    out, tight = tmp_path / "out", tmp_path / "tight"
    plan = compiled(out, ratio=0.5, code="shifted", spare=0, lanes=(4, 3, 2)).plan
    first = {part.layer: part.pulses for part in plan.layers}
    shutil.copytree(out, tight)
    said = []

    class Told(Steps):
        def note(self, line):
            said.append(line)

    heavy = [(np.sign(w) * np.abs(w) ** 0.1, b, a) for w, b, a in network(2)]
    after = pvq_hw.update(out, heavy, calibrate=inputs(), steps=Told())
    assert any(line.endswith("to fit") for line in said)
    assert after.plan.specs == plan.specs
    assert sum(part.pulses for part in after.plan.layers) < sum(first.values())
    assert after.manifest["extra"]["compiled_pulses"] == first
    again = pvq_hw.update(out, network(1), calibrate=inputs())
    assert {part.layer: part.pulses for part in again.plan.layers} == first
    monkeypatch.setattr(placed_quantize, "_PLACED_ROUNDS", 1)
    with pytest.raises(InputError, match=r"Layer 'fc\d' needs \d+ words of weights, but the"):
        pvq_hw.update(tight, heavy, calibrate=inputs())


def test_only_updatable_accelerators_take_other_weights(digits):
    with pytest.raises(InputError, match="must have been compiled with --updatable"):
        pvq_hw.update(digits.out, network(2), calibrate=inputs())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"updatable": False, "spare": 5}, "Spare room must come with updatable weights"),
        ({"spare": 401}, "Spare room must be 0 to 400 percent, not 401"),
        ({"code_memory": "spram"}, "Updatable weights must be in block RAM, not in SPRAM"),
        ({"engine": "unrolled"}, "Layers must be folded to be updatable, not unrolled"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path, options, text):
    with pytest.raises(InputError, match=text):
        compiled(tmp_path / "out", **options)


def branches(seed):
    """Convolutions with a sum of branches, a mean and a bound between them."""
    rng = np.random.default_rng(seed)
    constants = {f"w{i}": rng.laplace(size=(4, c, 3, 3)) for i, c in enumerate((2, 4))}
    constants |= {f"b{i}": rng.normal(size=4) for i in range(2)}
    constants |= {"w2": rng.laplace(size=(3, 16)), "six": np.array(2.0), "zero": np.array(0.0)}
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], **same),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w1", "b1"], ["c"], **same),
        helper.make_node("Add", ["c", "r"], ["s"]),
        helper.make_node("Clip", ["s", "zero", "six"], ["k"]),
        helper.make_node("AveragePool", ["k"], ["m"], **pool),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["out"], transB=1),
    ]
    return graph_model(nodes, constants, ("n", 2, 4, 4))


@pytest.mark.slow
def test_sums_and_means_keep_the_scales_around_them(tmp_path):
    """Their multipliers are constants in logic."""
    x = np.random.default_rng(0).uniform(0, 1, (40, 2, 4, 4))
    options = OPTIONS | {"target": "ulx3s-25f", "lanes": (2, 2, 2)}
    before = pvq_hw.compile(branches(1), tmp_path / "out", calibrate=x, **options)
    held, scale = design(before)[1], before.network.layers[1].output.scale
    after = pvq_hw.update(tmp_path / "out", branches(2), calibrate=2 * x)
    assert design(after)[1] == held
    assert after.network.layers[1].output.scale == scale
    assert not after.verify()


def test_the_verb_says_what_it_did(copy, tmp_path, capsys):
    model, data = tmp_path / "new.onnx", tmp_path / "train.npz"
    with model_file(network(3)) as path:
        model.write_bytes(path.read_bytes())
    np.savez(data, x=inputs())
    verb = ["update", str(copy), "--model", str(model), "--json", "--quiet"]
    assert main([*verb, "--calibrate", str(data)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bitstream"] is None
    assert document["out"] == str(copy)
    assert [layer["name"] for layer in document["layers"]] == ["fc1", "fc2", "fc3"]
    assert main(verb) == 2
    assert "must have calibration data" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("target", ["icebreaker", "ulx3s-25f"])
def test_an_updated_bitstream_is_that_of_a_full_build(tmp_path, target):
    """Byte for byte, and every memory in it is as the files say."""
    if not tools.have_tool("yosys"):
        pytest.skip("needs the tools")
    out = tmp_path / "out"
    # Few lanes: a full iCE40 finds no place for its cells.
    compiled(out, target=target, int8=("fc2",), lanes=(2, 1, 1), clock_mhz=20).build(seeds=(1,))
    old = (out / "build").glob("top.bi*")
    (name,) = [path.name for path in old]
    earlier = (out / "build" / name).read_bytes()
    after = pvq_hw.update(out, network(2), calibrate=inputs(5))
    renewed = (out / "build" / name).read_bytes()
    assert renewed != earlier
    assert not after.verify(bitstream=True)
    report = json.loads((out / "report.json").read_text())
    assert report["build"]["interval_cycles"] == after.plan.interval_cycles
    after.build(seeds=(1,))
    assert (out / "build" / name).read_bytes() == renewed


def test_an_interrupted_update_leaves_the_folder(copy, monkeypatch):
    before = tree(copy)

    def stop(*args):
        raise ToolError("stopped")

    monkeypatch.setattr("pvq_hw.flow.update.quantize_placed", stop)
    with pytest.raises(ToolError, match="stopped"):
        pvq_hw.update(copy, network(2), calibrate=inputs())
    assert tree(copy) == before


def test_the_line_is_as_fast_as_asked_for(out, tmp_path):
    assert pvq_hw.load(out).plan.baud == 2_000_000
    with pytest.raises(InputError, match="Baud must be at most 9,000,000 at a clock of 36 MHz"):
        compiled(tmp_path / "out", baud=12_000_000)
    with pytest.raises(InputError, match="Baud must be 1 to 100,000,000, not 0"):
        compiled(tmp_path / "out", baud=0)
