"""A board as a Python object and its self test, against the golden model of its end of the line."""

import json
import os
import pty
import threading
import tty
import zipfile

import numpy as np
import pytest
from board_port import BoardPort
from cli_tools import refused, run

import pvq_hw
from pvq_hw import CheckError, InputError, ToolError
from pvq_hw.flow.board import describe_output
from pvq_hw.flow.selftest import TracedPort
from pvq_hw.host import ports


@pytest.fixture(scope="module")
def accelerator(digits):
    return pvq_hw.load(digits.out)


@pytest.fixture(scope="module")
def data(digits):
    return pvq_hw.load_data(digits.test)


def test_a_board_predicts_as_the_accelerator(accelerator, data):
    port = BoardPort(accelerator)
    with pvq_hw.Board(port, accelerator) as board:
        assert repr(board).startswith(f"<Board {describe_output(accelerator).identity.hex()}: 64")
        found, profile = board.predict(data.x[:6], profile=True)
        assert found.dtype == np.float64
        assert np.array_equal(found, accelerator.predict(data.x[:6]))
        assert profile.frames == 6
        assert 0 < profile.latency_seconds < profile.seconds
        assert profile.frames_per_second == 6 / profile.seconds
        assert np.array_equal(board.classify(data.x[:6]), found.argmax(axis=1))
        assert board.counters().frames == 6 + 5 + 6
    assert port.closed


def test_a_board_without_its_accelerator_runs_integers(accelerator, data):
    x = accelerator.quantize_input(data.x[:3])
    with pvq_hw.Board(BoardPort(accelerator)) as board:
        assert np.array_equal(board.predict_integers(x), accelerator.predict_integers(data.x[:3]))
        with pytest.raises(InputError, match=r"Real values need the accelerator: give it as Board"):
            board.predict(data.x[:3])
    with pytest.raises(InputError, match="given by its port, or by its accelerator"):
        pvq_hw.Board()


def test_threads_take_turns_and_futures_keep_their_order(accelerator, data):
    golden = accelerator.predict(data.x[:40])
    with pvq_hw.Board(BoardPort(accelerator), accelerator) as board:
        futures = [board.submit(data.x[i : i + 4]) for i in range(0, 40, 4)]
        own = {}
        threads = [
            threading.Thread(target=lambda i=i: own.update({i: board.predict(data.x[i : i + 4])}))
            for i in range(0, 40, 4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert np.array_equal(np.concatenate([f.result() for f in futures]), golden)
        assert np.array_equal(np.concatenate([own[i] for i in sorted(own)]), golden)
        late = board.submit(data.x[:4])
    assert np.array_equal(late.result(), golden[:4])  # closing waits for it


def test_a_board_with_another_network_is_refused_and_closed(accelerator):
    port = BoardPort(accelerator, identity=bytes(8))
    with pytest.raises(CheckError, match="Board must hold network"):
        pvq_hw.Board(port, accelerator)
    assert port.closed


class Desk:
    """USB ports by name: what answers at each."""

    def __init__(self, monkeypatch, **ports_):
        self.ports = ports_
        monkeypatch.setattr(ports, "usb_ports", lambda: sorted(self.ports))
        monkeypatch.setattr(ports.find_port, "__kwdefaults__", {
            "ports": ports.usb_ports, "opened": self.open})  # fmt: skip

    def open(self, name, baud):
        if self.ports[name] is None:
            raise InputError(f"Port {name!r} cannot be opened: in use")
        return self.ports[name]


class Silent:
    def read(self, seconds):
        return b""

    def write(self, data):
        pass

    def close(self):
        self.closed = True


def test_the_port_is_found_by_what_answers(accelerator, monkeypatch):
    expected = describe_output(accelerator)
    right, silent = BoardPort(accelerator), Silent()
    desk = Desk(monkeypatch, a=None, b=silent, c=BoardPort(accelerator, identity=b"12345678"))
    with pytest.raises(InputError) as caught:
        ports.find_port(expected)
    assert str(caught.value) == (
        f"No board with network {expected.identity.hex()} was found: c holds network "
        "3132333435363738; load the bitstream with `pvq-hw program`, or give the port with --port"
    )
    assert silent.closed
    desk.ports = {"a": None, "d": right}
    assert ports.find_port(expected) == "d"
    assert right.closed  # free for whoever opens it next
    desk.ports = {"b": silent}
    with pytest.raises(InputError, match="nothing answers at b; load"):
        ports.find_port(expected)
    desk.ports = {}
    with pytest.raises(InputError, match="No serial port on USB was found; give one with --port"):
        ports.find_port(expected)


def test_only_ports_of_known_usb_vendors_are_asked(monkeypatch):
    class Found:
        def __init__(self, device, vid):
            self.device, self.vid = device, vid

    found = [Found("ttyS0", None), Found("ttyACM0", 0x2341), Found("ttyUSB0", 0x0403),
             Found("ttyUSB1", 0x0403)]  # fmt: skip
    monkeypatch.setattr(ports.list_ports, "comports", lambda: found)
    assert ports.usb_ports() == ["ttyUSB1", "ttyUSB0"]


def test_a_self_test_passes_and_leaves_its_evidence(accelerator, tmp_path):
    bundle = tmp_path / "test.zip"
    document = pvq_hw.selftest(accelerator, BoardPort(accelerator), frames=37, bundle=bundle)
    assert document["ok"]
    assert document["verdict"].startswith("37 golden vectors, 370 outputs: all as computed; ")
    assert document["counters"]["after"]["frames"] == 37
    with zipfile.ZipFile(bundle) as archive:
        kept = json.loads(archive.read("selftest.json"))
        wire = archive.read("wire.txt").decode().splitlines()
    assert kept == document
    assert kept["versions"]["manifest_sha256"] == accelerator.manifest["manifest_sha256"]
    assert wire[0].split()[1] == ">"
    assert wire[0].split()[2].startswith("505601")  # DESCRIBE
    assert any(line.split()[1] == "<" for line in wire)


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ({"wrong": lambda out: out + (np.arange(10) == 3)}, "20 of 200 outputs differ"),
        ({"spoil": lambda data: data[:-1] + b"!"}, "Board must answer"),
    ],
)
def test_a_self_test_fails_by_name(accelerator, tmp_path, fault, verdict):
    bundle, port = tmp_path / "test.zip", BoardPort(accelerator, **fault)
    if "wrong" in fault:
        document = pvq_hw.selftest(accelerator, port, frames=20, bundle=bundle)
        assert not document["ok"]
        assert document["verdict"] == verdict
    else:
        with pytest.raises(ToolError, match=verdict):
            pvq_hw.selftest(accelerator, port, frames=20, bundle=bundle, timeout=0.02)
    with zipfile.ZipFile(bundle) as archive:
        assert json.loads(archive.read("selftest.json"))["verdict"].startswith(verdict)


