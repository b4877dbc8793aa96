"""Downloads of what a trial left. They may be large: each goes to its file as it arrives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from layersweep import files
from layersweep.errors import NotFoundError, ServiceFailureError
from layersweep.names import segment
from layersweep.records.sweeps import ArtifactRecord
from layersweep.transport import Transport

DOWNLOAD_TIMEOUT_SECONDS = 600.0
"""Without a byte: an archive is made before it is sent."""


def download(transport: Transport, trial: str, listed: Sequence[ArtifactRecord], folder: Path) -> list[Path]:
    """Write the listed files of a trial into a folder, which is made. Raises ServiceFailureError for a wrong hash.

    Beside them `tokenizer.json`, if the trial's dataset has one that is still there.
    """
    files.make_folder(folder)
    found = [_download(transport, trial, each, folder / segment(each["name"])) for each in listed]
    for described in (path for path in found if path.name == "configuration.json"):
        if (tokenizer := _tokenizer(transport, described)) is not None:
            path = folder / "tokenizer.json"
            path.write_bytes(tokenizer)
            found.append(path)
    return found


def download_transformers(transport: Transport, trial: str, folder: Path) -> list[Path]:
    """Write a trial's model into a folder, which is made, as a checkpoint of `transformers`; the files."""
    with files.temporary() as archive:
        transport.download(
            f"/v1/trials/{segment(trial)}/transformers.zip", archive, timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS
        )
        return files.unpack(archive, folder)


def _tokenizer(transport: Transport, described: Path) -> bytes | None:
    """That of the dataset that configuration.json describes; None if it has none, or another one by now."""
    try:
        dataset = json.loads(described.read_bytes())["dataset"]
        name, digest = str(dataset["name"]), dataset["facts"]["tokenizer_sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    try:
        content = transport.file(f"/v1/datasets/{segment(name)}/tokenizer")
    except NotFoundError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _download(transport: Transport, trial: str, artifact: ArtifactRecord, path: Path) -> Path:
    address = f"/v1/trials/{segment(trial)}/artifacts/{segment(artifact['name'])}"
    with files.written(path) as stream:
        found = transport.download(address, stream, timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS)
        if found != artifact["sha256"]:
            detail = f"{artifact['name']} came with the SHA-256 {found}; it is listed with {artifact['sha256']}"
            raise ServiceFailureError(502, {"type": "corrupt", "detail": detail})
    return path
