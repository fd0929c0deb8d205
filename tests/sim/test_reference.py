"""The independent reference against the golden model, over the table of random layers."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chain_table import CHAINS, chain
from random_graphs import RandomNetwork, build
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.errors import CheckError, InputError
from pvq_hw.plan.core_layers import unit_names
from sim import reference


def write_memories(folder, specs, images):
    """The memory files as words, and the JSON of the specifications."""
    for spec, image in zip(specs, images, strict=True):
        for name, words in spec.contents(image).items():
            (folder / f"{name}.hex").write_text("".join(f"{word:x}\n" for word in words))
    return json.loads(json.dumps([spec.to_json() for spec in specs]))


def graph_of(graph):
    """The JSON of a graph, as a plan's file has it."""
    return json.loads(json.dumps(graph.to_json()))


@pytest.mark.parametrize("name", CHAINS)
def test_reference_equals_golden_model(tmp_path, name):
    made = chain(name)
    specs = write_memories(tmp_path, made.specs, made.images)
    cores = reference.load_reference(specs, tmp_path)
    outputs = reference.reference_outputs(graph_of(made.graph), cores, made.x.tolist())
    trace = made.network.trace(made.x)
    for spec, layer in zip(made.specs, made.network.layers, strict=True):
        assert outputs[spec.name] == trace[layer.name].tolist()
    assert outputs[made.specs[-1].name] == made.network.predict(made.x).tolist()


def test_reference_of_every_kind_of_unit_equals_golden_model(tmp_path):
    """Windows with padding, strides, dilation and groups; poolings of all kinds; sums and
    concatenations; tables; 8-bit weights; gain groups and signs."""
    net = RandomNetwork(9, (7, 6, 2), IntFormat(8, True))
    same = {"pads": ((1, 1), (1, 1))}
    a = net.conv(net.input, 4, (3, 3), k=9, groups=2, **same)
    b = net.conv(net.input, 4, (3, 2), pads=((2, 2), (0, 2)), dilation=(2, 2), k=7)
    joined = net.table(net.concat(net.add(a, b), net.input), tables=6)
    pooled = net.maxpool(joined, (3, 3), stride=(2, 2), **same)
    means = net.add(
        net.average(pooled, (2, 2), pads=((1, 0), (1, 0))),
        net.average(pooled, (2, 2), pads=((1, 0), (1, 0)), include=True),
    )
    x = net.dense(net.dense(means, 6, 20, groups=8), 5, sign=True)
    net.dense(x, 3)
    net.layers[1] = replace(net.layers[1], encoding="int8")
    made = build(net, frames=3)
    images = [made.images[core.name] for core in made.graph.cores]
    specs = write_memories(tmp_path, made.graph.cores, images)
    cores = reference.load_reference(specs, tmp_path)
    frames = made.x.reshape(len(made.x), -1).tolist()
    outputs = reference.reference_outputs(graph_of(made.graph), cores, frames)
    trace = made.network.trace(made.x)
    for layer, name in zip(net.layers, unit_names(net.layers), strict=True):
        assert outputs[name] == trace[layer.name].reshape(len(made.x), -1).tolist(), name
        assert len(np.unique(trace[layer.name])) > 1, name
    broken = graph_of(made.graph)
    broken["units"][0]["kind"] = "spoon"
    with pytest.raises(InputError, match="has no reference: its kind 'spoon' is not known"):
        reference.reference_outputs(broken, cores, frames)


@pytest.mark.parametrize("bits", [1, 2, 8, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_accumulator_reaches_its_bound(tmp_path, bits, signed):
    form = IntFormat(bits, signed or bits == 1)
    made = make_chain(5, 12, form, Case(3, 40, 4, strong=True))
    (core,) = reference.load_reference(write_memories(tmp_path, made.specs, made.images), tmp_path)
    k = int(made.network.layers[0].k.max())
    largest = max(core.compute(frame)[1] for frame in made.x.tolist())
    # An inverted leaf adds one below -x, so a row of negative pulses is off by K at most.
    assert k * form.max_abs <= largest <= k * (form.max_abs + 1)
    narrow = replace(core, spec=core.spec | {"acc_bits": largest.bit_length()})
    with pytest.raises(CheckError, match="overflows"):
        list(map(narrow.compute, made.x.tolist()))


def test_a_changed_bit_changes_an_output(tmp_path):
    made = chain("plain")
    specs = write_memories(tmp_path, made.specs, made.images)
    path = tmp_path / f"{made.specs[0].name}_codes.hex"
    lines = path.read_text().splitlines()
    gap_bits = made.specs[0].code.gap_bits
    path.write_text("\n".join([f"{int(lines[0], 16) ^ (1 << gap_bits):x}", *lines[1:]]))
    cores = reference.load_reference(specs, tmp_path)
    outputs = reference.reference_outputs(graph_of(made.graph), cores, made.x.tolist())
    assert outputs[made.specs[0].name] != made.network.trace(made.x)["fc0"].tolist()


def test_broken_memory_files_are_one_line(tmp_path):
    made = chain("plain")
    specs = write_memories(tmp_path, made.specs, made.images)
    path = tmp_path / f"{made.specs[0].name}_bias.hex"
    path.write_text("12 // a comment\n")
    with pytest.raises(InputError, match="its memory files are too short"):
        reference.load_reference(specs, tmp_path)
    for text in (b"12\nxyz\n", b"\xff"):
        path.write_bytes(text)
        with pytest.raises(InputError, match="must be hexadecimal words"):
            reference.load_reference(specs, tmp_path)


def test_reference_shares_no_code():
    source = Path(reference.__file__).read_text()
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    own = {"pvq_hw.errors", "pvq_hw.registry"}  # refusals, and which function is whose
    assert modules == own | {"collections.abc", "dataclasses", "pathlib", "typing"}


def test_chains_reach_saturation_escapes_and_idle_lanes():
    saturated = {"low": 0, "high": 0}
    escapes = 0
    for name in CHAINS:
        made = chain(name)
        trace = made.network.trace(made.x)
        for layer, spec, image in zip(made.network.layers, made.specs, made.images, strict=True):
            out = trace[layer.name]
            saturated["low"] += int(np.count_nonzero(out == layer.output.format.min))
            saturated["high"] += int(np.count_nonzero(out == layer.output.format.max))
            if not isinstance(spec, CoreSpec):
                continue
            gaps = spec.code.fields(image.codes)[0]
            escapes += int(np.count_nonzero(gaps == spec.code.escape))
    assert min(*saturated.values(), escapes) > 20
