"""Against the model and data, an output whose files were all made again is told from a good one."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from cli_tools import MODEL, refused, run, twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_graphs import save
from quantizer_cases import chain
from quantizer_cases import data as made_data
from quantizer_datafree_cases import ranged
from quantizer_graphs_cases import branched, inputs
from random_onnx import random_models

import pvq_hw
from pvq_hw.data.dataset import Data
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Sign
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.output.golden_vectors import write_vectors
from pvq_hw.output.manifest import write_manifest
from pvq_hw.output.verify import examine_output
from pvq_hw.output.verify_data import check_data_figures
from pvq_hw.output.verify_model import check_numbers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import plan
from pvq_hw.quantizer.fused import network_steps
from pvq_hw.quantizer.quantize import LayerOptions, quantize

SIZES = (24, 32, 16, 6)
CALIBRATION, OTHER = np.split(made_data(500), [400])
QUIET = {
    "deadline": None, "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                              HealthCheck.data_too_large],
}  # fmt: skip


def findings(model, network, x, scale=1.0):
    found = check_numbers(model, network)
    return found + check_data_figures(model, network, {}, Data(np.asarray(x), None, scale))


# -- what is right passes -------------------------------------------------------------------------


def _signs():
    model = chain(SIZES)
    nodes = [
        Sign(node.name, node.inputs, node.output, node.shape) if node.op == "Relu" else node
        for node in model.nodes
    ]
    return replace(model, nodes=tuple(nodes))


CHAINS = {
    "calibrated": {},
    "many inputs a pulse": {"ratio": 12},
    "four bits": {"activation_bits": 4},
    "plain": {"quantizer": "plain", "ratio": 2},
    "mended biases": {"quantizer": "plain", "ratio": 2, "mend": "biases"},
    "mended scales": {"quantizer": "plain", "ratio": 2, "mend": "both"},
    "8-bit weights": {"layers": {"fc1": LayerOptions(encoding="int8")}},
    "groups": {"quantizer": "plain", "layers": {"fc1": LayerOptions(unit=12)}},
}


def test_fresh_chains_have_no_findings():
    model = chain(SIZES)
    first = model.nodes[0].name
    for name, options in CHAINS.items():
        if "layers" in options:
            options = options | {"layers": {first: options["layers"]["fc1"]}}
        network = quantize(model, calibration=CALIBRATION, **options)
        assert findings(model, network, OTHER) == [], name


def test_fresh_networks_of_other_shapes_have_no_findings():
    """Sums, concatenations, means, depthwise convolutions; signs; scales of the model's ranges."""
    model = branched()
    network = quantize(model, calibration=inputs(64), ratio=2)
    assert findings(model, network, inputs(64, 5)) == []
    signs = _signs()
    for options in ({}, {"quantizer": "plain"}):
        network = quantize(signs, calibration=CALIBRATION, ratio=2, **options)
        assert findings(signs, network, OTHER) == []
    known = ranged()
    for options in ({}, {"mend": "biases"}, {"mend": "both"}):
        network = quantize(known, quantizer="plain", ratio=2, **options)
        assert findings(known, network, np.random.default_rng(9).random((50, 64))) == []


@settings(max_examples=12, **QUIET)
@given(random_models(), st.sampled_from([0.7, 2.0, 8.0]), st.sampled_from(["plain", "calibrated"]))
def test_fresh_random_networks_have_no_findings(tmp_path, case, ratio, quantizer):
    model, rng = load_model(save(tmp_path, case[0])), np.random.default_rng(0)
    weights = [step.weight for step in network_steps(model) if step.weighted]
    most = sum(w.size for w in weights) / sum(len(w) for w in weights)  # a pulse a row
    calibration, other = rng.standard_normal((2, 48, *model.input_shape))
    network = quantize(model, calibration=calibration, ratio=min(ratio, most), quantizer=quantizer)
    assert findings(model, network, other) == []


# -- what is wrong does not -----------------------------------------------------------------------


