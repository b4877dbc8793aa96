"""The state of a stopped training as a file, from which it goes on as if it had not been stopped."""

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path
from typing import cast

import torch

from workers.training.loop import TrainingState

_log = logging.getLogger(__name__)

FORMAT = 1
"""Of what a file holds."""


def write(path: Path, state: TrainingState) -> None:
    """Write the state to `path`."""
    torch.save({"format": FORMAT, "state": state}, path)


def read(path: Path) -> TrainingState | None:
    """The state in the file at `path`, on the processor. Tensors and plain values alone are read: no code runs.

    None, and a line in the log, if the file is none or of another version: the training then begins anew.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        _log.warning("the state of the training cannot be read, it begins anew: %s", error)
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        _log.warning("the state of the training is of another version: it begins anew")
        return None
    return cast("TrainingState", found["state"])
