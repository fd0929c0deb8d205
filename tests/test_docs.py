"""The documents tell the truth: the worked example is run, commands parse, links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess

import pytest
from cli_tools import BUNDLED, MODEL, ROOT, run

from pvq_hw.cli import build_parser
from pvq_hw.flow.options import load_options

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def page_id(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path, *kinds):
    """(kind, text) of the fenced blocks of a page."""
    found = _BLOCK.findall(path.read_text(encoding="utf-8"))
    return [(kind, text) for kind, text in found if kind in kinds]


def commands(path):
    """Every ``pvq-hw ...`` command of a page's blocks, without comments."""
    for _, text in blocks(path, "", "sh"):
        for line in text.splitlines():
            for part in line.split("#")[0].split("&&"):
                if part.strip().startswith("pvq-hw "):
                    yield shlex.split(part)[1:]


def test_the_worked_example_runs(tmp_path, monkeypatch):
    shutil.copy(BUNDLED / "digits.npz", tmp_path / "digits.npz")
    shutil.copy(MODEL, tmp_path / "digits.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    done = {"sh": 0, "python": 0, "toml": 0}
    for kind, text in blocks(ROOT / "docs" / "guide.md", "sh", "python", "toml"):
        done[kind] += 1
        if kind == "python":
            exec(compile(text, "guide.md", "exec"), names)
        elif kind == "toml":
            (tmp_path / "c.toml").write_text(text)
            assert load_options(tmp_path / "c.toml", {}).layers
        else:
            for line in text.splitlines():
                _run_line(line)
    assert min(done.values()) >= 1
    assert done["sh"] >= 4


def _run_line(line):
    if line.startswith("pvq-hw "):
        ran = run(*shlex.split(line)[1:])
        assert ran.code == 0, (line, ran.err)
        return
    ran = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert ran.returncode == 0, (line, ran.stderr)
    assert ran.stdout.splitlines()[-1].startswith("PASS: "), ran.stdout


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_every_command_of_the_pages_is_one(path):
    for command in commands(path):
        if command == ["VERB", "--help"]:
            continue
        build_parser().parse_args(command)


def test_the_readme_shows_commands():
    verbs = {command[0] for command in commands(ROOT / "README.md")}
    assert {"compile", "simulate", "build", "verify", "data"} <= verbs


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path):
    for link in _LINK.findall(path.read_text(encoding="utf-8")):
        if "://" not in link:
            assert os.path.exists(path.parent / link), link


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_nothing_is_left_to_fill_in(path):
    assert re.findall(r"@[A-Z]+@|\bTODO\b|\bXXX\b", path.read_text(encoding="utf-8")) == []


def test_python_of_the_readme_compiles():
    found = blocks(ROOT / "README.md", "python")
    assert found
    for _, text in found:
        compile(text, "README.md", "exec")
