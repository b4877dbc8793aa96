"""1,000 workers of 8 slots over the real protocol: what gives way first, and how many API processes they take.

All workers and slots are there, each worker on a connection of its own: they register, claim 8 trials at once, report
seven phases, finish with measurements and claim the next trial with it. Nothing is executed, and time runs `--slowdown`
times slower than in the fleet: a trial of 20 s takes 400 s, so that one machine carries the rows and the connections of
the whole fleet at a twentieth of its requests. Leases and heartbeats are longer by the same factor.

Each stage sends one kind of request and is charged with the *processor time* that it takes, by part: the API's event
loop, its database writer, its other threads (scheduler, reads), and PostgreSQL's processes. Processor time depends
little on what else the machine does, unlike latencies. What an idle service takes meanwhile is subtracted. From the
time of one request and the requests that a fleet sends follows what a fleet takes; `mixed` sends all kinds as they come
and is compared with that sum. A Python process has one interpreter: it gives way where loop, writer and other threads
together take `BUSY_SHARE` of a core.

The last line is JSON: of every run that is in `--out`, what 8,000 slots would take. Without a database only that.

    python -m benchmarks.performance.fleet_simulation [--databases postgresql sqlite] [--workers 1000] [--slots 8]
        [--sweeps 32] [--requests 1500] [--mixed-seconds 60] [--out benchmarks/results/fleet_simulation.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.performance.scheduling import DOCUMENT, database_urls
from benchmarks.performance.simulated_worker import Worker
from benchmarks.support.processes import ROOT, await_ready, free_port, machine
from benchmarks.support.report import write
from layersweep import Client

PHASES = ("check", "build", "measure", "train", "rebuild", "remeasure", "evaluate")
TRIAL_SECONDS = 20.0
HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 30.0
FLEET_SLOTS = 8000
"""Of the fleet that is told of: 1,000 workers of 8 slots."""
BUSY_SHARE = 0.7
"""Of a core that a process may take in the mean: above it, requests wait for one another."""
SENT_AT_ONCE = 16
"""Requests of a stage that are under way at once."""
PARTS = ("loop", "writer", "other", "database")


# --- the service ------------------------------------------------------------------------------------------------------


def serve(port: int, names: Path) -> None:
    """Be the service, and write down which of its threads is which."""
    from layersweep.cli import app

    def tell() -> None:
        while True:
            found = {thread.name: thread.native_id for thread in threading.enumerate()}
            names.with_suffix(".new").write_text(json.dumps(found))
            names.with_suffix(".new").replace(names)
            time.sleep(0.5)

    threading.Thread(target=tell, daemon=True).start()
    app(["serve", "--port", str(port), "--log-level", "warning"])


@dataclass
class Service:
    """A running service, and where its processor time is read."""

    url: str
    pid: int
    names: Path
    """Where it writes which of its threads is which."""
    database: int | None
    """The process whose children are PostgreSQL's; None of SQLite, which runs in the writer."""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def cpu_seconds(self) -> dict[str, float]:
        """What each part has taken so far."""
        process = Path(f"/proc/{self.pid}")
        # The thread that writes is started with the first write.
        thread = json.loads(self.names.read_text()).get("database-writer", 0)
        whole, loop, writer = (_ticks(process / rest / "stat") for rest in ("", f"task/{self.pid}", f"task/{thread}"))
        found = {"loop": loop, "writer": writer, "other": whole - loop - writer, "database": 0.0}
        if self.database is not None:
            found["database"] = _ticks(Path(f"/proc/{self.database}/stat"), with_ended_children=True)
            found["database"] += sum(_ticks(Path(f"/proc/{child}/stat")) for child in _children(self.database))
        return found


def _ticks(stat: Path, *, with_ended_children: bool = False) -> float:
    """Processor time in seconds; 0 of a process that has just ended."""
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11 : 15 if with_ended_children else 13])) / os.sysconf("SC_CLK_TCK")


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


@contextmanager
def running(database_url: str, folder: Path, slowdown: float) -> Generator[Service]:
    """A service on a fresh database, with leases and heartbeats that last longer by `slowdown`."""
    from service.database.sessions import Database
    from service.datasets.builtins import register_builtins
    from service.settings import Settings

    database = Database(database_url)
    database.upgrade()
    register_builtins(database, Settings(database_url=database_url))
    database.close()
    port = free_port()
    names = folder / "threads.json"
    settings = {
        "LAYERSWEEP_DATABASE_URL": database_url,
        "LAYERSWEEP_DATA_DIR": str(folder / "data"),
        "LAYERSWEEP_LEASE_SECONDS": str(LEASE_SECONDS * slowdown),
        "LAYERSWEEP_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS * slowdown),
        "LAYERSWEEP_WORKER_ALIVE_SECONDS": "86400",
    }
    command = [sys.executable, "-m", "benchmarks.performance.fleet_simulation", "--serve", str(port), str(names)]
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, stdout=log, stderr=log)
    try:
        await_ready(f"http://127.0.0.1:{port}", process, folder / "service.log")
        yield Service(f"http://127.0.0.1:{port}", process.pid, names, _postmaster(database_url))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _postmaster(database_url: str) -> int | None:
    """The process that starts PostgreSQL's others."""
    if database_url.startswith("sqlite"):
        return None
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        backend: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        return int(Path(f"/proc/{backend}/stat").read_text().rsplit(")", 1)[1].split()[1])


