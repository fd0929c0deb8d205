"""Imports run one way: tests -> sim -> gateware -> pvq_hw, and lazily to the right in `pvq_hw`."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from cli_tools import ROOT

ORDER = ("pvq_hw", "gateware", "sim", "tests")
PACKAGES = ORDER[:3]
# Where the compiler reaches right, inside functions.
REACHERS = {"accelerator.py", "board_flow.py", "flow.py", "layer_flow.py", "cli"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree):
    """(top package, line, whether inside a function) of every absolute import."""
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports must be absolute"
            names = [node.module or ""]
        else:
            continue
        for name in names:
            yield name.partition(".")[0], node.lineno, id(node) in inner


def wrong_imports(package, path, text):
    """Lines that import against the direction."""
    right = ORDER[ORDER.index(package) + 1 :]
    found = []
    for name, line, lazy in imported(ast.parse(text)):
        if name not in right:
            continue
        if package == "pvq_hw" and lazy and name != "tests" and path.parts[0] in REACHERS:
            continue
        found.append(f"{package}/{path}:{line} imports {name}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    paths = modules(package)
    assert len(paths) > 10
    found = []
    for path in paths:
        place = path.relative_to(ROOT / package)
        found += wrong_imports(package, place, path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    ("package", "path", "text", "count"),
    [
        ("pvq_hw", "flow.py", "import gateware.leaf", 1),
        ("pvq_hw", "flow.py", "def f():\n    from sim import flow", 0),
        ("pvq_hw", "codes.py", "def f():\n    from sim import flow", 1),
        ("pvq_hw", "cli/run.py", "async def f():\n    import sim.flow", 0),
        ("pvq_hw", "cli/run.py", "class C:\n    import sim.flow", 1),
        ("gateware", "leaf.py", "import pvq_hw.codes\nimport amaranth", 0),
        ("gateware", "leaf.py", "def f():\n    import sim.wire", 1),
        ("sim", "wire.py", "from tests import engine", 1),
        ("sim", "wire.py", "from gateware import leaf", 0),
    ],
)
def test_the_checker_sees_wrong_directions(package, path, text, count):
    assert len(wrong_imports(package, Path(path), text)) == count


def test_relative_imports_are_seen():
    with pytest.raises(AssertionError, match="absolute"):
        list(imported(ast.parse("from . import x")))


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
