"""`check`: every operation at once, and estimates that are near the plan."""

import subprocess
import sys

import numpy as np
import pytest
from cli_tools import MODEL, ROOT, run
from onnx import helper
from onnx_graphs import graph_model, save

import pvq_hw
from pvq_hw.arith.formats import IntFormat
from pvq_hw.errors import InputError
from pvq_hw.flow import check as flow
from pvq_hw.flow.check import RATIOS, Estimate, estimate
from pvq_hw.flow.options import CompileOptions
from pvq_hw.flow.quantize import estimate as planner_estimate
from pvq_hw.geometry import Geometry
from pvq_hw.model.load import load_model
from pvq_hw.plan import sharing
from pvq_hw.plan.folding import FoldLayer, fold
from pvq_hw.plan.resources import Resources
from pvq_hw.target.boards import TARGETS, get_target

N = helper.make_node
U8, S16 = IntFormat(8, False), IntFormat(16, True)


def test_a_model_that_will_compile():
    ran = run("check", MODEL, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert (found["ok"], found["taken"], found["parameters"], found["macs"]) == (
        True, True, 2410, 2368,
    )  # fmt: skip
    assert [(op["kind"], op["macs"]) for op in found["operations"]] == [
        ("Gemm", 2048), ("Relu", 0), ("Gemm", 320),
    ]  # fmt: skip
    asked = {(e["target"], e["ratio"]) for e in found["estimates"]}
    assert asked == {(board, ratio) for board in TARGETS for ratio in (1, 2, 5, 10)}
    assert all(e["fits"] and e["inferences_per_second"] > 1e5 for e in found["estimates"])
    one = pvq_hw.check(MODEL, "ecpix5-45f").to_json()
    of_it = [e for e in found["estimates"] if e["target"] == "ecpix5-45f"]
    assert one == found | {"estimates": of_it}


def test_it_imports_nothing_that_it_does_not_need():
    heavy = ("amaranth", "jinja2", "gateware", "sim", "numba", "torch", "onnxruntime")
    heavy += ("onnx.reference",)
    script = (
        "import sys\n"
        "from pvq_hw.cli import main\n"
        f"assert main(['check', {str(MODEL)!r}, '--json']) == 0\n"
        f"print('HEAVY', [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stderr.splitlines()[-1] == "HEAVY []"


def test_a_model_that_is_refused_says_all_and_what_helps(tmp_path):
    nodes = [
        N("LayerNormalization", ["x", "s"], ["n"], name="norm<b>"),
        N("Sin", ["n"], ["y"], name="sine"),
        N("NonZero", ["y"], ["z"], name="gone"),
        N("Gemm", ["z", "g"], ["m"], name="after", transA=1),
        N("Sin", ["m"], ["out"], name="late"),
    ]
    path = save(tmp_path, graph_model(nodes, {"s": np.ones(4), "g": np.ones((2, 3))}, ("N", 4)))
    ran = run("check", path)
    assert (ran.code, ran.err) == (1, "")
    lines = ran.out.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [
        ["no", "LayerNormalization"], ["no", "Sin"], ["no", "NonZero"], ["?", "Gemm"],
        ["no", "Sin"],
    ]  # fmt: skip
    assert "replace by BatchNormalization, which folds into the weights, and train on" in lines[0]
    assert "4 things stop it" in lines[5]
    found = pvq_hw.check(path, "hx8k")
    assert (found.ok, found.estimates) == (False, ())
    assert "norm&lt;b&gt;" in found._repr_html_()
    assert "<b>" not in found._repr_html_()
    assert repr(found) == found.summary()


def test_what_is_no_model_or_board_is_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    assert "must be an ONNX or npz file" in run("check", tmp_path / "m.onnx").complaint
    assert run("check", tmp_path / "none.onnx").code == 2
    ran = run("check", MODEL, "--target", "abacus")
    assert (ran.code, ran.out) == (2, "")
    with pytest.raises(InputError, match="abacus"):
        pvq_hw.check(MODEL, "abacus")


def test_an_npz_file_is_checked_too(tmp_path):
    np.savez(tmp_path / "m.npz", **{"0.weight": np.ones((3, 20)), "1.weight": np.ones((2, 3))})
    found = pvq_hw.check(tmp_path / "m.npz", "hx8k", ratios=(1, 30))
    assert [op.kind for op in found.examination.operations] == ["Dense", "Relu", "Dense"]
    one, other = found.estimates
    assert one.fits
    assert not other.fits
    assert "a pulse" in other.reason
    assert found.ok


def test_a_model_too_large_for_the_board_does_not_compile(tmp_path):
    np.savez(tmp_path / "m.npz", **{"0.weight": np.ones((6000, 1000))})
    found = pvq_hw.check(tmp_path / "m.npz", "icebreaker", ratios=(5,))
    assert found.examination.ok
    assert not found.ok
    assert "SPRAMs of 4" in found.estimates[0].reason
    ran = run("check", tmp_path / "m.npz", "--target", "icebreaker")
    assert ran.code == 1
    assert "It does not fit icebreaker" in ran.out


CASES = [
    ([FoldLayer("a", 32, 64, 24, U8, U8), FoldLayer("b", 10, 32, 16, U8, S16)], True),
    (
        [
            FoldLayer("c", 8, 9, 6, U8, U8, geometry=Geometry((16, 16, 1), (3, 3))),
            FoldLayer("d", 16, 72, 15, U8, U8, geometry=Geometry((14, 14, 8), (3, 3))),
        ],
        False,
    ),
]


@pytest.mark.parametrize(("case", "target"), [(0, "icebreaker"), (1, "ulx3s-25f")])
def test_reckoning_is_near_the_search_over_real_codes(case, target):
    layers, chain = CASES[case]
    board = get_target(target)
    exact = fold(layers, board, held=chain)
    found = fold(layers, board, held=chain, reckoned=True)
    assert found.fits == exact.fits
    assert found.interval_cycles == pytest.approx(exact.interval_cycles, rel=0.25)


@pytest.mark.parametrize("lanes", [(1, 1), (4, 2), (8, 5)])
def test_reckoned_slots_are_near_those_of_codes(lanes):
    """With lanes given, so that no other choice makes up for a wrong one."""
    layers, _ = CASES[0]
    board = get_target("hx8k")
    exact = fold(layers, board, lanes=lanes).slots
    assert fold(layers, board, lanes=lanes, reckoned=True).slots == pytest.approx(exact, rel=0.25)


def test_lines_come_as_they_are_ready(monkeypatch):
    asked = []

    def counted(model, target, ratio, options):
        asked.append((target.name, ratio))
        return Estimate(target.name, ratio, True, "", 100, 1.0)

    monkeypatch.setattr(flow, "estimate", counted)
    found = pvq_hw.check(MODEL)
    lines = found.estimate_lines()
    assert not asked
    board, first = next(lines), next(lines)
    assert (board.split(", ")[0].strip(), first.split()[:2]) == (asked[0][0], ["N/K", "1"])
    assert len(asked) == 1
    rest = list(lines)
    count = len(asked)
    assert {(e.target, e.ratio) for e in found.estimates} == {
        (board, ratio) for board in TARGETS for ratio in RATIOS
    }
    assert len(rest) + 2 == count + count // len(RATIOS)  # a line for boards that are alike
    assert len(asked) == count  # estimates aren't made twice


@pytest.mark.parametrize("layers", [4, 18])
def test_what_cannot_fit_in_lanes_is_not_searched(monkeypatch, layers):
    """And comes out as it would with the search."""
    board = get_target("icebreaker")
    own = [FoldLayer(f"l{i}", 32, 32, 16, U8, U8) for i in range(layers)]
    lanes = []

    def best(*args, **asked):
        lanes.append(asked.get("lanes"))
        return fold(*args, **asked)

    def found():
        lanes.clear()
        reserve = Resources(luts=500)
        return sharing.fold_network(
            own, board, may_share=True, best=best, reserve=reserve, reckoned=True
        )

    quick = found()
    assert lanes == [[1] * layers] + [None] * (layers == 4)
    assert bool(quick.engines) == (layers == 18)
    monkeypatch.setattr(sharing, "_crowded", lambda *args: False)
    assert found() == quick
    assert lanes == [None]


def test_a_pooling_does_not_hold_an_estimate_back(tmp_path):
    """It takes as many activations a transfer as the convolution before it gives."""
    rng = np.random.default_rng(0)
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), N("Relu", ["c"], ["r"]),
        N("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]), N("Flatten", ["m"], ["f"]),
        N("Gemm", ["f", "g"], ["out"]),
    ]  # fmt: skip
    weights = {"w": rng.standard_normal((8, 1, 3, 3)), "g": rng.standard_normal((288, 5))}
    model = load_model(save(tmp_path, graph_model(nodes, weights, ("N", 1, 12, 12))))
    board = get_target("ulx3s-85f")
    searched = planner_estimate(model, board, CompileOptions(ratio=3))
    found = estimate(model, board, 3)
    assert found.interval_cycles < 12 * 12 * 8
    assert found.interval_cycles == pytest.approx(searched.interval_cycles, rel=0.25)


def test_the_estimate_is_near_the_plan(digits):
    found = estimate(load_model(MODEL), get_target("icebreaker"), 1.5)
    made = digits.document
    assert found.fits
    assert found.interval_cycles == pytest.approx(made["interval_cycles"], rel=0.25)
    assert found.luts == pytest.approx(made["resources"]["luts"], rel=0.25)
    assert found.brams == pytest.approx(made["resources"]["brams"], rel=0.25)
