"""Every kind of layer: importing this module imports them all."""

from pvq_hw.network import join, table, window
from pvq_hw.network.layer import Layer, registered_layers

__all__ = ["layer_kinds"]

_MODULES = (join, table, window)  # their layers register themselves


def layer_kinds() -> dict[str, type[Layer]]:
    """The known layer classes by their ``kind``."""
    return registered_layers()
