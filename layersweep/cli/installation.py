"""The service's settings and its database, as they are on this machine; what goes wrong with them as sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from layersweep.cli.common import err, part_of_product
from layersweep.errors import InvalidUsageError, LayersweepError

SQLITE = "sqlite:///"

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the embedded database and the datasets (LAYERSWEEP_DATA_DIR)."),
]


def read_settings(**given: Any) -> Any:
    """The service's settings; options of the command line win over the environment. Raises InvalidUsageError."""
    pydantic = part_of_product("pydantic", "service")
    pydantic_settings = part_of_product("pydantic_settings", "service")
    module = part_of_product("service.settings", "service")
    try:
        return module.Settings(**{name: value for name, value in given.items() if value is not None})
    except pydantic.ValidationError as problem:
        reasons = "; ".join(map(_reason, problem.errors()))
        raise InvalidUsageError(f"the settings are not usable: {reasons}") from problem
    except pydantic_settings.SettingsError as problem:
        # What is no JSON where a list is needed.
        named = re.search(r'"(\w+)"', str(problem))
        variable = f"LAYERSWEEP_{named[1].upper()}" if named else "a variable"
        raise InvalidUsageError(
            f'the settings are not usable: {variable} is no JSON: write a list as \'["one", "another"]\''
        ) from problem


def _reason(error: Mapping[str, Any]) -> str:
    """What is wrong with a setting, in words."""
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"LAYERSWEEP_{str(error['loc'][0]).upper()} {message}" if error["loc"] else message


@contextmanager
def existing_database(data_dir: Path | None) -> Generator[Any]:
    """The database of the settings, which must be there, with the schema of this version. Raises LayersweepError."""
    settings = read_settings(data_dir=data_dir)
    file = database_file(settings)
    if file is not None and not file.is_file():
        raise InvalidUsageError(
            f"there is no database {file}: name a service (--server, LAYERSWEEP_SERVER), "
            "or the folder of the service's data (--data-dir, LAYERSWEEP_DATA_DIR)"
        )
    with _opened(settings) as found:
        if not found.schema_is_current():
            named = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
            raise LayersweepError(
                f"the schema of {shown(settings)} is older than this version needs: run `layersweep db upgrade{named}`"
            )
        yield found


@contextmanager
def writable_database(data_dir: Path | None) -> Generator[Any]:
    """The database of the settings; the embedded one is made or upgraded where need be. Raises LayersweepError."""
    settings = read_settings(data_dir=data_dir)
    if database_file(settings) is None:
        with existing_database(data_dir) as found:
            yield found
        return
    with _opened(settings) as found:
        found.upgrade()
        yield found


@contextmanager
def any_database(data_dir: Path | None) -> Generator[Any]:
    """The database of the settings, whatever its schema."""
    with _opened(read_settings(data_dir=data_dir)) as found:
        yield found


def database_file(settings: Any) -> Path | None:
    """The file of the embedded database; None where the database is a server's."""
    url: str = settings.database_url
    return Path(url.removeprefix(SQLITE)).absolute() if url.startswith(SQLITE) else None


def shown(settings: Any) -> str:
    """A database for people: its file, or its URL without the password."""
    file = database_file(settings)
    if file is not None:
        return str(file)
    url: str = part_of_product("service.database.urls", "service").shown(settings.database_url)
    return url


@contextmanager
def _opened(settings: Any) -> Generator[Any]:
    with usable_url():
        name = shown(settings)
        file = database_file(settings)
        new = ", which is new" if file is not None and not file.exists() else ""
        found = part_of_product("service.database.sessions", "service").Database(settings.database_url)
    err.print(Text(f"On the database {name}{new}.", style="dim"), soft_wrap=True)
    try:
        with answering_database():
            yield found
    finally:
        found.close()


@contextmanager
def as_sentence(expected: type[Exception]) -> Generator[None]:
    """What the service's side cannot do as called here, as a sentence and the exit code of a wrong call."""
    try:
        yield
    except expected as problem:
        raise InvalidUsageError(str(problem)) from problem


@contextmanager
def usable_url() -> Generator[None]:
    """A database URL, or a folder, that cannot be used, as a sentence."""
    errors = part_of_product("sqlalchemy.exc", "service")
    try:
        yield
    except (errors.ArgumentError, ValueError) as problem:
        raise InvalidUsageError(f"LAYERSWEEP_DATABASE_URL is not usable: {problem}") from problem
    except OSError as problem:
        raise InvalidUsageError(
            f"{problem.filename} cannot be used: {problem.strerror}. Name another folder with --data-dir or "
            "LAYERSWEEP_DATA_DIR"
        ) from problem


@contextmanager
def answering_database() -> Generator[None]:
    """A database that does not answer, or has another schema, as a sentence and an exit code."""
    errors = part_of_product("sqlalchemy.exc", "service")
    outages = part_of_product("service.database.outages", "service")
    try:
        yield
    except part_of_product("service.database.sessions", "service").SchemaError as problem:
        raise LayersweepError(str(problem)) from problem
    except errors.OperationalError as problem:
        raise LayersweepError(outages.words_of(problem) or f"the database does not answer: {problem.orig}") from problem
    except errors.DatabaseError as problem:
        raise LayersweepError(f"the database cannot be used: {problem.orig}") from problem
