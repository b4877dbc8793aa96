"""Does the service ever answer what its description does not say? `make fuzz` asks, on SQLite and on PostgreSQL.

A service of its own, filled with sweeps, trials, leases and datasets, is sent thousands of requests that Schemathesis
draws from `/openapi.json`: valid and invalid, with a token and without, all of its checks on. It is sent what no client
library sends, too: hostile heads, hosts, origins and next-links (`benchmarks.robustness.hostile_requests`). The
requests are a function of `--seed`. The last line is JSON; the exit status is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.robustness import hostile_requests
from benchmarks.robustness.chaos import DOCUMENT as PROBE
from benchmarks.robustness.chaos import Postgres
from benchmarks.support.generated_sweep import generate
from benchmarks.support.processes import machine, running_service
from benchmarks.support.report import write
from service.app import prepare
from service.auth import tokens
from service.database.models import Sweep, Trial, Worker
from service.database.sessions import Database
from service.settings import Settings

SETTINGS = {
    # What follows would answer most of the requests instead of the service: they have tests of their own.
    "LAYERSWEEP_REQUESTS_PER_SECOND": "1000000",
    "LAYERSWEEP_WRONG_TOKENS_PER_MINUTE": "1000000",
    "LAYERSWEEP_MAX_WAIT_SECONDS": "0.02",
    "LAYERSWEEP_LEASE_SECONDS": "3600",
    # Webhooks lead to this machine alone, where nobody listens.
    "LAYERSWEEP_WEBHOOK_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
    "LAYERSWEEP_WEBHOOK_TRIES": "1",
    "LAYERSWEEP_WEBHOOK_SECONDS": "1",
}

CAPABILITIES: dict[str, Any] = {
    "runtime": "onnxruntime",
    "version": "1.32.0",
    "device_model": "a CPU",
    "opset": 23,
    "dtypes": ["float32"],
    "device_memory_bytes": 2**33,
}
KEPT, DOOMED, LEASES = 2, 40, 40

HOSTILE_A_CASE = 20
"""Hostile requests for each of the cases that are drawn for an operation."""

ENDING = (":cancel", ":finish", ":release", ":extend", ":resume")
"""Actions after which what they were done to is not what it was."""

EVENTS = "/events"
"""The stream of a sweep that goes on ends only with the request's time-out, where nothing happens to it."""

UPLOADS = "/v1/uploads"
"""The one operation with a header that must be there: Schemathesis sends another beside it and wants that refused."""

CONFIGURATION = """
request-timeout = 120
max-stream-events = 3
warnings = false

[generation]
database = "none"
allow-x00 = true

[phases.stateful]
enabled = true

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]

# 422 is also for what no schema says: a page_token of another list, an Idempotency-Key that another request had,
# characters that no database stores, a document that means nothing.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 422]
"""


class World:
    """What the requests may hit: ids by the name of the parameter that takes them."""

    def __init__(self, database: Database, generated: Sequence[str], url: str, token: str) -> None:
        self._database = database
        self._generated = generated
        self._client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.kept: dict[str, list[str]] = {}
        self.doomed: dict[str, list[str]] = {}

    def fill(self) -> None:
        """Make sweeps that ended, sweeps that go on with leases, datasets, tokens and projects."""
        leases = self._leases()
        ended = self._generated
        doomed = [self._ended_sweep() for _ in range(DOOMED)]
        trials = self._database.read(lambda session: session.scalars(sa.select(Trial.id).limit(10)).all())
        text = {name: self._upload(name) for name in ["letters", *(f"doomed-{number}" for number in range(8))]}
        self.kept = {
            "sweep": [*ended, *{lease["sweep"] for lease in leases}],
            "ended-sweep": [*ended],
            "trial": [*trials, *(lease["trial"] for lease in leases[:5])],
            "dataset": ["python-topics", "letters", text["letters"]],
            "token": ["0" * 26],
            "project": ["default"],
            "name": ["weights.safetensors", "model.onnx"],
            "webhook": [self._webhook() for _ in range(2)],
            "lease": [lease["trial"] for lease in leases[:5]],
        }
        self.doomed = {
            "sweep": doomed,
            "trial": [lease["trial"] for lease in leases[5:]],
            "dataset": list(text.values())[1:],
            "webhook": [self._webhook() for _ in range(8)],
            "token": [self._post("/v1/tokens", name="doomed", scopes=["read"])["id"] for _ in range(8)],
            "project": [self._post("/v1/projects", name=f"doomed-{number}")["name"] for number in range(8)],
        }

    def _leases(self) -> list[dict[str, Any]]:
        device = {"kind": "cpu", "uuid": "cpu-1", "model": "a CPU", "memory_bytes": 2**33}
        worker = self._post("/v1/workers", name="fuzz", device=device, targets=[CAPABILITIES], slots=LEASES)["id"]
        self._post("/v1/sweeps", **PROBE | {"budget": {"trials": 1000, "parallel": LEASES}})
        deadline = time.monotonic() + 120
        leases: list[dict[str, Any]] = []
        while len(leases) < LEASES:
            answer = self._client.post("/v1/leases", json={"worker": worker})
            if answer.status_code == 200:
                leases.append(answer.json())
            elif time.monotonic() > deadline:
                raise RuntimeError(f"only {len(leases)} trials could be claimed")
        return leases

    def _ended_sweep(self) -> str:
        sweep = str(self._post("/v1/sweeps", **PROBE | {"budget": {"trials": 10}})["id"])
        self._post(f"/v1/sweeps/{sweep}:cancel")
        return sweep

    def _webhook(self) -> str:
        return str(self._post("/v1/webhooks", url="http://127.0.0.1:9/")["id"])

    def _upload(self, name: str) -> str:
        content = f"{name} ".encode() * 400
        answer = self._client.post("/v1/datasets", data={"name": name}, files={"file": (name, content)})
        answer.raise_for_status()
        return str(answer.json()["id"])

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._client.post(path, json=body)
        if answer.is_error:
            raise RuntimeError(f"POST {path} was refused: {answer.text}")
        return answer.json()


