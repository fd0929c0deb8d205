"""An accelerator as a core of other flows: FuseSoC, Edalize, LiteX, apio, Vivado's IP packager; or
with its board's top."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypedDict

from gateware.export.board import board_files
from gateware.export.csr import csr_shells
from gateware.export.device import device_files
from gateware.export.export import ROM_FILE, export_accelerator, unit_lines
from gateware.export.interfaces import TOPS, Side, axis_shell, flow_testbench
from gateware.export.litex import litex_module
from gateware.export.modules import FOLDER, split_modules, with_folder
from pvq_hw.choices import BOARD_FLOW, CORE_FLOWS, DEVICE_FLOW, FLOWS, INTERFACES
from pvq_hw.documents import OPEN, Format, load_json, read
from pvq_hw.engine.code_stream import has_stream
from pvq_hw.engine.hexfile import packed_hex
from pvq_hw.engine.spram_image import has_spram
from pvq_hw.errors import InputError
from pvq_hw.naming import quoted
from pvq_hw.output.accelerator import Accelerator
from pvq_hw.output.golden_vectors import load_index
from pvq_hw.target.architectures import ARCHITECTURES

__all__ = ["export_flow", "flow_files"]

_MARK = "pvq-hw-export.json"
_EXPORT = Format("an export", "pvq-hw export")
_NAME = r"[a-z][a-z0-9_]{0,40}"
_NEVER_RUN = "never run by the project's tests, only read and checked for form"
_MOST_FRAMES = 8  # of golden vectors in a testbench


def flow_files(
    accelerator: Accelerator, flow: str, interface: str = "stream", name: str = "accelerator"
) -> dict[str, str]:
    """The files of an export, text by name; see `export_flow`."""
    if flow not in FLOWS:
        raise InputError(f"Flow must be one of {', '.join(FLOWS)}, not {quoted(flow)}")
    if interface not in INTERFACES:
        raise InputError(
            f"Interface must be one of {', '.join(INTERFACES)}, not {quoted(interface)}"
        )
    if not re.fullmatch(_NAME, name):
        raise InputError(
            "Name must be a small letter, then at most 40 small letters, digits and underscores, "
            f"not {quoted(name)}"
        )
    if flow == BOARD_FLOW:
        if interface != "stream":
            raise InputError(
                f"A board's top has pins, and no interface to choose: leave out {interface}"
            )
        return board_files(accelerator, name)
    plan = accelerator.plan
    if has_spram(plan.specs):
        raise InputError(
            "Codes in SPRAM are loaded by the board's top, which no other flow has; compile with "
            "--code-memory block to export"
        )
    if has_stream(plan.specs):
        raise InputError(
            "Codes come from the board's flash, whose pins no other flow's shell has; compile with "
            "--code-memory block to export"
        )
    graph = plan.graph
    if graph.frames > 1:
        raise InputError(f"What takes {graph.frames} frames side by side cannot be exported")
    if flow == DEVICE_FLOW:
        if interface != "stream":
            raise InputError(
                f"The device's blocks come with the plain stream: leave out {interface}"
            )
        return device_files(accelerator, name)
    (n, x), (rows, out) = graph.x, graph.out
    wide, wide_out = graph.widths
    taken, given = Side(n // wide, x, wide), Side(rows // wide_out, out, wide_out)
    verilog = dict(_verilog(accelerator, name))
    assert f"{name}_{ROM_FILE.removeprefix('pvq_')}" in verilog
    used = "".join(verilog.values())
    memories = {
        f"{name}_{file}": text
        for file, text in accelerator.image.files().items()
        if f'"{name}_{file}"' in used
    }
    top = name + TOPS[interface]
    if interface != "stream":
        verilog[f"{name}_axis.v"] = axis_shell(name, taken, given)
    if interface == "csr":
        identity = bytes.fromhex(accelerator.manifest["manifest_sha256"])[:8]
        verilog |= csr_shells(name, taken, given, identity)
    index = load_index(accelerator.out / "vectors" / "vectors.json")
    count = min(_MOST_FRAMES, index["frames"])
    test = {
        f"{name}_tb.v": flow_testbench(
            f"{name}_tb", name, interface, taken, given, count, plan.latency_cycles
        ),
        f"{name}_input.hex": packed_hex(
            _vectors(accelerator, "input.hex", count * n), x.bits, wide
        ),
        f"{name}_expected.hex": packed_hex(
            _vectors(accelerator, None, count * rows), out.bits, wide_out
        ),
    }
    parts = _Parts(
        name, top, interface, tuple(verilog), tuple(memories), tuple(test), taken, given,
        plan.clock_mhz, unit_lines(accelerator.network),
    )  # fmt: skip
    more = _WRITERS[flow](parts) | {f"{name}.vlt": _WAIVERS.format(name=name)}
    bench = f"{name}_tb.v"
    verilog = with_folder(verilog | {bench: test.pop(bench)})
    return {**verilog, **memories, **test, **more, "README.txt": parts.readme(flow, more)}


def export_flow(
    accelerator: Accelerator,
    folder: Path,
    flow: str,
    *,
    interface: str = "stream",
    name: str = "accelerator",
) -> list[str]:
    """Writes an accelerator as a core of another flow into a folder; gives the files' names.

    Parameters
    ----------
    accelerator : Accelerator
    folder : Path
        New, empty, or an earlier export, whose files are replaced.
    flow : str
        One of `pvq_hw.choices.FLOWS`.
    interface : str
        ``"stream"``: valid, ready and payload. ``"axis"``: AXI4-Stream. ``"csr"``: the same with
        registers, on AXI4-Lite or on Wishbone.
    name : str
        Of the module; all modules and files begin with it, so that several cores go into one
        design.

    Raises
    ------
    InputError
        A name that isn't known, codes that are loaded, batches without a whole number of golden
        vectors, or a folder that holds other things.
    """
    files = flow_files(accelerator, flow, interface, name)
    earlier = _earlier(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in earlier - set(files):
            (folder / file).unlink(missing_ok=True)
        mark = {"format": "pvq-hw export", "flow": flow, "interface": interface, "name": name,
                "manifest_sha256": accelerator.manifest["manifest_sha256"],
                "files": sorted(files)}  # fmt: skip
        (folder / _MARK).write_text(json.dumps(mark, indent=1, sort_keys=True) + "\n", "ascii")
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{folder} can't be written into: {error.strerror}") from None
    return sorted(files)


@lru_cache(maxsize=2)
def _verilog(accelerator: Accelerator, name: str) -> Mapping[str, str]:
    """The accelerator's own Verilog, the same for all flows; helpers under its name."""
    plan = accelerator.plan
    made = export_accelerator(
        plan.graph, accelerator.image.cores, name,
        cycles=(plan.interval_cycles, plan.latency_cycles),
        outputs=accelerator.network.outputs, use=_USE_LINES,
    )  # fmt: skip
    return {
        file: part
        for text in made.values()
        for file, part in split_modules(_renamed(text, name)).items()
    }


