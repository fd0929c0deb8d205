"""``pvq-hw layer``: a core that a stranger can run with Icarus alone."""

import json
import math
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from cli_tools import refused, run

import pvq_hw
from pvq_hw.pyramid.nearest import nearest
from pvq_hw.quantizer.banks import nearest_even

RNG = np.random.default_rng(7)
W = RNG.standard_normal((6, 24))

# name: (arguments, results of a round)
LAYERS = {
    "unsigned": (("--k", 12, "--lanes", 4), 6),
    "signed, ReLU, small chip": (
        ("--ratio", 2, "--x-signed", "--relu", "--target", "icebreaker", "--out-bits", 8), 6,
    ),
    "wide": (("--k", 30, "--lanes", 3, "--x-bits", 16, "--x-signed", "--vectors", 5), 6),
    "binary": (("--k", 9, "--lanes", 1, "--x-bits", 1, "--x-signed", "--target", "hx8k"), 6),
    "8-bit weights": (("--int8", "--x-signed", "--lanes", 3, "--target", "icebreaker"), 6),
    "digit by digit": (("--k", 12, "--engine", "unrolled", "--digit", 2, "--x-bits", 4), 6),
}  # fmt: skip


def make(tmp_path, *args, weights=W):
    np.save(tmp_path / "w.npy", weights)
    return ("layer", tmp_path / "w.npy", *args, "-o", tmp_path / "out")


@pytest.mark.parametrize("name", LAYERS)
def test_a_stranger_runs_it_with_icarus_alone(tmp_path, name):
    args, words = LAYERS[name]
    ran = run(*make(tmp_path, *args))
    assert ran.code == 0, ran.err
    assert "iverilog -o tb *.v && vvp tb" in ran.out
    # Nothing but the folder, an empty home and Icarus.
    stranger = tmp_path / "stranger"
    shutil.copytree(tmp_path / "out" / "testbench", stranger)
    tools = [os.path.dirname(shutil.which(tool) or "") for tool in ("iverilog", "sh")]
    # What scenarios find is tested with exported cores: of most layers random pauses are enough.
    only = "" if name in ("unsigned", "digit by digit") else " +only=3"
    tried = subprocess.run(
        f"iverilog -o tb *.v && vvp tb{only}", shell=True, cwd=stranger, capture_output=True,
        text=True, env={"PATH": ":".join(tools), "HOME": str(tmp_path / "none")},
    )  # fmt: skip
    assert tried.returncode == 0, tried
    last = tried.stdout.splitlines()[-1]
    passed = re.fullmatch(r"PASS: (\d+) results compared, 0 mismatches", last)
    assert passed, last
    assert int(passed[1]) % words == 0 < int(passed[1])
    assert run("verify", tmp_path / "out", "--json").json["findings"] == []


