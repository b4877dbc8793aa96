"""Drafts of sweeps: documents that are read, measured for feasibility and found good before a sweep is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.dataset_facts import DatasetDescription, facts_of
from layers.expressions.names import VARIABLES, is_variable
from layers.parameter import Scalar
from layers.space.checks.windows import window_notes
from layers.space.document import DocumentError, FeasibilityReport, Space, SweepDocument, UnexaminedSpace, begin
from layers.space.document_fields import MAX_STARTS
from layers.space.feasibility import measure_feasibility
from layers.space.replicates import replicate_notes
from layers.space.transformers_share import transformers_share
from service.auth.projects import DEFAULT
from service.checkpoints import checkpoints
from service.checkpoints.references import with_hashes
from service.common import schemas
from service.database.json_columns import SpaceFacts
from service.database.models import Dataset, Sweep, Trial
from service.database.sessions import Database
from service.datasets import datasets
from service.errors import ConflictError
from service.leases import trials
from service.pruning.choice import PrunerChoice, choose_pruner
from service.sweeps import documents
from service.sweeps import schemas as sweep_schemas
from service.sweeps.device_notes import device_model_notes, device_notes
from service.sweeps.sampling import Choice, choose

Given = Mapping[str, object]
"""A sweep document of which nothing was read."""

Starts = Mapping[str, Mapping[str, Scalar]]
"""What a document names as a start -> its values for the open parameters."""
NO_STARTS: Starts = {}
TRIAL = "trial:"
"""What a start begins with that names a trial."""


@dataclass(frozen=True, slots=True)
class ValidatedDocument:
    """A document that was found good, with everything that validation learnt."""

    document: SweepDocument
    feasibility: FeasibilityReport
    choice: Choice
    pruner: PrunerChoice
    dataset_id: str | None

    def space(self) -> SpaceFacts:
        """As it lies in `Sweep.space`. The starts are kept by value: a trial that they name may be deleted."""
        return {
            "points": self.feasibility.points,
            "feasible_share": self.feasibility.feasible_share,
            "sampled": self.feasibility.sampled,
            "judged": self.feasibility.judged,
            "feasible_interval": list(self.feasibility.interval),
            "open_parameters": [parameter.name for parameter in self.document.space.open],
            "rejections": self.feasibility.rejections,
            "starts": [{"name": start.name, "chosen": start.chosen} for start in self.document.starts],
        }

    def keep_data(self, session: Session, project: str) -> None:
        """Let nobody delete its dataset or the checkpoints that trainings begin with before the transaction has ended.
        Raises ConflictError if somebody has done so since the document was read."""
        if self.dataset_id is not None and not datasets.is_kept(session, self.dataset_id):
            raise ConflictError(f"the dataset {self.document.dataset!r} was deleted while the document was being read")
        checkpoints.check_kept(session, self.document.normalized, project)

    def preview(self) -> sweep_schemas.SweepPreview:
        """The answer to `validate_only=true`. It takes a tenth of a second."""
        return sweep_schemas.SweepPreview(
            document=self.document.normalized,
            space=sweep_schemas.SpaceFacts.model_validate(self.space()),
            sampler=self.choice.sampler,
            sampler_reason=self.choice.reason,
            pruner=self.pruner.pruner,
            pruner_reason=self.pruner.reason,
            notes=self.notes(),
            transformers=None if self.document.task == "probe" else self._transformers(),
        )

    def notes(self) -> list[schemas.ProblemItem]:
        """Remarks that refuse nothing."""
        document, points = self.document, self.feasibility.feasible_points
        of_replicates = replicate_notes(document.search.get("replicates", 0), document.budget["trials"], points)
        of_devices = (*device_notes(document.space), *device_model_notes(document))
        return [
            schemas.ProblemItem(pointer=note.pointer, detail=note.detail, remedy=note.remedy)
            for note in (*document.notes, *of_replicates, *window_notes(document.space), *of_devices)
        ]

    def _transformers(self) -> sweep_schemas.TransformersShare:
        found = transformers_share(self.document.space)
        return sweep_schemas.TransformersShare(
            judged=found.judged, architectures=found.architectures, misfit=found.misfit
        )


def described(dataset: Dataset) -> DatasetDescription:
    """What a document's reader needs to know of a dataset."""
    facts = facts_of(dataset.task, dataset.facts, dataset.parts)
    return {"task": dataset.task, "tokenizer": dataset.tokenizer, "facts": facts}


