"""Boards on SPI: compiled for it, driven over it, in simulated pins and behind spidev."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from cli_tools import refused, run

import pvq_hw
from pvq_hw import InputError, ToolError
from pvq_hw.flow.board import describe_output
from pvq_hw.host.board_model import Responder
from pvq_hw.host.octets import FILL, Unstuffer, stuffed
from pvq_hw.host.serial_port import open_port

RNG = np.random.default_rng(3)
CALIBRATION = RNG.random((16, 6))
X = CALIBRATION[:4]


def _compiled(out, target="icebreaker", **options):
    layer = (RNG.normal(size=(3, 6)), RNG.normal(size=3), None)
    return pvq_hw.compile(
        [layer], out, target=target, quantizer="plain", ratio=1, calibrate=CALIBRATION, **options
    )


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory):
    return _compiled(tmp_path_factory.mktemp("spi") / "out", link="spi")


def test_the_plan_has_the_links_rate(accelerator):
    plan = accelerator.plan
    assert (plan.link, plan.baud) == ("spi", 6_000_000)
    assert plan.inferences_per_second_over_link == pytest.approx(6e6 / 8 / (8 + 6))
    assert pvq_hw.load(accelerator.out).plan == plan
    assert describe_output(accelerator).baud == 6_000_000


def test_a_board_on_spi_predicts_in_simulated_pins(accelerator):
    with pvq_hw.Board.simulated(accelerator) as board:
        assert np.array_equal(board.predict(X[:2]), accelerator.predict(X[:2]))
        assert board.counters().frames == 2


class FakeDevice:
    """spidev's, with the golden model of a board on the wires; chip select 7 is gone."""

    def open(self, bus, chip):
        if bus:
            raise FileNotFoundError(2, "No such file or directory")
        self.chip, self.open_at = chip, (bus, chip)

    def xfer2(self, octets):
        if self.chip == 7:
            raise OSError(5, "Input/output error")
        assert (self.mode, self.max_speed_hz, len(octets) <= 4096) == (0, 6_000_000, True)
        self.coming += stuffed(self.board.feed(self.apart.feed(bytes(octets))))
        now, self.coming = self.coming[: len(octets)], self.coming[len(octets) :]
        return list(now.ljust(len(octets), bytes((FILL,))))

    def close(self):
        self.closed = True


@pytest.fixture
def device(accelerator, monkeypatch):
    device = FakeDevice()
    network = accelerator.network
    device.board = Responder(
        describe_output(accelerator),
        lambda frame: network.predict(frame.reshape(1, -1))[0].reshape(-1),
    )
    device.apart, device.coming = Unstuffer(), b""
    monkeypatch.setitem(sys.modules, "spidev", SimpleNamespace(SpiDev=lambda: device))
    return device


def test_spidev_is_a_port(accelerator, device):
    with pvq_hw.Board("/dev/spidev0.1", accelerator) as board:
        assert np.array_equal(board.predict(X), accelerator.predict(X))
    assert (device.open_at, device.closed) == ((0, 1), True)
    port = open_port("/dev/spidev0.7", 6_000_000)
    with pytest.raises(ToolError, match=r"Port '/dev/spidev0.7' can no longer be used"):
        port.write(b"x")
    with pytest.raises(InputError, match=r"'/dev/spidev1.0' cannot be opened: No such file"):
        open_port("/dev/spidev1.0", 6_000_000)


def test_what_is_wrong_with_a_port_is_said_in_one_line(accelerator, digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spidev", None)
    with pytest.raises(InputError, match=r"needs the Python package spidev: pip install 'pvq-hw"):
        pvq_hw.Board("/dev/spidev0.0", accelerator)
    np.savez(tmp_path / "x.npz", x=X)
    args = "run", accelerator.out, "--data", tmp_path / "x.npz"
    wanted = "Port must be an SPI controller's, as in /dev/spidev0.0, since the board was compiled"
    refused(tmp_path, f"{wanted} with --link spi, not left out", *args)
    refused(tmp_path, f"{wanted} with --link spi, not '/dev/ttyUSB0'", *args,
            "--port", "/dev/ttyUSB0")  # fmt: skip
    refused(tmp_path, "Port must be a serial line's, since", "run", digits.out, "--data",
            digits.test, "--port", "/dev/spidev0.0")  # fmt: skip
    for verb in ("selftest", "load"):
        ran = run(verb, accelerator.out, "--port", "/dev/ttyUSB0")
        assert ran.code == 2


def test_a_link_that_the_board_has_not_is_refused_before_anything(tmp_path):
    with pytest.raises(InputError, match="colorlight-5a-75b-v8 has no pins for SPI"):
        _compiled(tmp_path / "out", link="spi", target="colorlight-5a-75b-v8")
    with pytest.raises(InputError, match="SPI must have 1 to 6,000,000 bits a second at a clock"):
        _compiled(tmp_path / "out", link="spi", baud=6_000_001)
    with pytest.raises(InputError, match="Link must be uart or spi, not 'i2c'"):
        _compiled(tmp_path / "out", link="i2c")
