"""Networks whose exported Verilog the tests of proofs read."""

from pathlib import Path
from typing import Any

from random_graphs import Built, RandomNetwork, build

from gateware.export.export import export_accelerator
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.units import CoreUnit
from pvq_hw.network.golden_inputs import golden_inputs
from pvq_hw.network.layer import Dense
from pvq_hw.network.network import Network
from pvq_hw.output.folder import OutputFolder
from pvq_hw.output.golden_vectors import write_vectors
from pvq_hw.output.manifest import write_manifest
from pvq_hw.plan.core_layers import core_layers
from pvq_hw.plan.image import Image, emit
from pvq_hw.plan.plan import plan

__all__ = ["core_parts", "many_units", "ship", "ship_output"]


def many_units(family: str = "ecp5") -> Built:
    """Every kind of unit: windows, a table, a fork, a sum, a pooling, signs, several gains."""
    net = RandomNetwork(5, (4, 4, 2), IntFormat(4, True))
    x = net.conv(net.input, 3, (3, 3), pads=((1, 1), (1, 1)), out=IntFormat(5, True))
    y = net.table(x, tables=3, out=IntFormat(5, True))
    x = net.add(x, y, out=IntFormat(6, False))
    x = net.maxpool(x, (2, 2), stride=(2, 2))
    x = net.dense(x, 4, sign=True)
    net.dense(x, 3, groups=2)
    return build(net, family=family)


def ship(folder: Path, built: Built) -> Path:
    """Writes Verilog and memory files as an output has them."""
    images = [built.images[core.name] for core in built.graph.cores]
    (folder / "verilog").mkdir(parents=True)
    for name, text in export_accelerator(built.graph, images).items():
        (folder / "verilog" / name).write_text(text, encoding="utf-8")
    Image(tuple(built.graph.cores), tuple(images)).write(folder)
    return folder


def core_parts(built: Built) -> list[tuple[Dense, CoreUnit]]:
    """Every layer with weights, and its unit."""
    units = {u.core.name: u for u in built.graph.units if isinstance(u, CoreUnit)}
    layers = [layer.dense for layer in core_layers(built.network)]
    return list(zip(layers, (units[core.name] for core in built.graph.cores), strict=True))


def ship_output(out: Path, network: Network, target: str, **options: Any) -> None:
    """An output as `compile` writes it, of a network that nothing was lost in; ``options`` are
    those of `plan`."""
    planned = plan(network, target, **options)
    image = emit(network, planned)
    with OutputFolder(out).replace() as folder:
        (folder / "network").mkdir()
        network.save(folder / "network")
        planned.save(folder / "plan.json")
        image.write(folder)
        write_vectors(folder, network, golden_inputs(network, 3))
        (folder / "verilog").mkdir()
        for name, text in export_accelerator(planned.graph, image.cores).items():
            (folder / "verilog" / name).write_text(text, encoding="utf-8")
        write_manifest(folder, network, planned)
