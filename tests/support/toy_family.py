"""A family of devices from outside the packages: small, with block RAMs of its own shape, and
neither multipliers nor a PLL. What cores cost on it is taken from the HX8K."""

from dataclasses import replace

import tomli_w

from pvq_hw.target.architectures import ARCHITECTURES, architecture
from pvq_hw.target.boards import get_target
from pvq_hw.target.devices import DEVICES, Device, nextpnr_options
from pvq_hw.target.families import FAMILIES, Family
from pvq_hw.target.pll import pll_settings

__all__ = ["TOY", "board", "forget", "register"]

TOY = replace(
    architecture("ice40"), name="toy", logic_cell="cell", block_bits=5120,
    block_shapes=((20, 256), (10, 512)), dsp="",
)  # fmt: skip
DEVICE = Device("Toy-4K", "toy", "toy", "4k", 4096, 4096, 24, 0, 0, ("T144",), ("T144",))


def register():
    """Makes it known."""
    ARCHITECTURES.add(TOY)
    FAMILIES.add(Family("toy", "toy", 2, 1, 10, "serial", 16))
    for facts in FAMILIES.faces.values():
        facts.add("toy", facts["hx8k"])
    DEVICES[DEVICE.name] = DEVICE


@nextpnr_options.of("toy")
def _options(family, device, package, speed):
    return "--package", package


@pll_settings.of("toy")
def _no_pll(family, reference, wish):
    return ()


def forget():
    """What other tests see has two architectures."""
    ARCHITECTURES.forget("toy")
    FAMILIES.forget("toy")
    del DEVICES[DEVICE.name]


def board(folder):
    """A board with the device, from its file."""
    path = folder / "toy4k.toml"
    values = {
        "name": "toy4k", "board": "Toy board", "device": DEVICE.name, "package": "T144",
        "clock_mhz": 25.0, "baud": 1_000_000, "link": "pins 2 and 3", "source": "a drawing",
        "oscillator": {"mhz": 25.0}, "pins": {"clk": "1", "rx": "2", "tx": "3"},
    }  # fmt: skip
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return get_target(str(path))
