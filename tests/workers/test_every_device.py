"""A worker for each device: all are started, stopped together, and one that ends leaves the others at work.

The workers are small programs that say what they were given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layersweep.cli import app
from workers import every_device

SUPERVISOR = r"""
import sys
from workers import every_device

program = '''
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.write(1, f"{sys.argv[1]}\\n".encode())
if sys.argv[1] == "GPU-b":
    sys.exit(3)
signal.sigwait({signal.SIGTERM})
os.write(1, b"drained\\n")
'''
sys.exit(every_device.run({name: (sys.executable, "-c", program, name) for name in ("GPU-a", "GPU-b")}))
"""


def test_a_worker_that_ends_leaves_the_others_at_work_until_all_are_stopped() -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    with supervisor:
        assert {supervisor.stdout.readline(), supervisor.stdout.readline()} == {"GPU-a\n", "GPU-b\n"}
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.stdout.read() == "drained\n"
    assert supervisor.returncode == 3


def test_a_worker_that_cannot_be_started_leaves_the_others_at_work(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    commands = {"GPU-a": ("/nowhere/python",), "GPU-b": (sys.executable, "-c", f"open({str(ran)!r}, 'w')")}
    assert every_device.run(commands) == 1
    assert ran.exists()


def test_each_device_gets_its_worker_with_the_options_and_its_share_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, list[str]] = {}

    def run(commands: dict[str, list[str]]) -> int:
        started.update(commands)
        return 0

    monkeypatch.setattr(every_device, "slots_each", lambda: {"GPU-a": 8, "GPU-b": 2})
    monkeypatch.setattr(every_device, "run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("LAYERSWEEP_DEVICE", raising=False)
    arguments = ["worker", "--all-devices", "--server", "http://here", "--name", "lab", "--build-seconds", "90"]
    arguments += ["--no-timing-cache", "--wait-for-device"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert list(started) == ["GPU-a", "GPU-b"]
    for number, (device, command) in enumerate(started.items()):
        assert command[:4] == [sys.executable, "-m", "layersweep", "worker"]
        assert command[-2:] == ["--no-timing-cache", "--wait-for-device"]
        flags = dict(zip(command[4:-2:2], command[5:-2:2], strict=True))
        assert flags == {
            "--slots": {"GPU-a": "8", "GPU-b": "2"}[device],
            "--threads": "4",
            "--server": "http://here",
            "--name": f"lab-{number}",
            "--build-seconds": "90.0",
            "--device": device,
        }


def test_a_worker_for_each_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, list[str]] = {}

    def run(commands: dict[str, list[str]]) -> int:
        started.update(commands)
        return 0

    monkeypatch.setattr(every_device, "slots_each", lambda: {f"GPU-{name}": 4 for name in "abcd"})
    monkeypatch.setattr(every_device, "run", run)
    for variable in ("LAYERSWEEP_DEVICE", "LAYERSWEEP_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    assert CliRunner().invoke(app, ["worker", "--all-devices", "--tp", "2"]).exit_code == 0
    assert list(started) == ["GPU-a,GPU-b", "GPU-c,GPU-d"]
    for devices, command in started.items():
        assert command[command.index("--devices") + 1] == devices
        assert command[command.index("--slots") + 1] == "8"
    # Four cannot be shared out by three.
    assert CliRunner().invoke(app, ["worker", "--all-devices", "--tp", "3"]).exit_code == 2


def test_without_a_gpu_all_devices_says_what_to_do_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(every_device, "gpus", list)
    monkeypatch.delenv("LAYERSWEEP_DEVICE", raising=False)
    assert CliRunner().invoke(app, ["worker", "--all-devices"]).exit_code == 1
    assert "no GPU answers on this machine: `layersweep worker --doctor` says what is missing" in caplog.text


def test_one_device_and_all_devices_contradict_each_other() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "layersweep", "worker", "--all-devices", "--device", "cpu"],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "--all-devices and --device" in done.stderr