@pytest.mark.parametrize(
    ("counter", "verdict"),
    [
        ("frames", "the board counted 40 of 20 frames"),
        ("bad_crc", "20 packets with a wrong CRC"),
        ("truncated", "20 packets that broke off"),
    ],
)
def test_a_self_test_holds_the_boards_counters_against_what_was_sent(accelerator, counter, verdict):
    counts = {}

    def counted(out):
        counts[counter] += 1
        return out

    port = BoardPort(accelerator, wrong=counted)
    counts = port.board.counts
    document = pvq_hw.selftest(accelerator, port, frames=20)
    assert not document["ok"]
    assert document["verdict"] == verdict


def test_a_trace_ends_at_its_limit():
    class Endless(Silent):
        def read(self, seconds):
            return bytes(1 << 19)

    port = TracedPort(Endless())
    for _ in range(3):
        port.read(0)
    assert port.text().count("\n") == 3
    assert port.text().endswith("\n...\n")


def test_the_verb_over_a_pseudo_terminal(digits, accelerator, tmp_path):
    """From the command line to a board's model: passes, fails with status 1, and refuses."""
    master, line = pty.openpty()
    tty.setraw(line)
    port = BoardPort(accelerator)

    def serve():
        try:
            while data := os.read(master, 4096):
                port.write(data)
                os.write(master, port.coming)
                port.coming = b""
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    args = ("selftest", digits.out, "--port", os.ttyname(line), "--frames", 5)
    ran = run(*args, "--bundle", tmp_path / "b.zip")
    assert ran.code == 0, ran.err
    assert "Passed: 5 golden vectors, 50 outputs: all as computed" in ran.err + ran.out
    assert (tmp_path / "b.zip").exists()
    port.board.predict = lambda frame: np.zeros(10, dtype=np.int64)
    ran = run(*args, "--json")
    assert ran.code == 1
    assert not ran.json["ok"]
    refused(tmp_path, "There must be 1 to 1,000,000 frames, not 0", *args[:-1], 0)
    refused(tmp_path, "must be a file in a folder that exists", *args, "--bundle", tmp_path)
    os.close(line)
    os.close(master)


@pytest.mark.slow
def test_a_board_of_simulated_pins_predicts_as_the_accelerator(accelerator, data):
    with pvq_hw.Board.simulated(accelerator) as board:
        assert np.array_equal(board.predict(data.x[:2]), accelerator.predict(data.x[:2]))
        assert board.counters().frames == 2
