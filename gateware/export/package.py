"""What runs with Icarus alone: one layer's core as a folder, and the testbench of an output."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateware.export.export import export_layer
from gateware.export.testbench import testbench
from pvq_hw.arith.formats import IntFormat
from pvq_hw.engine.code_stream import STREAM_BENCH, has_stream
from pvq_hw.engine.core import CoreBase, CoreImage
from pvq_hw.engine.dataflow import chain_graph
from pvq_hw.engine.hexfile import hex_text, packed_hex
from pvq_hw.engine.scenarios import pace_of, scenarios
from pvq_hw.engine.spram_image import code_layout, has_spram
from pvq_hw.engine.timing import time_graph
from pvq_hw.errors import CheckError, InputError
from pvq_hw.plan.image import Image
from pvq_hw.plan.plan import Plan

__all__ = ["layer_package", "package_vectors", "write_layer_package", "write_testbench"]

IntArray = npt.NDArray[np.int64]

_README = """\
{name}: one layer with pyramid-vector-quantized weights, ready to drop into a design.

Try it (Icarus Verilog is all it takes):

    iverilog -o tb *.v && vvp tb

It ends with PASS or FAIL and the number of results compared.

Files
  {name}.v           the core; its ports, number formats, latency and throughput are
                     described at its top
  pvq_rom.v          the ROM that reads the memory files with $readmemh
{memories}
  input.hex          {frames} golden input frames, {columns} lines of {input_bits} bits each
  expected.hex       the results, {rows} lines of {output_bits} bits a frame
  tb.v               the testbench: full rate with the plan's cycles, pauses of all kinds, the
                     output blocked until everything is full, resets at every phase of a frame
  README.txt         this file

