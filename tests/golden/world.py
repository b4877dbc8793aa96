"""A service with something of everything in it, made through its own HTTP interface by one pretend worker.

Nothing is built, measured or trained: metrics are formulas of a trial's configuration. All else is the service's own
code. Times are set afterwards, so that ages and durations are the same in every run.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import sqlalchemy as sa
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.orm import Session

from service.auth import tokens
from service.confirmation import confirmations
from service.database.base import Base
from service.database.models import Attempt, Trial
from service.database.sessions import now
from service.events import server_key, webhooks
from service.events.schemas import WebhookEvent
from service.http.dependencies import Services
from tests.golden.documents import CLASSIFICATION, FAILING, LANGUAGE, PAUSED, PROBE, SEQUENCES
from tests.service.registrations import registration

REGISTRATION = registration("worker-1", {"layersweep": "0.1.0", "onnxruntime": "1.32.0", "torch": "2.13.0"}, slots=2)
SOMEWHERE = [ipaddress.ip_network("192.0.2.0/24")]
"""Documentation addresses (RFC 5737): a webhook may go there, and nobody is."""
PHASES = ("check", "build", "measure", "train", "rebuild", "remeasure", "evaluate")
BEGAN_SECONDS = {
    "created_at": 3600.0,
    "registered_at": 3600.0,
    "due_at": 3600.0,
    "started_at": 3500.0,
    "ended_at": 3000.0,
    "revoked_at": 3000.0,
}
"""How long ago what such a column says happened."""


@dataclass
class World:
    """The client of a service, and the names of what is in it."""

    client: TestClient
    services: Services
    names: dict[str, str] = field(default_factory=dict[str, str])
    """Identifier -> the name that recordings use."""
    ids: dict[str, str] = field(default_factory=dict[str, str])
    """Name -> identifier."""
    secret: str = ""
    """The token of the world's owner."""

    def post(self, path: str, **request: Any) -> Any:
        answer: Response = self.client.post(path, **request)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def call(self, identifier: str, name: str) -> str:
        """Give what has this identifier a name in the recordings. Returns the identifier."""
        self.names[identifier] = name
        self.ids[name] = identifier
        return identifier

    def step(self, sweep: str) -> None:
        self.services.scheduler.step(sweep)

    def claim(self) -> dict[str, Any] | None:
        answer = self.client.post("/v1/leases", json={"worker": self.ids["worker-1"]})
        return answer.json() if answer.status_code == 200 else None


def fill(client: TestClient, services: Services) -> World:
    """Make the world's datasets, sweeps, trials and all that belongs to them."""
    world = begin(client, services)
    _add_webhook(world)
    for document in (LANGUAGE, CLASSIFICATION, PROBE, SEQUENCES, FAILING, PAUSED):
        world.call(world.post("/v1/sweeps", json=document)["id"], document["name"])
        _run(world, document["name"], leave=1 if document is SEQUENCES else 0, pause=document is PAUSED)
    world.post(f"/v1/sweeps/{world.ids['sequences']}:cancel")
    world.step(world.ids["sequences"])
    again = PROBE | {"name": "shapes again", "search": PROBE["search"] | {"reuse": True}}
    world.call(world.post("/v1/sweeps", json=again)["id"], "shapes again")
    _run(world, "shapes again")
    _confirm(world, "language")
    _add_access(world)
    _name_trials(world)
    services.database.write(_set_times)
    return world


def begin(client: TestClient, services: Services) -> World:
    """A world with a worker and datasets, and no sweep."""
    world = World(client, services)
    _remove_what_depends_on_python(services)
    world.call(world.post("/v1/workers", json=REGISTRATION)["id"], "worker-1")
    _add_datasets(world)
    return world


def _remove_what_depends_on_python(services: Services) -> None:
    services.database.write(lambda session: session.execute(sa.text("DELETE FROM datasets WHERE name <> 'digits'")))


