"""Input that nobody vouches for, through the verbs: one line, exit 2, nothing written anywhere.

What each broken file is called is tested with the readers; here, that every one of them passes
through the command line in the same way and leaves an earlier output as it was.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest
from cli_tools import MODEL, ROOT, refused, run, snapshot, twin
from onnx import TensorProto, helper
from onnx_graphs import graph_model, save

from pvq_hw.output.report import write_report

N = helper.make_node
W = np.random.default_rng(0).standard_normal((64, 5))
EVIL = "\"a'\n\r../../<script>alert(1)</script>\x1b[31m" + "{{ 7 * 7 }}" + "z" * 90


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits):
    """A folder with data, an earlier output, and a place for broken models."""
    folder = tmp_path_factory.mktemp("place")
    twin(digits.out, folder / "out")
    (folder / "train.npz").write_bytes(digits.train.read_bytes())
    return folder


def compile_refused(place, text, model, *args):
    return refused(
        place, text, "compile", model, "--target", "icebreaker", "--quantizer", "plain",
        "--calibrate", place / "train.npz", "-o", place / "out", *args,
    )  # fmt: skip


def gemm(weight, nodes=None, shape=("N", 64), **constants):
    nodes = nodes or [N("Gemm", ["x", "w"], ["out"], name="fc")]
    return graph_model(nodes, {"w": weight, **constants}, shape)


def claims(dims):
    return TensorProto(name="w", dims=dims, data_type=TensorProto.DOUBLE)


def external(location, offset=0):
    weight = claims([64, 5])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", 64 * 5 * 8)):
        weight.external_data.add(key=key, value=str(value))
    return gemm(weight)


CYCLE = [
    N("Gemm", ["x", "w"], ["a"]), N("Add", ["a", "c"], ["b"]), N("Relu", ["b"], ["c"]),
    N("Identity", ["c"], ["out"]),
]  # fmt: skip

MODELS = {
    "nan": (lambda: gemm(np.where(W > 2, np.nan, W)), "'w' must be finite, but holds NaN"),
    "inf": (lambda: gemm(np.where(W > 2, np.inf, W)), "must have finite weights"),
    "terabytes": (lambda: gemm(claims([1 << 40, 1 << 10])), "claims"),
    "zero-sized": (lambda: gemm(np.zeros((64, 0))), "not be empty"),
    "rank 0": (lambda: gemm(np.array(1.0)), "have 2 dimensions"),
    "cycle": (lambda: gemm(W, CYCLE), "the graph has a cycle"),
    "outside": (lambda: external("../secret.bin"), "must be in the model's folder"),
    "absolute": (lambda: external("/etc/passwd"), "must be in the model's folder"),
    "beyond": (lambda: external("w.bin", 64), "must lie within 'w.bin'"),
    "link": (lambda: external("link.bin"), "must not be a symbolic link"),
    "unknown": (
        lambda: gemm(W, [N("Sin", ["x"], ["out"], name="s")]),
        "node 's' has the operation 'Sin', which isn't supported",
    ),
    "other input": (lambda: gemm(W, shape=("N", 65)), "must have weights for 65 activations"),
    "evil names": (lambda: gemm(W, [N("Evil" + EVIL, ["x"], ["out"], name=EVIL)]), "supported"),
}


@pytest.mark.parametrize("name", MODELS)
def test_hostile_models(place, name):
    make, text = MODELS[name]
    folder = place / "model"
    if not folder.exists():
        folder.mkdir()
        (place / "secret.bin").write_bytes(bytes(1 << 16))
        (folder / "w.bin").write_bytes(W.tobytes())
        (folder / "link.bin").symlink_to(folder / "w.bin")
    compile_refused(place, text, save(folder, make()))


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("pickle-was-run",))


def _pickled_npz(path):
    with path.open("wb") as file:  # by its name, numpy would write another one
        np.savez(file, **{"0.weight": np.array([Bomb()], dtype=object)})


def _plain_pickle(path):
    path.write_bytes(pickle.dumps(Bomb()))


def _random(path):
    path.write_bytes(np.random.default_rng(3).bytes(4096))


def _truncated_model(path):
    path.write_bytes(MODEL.read_bytes()[:-100])


def _truncated_zip(path):
    with path.open("wb") as file:
        np.savez(file, x=np.ones((4, 64)))
    path.write_bytes(path.read_bytes()[:-30])


def _empty_zip(path):
    zipfile.ZipFile(path, "w").close()


def _wrong_magic(path):
    path.write_bytes(b"\x7fELF" + bytes(300))


def _nothing(path):
    path.write_bytes(b"")


BROKEN = {
    "pickled npz": _pickled_npz, "pickle": _plain_pickle, "random": _random, "empty": _nothing,
    "truncated model": _truncated_model, "truncated zip": _truncated_zip, "empty zip": _empty_zip,
    "wrong magic": _wrong_magic,
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_as_anything(place, name, monkeypatch):
    """As model, calibration data, weights, configuration and data to simulate."""
    monkeypatch.chdir(place)
    path = place / "broken"
    BROKEN[name](path)
    known = ("compile", MODEL, "--target", "icebreaker", "-o", "out")
    for args in (
        ("compile", path, "--target", "icebreaker", "--calibrate", "train.npz", "-o", "out"),
        (*known, "--calibrate", path),
        (*known, "--calibrate", "train.npz", "--evaluate", path),
        ("layer", path, "--k", 3, "-o", "out"),
        ("layer", path, "--k", 3, "-o", "new/out"),
        ("simulate", "out", "--data", path),
        ("run", "out", "--data", path, "--port", "/dev/null"),
        ("verify", "out", "--model", path),
        ("data", path, "-o", "made.npz"),
    ):
        refused(place, "broken", *args)
    if name != "empty":  # an empty configuration is one
        refused(place, "broken must be a TOML file", *known, "--config", path)
    assert not (place / "pickle-was-run").exists()


OPTIONS = {
    "unknown board": (("--target", "arty"), "Target 'arty' is unknown"),
    "ratio 0": (("--ratio", "0"), "N/K must be a number above 0, not 0.0"),
    "ratio nan": (("--ratio", "nan"), "The configuration: ratio must be a finite number, not nan"),
    "K below 1": (("--ratio", "1e9"), "N/K must leave each of 42 rows of 'h', 'logits' a pulse"),
    "K too large": (("--ratio", "1e-9"), "K must be 1 to 2147483647"),
    "lanes > N": (("--lanes", "65,4"), "Layer 'h': lanes must be 1 to 64, not 65"),
    "lanes 0": (("--lanes", "0,4"), "Lanes must be at least 1"),
    "lanes few": (("--lanes", "4"), "Lanes must be given for 2 layers, not (4,)"),
    "lanes text": (("--lanes", "4,x"), "Lanes must be numbers like 8,4,2, not '4,x'"),
    "bits": (("--activation-bits", "17"), "Activation width must be 1 to 16 bits, not 17"),
    "scale": (("--input-scale", "-1"), "Input scale must be a number above 0, not -1.0"),
    "clock": (("--clock-mhz", "900"), "Clock of icebreaker must be 12 to 275 MHz, not 900"),
    "seed": (("--seed", "-1"), "Seed must be 0 to 2**32 - 1, not -1"),
    "accuracy": (("--min-accuracy", "101"), "Accuracy must be 0 to 100 percent, not 101.0"),
    "accuracy alone": (("--min-accuracy", "9"), "--min-accuracy must come with --evaluate"),
    "no model": (("--config", "nowhere.toml"), "nowhere.toml can't be read: No such file"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_impossible_options(place, name):
    args, text = OPTIONS[name]
    compile_refused(place, text, MODEL, *args)


CONFIGS = {
    "not TOML": ("target=", "must be a TOML file: Invalid value"),
    "binary": ("\x00\x01", "must be a TOML file: Invalid statement"),
    "key": ("feathers = 2", "c.toml has an unknown key 'feathers'; known are target, ratio"),
    "text for a number": ('ratio = "5"', "c.toml: ratio must be a number, not '5'"),
    "truth for a number": ("seed = true", "c.toml: seed must be an integer, not True"),
    "number for text": (
        "[layers.h]\nencoding = 3",
        "c.toml: layers.h.encoding must be text, not 3",
    ),
    "lanes": ("lanes = [1.5]", "c.toml: lanes[0] must be an integer, not 1.5"),
    "layers": ("layers = 3", "c.toml: layers must be a table, not 3"),
    "layer": ("[layers]\nh = 3", "c.toml: layers.h must be a table, not 3"),
    "layer's key": (
        "[layers.h]\nfeathers = 2",
        "c.toml: layers.h has an unknown key 'feathers'; known are ratio, k",
    ),
    "unknown layer": ("[layers.nose]\nk = 2", "Layer 'nose' must be one of h, logits"),
    "K": ("[layers.h]\nk = 0", "c.toml: layers.h: K must be at least 1, not 0"),
    "K and ratio": ("[layers.h]\nk = 2\nratio = 3", "A layer must have ratio or k, not both"),
    "groups": ("[layers.h]\nunit = 5", "Layer 'h' must have groups that divide 64 columns, not 5"),
    "unit": ('[layers.h]\nunit = "all"', "Unit must be row, layer or a number of columns"),
    "encoding": ('[layers.h]\nencoding = "int4"', "Encoding must be pvq or int8, not 'int4'"),
    "digits": ("seed = " + "9" * 5000, "c.toml must be a TOML file: Exceeds the limit"),
    "400 digits": (
        "ratio = " + "9" * 400,
        "c.toml: ratio must be of 64 bits at most, not an integer of 1,329 bits",
    ),
    "hex digits": (
        "seed = 0x" + "f" * 9000,
        "seed must be of 64 bits at most, not an integer of 36,000 bits",
    ),
    "lanes of digits": (
        "lanes = [0x" + "f" * 9000 + "]",
        "lanes[0] must be of 64 bits at most, not an integer of",
    ),
    "too small": ("ratio = 1e-320", "N/K must be 1e-30 to 1e+30, not 9.99989e-321"),
    "scale": ("input_scale = 1e-320", "Input scale must be 1e-30 to 1e+30, not 9.99989e-321"),
    "of a layer": ("[layers.h]\nratio = 1e300", "N/K must be 1e-30 to 1e+30, not 1e+300"),
    "k of a layer": (
        "[layers.h]\nk = " + "9" * 30,
        "layers.h.k must be of 64 bits at most, not an integer of 100 bits",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_impossible_configurations(place, name):
    text, message = CONFIGS[name]
    (place / "c.toml").write_text(text)
    compile_refused(place, message, MODEL, "--config", place / "c.toml")


@pytest.mark.parametrize("text", ["a." * 20_000 + "a = 1", "x = {" + "a." * 20_000 + "a = 1}"])
def test_keys_of_many_parts_are_refused_before_they_are_parsed(place, monkeypatch, text):
    (place / "c.toml").write_text(text)
    monkeypatch.setattr(tomllib, "loads", None)  # it takes 10 s and 1 s
    message = "c.toml must be a configuration with at most 5,000 dots"
    compile_refused(place, message, MODEL, "--config", place / "c.toml")


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (np.ones((9, 63)), None, "must have the shape (frames, 64), not (9, 63)"),
        (np.ones(64), None, "must have the shape (frames, 64), not (64,)"),
        (np.ones((0, 64)), None, "must have frames, not the shape (0, 64)"),
        (np.full((99, 64), np.nan), None, "must be finite"),
        (np.full((99, 64), 1 + 2j), None, "must hold real numbers, not complex128"),
        (np.ones((99, 64)), np.ones(3), "must have a label per frame, not 3 for 99"),
    ],
)
def test_data_of_the_wrong_shape(place, x, y, text):
    np.savez(place / "bad.npz", x=x, **({} if y is None else {"y": y}))
    compile_refused(place, text, MODEL, "--calibrate", place / "bad.npz")
    if y is None and x.dtype.kind == "f":
        simulate = ("simulate", place / "out", "--data", place / "bad.npz")
        refused(place, "must" if "frames, 64" in text else text, *simulate)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (None, "Evaluation data must have labels y"),
        (np.array([3, 10]), "Labels must be 0 to 9, the network's outputs"),
        (np.array([3, -1]), "Labels must be 0 to 9"),
        (np.ones((2, 9)), "Targets must have 10 values per frame, not (9,)"),
    ],
)
def test_labels_that_are_none(place, y, text):
    np.savez(place / "bad.npz", x=np.ones((2, 64)), **({} if y is None else {"y": y}))
    compile_refused(place, text, MODEL, "--evaluate", place / "bad.npz")


def test_calibration_is_asked_for(place):
    args = ("compile", MODEL, "--target", "icebreaker", "-o", place / "out")
    refused(place, "give --calibrate TRAIN.npz", *args)
    refused(place, "give --calibrate TRAIN.npz", *args, "--quantizer", "plain")


def test_a_network_that_is_too_large_for_the_board(place):
    rng = np.random.default_rng(0)
    big = {"0.weight": rng.standard_normal((2000, 64)), "1.weight": rng.standard_normal((10, 2000))}
    np.savez(place / "big.npz", **big)
    message = compile_refused(place, "but icebreaker has", place / "big.npz", "--ratio", "1")
    assert "choose a larger device" in message


def test_accuracy_below_the_minimum_is_exit_1(place, digits):
    refused(
        place, "Accuracy must be at least 99.5 %, not ", "compile", MODEL, "--target", "icebreaker",
        "--quantizer", "plain", "--ratio", 9, "--calibrate", digits.train, "--evaluate",
        digits.test, "--min-accuracy", "99.5", "-o", place / "out", code=1,
    )  # fmt: skip


def test_json_of_an_error_is_one_object(place):
    ran = run("compile", MODEL, "--target", "arty", "-o", place / "new" / "out", "--json")
    assert ran.code == 2
    assert ran.json == {"error": ran.complaint, "exit_code": 2}


# -- names --------------------------------------------------------------------------------------


def test_names_with_html_and_paths_stay_names(tmp_path):
    nodes = [N("Gemm", ["x", "w"], [EVIL], name=EVIL), N("Relu", [EVIL], ["r"], name="../.."),
             N("Gemm", ["r", "v"], ["out"], name="<b>")]  # fmt: skip
    folder = tmp_path / "<b>&amp;'\"$(x) {{ 7 * 7 }}"
    folder.mkdir()
    graph = gemm(W, nodes, v=np.random.default_rng(1).standard_normal((5, 3)))
    model = save(folder, graph, "<script>alert('m')</script>{{ 7*7 }}.onnx".replace("/", "_"))
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(2).integers(0, 17, (50, 64)))
    before = set(snapshot(tmp_path))
    ran = run(
        "compile", model, "--target", "icebreaker", "--ratio", 2, "--quantizer", "plain",
        "--calibrate", tmp_path / "x.npz", "-o", folder / "out", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    inside = (folder / "out").relative_to(tmp_path).as_posix()
    new = set(snapshot(tmp_path)) - before
    assert all(name == inside or name.startswith(f"{inside}/") for name in new)
    page = (folder / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "<b>&amp;" not in page
    for layer in ran.json["layers"]:
        assert layer["name"].replace("_", "").replace("-", "").replace(".", "").isalnum()
    assert run("verify", folder / "out", "--model", model).code == 0


def test_the_page_escapes_every_value(digits, tmp_path):
    """Names are data, whoever gave them."""
    evil = "<script>alert(1)</script>{{ 7 * 7 }}"
    part = {key: v for key, v in digits.document.items() if key != "out"} | {"network": evil}
    part["layers"] = [layer | {"name": evil} for layer in part["layers"]]
    simulated = {"simulator": evil, "frames": 1, "outputs_compared": 1, "mismatches": 1}
    write_report(tmp_path, {"compile": part, "simulate": simulated})
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}") >= 5
    assert json.loads((tmp_path / "report.json").read_text())["compile"] == part


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"format": "pvq-hw report", "compile": {}}',
        '{"format": "pvq-hw report", "build": {"fmax_mhz": "<"}}',
        '{"format": "pvq-hw report", "simulate": {"mismatches": null}}',
        '{"format": "pvq-hw report", "build": {"fmax_mhz": 1, "clock_mhz": 1, "seed": 1,'
        ' "inferences_per_second": 1, "utilization": {"LC": 3}}}',
    ],
)
def test_a_broken_report_is_made_again(digits, tmp_path, text):
    out = twin(digits.out, tmp_path / "out")
    (out / "report.json").write_text(text)
    ran = run("report", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json.keys() == {"compile"}
    assert ran.json["compile"]["network"] == "digits_mlp_64_32_10"


# -- the output folder --------------------------------------------------------------------------


def _compile_into(place, out):
    return (
        "compile", MODEL, "--target", "icebreaker", "--quantizer", "plain", "--ratio", 2,
        "--calibrate", place / "train.npz", "-o", out,
    )  # fmt: skip


def test_an_output_that_is_something_else(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(place / "out")
    twin(place / "out", tmp_path / "with more")
    (tmp_path / "with more" / "notes.txt").write_text("mine")
    twin(place / "out", tmp_path / "with link")
    (tmp_path / "with link" / "image" / "x.hex").symlink_to("/etc/passwd")
    for name, text in (
        ("mine", "must be new, empty or a pvq-hw output, but holds other files"),
        ("file", "must be a folder, not a file"),
        ("file/inner", "cannot be made"),
        ("link", "must not be a symbolic link"),
        ("with more", "but has 'notes.txt'; move it away"),
        ("with link", "must not hold symbolic links, but 'image/x.hex' is one"),
    ):
        refused(tmp_path, text, *_compile_into(place, tmp_path / name))
    for name in ("link", "with link"):
        for verb in ("verify", "report", "build", "program"):
            refused(tmp_path, "symbolic link", verb, tmp_path / name)
        refused(
            tmp_path, "symbolic link", "simulate", tmp_path / name, "--data", place / "train.npz"
        )


@pytest.mark.parametrize("verb", ["verify", "report", "build", "program"])
def test_no_output_at_all(tmp_path, verb):
    refused(tmp_path, "must exist", verb, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "lacks its manifest", verb, tmp_path / "empty")


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "network/network.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"format": "pvq-hw output"}'])
def test_an_output_with_broken_documents(digits, tmp_path, name, content):
    out = twin(digits.out, tmp_path / "out")
    (out / name).write_bytes(content)
    for verb in (("build",), ("simulate", "--data", digits.test)):
        refused(tmp_path, "", verb[0], out, *verb[1:])
    ran = run("verify", out)
    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err


def test_a_file_system_that_cannot_be_written(place, tmp_path):
    if os.path.isdir("/proc/self"):
        refused(tmp_path, "cannot be", *_compile_into(place, "/proc/self/out"))
        refused(tmp_path, "cannot be", *_compile_into(place, "/sys/out"))
    refused(tmp_path, "cannot be", *_compile_into(place, tmp_path / ("n" * 300)))


def test_a_full_disk_leaves_the_earlier_output(place):
    """A limit on the size of files stands in for the disk: Verilog no longer fits."""
    before = snapshot(place)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    ran = subprocess.run(
        [sys.executable, "-m", "pvq_hw", *map(str, _compile_into(place, place / "out"))],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=limit,
    )  # fmt: skip
    lines = [line for line in ran.stderr.splitlines() if not line.startswith(("==>", "    "))]
    assert ran.returncode == 2, ran.stderr
    assert len(lines) == 1, ran.stderr
    assert "File too large" in lines[0]
    assert snapshot(place) == before


def test_a_missing_tool_is_one_line(place, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("pvq_hw.tools.yowasp.Module.file", None)
    refused(place, "yosys", *_compile_into(place, place / "out"))
    refused(
        place, "iverilog", "simulate", place / "out", "--data", place / "train.npz",
        "--simulator", "icarus",
    )  # fmt: skip
    refused(place, "yosys", "build", place / "out")


@pytest.mark.parametrize(
    "option",
    ["--lanes", "--frames", "--only", "--int8", "--code", "--code-memory", "--multiplier",
     "--windows", "--engine", "--stream-width", "--decide", "--gain", "--mend", "--augment"],
)  # fmt: skip
def test_long_options_make_no_long_messages(place, option):
    said = compile_refused(place, "", MODEL, option, "a" * 5000)
    assert len(said) < 400


def test_no_board_is_not_the_usual_one(tmp_path):
    np.save(tmp_path / "w.npy", W.T)
    refused(tmp_path, "", "layer", tmp_path / "w.npy", "--k", 8, "--target", "", "-o",
            tmp_path / "out")  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "no folder"])
def test_files_are_written_into_files_only(place, tmp_path, monkeypatch, what):
    """Nothing waits for a pipe's reader, and no device is replaced by a file: asked before work."""
    folder = tmp_path / "folder"
    at = {"no folder": "none/f", "device": "null"}.get(what, "f")

    def spot(suffix):
        path = folder / f"{at}{suffix}"
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what == "device":
            path.symlink_to("/dev/null")
        return path

    folder.mkdir()
    text = "must be a file in a folder that exists"
    refused(folder, text, "report", place / "out", "--junit", spot(".xml"))
    refused(folder, text, "data", place / "train.npz", "-o", spot(".npz"))
    verify = ("verify", place / "out", "--model", MODEL, "--log")
    refused(folder, text, *verify, spot(".csv"))
    tune = ("finetune", MODEL, "--data", place / "train.npz", "-o", folder / f"{at}.onnx")
    spot(".toml")  # written beside the model
    refused(folder, text, *tune)
    spot(".onnx")
    refused(folder, text, *tune)
    if what == "pipe":
        spot("icebreaker.pcf").rename(folder / "icebreaker.pcf")
        boards = ("boards", "icebreaker", "--constraints")
        refused(folder, text, *boards, folder)
        refused(folder, "can't be written into: File exists", *boards, place / "train.npz")


def test_empty_arguments_do_not_pass_for_none(place):
    """As a script gives them whose variable is not set."""
    for option in ("--decide", "--metric", "--output", "--augment"):
        compile_refused(place, f"argument {option}: it must not be empty", MODEL, f"{option}=")
