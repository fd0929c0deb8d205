"""A value changed in any file of an output, with all hashes made right again, is found: also in
outputs whose layers share an engine, are wires, decide, or may be updated."""

import json
import random
from functools import reduce

import numpy as np
import pytest
from cli_tools import reseal, run, twin
from onnx import helper
from onnx_graphs import graph_model, save

from pvq_hw import load
from pvq_hw.errors import InputError
from pvq_hw.model.load import load_model
from pvq_hw.output.golden_vectors import load_vectors
from pvq_hw.output.verify import examine_output
from pvq_hw.tools import find as tools

pytestmark = pytest.mark.skipif(not tools.have_tool("yosys"), reason="compile needs yosys")

# Words for people, and what was asked: `verify` says that it didn't look at them.
WORDS = {"limit", "reason", "goal"}

OUTPUTS = {
    "shared": ("icebreaker", "--engine", "shared"),
    "wires": ("ulx3s-25f", "--engine", "unrolled", "--input-width", 6),
    "decides, updatable": ("icebreaker", "--decide", "argmax", "--updatable"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of two dense layers, and its data."""
    folder, rng = tmp_path_factory.mktemp("model"), np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="fc1"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "v"], ["out"], name="fc2"),
    ]
    weights = {"w": rng.normal(size=(12, 10)), "v": rng.normal(size=(10, 4))}
    np.savez(folder / "data.npz", x=rng.normal(size=(40, 12)))
    return save(folder, graph_model(nodes, weights, ("N", 12))), folder / "data.npz"


def places(value, path=()):
    """Paths to what a JSON document says, but for words."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        if key not in WORDS:
            yield from (
                places(part, (*path, key)) if isinstance(part, dict | list) else [(*path, key)]
            )


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        scale = value.startswith("0x")
        return (float.fromhex(value) * 1.01).hex() if scale else f"{value}x"
    return 1 if value is None else value + 1 if isinstance(value, int) else value * 1.01 + 0.001


def change_document(path, place):
    document = json.loads(path.read_text())
    part = reduce(lambda part, key: part[key], place[:-1], document)
    part[place[-1]] = other(part[place[-1]])
    path.write_text(json.dumps(document))


def felt(out):
    """Whether any layer's outputs are others than those that lie there: a step of an input may be
    lost in rounding, or before a ReLU, and the vectors are then right as they are."""
    network = load(out).network
    x, outputs = load_vectors(out, network)
    trace = network.trace(x)
    return any(
        (trace[layer.name] != y).any() for layer, y in zip(network.layers, outputs, strict=True)
    )


def change_word(path, rng):
    words = path.read_text().split()
    at = rng.randrange(len(words))
    words[at] = f"{int(words[at], 16) ^ 1:0{len(words[at])}x}"
    path.write_text("\n".join(words) + "\n")


@pytest.mark.parametrize(
    ("kind", "count"),
    [*[(kind, 2) for kind in OUTPUTS],
     *[pytest.param(kind, 10_000, marks=pytest.mark.slow) for kind in OUTPUTS]],
)  # fmt: skip
def test_a_changed_value_is_found(model, tmp_path, kind, count):
    path, data = model
    target, *options = OUTPUTS[kind]
    out = tmp_path / "out"
    args = ("--target", target, "--ratio", 1.5, "--calibrate", data, "-o", out)
    assert run("compile", path, *args, *options).code == 0
    float_model = load_model(path)
    assert examine_output(out, model=float_model).findings == []
    rng, cases = random.Random(kind), []
    for name in ("plan.json", "network/network.json", "vectors/vectors.json"):
        found = list(places(json.loads((out / name).read_text())))
        cases += [(name, place) for place in rng.sample(found, min(count, len(found)))]
    files = sorted([*out.glob("image/*.hex"), *out.glob("vectors/*.hex")])
    cases += [(str(x.relative_to(out)), None) for x in rng.sample(files, min(count, len(files)))]
    for number, (name, place) in enumerate(cases):
        spoiled = twin(out, tmp_path / str(number))
        if place is None:
            change_word(spoiled / name, rng)
        else:
            change_document(spoiled / name, place)
        try:
            reseal(spoiled)
            found = examine_output(spoiled, model=float_model).findings
        except InputError:
            continue  # no output at all any more
        if name == "vectors/input.hex" and not felt(spoiled):
            continue
        assert found, (name, place)
