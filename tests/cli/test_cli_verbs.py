"""Every verb on the bundled digits: figures, JSON, exit status."""

import json
import math
import os
import sys

import numpy as np
import pytest
from cli_tools import BUNDLED, MODEL, refused, reseal, run, snapshot, twin

import pvq_hw
from pvq_hw.arith.formats import significant
from pvq_hw.output.build_record import write_build
from sim.board import simulated_port

WEIGHTS = 64 * 32 + 32 * 10


# -- data ---------------------------------------------------------------------------------------


def test_data_takes_arrays_by_name(tmp_path):
    out = tmp_path / "d.npz"
    keys = "x_test,y_test"
    ran = run("data", BUNDLED / "digits.npz", "--keys", keys, "--count", 7, "--json", "-o", out)
    assert ran.code == 0
    assert ran.json == {
        "frames": 7, "shape": [64], "dtype": "uint8", "labels": True, "data": str(out),
    }  # fmt: skip
    original = np.load(BUNDLED / "digits.npz")
    with np.load(out) as made:
        assert np.array_equal(made["x"], original["x_test"][:7])
        assert np.array_equal(made["y"], original["y_test"][:7])


def test_data_reshapes(tmp_path):
    args = ("data", BUNDLED / "digits.npz", "--keys", "x_test", "--shape", "1,8,8")
    ran = run(*args, "-o", tmp_path / "d.npz")
    assert (ran.code, ran.out) == (
        0,
        f"{tmp_path}/d.npz: 500 frames of (1, 8, 8) uint8, no labels\n",
    )
    assert np.load(tmp_path / "d.npz")["x"].shape == (500, 1, 8, 8)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "holds 'x_train', 'y_train', 'x_test', 'y_test'; choose arrays with --keys"),
        (("--keys", "a"), "'a'"),
        (("--keys", "x_test,y_train"), "Data must have a label per frame, not 1297 for 500"),
        (("--keys", "x_test,y_test,y_test"), "Keys must be one or two names, not 3"),
        (("--keys", "x_test", "--shape", "8,9"), "Shape must have 64 values"),
        (("--keys", "x_test", "--shape", "8,x"), "Shape must be numbers like 1,28,28, not '8,x'"),
        (("--keys", "x_test", "--count", "0"), "Count must be at least 1, not 0"),
    ],
)
def test_data_that_cannot_be_made(tmp_path, args, text):
    refused(tmp_path, text, "data", BUNDLED / "digits.npz", *args, "-o", tmp_path / "d.npz")


# -- compile ------------------------------------------------------------------------------------


def test_compile_tells_the_figures_of_the_design(digits):
    document, network = digits.document, pvq_hw.load(digits.out).network
    pulses = sum(int(np.abs(layer.weights).sum()) for layer in network.layers)
    assert document["n_over_k"] == significant(WEIGHTS / pulses, 10)
    assert 1.5 <= document["n_over_k"] <= 1.5 * 1.01
    plan = json.loads((digits.out / "plan.json").read_text())
    for key in ("interval_cycles", "latency_cycles", "clock_mhz"):
        assert document[key] == plan[key]
    assert document["inferences_per_second"] == pytest.approx(
        document["clock_mhz"] * 1e6 / document["interval_cycles"], rel=1e-5
    )
    codes = [line.split() for line in _memory(digits.out, "codes")]
    assert document["bits_per_weight"] == pytest.approx(_bits(plan, codes) / WEIGHTS, rel=1e-5)
    assert document["bits_per_weight_limit"] < document["bits_per_weight"]
    assert document["parameter_bits_per_weight"] > 0
    assert document["accuracy"]["metric"] == "accuracy"
    assert document["accuracy"]["frames"] == 500
    assert [layer["name"] for layer in document["layers"]] == ["h", "logits"]
    assert [(layer["rows"], layer["columns"]) for layer in document["layers"]] == [
        (32, 64), (10, 32),
    ]  # fmt: skip
    assert document["out"] == str(digits.out)


def _memory(out, kind):
    return [p.read_text() for p in sorted((out / "image").glob(f"*_{kind}.hex"))]


