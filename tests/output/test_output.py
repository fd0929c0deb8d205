"""The output folder survives kills, full disks, links and a second writer."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_tools import refused, twin

import pvq_hw.output.folder
from pvq_hw.errors import InputError
from pvq_hw.output.build_record import write_build
from pvq_hw.output.folder import OutputFolder, check_tree

ROOT = Path(__file__).parents[2]
MANIFEST = """{"format": "pvq-hw output", "files": {
 "image/0.hex": {}, "image/1.hex": {}, "image/2.hex": {}, "image/3.hex": {}}}"""


def fill(folder: Path, text: str, files: int = 4) -> None:
    """A small output whose every file says ``text``."""
    (folder / "image").mkdir()
    for i in range(files):
        (folder / "image" / f"{i}.hex").write_text(text)
    (folder / "report.json").write_text(text)
    (folder / "manifest.json").write_text(MANIFEST)


def write(path: Path, text: str) -> None:
    with OutputFolder(path).replace() as folder:
        fill(folder, text)


def content(path: Path) -> dict[str, str]:
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}


def texts(path: Path) -> set[str]:
    return {t for name, t in content(path).items() if name != "manifest.json"}


@pytest.fixture(params=["exchange", "two renames"])
def method(request, monkeypatch):
    if request.param == "two renames":
        monkeypatch.setattr(pvq_hw.output.folder, "exchange", lambda a, b: False)
    return request.param


def test_new_and_replaced_whole(tmp_path, method):
    out = tmp_path / "a" / "b" / "out"
    write(out, "one")
    (out / "build").mkdir()
    write(out, "two")
    assert texts(out) == {"two"}
    assert not (out / "build").exists()
    assert os.listdir(out.parent) == ["out"]


def test_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "one")
    assert texts(tmp_path / "out") == {"one"}


def test_body_that_raises_changes_nothing(tmp_path, method):
    out = tmp_path / "out"
    write(out, "one")
    before = content(out)
    for action in ("replace", "update"):
        with (  # noqa: PT012
            pytest.raises(ZeroDivisionError),
            getattr(OutputFolder(out), action)() as folder,
        ):
            (folder / "report.json").write_text("two")
            raise ZeroDivisionError
    assert content(out) == before
    assert os.listdir(tmp_path) == ["out"]


def test_failed_first_run_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), OutputFolder(tmp_path / "a" / "b").replace():
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_update_replaces_its_parts_only(tmp_path, method):
    out = tmp_path / "out"
    write(out, "one")
    for text in ("first", "second"):
        with OutputFolder(out).update() as folder:
            (folder / "build").mkdir()
            (folder / "build" / "top.bit").write_text(text)
            write_build(folder / "build", {"bitstream": "top.bit"})
            (folder / "report.json").write_text(text)
        assert (out / "build" / "top.bit").read_text() == text
        assert (out / "report.json").read_text() == text
        assert (out / "image" / "0.hex").read_text() == "one"
    assert os.listdir(tmp_path) == ["out"]


def test_update_needs_an_output(tmp_path):
    with (
        pytest.raises(InputError, match="must be a pvq-hw output; run pvq-hw compile first"),
        OutputFolder(tmp_path / "out").update(),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_check_wants_a_finished_output(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="must exist; run pvq-hw compile first"):
        OutputFolder(out).check()
    out.mkdir()
    with pytest.raises(InputError, match="lacks its manifest"):
        OutputFolder(out).check()
    out.rmdir()
    write(out, "one")
    assert OutputFolder(out).check() == out


def test_output_without_manifest_is_refused(tmp_path):
    with (
        pytest.raises(InputError, match=r"must hold manifest\.json, but the new one lacks it"),
        OutputFolder(tmp_path / "out").replace(),
    ):
        pass


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="must be new, empty or a pvq-hw output"):
        write(tmp_path / "out", "one")
    assert content(tmp_path) == {"out/thesis.tex": "x"}


def test_foreign_file_in_an_output_is_not_lost(tmp_path):
    out = tmp_path / "out"
    write(out, "one")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"has 'notes\.txt'; move it away"):
        write(out, "two")
    assert texts(out) == {"one", "mine"}


def test_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="must be a folder, not a file"):
        write(tmp_path / "out", "one")
    with pytest.raises(InputError, match=r"cannot be made: (File exists|Not a directory)"):
        write(tmp_path / "out" / "inner", "one")
    assert content(tmp_path) == {"out": "x"}


def test_links_are_refused(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    write(other, "other")
    out.symlink_to(other)
    with pytest.raises(InputError, match=r"'.*out' must not be a symbolic link"):
        write(out, "two")
    with pytest.raises(InputError, match="must not be a symbolic link"):
        OutputFolder(out).check()
    out.unlink()
    write(out, "one")
    (out / "image" / "9.hex").symlink_to(other / "report.json")
    for action in (
        lambda: write(out, "two"),
        OutputFolder(out).check,
        lambda: OutputFolder(out).update().__enter__(),
    ):
        with pytest.raises(InputError, match=r"symbolic links, but 'image/9\.hex' is one"):
            action()
    assert texts(other) == {"other"}


def test_link_made_by_the_writer_is_refused(tmp_path):
    out = tmp_path / "out"
    write(out, "one")
    with (
        pytest.raises(InputError, match="symbolic links, but 'build' is one"),
        OutputFolder(out).update() as folder,
    ):
        (folder / "build").symlink_to(tmp_path)
    assert texts(out) == {"one"}


def test_pipe_inside_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="files and folders only, not 'pipe'"):
        check_tree(tmp_path)


@pytest.mark.parametrize("path", ["/", ".", "a\0b"])
def test_odd_names_are_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^Output folder must"):
        write(Path(path), "one")


def test_second_writer_is_refused(tmp_path):
    out = tmp_path / "out"
    with OutputFolder(out).replace() as folder:
        fill(folder, "one")
        with pytest.raises(InputError, match="is being written by another pvq-hw"):
            write(out, "two")
        other = tmp_path / "other"
        write(other, "free")
    assert texts(out) == {"one"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_the_earlier_output(tmp_path, monkeypatch, code):
    out = tmp_path / "out"
    write(out, "one")

    def full(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=f"cannot be written: {os.strerror(code)}"):
        write(out, "two")
    with (
        pytest.raises(InputError, match="cannot be written"),
        OutputFolder(out).update() as folder,
    ):
        (folder / "report.json").write_text("two")
    assert texts(out) == {"one"}
    assert os.listdir(tmp_path) == ["out"]


def test_file_size_limit_is_one_line(tmp_path):
    out = tmp_path / "out"
    write(out, "one")
    script = (
        "import resource, sys\n"
        "from pvq_hw.output.folder import OutputFolder\n"
        "from pvq_hw.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with OutputFolder(sys.argv[1]).replace() as folder:\n"
        "        (folder / 'report.json').write_bytes(bytes(100_000))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, out], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == f"Output folder {str(out)!r} cannot be written: File too large\n"
    assert texts(out) == {"one"}


def test_errors_of_the_body_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), OutputFolder(tmp_path / "out").replace():
        (tmp_path / "data.npz").read_bytes()


def test_read_only_parent_is_one_line(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match="cannot be locked: Read-only file system"):
        write(tmp_path / "out", "one")


WRITER = """
import os, sys
from pathlib import Path
import pvq_hw.output.folder
from pvq_hw.output.folder import OutputFolder
from pvq_hw.output.build_record import write_build
out, method, start, manifest = sys.argv[1:]
if method == "two renames":
    pvq_hw.output.folder.exchange = lambda a, b: False
