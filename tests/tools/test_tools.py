"""Finding and running external programs."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from cli_tools import MODEL, ROOT, run, twin

from pvq_hw.errors import ToolError
from pvq_hw.tools import find as tools
from pvq_hw.tools import yowasp
from pvq_hw.tools.process import python_module, run_command
from pvq_hw.tune.executor import process_runner


def _program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _gone(pid: int, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not _alive(pid):
            return True
        time.sleep(0.02)
    return False


def _read_pid(file: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if file.exists() and file.read_text().strip():
            return int(file.read_text())
        time.sleep(0.02)
    raise AssertionError("the program never started")


# -- finding ------------------------------------------------------------------------------------


def test_a_native_tool_is_preferred_to_yowasp(tmp_path, monkeypatch):
    path = _program(tmp_path, "yosys", "echo 'Yosys 0.45 (git sha1 abc)'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tool = tools.find_tool("yosys")
    assert (tool.source, tool.path, tool.version) == ("native", str(path), "0.45")


def test_a_native_tool_that_is_too_old_is_passed_over(tmp_path, monkeypatch):
    _program(tmp_path, "yosys", "echo 'Yosys 0.23 (git sha1 7ce5011c24b)'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert tools.find_tool("yosys").source == "yowasp"


def test_native_tools_can_be_ignored(tmp_path, monkeypatch):
    _program(tmp_path, "yosys", "echo 'Yosys 0.45'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PVQ_HW_TOOLS", "yowasp")
    assert tools.find_tool("yosys").source == "yowasp"


def test_a_missing_tool_names_its_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match=r"^iverilog is missing: apt-get install iverilog$"):
        tools.find_tool("iverilog")
    assert not tools.have_tool("iverilog")
    monkeypatch.setattr(yowasp.Module, "file", None)
    with pytest.raises(ToolError, match=r"^yosys is missing: pip install 'pvq-hw\[build\]'$"):
        tools.find_tool("yosys")


def test_an_old_tool_without_a_substitute_is_refused(tmp_path, monkeypatch):
    _program(tmp_path, "vvp", "echo 'Icarus Verilog runtime version 9.7'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"^vvp must be 10 or newer, .*/vvp isn't: apt-get"):
        tools.find_tool("vvp")


# -- running ------------------------------------------------------------------------------------


def test_output_is_logged_and_streamed(tmp_path):
    lines: list[str] = []
    seconds = run_command(
        (sys.executable, "-c", "print('one'); import sys; print('two', file=sys.stderr)"),
        name="printer",
        folder=tmp_path,
        log=tmp_path / "log",
        on_line=lines.append,
    )
    assert sorted(lines) == ["one", "two"]
    assert sorted((tmp_path / "log").read_text().split()) == ["one", "two"]
    assert seconds > 0


def test_a_failing_tool_is_one_line_that_names_the_log(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(ToolError) as error:
        run_command(
            ("sh", "-c", "echo ERROR: no such net; echo bye; exit 3"),
            name="nextpnr",
            folder=tmp_path,
            log=log,
        )
    assert str(error.value) == f"nextpnr failed with exit code 3: ERROR: no such net; see {log}"


def test_a_tool_that_cannot_start_is_one_line(tmp_path):
    with pytest.raises(ToolError, match=r"^ghost could not be started: [^\n]*$"):
        run_command((str(tmp_path / "none"),), name="ghost", folder=tmp_path)


def test_the_time_limit_ends_the_whole_group(tmp_path):
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    with pytest.raises(ToolError, match=r"^sleeper took longer than 0\.5 s and was ended"):
        run_command(("sh", "-c", script), name="sleeper", folder=tmp_path, timeout=0.5)
    assert _gone(_read_pid(tmp_path / "pid"))


def test_an_exception_of_the_listener_ends_the_tool(tmp_path):
    def listen(line: str) -> None:
        raise KeyboardInterrupt if line == "never" else ValueError(line)

    script = f"echo $$ > {tmp_path}/pid; echo stop; sleep 60"
    with pytest.raises(ValueError, match="stop"):
        run_command(("sh", "-c", script), name="talker", folder=tmp_path, on_line=listen)
    assert _gone(_read_pid(tmp_path / "pid"))


_PARENT = """
    import sys
    from pathlib import Path
    from pvq_hw.tools.process import run_command
    command = ("sh", "-c", "sleep 60 & echo $! > pid; wait")
    run_command(command, name="sleeper", folder=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_leaves_no_process_behind(tmp_path, number):
    code = textwrap.dedent(_PARENT)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL
    ) as parent:
        child = _read_pid(tmp_path / "pid")
        assert _alive(child)
        parent.send_signal(number)
        assert parent.wait(20) != 0
    assert _gone(child)