def _bits(plan, codes):
    """Stored code bits: words in the files times their width."""
    widths = []
    for layer in plan["layers"]:
        code = layer["core"]["code"]
        widths.append(1 + code["lanes"] * (code["gap_bits"] + 1 + code["shift_bits"]))
    return sum(len(words) * width for words, width in zip(codes, widths, strict=True))


def test_compile_accuracy_is_the_golden_models(digits):
    model, data = pvq_hw.load_model(MODEL), pvq_hw.load_data(digits.test)
    exact = (model.predict(data.x).argmax(axis=1) == data.y).mean() * 100
    pvq = (pvq_hw.load(digits.out).predict(data.x).argmax(axis=1) == data.y).mean() * 100
    assert digits.document["accuracy"]["float"] == pytest.approx(exact, abs=1e-9)
    assert digits.document["accuracy"]["pvq"] == pytest.approx(pvq, abs=1e-9)
    assert exact - pvq <= 1.0 + 1e-9


def test_packed_weights_are_near_their_entropy(digits):
    size = digits.document["weights_file"]
    assert size["packed_bytes"] == (digits.out / "network" / "weights.pvq").stat().st_size
    assert size["packed_bits_per_weight"] == 8 * size["packed_bytes"] / WEIGHTS
    assert size["packed_bits_per_weight"] <= 1.15 * size["limit_bits_per_weight"]
    assert size["float32_bytes"] == 4 * WEIGHTS
    assert size["int8_bytes"] == WEIGHTS
    assert size["packed_bytes"] < size["zipped_npz_bytes"]


def test_compile_leaves_what_the_design_lists(digits):
    assert set(os.listdir(digits.out)) == {
        "manifest.json", "network", "image", "verilog", "vectors", "plan.json", "report.json",
        "report.html", "testbench",
    }  # fmt: skip
    assert not [name for name in os.listdir(digits.out.parent) if name.startswith(".")]


def test_compile_speaks_to_people(digits, tmp_path):
    args = ("compile", MODEL, "--target", "hx8k", "--ratio", 2, "--quantizer", "plain")
    ran = run(*args, "--calibrate", digits.train, "-o", tmp_path / "o")
    assert ran.code == 0
    assert "digits_mlp_64_32_10 on hx8k, mean N/K 2.00" in ran.out
    assert f"next: pvq-hw simulate {tmp_path}/o --data TEST.npz" in ran.out
    assert "accuracy" not in ran.out  # only ever from --evaluate
    assert "==> Quantize to the pyramid" in ran.err
    assert run("report", tmp_path / "o", "--quiet").err == ""


# -- simulate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("simulator", ["amaranth", "icarus", "compiled"])
def test_simulate_agrees_with_the_golden_model(digits, tmp_path, simulator):
    out = twin(digits.out, tmp_path / "out")
    ran = run(
        "simulate", out, "--data", digits.test, "--count", 3, "--simulator", simulator, "--json"
    )
    assert ran.code == 0, ran.err
    document = ran.json
    assert document["simulator"] == simulator
    assert document["frames"] == 3
    assert document["outputs_compared"] == 3 * (32 + 10)
    assert document["mismatches"] == 0
    assert document["first_mismatch"] is None
    for key in ("interval_cycles", "latency_cycles"):
        assert document[key] == digits.document[key]
    data = pvq_hw.load_data(digits.test)
    right = pvq_hw.load(out).predict(data.x[:3]).argmax(axis=1) == data.y[:3]
    assert document["accuracy"] == {
        "metric": "accuracy", "why": "labels are class numbers",
        "simulated": pytest.approx(100 * right.mean()), "frames": 3,
    }  # fmt: skip
    assert json.loads((out / "simulation.json").read_text()) == document
    assert json.loads((out / "report.json").read_text())["simulate"] == document


