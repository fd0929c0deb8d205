"""The targets agree with the boards' own files and with the devices' data sheets."""

import importlib
from dataclasses import replace

import pytest

from pvq_hw.errors import InputError
from pvq_hw.target.block_ram import BLOCK_SHAPES
from pvq_hw.target.boards import TARGETS, Target, get_target
from pvq_hw.target.families import family

pytest.importorskip("amaranth_boards")


def _platform(target: Target):
    module, name = target.platform.split(":")
    return getattr(importlib.import_module(module), name)()


def _frequency(platform) -> float:
    clock = next(r for r in platform.resources.values() if r.name == platform.default_clk)
    return clock.clock.frequency


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_agrees_with_board_file(target):
    platform = _platform(target)
    assert (platform.device, platform.package) == (target.device, target.package)
    if target.family == "ecp5":
        assert platform.speed == target.speed
    assert _frequency(platform) == target.crystal_mhz * 1e6


@pytest.mark.parametrize("name", [n for n in TARGETS if n != "orangecrab-25f"])
def test_uart_pins_are_the_boards(name):
    platform = _platform(TARGETS[name])
    uart = platform.resources["uart", 0]
    pins = {io.name: io.ios[0].names for io in uart.ios}
    assert (pins["rx"], pins["tx"]) == ([TARGETS[name].uart_rx], [TARGETS[name].uart_tx])


def test_orangecrab_uart_is_on_header_pins():
    platform = _platform(TARGETS["orangecrab-25f"])
    header = platform.connectors["io", 0].mapping
    target = TARGETS["orangecrab-25f"]
    assert (header["0"], header["1"]) == (target.uart_rx, target.uart_tx)


@pytest.mark.parametrize(
    ("name", "luts", "brams", "kibit", "dsps", "spram"),
    [
        ("icebreaker", 5280, 30, 120, 8, 1024),
        ("hx8k", 7680, 32, 128, 0, 0),
        ("ulx3s-25f", 24288, 56, 1008, 28, 0),
        ("ulx3s-85f", 83640, 208, 3744, 156, 0),
        ("orangecrab-25f", 24288, 56, 1008, 28, 0),
    ],
)
def test_device_figures(name, luts, brams, kibit, dsps, spram):
    t = get_target(name)
    assert (t.luts, t.brams, t.bram_bits, t.dsps, t.spram_bits) == (
        luts,
        brams,
        kibit * 1024,
        dsps,
        spram * 1024,
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_blocks_are_those_of_the_engine(target):
    device = family(target.engine)
    assert {w * d for w, d in BLOCK_SHAPES[device.blocks]} >= {target.bram_block_bits}
    assert (device.multiplier != "serial") == (target.dsps > 0)
    assert device.lutram == target.lut_ram


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)
def test_default_clock_and_baud_fit(target):
    target.check_clock(target.clock_mhz)
    divisor = target.clock_mhz * 1e6 / target.baud
    assert abs(round(divisor) - divisor) / divisor < 0.02
    with pytest.raises(InputError, match=f"Clock of {target.name} must be"):
        target.check_clock(1000.0)


def test_unknown_target_lists_the_known():
    with pytest.raises(
        InputError,
        match="Target must be one of icebreaker, hx8k, ulx3s-25f, ulx3s-85f, orangecrab-25f, "
        "not 'arty'",
    ):
        get_target("arty")


def test_targets_are_frozen_and_json_able():
    import json

    target = TARGETS["hx8k"]
    assert json.loads(json.dumps(target.to_json()))["luts"] == 7680
    assert replace(target, clock_mhz=24.0).name == "hx8k"
    with pytest.raises(AttributeError):
        target.luts = 1
