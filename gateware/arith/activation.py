"""Payload of the activation streams."""

from amaranth.hdl import Shape
from amaranth.lib import data

from pvq_hw.arith.formats import IntFormat

__all__ = ["activation_layout", "activation_shape"]


def activation_shape(format: IntFormat) -> Shape:
    """Shape of an activation. Binary ones are one unsigned bit: 1 stands for -1, 0 for +1."""
    return Shape(format.bits, format.signed and not format.binary)


def activation_layout(format: IntFormat, frames: int) -> data.ArrayLayout:
    """One activation of each of V frames."""
    return data.ArrayLayout(activation_shape(format), frames)
