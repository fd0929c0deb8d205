"""Payload of the activation streams, and the ports of what takes and gives one."""

from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from pvq_hw.arith.formats import IntFormat

__all__ = ["activation_layout", "activation_shape", "stream_ports"]


def activation_shape(format: IntFormat) -> Shape:
    """Shape of an activation. Binary ones are one unsigned bit: 1 stands for -1, 0 for +1."""
    return Shape(format.bits, format.signed and not format.binary)


def activation_layout(format: IntFormat, frames: int) -> data.ArrayLayout:
    """One activation of each of V frames."""
    return data.ArrayLayout(activation_shape(format), frames)


def stream_ports(
    x: IntFormat, out: IntFormat, taken: int = 1, given: int | None = None
) -> dict[str, Any]:
    """Ports of a component that takes a stream ``i`` of activations and gives a stream ``o``, with
    ``taken`` and ``given`` activations a transfer; as many at both unless ``given`` is given."""
    return {
        "i": In(stream.Signature(activation_layout(x, taken))),
        "o": Out(stream.Signature(activation_layout(out, taken if given is None else given))),
    }
