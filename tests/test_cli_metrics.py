"""What simulate says of labels: the metric by its name, and labels beyond --count."""

from dataclasses import replace

import numpy as np
from cli_tools import refused, run, twin

import pvq_hw


def test_simulate_names_the_metric_of_targets(digits, tmp_path):
    out, test = twin(digits.out, tmp_path / "out"), pvq_hw.load_data(digits.test)
    np.savez(tmp_path / "targets.npz", x=test.x[:2], y=np.zeros((2, 10)))
    ran = run("simulate", out, "--data", tmp_path / "targets.npz", "--simulator", "amaranth")
    assert ran.code == 0, ran
    line = ran.out.splitlines()[-1]
    assert line.split()[0] == "rmse"
    assert "%" not in line


def test_simulate_checks_labels_beyond_count(digits, tmp_path):
    out, test = twin(digits.out, tmp_path / "out"), pvq_hw.load_data(digits.test)
    y = test.y[:9].astype(int)
    y[-1] = 10
    np.savez(tmp_path / "late.npz", x=test.x[:9], y=y)
    text = "late.npz: Labels must be 0 to 9, the network's outputs"
    refused(tmp_path, text, "simulate", out, "--data", tmp_path / "late.npz", "--count", 1)


def test_dropped_operations_are_names_whatever_the_file_says(digits):
    network = pvq_hw.load(digits.out).network
    assert replace(network, meta={"dropped": ["Sigmoid"]}).dropped == ("Sigmoid",)
    assert replace(network, meta={"dropped": 5}).dropped == ()