_USE_LINES = (
    "One module a file, called as its file. The .hex files, if there are any, are memory contents;",
    f"{FOLDER} says where, with a slash at its end: the tool's working folder unless it is set.",
)


class _Listing(TypedDict):
    """The part of an export's mark that tells its files from the user's."""

    files: list[str]


def _earlier(folder: Path) -> set[str]:
    """Names of the files of an earlier export; raises InputError where the folder holds more."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} must be a folder")
    entries = list(folder.iterdir()) if folder.is_dir() else []
    found = {entry.name for entry in entries}
    if not found:
        return set()
    try:
        listed = read(Annotated[_Listing, OPEN], load_json(folder / _MARK, _EXPORT), _MARK)
    except InputError as error:
        raise InputError(f"{folder} must be empty, or an earlier export: {error}") from None
    own = {name for name in (*listed["files"], _MARK) if name == Path(name).name}
    if found - own:
        other = sorted(found - own)[0]
        raise InputError(f"{folder} holds {quoted(other)}, which no export wrote; move it away")
    for entry in entries:
        if entry.is_symlink() or not entry.is_file():
            raise InputError(f"{folder} holds {quoted(entry.name)}, which is no file; move it away")
    return own


def _renamed(text: str, name: str) -> str:
    """Helper modules and memory files under the core's own name."""
    text = re.sub(r"\bpvq_(rom|spram)\b", rf"{name}_\1", text)
    return re.sub(r'INIT_FILE\("', f'INIT_FILE("{name}_', text)


def _vectors(accelerator: Accelerator, file: str | None, lines: int) -> str:
    from pvq_hw.plan.core_layers import unit_names

    file = file or f"{unit_names(accelerator.network.layers)[-1]}.hex"
    text = (accelerator.out / "vectors" / file).read_text("ascii")
    return "\n".join(text.splitlines()[:lines]) + "\n"