CONVOLUTIONS = {
    "windows side by side": (
        (8, 4, 3, 3), ("--map", "6,5", "--pads", "1,0,2,1", "--k", 12, "--lanes", 4,
                       "--windows", 2),
        ((1, 1), (1, 2, 0, 1), (1, 1), 1),
    ),
    "one axis": (
        (6, 2, 5), ("--map", 12, "--stride", 2, "--pads", "2,1", "--dilation", 2, "--ratio", 2,
                    "--groups", 3),
        ((1, 2), (0, 2, 0, 1), (1, 2), 3),
    ),
    "depthwise": (
        (4, 1, 2, 3), ("--map", "4,5", "--groups", 4, "--k", 4, "--stride", "2,1", "--engine",
                       "depthwise", "--target", "icebreaker"),
        ((2, 1), (0, 0, 0, 0), (1, 1), 4),
    ),
    "unrolled": (
        (4, 3, 2, 2), ("--map", "4,4", "--k", 5, "--engine", "unrolled", "--relu"),
        ((1, 1), (0, 0, 0, 0), (1, 1), 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_what_the_weights_say_and_runs_with_icarus_alone(tmp_path, name):
    shape, args, way = CONVOLUTIONS[name]
    ran = run(*make(tmp_path, *args, "--vectors", 3, weights=RNG.standard_normal(shape)))
    assert ran.code == 0, ran.err
    accelerator = pvq_hw.load(tmp_path / "out")
    (conv,) = accelerator.network.layers
    x = np.random.default_rng(1).integers(0, 256, (5, *accelerator.network.input_shape))
    real = np.stack([convolved(frame, conv, shape, way) for frame in x])
    real = np.maximum(real, 0) if "--relu" in args else real
    error = np.abs(accelerator.predict(x).reshape(real.shape) - real).max()
    assert error < 3 * accelerator.network.output.scale
    if name == "one axis":
        assert simulated(tmp_path / "out" / "image", tmp_path / "tb").startswith("PASS")
    assert run("verify", tmp_path / "out", "--json").json["findings"] == []


FUNCTIONS = {
    "dense": ("gelu", W.shape, ("--k", 12, "--lanes", 4, "--x-signed", "--multiplier", "logic")),
    "of a small chip": (
        "sigmoid", W.shape, ("--k", 12, "--target", "icebreaker", "--table-bits", 9,
                             "--table-range", 8, "--multiplier", "dsp"),
    ),
    "convolution": ("leaky_relu", (4, 2, 3, 3), ("--map", "5,4", "--k", 6, "--pads", 1)),
    "wires": ("hardtanh", W.shape, ("--k", 12, "--engine", "unrolled", "--table-range", 2)),
}  # fmt: skip
CURVES = {
    "gelu": lambda z: z * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "leaky_relu": lambda z: np.where(z < 0, 0.01 * z, z),
    "hardtanh": lambda z: np.clip(z, -1, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_a_table_behind_the_layer(tmp_path, name):
    """Within two steps of its sums, and one of its values, of the function of the codes' sums."""
    function, shape, args = FUNCTIONS[name]
    weights = RNG.standard_normal(shape)
    args = (*args, "--activation", function, "--x-scale", 2**-6, "--out-bits", 8, "--vectors", 3)
    ran = run(*make(tmp_path, *args, weights=weights))
    assert ran.code == 0, ran.err
    accelerator = pvq_hw.load(tmp_path / "out")
    network = accelerator.network
    layer, _ = network.layers
    low = -128 if "--x-signed" in args else 0
    x = np.random.default_rng(1).integers(low, low + 256, (6, *network.input_shape)) * 2.0**-6
    if name == "convolution":
        way = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
        sums = np.stack([convolved(frame, layer, shape, way) for frame in x])
    else:
        sums = x @ (layer.y * layer.gain).T
    wanted = CURVES[function](sums)
    limit = 2 * layer.output.scale + network.output.scale
    found = accelerator.predict(x).reshape(wanted.shape)
    assert np.abs(found - wanted).max() <= limit < 0.1 * np.ptp(wanted)
    if name == "dense":
        assert simulated(tmp_path / "out" / "image", tmp_path / "tb").startswith("PASS")
    assert run("verify", tmp_path / "out", "--json").json["findings"] == []


def test_relu_by_name_is_the_same_core_as_by_option(tmp_path):
    said = []
    for args in (("--relu",), ("--activation", "relu")):
        assert run(*make(tmp_path, "--k", 6, *args)).code == 0
        said.append(json.loads((tmp_path / "out" / "manifest.json").read_text())["files"])
    assert said[0] == said[1]


def test_a_layer_goes_into_other_flows_with_registers(tmp_path):
    assert run(*make(tmp_path, "--k", 6, "--activation", "tanh", "--x-scale", 0.01)).code == 0
    ran = run("export", tmp_path / "out", "--flow", "fusesoc", "--interface", "csr",
              "-o", tmp_path / "flow")  # fmt: skip
    assert ran.code == 0, ran.err
    command = f"iverilog -g2005 -o {tmp_path / 'tb'} *.v && vvp {tmp_path / 'tb'}"
    tried = subprocess.run(
        command, shell=True, cwd=tmp_path / "flow", capture_output=True, text=True
    )
    assert tried.stdout.splitlines()[-1] == "PASS: 48 results", tried


def test_eight_bit_weights_are_the_matrix_of_127_steps_a_row(tmp_path):
    shape = (4, 2, 3, 3)
    weights = RNG.standard_normal(shape)
    args = "--int8", "--map", "5,4", "--pads", 1, "--activation", "tanh", "--vectors", 2
    ran = run(*make(tmp_path, *args, weights=weights))
    assert ran.code == 0, ran.err
    conv = pvq_hw.load(tmp_path / "out").network.layers[0]
    rows = weights.transpose(0, 2, 3, 1).reshape(4, -1)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert conv.encoding == "int8"
    assert np.array_equal(conv.y, np.rint(rows / step))
    passed = simulated(tmp_path / "out" / "image", tmp_path / "tb")
    assert re.fullmatch(r"PASS: \d+ results compared, 0 mismatches", passed)


def test_codes_in_spram_have_the_testbench_that_loads_them(tmp_path):
    args = "--k", 12, "--code-memory", "spram", "--target", "icebreaker", "--vectors", 2
    ran = run(*make(tmp_path, *args))
    assert "image && iverilog" in ran.out
    passed = simulated(tmp_path / "out" / "image", tmp_path / "tb")
    assert re.fullmatch(r"PASS: \d+ results compared, 0 mismatches", passed)


def test_what_eight_bit_weights_cannot_be_is_refused(tmp_path):
    for args, text in (
        (("--int8", "--k", 6), "A layer of 8-bit weights has no pulses: leave out --k, --ratio"),
        (("--int8", "--code", "pulse"), "A layer of 8-bit weights has no pulses"),
        (("--int8", "--code-memory", "spram"), "8-bit weights are in block RAM, not in SPRAM"),
        (("--int8", "--frames", 2), "A layer of 8-bit weights takes one frame at a time"),
        (("--k", 6, "--code-memory", "spram", "--target", "hx8k"), "hx8k has no SPRAM"),
    ):
        refused(tmp_path, text, *make(tmp_path, *args))


def test_impossible_functions_are_refused(tmp_path):
    for args, text in (
        (("--activation", "softmax"), "Activation must be relu, tanh"),
        (("--activation", "tanh", "--table-bits", 13), "Table must read 8 to 12 bits, not 13"),
        (("--activation", "tanh", "--table-range", "nan"), "Range must be above 0 and at most"),
        (("--table-range", 2), "A range must come with an activation whose table has it"),
        (("--x-scale", 0), "Scale of activations must be above 0"),
        (("--activation", "tanh", "--frames", 2), "A table takes one frame at a time"),
        (("--activation", "tanh", "--out-bits", 1), "must read values of its input's format"),
        (("--multiplier", "dsp", "--target", "hx8k"), "there are no DSP blocks to multiply with"),
    ):
        refused(tmp_path, text, *make(tmp_path, "--k", 6, *args))


def simulated(images, made):
    """The last line of an output's testbench, by Icarus alone."""
    command = f"iverilog -o {made} ../testbench/tb.v ../verilog/*.v && vvp {made}"
    ran = subprocess.run(command, shell=True, cwd=images, capture_output=True, text=True)
    return ran.stdout.splitlines()[-1]


def convolved(frame, conv, shape, way):
    """A frame (channels, *map) by the codes and gains, sum for sum: (rows, columns, M)."""
    (down, across), (top, left, bottom, right), (row, column), groups = way
    kernel = (1, *shape[2:])[-2:]
    w = (conv.y * conv.gain).reshape(shape[0], *kernel, shape[1])
    x = np.pad(frame.reshape(frame.shape[0], -1, frame.shape[-1]),
               ((0, 0), (top, bottom), (left, right)))  # fmt: skip
    high, wide = ((n - (k - 1) * d - 1) // s + 1 for n, k, d, s in
                  zip(x.shape[1:], kernel, (row, column), (down, across), strict=True))  # fmt: skip
    out = np.zeros((high, wide, shape[0]))
    for m, i, j, c in np.ndindex(shape[0], *kernel, shape[1]):
        channel = m // (shape[0] // groups) * shape[1] + c
        part = x[channel, i * row :, j * column :][::down, ::across][:high, :wide]
        out[:, :, m] += w[m, i, j, c] * part
    return out


def test_what_is_no_convolution_is_refused(tmp_path):
    weights, out = RNG.standard_normal((4, 2, 3, 3)), tmp_path / "out"
    for args, text in (
        ((), "those of a convolution need the size of its map"),
        (("--stride", 2), "--stride must come with --map"),
        (("--map", 8), "a map of as many axes as its kernel"),
        (("--map", "8,x"), "Map must be numbers like 8,4,2"),
        (("--map", "2,2"), "must fit into its padded map"),
        (("--map", "8,8", "--groups", 3), "Groups must divide the 4 rows, not 3"),
        (("--map", "8,8", "--pads", "1,2,3"), "The pads must be 1 or 4 numbers, not 3"),
        (("--map", "8,8", "--frames", 2), "takes windows side by side, not frames"),
    ):
        refused(tmp_path, text, *make(tmp_path, "--k", 3, *args, weights=weights))
        assert not out.exists()


def test_a_wrong_expected_word_fails_the_testbench(tmp_path):
    assert run(*make(tmp_path, "--k", 12, "--lanes", 4)).code == 0
    folder = tmp_path / "out" / "testbench"
    lines = (folder / "expected.hex").read_text().splitlines()
    lines[20] = f"{int(lines[20], 16) ^ 1:0{len(lines[20])}x}"
    (folder / "expected.hex").write_text("\n".join(lines) + "\n")
    tried = subprocess.run(
        "iverilog -o tb *.v && vvp tb", shell=True, cwd=folder, capture_output=True, text=True
    )
    assert "FAIL" in tried.stdout.splitlines()[-1]


def test_the_figures_and_the_golden_model(tmp_path):
    bias = RNG.standard_normal(6)
    np.save(tmp_path / "b.npy", bias)
    args = make(tmp_path, "--k", 12, "--lanes", 4, "--bias", tmp_path / "b.npy", "--json")
    ran = run(*args)
    assert ran.code == 0, ran.err
    document = ran.json
    assert document["n_over_k"] == 2.0
    (layer,) = document["layers"]
    assert (layer["rows"], layer["columns"], layer["pulses"], layer["lanes"]) == (6, 24, 72, 4)
    accelerator = pvq_hw.load(tmp_path / "out")
    x = np.random.default_rng(1).integers(0, 256, (9, 24))
    (dense,) = accelerator.network.layers
    real = x @ (dense.y * dense.gain).T + bias
    scale = accelerator.network.output.scale
    # A multiplier of 16 bits or more rounds the gain, the result once.
    assert np.abs(accelerator.predict(x) - real).max() < 3 * scale


@pytest.mark.parametrize(
    ("asked", "lanes", "pulses", "words"),
    [
        (("--k", 12), 4, 12, 3),
        (("--k", 13), 4, 13, 4),  # one lane of four has a pulse more
        (("--ratio", 2.2), 4, 12, 3),  # 24 / 2.2 is 11, which four lanes do not share
        (("--ratio", 2.2), 1, 11, 11),
        (("--k", 3), 4, 3, None),  # too few to spread
    ],
)
def test_no_lane_waits_for_another(tmp_path, asked, lanes, pulses, words):
    args = make(tmp_path, *asked, "--lanes", lanes, "--code", "pulse", "--json")
    ran = run(*args)
    assert ran.code == 0, ran.err
    (layer,) = ran.json["layers"]
    assert layer["pulses"] == 6 * pulses
    if words is not None:
        assert layer["slots"] == 6 * words
        assert layer["utilization"] == pytest.approx(pulses / (lanes * words))


def test_unbalanced_lanes_take_the_nearest_codewords(tmp_path):
    """K stays as asked for, and a row takes as many words as its fullest lane has pulses."""
    asked = ("--ratio", 2.2, "--lanes", 4, "--code", "pulse", "--no-balanced", "--json")
    ran = run(*make(tmp_path, *asked))
    assert ran.code == 0, ran.err
    (dense,) = pvq_hw.load(tmp_path / "out").network.layers
    assert np.array_equal(dense.y, nearest(W, 11))
    words = np.abs(dense.y).reshape(6, -1, 4).sum(axis=1).max(axis=1).sum()
    (layer,) = ran.json["layers"]
    assert layer["slots"] == words > 6 * 3
    assert layer["utilization"] == pytest.approx(6 * 11 / (4 * words))


def test_pulses_spread_evenly_are_the_nearest_that_are():
    """No pulse has a better place in its bank, and no bank's odd pulse in another one."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((40, 37))
    w[3] = 0  # no pulses
    w[4, 2::5] = 0  # a bank of zeros: pulses in it would stand for nothing
    even = np.setdiff1d(np.arange(40), (3, 4))
    for k in (5, 7, 10, 24, 90):
        y = nearest_even(w, k, 5)
        assert np.array_equal(np.abs(y).sum(axis=1), np.where(np.arange(40) == 3, 0, k))
        assert np.array_equal(y[4], nearest(w[4:5], k)[0])
        assert not (y * np.sign(w) < 0).any()
        a, size = np.abs(w[even]), np.abs(y[even])
        alpha = ((size**2).sum(axis=1) / (a * size).sum(axis=1))[:, None]
        one_more = 2 * size + 1 - 2 * alpha * a
        one_less = np.where(size > 0, 2 * alpha * a - 2 * size + 1, np.inf)
        for b in range(5):
            assert (one_more[:, b::5].min(axis=1) + one_less[:, b::5].min(axis=1) > -1e-9).all()
        banks = np.stack([size[:, b::5].sum(axis=1) for b in range(5)], axis=1)
        assert set(np.unique(banks)) <= {k // 5, -(-k // 5)}
        more = np.stack([one_more[:, b::5].min(axis=1) for b in range(5)], axis=1)
        less = np.stack([one_less[:, b::5].min(axis=1) for b in range(5)], axis=1)
        odd = banks > k // 5
        best, worst = (
            np.where(odd, np.inf, more).min(axis=1),
            np.where(odd, less, np.inf).min(axis=1),
        )
        assert (best + worst > -1e-9).all()


def test_a_layer_is_simulated_like_a_network(tmp_path):
    assert run(*make(tmp_path, "--k", 12, "--lanes", 4)).code == 0
    np.savez(tmp_path / "x.npz", x=np.arange(48).reshape(2, 24))
    args = ("simulate", tmp_path / "out", "--data", tmp_path / "x.npz", "--simulator", "amaranth")
    ran = run(*args, "--json")
    assert (ran.code, ran.json["outputs_compared"], ran.json["mismatches"]) == (0, 12, 0)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert ran.json["interval_cycles"] == plan["interval_cycles"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "A layer must have K or N/K: give --k or --ratio"),
        (("--k", 2, "--ratio", 2), "A layer must have K or N/K: give --k or --ratio"),
        (("--k", 0), "K must be 1 to 2147483647, not 0"),
        (("--k", 1 << 70), "argument --k: invalid int value: '1180591620717411303424'"),
        (("--ratio", -1), "The ratio N/K must be greater than 0, not -1.0"),
        (("--k", 8, "--lanes", 25), "Layer 'layer': lanes must be 1 to 24, not 25"),
        (("--k", 8, "--lanes", 0), "Layer 'layer': lanes must be 1 to 24, not 0"),
        (("--k", 8, "--x-bits", 17), "Activation width must be 1 to 16 bits, not 17"),
        (("--k", 8, "--x-bits", 1), "Binary activations must be signed"),
        (("--k", 8, "--out-bits", 0), "Activation width must be 1 to 16 bits, not 0"),
        (("--k", 8, "--vectors", 0), "Golden vectors must be 1 to 10000, not 0"),
        (("--k", 8, "--seed", -1), "Seed must be 0 to 2**32 - 1, not -1"),
        (("--k", 8, "--target", "arty"), "Target 'arty' is unknown"),
    ],
)
def test_impossible_requests(tmp_path, args, text):
    command = make(tmp_path, *args)
    refused(tmp_path, text, *command)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (W * np.nan, "Weights must be finite, but hold NaN or infinities"),
        (W * 1e101, "Weights must be at most 1e+100 in magnitude"),
        (np.array(1.0), "Weights must be a matrix (rows, columns), not ()"),
        (np.zeros((0, 4)), "Weights must be a matrix (rows, columns), not (0, 4)"),
        (np.zeros((2, 2, 2)), "Weights must be a matrix (rows, columns), not (2, 2, 2)"),
        (np.ones((2, 2), bool), "Weights must be real numbers, not bool"),
        (np.ones((2, 2)) * 1j, "w.npy must hold real numbers, not complex128"),
        (np.array([["a"]]), "w.npy must hold real numbers, not <U1"),
    ],
)
def test_weights_that_are_none(tmp_path, weights, text):
    command = make(tmp_path, "--k", 2, "--lanes", 1, weights=weights)
    refused(tmp_path, text, *command)


@pytest.mark.parametrize("bias", [np.ones(5), np.ones(6) * np.inf, np.ones((6, 1))])
def test_biases_that_are_none(tmp_path, bias):
    np.save(tmp_path / "b.npy", bias)
    command = make(tmp_path, "--k", 2, "--bias", tmp_path / "b.npy")
    refused(tmp_path, "Biases must be 6 finite numbers", *command)


def test_a_core_says_what_its_integers_stand_for_and_nothing_of_a_link(tmp_path):
    ran = run(*make(tmp_path, "--k", 12, "--x-scale", 0.5))
    assert "over the serial link" not in ran.out
    document = json.loads((tmp_path / "out" / "report.json").read_text())["compile"]
    assert (document["link"], document["inferences_per_second_over_link"]) == (None, None)
    scale = pvq_hw.load(tmp_path / "out").network.output.scale
    lines = ["1 of the input stands for 0.5.", f"1 of the output stands for {scale:.9g}."]
    for name in ("testbench/README.txt", "verilog/accelerator.v"):
        text = (tmp_path / "out" / name).read_text()
        assert all(line in text for line in lines), name
