"""The description of the API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.auth.scopes import ScopedRoute, needs_scope

router = APIRouter(include_in_schema=False, route_class=ScopedRoute)


@router.get("/openapi.json")
@needs_scope("read")
async def get_description(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())
