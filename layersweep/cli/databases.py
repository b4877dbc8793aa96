"""`layersweep db`: looks after the service's database, imported only when asked for."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from layersweep.cli.common import err, part_of_product
from layersweep.cli.installation import (
    DataDir,
    any_database,
    as_sentence,
    existing_database,
    read_settings,
)
from layersweep.display.units import bytes_, plural

app = typer.Typer(
    help="Look after the service's database on this machine (LAYERSWEEP_DATABASE_URL, LAYERSWEEP_DATA_DIR).",
    no_args_is_help=True,
)


@app.command("upgrade")
def upgrade(data_dir: DataDir = None) -> None:
    """Bring the database's schema up to date (LAYERSWEEP_DATABASE_URL)."""
    with any_database(data_dir) as found:
        current = found.schema_is_current()
        if not current:
            found.upgrade()
    err.print("The schema is up to date already." if current else "The schema is up to date now.")


@app.command("backup")
def backup(
    archive: Annotated[Path, typer.Argument(help="The file to write, for example layersweep-2026-11-25.tar.gz.")],
    data_dir: DataDir = None,
) -> None:
    """Write the embedded database, datasets, artifacts and the webhooks' key to one archive. The service may run on."""
    backups = part_of_product("service.operations.backups", "service")
    with as_sentence(backups.BackupError):
        made = backups.back_up(read_settings(data_dir=data_dir), archive)
    err.print(
        f"{archive}: {plural(made.files, 'file')}, {bytes_(made.size_bytes)} before compression, schema {made.schema}.",
        soft_wrap=True,
    )


@app.command("restore")
def restore(
    archive: Annotated[Path, typer.Argument(help="A file that `layersweep db backup` wrote.")], data_dir: DataDir = None
) -> None:
    """Put a backup into an empty data folder. A backup of an older version is upgraded at the next start."""
    backups = part_of_product("service.operations.backups", "service")
    settings = read_settings(data_dir=data_dir)
    with as_sentence(backups.BackupError):
        restored = backups.restore(archive, settings)
    named = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    err.print(
        f"{settings.data_dir} has {plural(restored.files, 'file')} now; "
        f"start the service with `layersweep serve{named}`.",
        soft_wrap=True,
    )


@app.command("prune")
def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much would be deleted, and delete nothing.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete data older than the settings allow (LAYERSWEEP_LOG_DAYS, ...), and what nothing needs any more.

    That is: artifacts of trials that are not on a front or were deleted, answers to requests with an Idempotency-Key
    older than a week, and files of uploads that were broken off over a day ago. The service also does so by itself.
    """
    retention = part_of_product("service.operations.retention", "service")
    settings = read_settings(data_dir=data_dir)
    with existing_database(data_dir) as found:
        counts = (retention.preview if dry_run else retention.prune)(found, settings)
    for name, count in counts.items():
        print(f"{count:>9,}  {name}")
    if not any(counts.values()):
        err.print("There is nothing to delete.")