def test_a_yowasp_tool_ends_when_its_parent_is_killed(tmp_path):
    # That a product of three numbers is associative takes a SAT solver hours.
    (tmp_path / "a.v").write_text(
        "module a(input [19:0] x, y, z, output o);\n"
        "assign o = (x * y) * z == x * (y * z);\nendmodule\n"
    )
    (tmp_path / "a.ys").write_text("read_verilog a.v; prep\nlog started\nsat -prove o 1\n")
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from pvq_hw.tools import find as tools
        def line(text):
            if text.strip() == "started":
                (Path(sys.argv[1]) / "started").write_text("1")
        tools.run("yosys", ["-s", "a.ys"], folder=Path(sys.argv[1]), on_line=line)
    """)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as parent:
        _read_pid(tmp_path / "started")
        listing = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        child = int(listing[0])
        assert _alive(child)
        parent.kill()
    assert _gone(child)


def test_yowasp_tools_run_below_the_temporary_folder(tmp_path):
    (tmp_path / "a.v").write_text("module a(input x, output y); assign y = ~x; endmodule\n")
    tools.warm_up(["yosys"])
    tools.run("yosys", ["-q", "-p", "read_verilog a.v; synth; write_json a.json"], folder=tmp_path)
    assert '"a"' in (tmp_path / "a.json").read_text()


def test_a_failing_yowasp_tool_tells_its_error(tmp_path):
    with pytest.raises(ToolError, match=r"^yosys failed with exit code 1: ERROR: .*none\.v"):
        tools.run("yosys", ["-p", "read_verilog none.v"], folder=tmp_path)


# -- the cache ----------------------------------------------------------------------------------


def test_the_cache_is_cold_then_warm(tmp_path, monkeypatch):
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PVQ_HW_TOOLS", "yowasp")
    assert tools.cold_tools(["icepack", "iverilog"]) == ["icepack"]
    messages: list[str] = []
    assert tools.warm_up(["icepack"], messages.append) > 0
    assert messages[0].startswith("First use on this machine: compiling icepack into")
    assert messages[1].startswith("Compiled icepack in ")
    assert tools.cold_tools(["icepack"]) == []
    messages.clear()
    assert tools.warm_up(["icepack"], messages.append) == 0
    assert messages == []


def test_a_truncated_cache_file_is_cold(tmp_path, monkeypatch):
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path))
    tools.warm_up(["icebram"])
    (compiled,) = (path for path in tmp_path.rglob("*") if path.is_file())
    compiled.write_bytes(compiled.read_bytes()[:1000])
    assert tools.cold_tools(["icebram"]) == ["icebram"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ToolError, match=r"^icepack could not be compiled into [^\n]*YOWASP_CACHE"):
        tools.warm_up(["icepack"])


_SHADOWS = (
    "cocotb", "ctypes", "hashlib", "json", "multiprocessing", "numpy", "pickle", "platformdirs",
    "pvq_hw", "random", "sim", "sitecustomize", "tempfile", "threading", "usercustomize",
    "wasmtime", "yowasp_runtime",
)  # fmt: skip


@pytest.fixture
def shadowed(tmp_path, monkeypatch):
    """The current folder: it holds modules of names that tools import, each of which leaves a
    file when it runs."""
    folder = tmp_path / "shadows"
    folder.mkdir()
    for name in _SHADOWS:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep + os.environ.get("PYTHONPATH", ""))
    yield folder
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_verb_imports_no_python_files_of_the_current_folder(shadowed, monkeypatch):
    command, environment = python_module("pvq_hw", "--version")
    done = subprocess.run(
        command, cwd=shadowed, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("pvq-hw ")
    child = (sys.executable, "-c", "import hashlib")  # of the child's own
    subprocess.run(child, cwd=shadowed, env=os.environ | environment, check=True)
    monkeypatch.setenv("PVQ_HW_TOOLS", "yowasp")
    assert tools.find_tool("icepack").command == python_module("pvq_hw.tools.yowasp", "icepack")[0]


def test_neither_form_of_the_command_imports_python_files_of_the_current_folder(shadowed):
    """But for a file that is called as the package is, which Python itself takes for it after -m,
    and what Python has imported by then."""
    (shadowed / "pvq_hw.py").unlink()
    script = Path(sys.executable).with_name("pvq-hw")
    forms = [(sys.executable, "-m", "pvq_hw"), (sys.executable, str(script))]
    for form in forms if script.exists() else forms[:1]:
        command = (*form, "check", str(MODEL), "--target", "icebreaker", "--json")
        done = subprocess.run(
            command, cwd=shadowed, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def test_cold_tools_import_no_python_files_of_the_current_folder(shadowed, tmp_path, monkeypatch):
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PVQ_HW_TOOLS", "yowasp")
    before = set(os.listdir(shadowed))
    assert tools.warm_up(["icepack"]) > 0
    with pytest.raises(ToolError, match="icepack failed with exit code"):
        tools.run("icepack", ["none.asc"], folder=shadowed)
    assert set(os.listdir(shadowed)) == before


def test_workers_import_no_python_files_of_the_current_folder(shadowed):
    def pids(runner):
        executor = runner.start()
        try:
            return executor.submit(os.getpid).result()
        finally:
            runner.stop(executor)

    with process_runner(1) as runner:
        assert pids(runner) != os.getpid()


def test_simulators_import_no_python_files_of_the_current_folder(shadowed, digits, tmp_path):
    out = twin(digits.out, tmp_path / "out")
    ran = run("simulate", out, "--data", digits.test, "--count", 1, "--simulator", "icarus")
    assert ran.code == 0, ran.err
