"""Decoder of one lane's code: gap, sign and shift in, bank address and leaf controls out."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pvq_hw.codes import PulseCode

__all__ = ["LaneDecoder", "lane_code"]


def lane_code(code: PulseCode) -> data.StructLayout:
    """Layout of a lane code, least significant field first; see `pvq_hw.codes`."""
    return data.StructLayout({"gap": code.gap_bits, "sign": 1, "shift": code.shift_bits})


class LaneDecoder(wiring.Component):
    """Walks a bank: the address of each pulse is the one before plus its gap.

    Outputs are registered, one cycle after ``code``. One code a cycle; where ``valid`` is low the
    address stays and the outputs are those of an idle lane (``nonzero`` and ``negative`` low).
    Only valid words with ``last`` set the address back, to ``base``; so after a reset the control
    around it must see to it that a group starts.

    Parameters
    ----------
    code : PulseCode
    address_bits : int
    based : bool
        Whether groups have bases other than 0.

    Members
    -------
    code : lane code, see `lane_code`
    valid, last : the word's flags
    base : first address of the group that follows (if ``based``)
    address, nonzero, negative, shift : the pulse
    """

    def __init__(self, code: PulseCode, address_bits: int, *, based: bool = False) -> None:
        self.format, self.address_bits, self.based = code, address_bits, based
        ports = {
            "code": In(lane_code(code)),
            "valid": In(1),
            "last": In(1),
            "address": Out(address_bits),
            "nonzero": Out(1),
            "negative": Out(1),
            "shift": Out(code.shift_bits),
        }
        if based:
            ports["base"] = In(address_bits)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Reset brings the walk to the first group's base, which is 0.
        walk = Signal(self.address_bits)
        here = Signal(self.address_bits)
        m.d.comb += here.eq(walk + self.code.gap)
        start = self.base if self.based else 0
        with m.If(self.valid):
            m.d.sync += walk.eq(Mux(self.last, start, here))
        address = Signal(self.address_bits, reset_less=True)
        nonzero, negative = Signal(), Signal()
        shift = Signal(self.format.shift_bits, reset_less=True)
        m.d.sync += [
            address.eq(here),
            nonzero.eq(self.valid & ~self.code.gap.all()),
            negative.eq(self.valid & self.code.sign),
            shift.eq(self.code.shift),
        ]
        m.d.comb += [
            self.address.eq(address),
            self.nonzero.eq(nonzero),
            self.negative.eq(negative),
            self.shift.eq(shift),
        ]
        return m
