"""/v1/layers, /v1/presets and /v1/targets: what can be swept, from where, and on what."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.scheduling.device_model.device_model import describe_model
from service.scheduling.device_model.measured import measured_trials
from service.sweeps.catalog import catalog
from service.sweeps.catalog import schemas as catalog_schemas

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


@router.get("/targets/model", responses=documented(422))
@needs_scope("read")
async def get_device_model(
    services: ServicesDep,
    caller: CallerDep,
    target: Annotated[str, Query(max_length=300, description="the key of a target")],
) -> catalog_schemas.DeviceModel:
    """How well latency, memory and build time of a target are predicted from the trials that were measured on it."""
    trials = await services.read(lambda session: measured_trials(session, target, project=caller.project))
    return await to_thread.run_sync(describe_model, target, trials)
