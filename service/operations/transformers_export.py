"""A trial's model as a checkpoint for `transformers`: configuration, weights, tokenizer and model card in one archive.

Made when it is asked for, of the weights that the trial left as an artifact.
"""

from __future__ import annotations

import json
import tempfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from layers.checkpoints.architecture import Config
from layers.checkpoints.config_json import CheckpointError
from layers.checkpoints.conversion import to_transformers
from layers.checkpoints.matching import Match, match
from layers.checkpoints.tensor_files import SpilledTensors, TensorFile
from layers.checkpoints.tokenizer_files import tokenizer_config, tokenizer_of
from layers.completion import complete
from layers.declarations.inference import mode
from layers.parameter import ParameterError
from service.confirmation import confirmations, results
from service.database.models import Artifact, Dataset, Sweep, Trial
from service.database.sessions import Database
from service.datasets.datasets import uploads_folder
from service.datasets.stored_splits import tokenizer_path
from service.errors import UnprocessableError
from service.leases import trials
from service.operations import artifacts
from service.operations.model_card import CardFacts, model_card
from service.operations.schemas import CheckpointDescription
from service.recommendation.choice import candidate_of
from service.recommendation.further_trainings import confirmed_losses
from service.recommendation.measured_noise import noise_of
from service.recommendation.uncertainty import says_of_figures
from service.settings import Settings

WEIGHTS = "weights.safetensors"

_SPECIAL_TOKENS = {"pad_id": "pad_token_id", "start_id": "decoder_start_token_id", "end_id": "eos_token_id"}
"""Of a dataset's facts -> of config.json."""

_one_at_a_time = threading.Lock()
"""The weights of a model are held twice while they are converted."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What an archive is made of."""

    weights: Artifact
    model: Mapping[str, Any]
    found: Match
    card: str
    tokenizer: str | None
    """tokenizer.json."""
    labels: list[str]
    tokens: Config
    """The ids of its special tokens."""


def describe(session: Session, trial_id: str) -> CheckpointDescription:
    """The architecture that a trial's model is. Raises NotFoundError, UnprocessableError with what is in the way."""
    found = _match(trials.get(session, trial_id))
    return CheckpointDescription(
        architecture=found.architecture.name,
        class_name=found.architecture.class_name,
        config=dict(found.config),
        filled=list(found.filled),
    )


def offered(session: Session, trial_id: str, kept: Sequence[Artifact]) -> str | None:
    """The name of the architecture under which a trial's weights, if they are among what is `kept`, can leave."""
    if all(row.name != WEIGHTS for row in kept):
        return None
    try:
        return _match(trials.get(session, trial_id)).architecture.name
    except UnprocessableError:
        return None


def archive(database: Database, settings: Settings, trial_id: str) -> Path:
    """Make the archive, and return where it lies: the caller removes it.

    Raises NotFoundError if the trial left no weights, UnprocessableError if no architecture is its model's.
    """
    source = database.read(lambda session: _source(session, settings, trial_id))
    folder = uploads_folder(settings)
    with _one_at_a_time, tempfile.TemporaryDirectory(dir=folder) as made:
        weights = Path(made) / WEIGHTS
        with weights.open("wb") as file:
            file.writelines(artifacts.read(settings, source.weights))
        files = _files(source, weights, Path(made))
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".zip", delete=False) as packed:
            # Weights do not get smaller by being compressed.
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archived:
                for name, path in files.items():
                    archived.write(path, name)
            return Path(packed.name)


def _match(trial: Trial) -> Match:
    configuration = trial.configuration
    try:
        # What an older version stored is completed here, or is no model any more.
        return match(complete(configuration["task"], configuration["model"], {}))
    except (CheckpointError, ParameterError) as error:
        detail = f"trial {trial.number} cannot leave as a checkpoint of transformers: {error}"
        if configuration["task"] in mode.TASKS:
            detail += f". Its artifacts generate text: layersweep trial download {trial.id} FOLDER"
        raise UnprocessableError(detail, rule="transformers_export") from None


def _source(session: Session, settings: Settings, trial_id: str) -> _Source:
    trial = trials.get(session, trial_id)
    weights = artifacts.find(session, trial_id, WEIGHTS)
    found = _match(trial)
    sweep = session.get_one(Sweep, trial.sweep_id)
    dataset = session.get_one(Dataset, sweep.dataset_id)
    facts: Mapping[str, object] = dict(dataset.facts)
    tokenizer = _tokenizer(settings, dataset) if sweep.task == "causal_lm" else None
    card = CardFacts(sweep, trial, dataset, found, _sureness(session, sweep, trial), tokenizer is not None)
    labels = facts.get("labels")
    return _Source(
        weights=weights,
        model=trial.configuration["model"],
        found=found,
        card=model_card(card),
        tokenizer=tokenizer,
        labels=[str(label) for label in labels] if isinstance(labels, list) else [],
        tokens={theirs: int(str(facts[ours])) for ours, theirs in _SPECIAL_TOKENS.items() if ours in facts},
    )


def _tokenizer(settings: Settings, dataset: Dataset) -> str | None:
    """tokenizer.json of a text: the one that it was read with, or what says the same of bytes and characters."""
    kept = tokenizer_path(settings.data_dir, dataset.sha256)
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    made = tokenizer_of(dict(dataset.facts))
    return None if made is None else _json(made)


def _sureness(session: Session, sweep: Sweep, trial: Trial) -> list[str]:
    """What is known of the noise of its figures, and what its confirmations found."""
    confirmed = confirmed_losses(session, sweep.id)
    noise = noise_of(session, sweep, candidate_of(trial), {trial.id: trial}, confirmed)
    says = says_of_figures(noise, trial.metrics)
    for row in confirmations.of_sweep(session, sweep.id):
        for candidate in results.to_schema(session, row, None).candidates:
            if candidate.trial.trial == trial.id and candidate.test is not None:
                says += [f"confirmed: {each}" for each in candidate.says]
    return says


def _files(source: _Source, weights: Path, folder: Path) -> dict[str, Path]:
    """The archive's files by name, written to the folder."""
    converted = folder / "model.safetensors"
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            theirs = SpilledTensors(Path(scratch))
            to_transformers(source.model, source.found, TensorFile(weights), theirs)
            theirs.save(converted, {"format": "pt"})
    except CheckpointError as error:
        raise UnprocessableError(f"the weights that the trial left cannot be read as its model's: {error}") from None
    texts = {"config.json": _json(_config(source)), "README.md": source.card}
    if source.tokenizer is not None:
        longest = int(source.model["attention.max_position_embeddings"])
        texts |= {
            "tokenizer.json": source.tokenizer,
            "tokenizer_config.json": _json(tokenizer_config(longest)),
        }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in (*texts, converted.name)}


def _config(source: _Source) -> Config:
    """config.json with the special tokens of the data; a classifier's names its classes."""
    config = {**source.found.config, **source.tokens}
    if not source.labels:
        return config
    classes: Config = {
        "id2label": {str(number): label for number, label in enumerate(source.labels)},
        "label2id": {label: number for number, label in enumerate(source.labels)},
    }
    return {**config, **classes}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
