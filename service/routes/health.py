"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service.auth.scopes import ScopedRoute, needs_no_token
from service.database import outages
from service.database.sessions import SchemaError
from service.errors import UnavailableError
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.operations import data_folder

router = APIRouter(tags=["health"], route_class=ScopedRoute)


class Health(BaseModel):
    status: str


@router.get("/healthz")
@needs_no_token
async def is_alive() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", responses=documented(503))
@needs_no_token
def is_ready(services: ServicesDep) -> Health:
    """The database answers and has the schema that this program needs, and its own data folder can be written."""
    try:
        services.database.check_schema()
        data_folder.check(services.database, services.settings)
    except SchemaError as error:
        raise UnavailableError(str(error)) from error
    except SQLAlchemyError as error:
        raise outages.answer_to(error) or UnavailableError("the database does not answer") from error
    embedded = outages.database_folder(services.database.url)
    if embedded is not None:
        outages.check_folder(embedded, "the database's folder")
    return Health(status="ready")
