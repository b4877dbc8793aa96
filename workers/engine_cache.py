"""Engines that were built before: the same graph, options, runtime, version and device give the same engine again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from workers.engine.verbs import BuildAnswer

POLL_SECONDS = 0.1
LIMIT_BYTES = 4 << 30
"""What the cache may hold; the engines that were used longest ago go first."""


class EngineCache:
    """A folder of engines, each with what its build said. Several slots and workers may share it.

    Sweeps over training parameters build the same untrained engine again and again: the same seed gives the same graph.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, keeps_timings: bool = True) -> None:
        """`keeps_timings`: whether builders keep their timings of kernels beside the engines."""
        self.timings = folder / "timings" if keeps_timings else None
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._shared: dict[str, threading.Lock] = {}
        """Key of what several slots may need at once -> who has the lock builds it."""

    def key(self, onnx: Path, **circumstances: Any) -> str:
        """What makes engines the same: the graph with its weights, and the circumstances (options, version, device)."""
        digest = hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode())
        for path in (onnx, onnx.with_name(f"{onnx.name}.data")):
            if path.is_file():
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @contextlib.contextmanager
    def one_at_a_time(self, key: str, wait: Callable[[], None]) -> Generator[None]:
        """Be the only one of this process that builds what has this key; who comes later finds it kept. `wait` is
        called, again and again, while another one does; what it raises ends the wait."""
        with self._lock:
            lock = self._shared.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=POLL_SECONDS):
            wait()
        try:
            yield
        finally:
            lock.release()

    def take(self, key: str, engine: Path) -> BuildAnswer | None:
        """Put the engine of that key at `engine` and return what its build said; None if there is none."""
        engine_path, answer_path = self._paths(key)
        try:
            built: BuildAnswer = json.loads(answer_path.read_text())
            shutil.copyfile(engine_path, engine)
            if engine.stat().st_size != built["engine_bytes"]:
                raise ValueError(f"{engine_path} is cut off")
            os.utime(answer_path)
        except (OSError, ValueError, KeyError):
            engine.unlink(missing_ok=True)
            return None
        return built

    def keep(self, key: str, engine: Path, built: BuildAnswer) -> None:
        """Keep an engine. A cache that cannot be written keeps nothing: a build is never lost by it."""
        engine_path, answer_path = self._paths(key)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for path, write in (
                (engine_path, lambda part: shutil.copyfile(engine, part)),
                (answer_path, _writer(built)),
            ):
                part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
                try:
                    write(part)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
            self._forget_the_oldest()

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self._folder / f"{key}.engine", self._folder / f"{key}.json"

    def _forget_the_oldest(self) -> None:
        entries = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        held = 0
        for answer_path in entries:
            engine_path = answer_path.with_suffix(".engine")
            held += engine_path.stat().st_size if engine_path.is_file() else 0
            if held > self._limit_bytes:
                answer_path.unlink(missing_ok=True)
                engine_path.unlink(missing_ok=True)


def _writer(built: BuildAnswer) -> Callable[[Path], int]:
    return lambda part: part.write_text(json.dumps(built))
