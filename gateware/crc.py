"""The packets' CRC as a circuit: the same parameters as `pvq_hw.protocol.crc16`."""

from amaranth.lib.crc import Algorithm, Processor

from pvq_hw.protocol import CRC_INIT, CRC_POLYNOMIAL

__all__ = ["make_crc16"]


def make_crc16() -> Processor:
    """A byte-wide CRC-16/IBM-3740: one byte a cycle, the result one cycle later."""
    algorithm = Algorithm(
        crc_width=16,
        polynomial=CRC_POLYNOMIAL,
        initial_crc=CRC_INIT,
        reflect_input=False,
        reflect_output=False,
        xor_output=0,
    )
    return algorithm(data_width=8).create()
