"""Load: workers at once, reads of long sweeps, and who waits; on SQLite and PostgreSQL, beside Optuna's RDBStorage.

`workers`: claim-and-finish cycles a second by 1, 8, 64 and 200 workers that return at once (random sampler), and
RDBStorage on the same database in the same run by as many processes, at most 8. `reads`: latency of a leaderboard's
first page, a sweep and a page of trials at 1,000, 10,000 and 100,000 trials, which `benchmarks.support.generated_sweep`
puts through the ordinary tables; and what a claim costs beside them. `waiting`: 1,000 long-pollers of a sweep that is
idle, alone and while 200 workers work on another; then another process changes the idle sweep.
Client and service share the machine.

    python -m benchmarks.performance.load [--parts workers reads waiting] [--databases sqlite postgresql] [--seconds 5]
        [--trials 1000 10000 100000] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from benchmarks.performance import rdbstorage
from benchmarks.performance.scheduling import DOCUMENT, REGISTRATION, Connection, database_urls
from benchmarks.support import generated_sweep
from benchmarks.support.processes import machine, running_service
from layersweep import Client
from service.database.sessions import Database

WORKERS = (1, 8, 64, 200)
CONNECTIONS_A_PROCESS = 50
POLLERS = 1000


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """One request on a connection that is kept: as little client as can be, for it shares the cores."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    length = int(fields.get("content-length", 0))
    return int(head[0].split()[1]), await reader.readexactly(length), fields


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


# --- workers ----------------------------------------------------------------------------------------------------------


async def _work(port: int, worker: str, until: float) -> list[tuple[float, float]]:
    """Claim and finish until the time (monotonic clock); the seconds of each claim and finish."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    waits: list[tuple[float, float]] = []
    finish = {"outcome": "complete", "metrics": {"validation_loss": 0.5}}
    while time.monotonic() < until:
        began = time.perf_counter()
        status, text, _ = await ask(reader, writer, "POST", "/v1/leases", {"worker": worker}, Prefer="wait=5")
        claimed = time.perf_counter() - began
        if status != 200:
            continue
        lease = json.loads(text)
        began = time.perf_counter()
        path = f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish"
        status, text, _ = await ask(reader, writer, "POST", path, finish)
        assert status == 200, text
        waits.append((claimed, time.perf_counter() - began))
    writer.close()
    return waits


def _work_process(port: int, workers: Sequence[str], seconds: float, barrier: Any, results: Any) -> None:
    async def all_of_them() -> list[list[tuple[float, float]]]:
        until = time.monotonic() + seconds
        return await asyncio.gather(*(_work(port, worker, until) for worker in workers))

    barrier.wait()
    results.put([wait for waits in asyncio.run(all_of_them()) for wait in waits])


def drive(url: str, count: int, seconds: float) -> dict[str, Any]:
    """Cycles of `count` workers, of which at most `CONNECTIONS_A_PROCESS` share a process."""
    connection = Connection(url)
    workers = [connection.post("/v1/workers", REGISTRATION)[1]["id"] for _ in range(count)]
    processes_wanted = min(8, -(-count // CONNECTIONS_A_PROCESS) if count > 8 else count)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes_wanted), context.Queue()
    shares = [workers[start::processes_wanted] for start in range(processes_wanted)]
    processes = [
        context.Process(target=_work_process, args=(_port(url), share, seconds, barrier, results)) for share in shares
    ]
    for process in processes:
        process.start()
    waits = [wait for _ in processes for wait in results.get(timeout=seconds + 300)]
    for process in processes:
        process.join()
    return {
        "workers": count,
        "cycles_per_s": round(len(waits) / seconds, 1),
        "claim_ms": quantiles([claim for claim, _ in waits]),
        "finish_ms": quantiles([finish for _, finish in waits]),
    }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * statistics.median(ordered), 2),
        "p99": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2),
    }


def measure_workers(kind: str, seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, database_urls(kind, Path(folder)) as (ours, theirs):
        _prepare(ours)
        with running_service(Path(folder), {"LAYERSWEEP_DATABASE_URL": ours}) as url:
            for count in WORKERS:
                sweep = Client(url).submit(DOCUMENT | {"budget": {"trials": 1_000_000, "parallel": count}})
                rows.append({"database": kind, **drive(url, count, seconds)})
                sweep.cancel()
                print(json.dumps(rows[-1]), flush=True)
        rdbstorage.fill(theirs, 100)
        for row in rows:
            processes = min(8, row["workers"])
            found = rdbstorage.drive(theirs, "random", processes, seconds)
            row["rdbstorage"] = {"processes": processes, "trials_per_s": round(found["trials_per_s"], 1)}
    return rows


# --- reads ------------------------------------------------------------------------------------------------------------


def measure_reads(kind: str, sizes: Sequence[int], reads: int = 100) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, database_urls(kind, Path(folder)) as (ours, _):
        database = _prepare(ours, close=False)
        # Before a service runs: its scheduler would ask for trials of a sweep that is being filled.
        generated = {trials: _generate(database, trials) for trials in sizes}
        with running_service(Path(folder), {"LAYERSWEEP_DATABASE_URL": ours}) as url:
            for trials, sweep_id in generated.items():
                row: dict[str, Any] = {"database": kind, "trials": trials}
                for name, path in {
                    "leaderboard": f"/v1/sweeps/{sweep_id}/leaderboard",
                    "sweep": f"/v1/sweeps/{sweep_id}",
                    "trials": f"/v1/sweeps/{sweep_id}/trials",
                }.items():
                    row[f"{name}_ms"] = quantiles(_read(_port(url), path, reads))
                going = Client(url).submit(DOCUMENT | {"budget": {"trials": 1_000_000, "parallel": 1}})
                row["claim_ms"] = drive(url, 1, 10)["claim_ms"]
                going.cancel()
                rows.append(row)
                print(json.dumps(row), flush=True)
        database.close()
    return rows


def _generate(database: Database, trials: int) -> str:
    """A generated sweep whose worker has gone: another sweep would be bound to its target, which nobody serves here."""
    from service.database.models import Worker

    sweep_id = generated_sweep.generate(database, trials)
    database.write(lambda session: session.execute(sa.update(Worker).values(last_seen_at=0.0)).close())
    return sweep_id


def _read(port: int, path: str, reads: int) -> list[float]:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    seconds: list[float] = []
    for _ in range(reads):
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        seconds.append(time.perf_counter() - began)
        assert answer.status == 200
    return seconds


# --- waiting ----------------------------------------------------------------------------------------------------------


async def _poll(port: int, path: str, etag: str, started: asyncio.Semaphore) -> float:
    """Wait for the sweep to change; when (monotonic clock) the answer came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started.release()
    while True:
        headers = {"If-None-Match": etag, "Prefer": "wait=60"}
        status, _, _ = await ask(reader, writer, "GET", path, None, **headers)
        if status == 200:
            writer.close()
            return time.monotonic()