def changed(network, name, **fields):
    """The network with other fields of one layer; a function is given the layer."""
    layers = tuple(
        replace(x, **{k: v(x) if callable(v) else v for k, v in fields.items()})
        if x.name == name
        else x
        for x in network.layers
    )
    return replace(network, layers=layers)


def coarser(layer):
    return replace(layer.output, scale=layer.output.scale * 1000)


def test_numbers_that_the_model_does_not_give_are_found():
    model = branched()
    int8 = {"left": LayerOptions(encoding="int8")}
    network = quantize(model, calibration=inputs(64), ratio=2, quantizer="plain", layers=int8)
    y = network.layers[1].y.copy()
    y[0, 0] += 1
    cases = [
        ("stem", {"bias": lambda x: x.bias + 5}, "has a bias beyond what quantization can make"),
        ("stem", {"shift": lambda x: x.shift + 1}, "has a shift that is not its gains'"),
        ("left", {"y": y}, "has 8-bit weights that are not the model's"),
        ("sum", {"mult": lambda x: (x.mult[0] + 1, x.mult[1])}, "has multipliers that are not"),
        ("both", {"shift": lambda x: x.shift - 1}, "has multipliers that are not its scales'"),
        ("mean", {"mult": lambda x: tuple((c, m + 1) for c, m in x.mult)}, "has multipliers that"),
        ("head", {"output": coarser}, "has a scale that the model does not give"),
    ]
    assert check_numbers(model, network) == []
    for name, fields, message in cases:
        found = check_numbers(model, changed(network, name, **fields))
        where = {finding.where.split(" row")[0] for finding in found}
        assert where == {f"layer {name!r}"}, (name, found)
        assert message in " ".join(finding.message for finding in found), found


def test_scales_of_ranges_are_made_again():
    model = ranged()
    network = quantize(model, quantizer="plain", ratio=2)
    spec = replace(network.input, scale=network.input.scale * 1.001)
    (first, *_) = check_numbers(model, replace(network, input=spec))
    assert (first.where, first.message) == ("input", "has a scale that the model does not give")
    name = network.layers[0].name

    def slightly(layer):
        return replace(layer.output, scale=layer.output.scale * 1.001)

    found = check_numbers(model, changed(network, name, output=slightly))
    assert ("has a scale that the model does not give", f"layer {name!r}") in {
        (finding.message, finding.where) for finding in found
    }


@pytest.mark.parametrize("which", ["chain", "graph", "signs"])
def test_fitted_biases_are_held_against_data(which):
    """One bias alone, moved by twice the output's range; and all of a layer."""
    model, calibration, other = {
        "chain": (chain(SIZES), CALIBRATION, OTHER),
        "graph": (branched(), inputs(64), inputs(64, 5)),
        "signs": (_signs(), CALIBRATION, OTHER),
    }[which]
    network = quantize(model, calibration=calibration, ratio=2)
    assert findings(model, network, other) == []
    for layer in network.layers:
        if layer.weights is None or layer.shift == 1:
            continue
        move = 2 * layer.output.format.max << layer.shift
        for part in (slice(1, 2), slice(None)):
            bias = layer.bias.copy()
            bias[part] += move * (1 if bias[1] < 0 else -1)
            found = findings(model, changed(network, layer.name, bias=bias), other)
            assert any(f"layer {layer.name!r}" in finding.where for finding in found), layer.name


# -- whole outputs --------------------------------------------------------------------------------


def forge(out, network, extra=None):
    """Makes all files of an output but the Verilog anew for another network, with right hashes."""
    planned = plan(network, "icebreaker")
    for name in ("network", "image", "vectors"):
        shutil.rmtree(out / name)
    (out / "network").mkdir()
    network.save(out / "network")
    planned.save(out / "plan.json")
    emit(network, planned).write(out)
    write_vectors(out, network, golden_inputs(network))
    known = json.loads((out / "manifest.json").read_text())["extra"]
    weights = {step.name: step.weight for step in network_steps(load_model(MODEL))}
    write_manifest(out, network, planned, weights=weights, extra=known | (extra or {}))


