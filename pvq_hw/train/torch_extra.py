"""The extra ``pvq-hw[train]``: PyTorch, imported when it is first used."""

import importlib
from typing import Any

from pvq_hw.errors import ToolError

__all__ = ["require_torch"]


def require_torch() -> Any:
    """The module ``torch``; raises ToolError, in one line, where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise ToolError(
            "Training must have PyTorch; install it with: pip install 'pvq-hw[train]'"
        ) from None
