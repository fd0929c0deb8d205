"""The steps between a model and its files: lanes, evaluation, and what a wheel carries."""

import gc
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, ROOT
from onnx import helper
from onnx_graphs import graph_model, save

import pvq_hw
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.accuracy import scale_warning
from pvq_hw.evaluate.metrics import answers, wilson
from pvq_hw.flow.compile import check_accuracy, evaluate_network, quantize_for
from pvq_hw.flow.options import CompileOptions, LayerChoice
from pvq_hw.target.boards import get_target


@pytest.fixture(scope="module")
def model():
    return pvq_hw.load_model(MODEL)


@pytest.fixture(scope="module")
def data(digits):
    return pvq_hw.load_data(digits.train), pvq_hw.load_data(digits.test)


@pytest.mark.parametrize("lanes", [(1, 1), (4, 2), (8, 8)])
def test_pulses_are_balanced_over_the_lanes(model, data, lanes):
    """Every bank (column mod P) of a row has K/P pulses, so no lane waits for another."""
    options = CompileOptions(target="hx8k", ratio=2, lanes=lanes)
    network, folding = quantize_for(model, get_target("hx8k"), options, data[0])
    assert list(folding.lanes) == list(lanes)
    for layer, p in zip(network.layers, lanes, strict=True):
        counts = np.array([np.abs(layer.y[:, bank::p]).sum(axis=1) for bank in range(p)])
        assert (counts == counts[0]).all()


def test_pulses_of_a_configuration_stay_as_they_are(model, data):
    """K that the lanes don't divide, and gains shared by rows, are the user's choice."""
    layers = {"h": LayerChoice(k=21), "logits": LayerChoice(unit="layer")}
    options = CompileOptions(target="hx8k", ratio=2, lanes=(4, 2), layers=layers)
    network, _ = quantize_for(model, get_target("hx8k"), options, data[0])
    assert network.layers[0].k.tolist() == [21] * 32
    assert len(np.unique(network.layers[1].gain)) == 1


def test_evaluation_counts_and_compares(model, digits, data):
    network = pvq_hw.load(digits.out).network
    judged, y = evaluate_network(model, network, data[1]), data[1].y
    a = model.predict(data[1].x).argmax(axis=1)
    b = network.predict(network.quantize_input(data[1].x, 1.0)).argmax(axis=1)
    assert np.array_equal(judged.float_answers, a)
    assert np.array_equal(judged.pvq_answers, b)
    assert judged.disagreements.tolist() == np.flatnonzero(a != b).tolist()
    assert judged.to_json() == {
        "metric": "accuracy",
        "why": "labels are class numbers",
        "reference": "float",
        "float": pytest.approx(100 * (a == data[1].y).mean()),
        "pvq": pytest.approx(100 * (b == data[1].y).mean()),
        "frames": 500,
        "disagreements": int((a != b).sum()),
        "only_float": int(((a == y) & (b != y)).sum()),
        "only_pvq": int(((a != y) & (b == y)).sum()),
        "float_interval": [pytest.approx(v, rel=1e-3) for v in wilson(int((a == y).sum()), 500)],
        "pvq_interval": [pytest.approx(v, rel=1e-3) for v in wilson(int((b == y).sum()), 500)],
        "confusion": {
            name: [[int(((y == k) & (given == n)).sum()) for n in range(10)] for k in range(10)]
            for name, given in (("float", a), ("pvq", b))
        },
    }
    check_accuracy(judged, judged.pvq)  # just reached
    check_accuracy(judged, None)
    with pytest.raises(CheckError, match=r"Accuracy must be at least 99\.9 %, not 9\d\.\d\d % "):
        check_accuracy(judged, 99.9)


def test_evaluation_of_a_regression(model, digits, data):
    network = pvq_hw.load(digits.out).network
    exact = model.predict(data[1].x[:50])
    judged = evaluate_network(model, network, pvq_hw.Data(data[1].x[:50], exact))
    assert (judged.metric, judged.exact) == ("rmse", 0.0)
    assert 0 < judged.pvq < np.abs(exact).max()
    assert judged.to_json()["disagreements"] is None  # values have no answers
    assert judged.to_json()["only_float"] is judged.to_json()["pvq_interval"] is None
    with pytest.raises(InputError, match="--min-accuracy must come with class numbers"):
        check_accuracy(judged, 50)


@pytest.mark.slow
def test_a_wheel_carries_all_it_needs(tmp_path):
    """Templates, bundled data and the files that are no Python."""
    source = tmp_path / "source"  # setuptools writes beside what it builds
    source.mkdir()
    for name in ("pvq_hw", "gateware", "sim"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--quiet", "-w", tmp_path],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("pvq_hw-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        for name in (MODEL.name, "digits.npz"):
            assert archive.read(f"pvq_hw/bundled/{name}") == (BUNDLED / name).read_bytes()
    for package in ("pvq_hw", "gateware", "sim"):
        for path in (ROOT / package).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and "__pycache__" not in name:
                assert name in held
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in held)


