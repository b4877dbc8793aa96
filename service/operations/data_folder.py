"""Whether the data folder is the one that the database's rows were written beside: another database's, or an empty one,
has none of their files."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database import outages
from service.database.models import Artifact, Dataset
from service.database.sessions import Database
from service.datasets.stored_splits import folder
from service.errors import UnavailableError
from service.settings import Settings

MOST_LOOKED_FOR = 100
"""Of each kind: the newest. One that is there is enough."""


class WrongDataFolderError(UnavailableError):
    """The database names files, and none of them lies in the data folder."""


def check(database: Database, settings: Settings) -> None:
    """Raise CannotStoreError if the folder is away or cannot be written, WrongDataFolderError if it is another's."""
    outages.check_folder(settings.data_dir, "the data folder (LAYERSWEEP_DATA_DIR)")
    for kind, paths in database.read(lambda session: _named(session, settings)).items():
        if paths and not any(path.is_dir() for path in paths):
            raise WrongDataFolderError(
                f"the database names {kind}, and none of them lies in the data folder: set LAYERSWEEP_DATA_DIR to the "
                "folder that belongs to this database, or restore its files from a backup"
            )


def _named(session: Session, settings: Settings) -> dict[str, list[Path]]:
    """The folders that some rows name, by kind. Built-in datasets are put back at each start, so they say nothing."""
    digests = sa.select(Dataset.sha256).where(~Dataset.builtin).order_by(Dataset.id.desc()).limit(MOST_LOOKED_FOR)
    named = {"datasets": [folder(settings.data_dir, digest) for digest in session.scalars(digests)]}
    kept = Path(settings.artifacts_url)
    if kept.is_absolute() and kept.is_relative_to(settings.data_dir.absolute()):
        trials = sa.select(Artifact.trial_id).distinct().order_by(Artifact.trial_id.desc()).limit(MOST_LOOKED_FOR)
        named["artifacts"] = [kept / trial for trial in session.scalars(trials)]
    return named
