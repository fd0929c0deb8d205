"""What a multiplier without DSP blocks takes, as one feature of every core's estimate."""

from pvq_hw.engine.core import CoreBase

__all__ = ["serial_bits"]

_PIPELINED = 0.65


def serial_bits(spec: CoreBase) -> float:
    """Adder bits of a core's shift-add multiplier: its stages, each as wide as the product so far.

    One of a product a cycle is a tree of adders (`gateware.arith.multiplier`), which takes as much
    as so many bits of these stages. 0 where the multiplier is another.
    """
    if not spec.multiplies.paced:
        return 0.0
    if spec.multiplier_interval == 1:
        return _PIPELINED * spec.acc_bits * spec.mult_bits
    stages = -(-(spec.mult_bits + 1) // spec.multiplier_interval)
    return float(stages * (spec.acc_bits + spec.mult_bits))