def _add_datasets(world: World) -> None:
    text = "".join(f"line {number} of the text, {'abc' * (number % 5)}\n" for number in range(600)).encode()
    rows = "a,b,c,label\n" + "".join(f"{n % 5},{n % 7},{n % 3},kind {n % 3}\n" for n in range(240))
    pairs = "".join(f"word{n % 11} {n}\tW {n % 7} {n}\n" for n in range(240))
    for name, task, file, content in (
        ("letters", "causal_lm", "letters.txt", text),
        ("opinions", "classification", "opinions.csv", rows.encode()),
        ("pairs", "seq2seq", "pairs.tsv", pairs.encode()),
    ):
        form = {"name": name, "task": task, "test": "0.2"} | ({"tokenizer": "char"} if task != "classification" else {})
        world.call(world.post("/v1/datasets", data=form, files={"file": (file, content)})["id"], f"dataset {name}")
    digits = world.client.get("/v1/datasets/digits").json()
    world.call(digits["id"], "dataset digits")


def _run(world: World, name: str, *, leave: int = 0, pause: bool = False) -> None:
    """Work for a sweep until it has ended; `leave` trials stay with the worker."""
    sweep = world.ids[name]
    world.step(sweep)
    if pause:
        world.post(f"/v1/sweeps/{sweep}:pause")
        world.step(sweep)
        return
    left = 0
    while (lease := world.claim()) is not None:
        if lease["number"] >= 2 and left < leave:
            _report(world, lease)
            return
        _report(world, lease)
        _finish(world, lease)
        world.step(sweep)


def _path(lease: Mapping[str, Any], verb: str) -> str:
    return f"/v1/leases/{lease['trial']}/{lease['attempt']}{verb}"


def _report(world: World, lease: Mapping[str, Any]) -> None:
    trains = lease["configuration"]["task"] != "probe"
    for phase in PHASES if trains else PHASES[:3]:
        losses = [
            {"step": step, "training_loss": 3 - step / 8, "validation_loss": 3.1 - step / 9, "learning_rate": 1e-3}
            for step in range(0, 11, 2)
        ]
        body = {"phase": phase, "log": f"{phase} begins\n"}
        world.post(_path(lease, ":report"), json=body | ({"losses": losses} if phase == "train" else {}))


def _finish(world: World, lease: Mapping[str, Any]) -> None:
    body = outcome_of(lease["configuration"])
    if body["outcome"] == "complete":
        wanted = world.post(_path(lease, ":offer"), json={"metrics": body["metrics"]})["wanted"]
        for name in wanted[:2]:
            content = f"{name} of trial {lease['number']}".encode()
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            answer = world.client.put(
                _path(lease, f"/artifacts/{name}"), content=content, headers={"Content-Digest": f"sha-256=:{digest}:"}
            )
            assert answer.is_success, answer.text
    world.post(_path(lease, ":finish"), json=body)


