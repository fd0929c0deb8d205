"""Compiled models: records, threads, cache, checker, and what is said when a tool lacks."""

import numpy as np
import pytest
from verilog_stage import TABLE, stage_design

from pvq_hw.engine.patterns import Pattern
from pvq_hw.errors import InputError, ToolError
from sim.agents.streams import StreamError
from sim.backends import compilers as backends
from sim.backends import models
from sim.backends.compiled import build_model, run_compiled

ITEMS = [(i * 91 + 3) % 256 for i in range(120)]
WORDS = np.array(ITEMS, dtype=np.uint32)[:, None]
ONCE = [TABLE[i] for i in ITEMS]
TWICE = [TABLE[i] for i in ONCE]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this module's own: the model of the stages is built once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("PVQ_HW_CACHE", str(folder))
        yield folder


def run(folder, mutant="", **options):
    return run_compiled(stage_design(folder, mutant), WORDS, quiet=60, **options)


def payloads(runs, link):
    return np.concatenate([run.links[link][:, 0] for run in runs]).tolist()


@pytest.mark.parametrize("backend", backends.BACKENDS)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_stream_is_recorded(tmp_path, backend, threads):
    if backend == "verilator" and not backends.tools.have_tool("verilator"):
        pytest.skip("Verilator is not installed")
    told = []
    runs = run(tmp_path, backend=backend, threads=threads, progress=told.append)
    assert len(runs) == {1: 1, 2: 2, 7: 6}[threads]
    assert (payloads(runs, 0), payloads(runs, 1)) == (ONCE, TWICE)
    frames = np.arange(len(runs[0].starts))
    assert runs[0].starts.tolist() == (4 * frames).tolist()
    assert runs[0].ends.tolist() == (4 * frames + 5).tolist()
    assert runs[0].cycles == 4 * len(frames) + 2
    assert sorted(told)[-1] == 30


def test_stalls_and_resets_in_mid_frame(tmp_path):
    stall, idle = Pattern.parse("random:0.5"), Pattern.parse("bursts:6")
    (one,) = run(tmp_path, stall=stall, idle=idle, seed=4, resets=[1, 50, 51, 99])
    assert (payloads([one], 0), payloads([one], 1)) == (ONCE, TWICE)
    assert int(one.starts[0]) >= 99
    (other,) = run(tmp_path, stall=stall, idle=idle, seed=5)
    assert other.ends.tolist() != one.ends.tolist()


@pytest.mark.parametrize(
    ("mutant", "message"),
    [
        ("valid falls", "Stream 'first', cycle 5: valid must hold until ready, but fell"),
        ("payload moves", "payload must hold until ready, but changed"),
        ("sleeps", "No stream moved for 60 cycles; transfers so far: i 0, o 0, first 0, second 0"),
    ],
)
def test_checker_catches_mutants(tmp_path, mutant, message):
    with pytest.raises(StreamError, match=message):
        run(tmp_path, mutant, stall=Pattern.parse("random:0.7"), seed=2)


def test_new_memory_files_need_no_new_model(tmp_path, cache):
    if backends.default_backend() != "verilator":
        pytest.skip("only Verilator reads the memory files at the start")
    build_model(stage_design(tmp_path))
    before = sorted(cache.iterdir())
    design = stage_design(tmp_path)
    design.memories[0].write_text("".join(f"{255 - v:02x}\n" for v in range(256)))
    assert payloads(run_compiled(design, WORDS), 0) == [255 - i for i in ITEMS]
    assert sorted(cache.iterdir()) == before


def test_a_changed_source_is_another_model(tmp_path):
    design = stage_design(tmp_path)
    first = build_model(design, "cxxrtl")
    assert build_model(design, "cxxrtl") == first
    design.sources[0].write_text(design.sources[0].read_text() + "// changed\n")
    assert build_model(design, "cxxrtl") != first


def test_without_a_compiler_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PVQ_HW_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(models.shutil, "which", lambda name: None)
    monkeypatch.setattr(models, "find_tool", _missing)
    with pytest.raises(ToolError, match=r"^g\+\+ is missing: apt-get install g\+\+$"):
        build_model(stage_design(tmp_path))


def _missing(name):
    raise ToolError(f"{name} is missing: apt-get install {name}")


def test_cxxrtl_stands_in_for_verilator(monkeypatch):
    monkeypatch.setattr(backends.tools, "have_tool", lambda name: name != "verilator")
    assert backends.default_backend() == "cxxrtl"
    with pytest.raises(InputError, match="Backend must be one of"):
        build_model(None, "spice")


def test_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PVQ_HW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ToolError, match=r"can't be written .*; set PVQ_HW_CACHE"):
        build_model(stage_design(tmp_path))


def test_a_failed_build_leaves_nothing(tmp_path, cache):
    before = sorted(cache.iterdir())
    design = stage_design(tmp_path)
    design.sources[0].write_text("module top(; endmodule\n")
    with pytest.raises(ToolError, match="failed with exit code"):
        build_model(design)
    assert sorted(cache.iterdir()) == before


def test_a_model_that_another_process_made_meanwhile_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PVQ_HW_CACHE", str(tmp_path))

    def make(folder):
        (folder / "model").write_text("mine")
        (tmp_path / "key").mkdir()
        (tmp_path / "key" / "model").write_text("theirs")

    assert (models.cached("key", make) / "model").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
