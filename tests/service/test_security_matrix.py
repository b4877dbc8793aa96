"""Every route × {no token, expired, revoked, wrong scope, other project}.

The routes are those of the application, with the scopes that they declare, so that none can be forgotten: a new one is
held to the same rules, and a parameter that this module does not know fails here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from service.auth import projects, scopes, tokens
from service.auth.scopes import ScopedRoute, needs_no_token, needs_scope
from service.auth.tokens import SCOPES
from service.database.access_models import Token
from service.events import server_key, webhooks
from service.http.callers import within_project
from service.http.dependencies import Services
from service.routes.sweeps import EXAMPLE as DOCUMENT
from tests.service.checkpoint_files import checkpoint_files
from tests.service.rows import Rows

OPEN_TO_ALL = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/v1/schemas/sweep.json"),
    ("GET", "/static/{name}"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
}
IMPLIED = {"read": {"read"}, "submit": {"submit", "read"}, "work": {"work"}, "admin": {"admin", "submit", "read"}}

OWNED = {"sweep", "sweep_id", "trial", "dataset", "checkpoint", "token", "webhook", "delivery", "worker"}
"""Parameters that are ids of what belongs to a project."""

PARTS = {
    "attempt": "1",
    "number": "0",
    "name": "model.onnx",
    "part": "training",
    "kind": "decoder",
    "path": "nothing",
    "sha256": "0" * 64,
}
"""Parameters that are parts of what another one names, or name what belongs to nobody."""


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: what is asked of it is asked on both elsewhere."""
    return migrated_sqlite_url


PAGE_STATUSES = frozenset({200, 401, 403, 404, 422})


@dataclass(frozen=True)
class Operation:
    method: str
    template: str
    path: str
    scopes: frozenset[str]
    documented: frozenset[int]
    is_owned: bool


@dataclass(frozen=True)
class World:
    """What belongs to the project `ours`, the operations on it, and tokens of all kinds."""

    client: TestClient
    services: Services
    ids: dict[str, str]
    operations: list[Operation]

    def token(self, *scopes: str, project: str | None = None, days: float | None = None) -> str:
        new = tokens.NewToken("-".join(scopes), scopes, project, days)  # type: ignore[arg-type]
        secret = self.services.database.write(lambda session: tokens.create(session, new, made_by="a test")[1])
        self.services.access.forget()
        return secret

    def update_token(self, secret: str, **values: Any) -> None:
        statement = sa.update(Token).where(Token.sha256 == tokens.hash_of(secret)).values(**values)
        self.services.database.write(lambda session: session.execute(statement).rowcount)  # type: ignore[attr-defined]
        self.services.access.forget()

    def ask(self, operation: Operation, secret: str | None, **headers: str) -> Response:
        bearer = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return self.client.request(operation.method, operation.path, headers=bearer | headers)

    def unexpected(self, secret: str | None, expected: Callable[[Operation], set[int] | None], **headers: str) -> list:
        """The operations that answer with another status than those expected, or with one that is not documented."""
        wrong = []
        for operation in self.operations:
            wanted = expected(operation)
            if wanted is None:
                continue
            status = self.ask(operation, secret, **headers).status_code
            if status not in wanted or status not in operation.documented:
                wrong.append((operation.method, operation.template, status))
        return wrong


@pytest.fixture
def world(client: TestClient, services: Services, served_rows: Rows) -> World:
    database = services.database
    database.write(lambda session: [projects.create(session, name).name for name in ("ours", "theirs")])
    sweep = served_rows.sweep(queued=1)
    worker = served_rows.worker()
    for table in ("sweeps", "trials", "workers"):
        statement = sa.text(f"UPDATE {table} SET project = 'ours'")
        database.write(lambda session, statement=statement: session.execute(statement).rowcount)
    owner = tokens.NewToken("owner", ("admin",), "ours")
    token, secret = database.write(
        lambda session: (lambda row, secret: (row.id, secret))(*tokens.create(session, owner, made_by="a test"))
    )
    services.access.forget()
    ours = {"Authorization": f"Bearer {secret}"}
    (trial,) = client.get(f"/v1/sweeps/{sweep}/trials", headers=ours).json()["items"]
    upload = {"data": {"name": "letters"}, "files": {"file": ("t.txt", b"abc " * 400)}}
    dataset = client.post("/v1/datasets", headers=ours, **upload).json()["id"]
    files = checkpoint_files()
    checkpoint = client.post("/v1/checkpoints", headers=ours, data={"name": "small"}, files=files).json()["id"]
    ids = {
        "checkpoint": checkpoint,
        "sweep": sweep,
        "sweep_id": sweep,
        "trial": trial["id"],
        "dataset": dataset,
        "token": token,
    }
    somewhere = [ipaddress.ip_network("192.0.2.0/24")]
    server_key.read(services.settings, lambda: False)
    webhook = database.write(
        lambda session: (
            webhooks.create(
                session,
                project="ours",
                url="https://192.0.2.1/",
                events=["sweep.failed"],
                made_by="",
                allowed=somewhere,
            ).id
        )
    )
    ids |= {"project": "ours", "webhook": webhook, "delivery": "0" * 26, "worker": worker}
    description = client.get("/openapi.json", headers=ours).json()
    return World(client, services, ids, list(_operations(client.app, description, ids)))  # type: ignore[arg-type]