# --- the fleet --------------------------------------------------------------------------------------------------------


async def _each(work: Iterable[Callable[[], Awaitable[Any]]]) -> int:
    """Do all of it, `SENT_AT_ONCE` at a time; how much that was."""
    free, count = asyncio.Semaphore(SENT_AT_ONCE), 0

    async def one(step: Callable[[], Awaitable[Any]]) -> None:
        async with free:
            await step()

    async with asyncio.TaskGroup() as group:
        for step in work:
            count += 1
            group.create_task(one(step))
    return count


@dataclass
class Simulation:
    """The stages of one database, each with what it takes of each part."""

    service: Service
    workers: list[Worker]
    slots: int
    slowdown: float
    idle: dict[str, float] = field(default_factory=dict[str, float])
    """Processor seconds a second of each part, while nothing is asked."""
    requests: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Kind -> part -> processor milliseconds of one request."""

    async def measure_idle(self, seconds: float = 10.0) -> None:
        before, began = self.service.cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        spent = time.monotonic() - began
        after = self.service.cpu_seconds()
        self.idle = {part: (after[part] - before[part]) / spent for part in PARTS}

    async def measure(self, kind: str, work: Iterable[Callable[[], Awaitable[Any]]], settle_seconds: float = 2) -> None:
        """Send requests of a kind, let the scheduler work in what they left, and keep what one took."""
        before, began = self.service.cpu_seconds(), time.monotonic()
        count = await _each(work)
        sent = time.monotonic() - began
        await asyncio.sleep(settle_seconds)
        spent = time.monotonic() - began
        after = self.service.cpu_seconds()
        taken = {part: max(0.0, after[part] - before[part] - self.idle.get(part, 0.0) * spent) for part in PARTS}
        self.requests[kind] = {part: round(1000 * taken[part] / count, 3) for part in PARTS}
        print(f"{kind}: {count} in {sent:.1f} s, ms of processor time each {self.requests[kind]}", flush=True)

    async def fill(self) -> None:
        """Register all workers, and claim until every slot holds a trial."""
        await self.measure("register", [lambda w=w: w.register(self.slots) for w in self.workers])
        deadline = time.monotonic() + 400
        while missing := [w for w in self.workers if len(w.leases) < self.slots]:
            await _each([lambda w=w: w.claim(self.slots) for w in missing])
            held = sum(len(w.leases) for w in self.workers)
            print(f"  {held} of {len(self.workers) * self.slots} slots hold a trial", flush=True)
            if time.monotonic() > deadline:
                raise RuntimeError("the slots do not fill: are there enough trials at once?")

    async def stages(self, count: int) -> None:
        source = random.Random(0)
        await self.measure_idle()
        slots = [(w, lease) for w in self.workers for lease in w.leases]
        chosen = source.sample(slots, min(count, len(slots)))
        await self.measure("heartbeat", [lambda w=w, lease=lease: w.heartbeat(lease) for w, lease in chosen])
        reporting = chosen[: -(-count // len(PHASES))]

        async def reports(worker: Worker, lease: str) -> None:
            for phase in PHASES:
                await worker.report(lease, phase)

        await self.measure("7 reports", [lambda w=w, lease=lease: reports(w, lease) for w, lease in reporting])
        await self.measure("finish", [lambda w=w, lease=lease: w.finish(lease) for w, lease in chosen], 10)

    async def mixed(self, seconds: float) -> dict[str, Any]:
        """All slots as a fleet's do, slower by `slowdown`; what a second takes, and what the stages say of it."""
        sent: Counter[str] = Counter()
        before, began = self.service.cpu_seconds(), time.monotonic()
        until = began + seconds
        async with asyncio.TaskGroup() as group:
            for worker in self.workers:
                for lease in list(worker.leases):
                    group.create_task(self._slot(worker, lease, until, sent))
        spent = time.monotonic() - began
        after = self.service.cpu_seconds()
        measured = {part: round((after[part] - before[part]) / spent, 4) for part in PARTS}
        per_second = {kind: count / spent for kind, count in sent.items()}
        expected = {
            part: round(
                self.idle[part] + sum(rate * self.requests[kind][part] / 1000 for kind, rate in per_second.items()), 4
            )
            for part in PARTS
        }
        return {
            "seconds": round(spent, 1),
            "requests_per_s": {kind: round(rate, 2) for kind, rate in per_second.items()},
            "cores": measured,
            "cores_by_stages": expected,
        }

    async def _slot(self, worker: Worker, lease: str, until: float, sent: Counter[str]) -> None:
        """A slot that stands anywhere in its trial, then goes on: reports, heartbeats where it is silent, a finish."""
        step = TRIAL_SECONDS * self.slowdown / (len(PHASES) + 1)
        source = random.Random(lease)
        position = source.randrange(len(PHASES) + 1)
        await asyncio.sleep(min(source.random() * step, max(0.0, until - time.monotonic())))
        while time.monotonic() < until:
            if position < len(PHASES):
                await worker.report(lease, PHASES[position])
                sent["7 reports"] += 1 / len(PHASES)  # type: ignore[assignment]
                position += 1
            else:
                known = set(worker.leases)
                if not await worker.finish(lease):
                    return
                sent["finish"] += 1
                lease, position = (set(worker.leases) - known).pop(), 0
            await asyncio.sleep(min(step, max(0.0, until - time.monotonic())))


