"""The image: what the cores' memories hold, as files that circuits and simulators read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pvq_hw.engine.code_stream import stream_file, streamed_core
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.hexfile import hex_text, read_hex
from pvq_hw.engine.spram_image import CODES_FILE, code_file, code_layout, has_spram
from pvq_hw.errors import InputError
from pvq_hw.network.network import Network
from pvq_hw.plan.plan import Plan, core_images

__all__ = ["Image", "emit"]

_FOLDER = "image"


@dataclass(frozen=True)
class Image:
    """Memory contents of all cores.

    Parameters
    ----------
    specs : tuple of CoreBase
        In order.
    cores : tuple of CoreImage
        Each spec's contents.
    """

    specs: tuple[CoreBase, ...]
    cores: tuple[CoreImage, ...]

    def files(self) -> dict[str, str]:
        """Text of every memory file by its name, sorted: ``<core>_codes.hex`` (of plain weights
        ``<core>_weights.hex``), ``<core>_mult.hex`` and ``<core>_bias.hex``."""
        files = {}
        for spec, core in zip(self.specs, self.cores, strict=True):
            contents = spec.contents(core)
            for name, (bits, _) in spec.memories.items():
                files[f"{name}.hex"] = hex_text(contents[name], bits)
        return dict(sorted(files.items()))

    def write(self, folder: Path) -> None:
        """Writes ``image/*.hex``, and ``image/codes.bin`` where a core's codes are loaded or
        come from the flash, below an existing folder."""
        place = folder / _FOLDER
        place.mkdir(exist_ok=True)
        for name, text in self.files().items():
            (place / name).write_text(text, encoding="ascii", newline="\n")
        if has_spram(self.specs):
            (place / CODES_FILE).write_bytes(code_file(code_layout(self.specs), self.cores))
        streamed = streamed_core(self.specs, self.cores)
        if streamed is not None:
            (place / CODES_FILE).write_bytes(stream_file(*streamed))

    @classmethod
    def load(cls, folder: Path, specs: Sequence[CoreBase] | Plan) -> "Image":
        """Reads what `write` wrote; raises InputError, which names file and line, on all else."""
        cores = specs.specs if isinstance(specs, Plan) else list(specs)
        return cls(tuple(cores), tuple(load_core(folder, spec) for spec in cores))


def load_core(folder: Path, spec: CoreBase) -> CoreImage:
    """The contents of one core's files below ``folder``; see `Image.load`."""
    words = {}
    for name, (bits, depth) in spec.memories.items():
        words[name] = read_hex(folder / _FOLDER / f"{name}.hex", bits, depth)
    return spec.image(words)


def emit(network: Network, plan: Plan) -> Image:
    """The image of a network under a plan.

    Raises
    ------
    InputError
        The plan is another network's.
    """
    image = Image(tuple(plan.specs), tuple(core_images(network, plan)))
    for spec, core in zip(image.specs, image.cores, strict=True):
        for name, (bits, depth) in spec.memories.items():
            words = spec.contents(core)[name]
            if len(words) != depth or any(word >> bits for word in words):
                raise InputError(f"Memory {name!r} must hold {depth} words of {bits} bits")
    return image
