"""Shared engines as proofs read them."""

from types import SimpleNamespace

from proof_cases import ship
from random_layers import Case, make_chain

from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import GraphSpec
from pvq_hw.engine.shared_core import make_shared_core
from pvq_hw.engine.units import CoreUnit
from sim.proof.engine_sums import EngineLayers
from sim.proof.netlist import read_units

__all__ = ["chain_of", "engine_of", "layers_of"]

U5, S8 = IntFormat(5, False), IntFormat(8, True)


def engine_of(folder, graph, images):
    out = ship(folder / "out", SimpleNamespace(graph=graph, images=images))
    (unit,) = graph.units
    return read_units(out, [unit.name])[unit.name], unit.core


def chain_of(folder, family, **options):
    """Layers of signed and unsigned activations, which end in three ways."""
    layers = layers_of(family, **options)
    unit = CoreUnit("engine", ("i",), ("o",), layers.spec)
    return engine_of(folder, GraphSpec((unit,)), {layers.spec.name: layers.image})


def layers_of(family, **options):
    """The same by the network's numbers."""
    chain = make_chain(1, 5, S8, Case(4, 4, 2), Case(3, 4, 2, S8, shift=9), Case(2, 2, 2, U5))
    tensors = chain.network.tensors()
    layers = [(layer, tensors[layer.input]) for layer in chain.network.layers]
    spec, image = make_shared_core(layers, 2, family=family, **options)
    return EngineLayers(spec, chain.network.layers, image)
