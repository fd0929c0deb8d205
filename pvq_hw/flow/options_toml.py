"""Options as the TOML file that `compile` takes."""

from dataclasses import fields
from typing import Any

import tomli_w

from pvq_hw.flow.options import CompileOptions

__all__ = ["options_toml"]

_NOT_MADE = ("layers", "min_accuracy", "max_loss", "aim", "objective")


def options_toml(options: CompileOptions) -> str:
    """TOML text that `pvq_hw.flow.options.load_options` reads back as the same options, but for
    those that say what to look for and not what to make: ``min_accuracy``, ``max_loss``,
    ``aim``, ``objective``."""
    document = {k: v for k, v in _entries(options).items() if k not in _NOT_MADE}
    layers = {name: _entries(choice) for name, choice in options.layers.items()}
    return tomli_w.dumps(document | ({"layers": layers} if layers else {}))


def _entries(source: Any) -> dict[str, Any]:
    """The fields that say something; TOML has no word for None."""
    found = {field.name: getattr(source, field.name) for field in fields(source)}
    return {name: value for name, value in found.items() if value not in (None, ())}
