"""/v1/checkpoints: upload, list, one with its configuration, the weights for workers, delete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from layersweep.json_values import JsonObject
from service.auth.scopes import ScopedRoute, needs_scope
from service.checkpoints import checkpoints, reading
from service.checkpoints import schemas as checkpoint_schemas
from service.common import names, schemas
from service.common.hashing import file_hash
from service.datasets.datasets import uploads_folder
from service.datasets.texts.subwords import MOST_FILE_BYTES
from service.errors import UnprocessableError
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.page_reads import PageReadDep
from service.http.uploads import MultipartReader, ReceivedFile, arriving_files
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequestDep
from service.routes.datasets import UNLIMITED

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"], route_class=ScopedRoute)

_FILE: JsonObject = {"type": "string", "format": "binary"}
UPLOAD: JsonObject = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", reading.CONFIG, reading.WEIGHTS],
                    "properties": {
                        "name": {"type": "string", "pattern": f"^{names.NAME_PATTERN.pattern}$"},
                        reading.CONFIG: {**_FILE, "description": "config.json of Hugging Face's transformers"},
                        reading.WEIGHTS: {**_FILE, "description": "model.safetensors; pickled files are never read"},
                        reading.TOKENIZER: {**_FILE, "description": "tokenizer.json, if there is one"},
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
    response_model=checkpoint_schemas.CheckpointDetail,
    responses=documented(409, 413, 415, 422)
    | {200: {"model": checkpoint_schemas.CheckpointDetail, "description": "it is there already"}},
)
@needs_scope("submit")
async def upload_checkpoint(request: Request, call: WriteRequestDep) -> Response:
    """Register a checkpoint of Hugging Face's `transformers`, for sweeps to begin with.

    The same content under the same name again answers 200 with what is there.
    """
    services = call.services
    folder = await to_thread.run_sync(uploads_folder, services.settings)
    async with arriving_files(folder) as scratch:
        limits = {
            reading.CONFIG: reading.MOST_CONFIG_BYTES,
            reading.WEIGHTS: services.settings.max_upload_bytes,
            reading.TOKENIZER: MOST_FILE_BYTES,
        }
        reader = MultipartReader(request.headers.get("content-type", ""), scratch, limits)
        await reader.read(request.stream())
        files = _one_each(reader.files)
        name = _name(reader.fields, files)
        digests = await to_thread.run_sync(_digests, files)
        given = await call.kept(name, *digests)
        if given is not None:
            return _registered(*given)

        def register() -> tuple[checkpoint_schemas.CheckpointDetail, bool]:
            return checkpoints.register(
                services.database,
                services.settings,
                files,
                scratch,
                name=name,
                project=call.project,
                record=lambda session, made: call.record(session, "checkpoint.create", made, project=call.project),
            )

        detail, created = await to_thread.run_sync(register)
        answer = (201 if created else 200, detail.model_dump(mode="json"))
        await call.keep(answer, name, *digests)
    return _registered(*answer)


def _one_each(received: Mapping[str, Sequence[ReceivedFile]]) -> dict[str, Path]:
    for field, files in received.items():
        if len(files) > 1:
            raise UnprocessableError.at(f"/{field}", f"the form has {len(files)} files `{field}`", "send one")
    return {field: file.path for field, (file,) in received.items()}


def _name(fields: Mapping[str, str], files: Mapping[str, Path]) -> str:
    for field in (reading.CONFIG, reading.WEIGHTS):
        if field not in files:
            raise UnprocessableError.at(f"/{field}", f"the field `{field}` is missing", "send it as a file")
    unknown = fields.keys() - {"name"}
    if unknown:
        detail = f"the field `{min(unknown)}` means nothing here"
        raise UnprocessableError.at(f"/{min(unknown)}", detail, "the fields are name and the files")
    if not fields.get("name"):
        raise UnprocessableError.at("/name", "the field `name` is missing", "name the checkpoint")
    return fields["name"]


def _digests(files: Mapping[str, Path]) -> list[str]:
    return [json.dumps([name, file_hash(path)]) for name, path in sorted(files.items())]


def _registered(status: int, body: JsonObject) -> Response:
    return JSONResponse(body, status, {"Location": f"/v1/checkpoints/{body['id']}"})


@router.get("")
@needs_scope("read")
def list_checkpoints(pages: PageReadDep) -> schemas.Page[checkpoint_schemas.Checkpoint]:
    """Every registered checkpoint, oldest first."""
    return pages.answer(
        lambda session: checkpoints.page(session, project=pages.project, page_size=pages.size, page_token=pages.token),
        checkpoints.to_schema,
    )


@router.get("/{checkpoint}", responses=documented(404))
@needs_scope("read")
def get_checkpoint(checkpoint: str, services: ServicesDep, caller: CallerDep) -> checkpoint_schemas.CheckpointDetail:
    """One checkpoint, by name or id, with the model that it describes."""
    return services.database.read(
        lambda session: checkpoints.to_detail(checkpoints.get(session, checkpoint, caller.project))
    )


@router.get(
    "/{checkpoint}/weights",
    response_class=FileResponse,
    responses=documented(404) | {200: {"content": {"application/octet-stream": {}}}},
)
@needs_scope("read", "work")
def get_weights(checkpoint: str, services: ServicesDep, caller: CallerDep) -> FileResponse:
    """Its weights as safetensors, by the names of Layersweep's modules; also by its `sha256`, which is the `ETag`."""
    row = services.database.read(
        lambda session: (
            checkpoints.by_hash(session, checkpoint, caller.bound_to)
            or checkpoints.get(session, checkpoint, caller.project)
        )
    )
    path = checkpoints.weights_path(services.settings, row)
    return FileResponse(path, media_type="application/octet-stream", headers={"ETag": f'"{row.sha256}"'})


@router.delete("/{checkpoint}", status_code=204, responses=documented(404, 409))
@needs_scope("submit")
def delete_checkpoint(checkpoint: str, call: UnkeyedWriteRequestDep) -> None:
    """Delete a checkpoint that no sweep needs any more."""
    checkpoints.delete(
        call.services.database,
        call.services.settings,
        checkpoint,
        call.project,
        lambda session, deleted: call.record(session, "checkpoint.delete", deleted, project=call.project),
    )
