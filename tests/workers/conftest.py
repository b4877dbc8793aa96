"""Fixtures of the worker's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.scripted_service import ScriptedService
from workers.processes.children import Children


@pytest.fixture
def scripted() -> ScriptedService:
    return ScriptedService()


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """Children with one thread, shared by the tests of a file as by the trials of a worker."""
    children = Children(threads=1)
    yield children
    children.kill()


@pytest.fixture(scope="module")
def capabilities(children: Children) -> dict[str, dict[str, Any]]:
    found = children.builder().request("describe", {"runtime": "onnxruntime"}, timeout_seconds=60)
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
