"""A depthwise core's sums: its taps, adders and words, read as cells.

A tap's leaf is its activation, or what that is with all bits inverted, where the weight has the
leaf's bit and the tap is within the map, and otherwise 0. The adders give the sum of all leaves,
each as often as its bit is worth. The words that meet a window are its row's: the one of weights is
read with the window, and those of multipliers and biases follow the rows.
"""

from typing import Any

import numpy as np

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.core import CoreImage
from pvq_hw.engine.depthwise_core import DepthwiseSpec
from pvq_hw.errors import CheckError
from sim.proof.claims import Claims, View
from sim.proof.cones import Bits, Cones
from sim.proof.formulas import Solver
from sim.proof.netlist import Netlist
from sim.proof.roms import read_rom
from sim.proof.wires import Forms

__all__ = ["check_planes", "check_taps", "check_words"]


def check_taps(netlist: Netlist, spec: DepthwiseSpec) -> int:
    """Shows of every leaf that it is what the module says, for all windows and words; returns how
    many leaves.

    Raises
    ------
    CheckError
        A leaf is another function of its tap.
    InputError
        The solver is not installed.
    """
    _Taps(netlist, spec).run()
    return sum(spec.magnitudes)


def _leaves(netlist: Netlist, spec: DepthwiseSpec) -> dict[tuple[int, int], Bits]:
    """Leaves by tap and bit of the magnitude."""
    found = {}
    for k in range(spec.planes):
        taps = [tap for tap, bits in enumerate(spec.magnitudes) if bits > k]
        for tap in taps:
            name = f"sums.leaf{tap}_{k}"
            if name in netlist.nets or len(taps) > 1:
                found[tap, k] = netlist.net(name)
            else:  # A tree of one leaf gives it under another name.
                late = netlist.net(f"sums.plane{k}_0")
                found[tap, k] = [Cones(netlist).before(bit, resets=False) for bit in late]
    return found


class _Taps(Claims):
    """The claims about leaves."""

    def __init__(self, netlist: Netlist, spec: DepthwiseSpec) -> None:
        super().__init__(netlist, f"Core {spec.name!r}", 8, Solver())
        self._spec = spec

    def _invariants(self, v: View) -> dict[str, Any]:
        return {}

    def _empty(self, v: View) -> dict[str, Any]:
        return {}

    def _steps(self) -> dict[str, Any]:
        s, n, spec = self._s, self._n, self._spec
        claims, place = {}, 0
        window, inside, word = (n.net(name) for name in ("window", "sums.inside_", "sums.word"))
        leaves = _leaves(n, spec)
        for tap, bits in enumerate(spec.magnitudes):
            x = self._now.bits(window[tap * spec.x.bits : (tap + 1) * spec.x.bits])
            x = s.resize(x, spec.leaf_bits, signed=spec.x.signed)
            nothing = s.number(0, spec.leaf_bits)
            x = s.choose(self._now.one(inside[tap]), x, nothing)
            negative = bits and self._now.one(word[place + bits])
            for k in range(bits):
                value = s.choose(negative, s.op("BV_NOT", [x]), x)
                claims[f"leaf {k} of tap {tap} is its activation"] = s.same(
                    self._later.bits(leaves[tap, k]),
                    s.choose(self._now.one(word[place + k]), value, nothing),
                )
            place += bits + 1 if bits else 0
        return claims


def check_planes(netlist: Netlist, spec: DepthwiseSpec) -> int:
    """Follows leaves through the adders to the multiplier's operand: each must be in the sum as
    often as its bit of a magnitude is worth, from the cycle of the window. Returns how many adders.

    The sum is cut to ``spec.acc_bits``, which hold it: a row has no other weights than its own.
    """
    where = f"Core {spec.name!r}"
    leaves = _leaves(netlist, spec)
    bits = netlist.either("requantizer.a", "requantizer.acc")
    cones = Cones(netlist)
    for _ in range(spec.row_stage - spec.sum_stage):
        bits = [cones.before(bit, resets=False) for bit in bits]
    if not leaves:
        if any(bit != "0" for bit in bits):
            raise CheckError(f"{where}: sums of no weights must be 0")
        return 0
    inputs = [tuple(leaf) for leaf in leaves.values()]
    forms = Forms(netlist, IntFormat(spec.leaf_bits, True), inputs, in_step=True)
    whole = tuple(cones.maker(bits[0], "$dff").output)
    wide = [*whole, *[whole[-1]] * len(bits)]
    form = forms.of(whole) if bits == wide[: len(bits)] else None
    weights = np.array([1 << k for _, k in leaves])
    if form is None or not np.array_equal(form.weights, weights):
        raise CheckError(f"{where}: a sum must have each bit of its weights once")
    if form.level != spec.tree_levels + spec.plane_levels:
        raise CheckError(f"{where}: sums must be there when they are multiplied")
    return forms.adders


def check_words(netlist: Netlist, spec: DepthwiseSpec, image: CoreImage) -> int:
    """Follows the words of weights, multipliers and biases from where they are used to their
    memories: contents and latencies must be the specification's. Returns how many words.

    That multipliers and biases are read in the order of the rows is part of
    `sim.proof.raster_handshakes.check_depthwise_handshakes`; the row of a window's weights is the
    walk's.
    """
    roles = ["weights", "bias", *(["mult"] if spec.multiplies.stored else [])]
    ends = {
        "weights": ("sums.word",),
        "mult": ("requantizer.b", "requantizer.mult"),
        "bias": ("requantizer.bias", "bias"),
    }
    count = 0
    for role in roles:
        latency = spec.code_latency if role == "weights" else spec.params_latency
        wanted = spec.contents(image)[spec.memory_name(role)]
        found = read_rom(netlist, role, latency)
        address = netlist.nets.get("walk.row") if role == "weights" else None
        same = found.words == tuple(wanted) and (address is None or found.address == address)
        if not same or not any(netlist.nets.get(end) == found.data for end in ends[role]):
            raise CheckError(f"Core {spec.name!r}: words of {role} must be its image's")
        count += len(wanted)
    return count
