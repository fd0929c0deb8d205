"""Functions of the user's own, named as ``module:function``."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from pvq_hw.errors import InputError

__all__ = ["names_function", "user_function"]


def names_function(text: str) -> bool:
    """Whether a text has the form ``module:function``."""
    module, colon, function = text.partition(":")
    return bool(colon and module and function)


def user_function(text: str, what: str) -> Callable[..., Any]:
    """The function; the current folder comes first.

    Parameters
    ----------
    text : str
        ``"module:function"``.
    what : str
        What it is for, as errors say it.

    Raises
    ------
    InputError
        The module can't be imported or has no such function.
    """
    module, _, function = text.partition(":")
    place = os.getcwd()
    sys.path.insert(0, place)
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} module {module!r} can't be imported: {reason}") from None
    finally:
        if place in sys.path:
            sys.path.remove(place)
    if not callable(found):
        raise InputError(f"{what} {function!r} must be a function of module {module!r}")
    return found  # type: ignore[no-any-return]
