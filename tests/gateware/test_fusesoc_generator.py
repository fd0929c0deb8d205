"""FuseSoC makes a core from a model file, and runs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_tools import ROOT

import pvq_hw.fusesoc

CORE = """\
CAPI=2:
name: ::design:0
filesets:
  mine:
    files: [design.v]
    file_type: verilogSource
    depend: ["pvq-hw:generators:pvq-hw"]
generate:
  net:
    generator: pvq-hw
    parameters: {parameters}
targets:
  sim:
    flow: sim
    flow_options: {{tool: icarus}}
    filesets: [mine]
    generate: [net]
    toplevel: design
"""


def fusesoc(place, parameters):
    layer = {"0.weight": np.random.default_rng(1).normal(size=(3, 6)), "0.bias": np.ones(3)}
    np.savez(place / "model.npz", **layer)
    np.savez(place / "train.npz", x=np.random.default_rng(0).random((16, 6)))
    (place / "design.v").write_text("module design; endmodule\n")
    (place / "design.core").write_text(CORE.format(parameters=parameters))
    library = Path(pvq_hw.fusesoc.__file__).parent
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        ["fusesoc", "--cores-root", library, "--cores-root", place, "run", "--target", "sim",
         "--setup", "::design:0"],
        cwd=place, capture_output=True, text=True,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_design_has_its_accelerator_made_from_a_model(tmp_path):
    ran = fusesoc(
        tmp_path, "{model: model.npz, calibrate: train.npz, target: icebreaker, ratio: 1, "
        "quantizer: plain, name: tiny, interface: axis}",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    made = {path.name for path in (tmp_path / "build").rglob("*.v")}
    assert {"tiny.v", "tiny_axis.v", "tiny_rom.v"} <= made
    assert any((tmp_path / "build").rglob("tiny_fc*_codes.hex"))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [("{target: icebreaker}", "must have 'model', a file"),
     ("{model: none.npz, target: icebreaker}", "none.npz")],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path, parameters, text):
    ran = fusesoc(tmp_path, parameters)
    assert ran.returncode != 0
    (line,) = [x for x in (ran.stdout + ran.stderr).splitlines() if "pvq-hw: " in x]
    assert text in line
