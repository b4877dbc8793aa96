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
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack, cast

import httpx2

from layersweep import dataset_files, documents, files
from layersweep.documents import Source
from layersweep.errors import InvalidUsageError, NotFoundError
from layersweep.leaderboard import Leaderboard, LeaderboardOptions, several
from layersweep.names import is_id, newest_of_name, segment, split_trial
from layersweep.records.administration import (
    AuditRecord,
    CreatedTokenRecord,
    CreatedWebhookRecord,
    ProjectRecord,
    TokenRecord,
    WebhookDeliveryRecord,
    WebhookRecord,
)
from layersweep.records.catalog import (
    CheckpointDetailRecord,
    CheckpointRecord,
    DatasetDetailRecord,
    DatasetRecord,
    LayerKind,
    Preset,
    QueueEntry,
    Target,
    WorkerRecord,
)
from layersweep.records.sweeps import (
    ArtifactRecord,
    EventRecord,
    SweepOrder,
    SweepPreview,
    SweepState,
    TrialDetailRecord,
)
from layersweep.sweep import Sweep
from layersweep.transfers import artifacts, checkpoints
from layersweep.transport import Query, Transport

DEFAULT_SERVER = "http://127.0.0.1:8420"


class Client:
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
    ) -> None:
        self.transport = Transport(
            server or os.environ.get("LAYERSWEEP_SERVER") or DEFAULT_SERVER,
            token or os.environ.get("LAYERSWEEP_TOKEN"),
            project=project or os.environ.get("LAYERSWEEP_PROJECT"),
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
            transport=transport,
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

    def submit(self, document: Source, *, priority: int | None = None, idempotency_key: str | None = None) -> Sweep:
        """Submit a sweep document: a path, YAML or JSON text, or a mapping.

        Trials of a sweep with a higher `priority` (-10 to 10, 0 where it is left out) are executed first.
        Sent with an Idempotency-Key, so that a submission whose answer was lost is not made twice; pass your own to
        make that hold across processes. Raises InvalidDocumentError with all that is wrong in the document.
        """
        body, content_type = documents.read(document)
        headers = {"Content-Type": content_type, "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        asked: Query = {} if priority is None else {"priority": priority}
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
        """Post the document of a sweep again, as a new sweep; named by its id, or the newest of this name."""
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
        """The id of the newest sweep of this name. Raises NotFoundError, InvalidUsage where projects share it."""
        if not name:
            raise InvalidUsageError("'' is not an id or a name")
        if (found := newest_of_name(self.pages("/v1/sweeps", {"name": name}), name)) is not None:
            return found
        detail = f"no sweep has the id or the name {name!r}: see `layersweep sweep list`"
        raise NotFoundError(404, {"type": "not-found", "detail": detail})

    def sweeps(
        self,
        *,
        state: SweepState | Sequence[SweepState] | None = None,
        task: str | None = None,
        name: str | None = None,
        sort: SweepOrder | None = None,
    ) -> Iterator[Sweep]:
        """All sweeps, newest first, or those in one of these states, of this task, whose name holds this text.

        `sort` with a minus in front turns the order.
        """
        filters: Query = {"state": several(state) or None, "task": task, "name": name, "sort": sort}
        return (Sweep(self.transport, record) for record in self.pages("/v1/sweeps", filters))

    def trial(self, trial: str) -> TrialDetailRecord:
        """One trial with its configuration, attempts, losses and measurements, by its id or as "SWEEP/NUMBER".

            client.trial("shakespeare/21")

        SWEEP is the id of a sweep, or its name (the newest of that name). Raises NotFoundError, and InvalidUsage for a
        number alone: numbers are a sweep's own.
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

        `python FOLDER/run.py FOLDER` runs the engine and says its latency and validation loss. Raises NotFoundError
        where there are none, ServiceFailure where a file does not arrive with the hash that it is listed with.
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

        Raises NotFoundError where the trial left no weights, RefusedError where none of its architectures is the model.
        """
        address = f"/v1/trials/{self._trial_id(trial)}/transformers.zip"
        content = self.transport.request("GET", address, timeout_seconds=600.0).content
        return files.unpack(content, Path(folder))

    def events(self, sweep: Sweep | str, *, after: int = 0) -> Iterator[EventRecord]:
        """What happens in a sweep, in order and without gaps, until it has ended.

        for event in client.events(sweep):
            print(event["sequence"], event["kind"])
        """
        return (sweep if isinstance(sweep, Sweep) else self.sweep(sweep)).events(after=after)

    def leaderboard(self, sweep: str, **options: Unpack[LeaderboardOptions]) -> Leaderboard:
        """The leaderboard of a sweep, by its id or name, with the arguments of `Sweep.leaderboard`."""
        return self.sweep(sweep).leaderboard(**options)

    # datasets

    def datasets(self) -> list[DatasetRecord]:
        """All registered datasets."""
        return list(self.pages("/v1/datasets"))

    def dataset(self, dataset: str) -> DatasetDetailRecord:
        """One dataset, by id or name, with its profile: sizes, and baselines that a model must beat."""
        return self.transport.object("GET", f"/v1/datasets/{segment(dataset)}")

    def add_dataset(
        self,
        name: str,
        file: dataset_files.Data,
        *,
        task: str = "causal_lm",
        tokenizer: str | None = None,
        target_tokenizer: str | None = None,
        column: str | None = None,
        validation: float = 0.1,
        test: float = 0.0,
    ) -> DatasetDetailRecord:
        """Register data: a path (of a pipe, too), several paths of texts in their order, or the bytes themselves.

        causal_lm: a text, `tokenizer` "byte" (default), "char", "bpe:N" (N tokens, trained on the training split),
        "checkpoint:NAME" (that of a registered checkpoint) or the path of a tokenizer.json; with `column`, files are
        JSON Lines or Parquet with a column of text. classification: CSV with a column `label` and one column a token,
        or NPZ with `tokens` and `labels`. seq2seq: lines of a source, a tab and its target; `tokenizer` (of sources)
        and `target_tokenizer` are "char" (default) or "whitespace". `validation` and `test` are the shares that are
        kept apart; no sweep sees the test split. The same content under the same name again is no error. Large files
        are sent in pieces: where a connection broke, or a call was stopped, the next one with the same file goes on.
        """
        given = {
            "name": name,
            "task": task,
            "tokenizer": tokenizer,
            "target_tokenizer": target_tokenizer,
            "column": column,
            "validation": f"{validation:g}",
            "test": f"{test:g}",
        }
        tokenizer_file = None
        if tokenizer is not None and tokenizer.endswith(".json"):
            given["tokenizer"], tokenizer_file = None, Path(tokenizer)
        fields = {field: value for field, value in given.items() if value is not None}
        return cast("DatasetDetailRecord", dataset_files.register(self.transport, fields, name, file, tokenizer_file))

    def tokenizer(self, dataset: str) -> bytes:
        """The `tokenizer.json` of a dataset whose tokens are parts of words, by its id or name."""
        return self.transport.file(f"/v1/datasets/{segment(dataset)}/tokenizer")

    def checkpoints(self) -> list[CheckpointRecord]:
        """All registered checkpoints."""
        return list(self.pages("/v1/checkpoints"))

    def checkpoint(self, checkpoint: str) -> CheckpointDetailRecord:
        """One checkpoint, by id or name, with the model that it describes."""
        return self.transport.object("GET", f"/v1/checkpoints/{segment(checkpoint)}")

    def add_checkpoint(self, name: str, folder: str | os.PathLike[str]) -> CheckpointDetailRecord:
        """Register a folder that `save_pretrained` of Hugging Face's `transformers` wrote, for sweeps to begin with."""
        return checkpoints.upload(self.transport, name, Path(folder))

    def delete_checkpoint(self, checkpoint: str) -> None:
        """Delete a checkpoint. Raises ConflictError while a sweep needs it."""
        self.transport.delete(f"/v1/checkpoints/{segment(checkpoint)}")

    def delete_dataset(self, dataset: str) -> None:
        """Remove a dataset that no sweep uses, by its id or name."""
        self.transport.delete(f"/v1/datasets/{segment(dataset)}")

    # what can be swept, and on what

    def layers(self) -> list[LayerKind]:
        """Every section of a sweep document with its parameters: types, ranges, sources, search defaults."""
        return list(self.pages("/v1/layers"))

    def presets(self) -> list[Preset]:
        """Published configurations that a sweep can start from, with their citations."""
        return list(self.pages("/v1/presets"))

    def targets(self) -> list[Target]:
        """Runtimes on device models that workers have offered."""
        return list(self.pages("/v1/targets"))

    def workers(self) -> list[WorkerRecord]:
        """The workers that have registered, and what they run now."""
        return list(self.pages("/v1/workers"))

    # who may use the service: with a token of the scope admin

    def tokens(self) -> Iterator[TokenRecord]:
        """The tokens, newest first; never the secrets."""
        yield from self.pages("/v1/tokens")

    def create_token(
        self, name: str, scopes: Sequence[str], *, project: str | None, expires_in_days: float | None = None
    ) -> CreatedTokenRecord:
        """Make a token of one project, or of all (None). The answer's `token` is shown this once."""
        body = {"name": name, "scopes": list(scopes), "project": project, "expires_in_days": expires_in_days}
        return self.transport.object("POST", "/v1/tokens", json=body)

    def revoke_token(self, token: str) -> None:
        """Let a token, named by its id, open nothing any more."""
        self.transport.delete(f"/v1/tokens/{segment(token)}")

    def projects(self) -> list[ProjectRecord]:
        """The projects that the caller reaches."""
        return list(self.pages("/v1/projects"))

    def create_project(self, name: str) -> ProjectRecord:
        """Make a project."""
        return self.transport.object("POST", "/v1/projects", named_by="name", json={"name": name})

    def change_project(self, name: str, changes: Mapping[str, int | None]) -> ProjectRecord:
        """Change what a project may use: `max_running_trials` and `max_priority`; None lifts a limit."""
        return self.transport.object("PATCH", f"/v1/projects/{segment(name)}", named_by="name", json=dict(changes))

    def queue(self) -> list[QueueEntry]:
        """What waits, by what it needs of a worker: how many trials, for how long, and why nothing takes them."""
        return self.transport.page("/v1/queue", {})["items"]

    def audit(self) -> Iterator[AuditRecord]:
        """Who changed what, newest first."""
        yield from self.pages("/v1/audit")

    # who is told of its sweeps: with a token of the scope admin

    def webhooks(self) -> Iterator[WebhookRecord]:
        """The webhooks, newest first; never their secrets."""
        yield from self.pages("/v1/webhooks")

    def create_webhook(self, url: str, events: Sequence[str] | None = None) -> CreatedWebhookRecord:
        """Tell a URL of the project's sweeps: of those that have ended, or of `events` ("sweep.paused", ...).

        The answer's `secret` is shown this once: it verifies what arrives (docs/webhooks.md).
        """
        body = {"url": url, **({} if events is None else {"events": list(events)})}
        return self.transport.object("POST", "/v1/webhooks", json=body)

    def change_webhook(
        self,
        webhook: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> WebhookRecord:
        """Change what is given; the rest stays as it is."""
        given = {"url": url, "events": None if events is None else list(events), "enabled": enabled}
        body = {name: value for name, value in given.items() if value is not None}
        return self.transport.object("PATCH", f"/v1/webhooks/{segment(webhook)}", json=body)

    def rotate_webhook(self, webhook: str) -> CreatedWebhookRecord:
        """Give a webhook another secret: what is sent from now on is signed with it."""
        return self.transport.object("POST", f"/v1/webhooks/{segment(webhook)}:rotate")

    def ping_webhook(self, webhook: str) -> WebhookDeliveryRecord:
        """Queue a message that only tries the webhook out."""
        return self.transport.object("POST", f"/v1/webhooks/{segment(webhook)}:ping")

    def delete_webhook(self, webhook: str) -> None:
        """Delete a webhook with its deliveries."""
        self.transport.delete(f"/v1/webhooks/{segment(webhook)}")

    def webhook_deliveries(self, webhook: str) -> Iterator[WebhookDeliveryRecord]:
        """What a webhook was and will be told, newest first, with how it answered."""
        yield from self.pages(f"/v1/webhooks/{segment(webhook)}/deliveries")

    def resend_webhook_delivery(self, webhook: str, delivery: str) -> WebhookDeliveryRecord:
        """Send a delivery that has ended once more."""
        path = f"/v1/webhooks/{segment(webhook)}/deliveries/{segment(delivery)}:resend"
        return self.transport.object("POST", path)

    def pages(self, path: str, params: Query | None = None) -> Iterator[Any]:
        """The items of all pages of a list, fetched as they are needed."""
        return self.transport.pages(path, params)
