"""Downloads of what a trial left. They may be large: each goes to its file as it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layersweep import files
from layersweep.errors import ServiceFailureError
from layersweep.names import segment
from layersweep.records.sweeps import ArtifactRecord
from layersweep.transport import Transport

DOWNLOAD_TIMEOUT_SECONDS = 600.0
"""Without a byte: an archive is made before it is sent."""


def download(transport: Transport, trial: str, listed: Sequence[ArtifactRecord], folder: Path) -> list[Path]:
    """Write the listed files of a trial into a folder, which is made. Raises ServiceFailureError for a wrong hash."""
    files.make_folder(folder)
    return [_download(transport, trial, each, folder / segment(each["name"])) for each in listed]


def download_transformers(transport: Transport, trial: str, folder: Path) -> list[Path]:
    """Write a trial's model into a folder, which is made, as a checkpoint of `transformers`; the files."""
    with files.temporary() as archive:
        transport.download(
            f"/v1/trials/{segment(trial)}/transformers.zip", archive, timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS
        )
        return files.unpack(archive, folder)


def _download(transport: Transport, trial: str, artifact: ArtifactRecord, path: Path) -> Path:
    address = f"/v1/trials/{segment(trial)}/artifacts/{segment(artifact['name'])}"
    with files.written(path) as stream:
        found = transport.download(address, stream, timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS)
        if found != artifact["sha256"]:
            detail = f"{artifact['name']} came with the SHA-256 {found}; it is listed with {artifact['sha256']}"
            raise ServiceFailureError(502, {"type": "corrupt", "detail": detail})
    return path
