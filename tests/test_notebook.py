"""The notebook in `examples` runs from top to bottom, and holds no outputs that could be old."""

import ast
import json

import pytest
from cli_tools import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def source(cell):
    return "".join(cell["source"])


def shown(code, names):
    """Runs a cell; what its last expression looks like in a notebook."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return ""
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    html = getattr(value, "_repr_html_", None)
    return html() if html else repr(value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_well_formed_and_without_outputs(path):
    document = json.loads(path.read_text())
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    cells = document["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) > 3
    for cell in cells:
        assert set(cell) >= {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            ast.parse(source(cell))
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    cells = json.loads(path.read_text())["cells"]
    pages = [shown(source(cell), names) for cell in cells if cell["cell_type"] == "code"]
    assert any("<table" in page for page in pages)  # of the accelerator's layers
    assert "are right" in capsys.readouterr().out
