"""A child that hangs, crashes or is killed is told apart, and never outlives what it was made for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workers.interruption import Interruption, TrialCancelledError
from workers.processes.child import STDERR_TAIL_BYTES, Child, ChildDiedError, ChildRequestError, ChildTimeoutError, Tail

ARGV = [sys.executable, "-m", "tests.workers.processes.scripted_child"]


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child(ARGV, name="test")
    yield child
    child.kill()


def ask(child: Child, verb: str, **arguments: Any) -> dict[str, Any]:
    return child.request(verb, arguments, timeout_seconds=30)


def is_gone(pid: int) -> bool:
    """Ended, even where nobody has asked for its exit status yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_answers_one_request_after_another(child: Child) -> None:
    assert ask(child, "echo", text="één")["said"] == "één"
    seen: list[dict[str, Any]] = []
    assert child.request("count", {"to": 3}, timeout_seconds=30, on_progress=seen.append) == {}
    assert seen == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_it_is_not_told_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAYERSWEEP_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    child = Child(ARGV, name="test", env={"OMP_NUM_THREADS": "3"})
    environment = ask(child, "echo", text="")["environment"]
    child.kill()
    assert "secret" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["OPENBLAS_CORETYPE"] == "Haswell", "it computes as its parent was told to"


def test_a_runtime_in_it_keeps_no_record_of_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    child = Child([sys.executable, "-m", "workers.engine"], name="engine")
    child.request("describe", {"runtime": "onnxruntime"}, timeout_seconds=60)
    child.kill()
    assert list(tmp_path.rglob("*.db")) == []


@pytest.mark.parametrize(("command", "found"), [([sys.executable], True), (["/usr/bin/env", sys.executable], False)])
def test_a_child_of_this_interpreter_finds_the_packages_that_its_parent_was_pointed_at(
    command: list[str], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another interpreter, which `env` stands for here, has other packages."""
    monkeypatch.setenv("PYTHONPATH", "/some/packages")
    child = Child([*command, *ARGV[1:]], name="test")
    path = ask(child, "echo", text="")["environment"]["PYTHONPATH"].split(os.pathsep)
    child.kill()
    assert ("/some/packages" in path) is found


def test_an_error_is_answered_and_the_child_goes_on(child: Child) -> None:
    with pytest.raises(ChildRequestError, match="this cannot be built") as caught:
        ask(child, "refuse")
    assert caught.value.kind == "build"
    with pytest.raises(ChildRequestError, match="unknown verb") as caught:
        ask(child, "no such verb")
    assert caught.value.kind == "invalid"
    assert ask(child, "echo", text="still here")["said"] == "still here"


def test_a_crash_is_the_child_s_own_and_leaves_its_last_words(child: Child) -> None:
    with pytest.raises(ChildDiedError, match="the test process was ended by SIGSEGV") as caught:
        ask(child, "die", signal=signal.SIGSEGV)
    assert not caught.value.killed_from_outside
    assert "a last word" in caught.value.tail


def test_an_exit_is_the_child_s_own(child: Child) -> None:
    with pytest.raises(ChildDiedError, match="exit status 7") as caught:
        ask(child, "leave", status=7)
    assert not caught.value.killed_from_outside


def test_a_kill_from_outside_is_told_apart(child: Child) -> None:
    def kill(progress: dict[str, Any]) -> None:
        os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ChildDiedError, match="SIGKILL") as caught:
        child.request("hang", timeout_seconds=30, on_progress=kill)
    assert caught.value.killed_from_outside


def test_a_child_that_died_while_idle_is_noticed(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ChildDiedError) as caught:
        ask(child, "echo", text="anyone?")
    assert caught.value.killed_from_outside
    assert not child.alive()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"timeout_seconds": 0.2}, "not done within 0.2 s"),
        ({"timeout_seconds": None, "silence_seconds": 0.2}, "no progress within 0.2 s"),
    ],
)
def test_a_hung_child_is_killed(child: Child, limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ChildTimeoutError, match=words):
        child.request("hang", **limits)
    assert is_gone(child.pid)


def test_a_wait_that_is_told_of_no_more_is_a_hang(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.processes.child.WAITS_TOLD_SECONDS", 0.2)
    with pytest.raises(ChildTimeoutError, match=r"no progress within 0\.2 s"):
        child.request("hang", {"says": "waiting"}, timeout_seconds=60)


def test_what_it_printed_last_is_told_whoever_reads_late(monkeypatch: pytest.MonkeyPatch) -> None:
    read, join, asked = Tail.read, Tail.join, threading.Event()

    def read_late(tail: Tail) -> None:
        asked.wait(30)
        read(tail)

    def join_and_let_read(tail: Tail) -> None:
        asked.set()
        join(tail)

    monkeypatch.setattr(Tail, "read", read_late)
    monkeypatch.setattr(Tail, "join", join_and_let_read)
    child = Child(ARGV, name="test")
    with pytest.raises(ChildDiedError) as caught:
        ask(child, "die", signal=signal.SIGSEGV)
    child.kill()
    assert "a last word" in caught.value.tail


def test_an_interruption_ends_the_wait_and_the_child(child: Child) -> None:
    interruption = Interruption()

    def cancel(progress: dict[str, Any]) -> None:
        threading.Thread(target=interruption.set, args=[TrialCancelledError("enough")]).start()

    with pytest.raises(TrialCancelledError, match="enough"):
        child.request("hang", timeout_seconds=30, on_progress=cancel, interruption=interruption)
    assert is_gone(child.pid)


def test_an_interrupted_attempt_asks_nothing_more(child: Child) -> None:
    interruption = Interruption()
    interruption.set(TrialCancelledError("before"))
    with pytest.raises(TrialCancelledError):
        child.request("echo", {"text": ""}, timeout_seconds=30, interruption=interruption)
    assert child.alive()


def test_what_it_started_ends_with_it(child: Child, wait_until: Callable[[Callable[[], bool]], None]) -> None:
    grandchild = ask(child, "spawn")["pid"]
    assert psutil.pid_exists(grandchild)
    child.kill()
    assert is_gone(child.pid)
    wait_until(lambda: is_gone(grandchild))


def test_much_output_neither_blocks_it_nor_fills_memory(child: Child) -> None:
    ask(child, "shout", bytes=3_000_000)
    child.close()
    assert child.tail().endswith("the end")
    assert len(child.tail()) == STDERR_TAIL_BYTES


def test_it_ends_by_itself_when_it_is_closed(child: Child) -> None:
    ask(child, "echo", text="")
    child.close()
    assert is_gone(child.pid)
    child.close()


def test_an_interpreter_that_is_not_there_is_an_os_error() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError, match="no-such-python"):
        Child(["/no-such-python"], name="test")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_descriptors_are_given_back() -> None:
    def cycle() -> None:
        child = Child(ARGV, name="test")
        ask(child, "echo", text="")
        child.kill()

    cycle()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    cycle()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel ties lives together on Linux only")
def test_a_busy_child_dies_with_its_parent(tmp_path: Path, wait_until: Callable[[Callable[[], bool]], None]) -> None:
    program = f"""
from workers.processes.child import Child
child = Child({ARGV!r}, name="test")
print(child.pid, flush=True)
child.request("hang", timeout_seconds=None)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: is_gone(pid))
