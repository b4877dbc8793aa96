"""Artifacts: offered and uploaded by the attempt that made them, listed and downloaded by anybody."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.confirmation import confirmations
from service.datasets import datasets
from service.errors import UnprocessableError
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.uploads import arriving, receive
from service.http.write_requests import WriteRequestDep
from service.operations import artifacts, transformers_export
from service.operations import schemas as artifact_schemas
from service.routes.datasets import UNLIMITED
from service.routes.leases import Attempt

router = APIRouter(prefix="/v1", tags=["artifacts"], responses=documented(404), route_class=ScopedRoute)

ContentDigest = Annotated[
    str, Header(alias="Content-Digest", max_length=200, description="sha-256=:BASE64: of the body (RFC 9530)")
]
BINARY: schemas.Responses = {200: {"content": {"application/octet-stream": {}}}}


@router.post(
    "/leases/{trial}/{attempt}:offer", response_model=artifact_schemas.ArtifactAnswer, responses=documented(409)
)
@needs_scope("work")
async def offer_artifacts(
    trial: str, attempt: Attempt, body: artifact_schemas.ArtifactOffer, call: WriteRequestDep
) -> Response:
    """Ask whether the attempt's artifacts are wanted, given the metrics that it is about to finish with."""

    def answer(session: Session) -> artifact_schemas.ArtifactAnswer:
        wanted = artifacts.is_wanted(session, call.services.settings, trial, attempt, body.metrics)
        return artifact_schemas.ArtifactAnswer(wanted=list(artifacts.NAMES) if wanted else [])

    return await call.small_answer(answer)


@router.put(
    "/leases/{trial}/{attempt}/artifacts/{name}",
    status_code=204,
    max_body_size=UNLIMITED,
    openapi_extra={"requestBody": {"required": True, "content": BINARY[200]["content"]}},
    responses=documented(409, 413, 422),
)
@needs_scope("work")
async def upload_artifact(
    trial: str, attempt: Attempt, name: str, request: Request, services: ServicesDep, content_digest: ContentDigest
) -> None:
    """Upload one file of a running attempt. The same again replaces it."""
    artifacts.check_name(name)
    await services.read(lambda session: artifacts.check_held(session, trial, attempt))
    folder = await to_thread.run_sync(datasets.uploads_folder, services.settings)
    async with arriving(folder) as file:
        digest = await receive(request.stream(), file, services.settings.max_upload_bytes, name)
        if content_digest != f"sha-256=:{base64.b64encode(digest).decode()}:":
            raise UnprocessableError(f"{name} was damaged on its way: its SHA-256 is {digest.hex()}")
        path, sha256 = Path(file.name), digest.hex()
        await to_thread.run_sync(
            artifacts.store, services.database, services.settings, trial, attempt, name, path, sha256
        )


@router.get(
    "/leases/{trial}/{attempt}/training-state", response_class=StreamingResponse, responses=documented(409) | BINARY
)
@needs_scope("work")
def get_training_state(trial: str, attempt: Attempt, services: ServicesDep) -> StreamingResponse:
    """The state in which the training of a promoted trial was stopped, for its running attempt."""
    row = services.database.read(lambda session: artifacts.training_state(session, trial, attempt))
    headers = {"ETag": f'"{row.sha256}"', "Content-Length": str(row.size_bytes)}
    return StreamingResponse(
        artifacts.read(services.settings, row), media_type="application/octet-stream", headers=headers
    )


@router.get("/leases/{trial}/{attempt}/test", response_class=FileResponse, responses=documented(403, 409) | BINARY)
@needs_scope("work")
def get_test_split(trial: str, attempt: Attempt, services: ServicesDep) -> FileResponse:
    """The test split of the dataset, for a running attempt of a confirmation and for nobody else."""
    path = services.database.read(lambda session: confirmations.test_split(session, services.settings, trial, attempt))
    return FileResponse(path, media_type="application/octet-stream")


@router.get("/trials/{trial}/artifacts")
@needs_scope("read")
def list_artifacts(trial: str, services: ServicesDep) -> schemas.Page[artifact_schemas.Artifact]:
    """What a trial on the front left to be deployed: files with their sizes and hashes. Empty: none was kept."""
    rows = services.database.read(lambda session: artifacts.of_trial(session, trial))
    return schemas.Page(items=[artifacts.to_schema(row) for row in rows])


@router.get("/trials/{trial}/artifacts/{name}", response_class=StreamingResponse, responses=BINARY)
@needs_scope("read")
def get_artifact(trial: str, name: str, services: ServicesDep) -> StreamingResponse:
    """One file. Its `ETag` is its SHA-256."""
    row = services.database.read(lambda session: artifacts.find(session, trial, name))
    headers = {
        "ETag": f'"{row.sha256}"',
        "Content-Length": str(row.size_bytes),
        "Content-Disposition": f'attachment; filename="{row.name}"',
    }
    return StreamingResponse(
        artifacts.read(services.settings, row), media_type="application/octet-stream", headers=headers
    )


@router.get("/trials/{trial}/transformers", responses=documented(422))
@needs_scope("read")
def get_transformers_description(trial: str, services: ServicesDep) -> artifact_schemas.CheckpointDescription:
    """How a trial's model leaves for Hugging Face's `transformers`; 422 with what is in the way where it cannot."""
    return services.database.read(lambda session: transformers_export.describe(session, trial))


@router.get(
    "/trials/{trial}/transformers.zip",
    response_class=FileResponse,
    responses=documented(422) | {200: {"content": {"application/zip": {}}}},
)
@needs_scope("read")
def get_transformers_archive(trial: str, services: ServicesDep) -> FileResponse:
    """The checkpoint that `from_pretrained` reads: config.json, model.safetensors, the tokenizer of a text, a model
    card."""
    path = transformers_export.archive(services.database, services.settings, trial)
    headers = {"Content-Disposition": 'attachment; filename="transformers.zip"'}
    gone = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/zip", headers=headers, background=gone)
