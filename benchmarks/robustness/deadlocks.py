"""Do two API processes on one PostgreSQL lock one another's rows? Counts deadlocks, and what several sweeps cost.

Two API processes, each with its scheduler, and eight workers that claim, report, renew and finish at once: on one sweep
and on four, in turn, so that both meet the same machine. Deadlocks are those that PostgreSQL counted in this database.
With `--against PATH`, the source tree there (with its own .venv) takes turns with this one, a fresh database each. The
last line is JSON; the exit status is 1 where this tree deadlocks, answers 5xx, or is slower with four sweeps than with
one.

    python -m benchmarks.robustness.deadlocks [--seconds 20] [--rounds 3] [--sweeps 1 4] [--against PATH] [--out
    FILE.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa

from benchmarks.performance.load import ask
from benchmarks.performance.scheduling import DOCUMENT, REGISTRATION, Connection, database_urls
from benchmarks.support.processes import ROOT, machine, serving
from benchmarks.support.report import write

API_PROCESSES = 2
WORKERS = 8
STATISTICS_SECONDS = 2.0
"""PostgreSQL's processes hand their counts over once a second at most."""


async def work(port: int, worker: str, until: float) -> Counter[str]:
    """Trials one after the other until the time (monotonic clock): how many ended, and the statuses of refusals."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seen: Counter[str] = Counter()

    async def sent(path: str, body: dict[str, Any], **headers: str) -> Any:
        status, text, _ = await ask(reader, writer, "POST", path, body, **headers)
        if status >= 400:
            seen[str(status)] += 1
        return json.loads(text) if status == 200 else None

    while time.monotonic() < until:
        lease = await sent("/v1/leases", {"worker": worker}, Prefer="wait=5")
        if lease is None:
            continue
        attempt = f"/v1/leases/{lease['trial']}/{lease['attempt']}"
        await sent(f"{attempt}:report", {"phase": "train", "losses": [{"step": 1, "training_loss": 1.0}]})
        await sent(f"{attempt}:heartbeat", {})
        finish = {"outcome": "complete", "metrics": {"validation_loss": lease["configuration"]["model"]["norm.eps"]}}
        while await sent(f"{attempt}:finish", finish) is None:
            pass
        seen["trials"] += 1
    writer.close()
    return seen


def measure(tree: Path, sweeps: int, seconds: float) -> dict[str, Any]:
    """One run of a source tree on a fresh database."""
    with (
        tempfile.TemporaryDirectory() as name,
        database_urls("postgresql", Path(name)) as (url, _),
        ExitStack() as stack,
    ):
        folder = Path(name)
        python = sys.executable if tree == ROOT else str(tree / ".venv" / "bin" / "python")
        settings = {"LAYERSWEEP_DATABASE_URL": url, "LAYERSWEEP_DATA_DIR": str(folder / "data")}
        subprocess.run(
            [python, "-m", "layersweep", "db", "upgrade"], cwd=tree, env=os.environ | settings, check=True, stdout=2
        )
        urls = [
            stack.enter_context(serving(folder / f"api-{number}.log", settings, tree=tree, python=python))
            for number in range(API_PROCESSES)
        ]
        ports = [int(each.rsplit(":", 1)[1]) for each in urls]
        connection = Connection(urls[0])
        workers = [connection.post("/v1/workers", REGISTRATION)[1]["id"] for _ in range(WORKERS)]
        for number in range(sweeps):
            document = DOCUMENT | {"name": f"sweep {number}", "budget": {"trials": 1_000_000, "parallel": WORKERS}}
            status, answer = Connection(urls[number % API_PROCESSES]).post("/v1/sweeps", document)
            assert status == 201, answer
            _await_trials(urls[0], answer["id"])
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        before = _deadlocks(engine)

        async def all_of_them() -> list[Counter[str]]:
            until = time.monotonic() + seconds
            shares = [work(ports[number % API_PROCESSES], worker, until) for number, worker in enumerate(workers)]
            return await asyncio.gather(*shares)

        seen = sum(asyncio.run(all_of_them()), Counter[str]())
        time.sleep(STATISTICS_SECONDS)
        deadlocks = _deadlocks(engine) - before
        engine.dispose()
    return {
        "sweeps": sweeps,
        "seconds": seconds,
        "trials_per_s": round(seen.pop("trials", 0) / seconds, 1),
        "deadlocks": deadlocks,
        "refusals": dict(seen),
    }


def _await_trials(url: str, sweep: str) -> None:
    """Wait until the sweep has trials: how long a service takes to begin is not the question here."""
    deadline = time.monotonic() + 120
    while httpx2.get(f"{url}/v1/sweeps/{sweep}", timeout=60).json()["progress"]["queued"] == 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"sweep {sweep} has no trials after two minutes")
        time.sleep(0.1)


def _deadlocks(engine: sa.Engine) -> int:
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


def summed(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of one tree and one number of sweeps as one row."""
    refusals = sum((Counter(each["refusals"]) for each in rounds), Counter[str]())
    rates = [each["trials_per_s"] for each in rounds]
    return {
        "sweeps": rounds[0]["sweeps"],
        "seconds": sum(each["seconds"] for each in rounds),
        "trials_per_s": round(sum(rates) / len(rates), 1),
        "of_each_round": rates,
        "deadlocks": sum(each["deadlocks"] for each in rounds),
        "refusals": dict(refusals),
    }


def faults(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What this tree's rows do not keep of what they should."""
    wrong = [f"{row['deadlocks']} deadlocks with {row['sweeps']} sweeps" for row in rows if row["deadlocks"]]
    for row in rows:
        failures = {status: count for status, count in row["refusals"].items() if status.startswith("5")}
        if failures:
            wrong.append(f"answers of 5xx with {row['sweeps']} sweeps: {failures}")
    alone = [row["trials_per_s"] for row in rows if row["sweeps"] == 1]
    several = [row["trials_per_s"] for row in rows if row["sweeps"] > 1]
    if alone and several and min(several) < max(alone):
        wrong.append(f"{min(several)} trials a second with several sweeps, {max(alone)} with one")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweeps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--against", type=Path, help="another source tree, with its .venv, to take turns with")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    trees = {"here": ROOT} | ({} if given.against is None else {"against": given.against.resolve()})
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(given.rounds):
        for sweeps in given.sweeps:
            for name, tree in trees.items():
                run = measure(tree, sweeps, given.seconds)
                runs.setdefault((name, sweeps), []).append(run)
                print(json.dumps({"tree": name} | run), flush=True)
    rows = {name: [summed(runs[name, sweeps]) for sweeps in given.sweeps] for name in trees}
    result = {
        "benchmark": "deadlocks",
        "command": "python -m benchmarks.robustness.deadlocks " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "rows": rows,
        "wrong": faults(rows["here"]),
    }
    write(result, given.out)
    print(json.dumps(result))
    return bool(result["wrong"])


if __name__ == "__main__":
    sys.exit(main())
