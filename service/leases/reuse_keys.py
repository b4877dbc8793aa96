"""What two trials share whose results are interchangeable."""

from __future__ import annotations

from layers.configuration import Configuration
from layersweep import __version__
from service.common.hashing import canonical_hash


def reuse_key(
    *,
    project: str,
    configuration: Configuration,
    dataset_sha256: str | None,
    target_key: str,
    results_version: int,
) -> str:
    """The hash of the configuration with its seeds, the data, the target (runtime, version, device model),
    Layersweep's version, the worker's `RESULTS_VERSION`, and the project."""
    return canonical_hash(
        {
            "project": project,
            "configuration": configuration,
            "dataset": dataset_sha256,
            "target": target_key,
            "layersweep": __version__,
            "results": results_version,
        }
    )
