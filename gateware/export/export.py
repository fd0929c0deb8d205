"""Writes components as Verilog that stands alone, and its documentation.

The memories of an exported core are instances of ``pvq_rom``, which read the image's files: the
text holds no memory contents, no paths and no times, and is the same for the same specification.
"""

import re
import tempfile
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Fragment, ResetSignal
from amaranth.lib import wiring

from gateware.accelerator.accelerator import Accelerator
from gateware.accelerator.circuits import core_component
from gateware.export.verilog_text import ROM_VERILOG, SPRAM_VERILOG, flash_verilog
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.code_stream import (
    READ_COMMANDS,
    STREAM_BENCH,
    STREAM_FILE,
    STREAM_INSTANCE,
    STREAM_START,
    flash_width,
    has_stream,
)
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import GraphSpec, chain_graph
from pvq_hw.engine.spram_image import FLASH_OFFSET, SPRAM_FILE, has_spram
from pvq_hw.engine.timing import time_graph
from pvq_hw.engine.units import Unit
from pvq_hw.errors import ToolError
from pvq_hw.garbage import seldom_collected
from pvq_hw.inputs import Input
from pvq_hw.naming import Names, check_module_name
from pvq_hw.network.network import Network
from pvq_hw.outputs import Output
from pvq_hw.reserved import LANGUAGE
from pvq_hw.tools import find as tools

__all__ = [
    "ROM_FILE",
    "circuit_verilog",
    "export_accelerator",
    "export_layer",
    "export_verilog",
    "unit_lines",
]

ROM_FILE = "pvq_rom.v"

_DROPPED = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
_DROPPED_OF_MODULES = ("generator", "top", "src", "amaranth.hierarchy", "dynports", "hdlname")
_SCRIPT = f"""\
read_rtlil in.il
proc
opt_clean -purge
memory_collect
attrmap {" ".join(f"-remove {name}" for name in _DROPPED)}
attrmap -modattr {" ".join(f"-remove {name}" for name in _DROPPED_OF_MODULES)}
write_verilog out.v
"""


def export_verilog(component: wiring.Component, name: str, *, header: str = "") -> str:
    """Verilog of ``component`` and all below it; ``name`` becomes the top module's.

    Ports are called as Amaranth calls them: ``clk``, ``rst``, ``i__valid``, ``i__ready``,
    ``i__payload`` and so on. Submodules are called ``<name>_<instance>``. While ``rst`` is 1,
    ``i__ready`` is 0: what is offered then waits, where the circuit would take and forget it.

    Parameters
    ----------
    component : Component
        Not yet elaborated.
    name : str
        A plain Verilog identifier.
    header : str
        Documentation, which becomes a comment at the top.

    Raises
    ------
    ToolError
        yosys is missing or fails.
    """
    check_module_name(name)
    if "i" in component.signature.members:
        component = _ClosedInReset(component)
    return circuit_verilog(component, name, header=header)


def circuit_verilog(circuit: Any, name: str, *, header: str = "", **more: Any) -> str:
    """`export_verilog` of any circuit; ``more`` is what else Amaranth's convert takes."""
    tool = tools.find_tool("yosys")
    with seldom_collected():
        text = rtlil.convert(circuit, name=name, emit_src=False, **more)
    verilog = _verilog(text, (*tool.command, tool.version))
    comment = "".join(f"// {line}".rstrip() + "\n" for line in header.splitlines())
    return comment + ("\n" if comment else "") + verilog


@lru_cache(maxsize=16)
def _verilog(text: str, tool: tuple[str, ...]) -> str:
    """Verilog of Amaranth's RTLIL, by the yosys whose command and version ``tool`` tells.

    Once for one text: circuits that differ in their weights alone are the same here.
    """
    with tempfile.TemporaryDirectory(prefix="pvq_hw_") as place:
        folder = Path(place)
        (folder / "in.il").write_text(text, encoding="utf-8")
        (folder / "export.ys").write_text(_SCRIPT, encoding="utf-8")
        try:
            tools.run("yosys", ["-q", "-s", "export.ys"], folder=folder)
            verilog = (folder / "out.v").read_text(encoding="utf-8")
        except OSError as error:
            raise ToolError(f"Verilog could not be written: {error.strerror}") from None
    return _tidy(verilog)