def configuration(document: Mapping[str, Any], world: World) -> str:
    """Schemathesis's configuration: where ids come from, and which operations may refuse what their schema allows."""
    lines = [CONFIGURATION]
    pools = {f"kept-{name}": ids for name, ids in world.kept.items()} | {
        f"doomed-{name}": ids for name, ids in world.doomed.items()
    }
    for name, ids in pools.items():
        lines.append(f"[dictionaries.{name}]\nvalues = {json.dumps(ids)}\n")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ends = method == "delete" or path.endswith(ENDING)
            given = [
                f'parameters."path.{parameter["name"]}" = {{dictionary = "{pool}", probability = 0.8}}'
                for parameter in operation.get("parameters", [])
                if parameter["in"] == "path" and (pool := _pool(parameter["name"], path, pools, ends=ends))
            ]
            uploads = method == "patch" and path.startswith(UPLOADS)
            if given or uploads:
                lines += ["[[operations]]", f"include-operation-id = {json.dumps(operation['operationId'])}", *given]
                if uploads:
                    lines.append('checks.negative_data_rejection.expected-statuses = ["2xx", "4xx"]')
                if path.endswith((EVENTS, "/tokens/{token}")):
                    # Sweeps that such a walk posts go on, and among the tokens that it lists is its own.
                    lines.append("phases.stateful.enabled = false")
    return "\n".join(lines)


def _pool(parameter: str, path: str, pools: Mapping[str, Sequence[str]], *, ends: bool) -> str | None:
    noun = "sweep" if parameter == "sweep_id" else parameter
    if path.endswith(EVENTS):
        noun = f"ended-{noun}"
    if path.startswith("/v1/leases") and noun == "trial":
        return "doomed-trial" if ends else "kept-lease"
    name = f"{'doomed' if ends else 'kept'}-{noun}"
    return name if name in pools else None


def _end_for_good(session: Session, sweeps: Sequence[str]) -> None:
    """Let no request extend these: their events would be waited for, which ends with a request's time-out alone."""
    for sweep in session.scalars(sa.select(Sweep).where(Sweep.id.in_(sweeps))):
        sweep.started_at, sweep.budget = 1.0, {**sweep.budget, "wall_seconds": 1.0}


@contextmanager
def _served(kind: str, folder: Path) -> Iterator[tuple[Database, list[str], str]]:
    postgres = Postgres(folder) if kind == "postgresql" else None
    url = (
        f"sqlite:///{folder / 'layersweep.db'}"
        if postgres is None
        else postgres.url.render_as_string(hide_password=False)
    )
    database = Database(url)
    database.upgrade()
    try:
        prepare(database, Settings(data_dir=folder / "data", database_url=url))
        # Before there is a scheduler, which would lead them.
        ended = [generate(database, 60, seed=seed) for seed in range(KEPT)]
        silent = sa.update(Worker).values(last_seen_at=1.0)
        database.write(lambda session: session.execute(silent).rowcount)
        database.write(lambda session: _end_for_good(session, ended))
        with running_service(folder, SETTINGS | {"LAYERSWEEP_DATABASE_URL": url}) as served:
            yield database, ended, served
    finally:
        database.close()
        if postgres is not None:
            postgres.stop()