Words are hexadecimal, one a line; numbers below zero are in two's complement.
{binary}{units}
Take {name}.v, pvq_rom.v and the memory files into your project, and see to it that your
tool finds the memory files in its working folder. New weights of the same shape need nothing but
new memory files as long as the header of {name}.v stays the same.
"""


def package_vectors(spec: CoreBase, frames: int = 8, seed: int = 0) -> IntArray:
    """Golden inputs (frames, n): zeros (or ones), the extremes, then random ones."""
    generator = np.random.default_rng(seed)
    low, high = spec.x.min, spec.x.max
    x = generator.integers(low, high + 1, size=(max(frames, 1), spec.n))
    if spec.x.binary:
        x = np.where(x < 1, -1, 1)
    for index, value in enumerate((int(spec.x.clamp(0)), high, low)[: len(x)]):
        x[index] = value
    return x.astype(np.int64)


def _words(values: IntArray, form: IntFormat) -> IntArray:
    return (values < 0).astype(np.int64) if form.binary else values & ((1 << form.bits) - 1)


def _payloads(values: IntArray, form: IntFormat, frames: int) -> list[int]:
    """(frames, activations) -> payloads of V frames each; ``len(values)`` is a multiple of V."""
    words = _words(values, form).reshape(-1, frames, values.shape[1])
    return [
        sum(int(word) << (form.bits * v) for v, word in enumerate(column))
        for group in words
        for column in group.T
    ]


def layer_package(
    spec: CoreBase,
    image: CoreImage,
    x: npt.ArrayLike,
    expected: npt.ArrayLike,
    units: Sequence[str] = (),
) -> dict[str, str]:
    """The files of the package: text by file name.

    Parameters
    ----------
    spec, image
        The core.
    x : int array (frames, n)
        Golden inputs, in the core's format. With V > 1 the last frame is repeated until V
        divides their number.
    expected : int array (frames, rows)
        What the golden model of the layer gives for them.
    units : sequence of str
        What the integers stand for, `gateware.export.export.unit_lines`.

    Raises
    ------
    InputError
        Shapes or values don't suit the core.
    CheckError
        The image doesn't compute ``expected``: it is not this layer's.
    """
    inputs = np.asarray(x, dtype=np.int64)
    outputs = np.asarray(expected, dtype=np.int64)
    if inputs.ndim != 2 or not len(inputs) or inputs.shape[1] != spec.n:
        raise InputError(f"Vectors must be (frames, {spec.n}), not {inputs.shape}")
    if outputs.shape != (len(inputs), spec.rows):
        raise InputError(f"Results must be {(len(inputs), spec.rows)}, not {outputs.shape}")
    if not spec.x.contains(inputs):
        raise InputError(f"Vectors must be within {spec.x.min}..{spec.x.max}")
    wrong = int((spec.compute(image, inputs) != outputs).sum())
    if wrong:
        raise CheckError(f"The image must compute the expected results, but {wrong} differ")
    missing = -len(inputs) % spec.frames
    inputs = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])
    outputs = np.concatenate([outputs, np.repeat(outputs[-1:], missing, axis=0)])
    bits = {"input": spec.x.bits * spec.frames, "output": spec.out.bits * spec.frames}
    verilog = export_layer(spec, image)
    name = next(iter(verilog)).removesuffix(".v")
    graph = chain_graph([spec])
    timing = time_graph(graph, graph.named([image]))
    pace = pace_of(graph, [image], timing.interval_cycles)
    return {
        **verilog,
        **Image((spec,), (image,)).files(),
        "input.hex": hex_text(_payloads(inputs, spec.x, spec.frames), bits["input"]),
        "expected.hex": hex_text(_payloads(outputs, spec.out, spec.frames), bits["output"]),
        "tb.v": testbench(
            name,
            pace,
            scenarios(pace),
            stimuli=len(inputs) // spec.frames * spec.n,
            expected=len(inputs) // spec.frames * spec.rows,
            bits=(bits["input"], bits["output"]),
            frame_rows=spec.rows,
            files=("input.hex", "expected.hex"),
            command="iverilog -o tb *.v && vvp tb",
            layout=None,
        ),
        "README.txt": _readme(spec, name, len(inputs), bits, units),
    }


def _readme(
    spec: CoreBase, name: str, frames: int, bits: Mapping[str, int], units: Sequence[str]
) -> str:
    memories = [
        f"  {memory + '.hex':<18} {depth} words of {width} bits"
        for memory, (width, depth) in spec.memories.items()
    ]
    binary = "Binary activations: 1 stands for -1, 0 for +1.\n" if spec.x.binary else ""
    return _README.format(
        name=name,
        memories="\n".join(memories),
        frames=frames,
        columns=spec.n,
        rows=spec.rows,
        input_bits=bits["input"],
        output_bits=bits["output"],
        binary=binary,
        units="".join(f"{line}\n" for line in units),
    )


def write_layer_package(
    folder: Path,
    spec: CoreBase,
    image: CoreImage,
    x: npt.ArrayLike,
    expected: npt.ArrayLike,
    units: Sequence[str] = (),
) -> None:
    """Writes `layer_package` into ``folder``, which is made; see there."""
    files = layer_package(spec, image, x, expected, units)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8", newline="\n")


def write_testbench(
    folder: Path,
    image: Image,
    plan: Plan,
    frames: int,
    output: str,
    units: Sequence[str] = (),
) -> None:
    """Writes ``testbench/tb.v`` and ``testbench/README.txt`` of an output folder.

    Parameters
    ----------
    folder : Path
        With memory files, Verilog and golden vectors of ``frames`` frames.
    image : Image
    plan : Plan
    frames : int
    output : str
        Name of the last layer's vectors.
    units : sequence of str
        What the integers stand for, `gateware.export.export.unit_lines`.
    """
    specs = image.specs
    pace = pace_of(plan.graph, image.cores, plan.interval_cycles)
    graph = plan.graph
    (_, x), (_, out), (columns, rows) = graph.x, graph.out, graph.frame_transfers
    sides = zip(("input", output), (x, out), graph.widths, strict=True)
    packed = {}
    for name, form, wide in sides:
        if wide > 1:  # a payload a line
            vectors = (folder / "vectors" / f"{name}.hex").read_text(encoding="ascii")
            packed[f"{name}.hex"] = packed_hex(vectors, form.bits, wide)
    places = {name: "testbench" if f"{name}.hex" in packed else "vectors"
              for name in ("input", output)}  # fmt: skip
    command = "iverilog -o /tmp/tb ../testbench/tb.v ../verilog/*.v && vvp /tmp/tb"
    core = "accelerator" + (STREAM_BENCH if has_stream(specs) else "")
    text = testbench(
        core,
        pace,
        scenarios(pace),
        stimuli=frames * columns,
        expected=frames * rows,
        bits=(x.bits * graph.widths[0], out.bits * graph.widths[1]),
        frame_rows=rows,
        files=(f"../{places['input']}/input.hex", f"../{places[output]}/{output}.hex"),
        command=f"cd image && {command}",
        layout=code_layout(specs) if has_spram(specs) else None,
    )
    readme = f"Try it with Icarus Verilog, from the folder above: cd image && {command}\n"
    readme += "".join(f"\n{line}" for line in ("", *units)) + "\n" if units else ""
    (folder / "testbench").mkdir()
    for name, content in (packed | {"tb.v": text, "README.txt": readme}).items():
        (folder / "testbench" / name).write_text(content, encoding="utf-8", newline="\n")
