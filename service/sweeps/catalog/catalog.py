"""What can be swept: the declared layers, the presets, and the targets that workers offer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from layers.capabilities import Capabilities
from layers.declarations.inference.parameters import INFERENCE
from layers.declarations.model import DECLARATIONS
from layers.declarations.per_layer import BLOCK_PATHS
from layers.declarations.training import TRAINING
from layers.parameter import REQUIRED, Parameter
from layers.presets import PRESETS
from layers.targets import support
from service.database.json_columns import RegisteredTarget
from service.database.models import Worker
from service.leases.schemas import Runtime
from service.leases.workers import serves
from service.sweeps.catalog import schemas as catalog_schemas

SECTIONS = ("model", "attention", "mlp", "norm", "embedding", "training", "inference")


def layers() -> list[catalog_schemas.LayerKind]:
    """Every section with its kinds and parameters, as they are declared."""
    sections: dict[str, dict[str, Parameter]] = {section: {} for section in SECTIONS}
    for path, parameter in DECLARATIONS.items():
        section, _, name = path.rpartition(".")
        sections.setdefault(section or "model", {})[name if section else path] = parameter
    sections["training"], sections["inference"] = dict(TRAINING), dict(INFERENCE)
    return [_kind(section, parameters) for section, parameters in sections.items()]


def presets() -> list[catalog_schemas.Preset]:
    """The published configurations, with where they come from."""
    return [
        catalog_schemas.Preset(
            name=preset.name,
            task=preset.task,
            title=preset.title,
            source=preset.source,
            url=preset.url,
            document=preset.document(),
        )
        for preset in PRESETS.values()
    ]


def targets(session: Session, project: str | None = None) -> list[catalog_schemas.Target]:
    """The targets that workers of a project (None: all workers) have registered, each with the ids of those workers."""
    found: dict[str, catalog_schemas.Target] = {}
    for worker in session.scalars(
        select(Worker).where(serves(project)).order_by(Worker.last_seen_at.desc(), Worker.id)
    ):
        for capabilities in worker.targets:
            key = capabilities["key"]
            if key not in found:
                # The newest registration speaks for the target: drivers and limits change under a key.
                found[key] = catalog_schemas.Target(
                    key=key,
                    runtime=cast("Runtime", capabilities["runtime"]),
                    version=capabilities["version"],
                    device_model=capabilities["device_model"],
                    capabilities=_without_key(capabilities),
                    workers=[],
                )
            found[key].workers.append(worker.id)
    return sorted(found.values(), key=lambda target: target.key)


def _without_key(target: RegisteredTarget) -> Capabilities:
    return cast("Capabilities", {name: value for name, value in target.items() if name != "key"})


def _kind(section: str, parameters: Mapping[str, Parameter]) -> catalog_schemas.LayerKind:
    prefix = f"{section}." if section != "model" else ""
    kind = parameters.get("kind")
    return catalog_schemas.LayerKind(
        section=section,
        kinds=list(kind.choices) if kind is not None else [],
        parameters=[_parameter(f"{prefix}{name}", parameter) for name, parameter in parameters.items()],
    )


def _parameter(path: str, parameter: Parameter) -> catalog_schemas.LayerParameter:
    required = parameter.default is REQUIRED
    return catalog_schemas.LayerParameter(
        path=path,
        type=parameter.type,
        default=None if required else parameter.default,
        required=required,
        minimum=parameter.minimum if math.isfinite(parameter.minimum) else None,
        maximum=parameter.maximum if math.isfinite(parameter.maximum) else None,
        choices=list(parameter.choices),
        meaning=parameter.meaning,
        source=parameter.source,
        search=parameter.search,
        per_layer=path in BLOCK_PATHS,
        targets={
            runtime: catalog_schemas.ParameterSupport(
                supported=each.supported, note=each.note, values=dict(each.values)
            )
            for runtime, each in support(path).items()
        },
    )
