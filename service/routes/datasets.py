"""/v1/datasets: upload, list, one with its profile, the arrays for workers, delete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from layersweep.json_values import JsonObject
from service.auth.scopes import ScopedRoute, needs_scope
from service.checkpoints import checkpoints
from service.common import names, schemas
from service.common.hashing import file_hash
from service.datasets import datasets, files, registration
from service.datasets import schemas as dataset_schemas
from service.datasets.pairs import PAIR_TOKENIZERS
from service.datasets.texts.subwords import MOST_FILE_BYTES
from service.errors import ForbiddenError, PayloadTooLargeError, UnprocessableError
from service.http import conditional_reads
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.page_reads import PageReadDep
from service.http.uploads import OVERHEAD_BYTES, MultipartReader, ReceivedFile, arriving_files
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequest, WriteRequestDep

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
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "pattern": f"^{names.NAME_PATTERN.pattern}$"},
                        "task": {"type": "string", "enum": list(files.TASKS), "default": "causal_lm"},
                        "tokenizer": {
                            "type": "string",
                            "pattern": "^(byte|char|whitespace|bpe:[0-9]+|checkpoint:.+)$",
                            "examples": ["char", "bpe:8192", "checkpoint:smollm2"],
                            "description": "causal_lm: byte (default), char, bpe:N: byte-level BPE of N tokens, "
                            "trained on the training split, or checkpoint:NAME: that of a checkpoint; seq2seq, of the "
                            "sources: char (default) or whitespace; classification has none",
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
                        files.TOKENIZER_FILE: {
                            "type": "string",
                            "format": "binary",
                            "description": "causal_lm, instead of `tokenizer`: a tokenizer.json of the library "
                            "`tokenizers`",
                        },
                        "column": {
                            "type": "string",
                            "description": "causal_lm: the files are JSON Lines or Parquet, and this column is text",
                        },
                        "uploads": {
                            "type": "string",
                            "description": "instead of `file`: the SHA-256 of files that were sent to /v1/uploads, in "
                            "order, with commas between",
                        },
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "causal_lm: a text, or several, one behind the other; "
                            "classification: CSV with a column `label`, or NPZ with `tokens` and `labels`; seq2seq: "
                            "lines of a source, a tab and its target",
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
    async with arriving_files(folder) as scratch:
        limits = {"file": limit, files.TOKENIZER_FILE: min(limit, MOST_FILE_BYTES)}
        reader = MultipartReader(request.headers.get("content-type", ""), scratch, limits)
        await reader.read(request.stream())
        parts = (json.dumps(sorted(reader.fields.items())), *await to_thread.run_sync(_digests, reader.files))
        given = await call.kept(*parts)
        if given is not None:
            return _registered(*given)
        detail, created = await to_thread.run_sync(_register, call, reader, scratch)
        answer = (201 if created else 200, detail.model_dump(mode="json"))
        await call.keep(answer, *parts)
    return _registered(*answer)


def _digests(received: Mapping[str, Sequence[ReceivedFile]]) -> list[str]:
    return [file_hash(file.path) for _, some in sorted(received.items()) for file in some]


def _register(call: WriteRequest, reader: MultipartReader, scratch: Path) -> tuple[dataset_schemas.DatasetDetail, bool]:
    """Register what an upload holds; True when it is new."""
    services = call.services

    def find_tokenizer(checkpoint: str) -> Path:
        return services.database.read(
            lambda session: checkpoints.tokenizer_file(
                services.settings, checkpoints.get(session, checkpoint, call.project)
            )
        )

    sent = [file.path for file in reader.files.get("file", ())]
    tokenizer = _one(reader.files.get(files.TOKENIZER_FILE, ()))
    return registration.register(
        services.database,
        services.settings,
        reader.fields,
        files.Received(sent, tokenizer, scratch, find_tokenizer),
        project=call.project,
        record=lambda session, dataset: call.record(session, "dataset.create", dataset, project=call.project),
    )


def _one(received: Sequence[ReceivedFile]) -> Path | None:
    if len(received) > 1:
        raise UnprocessableError.at(f"/{files.TOKENIZER_FILE}", f"there are {len(received)} tokenizers", "send one")
    return received[0].path if received else None


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
        raise ForbiddenError("the test split is held back: only the trials of a confirmation may read it")
    path, digest = services.database.read(
        lambda session: datasets.content_path(session, services.settings, dataset, split, caller.project)
    )
    return _file(path, digest, "application/octet-stream", request)


@router.get(
    "/{dataset}/tokenizer",
    response_class=FileResponse,
    responses=documented(404)
    | {200: {"content": {"application/json": {}}, "description": "a tokenizer.json of the library `tokenizers`"}}
    | conditional_reads.NOT_MODIFIED,
)
@needs_scope("read", "work")
def get_tokenizer(dataset: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """The tokenizer of a text of parts of words (`bpe:N` or a file). Bytes and characters have none: it answers 404."""
    path, digest = services.database.read(
        lambda session: datasets.tokenizer_path(session, services.settings, dataset, caller.project)
    )
    return _file(path, digest, "application/json", request)


def _file(path: Path, digest: str, media_type: str, request: Request) -> Response:
    """A file, or 304 to whom has it."""
    etag = f'"{digest}"'
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": etag})
    return FileResponse(path, media_type=media_type, headers={"ETag": etag})


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
        lambda session, deleted: call.record(session, "dataset.delete", deleted, project=call.project),
    )
