"""Do long steps of the scheduler stall a sweep, or the sweep beside it? Two API processes on one database, old and new.

`alone`: the grid over 10^6 points is posted: the seconds until a trial can be claimed, and until 50 were. It is then
worked until `--hold` seconds have passed since it was accepted, and its leader's epoch is read: 1 where nobody lost it.
`beside`: a small sweep is posted while another keeps the scheduler busy: the seconds until its first claim, and what
each of ten more waits, two seconds apart, so that twenty seconds of the other's steps are seen. The other is `grid`,
the grid above; `refused`, the same under a rule that keeps one point in 500, with 1,000 trials at once; `sampler`, a
Gaussian process that was told 999 trials and is asked for 50 more at once (`:extend`).

No model is built: a pretend worker claims over HTTP and finishes at once, with a loss that a formula makes of the
configuration. The small sweep has a target of its own, so that its worker gets no trial of the other. With
`--against PATH` the source tree there (with its own .venv) takes turns with this one, a fresh database each. A row is
bounded by `--within` seconds: null stands for what did not come by then. The last line is JSON; the exit status is 1
where this tree does not keep what `faults` says.

    python -m benchmarks.performance.long_steps [--databases sqlite postgresql] [--beside grid refused sampler]
    [--against PATH]
        [--leader-seconds 2] [--within 120] [--hold 20] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.performance.scheduling import REGISTRATION, Connection, database_urls
from benchmarks.support.processes import ROOT, machine, serving
from benchmarks.support.report import write

API_PROCESSES = 2
CLAIMS = 50
NEIGHBOUR_CLAIMS = 10
PAUSE_SECONDS = 2.0
"""Between two claims of the small sweep."""
SETTLE_SECONDS = 5.0
"""How long the other sweep is left alone, so that its step has begun, before the small one is posted."""
TOLD = 1000
"""Trials that the Gaussian process has seen, so that a suggestion takes seconds, and those of a grid that are asked for
at once, so that half of its points are looked at."""
EXTENSION = 50
"""Trials by which that sweep is extended then, which are asked for one after the other."""
BUSY_SECONDS = 2.0
"""A claim that waits longer counts as having waited for the step beside it. On SQLite one second may pass without any:
the process that leads looks that often for what ended in the other one."""

GRID: dict[str, Any] = {
    "name": "grid",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"min": 1, "max": 50},
        "hidden_size": {"min": 64, "max": 1280, "step": 64},
        "attention": {"num_attention_heads": {"values": [1, 2, 4, 8]}},
        "mlp": {"kind": {"values": ["MLP", "GatedMLP"]}},
    },
    "training": {
        "learning_rate": {"values": [round(1e-4 * 1.2**n, 7) for n in range(25)]},
        "batch_size": {"values": [1, 2, 4, 8, 16]},
        "steps": 10,
    },
    "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
    "budget": {"trials": 20_000, "parallel": 2},
    "search": {"sampler": "grid", "seed": 0, "reuse": False},
    "target": {"runtime": "onnxruntime"},
    "allow_sparse": True,
}
KEPT = (
    "attention.num_attention_heads == 8 and mlp.kind == 'MLP' and training.batch_size == 16 "
    "and training.learning_rate > 0.006"
)
"""Keeps one in 500 of the grid's points."""
SAMPLER: dict[str, Any] = GRID | {
    "name": "sampler",
    "training": {
        "learning_rate": {"min": 1e-5, "max": 1e-1, "log": True},
        "weight_decay": {"min": 0.0, "max": 0.5},
        "dropout": {"min": 0.0, "max": 0.5},
        "steps": 10,
    },
    "budget": {"trials": TOLD, "parallel": TOLD},
    "search": {"sampler": "gp", "seed": 0, "reuse": False},
}
OTHERS: dict[str, dict[str, Any]] = {
    "grid": GRID,
    "refused": GRID | {"name": "refused", "rules": [KEPT], "budget": {"trials": TOLD, "parallel": TOLD}},
    "sampler": SAMPLER,
}
NEIGHBOUR: dict[str, Any] = SAMPLER | {
    "name": "neighbour",
    "budget": {"trials": 100, "parallel": 1},
    "search": {"sampler": "random", "seed": 0, "reuse": False},
    "target": {"runtime": "tensorrt"},
}
NEIGHBOURS_WORKER: dict[str, Any] = REGISTRATION | {
    "name": "neighbour",
    "targets": [REGISTRATION["targets"][0] | {"runtime": "tensorrt", "version": "10.9"}],
}


@dataclass(frozen=True)
class Claim:
    """When a trial was first asked for, and when it came (monotonic clock)."""

    asked: float
    came: float