for i in range(int(start), int(start) + 100_000):
    with OutputFolder(out).replace() as folder:
        (folder / "image").mkdir()
        for j in range(4):
            (folder / "image" / f"{j}.hex").write_text(f"{i}")
        (folder / "manifest.json").write_text(manifest)
    for k in range(2):
        with OutputFolder(out).update() as folder:
            (folder / "build").mkdir()
            for j in range(4):
                (folder / "build" / f"{j}").write_text(f"{i}.{k}")
            write_build(folder / "build", {"bitstream": "0"})
    if i == int(start):
        print("started", flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "two renames"])
def test_kill_at_any_moment_leaves_an_output(tmp_path, how):
    """SIGKILL at random moments: one whole generation is there, and the next writer works."""
    out = tmp_path / "out"
    rng = random.Random(2)
    for trial in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, out, how, str(trial * 100_000), MANIFEST],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(rng.random() * 0.06)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if how == "exchange":
            assert (out / "manifest.json").exists()  # even before recovery
        OutputFolder(out).check()
        image = {(out / "image" / f"{j}.hex").read_text() for j in range(4)}
        assert len(image) == 1
        if (out / "build").exists():
            build = {(out / "build" / f"{j}").read_text() for j in range(4)}
            assert len(build) == 1
            assert build.pop().split(".")[0] == image.pop()
    write(out, "last")
    assert texts(out) == {"last"}
    assert os.listdir(tmp_path) == ["out"]


