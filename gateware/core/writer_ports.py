"""What writers of activation memories have in common: their ports, and how they read windows."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Member, Out, connect, flipped

from gateware.arith.activation import activation_layout
from gateware.units.line_buffer import WindowReader
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.line_buffer import WindowSpec

__all__ = ["read_windows", "writer_ports"]


def writer_ports(
    x: IntFormat, taken: int, *, enables: int, address_bits: int, data_bits: int
) -> dict[str, Member]:
    """Ports of what writes a stream of activations, ``taken`` a transfer, into a memory of two
    halves: ``release`` says that a half has been read, ``written`` that one is complete."""
    return {
        "i": In(stream.Signature(activation_layout(x, taken))),
        "release": In(1),
        "written": Out(1),
        "w_en": Out(enables),
        "w_addr": Out(address_bits),
        "w_data": Out(data_bits),
    }


def read_windows(m: Module, writer: Any, window: WindowSpec, free: Signal) -> WindowReader:
    """Adds a writer's reader of windows, which starts one while a half is ``free``; a window is
    written with its last columns.

    Parameters
    ----------
    m : Module
    writer : Component
        With the ports of `writer_ports`, and ``body``.
    window : WindowSpec
    free : Signal
        Counts the halves that are free.
    """
    m.submodules.reader = reader = WindowReader(window, writer.body)
    connect(m, flipped(writer.i), reader.i)
    m.d.comb += [reader.go.eq(free != 0), writer.written.eq(reader.valid & reader.last)]
    m.d.sync += free.eq(free + writer.release - reader.start)
    return reader
