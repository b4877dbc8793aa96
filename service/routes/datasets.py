"""/v1/datasets: upload, list, one with its profile, the arrays for workers, delete."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from layersweep.json_values import JsonObject
from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.datasets import datasets, files
from service.datasets import schemas as dataset_schemas
from service.datasets.pairs import PAIR_TOKENIZERS
from service.datasets.texts import TOKENIZERS
from service.errors import ForbiddenError, PayloadTooLargeError, UnprocessableError
from service.http import conditional_reads
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.page_reads import PageReadDep
from service.http.uploads import OVERHEAD_BYTES, MultipartReader, arriving
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequestDep

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=ScopedRoute)

MAX_DIGITS = 18
"""Of a length that is read as a number: thousands of digits are none to the interpreter."""

UNLIMITED = 1 << 62
"""`MultipartReader` holds the body to the setting, and says so; the application's limit is that of documents."""

UPLOAD: JsonObject = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", "file"],
                    "properties": {
                        "name": {"type": "string", "pattern": f"^{datasets.NAME_PATTERN.pattern}$"},
                        "task": {"type": "string", "enum": list(files.TASKS), "default": "causal_lm"},
                        "tokenizer": {
                            "type": "string",
                            "enum": list(dict.fromkeys([*TOKENIZERS, *PAIR_TOKENIZERS])),
                            "description": "causal_lm: byte (default) or char; seq2seq, of the sources: char (default) "
                            "or whitespace; classification has none",
                        },
                        "target_tokenizer": {
                            "type": "string",
                            "enum": list(PAIR_TOKENIZERS),
                            "description": "seq2seq alone, of the targets; default: as of the sources",
                        },
                        "validation": {
                            "type": "number",
                            "default": 0.1,
                            "description": "fraction of the data; of a text, what follows the training split",
                        },
                        "test": {
                            "type": "number",
                            "default": 0.0,
                            "description": "fraction of the data, of a text its end; never given to a sweep",
                        },
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "causal_lm: a text; classification: CSV with a column `label`, or NPZ with "
                            "`tokens` and `labels`; seq2seq: lines of a source, a tab and its target",
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    max_body_size=UNLIMITED,
    openapi_extra=UPLOAD,
    response_model=dataset_schemas.DatasetDetail,
    responses=documented(409, 413, 415, 422)
    | {200: {"model": dataset_schemas.DatasetDetail, "description": "it is there already"}},
)
@needs_scope("submit")
async def upload_dataset(request: Request, call: WriteRequestDep) -> Response:
    """Register a file as a dataset. The same content under the same name again answers 200 with what is there."""
    services = call.services
    limit = services.settings.max_upload_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > MAX_DIGITS or int(announced) > limit + OVERHEAD_BYTES):
        raise PayloadTooLargeError(f"the file is larger than the {limit:,} bytes that are accepted here")
    folder = await to_thread.run_sync(datasets.uploads_folder, services.settings)
    async with arriving(folder) as file:
        reader = MultipartReader(request.headers.get("content-type", ""), file, limit)
        await reader.read(request.stream())
        size_bytes = reader.file_bytes
        if size_bytes is None:
            raise UnprocessableError("the field `file` is missing: send the data as a file")

        def digest() -> str:
            with Path(file.name).open("rb") as read:
                return hashlib.file_digest(read, "sha256").hexdigest()

        parts = (json.dumps(sorted(reader.fields.items())), await to_thread.run_sync(digest))
        given = await call.kept(*parts)
        if given is not None:
            return _registered(*given)

        def register() -> tuple[dataset_schemas.DatasetDetail, bool]:
            form = files.Form(reader.fields)
            name = form.required("name")
            datasets.check_name(name)
            content = files.read(Path(file.name), form, limit_bytes=limit)
            return datasets.register(
                services.database,
                services.settings,
                content,
                name=name,
                size_bytes=size_bytes,
                project=call.project,
                record=lambda session, dataset: call.record(session, "dataset.create", dataset),
            )

        detail, created = await to_thread.run_sync(register)
        answer = (201 if created else 200, detail.model_dump(mode="json"))
        await call.keep(answer, *parts)
    return _registered(*answer)


def _registered(status: int, body: JsonObject) -> Response:
    return JSONResponse(body, status, {"Location": f"/v1/datasets/{body['id']}"})


@router.get("")
@needs_scope("read")
def list_datasets(pages: PageReadDep) -> schemas.Page[dataset_schemas.Dataset]:
    """Every registered dataset, oldest first."""
    return pages.answer(
        lambda session: datasets.page(session, project=pages.project, page_size=pages.size, page_token=pages.token),
        datasets.to_schema,
    )


@router.get("/{dataset}", responses=documented(404))
@needs_scope("read")
def get_dataset(dataset: str, services: ServicesDep, caller: CallerDep) -> dataset_schemas.DatasetDetail:
    """One dataset, by name or id, with its profile: sizes, repetition across splits, losses and accuracies to beat."""
    return services.database.read(lambda session: datasets.to_detail(datasets.get(session, dataset, caller.project)))


@router.get(
    "/{dataset}/content",
    response_class=FileResponse,
    responses=documented(403, 404)
    | {
        200: {
            "content": {"application/octet-stream": {}},
            "description": "NPZ, its arrays by task: `tokens`; `tokens`, `labels`, ...; `source`, `target`, ...",
        }
    }
    | conditional_reads.NOT_MODIFIED,
)
@needs_scope("read", "work")
def get_content(
    dataset: str,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    split: Annotated[Literal["training", "validation", "test"], Query(alias="part")],
) -> Response:
    """The arrays of a split as an NPZ file. The test split is held back: it answers 403."""
    if split == "test":
        raise ForbiddenError("the test split is held back: what has chosen a configuration must not have seen it")
    path, digest = services.database.read(
        lambda session: datasets.content_path(session, services.settings, dataset, split, caller.project)
    )
    etag = f'"{digest}"'
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": etag})
    return FileResponse(path, media_type="application/octet-stream", headers={"ETag": etag})


@router.delete("/{dataset}", status_code=204, responses=documented(404, 409))
@needs_scope("submit")
def delete_dataset(dataset: str, call: UnkeyedWriteRequestDep) -> None:
    """Delete a dataset that no sweep uses; built-in ones stay."""
    services = call.services
    datasets.delete(
        services.database,
        services.settings,
        dataset,
        call.project,
        lambda session, deleted: call.record(session, "dataset.delete", deleted),
    )
