"""The client of a Layersweep service.

from layersweep import Client

client = Client()                                    # LAYERSWEEP_SERVER, or http://127.0.0.1:8420
sweep = client.submit("examples/quickstart.yaml")
sweep.wait()
for row in sweep.front():
    print(row["number"], row["metrics"]["latency_ms_p50"], row["metrics"]["validation_loss"])
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Unpack, cast

import httpx2

from layersweep import documents
from layersweep.client.administration import AdministrationCalls
from layersweep.client.catalog import CatalogCalls
from layersweep.documents import Source
from layersweep.errors import InvalidUsageError, NotFoundError
from layersweep.leaderboard import Leaderboard, LeaderboardOptions, several
from layersweep.names import is_id, newest_of_name, segment, split_trial
from layersweep.records.sweep_requests import SweepFilters
from layersweep.records.sweeps import (
    ArtifactRecord,
    EventRecord,
    SweepPreview,
    TrialDetailRecord,
)
from layersweep.sweep import Sweep
from layersweep.transfers import artifacts
from layersweep.transport import BearerToken, Query, Transport

DEFAULT_SERVER = "http://127.0.0.1:8420"


class Client(CatalogCalls, AdministrationCalls):
    """Speaks to one Layersweep service.

    `server` is its address (default: LAYERSWEEP_SERVER, else http://127.0.0.1:8420), `token` what it asks for (default:
    LAYERSWEEP_TOKEN), `project` where to work (default: LAYERSWEEP_PROJECT, else the token's own). Lost connections and
    answers like 503 are retried for `retry_seconds`; whatever remains is raised as a LayersweepError. Usable from
    several threads, and as a context manager.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        project: str | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.transport = Transport(
            server or os.environ.get("LAYERSWEEP_SERVER") or DEFAULT_SERVER,
            token or BearerToken.of_environment(),
            project=project or os.environ.get("LAYERSWEEP_PROJECT"),
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
            transport=transport,
            sleep=sleep,
        )

    @property
    def server(self) -> str:
        """The address of the service."""
        return self.transport.server

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    # sweeps

    def submit(
        self,
        document: Source,
        *,
        priority: int | None = None,
        tags: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> Sweep:
        """Submit a sweep document: a path, YAML or JSON text, or a mapping.

        Trials of a sweep with a higher `priority` (-10 to 10, 0 if it is left out) are executed first.
        `tags` are at most 16, each of 1 to 32 of a-z, 0-9, '.', '_' and '-'; `client.sweeps(tag=...)` finds it by one.
        Sent with an Idempotency-Key, so that a submission whose answer was lost is not made twice; pass your own to
        make that hold across processes. Raises InvalidDocumentError with all that is wrong in the document.
        """
        body, content_type = documents.read(document)
        headers = {"Content-Type": content_type, "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        asked: Query = {"priority": priority, "tag": list(tags)}
        sent = self.transport.object("POST", "/v1/sweeps", params=asked, content=body, headers=headers)
        return Sweep(self.transport, sent)

    def validate(self, document: Source) -> SweepPreview:
        """Check a sweep document as `submit` would, and store nothing.

        The answer has the document as it was understood, the size of its space, the share of feasible points and the
        sampler. Raises InvalidDocumentError like `submit`.
        """
        body, content_type = documents.read(document)
        headers = {"Content-Type": content_type}
        return self.transport.object(
            "POST", "/v1/sweeps", named_by="valid", params={"validate_only": "true"}, content=body, headers=headers
        )

    def clone(self, sweep: str) -> Sweep:
        """Post the document of a sweep again, as a new sweep with the same tags.

        The sweep is named by its id, or the newest of this name.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return Sweep(
            self.transport, self.transport.object("POST", f"/v1/sweeps/{self._sweep_id(sweep)}:clone", headers=headers)
        )

    def delete_sweep(self, sweep: str) -> None:
        """Delete a sweep that has ended, with its trials and events; named by its id, or the newest of this name."""
        self.transport.delete(f"/v1/sweeps/{self._sweep_id(sweep)}")

    def sweep(self, sweep: str) -> Sweep:
        """The sweep with this id, or the newest of this name. Raises NotFoundError."""
        if is_id(sweep):
            try:
                return self._sweep_by_id(sweep.upper())
            except NotFoundError:
                # A name can look like an id.
                return self._sweep_by_id(self._newest(sweep))
        return self._sweep_by_id(self._newest(sweep))

    def _sweep_by_id(self, sweep: str) -> Sweep:
        return Sweep(self.transport, self.transport.object("GET", f"/v1/sweeps/{segment(sweep)}"))

    def _sweep_id(self, sweep: str) -> str:
        return segment(sweep.upper()) if is_id(sweep) else self._newest(sweep)

    def _newest(self, name: str) -> str:
        """The id of the newest sweep of this name. Raises NotFoundError, InvalidUsageError if projects share it."""
        if not name:
            raise InvalidUsageError("'' is not an id or a name")
        if (found := newest_of_name(self.pages("/v1/sweeps", {"name": name, "archived": "show"}), name)) is not None:
            return found
        detail = f"no sweep has the id or the name {name!r}: see `layersweep sweep list`"
        raise NotFoundError(404, {"type": "not-found", "detail": detail})

    def sweeps(self, **wanted: Unpack[SweepFilters]) -> Iterator[Sweep]:
        """All sweeps but the archived ones, newest first, or those that keep the filters, in the order of `sort`."""
        filters: Query = {**cast("Query", wanted), "state": several(wanted.get("state")) or None}
        return (Sweep(self.transport, record) for record in self.pages("/v1/sweeps", filters))

    def trial(self, trial: str) -> TrialDetailRecord:
        """One trial with its configuration, attempts, losses and measurements, by its id or as "SWEEP/NUMBER".

            client.trial("shakespeare/21")

        SWEEP is the id of a sweep, or its name (the newest of that name). Raises NotFoundError, and InvalidUsageError
        for a number alone: numbers are a sweep's own.
        """
        sweep, number = split_trial(trial)
        if number is None:
            return self.transport.object("GET", f"/v1/trials/{segment(trial)}")
        return self.transport.object("GET", f"/v1/sweeps/{self._sweep_id(sweep)}/trials/{number}")

    def _trial_id(self, trial: str) -> str:
        return segment(trial) if split_trial(trial)[1] is None else self.trial(trial)["id"]

    def artifacts(self, trial: str) -> list[ArtifactRecord]:
        """What a trial on the front left to be deployed: files with sizes and hashes; empty where none were kept."""
        return list(self.pages(f"/v1/trials/{self._trial_id(trial)}/artifacts"))

    def download_artifacts(self, trial: str, folder: str | os.PathLike[str]) -> list[Path]:
        """Download all artifacts of a trial into a folder (made if it is not there); the files.

        `python FOLDER/run.py` measures the engines and says the validation loss; `--prompt TEXT` generates text. With
        them comes the `tokenizer.json` of a dataset of parts of words, if it is still there. Raises NotFoundError if
        there are none, ServiceFailureError if a file does not arrive with the hash that it is listed with.
        """
        trial_id = self._trial_id(trial)
        listed = self.artifacts(trial_id)
        if not listed:
            detail = f"trial {trial} has no artifacts: they are kept of complete trials on the front"
            raise NotFoundError(404, {"type": "not-found", "detail": detail})
        return artifacts.download(self.transport, trial_id, listed, Path(folder))

    def download_transformers(self, trial: str, folder: str | os.PathLike[str]) -> list[Path]:
        """Download a trial's model as a checkpoint that Hugging Face's `transformers` reads; the files.

            client.download_transformers("shakespeare/21", "winner")
            transformers.AutoModelForCausalLM.from_pretrained("winner")

        Raises NotFoundError if the trial left no weights, RefusedError if none of its architectures is the model.
        """
        return artifacts.download_transformers(self.transport, self._trial_id(trial), Path(folder))

    def events(self, sweep: Sweep | str, *, after: int = 0) -> Iterator[EventRecord]:
        """What happens in a sweep, in order and without gaps, until it has ended.

        for event in client.events(sweep):
            print(event["sequence"], event["kind"])
        """
        return (sweep if isinstance(sweep, Sweep) else self.sweep(sweep)).events(after=after)

    def leaderboard(self, sweep: str, **options: Unpack[LeaderboardOptions]) -> Leaderboard:
        """The leaderboard of a sweep, by its id or name, with the arguments of `Sweep.leaderboard`."""
        return self.sweep(sweep).leaderboard(**options)