_WAIVERS = """\
`verilator_config
// The rest of -Wall is clean. Registers have initial values, as FPGAs give them, and a reset.
lint_off -rule PROCASSINIT -file "*{name}*.v"
// Bits of products and sums that rounding takes away, and flags that only some uses need.
lint_off -rule UNUSEDSIGNAL -file "*{name}*.v"
// Verilog extends the shorter side of these with zeros, which is what is meant.
lint_off -rule WIDTHEXPAND -file "*{name}*.v"
// Blocks of generated memory have no names.
lint_off -rule GENUNNAMED -file "*{name}*.v"
"""

_MEMORY_LINES = (
    "The .hex files are memory contents: a simulator or synthesis tool looks for them in its",
    f"working folder, or where the parameter {FOLDER} of the module says (a path with a",
    "slash at its end).",
)


class _Parts:
    """What a flow's files are made of."""

    def __init__(
        self, name: str, top: str, interface: str, verilog: Sequence[str],
        memories: Sequence[str], test: Sequence[str], taken: Side, given: Side, clock_mhz: float,
        units: Sequence[str],
    ) -> None:  # fmt: skip
        self.name, self.top, self.interface = name, top, interface
        self.verilog, self.memories, self.test = verilog, memories, test
        self.taken, self.given, self.clock_mhz, self.units = taken, given, clock_mhz, units

    def readme(self, flow: str, more: Mapping[str, str]) -> str:
        """What lies in the folder and how to use it."""
        also = f" (or {self.name}_wishbone)" if self.interface == "csr" else ""
        lines = [
            f"{self.name}: an accelerator made by pvq-hw, for {flow}.",
            "",
            f"The module to use is {self.top}, in {self.top}.v{also}; the formats, latency",
            f"and throughput are at the top of {self.name}.v.",
            *(_MEMORY_LINES if self.memories else ()),
            "",
            *self.units,
            "",
            "Try it with Icarus Verilog, from this folder:",
            f"    iverilog -g2005 -o /tmp/{self.name}_tb *.v && vvp /tmp/{self.name}_tb",
            "",
            *_USE[flow].format(name=self.name, top=self.top).splitlines(),
            "",
            f"Files of {flow}: {', '.join(more)}",
        ]
        return "\n".join(lines) + "\n"


_USE = {
    "fusesoc": """\
    fusesoc library add {name} .
    fusesoc run --target sim pvq-hw:accelerators:{name}     (Icarus Verilog)
    fusesoc run --target lint pvq-hw:accelerators:{name}    (Verilator)
In a core of your own: depend on pvq-hw:accelerators:{name}.""",
    "edalize": """\
    python {name}_edalize.py sim      (Icarus Verilog)
    python {name}_edalize.py ice40    (Yosys; ecp5 likewise)""",
    "litex": """\
    from {name}_litex import Accelerator
    self.accelerator = Accelerator(platform)    # sink, source, and CSRs with counters""",
    "apio": f"""\
    apio lint, apio sim
This project was {_NEVER_RUN}.""",
    "vivado": f"""\
    vivado -mode batch -source {{name}}_package.tcl
The script was {_NEVER_RUN}.""",
}


def _fusesoc(parts: _Parts) -> dict[str, str]:
    def files(names: Sequence[str], kind: str, copied: bool = False) -> str:
        lines = [f"      - {n}: {{copyto: {n}}}" if copied else f"      - {n}" for n in names]
        return "\n".join([*lines, f"    file_type: {kind}"]) if names else ""

    memories = ""
    if parts.memories:
        memories = f"  memories:\n    files:\n{files(parts.memories, 'user', True)}\n"
    used = "[rtl, memories]" if parts.memories else "[rtl]"
    bench, *vectors = parts.test
    lint = f"{used[:-1]}, waivers]"
    text = f"""\
CAPI=2:
name: pvq-hw:accelerators:{parts.name}:1.0.0
description: Neural network with pyramid-vector-quantized weights, made by pvq-hw

filesets:
  rtl:
    files:
{files(parts.verilog, "verilogSource")}
{memories}  bench:
    files:
      - {bench}
    file_type: verilogSource
  vectors:
    files:
{files(vectors, "user", True)}
  waivers:
    files:
      - {parts.name}.vlt
    file_type: vlt

targets:
  default:
    filesets: {used}
    toplevel: {parts.top}
  lint:
    flow: lint
    flow_options: {{tool: verilator, verilator_options: [-Wall]}}
    filesets: {lint}
    toplevel: {parts.top}
  sim:
    flow: sim
    flow_options: {{tool: icarus}}
    filesets: {used[:-1]}, bench, vectors]
    toplevel: {parts.name}_tb
"""
    return {f"{parts.name}.core": text}


