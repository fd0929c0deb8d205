"""Verbs of an accelerator whose codes are loaded after configuration."""

import json
from dataclasses import replace

import numpy as np
import pytest
from board_port import ResponderPort
from cli_tools import BUNDLED, MODEL, refused, reseal, run, twin

import pvq_hw
from pvq_hw.engine.spram_image import CODES_FILE, FLASH_OFFSET, code_crc, code_layout
from pvq_hw.errors import CheckError, InputError
from pvq_hw.flow import board as board_flow
from pvq_hw.flow.board import describe_output, program_output, run_output
from pvq_hw.host.board_model import Responder
from pvq_hw.host.code_memory import CodeMemory
from pvq_hw.host.link import Link
from pvq_hw.output.build_record import write_build
from pvq_hw.progress import Steps
from pvq_hw.tools import find as tools

pytestmark = pytest.mark.skipif(not tools.have_tool("yosys"), reason="compile needs yosys")
BOARD = ("--target", "icebreaker")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "d.npz"
    original = np.load(BUNDLED / "digits.npz")
    np.savez(place, x=original["x_test"][:100], y=original["y_test"][:100])
    return place


def _arguments(data, out, *args):
    """Of a quick compile."""
    options = ("--ratio", "3", "--quantizer", "plain", "--input-scale", "16")
    return ("compile", MODEL, *options, "--calibrate", data, "-o", out, *args)


@pytest.fixture(scope="module")
def out(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("codes") / "out"
    ran = run(*_arguments(data, place, *BOARD, "--code-memory", "spram", "--json"))
    assert ran.code == 0, ran.err
    return place


def test_compile_puts_the_codes_into_a_file_that_verifies(out, tmp_path):
    plan = json.loads((out / "plan.json").read_text())
    assert [layer["core"]["code_memory"] for layer in plan["layers"]] == ["spram", "spram"]
    assert plan["resources"]["sprams"] > 0
    assert run("verify", out).code == 0
    spoiled = twin(out, tmp_path / "out")
    path = spoiled / "image" / CODES_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ran = run("verify", spoiled, "--json")
    assert ran.code == 1
    assert {f["file"] for f in ran.json["findings"]} == {"image/codes.bin"}


def test_simulate_loads_them_first(out, data):
    ran = run("simulate", out, "--data", data, "--count", "3", "--json")
    assert ran.code == 0
    assert ran.json["mismatches"] == 0
    assert ran.json["interval_cycles"] == pvq_hw.load(out).plan.interval_cycles


def test_simulate_refuses_a_damaged_file(out, data, tmp_path):
    spoiled = twin(out, tmp_path / "out")
    path = spoiled / "image" / CODES_FILE
    path.write_bytes(path.read_bytes()[:-2])
    reseal(spoiled)
    args = ("simulate", spoiled, "--data", data, "--count", "1")
    refused(spoiled, "codes.bin must hold", *args)
    path.unlink()
    reseal(spoiled)
    refused(spoiled, "codes.bin must be a file", *args)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--target", "hx8k", "--code-memory", "spram"), "since hx8k has no SPRAM"),
        (
            ("--target", "icebreaker", "--config", "c.toml"),
            "must be block, spram, flash or auto, not 'tape'",
        ),
        (("--target", "ulx3s-25f", "--code-memory", "flash"), "no SPI flash is among its pins"),
        (
            (*BOARD, "--code-memory", "flash", "--engine", "folded"),
            "from the flash for a shared engine, not for folded layers",
        ),
        ((*BOARD, "--code-memory", "h=flash"), "from the flash for all layers, not for single"),
        (
            ("--target", "hx8k", "--flash-bits", "1", "--clock", "120"),
            "from the flash of hx8k at 50 MHz at most, not at half of 120 MHz; lower the clock",
        ),
        (("--target", "hx8k", "--flash-bits", "4"), "its IO2 and IO3 (wp, hold) aren't among the"),
        (("--target", "hx8k", "--flash-bits", "3"), "from the flash must be 1, 2 or 4, not 3"),
        (
            (*BOARD, "--flash-bits", "2", "--code-memory", "block"),
            "must come with codes from there, not in block",
        ),
        (
            (*BOARD, "--flash-bits", "2", "--engine", "folded"),
            "from the flash for a shared engine, not for folded layers",
        ),
    ],
)
def test_impossible_memories_are_one_line(tmp_path, data, args, text):
    (tmp_path / "c.toml").write_text('code_memory = "tape"\n')
    args = [str(tmp_path / "c.toml") if a == "c.toml" else a for a in args]
    refused(tmp_path, text, *_arguments(data, tmp_path / "out", *args))


def test_codes_are_asked_for_in_a_file_too(tmp_path, data):
    (tmp_path / "c.toml").write_text('target = "icebreaker"\ncode_memory = "block"\n')
    ran = run(*_arguments(data, tmp_path / "out", "--config", tmp_path / "c.toml"))
    assert ran.code == 0
    assert not (tmp_path / "out" / "image" / CODES_FILE).exists()