CRASH = """
import os, sys
import pvq_hw.output.folder
from pvq_hw.output.folder import OutputFolder
out, action, crash, manifest = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
pvq_hw.output.folder.exchange = lambda a, b: False
count, rename = 0, os.rename
def crashing(a, b):
    global count
    count += 1
    if count == crash:
        os._exit(9)
    rename(a, b)
os.rename = crashing
with getattr(OutputFolder(out), action)() as folder:
    (folder / "image").mkdir()
    (folder / "image" / "0.hex").write_text("two")
    (folder / "manifest.json").write_text(manifest)
"""


@pytest.mark.parametrize("action", ["replace", "update"])
@pytest.mark.parametrize("crash", [1, 2])
def test_kill_between_two_renames_is_made_good(tmp_path, action, crash):
    out = tmp_path / "out"
    write(out, "one")
    run = subprocess.run([sys.executable, "-c", CRASH, out, action, str(crash), MANIFEST], cwd=ROOT)
    assert run.returncode == 9
    OutputFolder(out).check()
    assert texts(out) == {"one"}
    write(out, "three")
    assert os.listdir(tmp_path) == ["out"]


def test_links_among_leftovers_are_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x").write_text("x")
    for role in ("new", "old", "was"):
        (tmp_path / f".out.pvq-hw-{role}-1").symlink_to(precious)
    write(tmp_path / "out", "one")
    assert texts(tmp_path / "out") == {"one"}
    assert (precious / "x").read_text() == "x"


def test_locked_lock_file_that_is_a_link_is_refused(tmp_path):
    (tmp_path / ".out.pvq-hw-lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot be locked"):
        write(tmp_path / "out", "one")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name",
    ["verilog/notes.v", "network/deep/extra.txt", "constraints/my.pcf", "README.md", "config.toml",
     "build/mine.txt", "build/deep/mine.txt", "plan.json.d/x", "report.html/x"],
)  # fmt: skip
def test_files_of_the_user_in_an_output_are_not_lost(tmp_path, digits, name):
    out = twin(digits.out, tmp_path / "out")
    if (out / name).parent.is_file():
        (out / name).parent.unlink()
    (out / name).parent.mkdir(exist_ok=True, parents=True)
    (out / name).write_text("mine")
    shown = "plan.json.d" if name.startswith("plan.json.d") else name
    with pytest.raises(InputError, match=f"pvq-hw's files only, but has '{shown}'"):
        write(out, "new")
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize("built", [False, True])
def test_files_of_the_user_are_not_lost_with_a_part(tmp_path, digits, built):
    """Refused before anything long starts, and at the end for what came meanwhile."""
    out = twin(digits.out, tmp_path / "out")
    (out / "build").mkdir()
    if built:
        (out / "build" / "top.bin").write_text("bits")
        write_build(out / "build", {"bitstream": "top.bin"})
    text = "pvq-hw's files only, but has 'build/mine.txt', which pvq-hw did not write; move it away"
    with pytest.raises(InputError, match=text), OutputFolder(out).update("build") as folder:  # noqa: PT012
        (folder / "build").mkdir()
        (out / "build" / "mine.txt").write_text("mine")
    refused(tmp_path, text, "build", out)
    assert (out / "build" / "mine.txt").read_text() == "mine"


def test_a_damaged_manifest_does_not_lose_files_of_the_user(tmp_path, digits):
    out = twin(digits.out, tmp_path / "out")
    (out / "verilog" / "notes.v").write_text("mine")
    path = out / "manifest.json"
    for change in (lambda text: text[:-3], lambda text: text.replace('"files"', '"filez"')):
        path.write_text(change((digits.out / "manifest.json").read_text()))
        with pytest.raises(
            InputError, match=r"manifest\.json must list pvq-hw's files, but is dam"
        ):
            write(out, "new")
    assert (out / "verilog" / "notes.v").read_text() == "mine"
