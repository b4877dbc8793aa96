"""Fixtures of the worker's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brief import brief_measurements
from tests.workers.kept_children import KeptChildren
from tests.workers.scripted_service import ScriptedService
from workers.engine.verbs import DESCRIBE
from workers.processes.children import Children


@pytest.fixture(scope="session", autouse=True)
def _measured_briefly() -> Iterator[None]:
    with brief_measurements():
        yield


@pytest.fixture
def scripted() -> ScriptedService:
    return ScriptedService()


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    """Children with one thread, shared by tests as by the trials of a worker."""
    children = Children(threads=1)
    yield children
    children.kill()


@pytest.fixture(scope="session")
def _kept_children() -> Iterator[list[KeptChildren]]:
    kept: list[KeptChildren] = []
    yield kept
    for each in kept:
        each.end()


@pytest.fixture
def slots(_kept_children: list[KeptChildren]) -> Callable[[int], Sequence[Children]]:
    """Makes the children of so many slots of one worker, each with one thread."""

    def made(count: int) -> Sequence[Children]:
        _kept_children.extend(KeptChildren(threads=1) for _ in range(len(_kept_children), count))
        for each in _kept_children[:count]:
            # By this thread: a child ends with the one that started it, and those of the slots end with their test.
            each.model()
        return _kept_children[:count]

    return made


@pytest.fixture(scope="session")
def capabilities(children: Children) -> dict[str, dict[str, Any]]:
    found = children.builder().request(DESCRIBE, {"runtime": "onnxruntime"}, timeout_seconds=60)
    return {"onnxruntime": {**found, "device_model": "a processor, 1 thread"}}


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds that nothing announces."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return wait
