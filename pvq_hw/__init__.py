"""Trained network in, verified FPGA accelerator out.

``pvq_hw.compile(...)`` and ``pvq_hw.load(OUT)`` give an `Accelerator`, which predicts, simulates,
builds, verifies and reports; see `pvq_hw.api`. Names are imported when they are first used, so
that the command line starts at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvq_hw.api import Accelerator, boards, compile, load, update
    from pvq_hw.data.augment import augmented
    from pvq_hw.data.dataset import Data, load_data, make_data
    from pvq_hw.errors import CheckError, InputError, PvqError, ToolError
    from pvq_hw.flow.check import ModelCheck, check
    from pvq_hw.flow.driver import Board
    from pvq_hw.flow.selftest import selftest
    from pvq_hw.model.load import load_model
    from pvq_hw.model.model import Model
    from pvq_hw.network.network import Network
    from pvq_hw.quantizer.quantize import LayerOptions, quantize

__version__ = "0.1.0"

__all__ = [
    "Accelerator",
    "Board",
    "CheckError",
    "Data",
    "InputError",
    "LayerOptions",
    "Model",
    "ModelCheck",
    "Network",
    "PvqError",
    "ToolError",
    "augmented",
    "boards",
    "check",
    "compile",
    "load",
    "load_data",
    "load_model",
    "make_data",
    "quantize",
    "selftest",
    "update",
]

_HOME = {
    "Accelerator": "api",
    "boards": "api",
    "compile": "api",
    "load": "api",
    "update": "api",
    "augmented": "data.augment",
    "Data": "data.dataset",
    "load_data": "data.dataset",
    "make_data": "data.dataset",
    "CheckError": "errors",
    "InputError": "errors",
    "PvqError": "errors",
    "ToolError": "errors",
    "ModelCheck": "flow.check",
    "check": "flow.check",
    "Board": "flow.driver",
    "selftest": "flow.selftest",
    "Model": "model.model",
    "load_model": "model.load",
    "Network": "network.network",
    "LayerOptions": "quantizer.quantize",
    "quantize": "quantizer.quantize",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"pvq_hw.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pvq_hw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
