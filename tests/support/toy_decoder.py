"""A code from outside the packages, file 2 of 2: the circuit of a lane, and its reference."""

from collections.abc import Iterator

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from toy_code import AbsoluteCode

from gateware.core.decoder import lane_code, lane_decoder
from sim.reference import ReferenceCore, code_reference


class AbsoluteDecoder(wiring.Component):
    """Registers what a lane code says; the address needs no walk."""

    def __init__(self, code: AbsoluteCode, address_bits: int, based: bool) -> None:
        base = {"base": In(address_bits)} if based else {}
        super().__init__(
            {
                "code": In(lane_code(code)),
                "valid": In(1),
                "clear": In(1),
                "address": Out(address_bits),
                "nonzero": Out(1),
                "negative": Out(1),
                "shift": Out(code.shift_bits),
                **base,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += [
            self.address.eq(self.code.gap),
            self.nonzero.eq(self.valid & ~self.code.gap.all()),
            self.negative.eq(self.valid & self.code.sign),
            self.shift.eq(self.code.shift),
        ]
        return m


@lane_decoder.of(AbsoluteCode)
def _decoder(code: AbsoluteCode, address_bits: int, based: bool, body: str) -> AbsoluteDecoder:
    return AbsoluteDecoder(code, address_bits, based)


@code_reference.of("absolute")
def _pulses(core: ReferenceCore) -> Iterator[tuple[int, int, int, int, int]]:
    code, groups = core.spec["code"], core.spec["groups"]
    bits, lanes = code["gap_bits"], code["lanes"]
    size = bits + 1 + code["shift_bits"]
    which = 0
    for word in core.codes:
        for lane in range(lanes):
            part = word >> lane * size & 2**size - 1
            address = part & 2**bits - 1
            if address != 2**bits - 1:
                sign, shift = part >> bits & 1, part >> bits + 1
                yield which // groups, which % groups, address * lanes + lane, sign, shift
        which += word >> lanes * size
