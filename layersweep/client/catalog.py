"""Calls for data, checkpoints and what can be swept, and on what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from layersweep import dataset_files
from layersweep.client.calls import Calls
from layersweep.names import segment
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
from layersweep.transfers import checkpoints


class CatalogCalls(Calls):
    """Datasets, checkpoints, layers, presets, targets, workers and what waits for them."""

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

    def queue(self) -> list[QueueEntry]:
        """What waits, by what it needs of a worker: how many trials, for how long, and why nothing takes them."""
        return self.transport.page("/v1/queue", {})["items"]
