"""Holding the right to execute one attempt: heartbeats, reports, and what the service answers to them.

One thread a lease sends everything, so that a service that is away for a while neither stops the training nor loses a
report: what could not be sent waits, in order, and is sent when the service is back.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from workers.engine.protocol import JsonObject
from workers.interruption import Interruption, LeaseLostError, TrialCancelledError, TrialPrunedError
from workers.service.client import BACKOFF, RefusedError, ServiceClient, UnreachableError
from workers.service.messages import FigureNoise, Report, ReportAnswer

logger = logging.getLogger("layersweep.worker")

REPORT_INTERVAL_SECONDS = 0.5
"""Losses and log lines that come faster are sent together."""

LOSSES_A_REPORT = 500
LOG_CHARACTERS_A_REPORT = 60_000


class Lease:
    """The right to execute one attempt, while the context is open.

    If it is lost, cancelled or pruned, `interruption` is set; the work watches that. The service being away sets
    nothing: an attempt that nobody else has claimed is still ours when the service is back.
    """

    def __init__(
        self,
        service: ServiceClient,
        trial: str,
        attempt: int,
        *,
        heartbeat_seconds: float,
        interruption: Interruption,
        report_interval_seconds: float = REPORT_INTERVAL_SECONDS,
    ) -> None:
        self._service = service
        self._trial = trial
        self._attempt = attempt
        self._heartbeat_seconds = heartbeat_seconds
        self._interval_seconds = report_interval_seconds
        self.interruption = interruption
        self.entered_phase: str | None = None
        """The phase that was said last."""
        self._pending: collections.deque[Report] = collections.deque()
        self._changed = threading.Condition()
        self._sending = False
        self._closing = False
        self._urgent = False
        self._last_sent_at = time.monotonic()
        self._retry_at = 0.0
        self._delays: Iterator[float] | None = None
        self._thread = threading.Thread(target=self._keep, name=f"lease of {trial}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def phase(self, name: str, **progress: Any) -> None:
        """Say that a phase begins; sent at once."""
        self.entered_phase = name
        with self._changed:
            self._pending.append({"phase": name, "progress": progress} if progress else {"phase": name})
            self._urgent = True
            self._changed.notify_all()

    def progress(self, losses: JsonObject | None = None, **progress: Any) -> None:
        """Say how far the phase is; `losses` is one point of the curve (its `step` and what was measured there)."""
        with self._changed:
            report = self._report()
            if losses is not None and len(report.get("losses", [])) >= LOSSES_A_REPORT:
                report = self._begin_report()
            if progress:
                report["progress"] = progress
            if losses is not None:
                report.setdefault("losses", []).append(losses)
            self._changed.notify_all()

    def metrics(self, metrics: Mapping[str, float], noise: Mapping[str, FigureNoise]) -> None:
        """Say what was measured before the training, and how certain it is: the service judges that by it."""
        with self._changed:
            report = self._report()
            report["metrics"] = {name: value for name, value in metrics.items() if math.isfinite(value)}
            report["noise"] = {name: each for name, each in noise.items() if name in report["metrics"]}
            self._changed.notify_all()

    def send_now(self) -> None:
        """Send what waits without waiting for more: the service is to answer to it."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()

    def log(self, text: str) -> None:
        """Keep a line in the attempt's log."""
        line = text.rstrip("\n")[:LOG_CHARACTERS_A_REPORT] + "\n"
        with self._changed:
            report = self._report()
            if len(report.get("log", "")) + len(line) > LOG_CHARACTERS_A_REPORT:
                report = self._begin_report()
            report["log"] = report.get("log", "") + line
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Send what waits; True if all of it has been sent within `seconds`."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not (self._pending or self._sending) or not self._thread.is_alive(), seconds
            )

    def _report(self) -> Report:
        """The newest report that is still to be sent."""
        return self._pending[-1] if self._pending else self._begin_report()

    def _begin_report(self) -> Report:
        report: Report = {}
        self._pending.append(report)
        return report

    def _keep(self) -> None:
        try:
            while (report := self._next()) is not None:
                self._send(report)
        finally:
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _next(self) -> Report | None:
        """Wait until something is due: a report, an empty one for a heartbeat, or None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._closing or isinstance(self.interruption.cause, LeaseLostError):
                    return None
                if self._pending:
                    due_at = self._last_sent_at + (0.0 if self._urgent else self._interval_seconds)
                else:
                    due_at = self._last_sent_at + self._heartbeat_seconds
                due_at = max(due_at, self._retry_at)
                if due_at <= now:
                    self._sending = True
                    return self._pending.popleft() if self._pending else {}
                self._changed.wait(due_at - now)

    def _send(self, report: Report) -> None:
        try:
            if report:
                answer = self._service.report(self._trial, self._attempt, report)
            else:
                answer = self._service.heartbeat(self._trial, self._attempt)
        except UnreachableError as error:
            self._put_back(report)
            self._wait_for_service(error)
        except RefusedError as error:
            self._settle()
            if error.lease_is_lost:
                self.interruption.set(LeaseLostError(error.detail))
            else:
                logger.warning("the service refused a report of trial %s: %s", self._trial, error)
        else:
            if self._delays is not None:
                logger.info("the service answers again")
                self._delays = None
            self._settle()
            self._act_on(answer)

    def _put_back(self, report: Report) -> None:
        with self._changed:
            if report:
                self._pending.appendleft(report)
            self._sending = False
            # Who flushes need not wait for a heartbeat that has failed.
            self._changed.notify_all()

    def _wait_for_service(self, error: UnreachableError) -> None:
        if self._delays is None:
            logger.warning(
                "the service at %s %s (%s): the attempt goes on, reports wait", self._service.server, error.what, error
            )
            self._delays = iter(replace(BACKOFF, most_seconds=max(1.0, self._heartbeat_seconds / 2)))
        self._retry_at = time.monotonic() + next(self._delays)

    def _settle(self) -> None:
        with self._changed:
            self._sending = False
            self._last_sent_at = time.monotonic()
            self._urgent = bool(self._pending) and self._urgent
            self._changed.notify_all()

    def _act_on(self, answer: ReportAnswer) -> None:
        match answer.get("action"):
            case "cancel":
                self.interruption.set(TrialCancelledError("the sweep does not want the trial any more"))
            case "prune":
                reason = str(answer.get("reason") or "pruned by the sweep's pruner")
                keeps_state = answer.get("keep_training_state") is True
                self.interruption.set(TrialPrunedError(reason, keeps_state=keeps_state))
            case _:
                with contextlib.suppress(TypeError, ValueError):
                    lease_seconds = float(answer.get("lease_seconds", math.inf))
                    self._heartbeat_seconds = min(self._heartbeat_seconds, lease_seconds / 3)
