"""A dataset's splits on this machine: downloaded once, verified by their hash."""

from __future__ import annotations

import collections
import hashlib
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from workers.data.batches import DataError
from workers.interruption import Interruption
from workers.service.client import RefusedError, ServiceClient, retry_while_unreachable
from workers.service.leased_trial import LeasedDataset

logger = logging.getLogger("layersweep.worker")

DOWNLOAD_TRIES = 3
DOWNLOAD_SECONDS = 300.0
"""How long a download is tried while the service does not answer."""

POLL_SECONDS = 0.1
"""How often a slot that waits for another one's download looks whether it is interrupted."""


class DatasetCache:
    """Splits of datasets as files named by their hash, shared by all slots and workers of a user on a machine."""

    def __init__(self, service: ServiceClient, folder: Path) -> None:
        self._service = service
        self._folder = folder
        self._verified: set[Path] = set()
        self._locks: collections.defaultdict[Path, threading.Lock] = collections.defaultdict(threading.Lock)

    def split(self, dataset: LeasedDataset, name: str, interruption: Interruption) -> Path:
        """The NPZ file of a split of a lease's dataset, downloaded if it is not here.

        Raises DataError if the service refuses it or sends another content than the lease names, UnreachableError, the
        interruption's cause.
        """
        digest = dataset.splits[name].sha256

        def download(path: Path) -> str:
            return self._service.download(dataset.id, name, path, digest=digest, check=interruption.check)

        path, what = self._folder / f"{digest}.npz", f"the {name} split of {dataset.name!r}"
        return self._verified_file(path, digest, what, download, interruption)

    def checkpoint(self, name: str, digest: str, interruption: Interruption) -> Path:
        """The weights of the checkpoint with this hash, downloaded if they are not here. Raises as `split`."""

        def download(path: Path) -> str:
            return self._service.download_checkpoint(digest, path, check=interruption.check)

        path = self._folder / f"{digest}.safetensors"
        return self._verified_file(path, digest, f"the checkpoint {name!r}", download, interruption)

    def _verified_file(
        self, path: Path, digest: str, what: str, download: Callable[[Path], str], interruption: Interruption
    ) -> Path:
        # Two slots do not download the same.
        with _held(self._locks[path], interruption):
            return self._downloaded(path, digest, what, download, interruption)

    def _downloaded(
        self, path: Path, digest: str, what: str, download: Callable[[Path], str], interruption: Interruption
    ) -> Path:
        if path in self._verified:
            return path
        if path.is_file() and _file_hash(path) == digest:
            self._verified.add(path)
            return path
        for _ in range(DOWNLOAD_TRIES):
            logger.info("downloading %s", what)
            try:
                received = retry_while_unreachable(
                    lambda: download(path), seconds=DOWNLOAD_SECONDS, wait=interruption.wait
                )
            except RefusedError as refusal:
                raise DataError(f"{what} cannot be fetched: {refusal}") from refusal
            if received == digest:
                self._verified.add(path)
                return path
            path.unlink(missing_ok=True)
            interruption.check()
        raise DataError(
            f"{what} came with another content than the lease names ({digest[:12]}…), {DOWNLOAD_TRIES} times"
        )


@contextmanager
def _held(lock: threading.Lock, interruption: Interruption) -> Generator[None]:
    """Hold a lock. Raises the interruption's cause."""
    while not lock.acquire(timeout=POLL_SECONDS):
        interruption.check()
    try:
        yield
    finally:
        lock.release()


def check_lengths(dataset: LeasedDataset, sequence_length: int) -> None:
    """Raise DataError if the training split is shorter than one window with its target, or a split is not there."""
    for name, needed in (("training", sequence_length + 1), ("validation", 2)):
        split = dataset.splits.get(name)
        if split is None:
            raise DataError(f"dataset {dataset.name!r} has no {name} split")
        tokens = split.tokens
        if tokens is not None and tokens < needed:
            raise DataError(
                f"the {name} split of {dataset.name!r} has {tokens} tokens; sequences of {sequence_length} "
                f"need at least {needed}: shorten the sequences or register more text"
            )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
