"""How much work something is, alike on every machine: calls of functions, not seconds."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_calls(most: int) -> Iterator[None]:
    """Sees that the body calls at most ``most`` functions, Python's and C's."""
    found = 0

    def count(frame, event, argument):
        nonlocal found
        found += event in ("call", "c_call")
        assert found <= most, f"more than {most:,} calls"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
