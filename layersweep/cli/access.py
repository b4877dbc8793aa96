"""`layersweep token` and `layersweep project`: who may use a service.

They ask the service that is named; where none is, they act on its database, as whoever runs it may: so the first token
is made. `layersweep.cli.places` has the rule.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from layersweep.cli.common import AsJson, connect, err, out, part_of_product, print_json, print_json_list
from layersweep.cli.installation import existing_database, writable_database
from layersweep.cli.places import OwnDatabase, OwnDataDir, Place, RemoteServer
from layersweep.client import Client
from layersweep.errors import InvalidUsageError
from layersweep.records.administration import CreatedTokenRecord, ProjectRecord, TokenRecord

ALL_PROJECTS = "*"
MADE_BY = "the command line"

tokens = typer.Typer(help="Make, list and revoke API tokens.", no_args_is_help=True)
projects = typer.Typer(help="Make and list projects.", no_args_is_help=True)


@tokens.command("create")
def create(
    name: Annotated[str, typer.Option(help="For whom or what it is.")],
    scope: Annotated[list[str], typer.Option(help="read, submit (and read), work, or admin (and both). Repeatable.")],
    project: Annotated[
        str, typer.Option(envvar="LAYERSWEEP_PROJECT", help=f"The project that it reaches; {ALL_PROJECTS} for all.")
    ] = "default",
    expires_in_days: Annotated[float | None, typer.Option(min=0.001, max=3650, help="Left out: never.")] = None,
    secret_from: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Take the token from this environment variable; fine if it is there already."
        ),
    ] = None,
    as_json: AsJson = False,
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Make a token. It is shown this once: only its hash is stored."""
    bound_to = None if project == ALL_PROJECTS else project
    place = Place.of(server, data_dir, database)
    if place.server is not None:
        if secret_from is not None:
            raise InvalidUsageError("--secret-from works on the database: add --database")
        with _service(place.server) as client:
            record = client.create_token(name, scope, project=bound_to, expires_in_days=expires_in_days)
    else:
        secret = None if secret_from is None else _secret(secret_from)
        with _written(place) as service:
            record = service.create(name, scope, bound_to, expires_in_days, secret)
    if as_json:
        print_json(record)
        return
    told = f"The token {record['name']} ({record['id']}), {_reach(record)}"
    if secret_from is not None:
        err.print(Text(f"{told} is what {secret_from} holds."), soft_wrap=True)
        return
    err.print(Text(f"{told}. It is not shown again:"), soft_wrap=True)
    print(record["token"])


