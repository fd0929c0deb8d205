"""What `doctor` finds, and what it says of it."""

import json
import sys

import numba
import pytest
from cli_tools import run
from quantizer_graphs_cases import branched, inputs

from pvq_hw.quantizer import kernels
from pvq_hw.quantizer.quantize import quantize
from pvq_hw.tools import doctor as module
from pvq_hw.tools import find as tools
from pvq_hw.tools import yowasp
from pvq_hw.tools.doctor import Check, doctor, exit_code, render, to_json


def _by_name(checks, group):
    return {check.name: check for check in checks if check.group == group}


def test_everything_is_listed_once():
    checks = doctor()
    keys = [(check.group, check.name) for check in checks]
    assert len(set(keys)) == len(keys)
    assert set(_by_name(checks, "tool")) == set(tools.TOOLS)
    assert {"numpy", "onnx", "amaranth", "pyserial"} <= set(_by_name(checks, "package"))
    assert {"compile", "build", "simulate", "layer", "run"} <= set(_by_name(checks, "verb"))


def test_every_missing_thing_has_a_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(yowasp.Module, "file", None)
    checks = doctor()
    missing = [check for check in checks if not check.ok]
    assert {"yosys", "iverilog", "g++"} <= {check.name for check in missing}
    assert all(check.remedy for check in missing)


def test_each_verb_says_what_it_needs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    verbs = _by_name(doctor(), "verb")
    assert verbs["compile"].ok
    icarus = verbs["simulate --simulator icarus"]
    assert not icarus.ok
    assert icarus.detail == "needs iverilog, vvp"
    assert icarus.remedy == "apt-get install iverilog"


def test_exit_code_is_that_of_compile(monkeypatch):
    assert exit_code(doctor()) == 0
    monkeypatch.setattr(module, "PACKAGES", (("pvq-no-such", "pip install x", ("compile",)),))
    checks = doctor()
    assert exit_code(checks) == 2
    assert _by_name(checks, "package")["pvq-no-such"].remedy == "pip install x"


@pytest.mark.parametrize(("cold", "text"), [(True, "cold in"), (False, "warm: ")])
def test_the_cache_is_told_cold_or_warm(tmp_path, monkeypatch, cold, text):
    if cold:
        monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path))
    else:
        monkeypatch.setattr(tools, "cold_tools", lambda names: [])
    detail = _by_name(doctor(), "cache")["compiled tools"].detail
    assert detail.startswith(text)
    assert ("for 45 to 333 s" in detail) == cold


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 5_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    check = _by_name(doctor(tmp_path / "not" / "yet"), "disk")[str(tmp_path / "not" / "yet")]
    assert (check.ok, check.detail) == (False, "5 MB free")
    assert "build" in _by_name(doctor(tmp_path), "verb")
    assert not _by_name(doctor(tmp_path), "verb")["build"].ok


def test_ports_are_listed_and_a_missing_pyserial_is_told(monkeypatch):
    assert _by_name(doctor(), "serial")["ports"].ok
    monkeypatch.setitem(sys.modules, "serial.tools", None)
    checks = doctor()
    assert _by_name(checks, "serial")["ports"].remedy == "pip install pvq-hw"
    assert not _by_name(checks, "verb")["run"].ok


def test_text_and_json_say_the_same():
    checks = [
        Check("tool", "yosys", False, "missing", "pip install x", ("build",)),
        Check("verb", "compile", True, "works"),
    ]
    lines: list[str] = []
    render(checks, lines.append)
    assert lines == [
        "tool:",
        "  NO  yosys                        missing",
        "      mend it with: pip install x",
        "verb:",
        "  ok  compile                      works",
    ]
    document = json.loads(json.dumps(to_json(checks)))
    assert document["ok"] is True
    assert document["checks"][0]["remedy"] == "pip install x"


def test_a_warm_up_compiles_all_that_networks_need(monkeypatch):
    """Every loop, for the types of arrays that quantizing takes."""
    reached = set()

    def counted(name):
        inner = getattr(kernels, name)

        def call(*args):
            reached.add((name, tuple(map(numba.typeof, args))))
            return inner(*args)

        return call

    names = {name for name in kernels.__all__ if callable(getattr(kernels, name))}
    assert {"filter_channels", "improve_rows", "search_row"} < names
    for name in names:
        monkeypatch.setattr(kernels, name, counted(name))
    monkeypatch.setattr(tools, "cold_tools", lambda names: [])
    ran = run("doctor", "--warm-up")
    assert ran.code == 0, ran.err
    assert "Compile the quantizer's loops" in ran.err
    assert {name for name, _ in reached} == names
    warm, reached = reached, set()
    quantize(branched(), calibration=inputs(64), ratio=2)
    assert {name for name, _ in reached} >= {"filter_channels", "improve_rows", "refine_row"}
    assert reached <= warm
