"""A service and workers of a benchmark's own, as real processes on a free port."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 240
"""How long a service may take to start: the machine may be busy."""


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "processor": processor,
        "python": platform.python_version(),
    }


@contextmanager
def running_service(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """`layersweep serve` on a free port with its data in `folder`; yields its URL, stops it at the end."""
    settings = {"LAYERSWEEP_DATA_DIR": str(folder / "data"), **(environment or {})}
    with serving(folder / "service.log", settings) as url:
        yield url


@contextmanager
def serving(
    log: Path, environment: Mapping[str, str], *, tree: Path = ROOT, python: str = sys.executable
) -> Iterator[str]:
    """The same of any source tree, by the Python that has its packages, with its output in `log`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _process(log, ["serve", "--port", str(port)], environment, tree=tree, python=python) as process:
        await_ready(url, process, log)
        yield url


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the service answers. Raises RuntimeError with the end of its log where it does not start."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx2.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the service did not start:\n" + log.read_text()[-3000:])
        time.sleep(0.05)


@contextmanager
def running_worker(
    url: str, folder: Path, name: str = "worker", options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """`layersweep worker` for the service at `url`, with caches of its own in `folder`; drained at the end."""
    arguments = ["worker", "--server", url, "--name", name, *options]
    with _process(folder / f"{name}.log", arguments, {"XDG_CACHE_HOME": str(folder / "cache")}) as process:
        yield process


@contextmanager
def _process(
    log: Path, arguments: list[str], settings: Mapping[str, str], *, tree: Path = ROOT, python: str = sys.executable
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "layersweep", *arguments],
            cwd=tree,
            env=os.environ | dict(settings),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
