"""Functions of one value all the way: file, tables, golden model, simulated RTL, output folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from activation_cases import ACTIVATIONS, all_in_one, one
from cli_tools import reseal, run, twin
from onnx_graphs import save

import pvq_hw
from pvq_hw.arith.formats import IntFormat
from pvq_hw.data.dataset import Data
from pvq_hw.engine.units import Lookup
from pvq_hw.errors import CheckError, InputError
from pvq_hw.evaluate.agreement import agreement
from pvq_hw.model.load import load_model
from pvq_hw.network.table import Table
from pvq_hw.output.verify_model import check_numbers
from pvq_hw.plan.image import emit
from pvq_hw.plan.plan import Plan, plan
from pvq_hw.quantizer.quantize import quantize
from sim.result import compare
from sim.run import simulate

X = np.random.default_rng(0).normal(size=(64, 5))


def test_every_activation_from_a_file_to_simulated_rtl(tmp_path):
    """All of them as branches of one circuit, with pauses at both ends."""
    model = load_model(save(tmp_path, all_in_one()))
    network = quantize(model, calibration=X, ratio=0.5, quantizer="plain")
    agreement(model, network, Data(X), "calibration")
    tables = [layer for layer in network.layers if isinstance(layer, Table)]
    assert len(tables) == len(ACTIVATIONS) - 2  # bounds alone
    assert {len(layer.entries) for layer in tables} == {1, 6}
    assert {layer.output.format.signed for layer in tables} == {True, False}
    planned = plan(network, "ulx3s-85f", lanes=[5, 12])
    assert Plan.from_json(json.loads(json.dumps(planned.to_json()))) == planned
    memories = {unit.name: unit.memory for unit in planned.graph.units if isinstance(unit, Lookup)}
    lines = {name for name, memory in memories.items() if memory == "lines"}
    assert len(lines) == 3  # LeakyRelu, PRelu, the larger of two
    assert {"block", "logic"} >= set(memories.values()) - {"lines"}
    x = network.quantize_input(X[:2])
    result = simulate(
        planned.graph,
        emit(network, planned).cores,
        x,
        "amaranth",
        names=[layer.name for layer in network.layers],
        idle="random:0.3",
        stall="random:0.3",
        settle=False,
    )
    compared = compare(result, network.trace(x))
    assert compared.mismatches == 0
    assert compared.outputs_compared == 2 * sum(layer.output.size for layer in network.layers)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model, its data and its output: a table for each channel, and one that gives the output."""
    folder = tmp_path_factory.mktemp("functions")
    text = "s=Sigmoid(g); p=PRelu(g,slopes); a=Mul(s,p)"
    save(folder, one(text, "o=Gemm(a,v) transB:1; out=Tanh(o)"))
    np.savez(folder / "x.npz", x=X)
    ran = run("compile", folder / "m.onnx", "--calibrate", folder / "x.npz", "--ratio", 1,
              "--target", "icebreaker", "-o", folder / "out")  # fmt: skip
    assert ran.code == 0, ran.err
    return folder


def test_tables_from_the_command_line(made):
    told = run("report", made / "out", "--json").json["compile"]["tables"]
    assert [(t["name"], t["function"], t["tables"]) for t in told] == [
        ("a", "Sigmoid(x) * PRelu(x, 6 values)", 6),
        ("out", "Tanh(x)", 1),
    ]
    assert all(t["entries"] == 1 << t["input_bits"] for t in told)
    assert (told[0]["output_bits"], told[1]["output_bits"]) == (8, 16)
    page = (made / "out" / "report.html").read_text()
    assert "Sigmoid(x) * PRelu(x, 6 values)" in page
    verified = run("verify", made / "out", "--model", made / "m.onnx", "--data", made / "x.npz")
    assert verified.code == 0, verified.out
    ran = run("simulate", made / "out", "--data", made / "x.npz", "--count", 5, "--json")
    assert (ran.code, ran.json["mismatches"]) == (0, 0)
    document = json.loads((made / "out" / "report.json").read_text())
    assert document["simulate"]["outputs_compared"] == 5 * (6 + 6 + 3 + 3)


def test_outputs_of_a_table_are_the_models_values(made):
    model = load_model(made / "m.onnx")
    accelerator = pvq_hw.load(made / "out")
    network = accelerator.network
    real = network.predict(network.quantize_input(X)) * network.output.scale
    assert np.abs(real).max() <= 1.0
    assert np.corrcoef(real.ravel(), model.predict(X).ravel())[0, 1] > 0.85