# --- what follows -----------------------------------------------------------------------------------------------------


def extrapolated(requests: dict[str, dict[str, float]], idle: dict[str, float], slots: int) -> dict[str, Any]:
    """What a fleet of so many slots takes, and what gives way first."""
    trials = slots / TRIAL_SECONDS
    rates = {"finish": trials, "7 reports": trials, "heartbeat": slots / HEARTBEAT_SECONDS / len(PHASES)}
    cores = {
        part: round(idle[part] + sum(rate * requests[kind][part] / 1000 for kind, rate in rates.items()), 2)
        for part in PARTS
    }
    api = sum(cores[part] for part in ("loop", "writer", "other"))
    whole = api + cores["database"]
    return {
        "slots": slots,
        "trials_per_s": trials,
        "requests_per_s": round(trials * (1 + len(PHASES)) + rates["heartbeat"], 0),
        "cores": cores,
        "api_cores": round(api, 2),
        "api_processes": max(1, math.ceil(api / BUSY_SHARE)),
        "slots_of_one_api_process": int(slots * BUSY_SHARE / api),
        "slots_of_two_cores": int(slots * 2 * BUSY_SHARE / whole),
        "largest_part": max(cores, key=lambda part: cores[part]),
    }


async def simulate(service: Service, options: argparse.Namespace) -> dict[str, Any]:
    parallel = -(-options.workers * options.slots // options.sweeps) + 8
    for number in range(options.sweeps):
        Client(service.url).submit(
            DOCUMENT | {"name": f"fleet-{number}", "budget": {"trials": 1_000_000, "parallel": parallel}}
        )
    workers = [Worker(service.port, f"worker-{number}") for number in range(options.workers)]
    simulation = Simulation(service, workers, options.slots, options.slowdown)
    await simulation.fill()
    await simulation.stages(options.requests)
    mixed = await simulation.mixed(options.mixed_seconds)
    print(f"mixed: {json.dumps(mixed)}", flush=True)
    return {
        "idle_cores": {part: round(share, 4) for part, share in simulation.idle.items()},
        "ms_of_processor_time": simulation.requests,
        "mixed": mixed,
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--databases", nargs="*", default=["postgresql"], choices=["postgresql", "sqlite"])
    arguments.add_argument("--workers", type=int, default=1000)
    arguments.add_argument("--slots", type=int, default=8)
    arguments.add_argument("--sweeps", type=int, default=32)
    arguments.add_argument("--slowdown", type=float, default=20)
    arguments.add_argument("--requests", type=int, default=1500, help="of each kind")
    arguments.add_argument("--mixed-seconds", type=float, default=60)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve(int(options.serve[0]), Path(options.serve[1]))
        return 0
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    report = json.loads(options.out.read_text()) if options.out and options.out.is_file() else {"parts": {}}
    for kind in options.databases:
        with (
            tempfile.TemporaryDirectory() as folder,
            database_urls(kind, Path(folder)) as (url, _),
            running(url, Path(folder), options.slowdown) as service,
        ):
            found = asyncio.run(simulate(service, options))
        command = "python -m benchmarks.performance.fleet_simulation " + " ".join(sys.argv[1:])
        scale = {"workers": options.workers, "slots": options.slots, "sweeps": options.sweeps}
        load = [round(each, 1) for each in os.getloadavg()]
        name = f"{kind}, {options.workers} workers"
        report["parts"][name] = {"command": command, **machine(), "load_average": load, **scale, **found}
        write({"benchmark": "fleet_simulation"} | report, options.out)
    for part in report["parts"].values():
        part["fleet"] = extrapolated(part["ms_of_processor_time"], part["idle_cores"], FLEET_SLOTS)
    write({"benchmark": "fleet_simulation"} | report, options.out)
    print(json.dumps({name: part["fleet"] for name, part in report["parts"].items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
