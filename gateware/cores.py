"""The component of a core's specification, whatever its kind."""

from gateware.int8_core import Int8Core
from gateware.layer_core import LayerCore
from pvq_hw.core import CoreSpec
from pvq_hw.core_base import CoreBase, CoreImage
from pvq_hw.int8_core import Int8Spec
from pvq_hw.window import WindowSpec

__all__ = ["core_component"]


def core_component(
    spec: CoreBase,
    image: CoreImage,
    *,
    body: str = "behavioral",
    window: WindowSpec | None = None,
) -> LayerCore:
    """A `LayerCore`, or an `Int8Core` where the weights are plain 8-bit ones."""
    if isinstance(spec, Int8Spec):
        return Int8Core(spec, image, body=body, window=window)
    assert isinstance(spec, CoreSpec)
    return LayerCore(spec, image, body=body, window=window)
