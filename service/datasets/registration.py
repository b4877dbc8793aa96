"""Datasets from what a user sends: a form with files, or with the hashes of files that were uploaded before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from service.common.names import check_name
from service.database.sessions import Database
from service.datasets import datasets, files, uploads
from service.datasets.schemas import DatasetDetail
from service.errors import UnprocessableError
from service.settings import Settings


def register(
    database: Database,
    settings: Settings,
    fields: Mapping[str, str],
    received: files.Received,
    *,
    project: str,
    record: datasets.Record,
) -> tuple[DatasetDetail, bool]:
    """Register what a form describes; True when it is new. Uploaded files that it names are deleted afterwards.

    `received` holds the files that came with the form, perhaps none. Raises UnprocessableError or PayloadTooLargeError
    for what cannot be read, ConflictError when the name belongs to other content.
    """
    form = files.Form(fields)
    name = form.required("name")
    check_name(name, "dataset")
    uploaded = [] if received.files else uploads.whole_files(settings, project, form.required("uploads"))
    if received.files and "uploads" in form:
        raise UnprocessableError.at(
            "/uploads", "the form has both `file` and `uploads`", "send the data in one of the two ways"
        )
    source = replace(received, files=received.files or uploaded)
    registered = datasets.register(
        database,
        settings,
        files.read(source, form, limit_bytes=settings.max_upload_bytes),
        name=name,
        size_bytes=sum(path.stat().st_size for path in source.files),
        project=project,
        record=record,
    )
    uploads.delete(settings, project, [uploads.hash_of(path) for path in uploaded])
    return registered