def test_simulate_with_stalls_tells_no_cycles(digits, tmp_path):
    out = twin(digits.out, tmp_path / "out")
    args = ("simulate", out, "--data", digits.test, "--count", 2, "--simulator", "amaranth")
    ran = run(*args, "--stalls", "--seed", 5, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["mismatches"] == 0
    assert ran.json["interval_cycles"] is None


def test_simulate_finds_a_changed_bias(digits, tmp_path):
    out = twin(digits.out, tmp_path / "out")
    path = out / "image" / "logits_bias.hex"
    lines = path.read_text().splitlines()
    lines[3] = f"{int(lines[3], 16) ^ (1 << 4 * len(lines[3]) - 6):0{len(lines[3])}x}"
    path.write_text("\n".join(lines) + "\n")
    reseal(out)
    args = ("simulate", out, "--data", digits.test, "--count", 2, "--simulator", "amaranth")
    ran = run(*args, "--json")
    assert ran.code == 1, ran.err
    assert 1 <= ran.json["mismatches"] <= 2
    assert "logits" in ran.json["first_mismatch"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--count", 0), "Count must be at least 1, not 0"),
        (("--data", MODEL), "digits_mlp_64_32_10.onnx must"),
        (("--data", BUNDLED / "digits.npz"), "must hold 'x', but holds 'x_train'"),
        (("--data", "none.npz"), "none.npz must be an npz file: No such file"),
    ],
)
def test_simulate_refuses(digits, tmp_path, args, text):
    refused(digits.out.parent, text, "simulate", digits.out, "--data", digits.test, *args)


# -- verify and report --------------------------------------------------------------------------


@pytest.mark.parametrize("model", [(), ("--model", MODEL)])
def test_verify_finds_nothing_in_a_good_output(digits, model):
    before = snapshot(digits.out.parent)
    ran = run("verify", digits.out, *model, "--json")
    assert (ran.code, ran.json["ok"], ran.json["findings"]) == (0, True, [])
    assert ran.json.keys() == {"ok", "findings", "unchecked", "bitstream", "proof"}
    assert snapshot(digits.out.parent) == before
    what = "files, codes and figures" if model else "files and codes"
    first = run("verify", digits.out, *model).out.splitlines()[0]
    assert first == f"{digits.out}: {what} are right"


@pytest.mark.parametrize(
    "name", ["image/h_codes.hex", "image/h_mult.hex", "network/weights.pvq", "plan.json",
             "network/network.json", "verilog/accelerator.v", "vectors/logits.hex",
             "manifest.json"]
)  # fmt: skip
def test_verify_names_the_file_of_a_flipped_bit(digits, tmp_path, name):
    out = twin(digits.out, tmp_path / "out")
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(content)
    ran = run("verify", out, "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    assert name in {finding["file"] for finding in ran.json["findings"]}


def test_verify_tells_another_model(digits, tmp_path):
    weights = np.random.default_rng(0).standard_normal
    np.savez(tmp_path / "m.npz", **{"0.weight": weights((32, 64)), "1.weight": weights((10, 32))})
    ran = run("verify", digits.out, "--model", tmp_path / "m.npz")
    assert ran.code in (1, 2)
    assert "h" in ran.out + ran.err
    refused(tmp_path, "must be", "verify", digits.out, "--model", digits.out / "manifest.json")


def test_report_is_made_again_from_the_rest(digits, tmp_path):
    out = twin(digits.out, tmp_path / "out")
    (out / "report.json").write_text("{")
    (out / "report.html").unlink()
    ran = run("report", out, "--json")
    assert ran.code == 0
    for name in ("report.json", "report.html"):
        assert (out / name).read_bytes() == (digits.out / name).read_bytes()
    known = {
        key: v for key, v in digits.document.items() if key not in ("out", "seconds", "model_file")
    }
    assert ran.json["compile"] == known
    # Figures of long runs stay, whatever stands beside them.
    report = json.loads((out / "report.json").read_text())
    kept = {"mismatches": 0, "outputs_compared": 9, "frames": 3, "simulator": "compiled", "x": 1}
    report |= {"simulate": kept, "flash": {"seconds": 1}, "build": {"seed": "?"}}
    (out / "report.json").write_text(json.dumps(report))
    assert run("report", out, "--json").json.keys() == {"compile", "simulate"}
    assert json.loads((out / "report.json").read_text())["simulate"] == kept


# -- layer is in test_cli_layer; build and demo in test_cli_demo ---------------------------------


def test_program_calls_the_boards_loader(digits, tmp_path, monkeypatch):
    out = twin(digits.out, tmp_path / "out")
    refused(tmp_path, "build/build.json must exist; run pvq-hw build first", "program", out)
    (out / "build").mkdir()
    (out / "build" / "top.bin").write_bytes(b"bitstream")
    write_build(out / "build", {"bitstream": "top.bin"})
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    missing = "iceprog or openFPGALoader, which loads icebreaker, are missing"
    refused(tmp_path, missing, "program", out)
    loader = tmp_path / "bin" / "iceprog"
    loader.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(tmp_path / 'got')!r}, 'wb').write(open(sys.argv[1], 'rb').read())\n"
        "sys.exit(len(sys.argv) - 2)\n"
    )
    loader.chmod(0o755)
    ran = run("program", out, "--json")
    assert (ran.code, ran.json) == (0, {"loader": "iceprog", "lasting": True})
    assert (tmp_path / "got").read_bytes() == b"bitstream"
    loader.write_text(f"#!{sys.executable}\nraise SystemExit('no board')\n")
    refused(tmp_path, "iceprog failed with exit code 1: no board", "program", out)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"bitstream": "../../etc/passwd"}', '{"bitstream": ".x"}', "\xff"]
)
def test_program_refuses_a_broken_report_of_a_build(digits, tmp_path, text):
    out = twin(digits.out, tmp_path / "out")
    (out / "build").mkdir()
    (out / "build" / "build.json").write_bytes(text.encode("latin-1"))
    refused(tmp_path, "build.json must", "program", out)


