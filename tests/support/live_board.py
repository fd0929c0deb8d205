"""A small accelerator whose weights are loaded while it runs, its top, and its golden model."""

from dataclasses import replace

import numpy as np
from engine import random_layer, tensor
from stand_in import IDENTITY, S16, U8

from gateware.accelerator.accelerator import Accelerator
from gateware.device.live import LiveBus
from gateware.link.top import Top
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.kinds import make_layer_core, remade
from pvq_hw.engine.live_image import live_contents, live_layout
from pvq_hw.engine.units import Lookup
from pvq_hw.host.board_model import Responder
from pvq_hw.host.live_memory import LiveMemory
from pvq_hw.host.protocol import Description, WireFormat

U4 = IntFormat(4, False)


class Network:
    """Contents of the board's memories: an identity, and what it computes."""

    def __init__(self, board, graph, images, identity):
        self.graph, self.images = graph, images
        self.description = replace(board.description, identity=identity)
        self.contents = live_contents(graph, images, board.family)

    def compute(self, x):
        images = self.graph.named(self.images)
        last = self.graph.units[-1].name
        return self.graph.compute(images, np.asarray(x).reshape(1, -1))[last][0]


class LiveBoard:
    """Pulses, a table and 8-bit weights, with memories as one family has them.

    Attributes
    ----------
    layout, networks, input, output, description
    """

    def __init__(self, family="up5k", banks=2, networks=2):
        self.family = "ecp5" if family == "ecp5" else "ice40"
        self.banks = banks
        self.input, self.output = WireFormat(6, U8), WireFormat(2, S16)
        self.description = Description(self.input, self.output, 4_000_000, 10**6, 4, IDENTITY)
        layers = [self._layers(seed) for seed in range(networks)]
        shifts = [max(pair[k].shift for pair in layers) for k in (0, 1)]
        placed, self.networks = None, []
        for seed, pair in enumerate(layers):
            pair = [replace(layer, shift=s) for layer, s in zip(pair, shifts, strict=True)]
            x = tensor(6, U8), tensor(3, U4)
            if placed is None:
                cores = [
                    make_layer_core(layer, t, 2, family=family, spare=10, name=name)
                    for layer, t, name in zip(pair, x, "ab", strict=True)
                ]
                placed = [spec for spec, _ in cores]
            else:
                cores = [
                    remade(spec, layer, t, family)
                    for spec, layer, t in zip(placed, pair, x, strict=True)
                ]
            graph = self._graph(placed, seed)
            identity = bytes((seed,)) * 8
            images = [image for _, image in cores]
            self.networks.append(Network(self, graph, images, identity))
        self.layout = live_layout(self.networks[0].graph, self.family, Description.SIZE)
        for network in self.networks:
            assert live_layout(network.graph, self.family, Description.SIZE) == self.layout

    @property
    def checked(self):
        """Cycles in which all words are read back, and the banks have changed places."""
        return self.layout.size // self.layout.word_bytes * self.layout.check_steps + 200

    def _layers(self, seed):
        rng = np.random.default_rng(seed)
        # The first has the largest sums, and so room for the others.
        most = 3 if seed else 9
        first = random_layer(rng, 3, 6, U8, U4, density=0.6, largest=most)
        second = random_layer(rng, 2, 3, U4, S16, density=0.9, largest=most)
        return first, replace(second, encoding="int8")

    def _graph(self, specs, seed):
        """The two cores with a table between them."""
        graph = chain_graph(specs)
        first, second = graph.units
        entries = (tuple(np.random.default_rng(seed).permutation(16).tolist()),)
        table = Lookup("t", ("w_table",), first.outputs, U4, U4, 3, entries)
        return replace(graph, units=(replace(first, outputs=("w_table",)), table, second))

    def words(self, network):
        return self.layout.words(network.contents, network.description.encode())

    def top(self, body="behavioral", network=None):
        network = network or self.networks[0]
        told = self.layout.told(network.contents, network.description.encode())
        live = LiveBus(self.layout, self.banks, told)
        accelerator = Accelerator(network.graph, network.images, body=body, live=live)
        return Top(accelerator, self.description, 512, live=live, body=body)

    def responder(self):
        memory = LiveMemory(self.layout, self.words(self.networks[0]), self.banks)
        by_identity = {n.description.identity: n for n in self.networks}

        def predict(frame):
            return by_identity[memory.description.identity].compute(frame)

        return Responder(self.networks[0].description, predict, memory)

    def frames(self, count, seed=2):
        return np.random.default_rng(seed).integers(0, 256, (count, self.input.count))
