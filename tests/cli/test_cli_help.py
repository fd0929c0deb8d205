"""Help and usage: every verb explains itself at once, and nothing heavy is imported for it."""

import os
import subprocess
import sys

import pytest
from cli_tools import ROOT, VERBS, run

from pvq_hw import __version__

HEAVY = ("numpy", "onnx", "amaranth", "jinja2", "gateware", "sim")


def test_help_lists_the_verbs_that_are_built():
    ran = run("--help")
    assert (ran.code, ran.err) == (0, "")
    listed = ran.out.split("VERB\n", 1)[1].split("options:", 1)[0]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("    ") and
             line[4] != " "]  # fmt: skip
    assert names == list(VERBS)
    assert "exit status: 0 done and right; 1 a check failed" in ran.out


def test_no_verb_at_all_lists_the_verbs():
    ran = run()
    assert (ran.code, ran.out, ran.err) == (2, "", run("--help").out)


def completed(line, tmp_path):
    """What a shell offers after a line, as argcomplete's scripts ask for it."""
    found = tmp_path / "found"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(found), "COMP_LINE": line,
             "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "63"}  # fmt: skip
    command = [sys.executable, "-c", "from pvq_hw.cli import main; main()"]
    subprocess.run(command, env=os.environ | asked, cwd=tmp_path, check=True)
    return [word.strip() for word in found.read_text().splitlines()]


def test_a_shell_completes_verbs_options_and_boards(tmp_path):
    assert completed("pvq-hw com", tmp_path) == ["compile"]
    assert "--max-loss" in completed("pvq-hw compile --ma", tmp_path)
    boards = completed("pvq-hw demo --board icebr", tmp_path)
    assert sorted(boards) == ["icebreaker", "icebreaker-bitsy"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb):
    ran = run(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: pvq-hw {verb} ")
    for option in ("--json", "--quiet"):
        assert option in ran.out


def test_version():
    ran = run("--version")
    assert (ran.code, ran.out) == (0, f"pvq-hw {__version__}\n")


def test_help_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from pvq_hw.cli import main\n"
        f"for argv in [['--help']] + [[v, '--help'] for v in {VERBS!r}]:\n"
        "    try:\n"
        "        main(argv)\n"
        "    except SystemExit as leaving:\n"
        "        assert leaving.code == 0\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--",), "the following arguments are required: VERB (see pvq-hw --help)"),
        (("fly",), "argument VERB: invalid choice: 'fly'"),
        (("compile",), "required: MODEL, -o/--out (see pvq-hw compile --help)"),
        (("compile", "m.onnx", "-o", "o", "--ratio", "many"), "--ratio: invalid float value"),
        (("compile", "m.onnx", "-o", "o", "--quantizer", "best"), "invalid choice: 'best'"),
        (("simulate", "o"), "required: --data (see pvq-hw simulate --help)"),
        (("simulate", "o", "--data", "d", "--simulator", "none"), "invalid choice: 'none'"),
        (("layer", "w.npy"), "required: -o/--out"),
        (("run", "o", "--port", "p"), "required: --data"),
        (("report",), "required: OUT"),
        (("demo", "--wings"), "unrecognized arguments: --wings"),
        (("data", "-o", "x\ny"), "required: FILES"),
    ],
)
def test_wrong_usage_is_one_line(args, text):
    ran = run(*args)
    assert ran.code == 2
    assert text in ran.complaint
    assert ran.err.count("\n") == 1
    assert ran.out == ""


def test_a_missing_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)  # importing it then fails
    for name in [
        name for name in sys.modules if name.startswith(("pvq_hw.model.load", "pvq_hw.model.onnx"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    args = ("compile", tmp_path / "m.onnx", "--target", "hx8k", "-o", tmp_path / "out")
    ran = run(*args)
    assert ran.code == 2
    assert ran.complaint == ("The Python package 'onnx' is missing; pvq-hw doctor says what to do")