@dataclass(frozen=True)
class Site:
    """The API processes of one source tree on a database, which is looked into beside them."""

    engine: sa.Engine
    url: str

    def register(self, registration: Mapping[str, Any]) -> str:
        return str(self._made("/v1/workers", dict(registration)))

    def submit(self, document: Mapping[str, Any]) -> str:
        return str(self._made("/v1/sweeps", dict(document)))

    def extend(self, sweep: str, trials: int) -> None:
        status, answer = Connection(self.url).post(f"/v1/sweeps/{sweep}:extend", {"trials": trials})
        assert status == 200, answer

    def claims(self, worker: str, count: int, until: float, pause: float = 0.0) -> list[Claim]:
        """Claim and finish so many trials, with pauses between, until a time (monotonic clock) at most."""
        api, claims = Connection(self.url), list[Claim]()
        asked = time.monotonic()
        while len(claims) < count and (left := until - time.monotonic()) > 0:
            wait = f"wait={max(1, min(5, int(left)))}"
            status, lease = api.post("/v1/leases", {"worker": worker}, Prefer=wait)
            if status != 200:
                continue
            claims.append(Claim(asked, time.monotonic()))
            loss = sum(lease["configuration"]["training"][name] for name in ("learning_rate", "weight_decay"))
            loss += 10 / lease["configuration"]["model"]["hidden_size"]
            finish = {"outcome": "complete", "metrics": {"validation_loss": loss}}
            status, answer = api.post(f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish", finish)
            assert status == 200, answer
            time.sleep(pause)
            asked = time.monotonic()
        return claims

    def epoch(self, sweep: str) -> int:
        return int(self._value("SELECT leader_epoch FROM sweeps WHERE id = :sweep", sweep))

    def is_worked_in(self, sweep: str) -> bool:
        """Whether its scheduler knows of all that happened."""
        return bool(self._value("SELECT scheduled_sequence >= event_counter FROM sweeps WHERE id = :sweep", sweep))

    def looked_at(self, sweep: str) -> int:
        """Points that were refused or asked for and stored: how far its scheduler got."""
        query = (
            "SELECT rejected_count + (SELECT count(*) FROM asks WHERE sweep_id = :sweep) FROM sweeps WHERE id = :sweep"
        )
        return int(self._value(query, sweep))

    def _made(self, path: str, body: dict[str, Any]) -> Any:
        status, answer = Connection(self.url).post(path, body)
        assert status == 201, answer
        return answer["id"]

    def _value(self, query: str, sweep: str) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(sa.text(query), {"sweep": sweep}).scalar_one()


@contextmanager
def site(tree: Path, kind: str, leader_seconds: float) -> Generator[Site]:
    """Two API processes of a tree on a fresh database of a kind, with leases of sweeps of so many seconds."""
    with tempfile.TemporaryDirectory() as name, database_urls(kind, Path(name)) as (url, _), ExitStack() as stack:
        folder = Path(name)
        python = sys.executable if tree == ROOT else str(tree / ".venv" / "bin" / "python")
        settings = {
            "LAYERSWEEP_DATABASE_URL": url,
            "LAYERSWEEP_DATA_DIR": str(folder / "data"),
            "LAYERSWEEP_LEADER_SECONDS": str(leader_seconds),
            # The cores are shared by what is measured: a sampler's algebra is not to take all of them.
            "OMP_NUM_THREADS": "1",
        }
        command = [python, "-m", "layersweep", "db", "upgrade"]
        subprocess.run(command, cwd=tree, env=os.environ | settings, check=True, stdout=2)
        urls = [
            stack.enter_context(serving(folder / f"api-{number}.log", settings, tree=tree, python=python))
            for number in range(API_PROCESSES)
        ]
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)
        yield Site(engine, urls[0])


def measure_alone(tree: Path, kind: str, leader_seconds: float, within: float, hold: float) -> dict[str, Any]:
    """The grid by itself: its first claims, and its leader's epoch after a while."""
    with site(tree, kind, leader_seconds) as at:
        worker = at.register(REGISTRATION)
        sweep = at.submit(GRID)
        accepted = time.monotonic()
        claims = at.claims(worker, CLAIMS, accepted + within)
        claims += at.claims(worker, GRID["budget"]["trials"], accepted + hold)
        return {
            "database": kind,
            "first_claim_s": _after(claims, 1, accepted),
            f"claims_{CLAIMS}_s": _after(claims, CLAIMS, accepted),
            "claims": len(claims),
            "seconds": round(time.monotonic() - accepted, 1),
            "epoch": at.epoch(sweep),
        }