def test_run_over_a_pseudo_terminal(digits):
    accelerator = pvq_hw.load(digits.out)
    before = snapshot(digits.out.parent)
    with simulated_port(accelerator) as port:
        ran = run(
            "run", digits.out, "--port", port, "--data", digits.test, "--count", 2,
            "--timeout", 60, "--json",
        )  # fmt: skip
        with pvq_hw.Board(port, accelerator, timeout=60) as board:
            x = pvq_hw.load_data(digits.test).x[2:4]
            assert np.array_equal(board.predict(x), accelerator.predict(x))
            assert board.counters().frames == 4
    assert ran.code == 0, ran.err
    data = pvq_hw.load_data(digits.test)
    golden = accelerator.predict_integers(data.x[:2])
    document = ran.json
    assert document["outputs"] == golden.tolist()
    assert (document["frames"], document["outputs_compared"]) == (2, 20)
    assert (document["mismatches"], document["overruns"]) == (0, 0)
    right = golden.argmax(axis=1) == data.y[:2]
    assert document["accuracy"] == {
        "metric": "accuracy", "why": "labels are class numbers", "board": 100 * right.mean(),
        "frames": 2,
    }  # fmt: skip
    assert math.isfinite(document["frames_per_second"])
    assert snapshot(digits.out.parent) == before


def test_run_refuses_a_port_that_is_none(digits, tmp_path):
    args = ("run", digits.out, "--data", digits.test, "--port")
    refused(tmp_path, f"Port '{tmp_path}/none' cannot be opened", *args, tmp_path / "none")
    refused(tmp_path, "Port '/dev/null' cannot be opened", *args, "/dev/null")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e10", "3601"])
def test_run_refuses_an_impossible_timeout(digits, tmp_path, seconds):
    args = ("run", digits.out, "--data", digits.test, "--port", "/dev/null", "--timeout", seconds)
    text = f"Timeout must be above 0 and at most 3,600 seconds, not {float(seconds):g}"
    refused(tmp_path, text, *args)


def test_doctor_says_what_works():
    ran = run("doctor", "--json")
    assert ran.code == 0
    verbs = {c["name"]: c["ok"] for c in ran.json["checks"] if c["group"] == "verb"}
    assert verbs["compile"] is True
    assert ran.json["ok"] is True
    assert "verb:" in run("doctor").out
