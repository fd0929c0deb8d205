"""What circuits are made of: the bodies that memories, multipliers and decoders can have."""

from pvq_hw.target.architectures import ARCHITECTURES, Architecture

__all__ = ["PLAIN_BODIES", "bodies", "device_of"]

PLAIN_BODIES = ("behavioral", "verilog")
"""Bodies of no device: for simulation, and for Verilog that any tool reads."""


def bodies() -> tuple[str, ...]:
    """All bodies: those of no device, and one of each architecture's primitives."""
    return (*PLAIN_BODIES, *ARCHITECTURES.kinds())


def device_of(body: str) -> Architecture | None:
    """The architecture whose primitives a body is of; None for those of no device."""
    return None if body in PLAIN_BODIES else ARCHITECTURES.named(body)
