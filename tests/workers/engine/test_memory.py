"""What counts as memory of an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.workers.engine_parent import ROOT
from workers.engine import machine
from workers.engine.base import TensorSpec


def test_private_memory_grows_with_what_is_written_and_shrinks_again() -> None:
    size = 64 << 20
    before = machine.process_private_bytes()
    block = np.ones(size, np.uint8)
    grown = machine.process_private_bytes() - before
    del block
    assert 0.9 * size <= grown <= 1.2 * size
    assert machine.process_private_bytes() - before < 0.2 * size


def test_memory_that_is_only_reserved_does_not_count() -> None:
    before = machine.process_private_bytes()
    block = np.zeros(256 << 20, np.uint8)
    assert machine.process_private_bytes() - before < 16 << 20
    del block


def test_total_memory_is_that_of_the_machine_or_less() -> None:
    kilobytes = int(Path("/proc/meminfo").read_text().splitlines()[0].split()[1])
    assert 2**28 < machine.usable_memory_bytes() <= kilobytes * 1024


def test_without_a_rollup_resident_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def without_rollup(path: Path) -> str:
        if path.name == "smaps_rollup":
            raise FileNotFoundError(path)
        return read_text(path)

    exact = machine.process_private_bytes()
    monkeypatch.setattr(Path, "read_text", without_rollup)
    assert machine.process_private_bytes() >= exact * 0.9


def test_an_engine_weighs_its_load_and_its_first_run() -> None:
    command = [sys.executable, "-m", "tests.workers.engine.heavy_engine"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert 60 << 20 <= int(done.stdout) < 64 << 20


def test_bytes_of_a_tensor() -> None:
    assert TensorSpec("x", np.dtype(np.float16), (2, 3)).nbytes == 12
    assert TensorSpec("x", np.dtype(np.int64), ()).nbytes == 8
