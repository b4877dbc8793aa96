"""A hosted worker drains whatever becomes of its host, and is started again only where it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from layersweep.retries import Backoff
from workers.engine.nvml import Gpu
from workers.fleet import hosted_worker
from workers.fleet.hosted_worker import ROOT, HostedWorker

GUARD = [sys.executable, "-m", "workers.fleet.worker_guard"]
DRAINS = """
import os, signal, sys, time
def drain(number, frame):
    # A second one would end a worker at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(0.1)
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
print(os.getpid(), flush=True)
while True:
    signal.pause()
"""
"""As a worker does: it ends in order when it is told to."""
FAILS_ONCE = """
import os, sys
failed_before = os.path.exists(sys.argv[1])
with open(sys.argv[1], "a") as tried:
    tried.write(os.environ["LAYERSWEEP_TOKEN"] + " ")
sys.exit(0 if failed_before else 3)
"""
AT_ONCE = Backoff(0.01, 0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_the_worker_drains_when_its_guard_is_ended(number: signal.Signals) -> None:
    guard = subprocess.Popen([*GUARD, sys.executable, "-c", DRAINS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert guard.stdout is not None
    with guard, guard.stdout as said:
        assert int(said.readline()) != guard.pid
        guard.send_signal(number)
        assert said.readline() == "drained\n"
        assert said.read() == ""
    assert guard.returncode == -number


def test_the_worker_drains_when_its_host_is_killed_that_has_many_threads() -> None:
    program = f"""
import subprocess, threading
for _ in range(50):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
threading.Thread(target=lambda: subprocess.Popen({[*GUARD, sys.executable, "-c", DRAINS]!r}).wait()).start()
"""
    host = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    with host, host.stdout as said:
        said.readline()
        host.kill()
        assert said.readline() == "drained\n"


def test_a_worker_that_fails_is_started_again_until_it_ends_well(tmp_path: Path) -> None:
    left = threading.Event()
    command = [sys.executable, "-c", FAILS_ONCE, str(tmp_path / "tried")]
    HostedWorker(command, {"LAYERSWEEP_TOKEN": "token"}, left.set, failed=AT_ONCE)
    assert left.wait(60)
    assert (tmp_path / "tried").read_text() == "token token "


def test_a_worker_that_could_not_be_started_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, start, failures = threading.Event(), subprocess.Popen, [OSError("no more processes")]

    def fails_once(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return start(*arguments, **options)

    monkeypatch.setattr(hosted_worker.subprocess, "Popen", fails_once)
    HostedWorker([sys.executable, "-c", ""], {}, left.set, failed=AT_ONCE)
    assert left.wait(60)
    assert failures == []


def test_workers_of_one_machine_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted_worker.device, "cores", lambda: 64)
    monkeypatch.setattr(hosted_worker, "gpus", lambda: [Gpu("GPU-a", "NVIDIA H100", 80 << 30, (9, 0))])
    assert hosted_worker.share_of_machine(8) == ["--threads", "8", "--slots", "4"]
    assert hosted_worker.share_of_machine(1) == ["--threads", "64", "--slots", "8"]


def test_a_worker_that_is_drained_leaves(tmp_path: Path) -> None:
    left = threading.Event()
    fifo = tmp_path / "said"
    os.mkfifo(fifo)
    hosted = HostedWorker(["sh", "-c", 'exec "$0" -c "$1" > "$2"', sys.executable, DRAINS, str(fifo)], {}, left.set)
    with fifo.open() as said:
        said.readline()
        hosted.drain()
        assert said.read() == "drained\n"
    assert left.wait(60)