class _ClosedInReset(wiring.Component):
    """A component whose stream ``i`` takes nothing in reset, with the same modules inside.

    In a circuit of one reset there is nobody who could offer anything then.
    """

    def __init__(self, inner: wiring.Component) -> None:
        super().__init__(inner.signature)
        self._inner = inner
        for name in set(inner.signature.members) - {"i"}:
            setattr(self, name, getattr(inner, name))

    def elaborate(self, platform: object) -> Fragment:
        fragment = Fragment.get(self._inner, platform)
        outer, inner = self.i, self._inner.i
        fragment.add_statements(
            "comb",
            inner.valid.eq(outer.valid),
            inner.payload.eq(outer.payload),
            outer.ready.eq(inner.ready & ~ResetSignal()),
        )
        return fragment


def _tidy(verilog: str) -> str:
    """The Verilog without yosys's first line and attributes, with plain identifiers and RAM cleared
    by loops."""
    body = verilog.partition("*/\n")[2].lstrip("\n")
    # Says again what the declaration that follows says.
    body = re.sub(r"^ *\(\* init = [^*]* \*\)\n", "", body, flags=re.MULTILINE)
    return _loops(_plain_names(body))


def _plain_names(text: str) -> str:
    """Gives escaped identifiers plain names: ``\\top.core0.tree0`` becomes ``top_core0_tree0``.

    One name for one name over the whole text, so modules and ports keep agreeing.
    """
    names = Names([*LANGUAGE, *re.findall(r"(?<![\\\w.$])[A-Za-z_]\w*", text)])
    plain: dict[str, str] = {}
    for escaped in re.findall(r"\\(\S+) ", text):
        if escaped in plain:
            continue
        # What is escaped though it is plain is a keyword.
        base = re.sub(r"\W+", "_", escaped, flags=re.ASCII).strip("_") or "n"
        base = f"n{base}" if base[0].isdigit() else base
        plain[escaped] = names.new(f"{base}_" if base == escaped else base)
    return re.sub(r"\\(\S+) ", lambda found: plain[found[1]], text)


def _loops(text: str) -> str:
    """RAMs start at zero: one loop instead of a line per word."""
    used = {name.lower() for name in re.findall(r"[A-Za-z_]\w*_index_*\b", text)}
    block = re.compile(r"  initial begin\n((?:    (\w+)\[\d+\] = \d+'h0+;\n)+)  end\n")

    def loop(found: re.Match[str]) -> str:
        memory, depth = found[2], found[1].count("\n")
        index = f"{memory}_index"
        while index.lower() in used:
            index += "_"
        return (
            f"  integer {index};\n"
            f"  initial for ({index} = 0; {index} < {depth}; {index} = {index} + 1)\n"
            f"    {memory}[{index}] = 0;\n"
        )

    return block.sub(loop, text)


def _format(form: IntFormat, frames: int, width: int = 1) -> str:
    if form.binary:
        kind = "1 bit, 1 stands for -1 and 0 for +1"
    else:
        sign = "signed (two's complement)" if form.signed else "unsigned"
        kind = f"{form.bits} bits, {sign}, {form.min} to {form.max}"
    if width > 1:
        return f"{width} x {kind}: {width} activations of a frame, the first lowest"
    if frames == 1:
        return kind
    return f"{frames} x {kind}: one activation of each of {frames} frames, the first lowest"


def _core_lines(spec: CoreBase) -> list[str]:
    k = "" if spec.groups == 1 else f", {spec.groups} groups a row"
    weights = spec.memory_name("weights")
    roms = {n: s for n, s in spec.memories.items() if n != weights or spec.code_memory != "wires"}
    return [
        f"  {spec.name}: {spec.rows} x {spec.n} weights{k}; {spec.how}",
        f"    in  {_format(spec.x, spec.output_frames)}",
        f"    out {_format(spec.out, spec.output_frames)}",
        f"    accumulator {spec.acc_bits} bits, multiplier {spec.mult_bits} bits, "
        f"shift {spec.shift}",
        "    memories: " + ", ".join(f"{n}.hex ({w} x {d})" for n, (w, d) in roms.items()),
    ]


