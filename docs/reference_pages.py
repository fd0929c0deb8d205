"""What the documentation site has besides the pages: the commands and the Python interface, written
from the parser and the package, a page a board and a network, and files beside `docs/` that pages
lead to.

A hook of MkDocs, see `mkdocs.yml`.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = [
    "board_pages",
    "commands",
    "network_pages",
    "on_files",
    "on_page_markdown",
    "python_interface",
]

ROOT = Path(__file__).resolve().parents[1]
_BOARDS = "reference/boards/"
_BESIDE = ("constraints", "pvq_hw")  # folders that pages lead to
_BESIDE_LINK = re.compile(rf"\]\((?:\.\./)+((?:{'|'.join(_BESIDE)})/[^)#]+)\)")


def network_pages() -> dict[str, str]:
    """A page for every network that is measured, by its path."""
    kept = sys.path[:]
    sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]  # MkDocs loads a hook by its path alone
    try:
        return importlib.import_module("network_pages").network_pages()  # type: ignore[no-any-return]
    finally:
        sys.path[:] = kept


def commands() -> str:
    """A page of every verb's arguments, from the parser itself."""
    from pvq_hw.cli import build_parser

    lines = ["# Commands", "", "Each verb also explains itself: `pvq-hw VERB --help`.", ""]
    for name, parser in _verbs(build_parser()).items():
        lines += [f"## {name}", "", _plain(parser.description or ""), ""]
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        lines += ["```", usage, "```", "", "| argument | |", "|---|---|"]
        lines += [f"| {_names(a)} | {_plain(_help(parser, a))} |" for a in _arguments(parser)]
        lines.append("")
    return "\n".join(lines)


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]


def _names(action: argparse.Action) -> str:
    value = action.metavar or ""
    if not value:
        choices = ",".join(map(str, action.choices or ()))
        value = f"{{{choices}}}" if choices else action.dest.upper()
    value = f" {value}" if action.nargs != 0 else ""
    names = [f"{name}{value}" for name in action.option_strings] or [value.strip()]
    # A bar ends a cell of a table, in code too.
    return ", ".join(f"`{name.replace('|', ' or ')}`" for name in names)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = action.help or ""
    return text % {**vars(action), "prog": parser.prog} if "%" in text else text


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([|<>*_])", r"\\\1", text)


def python_interface() -> str:
    """A page of the names that ``import pvq_hw`` gives, from their docstrings."""
    import pvq_hw

    lines = ["# Python", "", "What `import pvq_hw` gives.", ""]
    for name in pvq_hw.__all__:
        value = getattr(pvq_hw, name)
        module = importlib.import_module(value.__module__)
        assert getattr(module, name) is value
        lines += [f"::: {value.__module__}.{name}", ""]
    return "\n".join(lines)


def board_pages() -> dict[str, str]:
    """A page for every shipped board, by its path."""
    from pvq_hw.target.boards import TARGETS

    built = json.loads((ROOT / "benchmarks" / "results" / "boards.json").read_text())
    return {f"{_BOARDS}{b.name}.md": _board(b, built.get(b.name)) for b in TARGETS.values()}


def _board(board: Any, built: dict[str, Any] | None) -> str:
    device, pins = board.device, {"rx": board.rx, "tx": board.tx} | dict(board.leds)
    name = f"{device.name}-{board.package}" + (f", speed {board.speed}" if board.speed else "")
    sold = f" (sold with {device.sold_luts:,})" if device.sold_luts else ""
    rows = [
        ("device", name),
        ("LUTs, flip-flops", f"{device.luts:,}{sold}, {device.ffs:,}"),
        ("block RAM", f"{device.brams} blocks, {device.bram_bits >> 10:,} Kibit"),
        ("SPRAM", f"{device.spram_bits >> 10:,} Kibit" if device.sprams else "none"),
        ("multipliers", str(device.dsps or "none")),
        ("oscillator, planned clock", f"{board.crystal_mhz:g} MHz, {board.clock_mhz:g} MHz"),
        ("serial line", f"{board.link}; at most {board.baud:,} baud unless asked for more"),
        ("pins", ", ".join(f"{key} {pin.name}" for key, pin in pins.items())),
        ("SPI (`--link spi`)", _spi(board)),
        ("reset button", board.reset.name if board.reset else "none"),
        ("pins of a decision", ", ".join(pin.name for _, pin in board.decision) or "none"),
        ("loaders", ", ".join(loader.program for loader in board.loaders)),
        ("to know", board.note or "nothing"),
        ("pins are from", "; ".join(board.source)),
    ]
    ran = "has run on a real one" if board.tested else "has not run on a real one yet"
    lines = [f"# {board.board}", "", f"`--target {board.name}`. A bitstream of this project {ran}.",
             "", "| | |", "|---|---|", *(f"| {key} | {_plain(text)} |" for key, text in rows), "",
             "```", f"pvq-hw demo --board {board.name}", "pvq-hw program demo-out",
             "pvq-hw selftest demo-out", "```", "", _built(built), ""]  # fmt: skip
    return "\n".join(lines)


def _spi(board: Any) -> str:
    wires = ", ".join(f"{key} {pin.name}" for key, pin in board.spi)
    return f"{board.spi_link}: {wires}" if wires else "none"


def _built(built: dict[str, Any] | None) -> str:
    if built is None or "error" in built:
        return "The digits network was not built for it, or not with the clock met."
    return (
        f"The digits network, built: {built['fmax_mhz']:g} MHz where {built['clock_mhz']:.4g} are "
        f"asked for, {built['interval_cycles']} cycles a frame, {built['luts']:,} LUTs, "
        f"{built['block_rams']} block RAMs ([how, and the others](../../boards.md#built))."
    )


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are written here, and the files beside the pages."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = {"reference/commands.md": commands(), "reference/python.md": python_interface()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path, text in (board_pages() | network_pages()).items():
        aside = InclusionLevel.NOT_IN_NAV  # the pages of all boards and networks lead to them
        files.append(File.generated(config, path, content=text, inclusion=aside))
    for path in sorted(_beside()):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def _beside() -> set[str]:
    found: set[str] = set()
    for page in (ROOT / "docs").rglob("*.md"):
        found |= set(_BESIDE_LINK.findall(page.read_text(encoding="utf-8")))
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave `docs/` lead to copies in the site; that of boards to each one's page."""
    if page.file.src_uri == "boards.md":
        links = [f"[{Path(path).stem}]({path})" for path in board_pages()]
        markdown += "\n## One by one\n\n" + ", ".join(links) + "\n"
    if page.file.src_uri == "networks.md":
        titles = [(text.partition("\n")[0][2:], path) for path, text in network_pages().items()]
        markdown += "\n" + "".join(f"- [{title}]({path})\n" for title, path in titles)
    up = "../" * page.file.src_uri.count("/")
    return _BESIDE_LINK.sub(rf"]({up}\1)", markdown)