def measure_beside(tree: Path, kind: str, leader_seconds: float, within: float, beside: str) -> dict[str, Any]:
    """A small sweep while another is stepped: what its claims wait, and what the other did meanwhile."""
    with site(tree, kind, leader_seconds) as at:
        worker, neighbours = at.register(REGISTRATION), at.register(NEIGHBOURS_WORKER)
        other = at.submit(OTHERS[beside])
        if beside == "sampler":
            # The last one stays: the sweep does not end, and is not led anew.
            at.claims(worker, TOLD - 1, time.monotonic() + 600)
            while not at.is_worked_in(other):
                time.sleep(0.2)
            at.extend(other, EXTENSION)
        time.sleep(SETTLE_SECONDS)
        before, epoch = at.looked_at(other), at.epoch(other)
        sent = time.monotonic()
        sweep = at.submit(NEIGHBOUR)
        accepted = time.monotonic()
        first = at.claims(neighbours, 1, accepted + within)
        further = at.claims(neighbours, NEIGHBOUR_CLAIMS, accepted + within, PAUSE_SECONDS) if first else []
        waits = [claim.came - claim.asked for claim in further]
        return {
            "database": kind,
            "beside": beside,
            "accepted_s": round(accepted - sent, 2),
            "first_claim_s": _after(first, 1, accepted),
            "further_claims": len(waits),
            "further_claim_s_p50": round(statistics.median(waits), 3) if waits else None,
            "further_claim_s_most": round(max(waits), 3) if waits else None,
            "seconds": round(time.monotonic() - accepted, 1),
            "epoch": at.epoch(sweep),
            "other": {"epoch_before": epoch, "epoch": at.epoch(other), "looked_at": at.looked_at(other) - before},
        }


def _after(claims: Sequence[Claim], count: int, since: float) -> float | None:
    return round(claims[count - 1].came - since, 2) if len(claims) >= count else None


def faults(alone: Sequence[dict[str, Any]], beside: Sequence[dict[str, Any]]) -> list[str]:
    """What this tree's rows do not keep of what they should."""
    wrong: list[str] = []
    for row in alone:
        if row[f"claims_{CLAIMS}_s"] is None:
            wrong.append(f"{row['database']}: {row['claims']} claims of the grid within {row['seconds']} s")
        if row["epoch"] != 1:
            wrong.append(f"{row['database']}: the grid's epoch is {row['epoch']}, though nothing died")
    for row in beside:
        where = f"{row['database']} beside {row['beside']}"
        if row["first_claim_s"] is None or row["further_claims"] < NEIGHBOUR_CLAIMS:
            wrong.append(f"{where}: not every claim came")
        elif max(row["first_claim_s"], row["further_claim_s_most"]) > BUSY_SECONDS:
            wrong.append(f"{where}: a claim waited longer than {BUSY_SECONDS} s")
        if row["epoch"] != 1 or row["other"]["epoch"] != 1:
            wrong.append(f"{where}: the epochs are {row['epoch']} and {row['other']['epoch']}, though nothing died")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--beside", nargs="*", choices=list(OTHERS), default=list(OTHERS))
    parser.add_argument("--against", type=Path, help="another source tree, with its .venv, to take turns with")
    parser.add_argument("--leader-seconds", type=float, default=2, help="how long a lease of a sweep lasts")
    parser.add_argument("--within", type=float, default=120, help="seconds that claims are waited for")
    parser.add_argument("--hold", type=float, default=20, help="seconds that the grid is worked at least")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    trees = ({} if given.against is None else {"against": given.against.resolve()}) | {"here": ROOT}
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {name: {"alone": [], "beside": []} for name in trees}
    for kind in given.databases:
        for name, tree in trees.items():
            rows[name]["alone"].append(measure_alone(tree, kind, given.leader_seconds, given.within, given.hold))
            print(json.dumps({"tree": name} | rows[name]["alone"][-1]), flush=True)
        for beside in given.beside:
            for name, tree in trees.items():
                rows[name]["beside"].append(measure_beside(tree, kind, given.leader_seconds, given.within, beside))
                print(json.dumps({"tree": name} | rows[name]["beside"][-1]), flush=True)
    result = {
        "benchmark": "long_steps",
        "command": "python -m benchmarks.performance.long_steps " + " ".join(_named(sys.argv[1:], given.against)),
        "machine": machine(),
        "commits": {name: _commit(tree) for name, tree in trees.items()},
        "rows": rows,
        "wrong": faults(rows["here"]["alone"], rows["here"]["beside"]),
    }
    write(result, given.out)
    print(json.dumps(result))
    return bool(result["wrong"])


def _named(arguments: Sequence[str], against: Path | None) -> list[str]:
    """The arguments with PATH for where the other tree lies, which is nobody else's."""
    return ["PATH" if against is not None and Path(each) == against else each for each in arguments]


def _commit(tree: Path) -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=tree, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