def outcome_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker would say of this trial, by formulas."""
    model, training, task = configuration["model"], configuration["training"], configuration["task"]
    size = model.get("num_layers", 1) * (model.get("hidden_size") or model.get("linear.out_features", 64))
    latency = size / 64
    metrics = {
        "latency_ms_p50": latency,
        "latency_ms_p90": latency * 1.05,
        "latency_ms_p99": latency * 1.1,
        "latency_ms_mean": latency * 1.01,
        "latency_cv": 0.01,
        "throughput_per_s": 1000 / latency,
        "memory_bytes": size * 4096.0,
        "weights_bytes": size * 3072.0,
        "activation_bytes": size * 512.0,
        "io_bytes": size * 512.0,
        "engine_bytes": size * 3200.0,
        "parity_error": 1e-6,
        "parity_error_worst": 2e-6,
        "build_seconds": 2.0,
        "device_seconds": 9.0,
    }
    samples = {"latency_samples_ms": {"samples_ms": [latency * (1 + 0.001 * (n % 7)) for n in range(40)]}}
    if task == "probe":
        return {"outcome": "complete", "metrics": metrics, "measurements": samples}
    if training["seed"] == 0 and size % 160 == 0:
        return {"outcome": "failed", "reason": "the engine of this shape could not be built: made to fail"}
    if latency * 1.1 > 5.5:
        return {"outcome": "infeasible", "metrics": metrics, "reason": "latency_ms_p99 <= 5.5 is broken"}
    if size % 224 == 0:
        return {"outcome": "pruned", "metrics": metrics, "reason": "the training diverged"}
    loss = 3 / (1 + size / 100) + abs(training["learning_rate"] - 1e-3) * 20 + 0.01 * (training["seed"] % 7)
    metrics |= {
        "train_seconds": 5.0,
        "validation_loss": loss,
        "reference_loss": loss - 1e-6,
        "precision_gap": 1e-6,
        "training_loss": loss - 0.1,
        "generalization_gap": 0.1,
    }
    if task == "causal_lm":
        metrics["bits_per_byte"] = loss / 0.6931471805599453
    if task == "classification":
        metrics["accuracy"] = 1 / (1 + loss)
    blocks = {"loss_sums": [9 * loss, 11 * loss, 10 * loss], "weight_sums": [10, 10, 10]}
    if training["seed"] > 1000:
        metrics["test_loss"] = loss + 0.05
        samples["loss_blocks"] = {"validation": blocks, "test": blocks}
    else:
        samples["loss_blocks"] = {"validation": blocks}
    return {"outcome": "complete", "metrics": metrics, "measurements": samples, "log": "done\n"}


def _confirm(world: World, name: str) -> None:
    made = world.post(f"/v1/sweeps/{world.ids[name]}:confirm", json={"seeds": 3, "candidates": 2})
    world.call(made["id"], "confirmation")
    while (lease := world.claim()) is not None:
        _report(world, lease)
        _finish(world, lease)
    world.services.database.write(confirmations.end_finished)
    world.step(made["id"])


def _add_access(world: World) -> None:
    world.post("/v1/projects", json={"name": "vision"})
    owner = tokens.NewToken("owner", ("admin", "work"), None)
    owner_id, secret = world.services.database.write(lambda session: _created(session, owner))
    world.services.access.forget()
    world.call(owner_id, "token owner")
    world.secret = secret
    world.client.headers["Authorization"] = f"Bearer {secret}"
    token = world.post(
        "/v1/tokens", json={"name": "ci", "scopes": ["submit"], "project": "vision", "expires_in_days": 30}
    )
    world.call(token["id"], "token ci")
    world.post(f"/v1/webhooks/{world.ids['webhook']}:ping")


def _add_webhook(world: World) -> None:
    """One that is told of everything: its deliveries wait, as nobody sends them."""
    server_key.read(world.services.settings, lambda: False)
    hook = world.services.database.write(
        lambda session: (
            webhooks.create(
                session,
                project="default",
                url="https://192.0.2.1/hook",
                events=list(get_args(WebhookEvent)),
                made_by="a test",
                allowed=SOMEWHERE,
            ).id
        )
    )
    world.call(hook, "webhook")


def _created(session: Session, new: tokens.NewToken) -> tuple[str, str]:
    row, secret = tokens.create(session, new, made_by="a test")
    return row.id, secret


def _name_trials(world: World) -> None:
    def read(session: Session) -> list[tuple[str, str, int]]:
        query = sa.select(Trial.id, Trial.sweep_id, Trial.number)
        return [(row[0], row[1], row[2]) for row in session.execute(query)]

    for trial, sweep, number in world.services.database.read(read):
        world.call(trial, f"trial {world.names[sweep]}/{number}")


def _set_times(session: Session) -> int:
    """Make all times whole hours or minutes before now or a little more, by column, and phases ten seconds long."""
    time = float(math.floor(now(session)))
    for table in Base.metadata.tables.values():
        for name, ago in BEGAN_SECONDS.items():
            column = table.columns.get(name)
            if column is not None:
                session.execute(sa.update(table).where(column.is_not(None)).values({name: time - ago}))
    for attempt in session.scalars(sa.select(Attempt)):
        phases = cast("list[dict[str, Any]]", attempt.phases)
        began = time - BEGAN_SECONDS["started_at"]
        attempt.phases = [
            phase | {"started_at": began + 10 * place} | ({"seconds": 10.0} if phase.get("seconds") is not None else {})
            for place, phase in enumerate(phases)
        ]
    session.flush()
    return 1