@pytest.mark.parametrize(
    ("x", "y", "minimum", "text"),
    [
        ((9, 63), np.zeros(9, int), None, r"Evaluation data: Data must have the shape .*, not"),
        ((9, 64), np.full(9, 10), None, "Evaluation data: Labels must be 0 to 9"),
        ((9, 64), np.zeros((9, 3)), None, "Evaluation data: Targets must have 10 values per frame"),
        ((9, 64), np.zeros((9, 10)), 50.0, "--min-accuracy must come with class numbers"),
    ],
)
def test_data_is_checked_before_the_first_long_step(tmp_path, monkeypatch, x, y, minimum, text):
    monkeypatch.setattr(pvq_hw.flow.reach, "quantize_for", lambda *a, **k: pytest.fail("too late"))
    options = CompileOptions(target="icebreaker", min_accuracy=minimum)
    test = pvq_hw.Data(np.zeros(x), y)
    with pytest.raises(InputError, match=text):
        pvq_hw.flow.compile.compile_model(MODEL, tmp_path / "out", options, evaluation=test)


@pytest.mark.parametrize("part", ["Calibration", "Evaluation"])
def test_data_of_another_scale_than_the_one_asked_for_is_refused(tmp_path, part):
    rng = np.random.default_rng(0)
    data = pvq_hw.Data(rng.integers(0, 17, (40, 64)), rng.integers(0, 10, 40))
    options = CompileOptions(target="icebreaker", input_scale=16)
    given = {part.lower(): data}
    with pytest.raises(InputError, match=f"{part} data must be divided by the input scale 16 that"):
        pvq_hw.flow.compile.compile_model(MODEL, tmp_path / "out", options, **given)


def test_garbage_is_looked_for_seldom_while_a_model_is_compiled(tmp_path, monkeypatch):
    before, seen = gc.get_threshold(), []

    def quantized(*args, **options):
        seen.append(gc.get_threshold())
        raise InputError("no network")

    monkeypatch.setattr(pvq_hw.flow.reach, "quantize_for", quantized)
    with pytest.raises(InputError, match="no network"):
        pvq_hw.flow.compile.compile_model(
            MODEL, tmp_path / "out", CompileOptions(target="icebreaker")
        )
    assert seen[0] > (50_000, 0, 0)
    assert gc.get_threshold() == before


def test_calibration_shape_is_checked_before_the_first_long_step(tmp_path, monkeypatch):
    monkeypatch.setattr(pvq_hw.flow.reach, "quantize_for", lambda *a, **k: pytest.fail("too late"))
    with pytest.raises(InputError, match="Calibration data: Data must have the shape"):
        pvq_hw.flow.compile.compile_model(
            MODEL, tmp_path / "out", CompileOptions(target="icebreaker"),
            calibration=pvq_hw.Data(np.zeros((9, 63))),
        )  # fmt: skip


def test_integers_that_were_to_be_divided_are_told_of(model, data):
    first, *rest = model.nodes  # biases that matter where inputs are 0 to 1
    bias = np.random.default_rng(1).normal(size=len(first.bias)) * 9
    trained = replace(model, nodes=(replace(first, weight=first.weight * 16, bias=bias), *rest))
    x = (data[1].x.astype(int) * 255 // 16).astype(np.uint8)
    bytes_ = pvq_hw.Data(x, answers(trained.predict(x, 255.0)))
    warning = scale_warning(trained, bytes_)
    assert warning is not None
    assert warning.endswith("divided by 255, 100.0 %: give --input-scale 255")
    assert scale_warning(trained, pvq_hw.Data(bytes_.x, bytes_.y, 255.0)) is None
    assert scale_warning(trained, pvq_hw.Data(x, answers(trained.predict(x)))) is None
    assert scale_warning(model, data[1]) is None
    # Without labels the outputs' size tells.
    told = scale_warning(model, pvq_hw.Data(x))
    assert told is not None
    assert told.endswith("divided by 255, 3.94: if it was trained so, give --input-scale 255")
    on_bytes = replace(model, nodes=(replace(model.nodes[0], weight=first.weight / 255), *rest))
    assert scale_warning(on_bytes, pvq_hw.Data(x)) is None
    assert scale_warning(model, pvq_hw.Data(x / 255.0)) is None


@pytest.mark.parametrize(
    ("shapes", "board", "need"),
    [
        ([(3000, 16), (10, 3000)], "icebreaker", r"about \d+ block RAMs"),
        ([(16, 16)] * 60, "hx8k", r"about \d+ block RAMs"),
        ([(4, 65536)], "ulx3s-25f", r"about \d+ block RAMs"),
    ],
)
def test_what_fits_with_no_codes_is_refused_before_any_are_looked_for(
    tmp_path, monkeypatch, shapes, board, need
):
    rng = np.random.default_rng(0)
    weights = {f"{i}.weight": rng.normal(size=shape) for i, shape in enumerate(shapes)}
    np.savez(tmp_path / "m.npz", **weights)
    network = pvq_hw.load_model(tmp_path / "m.npz")
    calibration = pvq_hw.Data(rng.normal(size=(16, shapes[0][1])))
    monkeypatch.setattr("pvq_hw.flow.quantize.row_budget", lambda *a, **k: pytest.fail("too late"))
    text = (
        rf"needs {need} at a pulse a row already, but {board} has \d+; its weights take \d+, most"
    )
    options = CompileOptions(target=board, engine="folded")
    with pytest.raises(InputError, match=text):
        quantize_for(network, get_target(board), options, calibration)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"frames": 16}, "at a pulse a row already with 16 frames side by side, but hx8k has 32; "
         "use fewer frames side by side"),
        ({"frames": 2, "ratio": 0.02}, "with as many pulses as were asked for with 2 frames side "
         r"by side, but hx8k has 32; use fewer pulses \(a higher --ratio\), fewer frames"),
        ({"ratio": 0.01, "code_memory": "block"},
         "with as many pulses as were asked for, but hx8k has 32; use fewer pul"),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_refused_early_where_it_is_far_too_much(
    model, data, monkeypatch, options, text
):
    monkeypatch.setattr("pvq_hw.flow.quantize.row_budget", lambda *a, **k: pytest.fail("too late"))
    options = CompileOptions(target="hx8k", code="pulse", **options)
    with pytest.raises(InputError, match=f"^The network needs about .* block RAMs {text}"):
        quantize_for(model, get_target("hx8k"), options, data[0])


