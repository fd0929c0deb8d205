"""Control of cores that read windows as pixels come is proven for any pauses, and no mutant is."""

from dataclasses import replace

import pytest
from control_mutants import changed, unit_mutants
from proof_cases import ship
from random_graphs import RandomNetwork, build

from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.errors import CheckError, InputError, PvqError
from sim.proof.netlist import read_units
from sim.proof.raster_handshakes import check_depthwise_handshakes, check_pixel_windows

# Windows of a map with padding, whose last ones wait for pixels behind it; of one without; with a
# stride, and two rows a channel.
PADDED = {"shape": (5, 6, 3), "rows": 3, "pads": ((1, 1), (1, 1))}
CASES = {
    "depthwise": (PADDED, {"groups": 3}, {"depthwise": {"conv0"}}, 65),
    "pixel": (PADDED | {"shape": (5, 6, 2), "rows": 4}, {}, {"ends": (2, 1)}, 99),
    "direct": (PADDED | {"shape": (5, 6, 2), "rows": 4}, {},
               {"widths": {"conv0": 4}, "ends": (2, 4)}, 67),
    "strided": ({"shape": (6, 5, 1), "rows": 4, "kernel": (3, 2), "stride": (2, 1),
                 "pads": ((1, 0), (0, 0))}, {}, {"family": "hx8k"}, 89),
    "several": ({"shape": (5, 4, 2), "rows": 4, "stride": (2, 1), "pads": ((1, 0), (0, 1))},
                {"groups": 2}, {"depthwise": {"conv0"}, "family": "up5k"}, 61),
}  # fmt: skip
# What is changed of which cell of which core, and what is said.
FIXED = {
    ("depthwise", "queue.take", "only B"): "activations come with transfers and go with steps",
    ("depthwise", "queue._05_", "not reset"): "after reset, enough for the next map are counted",
    ("depthwise", "emit", "only A"): "places are the queue's",
    ("depthwise", "walk._018_", "not counted"): "must be read with another 'row'",
    ("depthwise", "walk._041_", "only A"): "a map must begin when those before can end",
    ("depthwise", "walk._015_", "not counted"): "counters must go round in 18 steps",
    ("pixel", "settled", "only A"): "a window that is read goes into the adders",
    ("pixel", "walk._029_", "only A"): "must be read with its pixel",
    ("pixel", "walk._062_", "always"): "'collector.walk.pause' must move with steps alone",
    ("pixel", "walk._004_", "only A"): "read as soon as it is complete and has a place",
    ("pixel", "walk._056_", "not reset"): "reset must begin with a map's first pixel",
}
# No state that the walk can have tells them from what they are: all are run.
SAME = {
    "depthwise": {"_026_ A", "_034_ B", "_036_ A", "opens never", "_033_ never", "_033_ always",
                  "_035_ always", "_048_ never", "_069_ never", "_070_ never"},
    "pixel": {"_022_ A", "_029_ B", "_032_ A", "opens never", "_028_ never", "_028_ always",
              "_031_ always", "_044_ never", "_061_ never", "_062_ never"},
}  # fmt: skip
OURS = ("queue.", "walk.", "window", "places", "emit", "settled")


def netlist_of(folder, name):
    """A convolution's core, and what shows its control."""
    sizes, more, options, _ = CASES[name]
    shape, rows, kernel = (sizes.get(k, (3, 3)) for k in ("shape", "rows", "kernel"))
    geometry = {k: v for k, v in sizes.items() if k in ("pads", "stride")}
    net = RandomNetwork(8, shape)
    net.conv(net.input, rows, kernel, k=16, **geometry, **more)
    if "depthwise" not in options:
        options = options | {"unrolled": {"conv0"}, "by_pixel": {"conv0"}}
    built = build(net, frames=2, **options)
    unit = built.graph.units[-1]
    return read_units(ship(folder / "out", built), [unit.name])[unit.name], unit


def check(netlist, unit):
    if isinstance(unit.core, DepthwiseSpec):
        return check_depthwise_handshakes(netlist, unit.core)
    return check_pixel_windows(netlist, unit.core, unit.window)


@pytest.fixture(scope="module", params=["depthwise", "pixel"])
def core(request, tmp_path_factory):
    return request.param, *netlist_of(tmp_path_factory.mktemp(request.param), request.param)


def test_no_window_is_lost_or_made_whatever_the_pauses(core):
    name, netlist, unit = core
    assert check(netlist, unit) == CASES[name][-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["direct", "strided", "several"])
def test_other_maps_and_adders(tmp_path, name):
    assert check(*netlist_of(tmp_path, name)) == CASES[name][-1]


def named_mutants(netlist):
    """Those of the queue, the walk, the window memories and the places of results."""
    for _, kind, cell in unit_mutants(netlist):
        names = [name.removeprefix("collector.") for name, bits in netlist.nets.items()
                 if bits == cell.output]  # fmt: skip
        if any(name.startswith(OURS) for name in names):
            yield min(names, key=len), kind, cell


def test_other_steps_windows_and_places_are_found(core):
    name, netlist, unit = core
    found = {(name, cell, kind): instead for cell, kind, instead in named_mutants(netlist)}
    for key, line in FIXED.items():
        if key[0] == name:
            with pytest.raises(PvqError, match=line):
                check(changed(netlist, found[key]), unit)


def test_activations_that_are_mixed_up_are_found(core):
    name, netlist, unit = core
    if name == "pixel":  # what follows is the same of both but for the frame
        frame = netlist.nets["frame"][::-1]
        other = replace(netlist, nets={**netlist.nets, "frame": frame})
        with pytest.raises(CheckError, match="a frame is a window"):
            check(other, unit)
        return
    memories = {c.name: c for c in netlist.cells if c.type == "$mem_v2"}
    (lines,) = (c for n, c in memories.items() if n.startswith("window") and "lines" in n)
    for cell, port, line in (
        (lines, "WR_DATA", "rows above are kept"),
        (lines, "RD_ADDR", "rows above are kept"),
        (memories["queue.ram.mem"], "WR_DATA", "activations are used in order"),
    ):
        other = replace(cell, ports={**cell.ports, port: cell.ports[port][::-1]})
        with pytest.raises(CheckError, match=line):
            check(changed(netlist, other), unit)
    other = replace(netlist, nets={**netlist.nets, "window": netlist.nets["window"][::-1]})
    with pytest.raises(CheckError, match="windows are what has come"):
        check(other, unit)


@pytest.mark.slow
def test_no_mutant_of_the_control_is_proven(core):
    name, netlist, unit = core
    count = 0
    for cell, kind, instead in named_mutants(netlist):
        if f"{cell.removeprefix('walk.')} {kind.split()[-1]}" in SAME[name]:
            continue
        other = changed(netlist, instead)
        with pytest.raises((CheckError, InputError)):
            pytest.fail(f"{cell}, {kind}: {check(other, unit)}")
        count += 1
    assert count > 120
