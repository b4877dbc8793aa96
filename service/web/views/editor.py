"""The page on which a sweep is written: what is in the editor at first, and what is said of what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml
from sqlalchemy.orm import Session

from layers.presets import PRESETS
from layersweep.display.estimates import cost_in_words
from layersweep.display.spaces import unpredicted_in_words
from layersweep.json_values import JsonObject
from layersweep.records.sweeps import Budget
from layersweep.records.sweeps import CostEstimate as CostRecord
from layersweep.records.sweeps import UnpredictedMetric as UnpredictedRecord
from service.datasets import datasets
from service.errors import NotFoundError, Problem, ServiceError
from service.results import leaderboards
from service.sweeps import documents, drafts, sweeps
from service.sweeps.schemas import CostEstimate, HardwarePrediction, Sweep, SweepPreview
from service.web.views import document_places

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
USUAL = "example:quickstart"
"""What the editor holds if nothing else is asked for."""
YAML = "application/yaml"


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What the editor can be filled from."""

    examples: list[str]
    presets: list[tuple[str, str]]
    """Name and title."""
    sweeps: list[Sweep]
    datasets: list[str]
    """Names that a document can give."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the editor holds at first, and the tags of the sweep that it is from: a clone has them, too."""

    text: str
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MarkedProblem:
    problem: Problem
    place: document_places.Place | None
    """Where in the text; None: nowhere in particular."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is said of the document in the editor: what is wrong with it, or what it means and will cost."""

    error: ServiceError | None = None
    problems: Sequence[MarkedProblem] = ()
    preview: SweepPreview | None = None
    notes: Sequence[MarkedProblem] = ()
    """What does not stand in the way, but is worth knowing."""
    estimate: CostEstimate | None = None
    cost: str = ""
    """The estimate in words; also why there is none."""
    predictions: Sequence[HardwarePrediction] = ()
    unpredicted: Sequence[str] = ()
    """What is not predicted, and why, in words."""


def beginnings(session: Session, project: str | None) -> Beginnings:
    """What the editor can be filled from; of sweeps, the newest of a project (None: of all)."""
    newest, _ = sweeps.page(session, sweeps.SweepFilter(project), page_size=10, page_token=None)
    registered, _ = datasets.page(session, project=project, page_size=1000, page_token=None)
    return Beginnings(
        examples=[path.stem for path in _examples()],
        presets=[(preset.name, preset.title) for preset in PRESETS.values()],
        sweeps=newest,
        datasets=sorted({row.name for row in registered}),
    )


def beginning(session: Session, source: str, project: str | None) -> Beginning:
    """What to begin with: `example:NAME`, `preset:NAME` or `sweep:ID`. Raises NotFoundError.

    A sweep of another project (None: there is none) is as if it were not.
    """
    kind, _, name = source.partition(":")
    if kind == "example":
        for path in _examples():
            if path.stem == name:
                return Beginning(path.read_text())
    if kind == "preset" and name in PRESETS:
        return Beginning(_of_preset(name))
    if kind == "sweep":
        row = leaderboards.get_sweep(session, name)
        if project in (None, row.project):
            return Beginning(row.source or _written(dict(row.document)), row.tags)
    raise NotFoundError(f"there is nothing to begin from at {source!r}: give example:NAME, preset:NAME or sweep:ID")


def read(text: str, max_bytes: int) -> JsonObject:
    """The document in the editor. Raises ServiceError."""
    return documents.read(text.encode(), YAML, max_bytes=max_bytes)


def refused(text: str, error: ServiceError) -> Findings:
    """What is wrong with a document, each with its place."""
    return Findings(error=error, problems=_marked(text, error.problems))


def accepted(text: str, prepared: drafts.ValidatedDocument, preview: SweepPreview) -> Findings:
    """What a document means, and what it will cost."""
    notes = _marked(text, [Problem(note.pointer, note.detail, note.remedy) for note in preview.notes])
    known = None if preview.estimate is None else cast("CostRecord", preview.estimate.model_dump())
    cost = cost_in_words(known, cast("Budget", prepared.document.budget))
    unpredicted = [cast("UnpredictedRecord", each.model_dump()) for each in preview.unpredicted]
    return Findings(
        preview=preview,
        notes=notes,
        estimate=preview.estimate,
        cost=cost,
        predictions=preview.predictions,
        unpredicted=unpredicted_in_words(unpredicted),
    )


def _marked(text: str, problems: Sequence[Problem]) -> Sequence[MarkedProblem]:
    if not problems:
        return ()
    places = document_places.places(text)
    return [MarkedProblem(problem, document_places.nearest(places, problem.pointer)) for problem in problems]


def _examples() -> Sequence[Path]:
    return sorted(EXAMPLES.glob("*.yaml"))


def _of_preset(name: str) -> str:
    """A sweep around a published configuration: the preset as it is, to open parameters in."""
    preset = PRESETS[name]
    document: JsonObject = {
        "name": f"around-{name}",
        "task": "causal_lm",
        "dataset": "python-topics",
        **preset.document(),
        "objectives": [
            {"metric": "latency_ms_p50", "goal": "minimize"},
            {"metric": "validation_loss", "goal": "minimize"},
        ],
        "budget": {"trials": 20},
        "start_from": [f"preset:{name}"],
    }
    if rate := document.get("training", {}).get("learning_rate"):
        least, most = (float(f"{bound:.2g}") for bound in (rate / 3, rate * 3))
        document["training"]["learning_rate"] = {"min": least, "max": most, "log": True}
    return (
        f"# {preset.title}\n# {preset.source}\n"
        "# Open further parameters: replace a value by {values: [...]} or {min: ..., max: ...}.\n"
    ) + _written(document)


def _written(document: JsonObject) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
