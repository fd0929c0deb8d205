"""The documentation site: its navigation, its written pages, and that it builds."""

import importlib.util
import re
import subprocess
import sys

import pytest
from cli_tools import ROOT, VERBS

import pvq_hw
from pvq_hw.target.boards import TARGETS


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    listed = re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE)
    written = [p for p in listed if p.startswith("reference/")]
    found = sorted(p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md"))
    assert sorted(set(listed) - set(written)) == found
    assert len(listed) == len(set(listed))
    assert written == ["reference/commands.md", "reference/python.md"]


def test_commands_are_written_from_the_parser(pages):
    text = pages.commands()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(VERBS)
    compiling = text.split("\n## compile\n")[1].split("\n## ")[0]
    assert "| `--ratio R` | mean N/K to reach; without it and with inputs" in compiling
    assert "| `--objective {speed,latency,size,energy}` |" in compiling
    assert "%%" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


def test_the_python_interface_is_written_from_the_package(pages):
    named = re.findall(r"^::: (\S+)$", pages.python_interface(), re.MULTILINE)
    assert [name.rpartition(".")[2] for name in named] == list(pvq_hw.__all__)


def test_every_board_has_a_page(pages):
    written = pages.board_pages()
    assert list(written) == [f"reference/boards/{name}.md" for name in TARGETS]
    text = written["reference/boards/icebreaker.md"]
    assert "| reset button | 10 |" in text
    assert "PMOD 1A, pins 1 (CS), 2 (COPI), 3 (CIPO), 4 (CLK): cs 4, clk 45, copi 2" in text
    assert "A bitstream of this project has not run on a real one yet." in text
    assert "not built" in written["reference/boards/hx8k.md"] or "MHz where" in text


def test_every_network_has_a_page(pages):
    written = pages.network_pages()
    assert len(written) == 10
    for text in written.values():
        assert text.count("\n## ") >= 1
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        assert len(tables) == text.count("\n## ")
        for table in tables:
            rows = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
            assert len(rows) > 2, table
            assert len(set(rows)) == 1, table
    assert all(f"| {name} |" in written["reference/networks/digits.md"] for name in TARGETS)
    assert "99.00 % | 98.73 %" in written["reference/networks/lenet-5.md"]


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for page in ("index", "guide", "reference/commands", "reference/python"):
        assert (tmp_path / f"{page}.html").is_file()
    assert (tmp_path / "reference" / "boards" / "ulx3s-25f.html").is_file()
    assert (tmp_path / "reference" / "networks" / "kws.html").is_file()
    assert (tmp_path / "constraints" / "icebreaker.pcf").is_file()
