"""`layersweep token` and `layersweep project`: who may use a service.

They ask the service that is named; where none is, they act on its database, as whoever runs it may: so the first token
is made. `layersweep.cli.places` has the rule.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.text import Text

from layersweep.cli.common import AsJson, connect, err, out, part_of_product, print_json, print_json_list
from layersweep.cli.installation import existing_database, writable_database
from layersweep.cli.places import OwnDatabase, OwnDataDir, Place, RemoteServer
from layersweep.client import Client
from layersweep.display import units
from layersweep.display.listings import Listing
from layersweep.errors import InvalidUsageError
from layersweep.records.administration import CreatedTokenRecord, ProjectRecord, TokenRecord

ALL_PROJECTS = "*"
ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
NO_LIMIT = "none"
MADE_BY = "the command line"

tokens = typer.Typer(help="Create, list and revoke API tokens.", no_args_is_help=True)
projects = typer.Typer(help="Create and list projects.", no_args_is_help=True)


@tokens.command("create")
def create(
    name: Annotated[str, typer.Option(help="Whom or what it is for.")],
    scope: Annotated[list[str], typer.Option(help="read, submit (and read), work, or admin (and both). Repeatable.")],
    project: Annotated[
        str, typer.Option(envvar="LAYERSWEEP_PROJECT", help=f"The project that it is for; {ALL_PROJECTS} for all.")
    ] = "default",
    expires_in_days: Annotated[
        float | None, typer.Option(min=0.001, max=3650, help="Default: it does not expire.")
    ] = None,
    secret_from: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Take the token from this environment variable; no error if it exists already."
        ),
    ] = None,
    as_json: AsJson = False,
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Create a token. It is shown only now: the service stores its hash alone."""
    bound_to = None if project == ALL_PROJECTS else project
    place = Place.of(server, data_dir, database)
    if secret_from is not None and place.server is not None:
        raise InvalidUsageError("--secret-from works on the database: add --database")
    secret = None if secret_from is None else _secret(secret_from)
    with _written(place, secret) as service:
        is_first = next(iter(service.tokens()), None) is None
        record = service.create_token(name, scope, project=bound_to, expires_in_days=expires_in_days)
    if is_first and secret_from is None:
        err.print(Text(_closes(record), style="yellow"), soft_wrap=True)
    if as_json:
        print_json(record)
        return
    message = f"The token {record['name']} ({record['id']}), {_reach(record)}"
    if secret_from is not None:
        err.print(Text(f"{message} is what {secret_from} holds."), soft_wrap=True)
        return
    err.print(Text(f"{message}. It is not shown again:"), soft_wrap=True)
    print(record["token"])


