"""The exported Verilog on Icarus and as compiled models: equal to golden model and Amaranth."""

import json
from pathlib import Path

import numpy as np
import pytest
from chain_table import CHAINS, chain

import sim
from pvq_hw.errors import InputError
from pvq_hw.tools import find as tools
from sim import reference
from sim.agents.streams import StreamError
from sim.agents.wire import pack_frames
from sim.backends import compiled
from sim.backends.design import Design
from sim.backends.icarus import run_icarus
from sim.run import exported

QUICK = ("plain", "five frames")
PAUSES = {"idle": "random:0.4", "stall": "bursts:9", "seed": 5, "resets": (30, 31, 77)}


def table(names):
    return [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in names]


@pytest.fixture(scope="module", params=table(CHAINS))
def case(request, tmp_path_factory):
    """A chain, its folder as `compile` lays it out, and the golden outputs by core."""
    made = chain(request.param)
    with exported(made.graph, made.images) as design:
        folder = design.memories[0].parent.parent
        kept = tmp_path_factory.mktemp("out")
        for file in (*design.sources, *design.memories):
            (kept / file.parent.name).mkdir(exist_ok=True)
            (kept / file.parent.name / file.name).write_bytes(file.read_bytes())
        assert folder != kept
    trace = made.network.trace(made.x)
    names = [layer.name for layer in made.network.layers]
    return made, kept, {s.name: trace[n] for s, n in zip(made.specs, names, strict=True)}


def _specs(made):
    return [spec.to_json() for spec in made.specs]


def test_all_simulators_agree_cycle_by_cycle(case):
    made, folder, golden = case
    for options, simulators in (
        ({"settle": False}, ("compiled", "amaranth")),
        (PAUSES, sim.SIMULATORS),
    ):
        results = [
            sim.simulate(made.graph, folder, made.x, simulator, **options)
            for simulator in simulators
        ]
        for result in results:
            comparison = sim.compare(result, golden)
            assert comparison.mismatches == 0, f"{result.simulator}: {comparison.first}"
            assert comparison.outputs_compared == sum(g.size for g in golden.values())
            assert result.starts.tolist() == results[0].starts.tolist(), result.simulator
            assert result.ends.tolist() == results[0].ends.tolist(), result.simulator
            assert result.latency_cycles == results[0].latency_cycles, result.simulator
            assert result.cycles == results[0].cycles, result.simulator


def test_both_compiled_models_agree_with_amaranth(monkeypatch):
    made = chain("five frames")
    expected = sim.simulate(made.graph, made.images, made.x, "amaranth", **PAUSES)
    for backend, tool in (("cxxrtl", "yosys"), ("verilator", "verilator")):
        if not tools.have_tool(tool):
            pytest.skip(f"{tool} is not installed")
        monkeypatch.setattr(compiled, "default_backend", lambda backend=backend: backend)
        result = sim.simulate(made.graph, made.images, made.x, "compiled", **PAUSES)
        for name, outputs in expected.outputs.items():
            assert np.array_equal(result.outputs[name], outputs), backend
        assert result.ends.tolist() == expected.ends.tolist(), backend


def test_reference_reads_the_same_files(case):
    made, folder, golden = case
    specs = json.loads(json.dumps(_specs(made)))
    cores = reference.load_reference(specs, folder / "image")
    graph = json.loads(json.dumps(made.graph.to_json()))
    assert reference.reference_outputs(graph, cores, made.x.tolist()) == {
        name: values.tolist() for name, values in golden.items()
    }


def test_frames_reach_the_accumulators_bound():
    made = chain("saturation")
    image, spec = made.images[0], made.specs[0]
    contents = spec.contents(image)
    words = (contents[f"{spec.name}_{kind}"] for kind in ("codes", "mult", "bias"))
    core = reference.ReferenceCore(json.loads(json.dumps(spec.to_json())), *words)
    k = int(made.network.layers[0].k.max())
    assert max(core.compute(x)[1] for x in made.x.tolist()) >= k * spec.x.max_abs


def test_icarus_takes_a_stall_that_waits_for_valid():
    made = chain("plain")
    with exported(made.graph, made.images) as design:
        payloads = pack_frames(made.x[:2], design.form, 1)
        _, o, *_ = run_icarus(design, payloads, 2 * made.specs[-1].rows, after_valid=True)
    assert len(o.payloads) == 2 * made.specs[-1].rows


