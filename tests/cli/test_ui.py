"""What the command line says while a step goes on."""

import pytest

from pvq_hw.cli import ui as cli_ui


def test_a_long_step_says_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(cli_ui.time, "monotonic", lambda: now[0])
    ui = cli_ui.Ui()
    with ui.step("Quantize"):
        ui.progress(0, 8, "fc1")
        for seconds, done in ((10, 2), (20, 4), (700, 6), (10, 8)):
            now[0] += seconds
            ui.progress(done, 8, "fc1")
    with ui.step("Quick"):
        now[0] += 0.1
        ui.progress(1, 2, "fc2")
    assert capsys.readouterr().err.splitlines() == [
        "==> Quantize",
        "    fc1 0 %",
        "    fc1 25 %, about 30 s more",
        "    fc1 50 %, about 30 s more",
        "    fc1 75 %, about 4 min more",
        "    fc1 100 %",
        "    740.0 s",
        "==> Quick",
        "    fc2 50 %",
        "    0.1 s",
    ]