def _unit_line(unit: Unit) -> str:
    return f"  {unit.name} ({unit.kind}): {', '.join(unit.inputs)} -> {', '.join(unit.outputs)}"


_LOAD_LINES = [
    "",
    "Codes are loaded after configuration: write the words of codes.bin (16 bits each) through",
    "the port codes, one a clock: codes__load and codes__w_en at 1, the number of the block in",
    "codes__addr[15:14], the word's number in it below. Words can be read back with w_en at 0: two",
    "clocks later they are on codes__r_data. While codes__load is 1, and a clock longer, no",
    "activation is taken; frames under way when it rises are forgotten.",
]


def _stream_lines(bits: int) -> list[str]:
    """How an accelerator is used whose codes the flash gives, so many bits a clock."""
    command = f"{READ_COMMANDS[bits]:02X}h"
    text = (
        f"Codes are read from an SPI flash for every frame, with command {command} in "
        f"mode 0 at half the clock: codes.bin must be there from byte {FLASH_OFFSET:#x} on. No "
        "activation is taken before they were read once and their CRC-32 was right: codes_right is "
        "1 then. When it is not any more (codes_wrong is 1), nothing is taken and nothing is given "
        "until a reset. "
    )
    if bits > 1:
        text += "While flash__copi_oe is 1, drive flash__copi on the flash's IO0"
        text += ", and 1 on IO2 and IO3; " if bits == 4 else "; "
        text += "while it is 0, release them. flash__cipo takes all levels, IO0 lowest. "
    text += f"{STREAM_FILE} has a flash for simulations."
    return ["", *textwrap.wrap(text, 94)]


def _batch_lines(core: CoreBase) -> list[str]:
    if not core.flush_cycles:
        return []
    return [
        f"Core {core.name} takes frames one after the other and computes {core.frames} at a time.",
        f"A batch that is not full is closed {core.flush_cycles} cycles after a frame's last",
        "activation if no other activation comes until then.",
    ]


def _header(
    name: str,
    graph: GraphSpec,
    cycles: tuple[int, int],
    outputs: Sequence[Output] = (),
    inputs: Sequence[Input] = (),
    units: Sequence[str] = (),
    use: Sequence[str] = (),
) -> str:
    """``use``: how the files go together; by default for one file and ``pvq_rom.v``."""
    specs, vectors, widths = graph.cores, graph.vectors, graph.widths
    (_, x), (_, out), (n, rows) = graph.x, graph.out, graph.frame_transfers
    unit = "frame" if graph.frames == 1 else f"batch of {graph.frames} frames"
    return "\n".join(
        [
            f"{name}: matrix-vector products with pyramid-vector-quantized weights.",
            "Generated by pvq-hw; what it computes is in the image's files, not in this one.",
            "",
            "Ports",
            "  clk         rising edge",
            "  rst         synchronous, active high; forgets all frames; i__ready is 0 meanwhile",
            f"  i__payload  {_format(x, vectors[0], widths[0])}",
            f"              frames of {n} transfers, channels last, in order",
            *(f"              {i.start} to {i.part.stop - 1}: {i.name}" for i in inputs),
            f"  o__payload  {_format(out, vectors[1], widths[1])}",
            f"              frames of {rows} transfers, in order of the rows",
            *(f"              {o.start} to {o.part.stop - 1}: {o.name}" for o in outputs),
            *(f"  {line}" for line in units),
            "  *__valid, *__ready: a transfer happens at a clock edge at which both are 1.",
            "              The giver holds valid and payload until then; valid never waits for",
            "              ready. Either side may stall at any time.",
            "",
            f"Throughput: {cycles[0]} clock cycles per {unit}, input always valid and output",
            f"always ready. Latency: {cycles[1]} cycles from the first input to the last output.",
            "The next frame is taken while one is computed. A result depends on its frame alone.",
            *[line for spec in specs for line in _batch_lines(spec)],
            "On iCE40, block RAM reads zero for some microseconds after configuration: hold rst",
            "for 15 us.",
            *(_LOAD_LINES if has_spram(specs) else []),
            *(_stream_lines(flash_width(specs)) if has_stream(specs) else []),
            "",
            "Row m: clamp((sum over columns of y * x * mult[m] + bias[m] + half) >> shift), exact.",
            "Cores",
            *[line for spec in specs for line in _core_lines(spec)],
            "Units",
            *map(_unit_line, graph.units),
            "",
            *(use or _use_lines(name)),
        ]
    )


