"""Uploads of checkpoints: a folder as `save_pretrained` of Hugging Face's `transformers` writes it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

from layersweep import files
from layersweep.errors import InvalidUsageError
from layersweep.records.catalog import CheckpointDetailRecord
from layersweep.transport import Transport

_FILES = {"config": "config.json", "weights": "model.safetensors", "tokenizer": "tokenizer.json"}
"""Field of the upload -> file of the folder."""
_NEEDED = ("config", "weights")


def upload(transport: Transport, name: str, folder: Path) -> CheckpointDetailRecord:
    """Send a folder's configuration, weights and tokenizer. Raises InvalidUsageError if it lacks one of the first
    two."""
    found = {field: folder / file for field, file in _FILES.items() if (folder / file).is_file()}
    for field in _NEEDED:
        if field not in found:
            raise InvalidUsageError(f"{folder} has no {_FILES[field]}{_why(folder, field)}")
    with contextlib.ExitStack() as stack:
        parts: dict[str, Any] = {
            field: (path.name, stack.enter_context(files.opened(path)), "application/octet-stream")
            for field, path in found.items()
        }
        answer = transport.object("POST", "/v1/checkpoints", data={"name": name}, files=parts, timeout_seconds=3600.0)
    return cast("CheckpointDetailRecord", answer)


def _why(folder: Path, field: str) -> str:
    """What to do about weights that are there in another form."""
    if field != "weights":
        return ""
    if any(folder.glob("model-*-of-*.safetensors")):
        return ": its weights are in several files. Save it again with save_pretrained(max_shard_size='100GB')"
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        return ": pickled weights are never read. Save it again with save_pretrained, which writes safetensors"
    return ""
