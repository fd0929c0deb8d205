"""Looking for cycles of objects less often, where millions of objects are made that stay."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collected_no_more", "seldom_collected"]

_COLLECTED = 100_000, 50, 1000  # new objects, and rounds, between two looks for cycles


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Looks for cycles of objects a hundredth as often: of the millions that plans and circuits are
    made of, none is garbage before the end, and looking at them again and again took a tenth of a
    compilation and a third of an export."""
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def collected_no_more() -> Iterator[None]:
    """`seldom_collected` for the last work of a process: what it leaves is looked through neither
    afterwards nor at the process's end, which took 2 s after a large circuit."""
    with seldom_collected():
        yield
        gc.freeze()
        atexit.unregister(gc.freeze)  # once is enough
        atexit.register(gc.freeze)