@pytest.fixture(scope="module")
def streamed(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("streamed") / "out"
    ran = run(*_arguments(data, place, "--target", "icebreaker", "--flash-bits", "4"))
    assert ran.code == 0, ran.err
    assert "bits a frame from the flash, 4 a clock, at 18 MHz" in ran.out
    return place


def test_codes_that_the_flash_gives_for_every_frame_are_a_file_that_verifies(
    streamed, tmp_path, data
):
    plan = json.loads((streamed / "plan.json").read_text())
    (core,) = (layer["core"] for layer in plan["layers"])
    assert (core["kind"], core["code_memory"]) == ("shared", "flash")
    stream = plan["code_stream"]
    assert (stream["bits_per_clock"], core["flash_bits"]) == (4, 4)
    assert stream["cycles_per_frame"] == stream["bits_per_frame"] // 2 + 88
    assert (plan["interval_cycles"], stream["flash_hz"]) == (stream["cycles_per_frame"], 18e6)
    file = (streamed / "image" / CODES_FILE).read_bytes()
    assert len(file) == 16 + -(-stream["bits_per_frame"] // 8)
    assert run("verify", streamed).code == 0
    assert "codes read" in (streamed / "report.html").read_text()
    spoiled = twin(streamed, tmp_path / "out")
    changed = bytearray(file)
    changed[16] ^= 0x80
    (spoiled / "image" / CODES_FILE).write_bytes(changed)
    findings = run("verify", spoiled, "--json").json["findings"]
    assert {finding["file"] for finding in findings} == {"image/codes.bin"}
    assert "layer 'h' word 0" in {finding["where"] for finding in findings}
    reseal(spoiled)
    refused(
        spoiled, "must hold the words of engine's codes", "simulate", spoiled, "--data", data,
        "--count", "1",
    )  # fmt: skip


def test_no_activation_decides_what_an_engine_reads_from_the_flash(streamed, tmp_path):
    proven = run("prove", twin(streamed, tmp_path / "out"), "--json")
    assert proven.code == 0, proven.err
    states = {(part["part"], part["unit"]): part["state"] for part in proven.json["parts"]}
    assert states["structure", "whole"] == states["wiring", "whole"] == "proven"


def test_program_writes_such_codes_and_nothing_else_loads_them(streamed, tmp_path, monkeypatch):
    accelerator = _built(streamed, tmp_path / "out")
    seen = []
    monkeypatch.setattr(board_flow, "program", lambda *args, **kinds: seen.append(kinds["codes"]))
    board_flow.program_output(accelerator, Steps())
    assert seen == [accelerator.out / "image" / CODES_FILE]
    with pytest.raises(InputError, match="reads them from its flash for every frame"):
        board_flow.load_output(accelerator, None, Steps())


def _built(out, place):
    folder = twin(out, place)
    (folder / "build").mkdir()
    (folder / "build" / "top.bin").write_bytes(b"bits")
    write_build(folder / "build", {"bitstream": "top.bin"})
    return pvq_hw.load(folder)


class Line(ResponderPort):
    """A port to a `Responder`."""

    def __init__(self, accelerator, flash=b""):
        specs, images = accelerator.plan.specs, accelerator.image.cores
        layout = code_layout(specs)
        memory = CodeMemory(layout, code_crc(layout, images), flash)
        network = accelerator.network
        super().__init__(
            Responder(
                describe_output(accelerator), lambda x: network.predict(x[None])[0].ravel(), memory
            )
        )


def test_program_writes_codes_into_the_flash_or_over_the_line(out, tmp_path, monkeypatch):
    accelerator = _built(out, tmp_path / "out")
    calls, lines = [], []

    def loader(bitstream, target, **options):
        calls.append((bitstream.name, target.name, options["codes"]))

    def connect(port, baud, **_):
        lines.append((port, baud, Line(accelerator)))
        return Link(lines[-1][2], timeout=0.05)

    monkeypatch.setattr(board_flow, "program", loader)
    monkeypatch.setattr(board_flow, "connect", connect)
    program_output(accelerator, Steps())
    program_output(accelerator, Steps(), "/dev/ttyX")
    codes = accelerator.out / "image" / CODES_FILE
    assert calls == [("top.bin", "icebreaker", codes), ("top.bin", "icebreaker", None)]
    ((port, baud, line),) = lines
    assert (port, baud) == ("/dev/ttyX", describe_output(accelerator).baud)
    assert line.board.codes.status.state.name == "READY"
    assert FLASH_OFFSET >= 2 * 104_090


def test_run_loads_the_codes_or_says_that_they_lack(out, data):
    accelerator = pvq_hw.load(out)
    x = np.load(data)["x"][:3]
    with pytest.raises(InputError, match=r"its flash holds none of them; write them with"):
        run_output(accelerator, "p", x, link=Link(Line(accelerator), timeout=0.05))
    link = Link(Line(accelerator), timeout=0.05)
    document = run_output(accelerator, "p", x, link=link, load=True)
    assert (document["frames"], document["mismatches"]) == (3, 0)
    flash = (out / "image" / CODES_FILE).read_bytes()
    document = run_output(accelerator, "p", x, link=Link(Line(accelerator, flash), timeout=0.05))
    assert document["mismatches"] == 0


def test_a_board_at_another_rate_is_refused_before_any_frame(out, data):
    accelerator = pvq_hw.load(out)
    x = np.load(data)["x"][:3]
    for load in (False, True):
        line = Line(accelerator)
        line.board.description = replace(line.board.description, baud=1)
        link = Link(line, timeout=0.05)
        with pytest.raises(CheckError, match=r"^Board's baud must be \d+, not 1$"):
            run_output(accelerator, "p", x, link=link, load=load)
        assert link.statistics.sent == 1


def test_accelerators_that_hold_their_codes_take_none(tmp_path, data):
    assert run(*_arguments(data, tmp_path / "out", *BOARD)).code == 0
    accelerator = pvq_hw.load(tmp_path / "out")
    with pytest.raises(InputError, match="There are no codes to load: this accelerator has them"):
        run_output(accelerator, "p", np.load(data)["x"], link=Link(Quiet()), load=True)
    built = _built(tmp_path / "out", tmp_path / "built")
    with pytest.raises(InputError, match="Only accelerators whose codes"):
        program_output(built, Steps(), "/dev/ttyX")


class Quiet:
    """A port that nothing may reach."""

    def close(self):
        pass
