"""Which sampler a sweep gets, and why. The samplers themselves are the scheduler's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from layers.space.document import FeasibilityReport, SweepDocument
from service.common.formatting import plural
from service.errors import InvalidDocumentError, Problem

SLOW_TPE_TRIALS = 2_000
"""From here on a TPE suggestion for several objectives takes about a quarter of a second and more, and grows."""

MOST_MODELLED_OBJECTIVES = 4
"""With more of them most points are on the front, and expecting more of one says little."""

LEARNS_NOTHING = frozenset({"random", "qmc", "grid"})
"""Samplers that suggest the same whatever became of the trials before."""

ASKED_WHEN_NEEDED = frozenset({"surrogate"})
"""Samplers that gain more by what the last trials say than a worker loses while it waits for a suggestion."""

_TITLES = {
    "tpe": "the tree-structured Parzen estimator",
    "nsga2": "NSGA-II",
    "surrogate": "the surrogate sampler",
    "gp": "the Gaussian process",
    "qmc": "the scrambled Sobol sequence",
    "random": "random search",
    "grid": "the grid",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A sampler by its name in a sweep document, and the reason in words."""

    sampler: str
    reason: str


def choose(document: SweepDocument, feasibility: FeasibilityReport) -> Choice:
    """The sampler of a sweep: the one it names, or what `auto` means for it.

    Raises InvalidDocumentError where the sampler that it names cannot search this space or does not run here.
    """
    named = document.search["sampler"]
    if named == "auto":
        return _automatic(document, feasibility)
    if named == "grid" and feasibility.points is None:
        raise _refused(
            "the grid needs a finite space of at most 1,000,000 points",
            "give every min and max a step, list values, or take another sampler",
        )
    if named == "gp" and find_spec("torch") is None:
        raise _refused(
            "the Gaussian process needs PyTorch, which is not installed beside the service",
            "install torch in the service's environment, or take tpe",
        )
    return Choice(named, f"the document asks for {_TITLES[named]}{_caveat(named, document)}")


def population_size(trials: int) -> int:
    """The individuals of one NSGA-II generation, for about ten generations in a small budget."""
    return min(50, max(10, trials // 10))


def _automatic(document: SweepDocument, feasibility: FeasibilityReport) -> Choice:
    trials = document.budget["trials"]
    if feasibility.points is not None and feasibility.points <= trials:
        points = "the only point" if feasibility.points == 1 else f"all {plural(feasibility.points, 'point')}"
        return Choice("grid", f"the budget of {plural(trials, 'trial')} covers {points} of the space")
    conditional = any(parameter.when is not None for parameter in document.space.open)
    objectives = len(document.objectives)
    if objectives > 1 and trials > SLOW_TPE_TRIALS and not conditional:
        return Choice("nsga2", f"TPE would take too long over each of {trials} suggestions for {objectives} objectives")
    if conditional:
        return Choice("tpe", "TPE models parameters that are conditional on others; other samplers draw them at random")
    return Choice("tpe", "TPE finds good points in few trials of a mixed space")


def _caveat(named: str, document: SweepDocument) -> str:
    conditional = any(parameter.when is not None for parameter in document.space.open)
    if conditional and named in ("gp", "nsga2", "qmc"):
        return ", which draws conditional parameters at random"
    if named == "surrogate" and len(document.objectives) > MOST_MODELLED_OBJECTIVES:
        return ", which is meant for one to four objectives"
    return ""


def _refused(detail: str, remedy: str) -> InvalidDocumentError:
    return InvalidDocumentError(detail, problems=[Problem("/search/sampler", detail, remedy)])
