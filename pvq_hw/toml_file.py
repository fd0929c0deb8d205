"""TOML files that nobody vouches for."""

import tomllib
from pathlib import Path
from typing import Any

from pvq_hw.errors import InputError

__all__ = ["read_toml"]

_MAX_BYTES = 1 << 20
_MOST_DOTS = 5_000  # the parser takes quadratic time for one key of many parts


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The values of a TOML file of at most 1 MiB.

    Raises InputError, which calls the file ``what``, where it's too large or no TOML.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} must be {what} of at most 1 MiB")
        text = path.read_text(encoding="utf-8")
        if text.count(".") > _MOST_DOTS:
            raise InputError(f"{path} must be {what} with at most {_MOST_DOTS:,} dots")
        return tomllib.loads(text)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} must be a TOML file: {reason}") from None
