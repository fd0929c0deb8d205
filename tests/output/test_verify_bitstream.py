"""A build from elsewhere: what its records may make `verify` do."""

import json

import pytest
from test_verify import write_output

from pvq_hw.errors import InputError
from pvq_hw.output import verify_bitstream
from pvq_hw.output.build_record import write_build
from pvq_hw.output.verify import verify_output

PACK = ["ecppack", "--input", "top.config", "--bit", "top.bit"]


@pytest.fixture
def built(tmp_path, monkeypatch):
    """An output with a build whose bitstream holds nothing; no tool runs."""
    out = tmp_path / "out"
    write_output(out)
    (out / "build").mkdir()
    (out / "build" / "top.bit").write_bytes(b"bits")
    record(out)
    monkeypatch.setattr(verify_bitstream, "unpack_bitstream", lambda *args: "")
    monkeypatch.setattr(verify_bitstream.tools, "run", lambda *args, **more: pytest.fail("ran"))
    return out


def record(out, commands=(PACK,), memories=None, bitstream="top.bit"):
    build = out / "build"
    (build / "build_top.json").write_text(json.dumps({"commands": commands}))
    (build / "memories.json").write_text(json.dumps({"netlist": "", "memories": memories or {}}))
    write_build(build, {"bitstream": bitstream})


@pytest.mark.parametrize(
    "commands",
    [
        5,
        [],
        [[]],
        [["sh", "-c", "true"]],
        [[*PACK[:-1], "../../victim"]],
        [[*PACK[:-1], "/victim"]],
        [[*PACK, 5]],
    ],
    ids=str,
)
def test_a_recorded_command_writes_nowhere_else(built, commands):
    record(built, commands)
    with pytest.raises(InputError, match=r"build_top.json(: commands| must have a command)"):
        verify_output(built, bitstream=True)


def test_a_recorded_bitstream_is_the_boards(built):
    victim = built / "build" / "victim"
    victim.write_text("kept")
    record(built, bitstream="victim")
    with pytest.raises(InputError, match=r"build.json must name the bitstream top.bit$"):
        verify_output(built, bitstream=True)
    assert victim.read_text() == "kept"


def test_broken_places_are_refused(built):
    (built / "build" / "memories.json").write_text('{"memories": [1]}')
    with pytest.raises(InputError, match=r"memories.json: netlist is missing$"):
        verify_output(built, bitstream=True)


def test_a_place_that_is_no_text_is_no_place(built):
    record(built, memories={"core.h_codes_0.ebr": [".bram_init 0"]})
    with pytest.raises(InputError, match=r"memories\['core.h_codes_0.ebr'\] must be text, not \["):
        verify_output(built, bitstream=True)
