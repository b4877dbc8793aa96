"""A lease is kept alive, reports arrive whatever the service does, and what the service says reaches the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.workers.scripted_service import ScriptedService
from workers.interruption import Interruption, LeaseLostError, TrialCancelledError, TrialPrunedError
from workers.service.lease import LOSSES_A_REPORT, Lease


def make(scripted: ScriptedService, *, heartbeat_seconds: float = 30.0, interval_seconds: float = 0.01) -> Lease:
    return Lease(
        scripted.client(),
        "T0",
        1,
        heartbeat_seconds=heartbeat_seconds,
        interruption=Interruption(),
        report_interval_seconds=interval_seconds,
    )


def answer(action: str) -> httpx2.Response:
    return httpx2.Response(200, json={"action": action, "lease_seconds": 30})


def test_heartbeats_are_sent_while_nothing_happens(scripted: ScriptedService) -> None:
    with make(scripted, heartbeat_seconds=0.01):
        scripted.wait_for(lambda verb, body: len(scripted.sent("heartbeat")) >= 3)
    assert scripted.sent("report") == []


def test_reports_that_come_fast_are_sent_together_and_in_order(scripted: ScriptedService) -> None:
    with make(scripted, interval_seconds=30) as lease:
        lease.phase("build")
        lease.log("built")
        lease.phase("train", steps=3)
        for step in range(3):
            lease.progress({"step": step, "training_loss": float(step)}, step=step)
        lease.log("one")
        lease.log("two\n")
        assert lease.flush(10)
    reports = scripted.sent("report")
    assert scripted.phases() == ["build", "train"]
    assert scripted.losses() == [{"step": step, "training_loss": float(step)} for step in range(3)]
    assert "".join(report.get("log", "") for report in reports) == "built\none\ntwo\n"
    assert reports[-1]["progress"] == {"step": 2}
    assert len(reports) <= 6


def test_no_report_is_larger_than_the_service_takes(scripted: ScriptedService) -> None:
    with make(scripted, interval_seconds=30) as lease:
        for step in range(2 * LOSSES_A_REPORT + 1):
            lease.progress({"step": step}, step=step)
        for _ in range(5):
            lease.log("x" * 30_000)
        lease.log("y" * 1_000_000)
        assert lease.flush(10)
    assert [loss["step"] for loss in scripted.losses()] == list(range(2 * LOSSES_A_REPORT + 1))
    assert all(len(report.get("losses", [])) <= 1000 for report in scripted.sent("report"))
    assert all(len(report.get("log", "")) <= 65_536 for report in scripted.sent("report"))


def test_a_service_that_is_away_loses_no_report_and_stops_no_work(scripted: ScriptedService) -> None:
    arrived: list[dict[str, Any]] = []
    away = threading.Event()
    away.set()

    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        if away.is_set():
            raise httpx2.ConnectError("connection refused")
        arrived.append(body)
        return None

    scripted.script = script
    with make(scripted) as lease:
        lease.phase("build")
        scripted.wait_for(lambda verb, body: True)
        lease.phase("train")
        lease.progress({"step": 1}, step=1)
        assert not lease.flush(0.05)
        assert lease.interruption.cause is None
        away.clear()
        assert lease.flush(10)
    assert [report.get("phase") for report in arrived] == ["build", "train"]
    assert arrived[-1]["losses"] == [{"step": 1}]


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        (lambda: httpx2.Response(409, json={"detail": "attempt 2 holds it"}), LeaseLostError),
        (lambda: httpx2.Response(404, json={"detail": "there is no such trial"}), LeaseLostError),
        (lambda: answer("cancel"), TrialCancelledError),
        (lambda: answer("prune"), TrialPrunedError),
    ],
)
@pytest.mark.parametrize("through", ["heartbeat", "report"])
def test_what_the_service_says_interrupts_the_work(
    scripted: ScriptedService, response: Callable[[], httpx2.Response], cause: type[Exception], through: str
) -> None:
    scripted.script = lambda verb, body: response() if verb == through else None
    with make(scripted, heartbeat_seconds=0.01 if through == "heartbeat" else 30.0) as lease:
        if through == "report":
            lease.phase("build")
        assert lease.interruption.wait(10)
        with pytest.raises(cause):
            lease.interruption.check()


def test_a_refused_report_is_dropped_and_the_rest_goes_on(scripted: ScriptedService) -> None:
    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        return httpx2.Response(422, json={"detail": "no such phase"}) if body.get("phase") == "build" else None

    scripted.script = script
    with make(scripted) as lease:
        lease.phase("build")
        lease.phase("train")
        assert lease.flush(10)
        assert lease.interruption.cause is None
    assert scripted.phases() == ["build", "train"]


def test_nothing_is_sent_after_the_lease_is_lost(scripted: ScriptedService) -> None:
    scripted.script = lambda verb, body: httpx2.Response(409, json={"detail": "over"})
    with make(scripted) as lease:
        lease.phase("build")
        assert lease.interruption.wait(10)
        lease.phase("train")
        lease.flush(1)
    assert scripted.phases() == ["build"]


def test_a_lost_lease_outranks_a_drain() -> None:
    interruption = Interruption()
    interruption.set(TrialCancelledError("first"))
    interruption.set(TrialPrunedError("ignored"))
    assert isinstance(interruption.cause, TrialCancelledError)
    interruption.set(LeaseLostError("another attempt"))
    with pytest.raises(LeaseLostError):
        interruption.check()
