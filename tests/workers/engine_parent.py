"""A minimal parent of a child process that speaks workers/engine/protocol.py, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

ENGINE_PYTHON = os.environ.get("LAYERSWEEP_ENGINE_PYTHON", sys.executable)
"""As for a worker: a runtime's bindings may exist for another interpreter only."""


class Refused(Exception):
    """The child answered with an error."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(f"{error['kind']}: {error['message']}")
        self.kind = error["kind"]
        self.message = error["message"]


class Parent:
    """Starts a child and asks it; a context manager that leaves no process behind."""

    def __init__(self, *arguments: str, output: int | None = subprocess.DEVNULL) -> None:
        reading, writing = os.pipe()
        command = [sys.executable, *arguments] if arguments else [ENGINE_PYTHON, "-m", "workers.engine"]
        self.process = subprocess.Popen(
            [*command, "--answers-fd", str(writing)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[writing],
            cwd=ROOT,
        )
        os.close(writing)
        self.answers = os.fdopen(reading, "rb")
        self.progress: list[dict[str, Any]] = []
        self._asked = 0

    def __enter__(self) -> Parent:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self.process.stdin.close()
        self.answers.close()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def post(self, verb: str, **arguments: Any) -> int:
        """A request, without waiting for its answer."""
        self._asked += 1
        self.send(json.dumps({"id": self._asked, "verb": verb, **arguments}).encode() + b"\n")
        return self._asked

    def answer(self) -> dict[str, Any]:
        """The next answer; progress is collected on the way. Raises EOFError when the child has ended."""
        while line := self.answers.readline():
            message = json.loads(line)
            if "progress" not in message:
                return message
            self.progress.append(message)
        raise EOFError(f"the child ended with {self.process.wait(30)}")

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """A request's result. Raises Refused."""
        identity = self.post(verb, **arguments)
        answer = self.answer()
        assert answer["id"] == identity
        if not answer["ok"]:
            raise Refused(answer["error"])
        return answer["result"]

    def end(self) -> int:
        """End the requests; the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)