def _edalize(parts: _Parts) -> dict[str, str]:
    sources = [{"name": n, "file_type": "verilogSource"} for n in parts.verilog]
    memories = [{"name": n, "file_type": "user"} for n in parts.memories]
    bench = [{"name": parts.test[0], "file_type": "verilogSource"},
             *({"name": n, "file_type": "user"} for n in parts.test[1:])]  # fmt: skip
    lines = [
        f'    "{arch}": ("yosys", {{"arch": "{arch}", "makefile_name": "{parts.name}.mk"}}),'
        for arch in ARCHITECTURES.kinds()
    ]
    kinds = "|".join(("sim", *ARCHITECTURES.kinds()))
    text = f'''\
"""Runs {parts.name} through Edalize: python {parts.name}_edalize.py {kinds} [WORK]."""

import shutil
import sys
from pathlib import Path

from edalize.edatool import get_edatool

HERE = Path(__file__).resolve().parent
FILES = {json.dumps(sources + memories, indent=4)}
BENCH = {json.dumps(bench, indent=4)}
TOOLS = {{
    "sim": ("icarus", {{"iverilog_options": ["-g2005"]}}),
{chr(10).join(lines)}
}}


def main(kind, work):
    tool, options = TOOLS[kind]
    files = FILES + (BENCH if kind == "sim" else [])
    work.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(HERE / file["name"], work / file["name"])
    edam = {{
        "name": "{parts.name}",
        "toplevel": "{parts.name}_tb" if kind == "sim" else "{parts.top}",
        "files": files,
        "tool_options": {{tool: options}},
    }}
    backend = get_edatool(tool)(edam=edam, work_root=str(work))
    backend.configure()
    backend.build()
    if kind == "sim":
        backend.run()


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "sim"
    main(chosen, Path(sys.argv[2] if len(sys.argv) > 2 else f"work-{{chosen}}"))
'''
    return {f"{parts.name}_edalize.py": text}


def _litex(parts: _Parts) -> dict[str, str]:
    text = litex_module(
        parts.name, parts.interface, parts.verilog, parts.memories, parts.taken, parts.given
    )
    return {f"{parts.name}_litex.py": text}


def _apio(parts: _Parts) -> dict[str, str]:
    return {
        "apio.ini": f"""\
; {_NEVER_RUN}
[env:default]
board = icebreaker
top-module = {parts.top}
default-testbench = {parts.test[0]}
"""
    }


def _vivado(parts: _Parts) -> dict[str, str]:
    sources = " ".join(f"[file join $here {n}]" for n in parts.verilog)
    memories = "\n".join(
        f"add_files -norecurse [file join $here {n}]\n"
        f'set_property FILE_TYPE "Memory Initialization Files" [get_files {n}]'
        for n in parts.memories
    )
    names = {"stream": (), "axis": ("s_axis", "m_axis"), "csr": ("s_axis", "m_axis", "s_axi")}
    clock = "aclk" if names[parts.interface] else "clk"
    busses = "".join(
        f"ipx::associate_bus_interfaces -busif {name} -clock aclk $core\n"
        for name in names[parts.interface]
    )
    text = f"""\
# Packs {parts.top} as an IP of Vivado: vivado -mode batch -source {parts.name}_package.tcl
# {_NEVER_RUN}
set here [file dirname [file normalize [info script]]]
create_project -in_memory -part xc7a35tcpg236-1
add_files -norecurse [list {sources}]
{memories}
set_property top {parts.top} [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir [file join $here {parts.name}_ip] -vendor pvq-hw \\
  -library accelerators -name {parts.name} -version 1.0 -import_files -force
set core [ipx::current_core]
ipx::infer_bus_interface {clock} xilinx.com:signal:clock_rtl:1.0 $core
{busses}ipx::update_checksums $core
ipx::save_core $core
"""
    return {f"{parts.name}_package.tcl": text}


_WRITERS: Mapping[str, Callable[[_Parts], dict[str, str]]] = dict(
    zip(CORE_FLOWS, (_fusesoc, _edalize, _litex, _apio, _vivado), strict=True)
)
