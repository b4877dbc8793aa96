"""What scheduling costs with the default sampler and two objectives: this tree, an older one, and Optuna's RDBStorage.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.default_sampler --old TREE [--told 100 1000 5000] [--seconds 10]
        [--workers 8] [--databases sqlite postgresql] [--out benchmarks/results/default_sampler.json]

TREE is a checkout of the older version with a .venv of its own. The workers, the five parameters and the way to so many
trials told are those of `benchmarks.performance.scheduling`, which measures one objective; the sampler is then changed
to what `auto` is for the document there. RDBStorage has Optuna's TPE, multivariate and in groups. All in turn on the
same machine, each on a database of its own. Beside rates, which others that use the machine lower, stands the processor
time of a trial that the service takes with its samplers. Results of other databases and numbers told that the file has
are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import optuna
import sqlalchemy as sa

from benchmarks.performance import rdbstorage
from benchmarks.performance.scheduling import DOCUMENT, database_urls, drive
from benchmarks.support.processes import ROOT, machine, serving
from benchmarks.support.report import write

OBJECTIVES = [{"metric": "latency_ms_p50", "goal": "minimize"}, {"metric": "validation_loss", "goal": "minimize"}]
TRIALS = 2_000
"""The budget for which the default is asked, or what is told where that is more: a million trials have another."""
WARM_TRIALS = 40
"""Trials before the clock starts: the study is rebuilt, and a sampler goes to a process of its own."""


@contextmanager
def service(tree: Path, url: str, folder: Path) -> Generator[str]:
    """The tree's service on the database."""
    environment = {"LAYERSWEEP_DATABASE_URL": url, "LAYERSWEEP_DATA_DIR": str(folder / "data")}
    python = str(tree / ".venv" / "bin" / "python") if tree != ROOT else sys.executable
    subprocess.run(
        [python, "-m", "layersweep", "db", "upgrade"],
        cwd=tree,
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    with serving(folder / "service.log", environment, tree=tree, python=python) as address:
        yield address


def measure(tree: Path, kind: str, told: int, workers: int, seconds: float) -> dict[str, Any]:
    """One tree's rate with its default sampler."""
    document = DOCUMENT | {"objectives": OBJECTIVES, "budget": DOCUMENT["budget"] | {"parallel": workers}}
    search = {"seed": 0, "reuse": False}
    with tempfile.TemporaryDirectory() as name, database_urls(kind, Path(name)) as (ours, _):
        folder = Path(name)
        with service(tree, ours, folder) as url:
            sweep = posted(url, document | {"search": search | {"sampler": "random"}})
            shorter = document | {"search": search, "budget": {"trials": max(told, TRIALS), "parallel": workers}}
            default = posted(url, shorter, validate_only=True)["sampler"]
            drive(url, 4, 600, limit=told // 4)
        engine = sa.create_engine(ours)
        with engine.begin() as connection:
            change = sa.text("UPDATE sweeps SET sampler = :sampler WHERE id = :id")
            connection.execute(change, {"sampler": default, "id": sweep["id"]})
        engine.dispose()
        with service(tree, ours, folder) as url:
            drive(url, 1, 600, limit=WARM_TRIALS)
            before = descendants_seconds()
            found = drive(url, workers, seconds)
            taken = descendants_seconds() - before
            return {"sampler": default, "cpu_ms_a_trial": round(1000 * taken / found["trials"], 1), **found}


def descendants_seconds() -> float:
    """The processor time of all processes that this one has started, directly or not, and that still live."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            seconds[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found, pending = 0.0, [os.getpid()]
    while pending:
        children = [pid for pid, parent in parents.items() if parent == pending[-1]]
        pending[-1:] = children
        found += sum(seconds[pid] for pid in children)
    return found


def posted(url: str, document: dict[str, Any], *, validate_only: bool = False) -> dict[str, Any]:
    """The service's answer to a document."""
    answer = httpx2.post(f"{url}/v1/sweeps", params={"validate_only": validate_only}, json=document, timeout=60)
    answer.raise_for_status()
    return answer.json()


def of_rdbstorage(kind: str, told: int, workers: int, seconds: float) -> dict[str, float]:
    """Optuna's rate."""
    with tempfile.TemporaryDirectory() as folder, database_urls(kind, Path(folder)) as (_, theirs):
        rdbstorage.fill(theirs, told, objectives=len(OBJECTIVES))
        return rdbstorage.drive(theirs, "tpe", workers, seconds)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--old", type=Path, required=True)
    arguments.add_argument("--told", type=int, nargs="+", default=[100, 1000, 5000])
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--workers", type=int, default=8)
    arguments.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[dict[str, Any]] = []
    for kind in options.databases:
        for told in options.told:
            row: dict[str, Any] = {"database": kind, "told": told, "workers": options.workers}
            for name, tree in (("old", options.old.resolve()), ("new", ROOT)):
                row[name] = measure(tree, kind, told, options.workers, options.seconds)
            row["rdbstorage"] = of_rdbstorage(kind, told, options.workers, options.seconds)
            row["times_old"] = round(row["new"]["trials_per_s"] / row["old"]["trials_per_s"], 1)
            row["times_old_by_cpu"] = round(row["old"]["cpu_ms_a_trial"] / row["new"]["cpu_ms_a_trial"], 1)
            rows.append(row)
            print(json.dumps(row), flush=True)
    new = {(row["database"], row["told"]) for row in rows}
    known = json.loads(options.out.read_text())["rows"] if options.out and options.out.exists() else []
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=options.old, capture_output=True, text=True)
    report = {
        "benchmark": "default_sampler",
        "command": "python -m benchmarks.performance.default_sampler "
        + " ".join(sys.argv[1:]).replace(str(options.old), "TREE"),
        "machine": machine(),
        "old": revision.stdout.strip(),
        "rows": [row for row in known if (row["database"], row["told"]) not in new] + rows,
    }
    write(report, options.out)
    print(json.dumps({"times_old": [row["times_old"] for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
