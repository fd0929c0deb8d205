"""Every kind of layer: importing this module imports them all."""

from pvq_hw.network import decision, join, part, table, window
from pvq_hw.network.layer import LAYERS

__all__ = ["LAYERS"]

_MODULES = (decision, join, part, table, window)  # their layers register themselves