def _operations(app: FastAPI, description: dict[str, Any], ids: dict[str, str]) -> Iterator[Operation]:
    for route in scopes.declarations(app):
        named = set(route.pattern.groupindex)
        assert named <= OWNED | PARTS.keys() | {"project"}, f"say here whose {route.path} is"
        for method in route.methods:
            if (method, route.path) in OPEN_TO_ALL:
                continue
            described = description["paths"].get(route.path, {}).get(method.lower())
            documented = PAGE_STATUSES if described is None else frozenset(map(int, described["responses"]))
            path = route.path.format(**PARTS | ids)
            yield Operation(method, route.path, path, route.opened_by, documented, bool(named & OWNED))


def test_what_needs_no_token_is_listed_here_and_changes_nothing_without(app: FastAPI) -> None:
    found = {(method, each.path) for each in scopes.declarations(app) if not each.opened_by for method in each.methods}
    assert found == OPEN_TO_ALL


def test_what_changes_something_is_never_opened_by_a_token_that_reads(world: World) -> None:
    reading = [
        (each.method, each.template) for each in world.operations if each.method != "GET" and "read" in each.scopes
    ]
    assert reading == []


def test_the_description_says_which_scopes_open_an_operation(world: World) -> None:
    paths = world.client.get("/openapi.json", headers={"Authorization": f"Bearer {world.token('read')}"}).json()[
        "paths"
    ]
    described = {
        (method.upper(), path): frozenset(operation.get("x-scopes", ()))
        for path, operations in paths.items()
        for method, operation in operations.items()
        if (method.upper(), path) not in OPEN_TO_ALL
    }
    declared = {(each.method, each.template): each.scopes for each in world.operations}
    assert described.items() <= declared.items()


def test_no_name_of_a_dataset_opens_its_deletion(world: World) -> None:
    """A scope that was guessed from the path let whoever reads or works delete a dataset named `content`."""
    owner = {"Authorization": f"Bearer {world.token('submit', project='ours')}"}
    others = {scope: {"Authorization": f"Bearer {world.token(scope, project='ours')}"} for scope in ("read", "work")}
    for name in ("content", "leases", "static", "healthz"):
        form = {"data": {"name": name}, "files": {"file": ("t.txt", b"abc " * 400)}}
        made = world.client.post("/v1/datasets", headers=owner, **form)
        for scope, headers in others.items():
            answer = world.client.delete(f"/v1/datasets/{name}", headers=headers)
            assert answer.status_code == 403, (name, scope)
        assert world.client.delete(f"/v1/datasets/{made.json()['id']}", headers=owner).status_code == 204


def test_without_a_token_that_is_good_nothing_opens(world: World) -> None:
    assert len(world.operations) > 50
    expired, revoked = world.token(*SCOPES, project="ours", days=1), world.token(*SCOPES, project="ours")
    assert world.client.get(
        f"/v1/sweeps/{world.ids['sweep']}", headers={"Authorization": f"Bearer {expired}"}
    ).is_success
    world.update_token(expired, expires_at=1.0)
    world.update_token(revoked, revoked_at=1.0)
    # As many wrong tokens as this from one address are refused before they are looked at.
    world.services.settings.wrong_tokens_per_minute = 1e6
    for secret in (None, "lsw_unknown", expired, revoked):
        assert world.unexpected(secret, lambda _: {401}) == []


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_what_is_documented_and_nothing_else(world: World, scope: str) -> None:
    secret = world.token(scope, project="ours")
    assert world.unexpected(secret, lambda each: None if IMPLIED[scope] & each.scopes else {403}) == []