def test_a_changed_entry_is_found(made, tmp_path):
    out = twin(made / "out", tmp_path / "o")
    file = out / "network" / "network.json"
    document = json.loads(file.read_text())
    table = document["layers"][1]
    assert table["kind"] == "table"
    words = table["entries"][2].split(" ")
    words[7] = str(int(words[7]) ^ 1)
    table["entries"][2] = " ".join(words)
    file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    reseal(out)
    alone = run("verify", out)
    assert alone.code == 1
    assert "plan.json" in alone.out
    verified = run("verify", out, "--model", made / "m.onnx")
    assert verified.code == 1
    assert "layer 'a' table 2 entry" in verified.out
    words[7] = "1000"  # more than 8 bits hold
    table["entries"][2] = " ".join(words)
    file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    assert "entries of its output's format" in run("verify", out).out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=Sqrt(g)", "Layer 'a': Sqrt(x) must have a finite value for every input, but has none"),
        (
            "h=Abs(g); a=Log(h)",
            "Layer 'a': Log(Abs(x)) must have a finite value for every input from -",
        ),
    ],
)
def test_a_function_without_a_value_is_refused_by_name(tmp_path, text, message):
    model = load_model(save(tmp_path, one(text)))
    with pytest.raises(InputError) as caught:
        quantize(model, calibration=X, ratio=1.0, quantizer="plain")
    assert message in str(caught.value)


def test_a_lost_function_does_not_pass_the_comparison(tmp_path):
    model = load_model(save(tmp_path, one("a=Tanh(g)")))
    network = quantize(model, calibration=X, ratio=1.0, quantizer="plain")
    agreement(model, network, Data(X), "calibration")
    table = network.layers[1]
    wrong = replace(table, entries=np.roll(table.entries, 9, axis=1))
    spoiled = replace(network, layers=(network.layers[0], wrong, *network.layers[2:]))
    with pytest.raises(CheckError, match="layer 'a'"):
        agreement(model, spoiled, Data(X), "calibration")


@pytest.mark.slow
@pytest.mark.build
def test_a_network_with_tables_is_built(made, tmp_path):
    """From synthesis to a bitstream that meets the clock, in which the tables are found again."""
    accelerator = pvq_hw.load(twin(made / "out", tmp_path / "out"))
    report = accelerator.build(seeds=(1, 2, 3))
    assert report["fmax_mhz"] >= accelerator.plan.clock_mhz
    verified = run("verify", tmp_path / "out", "--bitstream", "--json")
    assert verified.code == 0, verified.out
    assert "tables in block RAM" in verified.json["bitstream"]
    lookups = [unit for unit in accelerator.plan.graph.units if unit.kind == "lookup"]
    assert "block" in {unit.memory for unit in lookups}


BOUNDS = {
    "HardTanh": ("a=Clip(g,minus,one)", (-127, 127)),
    "HardSigmoid": ("a=HardSigmoid(g)", (0, 255)),
    "an upper bound": ("a=Min(g,half)", None),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_what_the_layer_before_saturates_at(tmp_path, name):
    """One rounding, no table, golden model and circuit alike; at the network's end too."""
    text, ends = BOUNDS[name]
    model = load_model(save(tmp_path, one(text, "o=Gemm(a,v) transB:1; out=Clip(o,minus,three)")))
    network = quantize(model, calibration=3 * X, ratio=0.5)
    assert [layer.kind for layer in network.layers] == ["dense", "dense"]
    form, last = (layer.output.format for layer in network.layers)
    scale = network.layers[0].output.scale
    assert (form.min, form.max) == (ends or (-128, round(0.5 / scale)))
    assert last.max + 3 * last.min in range(-3, 4)
    agreement(model, network, Data(X), "calibration")
    assert check_numbers(model, network) == []
    changed = replace(network.layers[0].output, format=IntFormat(8, form.signed, form.min, 90))
    other = replace(network.layers[0], output=changed)
    wrong = check_numbers(model, replace(network, layers=(other, network.layers[1])))
    assert [finding.message for finding in wrong] == ["saturates elsewhere than the model"]
    planned = plan(network, "hx8k", lanes=[2, 2])
    x = network.quantize_input(30 * X[:3])
    cores, names = emit(network, planned).cores, [layer.name for layer in network.layers]
    result = simulate(
        planned.graph, cores, x, "amaranth", names=names, idle="random:0.3", settle=False
    )
    trace = network.trace(x)
    assert compare(result, trace).mismatches == 0
    first = trace[network.layers[0].name]
    assert first.max() == form.max
    assert first.min() == form.min or not ends
