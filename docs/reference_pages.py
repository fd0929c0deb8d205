"""What the documentation site has besides the pages: the commands and the Python interface, written
from the parser and the package, and files beside `docs/` that pages lead to.

A hook of MkDocs, see `mkdocs.yml`.
"""

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

__all__ = ["commands", "on_files", "on_page_markdown", "python_interface"]

ROOT = Path(__file__).resolve().parents[1]
_BESIDE = ("constraints", "pvq_hw")  # folders that pages lead to
_BESIDE_LINK = re.compile(rf"\]\((?:\.\./)+((?:{'|'.join(_BESIDE)})/[^)#]+)\)")


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


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are written here, and the files beside the pages."""
    from mkdocs.structure.files import File

    pages = {"reference/commands.md": commands(), "reference/python.md": python_interface()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path in sorted(_beside()):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def _beside() -> set[str]:
    found: set[str] = set()
    for page in (ROOT / "docs").rglob("*.md"):
        found |= set(_BESIDE_LINK.findall(page.read_text(encoding="utf-8")))
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave `docs/` lead to the copies in the site."""
    up = "../" * page.file.src_uri.count("/")
    return _BESIDE_LINK.sub(rf"]({up}\1)", markdown)
