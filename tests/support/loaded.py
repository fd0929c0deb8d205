"""A small accelerator whose codes are loaded, its top, and what its flash should hold."""

import numpy as np
from engine import random_layer, tensor
from stand_in import IDENTITY, S16, U8

from gateware.accelerator.accelerator import Accelerator
from gateware.link.top import Top
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.pulse_core import make_core
from pvq_hw.engine.spram_image import FLASH_OFFSET, code_crc, code_file, code_layout, code_words
from pvq_hw.host.board_model import Responder
from pvq_hw.host.code_memory import CodeMemory
from pvq_hw.host.protocol import Description, WireFormat
from sim.agents.spi_flash import SpiFlash


class Loaded:
    """Two layers, three SPRAMs.

    Attributes
    ----------
    specs, images, graph, layout, file, crc, words
    """

    def __init__(self, seed=1, n=10, rows=4, outputs=2):
        rng = np.random.default_rng(seed)
        first, second = (
            random_layer(rng, rows, n, U8, U8),
            random_layer(rng, outputs, rows, U8, S16),
        )
        cores = [
            make_core(first, tensor(n, U8), 4, gap_bits=4, family="up5k", name="a", **_SPRAM),
            make_core(second, tensor(rows, U8), 2, family="up5k", name="b", **_SPRAM),
        ]
        self.specs, self.images = [c[0] for c in cores], [c[1] for c in cores]
        self.graph = chain_graph(self.specs)
        self.layout = code_layout(self.specs)
        self.file = code_file(self.layout, self.images)
        self.crc = code_crc(self.layout, self.images)
        self.words = code_words(self.layout, self.images)
        self.input, self.output = WireFormat(n, U8), WireFormat(outputs, S16)
        self.description = Description(self.input, self.output, 4_000_000, 10**6, 4, IDENTITY)

    def compute(self, x):
        value = np.asarray(x).reshape(1, -1)
        for spec, image in zip(self.specs, self.images, strict=True):
            value = spec.compute(image, value)
        return value[0]

    def top(self, crc=None):
        accelerator = Accelerator(self.graph, self.images)
        return Top(accelerator, self.description, 512, codes_crc=self.crc if crc is None else crc)

    def flash(self, data=None, **options):
        return SpiFlash({FLASH_OFFSET: self.file if data is None else data}, **options)

    def responder(self, data=None):
        memory = CodeMemory(self.layout, self.crc, self.file if data is None else data)
        return Responder(self.description, self.compute, memory)

    def frames(self, count, seed=2):
        return np.random.default_rng(seed).integers(0, 256, (count, self.input.count))


_SPRAM = {"code_memory": "spram"}
