"""Work in a thread of its own, for the time of a context."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator


@contextlib.contextmanager
def in_background(work: Callable[[threading.Event], None], name: str) -> Generator[None]:
    """Run `work` in a thread of this name. It is given the event that the context has ended, returns soon after that,
    and is waited for."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
