"""The flag that ends an attempt, in a process that has many files open, as one with many slots has."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from workers.interruption import DrainedError, InterruptibleCall, Interruption

FILES = 1100
"""More than `select` takes."""


@pytest.fixture
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * FILES:
        pytest.skip("so many files may not be opened here")
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * FILES), hard))
        for _ in range(FILES):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


@pytest.mark.usefixtures("_many_files")
def test_it_is_waited_for_where_many_files_are_open() -> None:
    interruption = Interruption()
    assert interruption.fileno() > 1024
    assert not interruption.wait(0)
    assert InterruptibleCall(lambda: 7, lambda answer: None).wait(interruption) == 7
    interruption.set(DrainedError("stopped"))
    assert interruption.wait(60)
    interruption.close()
