"""A small project around a network: checked, simulated and built by continuous integration."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from pvq_hw.bundled import DIGITS, DIGITS_DATA, DIGITS_RATIO
from pvq_hw.data.dataset import load_data, make_data
from pvq_hw.errors import InputError
from pvq_hw.evaluate.accuracy import check_data
from pvq_hw.flow.options import CompileOptions
from pvq_hw.model.file_kind import is_onnx
from pvq_hw.model.load import load_model
from pvq_hw.model.model import Model
from pvq_hw.target.boards import get_target

__all__ = ["Project", "make_project"]

_DIGITS_ACCURACY = 95.0


@dataclass(frozen=True)
class Project:
    """What a project is made of.

    Parameters
    ----------
    model, train, test : path, optional
        Copied into the project; all three, or none for the bundled digits.
    target : str
        A board, or a board file, which is copied too.
    ratio : float, optional
        Mean N/K.
    input_scale : float
        What integer data is divided by.
    min_accuracy : float, optional
        Percent; checks fail below it.
    """

    model: Path | None = None
    train: Path | None = None
    test: Path | None = None
    target: str = "icebreaker"
    ratio: float | None = None
    input_scale: float = 1.0
    min_accuracy: float | None = None


def make_project(folder: Path, project: Project) -> list[str]:
    """Writes a project into a new or empty folder; gives the names of its files.

    ``pvq.toml`` has the options and the threshold, ``Makefile`` the steps, and the workflows of
    GitHub and GitLab call them.

    Raises InputError where the folder holds something, or model, data and board don't suit.
    """
    given = [part is not None for part in (project.model, project.train, project.test)]
    if any(given) and not all(given):
        raise InputError("A project needs --model, --train and --test, or none of them")
    target = get_target(project.target)
    own_board = target.name if Path(project.target).suffix == ".toml" else None
    digits = project.model is None
    ratio = project.ratio
    if ratio is None:
        ratio = DIGITS_RATIO if digits else CompileOptions().ratio
    least = project.min_accuracy
    least = _DIGITS_ACCURACY if digits and least is None else least
    options = CompileOptions(
        target=f"board-{own_board}.toml" if own_board else target.name, ratio=ratio,
        input_scale=project.input_scale, min_accuracy=least,
    )  # fmt: skip
    source = project.model or DIGITS
    model = load_model(source)
    parts: list[tuple[Path | None, str]] = []
    labeled = False  # of the test data, which come last
    for path, part in ((project.train, "train"), (project.test, "test")):
        data = (load_data(path, project.input_scale, model.inputs) if path
                else make_data([DIGITS_DATA], keys=[f"x_{part}", f"y_{part}"]))  # fmt: skip
        check_data(
            model, data, path.name if path else part, minimum=least if part == "test" else None
        )
        parts.append((path, part))
        labeled = data.y is not None
    if not labeled and least is not None:
        raise InputError("Test data must have labels y for a least accuracy")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(f"{folder} must be a new or an empty folder")
    board = project.target if own_board else None
    new = not folder.exists()
    try:
        return _write(folder, options, source, model, parts, labeled=labeled, board=board)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # which held nothing before
        if not new:
            folder.mkdir()
        raise


def _write(
    folder: Path,
    options: CompileOptions,
    source: Path,
    model: Model,
    parts: list[tuple[Path | None, str]],
    *,
    labeled: bool,
    board: str | None,
) -> list[str]:
    file = f"model{source.suffix.lower()}"
    texts = {
        "pvq.toml": _toml(options),
        "Makefile": _MAKEFILE.format(model=file, evaluate=" --evaluate test.npz" * labeled),
        ".github/workflows/pvq.yml": _GITHUB,
        ".gitlab-ci.yml": _GITLAB,
        ".gitignore": "/out/\n/results/\n/.pvq-hw-cache/\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy(source, model, folder / file)
        for path, part in parts:
            name = f"{part}.npz"
            if path is None:
                make_data([DIGITS_DATA], folder / name, keys=[f"x_{part}", f"y_{part}"])
            elif path.suffix == ".npz":
                shutil.copyfile(path, folder / name)
            else:
                make_data([path], folder / name)
        if board is not None:
            shutil.copyfile(board, folder / options.target)
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{folder} can't be written into: {error.strerror}") from None
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _copy(source: Path, model: Model, place: Path) -> None:
    """Copies a model file; weights that lie in files beside it come to lie in the copy."""
    alone = hashlib.sha256(source.read_bytes()).hexdigest() == model.source_sha256
    if alone or not is_onnx(source):
        shutil.copyfile(source, place)
        return
    from pvq_hw.model.onnx.file import read_onnx

    place.write_bytes(read_onnx(source).model.SerializeToString(deterministic=True))


def _toml(options: CompileOptions) -> str:
    values = {"target": options.target, "ratio": options.ratio,
              "input_scale": options.input_scale}  # fmt: skip
    if options.min_accuracy is not None:
        values["min_accuracy"] = options.min_accuracy
    return (
        "# What `make check` asks of the network: options of `pvq-hw compile`, of which\n"
        "# min_accuracy (percent, by the integer network) is the threshold.\n"
        f"{tomli_w.dumps(values)}"
    )


_MAKEFILE = """\
# make check: quantize, hold the accuracy against pvq.toml, simulate, verify.
# make build: bitstream and timing. Results for CI are in results/, the report in out/report.html.

PVQ   ?= pvq-hw
COUNT ?= 20

.PHONY: all check compile simulate verify build clean

all: check build

check: simulate verify

compile:
\t@mkdir -p results
\t$(PVQ) compile {model} --config pvq.toml --calibrate train.npz{evaluate} \\
\t  --junit results/compile.xml -o out

simulate: compile
\t$(PVQ) simulate out --data test.npz --count $(COUNT) --junit results/simulate.xml

verify: simulate
\t$(PVQ) verify out --model {model} --junit results/verify.xml

build: check
\t$(PVQ) build out --junit results/build.xml
\t$(PVQ) report out

clean:
\trm -rf out results
"""

_GITHUB = """\
name: pvq-hw
on: [push, pull_request]
jobs:
  accelerator:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.11"}
      - uses: actions/cache@v4
        with:
          path: .pvq-hw-cache
          key: pvq-hw-${{ runner.os }}
      - run: pip install 'pvq-hw[build,sim]'
      - run: make check build
        env: {YOWASP_CACHE_DIR: "${{ github.workspace }}/.pvq-hw-cache"}
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: accelerator
          path: |
            out/report.html
            out/report.json
            out/build/
            results/
"""

_GITLAB = """\
accelerator:
  image: python:3.11
  variables:
    YOWASP_CACHE_DIR: "$CI_PROJECT_DIR/.pvq-hw-cache"
  cache:
    key: pvq-hw
    paths: [.pvq-hw-cache/]
  script:
    - apt-get update && apt-get install -y --no-install-recommends g++ make
    - pip install 'pvq-hw[build,sim]'
    - make check build
  artifacts:
    when: always
    paths: [out/report.html, out/report.json, out/build/, results/]
    reports:
      junit: results/*.xml
"""
