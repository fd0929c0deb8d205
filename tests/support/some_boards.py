"""Boards for tests that need not try them all: every family, small and large."""

SOME_BOARDS = ("icebreaker", "hx8k", "ulx3s-25f", "ulx3s-85f", "orangecrab-25f")
