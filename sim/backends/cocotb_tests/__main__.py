"""``python -m sim.backends.cocotb_tests JOB``: compiles a job's Verilog with Icarus and runs its
testbench.

A process of its own, so that cocotb's runner, its log and its exit codes stay away from the
caller's. The results are in the job's files.
"""

import json
import os
import sys
from pathlib import Path

from cocotb_tools.runner import get_runner


def main(job_file: Path) -> None:
    """Runs the job in its folder; raises what cocotb's runner raises."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    folder = job_file.resolve().parent
    # Under pytest the runner would name the results after the test and exit by them.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    runner = get_runner("icarus")
    runner.build(
        sources=job["sources"],
        hdl_toplevel=job["top"],
        build_dir=folder,
        always=True,
        timescale=("1ns", "1ps"),
    )
    runner.test(
        test_module="sim.backends.cocotb_tests.frames",
        hdl_toplevel=job["top"],
        build_dir=folder,
        test_dir=folder,
        results_xml=str(folder / "results.xml"),
        seed=0,
        extra_env={"PVQ_HW_SIM_JOB": str(job_file.resolve())},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
