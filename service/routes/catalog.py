"""/v1/layers, /v1/presets and /v1/targets: what can be swept, from where, and on what."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.sweeps import catalog, catalog_schemas

router = APIRouter(prefix="/v1", tags=["catalog"], route_class=ScopedRoute)


@router.get("/layers")
@needs_scope("read")
def list_layers() -> schemas.Page[catalog_schemas.LayerKind]:
    """Every parameter that can be set or swept: type, bounds, default, meaning, source and a search default."""
    return schemas.Page(items=catalog.layers())


@router.get("/presets")
@needs_scope("read")
def list_presets() -> schemas.Page[catalog_schemas.Preset]:
    """Published configurations to start from, with their citation."""
    return schemas.Page(items=catalog.presets())


@router.get("/targets")
@needs_scope("read")
def list_targets(services: ServicesDep, caller: CallerDep) -> schemas.Page[catalog_schemas.Target]:
    """The runtimes and devices that workers have registered, with what they support."""
    return schemas.Page(items=services.database.read(lambda session: catalog.targets(session, caller.lists)))
