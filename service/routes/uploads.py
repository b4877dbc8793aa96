"""/v1/uploads: files that arrive in several requests, to be registered as datasets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import IO, Annotated

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Header, Request
from fastapi import Path as PathParameter

from service.auth.scopes import ScopedRoute, needs_scope
from service.common.schemas import Schema
from service.datasets import uploads
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.uploads import in_blocks
from service.http.write_requests import UnkeyedWriteRequestDep
from service.routes.datasets import UNLIMITED

router = APIRouter(prefix="/v1/uploads", tags=["datasets"], route_class=ScopedRoute)

Sha256 = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole file")]


class Upload(Schema):
    """How much of a file has arrived."""

    sha256: str
    received_bytes: int


@router.get("/{sha256}", responses=documented(404))
@needs_scope("submit")
def get_upload(sha256: Sha256, services: ServicesDep, caller: CallerDep) -> Upload:
    """How much of a file has arrived: where to go on. 404: nothing has."""
    return Upload(sha256=sha256, received_bytes=uploads.received_bytes(services.settings, caller.project, sha256))


@router.patch(
    "/{sha256}",
    max_body_size=UNLIMITED,
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=documented(409, 413),
)
@needs_scope("submit")
async def append_to_upload(
    sha256: Sha256,
    request: Request,
    call: UnkeyedWriteRequestDep,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0, le=1 << 62, description="where the piece begins")],
) -> Upload:
    """Send the next piece of a file. What arrives of a piece stays, also if its connection breaks.

    When all has arrived, `POST /v1/datasets` with the field `uploads` registers it. What is not registered a day after
    its last piece is deleted.
    """
    settings, end = call.services.settings, offset
    async with _opened(uploads.growing(settings, call.project, sha256, offset)) as file:
        async for block in in_blocks(request.stream()):
            end += len(block)
            uploads.check_size(settings, end)
            await to_thread.run_sync(file.write, block)
    return Upload(sha256=sha256, received_bytes=end)


@asynccontextmanager
async def _opened(growing: AbstractContextManager[IO[bytes]]) -> AsyncGenerator[IO[bytes]]:
    """The same file, opened and closed outside of the event loop."""
    file = await to_thread.run_sync(growing.__enter__)
    try:
        yield file
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(growing.__exit__, None, None, None)


@router.delete("/{sha256}", status_code=204)
@needs_scope("submit")
def delete_upload(sha256: Sha256, call: UnkeyedWriteRequestDep) -> None:
    """Delete what has arrived of a file."""
    uploads.delete(call.services.settings, call.project, [sha256])
