"""The component of a core's specification, whatever its kind."""

from gateware.core.int8_core import Int8Core
from gateware.core.pulse_core import LayerCore
from gateware.core.unrolled_core import UnrolledCore
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.int8_core import Int8Spec
from pvq_hw.engine.line_buffer import WindowSpec
from pvq_hw.engine.pulse_core import CoreSpec
from pvq_hw.engine.unrolled_core import UnrolledSpec

__all__ = ["core_component"]


def core_component(
    spec: CoreBase,
    image: CoreImage,
    *,
    body: str = "behavioral",
    window: WindowSpec | None = None,
) -> LayerCore | UnrolledCore:
    """A `LayerCore`, an `Int8Core` where the weights are plain 8-bit ones, or an `UnrolledCore`."""
    if isinstance(spec, UnrolledSpec):
        return UnrolledCore(spec, image, body=body)
    if isinstance(spec, Int8Spec):
        return Int8Core(spec, image, body=body, window=window)
    assert isinstance(spec, CoreSpec)
    return LayerCore(spec, image, body=body, window=window)
