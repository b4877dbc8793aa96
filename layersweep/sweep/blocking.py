"""A handle on one sweep of the service: wait for it, read its trials and its leaderboard, steer it."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from layersweep import files, notebook
from layersweep.errors import ServiceFailureError, UnreachableError, WaitTimeoutError
from layersweep.leaderboard import Feasible, Leaderboard, RowFilter, read_leaderboard
from layersweep.preferences import SelectionPreferences
from layersweep.records.assertions import Baseline, Judgement
from layersweep.records.recommendations import Confirmation, Recommendation
from layersweep.records.sweep_requests import SweepAnnotations
from layersweep.records.sweeps import (
    ENDED_SWEEP_STATES,
    ConstraintSummary,
    EventRecord,
    LeaderboardRow,
    SweepDetailRecord,
    SweepState,
    TrialDetailRecord,
    TrialRecord,
    TrialState,
)
from layersweep.sweep.analyses import Analyses
from layersweep.transport import Transport, decode, foreign

if TYPE_CHECKING:
    import httpx2
    import pandas

LONG_POLL_SECONDS = 20.0
RESTART_PATIENCE_SECONDS = 300.0
"""How long a wait bears a service that does not answer: it may be restarting, and the sweep goes on after that."""


class Sweep(Analyses):
    """One sweep. Made by `Client.submit`, `Client.sweep` and `Client.sweeps`.

        sweep = client.submit("examples/quickstart.yaml")
        sweep.wait(on_progress=lambda record: print(record["progress"]["complete"]))
        print(sweep.recommendation()["configuration"])

    `record` is the newest answer of the service about it; `refresh()` asks again.
    """

    def __init__(self, transport: Transport, record: SweepDetailRecord) -> None:
        self._transport = transport
        self._etag: str | None = None
        self.record = record

    @property
    def name(self) -> str:
        return self.record["name"]

    @property
    def state(self) -> SweepState:
        """As of the newest answer: active, paused, completed, cancelled or failed."""
        return self.record["state"]

    @property
    def ended(self) -> bool:
        return self.state in ENDED_SWEEP_STATES

    def __repr__(self) -> str:
        progress = self.record["progress"]
        return f"<Sweep {self.id} {self.name!r}: {self.state}, {progress['complete']} of {progress['budget']} complete>"

    def _repr_html_(self) -> str:
        return notebook.of_sweep(self.record)

    def refresh(self) -> Sweep:
        """Read the sweep again."""
        self._poll(wait_seconds=0)
        return self

    def wait(
        self,
        timeout_seconds: float | None = None,
        on_progress: Callable[[SweepDetailRecord], object] | None = None,
    ) -> Sweep:
        """Wait until the sweep has ended, and return it.

        `on_progress` is called with the record at once and after every change. A service that restarts meanwhile is
        waited for. How it ended is in `state` and `record["end_code"]`. Raises WaitTimeoutError after
        `timeout_seconds`; the sweep itself goes on.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._poll(wait_seconds=0)
        seen_version = -1
        while True:
            if self.record["version"] != seen_version:
                seen_version = self.record["version"]
                if on_progress is not None:
                    on_progress(self.record)
            if self.ended:
                return self
            left_seconds = LONG_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if timeout_seconds is not None and left_seconds <= 0:
                raise not_ended(self, timeout_seconds)
            self._poll(wait_seconds=min(LONG_POLL_SECONDS, left_seconds))

    def trial(self, number: int) -> TrialDetailRecord:
        """The trial with this number, with its configuration, attempts, losses and measurements. Raises
        NotFoundError."""
        return self._transport.object("GET", self._path(f"/trials/{int(number)}"))

    def promote(self, number: int) -> TrialDetailRecord:
        """Train the trial with this number, which a pruner has stopped, to its end, from where it was stopped.

        A sweep that was complete goes on for it. Raises NotFoundError, and ConflictError if no pruner has stopped
        it, or the budget of time is used up.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._transport.object("POST", f"/v1/trials/{self.trial(number)['id']}:promote", headers=headers)

    def trials(self, *, state: TrialState | None = None) -> Iterator[TrialRecord]:
        """All trials in the order of their numbers, fetched a page at a time as they are needed.

        for trial in sweep.trials(state="failed"):
            print(trial["number"], trial["reason"])
        """
        return cast("Iterator[TrialRecord]", self._transport.pages(self._path("/trials"), {"state": state}))

    def leaderboard(
        self,
        *,
        sort: str | None = None,
        state: TrialState | Sequence[TrialState] | None = None,
        feasible: Feasible | None = None,
        on_front: bool | None = None,
        where: str | Sequence[str] = (),
        limit: int | None = None,
    ) -> Leaderboard:
        """The trials in order, all pages of them.

        Without `sort`: by Pareto rank, then by the first objective. `sort` takes a metric, a parameter, `rank` or
        `number`, with a minus in front for the greatest first. `state` keeps the trials in one of these states,
        `feasible="undecided"` those of which noise leaves that undecided, `where` those whose metric or parameter
        compares so; several conditions must all hold.

            sweep.leaderboard(sort="latency_ms_p50", feasible=True)[0]
            sweep.leaderboard(where=["latency_ms_p50<=2", "mlp.kind=GatedMLP"])
        """
        rows = RowFilter.of(state, feasible, on_front, where)
        return read_leaderboard(self._transport, self.id, sort=sort, rows=rows, limit=limit)

    def export(self, file: str | os.PathLike[str], *, sort: str | None = None) -> None:
        """Write the whole leaderboard to a file as it arrives: CSV, or JSON Lines if its name ends in .jsonl."""
        kind = "jsonl" if os.fspath(file).endswith(".jsonl") else "csv"
        with files.written(Path(file)) as out:
            for chunk in self._transport.stream(self._path("/leaderboard"), params={"sort": sort, "format": kind}):
                out.write(chunk)

    def leaderboard_csv(
        self,
        *,
        sort: str | None = None,
        state: TrialState | Sequence[TrialState] | None = None,
        feasible: Feasible | None = None,
        on_front: bool | None = None,
        where: str | Sequence[str] = (),
    ) -> str:
        """The same as CSV text: a column for each parameter and metric."""
        params = {"sort": sort, "format": "csv", **RowFilter.of(state, feasible, on_front, where).fields()}
        response = self._transport.request(
            "GET", self._path("/leaderboard"), params=params, headers={"Accept": "text/csv"}
        )
        return response.text

    def front(self) -> list[LeaderboardRow]:
        """The Pareto front: feasible complete trials that no other one beats in every objective."""
        return self._transport.page(self._path("/front"), {})["items"]

    def constraints(self) -> ConstraintSummary:
        """Which constraints the trials broke, by how little the nearest missed, and limits that more would keep.

        for line in sweep.constraints()["says"]:
            print(line)  # for 3 feasible trials allow latency_ms_p99 <= 1.18 (trials 4, 7 and 2)
        """
        return self._transport.object("GET", self._path("/constraints"), named_by="sweep")

    def recommendation(
        self,
        *,
        prefer: str | Sequence[str] = (),
        within: Mapping[str, str | float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Recommendation:
        """The recommended trial with its complete configuration, the rule it was chosen by, and its evidence.

            sweep.recommendation(prefer="latency_ms_p50", within={"validation_loss": "1%"})["trial"]["number"]

        Without arguments: the trial of the front that is nearest to the ideal point. `prefer`: the best in this metric
        (several: the later ones decide ties). `within`: only trials at most so much worse than the front's best, a
        share ("1%") or in the metric's unit (0.02). `weights`: what an objective counts in the distance (default 1).
        `report` and `confirm` take the same. Raises NoFeasibleTrialError while no trial is feasible and complete, and
        ResponseError (422) for wishes that cannot be read or that no trial meets.
        """
        params = SelectionPreferences.of(prefer, within, weights).fields()
        return self._transport.object("GET", self._path("/recommendation"), named_by="trial", params=params)

    def report(
        self,
        format: str = "html",  # noqa: A002 - the API's own word
        *,
        prefer: str | Sequence[str] = (),
        within: Mapping[str, str | float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> str:
        """The whole story as a text: "html" that stands alone, "markdown", or "json"; chosen as by `recommendation`."""
        params = {"format": format} | SelectionPreferences.of(prefer, within, weights).fields()
        return self._transport.request("GET", self._path("/report"), params=params).text

    def confirm(
        self,
        *,
        seeds: int = 3,
        candidates: int = 3,
        trials: Sequence[int] = (),
        prefer: str | Sequence[str] = (),
        within: Mapping[str, str | float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Confirmation:
        """Train the best trials again with further seeds, and score them on the test split that no sweep has seen.

            confirmation = sweep.confirm(seeds=3)
            client.sweep(confirmation["id"]).wait()
            print(sweep.confirmations()[0]["says"])

        `candidates`: how many, the recommended one first, as `recommendation` chooses it with the same wishes;
        `trials`: their numbers instead. Workers execute it like a sweep of its own, whose id the answer has. Raises
        ConflictError while the sweep goes on, and if its dataset was registered without a test split.
        """
        body = {"seeds": seeds, "candidates": candidates, "trials": list(trials)}
        body |= SelectionPreferences.of(prefer, within, weights).fields()
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._transport.object("POST", self._path(":confirm"), json=body, headers=headers)

    def confirmations(
        self,
        *,
        prefer: str | Sequence[str] = (),
        within: Mapping[str, str | float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> list[Confirmation]:
        """The sweep's confirmations with what they found so far, the newest first.

        `recommended` marks the trial that `recommendation` chooses with the same wishes.
        """
        params = SelectionPreferences.of(prefer, within, weights).fields()
        return self._transport.page(self._path("/confirmations"), params)["items"]

    def remeasure(self, limits: Sequence[str], number: int | None = None, *, builds: int = 5) -> Sweep:
        """Measure a trial anew, the recommended one or the one with this number: a sweep of so many builds of it.

        `limits` say which metrics are measured, as for `judge`. Raises NotFoundError if there is no such trial.
        """
        body = {"limits": list(limits), "trial": number, "builds": builds}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return Sweep(
            self._transport, self._transport.object("POST", self._path(":remeasure"), json=body, headers=headers)
        )

    def judge(
        self,
        limits: Sequence[str],
        *,
        baseline: Baseline | None = None,
        against: str | None = None,
        risk_of_alarm: float = 0.05,
        risk_of_miss: float = 0.05,
    ) -> Judgement:
        """Whether the builds of this sweep, made by `remeasure`, keep limits like "latency_ms_p50 <= 1.02 * baseline".

        `baseline` in them is what was kept of an earlier judgement (`measured`), or the sweep with the id `against`.
        `risk_of_alarm`: with which a limit that is kept may be called broken, `risk_of_miss`: one that is broken, kept.
        Raises ConflictError while no build is complete, and (`baseline-mismatch`) for a baseline of another device,
        runtime, version of results or shape. layersweep.gates measures until the limits can be judged.
        """
        risks = {"risk_of_alarm": risk_of_alarm, "risk_of_miss": risk_of_miss}
        body = {"limits": list(limits), "baseline": baseline, "against": against, **risks}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._transport.object("POST", self._path(":judge"), json=body, headers=headers)

    def dataframe(self) -> pandas.DataFrame:
        """The whole leaderboard as a pandas DataFrame. Raises MissingDependencyError if pandas is not installed."""
        return self.leaderboard().dataframe()

    def events(self, *, after: int = 0) -> Iterator[EventRecord]:
        """What happens in the sweep, from the event after `after` on, until the sweep has ended."""
        return _follow(self._transport, self, after)

    def clone(self) -> Sweep:
        """Post the same document again, as a new sweep with the same tags."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return Sweep(self._transport, self._transport.object("POST", self._path(":clone"), headers=headers))

    def cancel(self) -> Sweep:
        """End the sweep now; running trials are told to stop at their next heartbeat."""
        return self._act("cancel")

    def pause(self) -> Sweep:
        """Hand out no more trials until `resume`; running ones finish."""
        return self._act("pause")

    def resume(self) -> Sweep:
        """Go on after `pause`."""
        return self._act("resume")

    def extend(
        self, *, trials: int = 0, wall_seconds: float = 0, device_seconds: float = 0, failures: int = 0
    ) -> Sweep:
        """Add to the budget. A sweep that has used its budget up goes on."""
        added = {"trials": trials, "wall_seconds": wall_seconds, "failures": failures}
        # An older service knows no budget of device time, and refuses what it does not know.
        return self._act("extend", added | ({"device_seconds": device_seconds} if device_seconds else {}))

    def prioritize(self, priority: int) -> Sweep:
        """Have its trials executed before those of sweeps with a lower priority, from now on; 0 is what sweeps have."""
        return self._act("prioritize", {"priority": priority})

    def annotate(self, **changes: Unpack[SweepAnnotations]) -> Sweep:
        """Change its name, note or tags, or archive it; what is left out stays as it is."""
        self.record = self._transport.object("PATCH", self._path(), json=dict(changes))
        self._etag = None
        return self

    def _act(self, action: str, body: Mapping[str, float] | None = None) -> Sweep:
        # With a key it may be sent again if its answer was lost: a budget is not extended twice.
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        self.record = self._transport.object("POST", self._path(f":{action}"), json=body, headers=headers)
        self._etag = None
        return self

    def _poll(self, *, wait_seconds: float) -> None:
        """Read the sweep, letting the service answer late: as soon as it changes or after `wait_seconds`."""
        headers: dict[str, str] = {}
        if self._etag is not None and wait_seconds > 0:
            headers = {"If-None-Match": self._etag, "Prefer": f"wait={max(1, round(wait_seconds))}"}
        response = self._transport.request(
            "GET",
            self._path(),
            headers=headers,
            timeout_seconds=self._transport.timeout_seconds + wait_seconds,
            retry_seconds=RESTART_PATIENCE_SECONDS if wait_seconds > 0 else None,
        )
        if response.status_code != 304:
            self.record = record_of(response)
            self._etag = response.headers.get("ETag")
        if self._etag is None and wait_seconds > 0:
            self._transport.sleep(min(1.0, wait_seconds))


