"""Who is told of a long task's steps."""

from contextlib import AbstractContextManager, nullcontext

__all__ = ["Steps"]


class Steps:
    """Tells nobody; the command line's `pvq_hw.cli.ui.Ui` tells the user."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Context of a step."""
        return nullcontext()

    def note(self, text: str) -> None:
        """A line about what takes long."""

    def progress(self, done: float, total: float, what: str = "") -> None:
        """Part of the current step that is done."""