def test_a_scope_is_never_what_a_scope_that_opens_it_lacks(world: World) -> None:
    """What its scopes open is refused for another reason, if at all: what is of all projects, the test split."""
    everything = world.token(*SCOPES, project="ours")
    allowed = ("/v1/projects", "/v1/projects/{project}", "/metrics")
    refused = [
        each.template
        for each in world.operations
        if each.method != "DELETE" and each.template not in allowed and world.ask(each, everything).status_code == 403
    ]
    assert refused == []


def test_of_another_project_nothing_is_there(world: World) -> None:
    stranger = world.token(*SCOPES, project="theirs")
    assert world.unexpected(stranger, lambda each: {404} if each.is_owned else None) == []
    assert world.unexpected(stranger, lambda each: {403}, **{"Layersweep-Project": "ours"}) == []
    assert world.client.get("/v1/sweeps", headers={"Authorization": f"Bearer {stranger}"}).json()["items"] == []


def test_what_nobody_has_placed_is_closed_to_tokens_of_one_project(app: FastAPI) -> None:
    """A route that names something by a parameter that `service.http.callers` does not know."""
    router = APIRouter(prefix="/v1", dependencies=[Depends(within_project)], route_class=ScopedRoute)
    router.add_api_route("/gadgets/{gadget}", needs_scope("read")(lambda gadget: {"gadget": gadget}))
    app.include_router(router)
    with TestClient(app) as client:
        for project, status in ((None, 200), ("default", 404)):
            new = tokens.NewToken("x", ("read",), project)
            secret = app.state.services.database.write(
                lambda session, new=new: tokens.create(session, new, made_by="")[1]
            )
            app.state.services.access.forget()
            assert client.get("/v1/gadgets/x", headers={"Authorization": f"Bearer {secret}"}).status_code == status


def test_a_route_that_does_not_say_who_may_call_it_is_never_served(app: FastAPI) -> None:
    with pytest.raises(scopes.UndeclaredScopeError, match="/gadgets"):
        APIRouter(route_class=ScopedRoute).add_api_route("/gadgets", dict)

    def make_gadget() -> None:
        """A route of the framework's own class, which reads no declaration."""

    app.add_api_route("/gadgets", needs_no_token(make_gadget))
    with pytest.raises(scopes.UndeclaredScopeError, match="/gadgets"), TestClient(app):
        pass


def test_no_list_and_no_page_shows_what_is_of_another_project(world: World) -> None:
    stranger, owner = world.token(*SCOPES, project="theirs"), world.token(*SCOPES, project="ours")
    ours = {world.ids[name] for name in ("sweep", "trial", "dataset", "token", "webhook")}
    shown_to_owner = ""
    for operation in world.operations:
        if operation.method == "GET" and not operation.is_owned and "project" not in operation.template:
            text = world.ask(operation, stranger).text
            assert not [each for each in ours if each in text], operation.template
            shown_to_owner += world.ask(operation, owner).text
    assert world.ids["sweep"] in shown_to_owner, "the owner is shown it, so that this test could fail"


def test_no_body_reaches_into_another_project(world: World, served_rows: Rows) -> None:
    stranger = {"Authorization": f"Bearer {world.token(*SCOPES, project='theirs')}"}
    worker = served_rows.worker()
    owned = sa.text("UPDATE workers SET project = 'ours'")
    world.services.database.write(lambda session: session.execute(owned).rowcount)
    post = world.client.post
    assert post("/v1/leases", json={"worker": worker}, headers=stranger).status_code == 404
    for dataset in ("letters", world.ids["dataset"]):
        answer = post("/v1/sweeps", json=DOCUMENT | {"dataset": dataset}, headers=stranger)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/dataset")
    started = DOCUMENT | {"start_from": [f"trial:{world.ids['trial']}"]}
    answer = post("/v1/sweeps", json=started, headers=stranger)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/start_from/0")
    made = post("/v1/tokens", json={"name": "x", "scopes": ["admin"], "project": "ours"}, headers=stranger)
    assert made.status_code == 403
