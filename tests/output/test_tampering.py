"""Every verb that loads an output refuses one whose files have changed since it was written."""

import json

import pytest
from cli_tools import refused, run, twin

import pvq_hw
from pvq_hw.errors import InputError
from pvq_hw.output.build_record import write_build

_VERBS = {
    "simulate compiled": ("simulate", "--simulator", "compiled"),
    "simulate amaranth": ("simulate", "--simulator", "amaranth"),
    "simulate icarus": ("simulate", "--simulator", "icarus"),
    "build": ("build",),
    "program": ("program",),
    "run": ("run", "--port", "/dev/null"),
    "report": ("report",),
}
_DATA = ("simulate", "run")
_OF_THE_BUILD = ("program", "report")  # verbs that read what a build has left


@pytest.fixture
def out(digits, tmp_path):
    """An output with a build."""
    out = twin(digits.out, tmp_path / "out")
    (out / "build").mkdir()
    (out / "build" / "top.bin").write_bytes(bytes(range(256)))
    write_build(out / "build", {"bitstream": "top.bin"})
    return out


def _arguments(name, out, digits):
    verb, *rest = _VERBS[name]
    data = ("--data", digits.test, "--count", 1) if verb in _DATA else ()
    return verb, out, *rest, *data


def _change_scale(out):
    """The network takes its inputs for others."""
    path = out / "network" / "network.json"
    document = json.loads(path.read_text())
    document["input"]["scale"] = (2 * float.fromhex(document["input"]["scale"])).hex()
    path.write_text(json.dumps(document))
    return "network/network.json"


def _write_files(out):
    """The Verilog writes a file where Icarus runs it."""
    path = out / "verilog" / "accelerator.v"
    name = out.parent / "written"
    end = path.read_text().rstrip().removesuffix("endmodule")
    path.write_text(f'{end}\n  integer f; initial f = $fopen("{name}", "w");\nendmodule\n')
    return "verilog/accelerator.v"


def _add_a_file(out):
    (out / "verilog" / "more.v").write_text("module more; endmodule\n")
    return "verilog/more.v"


def _remove_a_file(out):
    (out / "image" / "h_mult.hex").unlink()
    return "image/h_mult.hex"


def _flip_a_code_bit(out):
    path = out / "build" / "top.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    return "build/top.bin"


@pytest.mark.parametrize("tamper", [_change_scale, _write_files, _add_a_file, _remove_a_file])
def test_no_verb_takes_changed_files(digits, out, tmp_path, tamper):
    name = tamper(out)
    for verb in _VERBS:
        refused(tmp_path, f"{out / name} ", *_arguments(verb, out, digits))
    with pytest.raises(InputError, match=name):
        pvq_hw.load(out)
    assert not (tmp_path / "written").exists()
    ran = run("verify", out, "--json")
    assert ran.code == 1
    assert ran.json["findings"][0]["file"] == name


def test_no_verb_takes_a_changed_bitstream(digits, out, tmp_path):
    name = _flip_a_code_bit(out)
    text = f"{out / name} must be as it was built, but differs from its hash in build.json; run"
    for verb in _OF_THE_BUILD:
        refused(tmp_path, text, *_arguments(verb, out, digits))
    ran = run("verify", out, "--json")
    assert ran.code == 1
    assert [finding["file"] for finding in ran.json["findings"]] == [name]
    # What does not read the build is not hindered, and no build that is replaced is read.
    refused(tmp_path, "'/dev/null' cannot be opened", *_arguments("run", out, digits))
    assert run(*_arguments("simulate amaranth", out, digits)).code == 0


def test_files_are_hashed_once_a_run(digits, out, monkeypatch):
    import pvq_hw.output.hashes

    seen = []
    before = pvq_hw.output.hashes.file_sha256
    monkeypatch.setattr(
        pvq_hw.output.hashes, "file_sha256", lambda path: seen.append(path) or before(path)
    )
    assert run(*_arguments("report", out, digits)).code == 0
    assert len(seen) == len(set(seen)) > 10
