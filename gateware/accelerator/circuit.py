"""The circuit of a network: a chain of cores, or a graph of units."""

from collections.abc import Sequence

from amaranth.lib import wiring

from gateware.accelerator.accelerator import Accelerator
from gateware.accelerator.batch import BatchAccelerator
from gateware.accelerator.graph import GraphAccelerator
from pvq_hw.engine.batch import is_serial
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec

__all__ = ["make_circuit"]


def make_circuit(
    specs: Sequence[CoreBase],
    images: Sequence[CoreImage],
    graph: GraphSpec | None = None,
    *,
    body: str = "behavioral",
) -> wiring.Component:
    """An `Accelerator`, or with a graph of the same cores a `GraphAccelerator`."""
    if graph is None and is_serial(specs):
        return BatchAccelerator(specs, images, body=body)
    if graph is None:
        return Accelerator(specs, images, body=body)
    named = {spec.name: image for spec, image in zip(specs, images, strict=True)}
    return GraphAccelerator(graph, named, body=body)