def _use_lines(name: str) -> list[str]:
    return [
        f"To simulate or synthesize: this file, {ROM_FILE} and the .hex files in the tool's",
        f"working folder, e.g. iverilog -g2005 {name}.v {ROM_FILE} YOUR_TESTBENCH.v",
    ]


def _cycles(graph: GraphSpec, images: Sequence[CoreImage]) -> tuple[int, int]:
    timing = time_graph(graph, graph.named(images))
    return timing.interval_cycles, timing.latency_cycles


def unit_lines(network: Network) -> list[str]:
    """What the integers of both streams stand for, in the model's own unit."""
    taken = {i["name"]: i["scale"] for i in network.input_documents()}
    given = {o["name"]: o["scale"] for o in network.output_documents()}
    unit = np.unique(network.unit())
    if network.decision is not None:
        given = {}
    elif not given and unit.size == 1:
        given = {"the output": float(unit[0])}
    units = (taken or {"the input": network.input.scale}) | given
    return [f"1 of {name} stands for {scale:.9g}." for name, scale in units.items()]


def export_accelerator(
    graph: GraphSpec,
    images: Sequence[CoreImage],
    name: str = "accelerator",
    *,
    cycles: tuple[int, int] | None = None,
    outputs: Sequence[Output] = (),
    inputs: Sequence[Input] = (),
    units: Sequence[str] = (),
    use: Sequence[str] = (),
    body: str = "verilog",
) -> dict[str, str]:
    """Verilog of a whole network: text by file name, ``<name>.v`` and ``pvq_rom.v``.

    ``images`` are the contents of its cores, in order; ``cycles`` are the interval and the latency
    where they are known already; ``outputs`` and ``inputs`` say which transfers are which, where a
    model has several, and ``units`` what their integers stand for (`unit_lines`); ``use`` is the
    end of the header, how the files go together. With a device's ``body``
    (`gateware.device.bodies.bodies`) memories and multipliers are its blocks, with their contents,
    in ``<name>.v`` alone.
    """
    component = Accelerator(graph, images, body=body)
    header = _header(name, graph, cycles or _cycles(graph, images), outputs, inputs, units, use)
    text = export_verilog(component, name, header=header)
    if body != "verilog":
        return {f"{name}.v": text}
    return {
        f"{name}.v": text,
        ROM_FILE: ROM_VERILOG,
        **({SPRAM_FILE: SPRAM_VERILOG} if any(x.in_spram for x in graph.cores) else {}),
        **_flash_file(graph, name),
    }


def _flash_file(graph: GraphSpec, name: str) -> dict[str, str]:
    """What simulates the flash of an accelerator whose codes come from there."""
    cores: list[Any] = [core for core in graph.cores if core.code_memory == "flash"]
    if not cores:
        return {}
    stem = cores[0].stream_memory
    (_, x), (_, out) = graph.x, graph.out
    bits = x.bits * graph.together[0], out.bits * graph.together[1]
    text = flash_verilog(
        name, f"{name}{STREAM_BENCH}", STREAM_INSTANCE, f"{stem}.hex", cores[0].memories[stem],
        STREAM_START, bits, cores[0].flash_bits,
    )  # fmt: skip
    return {STREAM_FILE: text}


def export_layer(spec: CoreBase, image: CoreImage, name: str | None = None) -> dict[str, str]:
    """Verilog of one layer's core: text by file name; the module is ``<spec.name>_core``."""
    name = name or f"{spec.name}_core"
    component = core_component(spec, image, body="verilog")
    graph = chain_graph([spec])
    header = _header(name, graph, _cycles(graph, [image]))
    return {
        f"{name}.v": export_verilog(component, name, header=header),
        ROM_FILE: ROM_VERILOG,
    }