@tokens.command("list")
def list_(
    as_json: AsJson = False,
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """List the tokens, the newest first."""
    with _read(Place.of(server, data_dir, database)) as service:
        records = list(service.tokens())
    if as_json:
        print_json_list(records)
        return
    if not records:
        out.print("No tokens yet: the service answers everybody on its own machine, and nobody else.")
        return
    now = time.time()
    columns = ("id", "name", "project", "scopes", "state", "last used")
    table = Listing(*columns, whole=("id", "last used"), spare=("last used", "project"))
    for record in records:
        table.add_row(
            record["id"],
            Text(record["name"]),
            record["project"] or ALL_PROJECTS,
            ", ".join(record["scopes"]),
            _state(record),
            units.since(record["last_used_at"], now) if record["last_used_at"] else "never",
        )
    out.print(table)


@tokens.command("revoke")
def revoke(
    token: Annotated[
        str, typer.Argument(metavar="ID", help="The token's id, or its name if no other valid token has it.")
    ],
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Revoke a token: it stops working."""
    with _read(Place.of(server, data_dir, database)) as service:
        found = _token_id(service, token)
        service.revoke_token(found)
    out.print(Text(f"{token} is revoked." if found == token else f"{token} ({found}) is revoked."))


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="a-z, 0-9 and '-'.")],
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Create a project, with sweeps and datasets of its own."""
    with _written(Place.of(server, data_dir, database)) as service:
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
    with _read(Place.of(server, data_dir, database)) as service:
        records = service.projects()
    if as_json:
        print_json_list(records)
        return
    for record in records:
        out.print(Text(record["name"] + (f": {_limits(record)}" if _is_limited(record) else "")), soft_wrap=True)


@projects.command("limit")
def limit_project(
    name: Annotated[str, typer.Argument()],
    max_running_trials: Annotated[
        str | None, typer.Option(metavar="N", help=f"Trials that may run at once; {NO_LIMIT} removes the limit.")
    ] = None,
    max_priority: Annotated[
        str | None, typer.Option(metavar="N", help=f"The highest priority of its sweeps; {NO_LIMIT} removes the limit.")
    ] = None,
    data_dir: OwnDataDir = None,
    database: OwnDatabase = False,
    server: RemoteServer = None,
) -> None:
    """Limit what a project may use: trials at once, and up to which priority."""
    given = {"max_running_trials": max_running_trials, "max_priority": max_priority}
    changes = {limit: _limit(limit, value) for limit, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("say what to limit: --max-running-trials or --max-priority")
    with _read(Place.of(server, data_dir, database)) as service:
        record = service.change_project(name, changes)
    out.print(Text(f"The project {name} {_limits(record)}."), soft_wrap=True)


class Administration(Protocol):
    """Who may use a service, as the commands change it: by `Client` over HTTP, or on its database."""

    def create_token(
        self, name: str, scopes: Sequence[str], *, project: str | None, expires_in_days: float | None
    ) -> CreatedTokenRecord: ...

    def tokens(self) -> Iterable[TokenRecord]: ...

    def revoke_token(self, token: str) -> None: ...

    def create_project(self, name: str) -> object: ...

    def projects(self) -> list[ProjectRecord]: ...

    def change_project(self, name: str, changes: Mapping[str, int | None]) -> ProjectRecord: ...


class _DatabaseAdministration:
    """The service's own functions on a database, for whoever may write to it."""

    def __init__(self, database: Any, secret: str | None = None) -> None:
        """`secret`: of the token that will be made; None: a new one."""
        self._database = database
        self._secret = secret
        self._tokens = part_of_product("service.auth.tokens", "service")
        self._projects = part_of_product("service.auth.projects", "service")
        self._quotas = part_of_product("service.fleet.quotas", "service")
        self._schemas = part_of_product("service.auth.schemas", "service")
        self._audit = part_of_product("service.auth.audit", "service")

    def create_token(
        self, name: str, scopes: Sequence[str], *, project: str | None, expires_in_days: float | None
    ) -> CreatedTokenRecord:
        new = self._tokens.NewToken(name, scopes, project, expires_in_days, self._secret)

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

    def tokens(self) -> list[TokenRecord]:
        def read(session: Any) -> list[TokenRecord]:
            found: list[TokenRecord] = []
            following: str | None = None
            while True:
                rows, following = self._tokens.page(session, project=None, page_size=1000, page_token=following)
                found += [self._shown(row) for row in rows]
                if following is None:
                    return found

        return self._database.read(read)

    def revoke_token(self, token: str) -> None:
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

    def change_project(self, name: str, changes: Mapping[str, int | None]) -> ProjectRecord:
        given = self._schemas.Quotas.model_validate(dict(changes)).model_dump(exclude_unset=True)

        def write(session: Any) -> ProjectRecord:
            row = self._quotas.change(session, name, given)
            self._record(session, "project.change", name, name)
            return self._schemas.Project.model_validate(row).model_dump(mode="json")

        return self._database.write(write)

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


def _closes(record: TokenRecord) -> str:
    """What the first token of a service changes for everybody."""
    says = "It is the first token: from now on every request needs one, those of pages and workers, too."
    if "admin" in record["scopes"]:
        return says
    return (
        f"{says} This one creates no others; on the service's machine "
        "`layersweep token create --name NAME --scope admin --project '*' --database` makes one that does."
    )


def _token_id(service: Administration, given: str) -> str:
    """The id of the valid token of this name; `given` itself where it is an id. Raises InvalidUsageError."""
    if ID.fullmatch(given):
        return given
    found = [record["id"] for record in service.tokens() if record["name"] == given and not record["revoked_at"]]
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} valid tokens are called {given!r} ({', '.join(found)})"
    lacks = several if found else f"no valid token is called {given!r}"
    raise InvalidUsageError(f"{lacks}: give the id, which `layersweep token list` shows")


def _secret(variable: str) -> str:
    secret = os.environ.get(variable, "")
    if not secret:
        raise InvalidUsageError(f"the environment variable {variable} is empty")
    return secret


def _limit(name: str, value: str) -> int | None:
    """The number of an option; None lifts the limit."""
    if value == NO_LIMIT:
        return None
    try:
        return int(value)
    except ValueError:
        option = f"--{name.replace('_', '-')}"
        raise InvalidUsageError(f"{option} {value}: give a whole number, or {NO_LIMIT}") from None


def _is_limited(record: ProjectRecord) -> bool:
    return record.get("max_running_trials") is not None or record.get("max_priority") is not None


def _limits(record: ProjectRecord) -> str:
    running, priority = record.get("max_running_trials"), record.get("max_priority")
    at_once = "any number of trials" if running is None else units.plural(running, "trial")
    up_to = "any priority" if priority is None else f"a priority of at most {priority}"
    return f"may run {at_once} at once, with {up_to}"


def _read(place: Place) -> AbstractContextManager[Administration]:
    """What is asked, or the database that is there: nothing is made in order to read, or to revoke."""
    return _administration(place, existing_database)


def _written(place: Place, secret: str | None = None) -> AbstractContextManager[Administration]:
    """What is asked, or the database, which is made where there is none."""
    return _administration(place, writable_database, secret)


@contextmanager
def _administration(
    place: Place, opened: Callable[[Path | None], AbstractContextManager[Any]], secret: str | None = None
) -> Generator[Administration]:
    if place.server is not None:
        with _asked(place.server) as client:
            yield client
    else:
        with _told(), opened(place.data_dir) as database:
            yield _DatabaseAdministration(database, secret)


def _asked(server: str) -> Client:
    """The service that is asked, after saying which it is."""
    err.print(Text(f"On the service at {server}.", style="dim"), soft_wrap=True)
    return connect(server)


@contextmanager
def _told() -> Generator[None]:
    errors = part_of_product("service.errors", "service")
    try:
        yield
    except errors.ServiceError as problem:
        # Some say it in the detail as well.
        remedies = "; ".join(each.remedy for each in problem.problems if each.remedy not in problem.detail)
        raise InvalidUsageError(f"{problem.detail}{': ' if remedies else ''}{remedies}") from problem


def _reach(record: TokenRecord) -> str:
    where = f"the project {record['project']}" if record["project"] else "all projects"
    until = f" until {record['expires_at']}" if record["expires_at"] else ""
    return f"with {', '.join(record['scopes'])} in {where}{until}"


def _state(record: TokenRecord) -> str:
    """`valid`, `valid until 2026-12-24 09:30:00 UTC`, `revoked on 2026-11-29`."""
    if record["revoked_at"]:
        return f"revoked on {record['revoked_at'][:10]}"
    if not record["expires_at"]:
        return "valid"
    expires_at = datetime.fromisoformat(record["expires_at"]).astimezone(UTC)
    return f"{'expired at' if expires_at <= datetime.now(UTC) else 'valid until'} {expires_at:%Y-%m-%d %H:%M:%S} UTC"