@tokens.command("list")
def list_(
    as_json: AsJson = False,
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """List the tokens, the newest first."""
    place = Place.of(server, data_dir, database)
    if place.server is not None:
        with _service(place.server) as client:
            records = list(client.tokens())
    else:
        with _read(place) as service:
            records = service.list()
    if as_json:
        print_json_list(records)
        return
    if not records:
        out.print("No tokens yet: the service answers everybody on its own machine, and nobody else.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "name", "project", "scopes", "state", "last used"):
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for record in records:
        table.add_row(
            record["id"],
            Text(record["name"]),
            record["project"] or ALL_PROJECTS,
            ", ".join(record["scopes"]),
            _state(record),
            record["last_used_at"] or "never",
        )
    out.print(table)


@tokens.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, as `token list` shows it.")],
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Revoke a token: it opens nothing any more."""
    place = Place.of(server, data_dir, database)
    if place.server is not None:
        with _service(place.server) as client:
            client.revoke_token(token)
    else:
        with _read(place) as service:
            service.revoke(token)
    out.print(Text(f"{token} is revoked."))


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")],
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Make a project: its sweeps and datasets are its own."""
    place = Place.of(server, data_dir, database)
    if place.server is not None:
        with _service(place.server) as client:
            client.create_project(name)
    else:
        with _written(place) as service:
            service.create_project(name)
    out.print(
        Text(f"The project {name} is there. Make it a token: layersweep token create --project {name} ..."),
        soft_wrap=True,
    )


@projects.command("list")
def list_projects(
    as_json: AsJson = False,
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """List the projects."""
    place = Place.of(server, data_dir, database)
    if place.server is not None:
        with _service(place.server) as client:
            records = client.projects()
    else:
        with _read(place) as service:
            records = service.projects()
    if as_json:
        print_json_list(records)
        return
    for record in records:
        out.print(Text(record["name"]))


class _Service:
    """The service's own functions on a database, for whoever may write to it."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._tokens = part_of_product("service.auth.tokens", "service")
        self._projects = part_of_product("service.auth.projects", "service")
        self._schemas = part_of_product("service.auth.schemas", "service")
        self._audit = part_of_product("service.auth.audit", "service")

    def create(
        self, name: str, scopes: list[str], project: str | None, expires_in_days: float | None, secret: str | None
    ) -> CreatedTokenRecord:
        new = self._tokens.NewToken(name, scopes, project, expires_in_days, secret)

        def write(session: Any) -> CreatedTokenRecord:
            known = None if new.secret is None else self._tokens.find(session, new.secret)
            if known is not None:
                lacking = [scope for scope in scopes if scope not in known.scopes]
                if lacking:
                    raise InvalidUsageError(
                        f"this secret is the token {known.name!r} already, without the scope {', '.join(lacking)}: "
                        "give each token a secret of its own"
                    )
                return {**self._shown(known), "token": None}
            row, made = self._tokens.create(session, new, made_by=MADE_BY)
            self._record(session, "token.create", row.id, project)
            return {**self._shown(row), "token": made}

        return self._database.write(write)

    def list(self) -> list[TokenRecord]:
        def read(session: Any) -> list[TokenRecord]:
            found: list[TokenRecord] = []
            following: str | None = None
            while True:
                rows, following = self._tokens.page(session, project=None, page_size=1000, page_token=following)
                found += [self._shown(row) for row in rows]
                if following is None:
                    return found

        return self._database.read(read)

    def revoke(self, token: str) -> None:
        def write(session: Any) -> None:
            row = self._tokens.revoke(session, token, None)
            self._record(session, "token.revoke", token, row.project)

        return self._database.write(write)

    def create_project(self, name: str) -> None:
        def write(session: Any) -> None:
            self._projects.create(session, name)
            self._record(session, "project.create", name, name)

        return self._database.write(write)

    def projects(self) -> list[ProjectRecord]:
        def read(session: Any) -> list[ProjectRecord]:
            rows = self._projects.every(session, None)
            return [self._schemas.Project.model_validate(row).model_dump(mode="json") for row in rows]

        return self._database.read(read)

    def _shown(self, row: Any) -> TokenRecord:
        return self._schemas.Token.model_validate(row).model_dump(mode="json")

    def _record(self, session: Any, action: str, subject: str, project: str | None) -> None:
        self._audit.record(
            session,
            actor=MADE_BY,
            token_id=None,
            project=project,
            action=action,
            subject=subject,
            request_id=None,
        )


def _secret(variable: str) -> str:
    secret = os.environ.get(variable, "")
    if not secret:
        raise InvalidUsageError(f"the environment variable {variable} is empty")
    return secret


def _service(server: str) -> Client:
    """The service that is asked, after saying which it is."""
    err.print(Text(f"On the service at {server}.", style="dim"), soft_wrap=True)
    return connect(server)


@contextmanager
def _read(place: Place) -> Generator[_Service]:
    """The service's functions on the database that is there: nothing is made in order to read, or to revoke."""
    with _told(), existing_database(place.data_dir) as database:
        yield _Service(database)


@contextmanager
def _written(place: Place) -> Generator[_Service]:
    """The service's functions on the database, which is made where there is none."""
    with _told(), writable_database(place.data_dir) as database:
        yield _Service(database)


@contextmanager
def _told() -> Generator[None]:
    errors = part_of_product("service.errors", "service")
    try:
        yield
    except errors.ServiceError as problem:
        remedies = "; ".join(each.remedy for each in problem.problems if each.remedy)
        raise InvalidUsageError(f"{problem.detail}{': ' if remedies else ''}{remedies}") from problem


def _reach(record: TokenRecord) -> str:
    where = f"the project {record['project']}" if record["project"] else "all projects"
    until = f" until {record['expires_at']}" if record["expires_at"] else ""
    return f"with {', '.join(record['scopes'])} in {where}{until}"


def _state(record: TokenRecord) -> str:
    if record["revoked_at"]:
        return f"revoked {record['revoked_at']}"
    if not record["expires_at"]:
        return "valid"
    expired = datetime.fromisoformat(record["expires_at"]) <= datetime.now(UTC)
    return f"{'expired' if expired else 'valid until'} {record['expires_at']}"