def _biases(network):
    rng = np.random.default_rng(0)
    return changed(network, "h", bias=rng.choice([-1, 1], 32) * 2_000_000), {}


def _input_scale(network):
    return replace(network, meta=network.meta | {"input_scale": 255.0}), {}


def _coarse_input(network):
    return replace(network, input=replace(network.input, scale=100.0)), {}


def _accuracy(network):
    figures = {"metric": "accuracy", "float": 96.6, "pvq": 99.99, "frames": 500,
               "disagreements": 11}  # fmt: skip
    return network, {"accuracy": figures}


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        (_biases, "layer 'h'"),
        (_input_scale, "input"),
        (_coarse_input, "input"),
        (_accuracy, "extra.accuracy.pvq"),
    ],
)
def test_an_output_made_again_with_other_numbers_is_found(digits, tmp_path, tamper, where):
    """All hashes, memory files, plan and vectors agree; without data what passes is named."""
    out = twin(digits.out, tmp_path / "out")
    network, extra = tamper(pvq_hw.load(out).network)
    forge(out, network, extra)
    ran = run("verify", out, "--json")
    assert (ran.code, ran.json["findings"]) == (0, [])
    ran = run("verify", out, "--model", MODEL, "--json")
    named = " ".join(ran.json["unchecked"])
    assert all(word in named for word in ("scales", "biases", "accuracy"))
    ran = run("verify", out, "--model", MODEL, "--data", digits.test, "--json")
    assert ran.code == 1
    assert where in {finding["where"] for finding in ran.json["findings"]}
    assert "losses" not in ran.json


def test_verify_names_what_it_did_not_check(digits, tmp_path):
    always = [
        "how far codes and rounding are from the float model, as the manifest has it",
        "what was asked of the plan, and its words on reasons and limits",
        "the Verilog beyond its hashes: pvq-hw simulate runs it",
        "the testbench beyond its hashes: its README.txt says how it is run",
        "simulation.json and the reports, which have no hashes",
    ]
    figures = "accuracy and losses: give --model MODEL and --data with the evaluation's data"
    test = pvq_hw.load_data(digits.test)
    cases = [
        (None, None,
         ["gains, scales, biases and the manifest's errors, against --model MODEL", figures]),
        (MODEL, None,
         ["the scales, beyond bounds that the model gives: give --data DATA.npz",
          "the biases, beyond bounds that the model gives: give --data DATA.npz", figures]),
        (MODEL, test, ["losses of layers and rows, as the manifest has them"]),
        (MODEL, test.head(40),
         ["accuracy and losses of the manifest, which are of other data than --data's"]),
        (MODEL, test.head(4),
         ["the biases on data: give at least 16 frames",
          "accuracy and losses of the manifest, which are of other data than --data's"]),
    ]  # fmt: skip
    for model, known, expected in cases:
        model = load_model(model) if model else None
        verdict = examine_output(digits.out, model=model, data=known)
        assert (verdict.findings, verdict.unchecked) == ([], expected + always)
    ran = run("verify", digits.out)
    assert ran.out.splitlines() == [
        f"{digits.out}: files and codes are right",
        *(f"  not checked: {text}" for text in cases[0][2] + always),
    ]


def test_verify_checks_all_that_it_is_given_before_it_starts(digits, tmp_path):
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.zeros((20, 63), np.uint8))
    args = ("verify", digits.out, "--model", MODEL)
    for more, text in (
        (("--data", wrong), f"{wrong}: Data must have the shape (frames, 64), not (20, 63)"),
        (("--data", tmp_path / "none.npz"), "none.npz must be an npz file"),
        (("--log", tmp_path / "log.txt"), "The log must be a .csv or .json file, not 'log.txt'"),
        (("--log", tmp_path / "no" / "log.csv"), "log.csv must be a file in a folder that exists"),
    ):
        refused(tmp_path, text, *args, *more)
        assert "==> Verify" not in run(*args, *more).err
