"""Progress of long tasks."""

from contextlib import AbstractContextManager, nullcontext

__all__ = ["Steps"]


class Steps:
    """Receives the progress of a task and drops it; `pvq_hw.cli.ui.Ui` shows it on a terminal."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Context of a step."""
        return nullcontext()

    def note(self, text: str) -> None:
        """A line about what takes long."""

    def progress(self, done: float, total: float, what: str = "") -> None:
        """Part of the current step that is done."""
