"""What modules may import, beside the directions that `lint-imports` keeps, and what they name."""

import importlib
import subprocess
import sys

import pytest
from cli_tools import ROOT

PACKAGES = ("pvq_hw", "gateware", "sim")


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def test_the_compiler_needs_no_circuits():
    """Importing every module of `pvq_hw` brings in neither Amaranth nor the other packages."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in modules("pvq_hw")
        if path.name != "__main__.py"
    ]
    script = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        "print(sorted(n for n in ('amaranth', 'gateware', 'sim') if n in sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist(package):
    """``__all__`` follows the imports, and every name in it is there."""
    for path in modules(package):
        if path.name in ("__init__.py", "__main__.py") or path.parent.name == "cocotb_tests":
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name)
        assert isinstance(module.__all__, list), name
        assert all(hasattr(module, public) for public in module.__all__), name
        assert module.__doc__, name