def test_what_more_pulses_make_smaller_is_not_refused_for_fewer(tmp_path, monkeypatch):
    """A serial multiplier takes more cells where a row has one pulse and little time: cores of the
    pulses that were asked for fit."""
    shapes = [(16, 32), (16, 16), (16, 16), (10, 16)]
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "m.npz", **{f"{i}.weight": rng.normal(size=s) for i, s in enumerate(shapes)}
    )
    network = pvq_hw.load_model(tmp_path / "m.npz")
    calibration = pvq_hw.Data(rng.normal(size=(16, 32)))
    monkeypatch.setattr("pvq_hw.flow.quantize.row_budget", lambda *a, **k: pytest.fail("goes on"))
    options = CompileOptions(target="hx8k", ratio=2, engine="folded")
    with pytest.raises(pytest.fail.Exception, match="goes on"):
        quantize_for(network, get_target("hx8k"), options, calibration)


N = helper.make_node
POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
ENDS = [
    N("MaxPool", ["last"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
    N("Flatten", ["small"], ["f"]),
    N("Gemm", ["f", "w2"], ["out"]),
]  # fmt: skip
MAPS = {
    # Line buffers of poolings, which have no weights.
    "poolings": (
        24,
        [N("MaxPool", [a], [b], name=b, **POOL) for a, b in pairwise([*"abcde", "last"])],
        r"maps take \d+, most layer '(b|c|d|e|last)' \(\d+\): use smaller maps or fewer channels",
    ),
    # One branch of a sum waits for most of a map of the other.
    "branches": (
        16,
        [N("Conv", ["a", "deep"], ["e"], name="far", pads=[12] * 4, dilations=[12, 12]),
         N("Add", ["a", "e"], ["last"], name="sum")],
        r"maps take \d+, most layer '(sum|far)' \(\d+\): use smaller maps or fewer channels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MAPS)
def test_maps_that_do_not_fit_are_refused_before_any_codes_are_looked_for(
    tmp_path, monkeypatch, kind
):
    channels, nodes, text = MAPS[kind]
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.normal(size=(channels, 1, 1, 1)), "w2": rng.normal(size=(49 * channels, 2)),
        "deep": rng.normal(size=(channels, channels, 3, 3)),
    }  # fmt: skip
    nodes = [N("Conv", ["x", "w1"], ["a"], name="first"), *nodes, *ENDS]
    model = graph_model(nodes, constants, ("N", 1, 28, 28))
    network = pvq_hw.load_model(save(tmp_path, model))
    calibration = pvq_hw.Data(rng.normal(size=(16, 1, 28, 28)))
    monkeypatch.setattr("pvq_hw.flow.quantize.row_budget", lambda *a, **k: pytest.fail("too late"))
    # With a core a layer: they may share an engine, with maps in SPRAM.
    board, options = get_target("icebreaker"), CompileOptions(target="icebreaker", engine="folded")
    with pytest.raises(InputError, match=text) as raised:
        quantize_for(network, board, options, calibration)
    assert "block RAMs at a pulse a row already, but icebreaker has 30" in str(raised.value)
