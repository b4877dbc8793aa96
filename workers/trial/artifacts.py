"""What a trial on its sweep's front leaves to be deployed: collected from the attempt's folder, and uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np

from layers.configuration import Configuration
from layers.dataset_facts import DatasetFacts
from workers.engine.protocol import JsonObject
from workers.interruption import Interruption
from workers.service.client import RefusedError, ServiceClient, UnreachableError, retry_while_unreachable
from workers.trial.download.generation_plan import GenerationPlan
from workers.trial.download.readme import DownloadedTrial, readme

Answer = TypeVar("Answer")

logger = logging.getLogger("layersweep.worker")

TRAINING_STATE = "training_state.pt"
"""The artifact that is the state of a stopped training."""

LOADER = Path(__file__).with_name("download") / "loader.py"
UPLOAD_SECONDS = 300.0
"""How long an offer or an upload is tried while the service does not answer."""


class DescribedDataset(TypedDict):
    """What a trial's files say of its dataset."""

    name: str
    sha256: str
    facts: DatasetFacts


class ArtifactDescription(TypedDict):
    """What a trial's files are: the content of configuration.json."""

    trial: str
    runtime: str
    target: str
    configuration: Configuration
    dataset: DescribedDataset
    metrics: dict[str, float]
    environment: JsonObject
    generation: GenerationPlan | None
    """None in the mode forward."""


class ArtifactStore:
    """The service's store of artifacts, for one attempt."""

    def __init__(self, service: ServiceClient, trial: str, attempt: int, interruption: Interruption) -> None:
        self._service = service
        self._attempt = (trial, attempt)
        self._interruption = interruption

    def wants(self, metrics: Mapping[str, float]) -> list[str]:
        """The names of the files that the service keeps of a trial with these metrics; empty: none.

        A service that does not answer for long, or knows no artifacts, wants none: no trial fails for its files.
        """
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        try:
            return self._retry(lambda: self._service.offer(*self._attempt, finite))
        except (UnreachableError, RefusedError) as failure:
            logger.warning("artifacts are not offered: %s", failure)
            return []

    def test_split(self, path: Path) -> str:
        """Download the test split to `path`; its hash. Raises ServiceError, the interruption's cause."""
        return self._retry(lambda: self._service.download_test(*self._attempt, path, check=self._interruption.check))

    def training_state(self, digest: str, path: Path) -> bool:
        """Download the state in which the training was stopped to `path`; False if it is not there any more, which
        is logged. Raises the interruption's cause."""

        def download() -> str:
            return self._service.download_training_state(*self._attempt, digest, path, check=self._interruption.check)

        try:
            return self._retry(download) == digest
        except (UnreachableError, RefusedError) as failure:
            logger.warning("the training begins anew: its state cannot be fetched: %s", failure)
            return False

    def upload(self, name: str, path: Path) -> bool:
        """Upload one file; False if it could not be, which is logged. Raises the interruption's cause."""
        with path.open("rb") as file:
            digest = base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()
        try:
            self._retry(lambda: self._service.upload(*self._attempt, name, path, f"sha-256=:{digest}:"))
        except (UnreachableError, RefusedError) as failure:
            logger.warning("the artifact %s is not kept: %s", name, failure)
            return False
        return True

    def _retry(self, call: Callable[[], Answer]) -> Answer:
        return retry_while_unreachable(call, seconds=UPLOAD_SECONDS, wait=self._interruption.wait)


def collect(
    folder: Path, description: ArtifactDescription, files: Mapping[str, Path], batches: Path, trial: DownloadedTrial
) -> dict[str, Path]:
    """Name -> file of everything that is uploaded, written below `folder` if it is not a file already.

    `files`: what there is, by the name that it gets; `batches`: the NPZ file that the validation loss was of; `trial`:
    what README.md tells of.
    """
    folder.mkdir(exist_ok=True)
    described, validation, loader = (folder / name for name in ("configuration.json", "validation.npz", "run.py"))
    described.write_text(json.dumps(description, indent=2) + "\n")
    with np.load(batches, allow_pickle=False) as arrays:
        np.savez_compressed(validation, allow_pickle=False, **{name: arrays[name] for name in arrays.files})
    shutil.copyfile(LOADER, loader)
    found = {**files, described.name: described, validation.name: validation, loader.name: loader}
    about = folder / "README.md"
    about.write_text(readme(trial, found), encoding="utf-8")
    return {about.name: about, **found}
