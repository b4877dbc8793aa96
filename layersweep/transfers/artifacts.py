"""Downloads of what a trial left, each file checked against the hash that it is listed with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from layersweep import files
from layersweep.errors import ServiceFailureError
from layersweep.names import segment
from layersweep.records.sweeps import ArtifactRecord
from layersweep.transport import Transport


def download(transport: Transport, trial: str, listed: Sequence[ArtifactRecord], folder: Path) -> list[Path]:
    """Write the listed files of a trial into a folder, which is made. Raises ServiceFailureError for a wrong hash."""
    files.make_folder(folder)
    return [_download(transport, trial, each, folder / segment(each["name"])) for each in listed]


def _download(transport: Transport, trial: str, artifact: ArtifactRecord, path: Path) -> Path:
    address = f"/v1/trials/{segment(trial)}/artifacts/{segment(artifact['name'])}"
    content = transport.request("GET", address, timeout_seconds=600.0).content
    found = hashlib.sha256(content).hexdigest()
    if found != artifact["sha256"]:
        detail = f"{artifact['name']} came with the SHA-256 {found}; it is listed with {artifact['sha256']}"
        raise ServiceFailureError(502, {"type": "corrupt", "detail": detail})
    with files.written(path) as stream:
        stream.write(content)
    return path
