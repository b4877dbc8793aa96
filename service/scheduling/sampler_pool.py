"""The processes of samplers: one a sweep as far as they go, so that a slow suggestion delays its own sweep alone."""

from __future__ import annotations

import threading
from typing import Unpack

from service.scheduling.sampler_process import RemoteStudy, SamplerProcess
from service.scheduling.studies import StudyArguments


class SamplerPool:
    """At most `most` processes. A study gets one of its own while there is room, then the one with the fewest."""

    def __init__(self, most: int, call_seconds: float) -> None:
        self._most = most
        self._call_seconds = call_seconds
        self._lock = threading.Lock()
        self._processes: list[SamplerProcess] = []

    def study(self, *, make_seconds: float, **arguments: Unpack[StudyArguments]) -> RemoteStudy:
        """A study as `OptunaStudy` makes it of these arguments. Raises SamplerProcessError."""
        with self._lock:
            process = self._least_used()
            number = process.reserve()
        return process.study(number, make_seconds=make_seconds, **arguments)

    def close_idle(self) -> None:
        """End the processes in which no study is left."""
        with self._lock:
            idle = [process for process in self._processes if process.studies == 0 and not process.is_busy]
            self._processes = [process for process in self._processes if process not in idle]
        for process in idle:
            process.close()

    def close(self) -> None:
        """End all processes; their studies answer no more."""
        with self._lock:
            processes, self._processes = self._processes, []
        for process in processes:
            process.close()

    def _least_used(self) -> SamplerProcess:
        unused = next((process for process in self._processes if process.studies == 0), None)
        if unused is not None:
            return unused
        if len(self._processes) < self._most:
            self._processes.append(SamplerProcess(self._call_seconds))
            return self._processes[-1]
        return min(self._processes, key=lambda process: (process.is_busy, process.studies))
