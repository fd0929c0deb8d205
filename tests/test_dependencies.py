"""What the packages import from others is declared in pyproject.toml."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = ("pvq_hw", "gateware", "sim")


def imported():
    """Top-level names of other projects, wherever in a file they are imported."""
    found = set()
    for path in (path for package in OWN for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    names = {name.partition(".")[0] for name in found}
    return names - set(sys.stdlib_module_names) - set(OWN)


def declared():
    """Names of the distributions that an installation may ask for, but for those of tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name, group in groups.items() if name not in ("test", "bench") for line in group
    ]
    return {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in lines}


def test_every_import_is_declared():
    makers, known = packages_distributions(), declared()
    missing = {
        name
        for name in imported()
        if not {d.lower().replace("_", "-") for d in makers.get(name, [name])} & known
    }
    assert missing == {"distributed"}, "dask[distributed] brings that"
