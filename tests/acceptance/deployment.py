"""The product as an operator runs it: a service process, worker processes, HTTP between them, `kill -9` at hand."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).resolve().parents[2]


class Deployment:
    """One database, one port; processes that can be killed and started again."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "LAYERSWEEP_DATABASE_URL": database_url,
            "LAYERSWEEP_DATA_DIR": str(folder / "data"),
            "LAYERSWEEP_LEASE_SECONDS": "3",
            "LAYERSWEEP_HEARTBEAT_SECONDS": "0.5",
            "LAYERSWEEP_LEADER_SECONDS": "1.5",
            "OMP_NUM_THREADS": "1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.http = httpx2.Client(base_url=self.url, timeout=30)

    def start_service(self) -> subprocess.Popen[bytes]:
        process = self.start("service", "serve", "--port", str(self.port))

        def ready() -> bool:
            assert process.poll() is None, self.log("service")
            try:
                return self.http.get("/readyz").status_code == 200
            except httpx2.TransportError:
                return False

        self.wait_until(ready, "the service is ready")
        return process

    def start_worker(self, name: str = "worker", *options: str) -> subprocess.Popen[bytes]:
        return self.start(name, "worker", "--server", self.url, "--name", name, *options)

    def start_brief_worker(self, name: str = "worker", *options: str) -> subprocess.Popen[bytes]:
        """One that measures briefly: for tests of something else."""
        return self.start(name, "worker", "--server", self.url, "--name", name, *options, module="tests.brief")

    def start(self, log_name: str, *arguments: str, module: str = "layersweep") -> subprocess.Popen[bytes]:
        with (self.folder / f"{log_name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def submit(self, document: dict[str, Any]) -> str:
        answer = self.http.post("/v1/sweeps", json=document)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def trials(self, sweep: str) -> list[dict[str, Any]]:
        items = self.get(f"/v1/sweeps/{sweep}/trials?page_size=200")["items"]
        return sorted(items, key=lambda trial: trial["number"])

    def events(self, sweep: str, *, until: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Follow the sweep's event stream until an event satisfies `until`; return all events up to it."""
        seen: list[dict[str, Any]] = []
        deadline = time.monotonic() + 120
        with self.http.stream("GET", f"/v1/sweeps/{sweep}/events", timeout=120) as answer:
            for line in answer.iter_lines():
                assert time.monotonic() < deadline, self.log("service") + self.log("worker")
                if line.startswith("data:"):
                    seen.append(json.loads(line.removeprefix("data:")))
                    if until(seen[-1]):
                        break
        return seen

    def finish_sweep(self, sweep: str, *, seconds: float = 900) -> dict[str, Any]:
        """Wait, by long polling, until the sweep has ended."""
        deadline = time.monotonic() + seconds
        tag = ""
        while True:
            assert time.monotonic() < deadline, self.log("service") + self.log("worker")
            headers = {"Prefer": "wait=10"} | ({"If-None-Match": tag} if tag else {})
            try:
                answer = self.http.get(f"/v1/sweeps/{sweep}", headers=headers)
            except httpx2.TransportError:
                continue
            tag = answer.headers.get("etag", tag)
            if answer.status_code == 200 and answer.json()["state"] not in ("active", "paused"):
                return dict(answer.json())

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"not in time: {what}\n" + self.log("service")
            time.sleep(0.05)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return f"--- {name}\n" + (path.read_text()[-5000:] if path.exists() else "(no log)")

    def close(self) -> None:
        self.http.close()
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