async def _wait_and_change(port: int, sweep_id: str, idle_seconds: float, database: Database) -> list[float]:
    """Seconds from the commit of a change by another process to each poller's answer."""
    path = f"/v1/sweeps/{sweep_id}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, _, fields = await ask(reader, writer, "GET", path)
    started = asyncio.Semaphore(0)
    pollers = [asyncio.create_task(_poll(port, path, fields["etag"], started)) for _ in range(POLLERS)]
    for _ in pollers:
        await started.acquire()
    await asyncio.sleep(idle_seconds)
    changed = await asyncio.to_thread(_change, database, sweep_id)
    return [at - changed for at in await asyncio.gather(*pollers)]


def _change(database: Database, sweep_id: str) -> float:
    from service.events import events

    database.write(
        lambda session: events.append(session, sweep_id, "sweep.target", data={"target": None, "waits_for": None})
    )
    return time.monotonic()


def measure_waiting(kind: str, seconds: float) -> list[dict[str, Any]]:
    """First the pollers alone, then beside 200 workers. The change is committed by another process than the service."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, database_urls(kind, Path(folder)) as (ours, _):
        database = _prepare(ours, close=False)
        idle = _generate(database, 100)
        with running_service(Path(folder), {"LAYERSWEEP_DATABASE_URL": ours}) as url:
            for workers in (0, 200):
                before = _usage(url)
                began = time.monotonic()
                going = Client(url).submit(DOCUMENT | {"budget": {"trials": 1_000_000, "parallel": 200}})
                driven: list[Any] = []
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    busy = pool.apply_async(_drive_alone, (url, workers, 2 * seconds)) if workers else None
                    waits = asyncio.run(_wait_and_change(_port(url), idle, seconds, database))
                    after, taken = _usage(url), time.monotonic() - began
                    driven = [] if busy is None else [busy.get(600)]
                going.cancel()
                row = {
                    "database": kind,
                    "pollers": POLLERS,
                    "workers": workers,
                    "cycles_per_s": driven[0]["cycles_per_s"] if driven else 0.0,
                    "notified_ms": quantiles(waits),
                    "notified_ms_most": round(1000 * max(waits), 1),
                    "service_memory_mib": round(after["memory_mib"], 1),
                    "service_cpu_share": round((after["cpu_seconds"] - before["cpu_seconds"]) / taken, 3),
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
        database.close()
    return rows


def _drive_alone(url: str, workers: int, seconds: float) -> dict[str, Any]:
    # A pool's process is a daemon and may have no children of its own: all workers share its loop.
    connection = Connection(url)
    names = [connection.post("/v1/workers", REGISTRATION)[1]["id"] for _ in range(workers)]

    async def all_of_them() -> int:
        until = time.monotonic() + seconds
        return sum(map(len, await asyncio.gather(*(_work(_port(url), name, until) for name in names))))

    return {"cycles_per_s": round(asyncio.run(all_of_them()) / seconds, 1)}


def _usage(url: str) -> dict[str, float]:
    """Memory and CPU time of the service's process, found by the port that its command names."""
    port = url.rsplit(":", 1)[1]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if b"serve" in command and port.encode() in command:
                pages = int((folder / "statm").read_text().split()[1])
                ticks = (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
                return {
                    "memory_mib": pages * resource.getpagesize() / 2**20,
                    "cpu_seconds": sum(map(int, ticks)) / 100,
                }
        except OSError:
            continue
    raise RuntimeError(f"no service listens on port {port}")


def _prepare(url: str, *, close: bool = True) -> Database:
    from service.datasets.builtins import register_builtins
    from service.settings import Settings

    database = Database(url)
    database.upgrade()
    register_builtins(database, Settings(database_url=url))
    if close:
        database.close()
    return database


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["workers", "reads", "waiting"])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parts: dict[str, Any] = {}
    for kind in options.databases:
        if "workers" in options.parts:
            parts[f"workers, {kind}"] = measure_workers(kind, options.seconds)
        if "reads" in options.parts:
            parts[f"reads, {kind}"] = measure_reads(kind, options.trials)
        if "waiting" in options.parts:
            parts[f"waiting, {kind}"] = measure_waiting(kind, options.seconds)
    command = "python -m benchmarks.performance.load " + " ".join(sys.argv[1:])
    result: dict[str, Any] = {"benchmark": "load", "machine": machine(), "parts": {}}
    if options.out and options.out.exists():
        result = json.loads(options.out.read_text()) | {"machine": machine()}
    result["parts"] |= {name: {"command": command, "rows": rows} for name, rows in parts.items()}
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["parts"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
