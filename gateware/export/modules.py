"""Exported Verilog as a file a module, with the folder of the memory files as a parameter."""

import re
from collections.abc import Mapping

__all__ = ["FOLDER", "split_modules", "with_folder"]

FOLDER = "MEMORY_FOLDER"
"""The parameter: where the memory files lie, with a slash at its end."""

_HERE = "./"  # not "": a concatenation would begin with a byte of zeros
_NAMES_A_FILE = re.compile(r'(INIT_FILE\(|\$readmemh\()("[^"]*")')
_INSTANCE = re.compile(r"^  (\w+) (?:#\((\..*)\) )?(\w+) \($", re.MULTILINE)
_HEAD = re.compile(r"^module (\w+)( #\(\n|\(|;)", re.MULTILINE)


def split_modules(text: str) -> dict[str, str]:
    """Files by name, ``<module>.v``, of Verilog in which every module begins a line; the comment
    at the top goes with the first."""
    parts = re.split(r"^(?=module )", text, flags=re.MULTILINE)
    comment, *modules = parts
    if not modules:
        return {}
    modules[0] = comment + modules[0]
    names = [re.search(r"^module (\w+)", part, re.MULTILINE)[1] for part in modules]  # type: ignore[index]
    return {f"{n}.v": part.rstrip() + "\n" for n, part in zip(names, modules, strict=True)}


def with_folder(files: Mapping[str, str]) -> dict[str, str]:
    """Gives every module that names memory files, itself or further down, the parameter `FOLDER`,
    and hands it on. Each file holds one module, and is called by it."""
    inside = {
        name.removesuffix(".v"): {found[1] for found in _INSTANCE.finditer(text)}
        for name, text in files.items()
    }
    needs = {name for name in inside if _NAMES_A_FILE.search(files[f"{name}.v"])}
    while more := {name for name, used in inside.items() if used & needs} - needs:
        needs |= more
    return {
        name: _given(text, needs) if name.removesuffix(".v") in needs else text
        for name, text in files.items()
    }


def _given(text: str, needs: set[str]) -> str:
    """A module with the parameter, which its instances of modules in ``needs`` get."""

    def head(found: re.Match[str]) -> str:
        own = f'module {found[1]} #(\n  parameter {FOLDER} = "{_HERE}"'
        ends = {";": "\n);", "(": "\n) ("}
        return own + ends.get(found[2], ",\n")

    def instance(found: re.Match[str]) -> str:
        module, given, name = found.groups()
        if module not in needs:
            return found[0]
        handed = ", ".join(filter(None, (f".{FOLDER}({FOLDER})", given)))
        return f"  {module} #({handed}) {name} ("

    text = _HEAD.sub(head, _INSTANCE.sub(instance, text), count=1)
    return _NAMES_A_FILE.sub(rf"\1{{{FOLDER}, \2}}", text)
