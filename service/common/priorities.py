"""The priority of a sweep: trials of a sweep with a higher one are given to workers first."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from service.common.schemas import whole

MIN_PRIORITY = -10
MAX_PRIORITY = 10

Priority = Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY), BeforeValidator(whole)]
