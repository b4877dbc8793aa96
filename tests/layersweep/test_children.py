"""The demo's child processes: never left behind, and their logs can be found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layersweep.cli.children import ChildDiedError, Children

ROOT = Path(__file__).resolve().parents[2]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_children_end_with_the_block_whatever_ends_it(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Children() as children:
            child = children.start("worker", ["worker", "--server", "http://127.0.0.1:1"], os.environ, tmp_path / "log")
            pids.append(child.pid)
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_running(pids[0])


def test_a_child_that_died_is_told_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "service.log"
    with Children() as children:
        child = children.start("service", ["sweep", "submit", "missing.yaml"], os.environ, log)
        child.wait()
        with pytest.raises(
            ChildDiedError, match=r"service ended with code 2(.|\n)*missing\.yaml cannot be read"
        ) as raised:
            children.check()
    assert str(log) in str(raised.value)


def test_a_service_that_is_told_to_stop_ends_with_status_0(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "layersweep", "serve", "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        assert any("startup complete" in line for line in service.stderr)
        service.send_signal(signal.SIGTERM)
        said = service.stderr.read()
        assert service.wait(30) == 0
        assert said.splitlines()[-1].endswith("stopped")


def test_sigterm_ends_the_children_too(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from layersweep.cli.children import Children\n"
        "with Children() as children:\n"
        "    command = ['worker', '--server', 'http://127.0.0.1:1']\n"
        "    child = children.start('worker', command, os.environ, Path(sys.argv[1]))\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 128 + signal.SIGTERM
    parent.stdout.close()
    assert not is_running(pid)
