"""The chosen configuration as the TOML file that `compile` takes."""

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pvq_hw.flow.options import CompileOptions

__all__ = ["options_toml"]

_NOT_MADE = ("layers", "min_accuracy")


def options_toml(options: CompileOptions) -> str:
    """TOML text that `pvq_hw.flow.options.load_options` reads back as the same options, but for
    ``min_accuracy``, which says what to check and not what to make."""
    lines = _entries(options, (f.name for f in fields(options) if f.name not in _NOT_MADE))
    for name, choice in options.layers.items():
        lines += [
            "",
            f"[layers.{_text(name)}]",
            *_entries(choice, (f.name for f in fields(choice))),
        ]
    return "\n".join(lines) + "\n"


def _entries(source: Any, names: Iterable[str]) -> list[str]:
    values = ((name, getattr(source, name)) for name in names)
    return [f"{name} = {_value(value)}" for name, value in values if value not in (None, ())]


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _text(text: str) -> str:
    """A basic string of TOML: JSON's escapes, and DEL, which JSON leaves alone."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