def test_a_lost_handshake_ends_with_a_line(tmp_path):
    made = chain("plain")
    with exported(made.graph, made.images) as design:
        before, found, after = design.sources[0].read_text().partition(".i__valid(i__valid)")
        assert found
        (tmp_path / "accelerator.v").write_text(f"{before}.i__valid(1'b0){after}")
        sources = (tmp_path / "accelerator.v", *design.sources[1:])
        broken = Design(**{**vars(design), "sources": sources})
        with pytest.raises(
            StreamError, match="No stream moved for 50 cycles; transfers so far: i 240, o 0"
        ):
            run_icarus(broken, pack_frames(made.x, design.form, 1), 5, quiet=50)


def test_a_flipped_bit_in_the_files_is_a_mismatch(case):
    made, folder, golden = case
    last = made.specs[-1]
    path = folder / "image" / f"{last.name}_bias.hex"
    text = path.read_text()
    words, outputs = text.split(), golden[last.name]
    # Not of a row that is always at an end of its range, where the constant's sign may do nothing.
    row = int(np.argmax(np.any((outputs > last.out.min) & (outputs < last.out.max), axis=0)))
    top = 1 << (last.bias_bits - 1)
    words[row] = f"{int(words[row], 16) ^ top:0{len(words[row])}x}"
    path.write_text("\n".join(words) + "\n")
    specs, graph = (json.loads(json.dumps(x)) for x in (_specs(made), made.graph.to_json()))
    try:
        result = sim.simulate(made.graph, folder, made.x, "compiled", settle=False)
        cores = reference.load_reference(specs, folder / "image")
    finally:
        path.write_text(text)
    expected = reference.reference_outputs(graph, cores, made.x.tolist())
    assert {name: o.tolist() for name, o in result.outputs.items()} == expected
    first_wrong = sim.compare(result, golden).first
    if last.out.binary:  # a threshold that is moved may decide alike
        assert (first_wrong is None) == (expected[last.name] == outputs.tolist())
        return
    assert first_wrong is not None
    assert (first_wrong.layer, first_wrong.row) == (last.name, row)


def test_missing_files_are_one_line(tmp_path):
    made = chain("plain")
    with pytest.raises(InputError, match=r"accelerator\.v must be a file"):
        sim.simulate(made.graph, tmp_path, made.x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"simulator": "spice"}, "Simulator must be one of compiled, amaranth, icarus"),
        ({"count": 0}, "number of frames must be at least 1, not 0"),
        ({"x": np.zeros((2, 3), dtype=np.int64)}, r"Frames must be \(frames, 24\), not \(2, 3\)"),
        ({"x": np.zeros((0, 24), dtype=np.int64)}, r"Frames must be \(frames, 24\)"),
        ({"x": np.full((1, 24), 256)}, r"Frames must be integers within 0\.\.255"),
        ({"x": np.zeros((1, 24))}, r"Frames must be integers within 0\.\.255"),
        (
            {"stall": "often"},
            "Pattern must be none, random:P, bursts:CYCLES or steps:.*, not 'often'",
        ),
        ({"names": ["a", "a", "b"]}, "Names must be 3 different ones"),
    ],
)
def test_bad_input_is_one_line(options, message):
    made = chain("plain")
    with pytest.raises(InputError, match=message):
        sim.simulate(made.graph, made.images, options.pop("x", made.x), **options)


def test_count_names_and_progress():
    made = chain("one column")
    told: list[int] = []
    result = sim.simulate(
        made.graph,
        made.images,
        made.x,
        "amaranth",
        count=3,
        names=["a", "b"],
        progress=told.append,
    )
    assert list(result.outputs) == ["a", "b"]
    assert result.frames == 3
    assert [len(values) for values in result.outputs.values()] == [3, 3]
    assert told[:3] == [1, 2, 3]
    assert max(told) == 3


def test_comparison_needs_the_same_layers_and_shapes():
    made = chain("one column")
    result = sim.simulate(made.graph, made.images, made.x, "amaranth", settle=False)
    with pytest.raises(sim.result.CheckError, match="The golden model has no layer 'fc0'"):
        sim.compare(result, {})
    trace = made.network.trace(made.x[:2])
    with pytest.raises(sim.result.CheckError, match=r"must give \(frames, rows\) of \(2, 5\), not"):
        sim.compare(result, trace)


def test_sources_are_shipped():
    package = Path(sim.__file__).parent
    assert (package / "backends" / "compiled_main.cc").is_file()
