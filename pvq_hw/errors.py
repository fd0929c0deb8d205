"""The errors a user can meet; the command line prints the one line that each carries."""

__all__ = ["CheckError", "InputError", "PvqError", "ToolError"]


class PvqError(Exception):
    """Base of every error that pvq-hw raises on purpose. ``exit_code`` is the command line's."""

    exit_code = 2


class InputError(PvqError, ValueError):
    """The user's input or environment is at fault: a broken file, an impossible K, a full disk."""


class ToolError(InputError):
    """A tool or an optional package is missing or failed; the message says what mends it."""


class CheckError(PvqError):
    """A check failed: a mismatch, too low an accuracy, timing not met, a changed file."""

    exit_code = 1
