"""Decoder of one lane's code: gap, sign and shift in, bank address and leaf controls out."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gateware.arith.carry import gated_sum
from gateware.device.bodies import device_of
from pvq_hw.engine.pulse_code import CODES, Code, PulseCode
from pvq_hw.registry import Face

__all__ = ["LaneDecoder", "lane_code", "lane_decoder"]


def lane_code(code: Code) -> data.StructLayout:
    """Layout of a lane code, least significant field first; see `pvq_hw.engine.pulse_code`."""
    return data.StructLayout({"gap": code.gap_bits, "sign": 1, "shift": code.shift_bits})


class LaneDecoder(wiring.Component):
    """Walks a bank: the address of each pulse is the one before plus its gap.

    Outputs are registered, one cycle after ``code``. One code a cycle; where ``valid`` is low the
    address stays and the outputs are those of an idle lane (``nonzero`` and ``negative`` low).
    ``clear`` sets the address back, to ``base``: with the last word of a group, and after a reset,
    which alone does nothing here.

    Parameters
    ----------
    code : PulseCode
    address_bits : int
    based : bool
        Whether groups have bases other than 0.
    body : str
        See `gateware.device.bodies.bodies`. On ECP5 a walk is one register, whose start from
        0 is a gate in the LUTs of the carry chain; elsewhere it is one register with a clear for
        the next code and one for the address.

    Members
    -------
    code : lane code, see `lane_code`
    valid : whether there is a word
    clear : strobe, a group starts with the next word
    base : first address of the group that follows (if ``based``)
    address, nonzero, negative, shift : the pulse
    """

    def __init__(
        self,
        code: PulseCode,
        address_bits: int,
        *,
        based: bool = False,
        body: str = "behavioral",
    ) -> None:
        self.format, self.address_bits, self.based, self.body = code, address_bits, based, body
        ports = {
            "code": In(lane_code(code)),
            "valid": In(1),
            "clear": In(1),
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
        device = device_of(self.body)
        gated = device is not None and device.gated_carry and not self.based
        address = self._gated(m) if gated else self._cleared(m)
        nonzero, negative = Signal(reset_less=True), Signal(reset_less=True)
        shift = Signal(self.format.shift_bits, reset_less=True)
        # As a synchronous clear this takes the flip-flops' own reset and no LUTs. The shift is
        # cleared for simulators alone: a 0 shifted by what is unknown is unknown to them.
        with m.If(self.valid):
            m.d.sync += [
                nonzero.eq(~self.code.gap.all()),
                negative.eq(self.code.sign),
                shift.eq(self.code.shift),
            ]
        with m.Else():
            m.d.sync += [nonzero.eq(0), negative.eq(0), shift.eq(0)]
        m.d.comb += [
            self.address.eq(address),
            self.nonzero.eq(nonzero),
            self.negative.eq(negative),
            self.shift.eq(shift),
        ]
        return m

    def _cleared(self, m: Module) -> Signal:
        walk = Signal(self.address_bits, reset_less=True)
        address = Signal(self.address_bits, reset_less=True)
        here = Signal(self.address_bits)
        m.d.comb += here.eq(walk + self.code.gap)
        m.d.sync += address.eq(here)
        with m.If(self.clear):
            m.d.sync += walk.eq(self.base if self.based else 0)
        with m.Elif(self.valid):
            m.d.sync += walk.eq(here)
        return address

    def _gated(self, m: Module) -> Signal:
        # Yosys merges the lanes' registers of the same strobes.
        starting = Signal(init=1)
        address = Signal(self.address_bits, reset_less=True)
        with m.If(self.clear):
            m.d.sync += starting.eq(1)
        with m.Elif(self.valid):
            m.d.sync += starting.eq(0)
        with m.If(self.valid):
            m.d.sync += address.eq(gated_sum(m, self.code.gap, address, starting))
        return address


lane_decoder: Face[[int, bool, str], wiring.Component] = CODES.face("decoder")
"""The decoder of a lane's code, with `LaneDecoder`'s members and timing, given ``address_bits``,
``based`` and ``body`` as that takes them."""


@lane_decoder.of(PulseCode)
def _walk(code: PulseCode, address_bits: int, based: bool, body: str) -> LaneDecoder:
    return LaneDecoder(code, address_bits, based=based, body=body)