@dataclass(frozen=True, slots=True)
class Draft:
    """A document that was read, but for its feasibility."""

    read: UnexaminedSpace
    dataset_id: str | None

    @property
    def space(self) -> Space:
        return self.read.sweep.space

    def prepared(self, feasibility: FeasibilityReport) -> ValidatedDocument:
        """With its measured feasibility. Raises InvalidDocumentError with all that is wrong."""
        try:
            self.read.examine(feasibility)
        except DocumentError as error:
            raise documents.invalid(error) from None
        sweep = self.read.sweep
        choice = choose(sweep, feasibility)
        return ValidatedDocument(sweep, feasibility, choice, choose_pruner(sweep, choice.sampler), self.dataset_id)


def prepare(database: Database, document: Given, *, project: str = DEFAULT) -> ValidatedDocument:
    """Validate a document as a whole and measure the feasibility of its space: it may take seconds. Raises
    InvalidDocumentError.

    What answers requests asks `service.sweeps.validation` for it, so that nobody else waits meanwhile.
    """
    draft = drafted(database, document, project=project)
    return draft.prepared(measure_feasibility(draft.space))


def drafted(database: Database, document: Given, *, project: str = DEFAULT, starts: Starts = NO_STARTS) -> Draft:
    """Read a document as far as that needs no measured feasibility. Raises InvalidDocumentError if there is no space
    to measure.

    `starts`: what starts that the document names were when it was accepted before; their trials may be gone.
    """
    found: dict[str, Dataset] = {}

    def find_dataset(name: str) -> DatasetDescription | None:
        dataset = database.read(lambda session: datasets.find(session, name, project))
        if dataset is None:
            return None
        found[name] = dataset
        return described(dataset)

    def find_start(reference: str) -> Mapping[str, object] | None:
        if reference in starts:
            return starts[reference]
        kind, _, name = reference.partition(":")
        if kind == "checkpoint":
            checkpoint = database.read(lambda session: checkpoints.find(session, name, project))
            return None if checkpoint is None else dict(checkpoint.model)
        trial_id = reference.removeprefix(TRIAL)
        query = sa.select(Trial.configuration, Trial.parameters).where(Trial.project == project, Trial.id == trial_id)
        found = database.read(lambda session: session.execute(query).one_or_none())
        if found is None:
            return None
        variables = {name: value for name, value in found.parameters.items() if is_variable(name)}
        return {**found.configuration, VARIABLES: variables}

    def find_checkpoint(name: str) -> tuple[str, str] | None:
        checkpoint = database.read(lambda session: checkpoints.find(session, name, project))
        return None if checkpoint is None else (checkpoint.sha256, checkpoint.task)

    def find_trial(name: str) -> str | None:
        return database.read(lambda session: trials.find_by_reference(session, name, project))

    document = with_trial_ids(with_hashes(document, find_checkpoint), find_trial)
    try:
        read = begin(document, find_dataset=find_dataset, find_start=find_start)
    except DocumentError as error:
        raise documents.invalid(error) from None
    dataset = None if read.sweep.dataset is None else found[read.sweep.dataset]
    return Draft(read, None if dataset is None else dataset.id)


def with_trial_ids(document: Given, find: Callable[[str], str | None]) -> Given:
    """The document with `trial:ID` for each start `trial:SWEEP/NUMBER` that `find` knows.

    A later sweep of that name changes nothing then. What is no such reference is left to the reader, and so is a list
    that is too long.
    """
    starts = document.get("start_from")
    if not isinstance(starts, list) or len(cast("list[object]", starts)) > MAX_STARTS:
        return document
    return {**document, "start_from": [_with_trial_id(start, find) for start in cast("list[object]", starts)]}


def _with_trial_id(start: object, find: Callable[[str], str | None]) -> object:
    if not (isinstance(start, str) and start.startswith(TRIAL) and "/" in start):
        return start
    found = find(start.removeprefix(TRIAL))
    return start if found is None else f"{TRIAL}{found}"


def stored_starts(sweep: Sweep) -> Starts:
    """The sweep's starts by name, each with its values for the open parameters: as they were when it was posted."""
    return {start["name"]: start["chosen"] for start in sweep.space.get("starts", ())}