def run(kind: str, *, cases: int, seed: int) -> list[dict[str, Any]]:
    """Fuzz a service on one kind of database, with a token and without; answers what was sent and what failed."""
    with tempfile.TemporaryDirectory(prefix="layersweep-fuzz-") as name, ExitStack() as stack:
        folder = Path(name)
        database, ended, url = stack.enter_context(_served(kind, folder))
        new = tokens.NewToken("fuzz", ("admin", "work"), None, None)
        secret = database.write(lambda session: tokens.create(session, new, made_by="fuzz")[1])
        world = World(database, ended, url, secret)
        world.fill()
        bearer = {"Authorization": f"Bearer {secret}"}
        document = httpx2.get(f"{url}/openapi.json", headers=bearer).json()
        (folder / "openapi.json").write_text(json.dumps(document))
        (folder / "schemathesis.toml").write_text(configuration(document, world))
        reports: list[dict[str, Any]] = []
        for caller, headers in (("with a token", bearer), ("without a token", {})):
            print(f"{kind}: requests {caller}", file=sys.stderr, flush=True)
            reports.append({"database": kind, "caller": caller, **_fuzz(url, folder, headers, cases=cases, seed=seed)})
            print(f"{kind}: {reports[-1]['cases']} cases in {reports[-1]['seconds']} s", file=sys.stderr, flush=True)
        for caller, given in (("hostile, with a token", secret), ("hostile, without a token", None)):
            print(f"{kind}: {caller}", file=sys.stderr, flush=True)
            found = _hostile(url, bearer, hostile_requests.draw(seed, cases * HOSTILE_A_CASE, given))
            reports.append({"database": kind, "caller": caller, **found})
        errors = _errors((folder / "service.log").read_text())
        if errors:
            reports[-1]["failures"] += [f"the service logged: {error}" for error in errors]
        return reports


def _fuzz(url: str, folder: Path, headers: Mapping[str, str], *, cases: int, seed: int) -> dict[str, Any]:
    started, path = time.monotonic(), folder / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
    command += [str(folder / "openapi.json"), "--url", url, "--checks", "all", "--max-examples", str(cases)]
    # How long an answer takes is measured elsewhere, on a machine that does nothing else.
    command += ["--max-response-time", "120"]
    command += ["--seed", str(seed), "--continue-on-failure", "--no-color", "--report-json-path", str(path)]
    for header, value in headers.items():
        command += ["--header", f"{header}: {value}"]
    ran = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        print(ran.stdout + ran.stderr, flush=True)
    if not path.exists():
        raise RuntimeError(f"Schemathesis did not run: {ran.stdout}{ran.stderr}")
    report = json.loads(path.read_text())
    path.unlink()
    found = [f"{each['title']}: {each['count']}" for each in (*report["failures"], *report["errors"])]
    return {
        "operations": report["operations"]["tested"],
        "cases": report["test_cases"]["generated"],
        "seconds": round(time.monotonic() - started),
        "failures": found or ([f"Schemathesis ended with {ran.returncode}"] if ran.returncode else []),
    }


def _hostile(url: str, bearer: Mapping[str, str], cases: Iterator[hostile_requests.Hostile]) -> dict[str, Any]:
    before = _resident_bytes(url, bearer)
    found = hostile_requests.send(url, cases)
    grown = _resident_bytes(url, bearer) - before
    if grown > hostile_requests.MOST_GROWTH_BYTES:
        found["failures"].append(f"the service's memory grew by {grown >> 20} MiB")
    return {**found, "grown_mib": max(0, grown) >> 20}


def _resident_bytes(url: str, bearer: Mapping[str, str]) -> int:
    answer = httpx2.get(f"{url}/metrics", headers=dict(bearer), timeout=60)
    found = re.search(r"^process_resident_memory_bytes (\S+)", answer.text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/metrics answered {answer.status_code}: {answer.text[:500]}")
    return int(float(found[1]))


def _environment() -> dict[str, str]:
    # Nothing of a proxy between here and the service.
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def _errors(log: str) -> list[str]:
    """What the service logged as an error, which no answer may hide: the last line of each traceback."""
    return sorted({line for line in log.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--cases", type=int, default=25, help="most that are drawn for an operation, beside the edges")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-least", type=int, default=10_000, help="fewer cases in all are a failure of the run")
    parser.add_argument("--out", type=Path, help="write the report to this file too")
    given = parser.parse_args()
    runs = [report for kind in given.databases for report in run(kind, cases=given.cases, seed=given.seed)]
    total = sum(each["cases"] for each in runs)
    report = {
        "machine": machine(),
        "command": " ".join(["python -m benchmarks.robustness.fuzz", *sys.argv[1:]]),
        "schemathesis": version("schemathesis"),
        "cases": total,
        "runs": runs,
    }
    write(report, given.out)
    print(json.dumps(report))
    if total < given.at_least:
        print(f"only {total} cases: more --cases are needed for {given.at_least}", file=sys.stderr)
    raise SystemExit(total < given.at_least or any(each["failures"] for each in runs))


if __name__ == "__main__":
    main()