def not_ended(sweep: Sweep, timeout_seconds: float) -> WaitTimeoutError:
    """The error of a wait that took `timeout_seconds` in all: what the sweep waits for itself, and that it goes on."""
    waiting = sweep.record.get("waiting")
    reason = "" if waiting is None else f" ({waiting['reason']})"
    return WaitTimeoutError(
        f"sweep {sweep.id} has not ended within {timeout_seconds:g} s: it is {sweep.state}{reason}. "
        "It goes on: wait for it again, or cancel it"
    )


def record_of(response: httpx2.Response) -> SweepDetailRecord:
    """The sweep that an answer holds. Raises ServiceFailureError if something else than the service answered."""
    found = decode(response)
    if not isinstance(found, dict) or "id" not in found:
        raise ServiceFailureError(502, {"type": "not-layersweep", "detail": foreign(str(response.url))})
    return cast("SweepDetailRecord", found)


def _event(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise UnreachableError("the stream of events broke off in the middle of one") from None


def _follow(transport: Transport, sweep: Sweep, after: int) -> Iterator[EventRecord]:
    """Events of `sweep` as they happen; reconnects from the last one seen, ends when the sweep has ended."""
    path = f"/v1/sweeps/{sweep.id}/events"
    last = after
    started_waiting: float | None = None
    while True:
        had_ended, before = sweep.ended, last
        try:
            with transport.events(path, headers={"Last-Event-ID": str(last)}) as source:
                started_waiting = None
                for message in source:
                    if not message.data:
                        continue
                    event = cast("EventRecord", _event(message.data))
                    last = event["sequence"]
                    yield event
            # A service that stops ends its streams, too. The newest events of a sweep that ended long ago are deleted:
            # then nothing more comes, though its version is beyond them.
            if sweep.refresh().ended and (last >= sweep.record["version"] or (had_ended and last == before)):
                return
            if last == before:
                transport.sleep(1.0)
        except UnreachableError:
            started_waiting = started_waiting or time.monotonic()
            if time.monotonic() - started_waiting > RESTART_PATIENCE_SECONDS:
                raise
            transport.sleep(1.0)
