"""What scheduling costs with the default sampler and two objectives: this tree, an older one, and Optuna's RDBStorage.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.default_sampler --old TREE [--told 100 1000 5000] [--seconds 10]
        [--workers 8] [--databases sqlite postgresql] [--out benchmarks/results/default_sampler.json]
    OMP_NUM_THREADS=1 python -m benchmarks.performance.default_sampler --alone surrogate tpe nsga2 [--told 100 1000]

TREE is a checkout of the older version with a .venv of its own. The workers, the five parameters and the way to so many
trials told are those of `benchmarks.performance.scheduling`, which measures one objective; the sampler is then changed
to what `auto` is for the document there. RDBStorage has Optuna's TPE, multivariate and in groups. All in turn on the
same machine, each on a database of its own. Beside rates, which others that use the machine lower, stands the processor
time of a trial that the service takes with its samplers. Results of other databases and numbers told that the file has
are kept.

--alone names samplers of which the processor time of an ask and a tell is taken, without a service: with so many random
points told and so many trials that run as there are workers. What `auto` was before the surrogate: tpe, and nsga2 for
more than 2,000 trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
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
from layers.dataset_facts import DatasetDescription
from layers.metrics import Goal
from layers.parameter import Scalar
from layers.space.document import parse_document
from service.common.states import TrialState
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.studies import TrialResult
from service.sweeps.sampling import population_size

OBJECTIVES = [{"metric": "latency_ms_p50", "goal": "minimize"}, {"metric": "validation_loss", "goal": "minimize"}]
TRIALS = 2_000
"""The budget for which the default is asked, or what is told where that is more: a million trials have another."""
ASKS_ALONE = 200
DATASET: DatasetDescription = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}
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
            # The workers are others of this process's children.
            samplers = descendants(os.getpid())
            found = drive(url, workers, seconds, cpu_seconds=lambda: sum(map(processor_seconds, samplers)))
            return {"sampler": default, **found}


def descendants(of: int) -> list[int]:
    """All processes that a process has started, directly or not, and that live."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_stat_fields(stat)[1]), []).append(int(stat.parent.name))
    found = [of]
    for process in found:
        found += children.get(process, [])
    return found[1:]


def processor_seconds(process: int) -> float:
    """The processor time of a process until now; 0 of one that has ended."""
    with suppress(OSError):
        fields = _stat_fields(Path(f"/proc/{process}/stat"))
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _stat_fields(stat: Path) -> list[str]:
    """What follows a process's name in its line."""
    return stat.read_text().rpartition(")")[2].split()


def alone(sampler: str, told: int, waiting: int) -> dict[str, Any]:
    """What a sampler takes for an ask and a tell in this process."""
    space = parse_document(DOCUMENT | {"objectives": OBJECTIVES}, find_dataset=lambda _: DATASET).space
    goals: list[Goal] = ["minimize" for _ in OBJECTIVES]
    population = population_size(max(told, TRIALS))
    drawn = OptunaStudy(space, goals, sampler="random", seed=1, population=population)
    study = OptunaStudy(space, goals, sampler=sampler, seed=0, population=population)
    running: list[tuple[int, TrialResult]] = []

    def ask(chosen: Mapping[str, Scalar] | None = None) -> None:
        suggestion = study.ask(chosen)
        found = suggestion.chosen
        costs = float(found["num_layers"]) + float(found["hidden_size"]), float(found["norm.eps"])
        running.append((suggestion.ask, TrialResult(TrialState.COMPLETE, costs)))

    for number in range(told + waiting):
        ask(drawn.ask().chosen)
        if number < told:
            study.tell(*running.pop(0))
    began = 0.0
    for number in range(WARM_TRIALS + ASKS_ALONE):
        if number == WARM_TRIALS:
            began = time.process_time()
        ask()
        study.tell(*running.pop(0))
    milliseconds = 1000 * (time.process_time() - began) / ASKS_ALONE
    return {"sampler": sampler, "told": told, "waiting": waiting, "cpu_ms": round(milliseconds, 2)}


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
    arguments.add_argument("--old", type=Path)
    arguments.add_argument("--alone", nargs="+", default=[], metavar="SAMPLER")
    arguments.add_argument("--told", type=int, nargs="+", default=[100, 1000, 5000])
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--workers", type=int, default=8)
    arguments.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows: list[dict[str, Any]] = []
    samplers_alone = [alone(sampler, told, options.workers) for told in options.told for sampler in options.alone]
    print(*samplers_alone, sep="\n", flush=True)
    for kind in options.databases if options.old else ():
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
    known: dict[str, Any] = {"rows": [], "old": None, "alone": []}
    if options.out and options.out.exists():
        known |= json.loads(options.out.read_text())
    if options.old:
        command = ["git", "rev-parse", "--short", "HEAD"]
        known["old"] = subprocess.run(command, cwd=options.old, capture_output=True, text=True).stdout.strip()
    report = {
        "benchmark": "default_sampler",
        "command": "python -m benchmarks.performance.default_sampler "
        + " ".join(sys.argv[1:]).replace(str(options.old), "TREE"),
        "machine": machine(),
        "old": known["old"],
        "rows": [row for row in known["rows"] if (row["database"], row["told"]) not in new] + rows,
        "alone": samplers_alone or known["alone"],
    }
    write(report, options.out)
    print(json.dumps({"times_old": [row["times_old"] for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
