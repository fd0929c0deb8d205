"""A model of the energy per inference: operations counted, energies from the literature.

It is a model and no measurement: dynamic energy of the datapath only, without static power, the
UART, the pins and routing beyond the average that the FPGA factor stands for. It is for comparing
one network with another and pulses with plain 8-bit weights, which are counted the same way.

Energies: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
45 nm at 0.9 V: a 32-bit addition 0.1 pJ, an 8-bit multiplication 0.2 pJ, 64 bits out of an 8 KB
memory 10 pJ. Logic in LUTs takes 14 times as much as in an ASIC: I. Kuon, J. Rose, "Measuring the
gap between FPGAs and ASICs", IEEE TCAD 26(2), 2007; hard memories and multipliers are taken as
the ASIC's. All is scaled by the square of the core voltage (40 nm is taken as 45). The clock of
a register bit is an assumption: as much as one bit of an addition.
"""

from dataclasses import dataclass
from typing import Any

from pvq_hw.target.boards import Target

__all__ = ["LABEL", "Operations", "energy_nj", "int8_operations"]

LABEL = (
    "model, not a measurement: operation energies of Horowitz (ISSCC 2014, 45 nm) x 14 for LUTs "
    "(Kuon and Rose 2007), scaled by voltage; static power not counted"
)

_ADD_BIT_PJ = 0.1 / 32
_MULTIPLY_BIT2_PJ = 0.2 / 64
_READ_BIT_PJ = 10 / 64
_REGISTER_BIT_PJ = _ADD_BIT_PJ
_LUT_FACTOR = 14
_REFERENCE_VOLTS = 0.9


@dataclass(frozen=True)
class Operations:
    """What happens in one inference, added up over its cycles.

    Parameters
    ----------
    add_bits : int
        Additions times their width.
    multiply_bits2 : int
        Multiplications times both their widths.
    read_bits : int
        Bits read from block RAM.
    register_bits : int
        Flip-flops times clock cycles.
    """

    add_bits: int = 0
    multiply_bits2: int = 0
    read_bits: int = 0
    register_bits: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(
            self.add_bits + other.add_bits,
            self.multiply_bits2 + other.multiply_bits2,
            self.read_bits + other.read_bits,
            self.register_bits + other.register_bits,
        )

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return dict(vars(self))


def energy_nj(operations: Operations, target: Target, *, hard_multiplier: bool) -> float:
    """Modelled energy in nanojoules of the operations on the target's device."""
    volts = (target.device.core_volts / _REFERENCE_VOLTS) ** 2
    logic = operations.add_bits * _ADD_BIT_PJ + operations.register_bits * _REGISTER_BIT_PJ
    multiply = operations.multiply_bits2 * _MULTIPLY_BIT2_PJ
    multiply *= 1 if hard_multiplier else _LUT_FACTOR
    read = operations.read_bits * _READ_BIT_PJ
    return (logic * _LUT_FACTOR + multiply + read) * volts / 1000


def int8_operations(
    rows: int, n: int, x_bits: int, lanes: int, registers: int, requantize: Operations
) -> Operations:
    """The same layer with plain 8-bit weights on as many lanes: a multiplication per weight.

    ``registers`` flip-flops are clocked while ``rows * n / lanes`` cycles pass; weights and
    activations are read once per multiplication. ``requantize`` is the layer's own share of the
    one multiplication per output.
    """
    macs = rows * n
    width = 8 + x_bits + max(1, n - 1).bit_length()
    cycles = -(-macs // lanes)
    return requantize + Operations(
        add_bits=macs * width,
        multiply_bits2=macs * 8 * x_bits,
        read_bits=macs * (8 + x_bits),
        register_bits=registers * cycles,
    )
