"""/v1/schemas: what programs that write documents check them by."""

from __future__ import annotations

from fastapi import APIRouter, Response

from layers.document_schema.schema import as_json
from service.auth.scopes import ScopedRoute, needs_no_token
from service.common.schemas import Responses

router = APIRouter(prefix="/v1/schemas", tags=["catalog"], route_class=ScopedRoute)

MEDIA_TYPE = "application/schema+json"
_ANSWER: Responses = {200: {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}}


# Editors fetch a schema without a token, and this one says nothing of the installation.
@router.get("/sweep.json", response_class=Response, responses=_ANSWER)
@needs_no_token
async def get_sweep_schema() -> Response:
    """The JSON Schema (draft 2020-12) of the sweep document, for editors and forms."""
    return Response(as_json(), media_type=MEDIA_TYPE)
