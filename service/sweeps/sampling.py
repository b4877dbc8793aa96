"""Which sampler a sweep gets, and why. The samplers themselves are the scheduler's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from layers.declarations.per_layer import layer_name
from layers.space.document import FeasibilityReport, SweepDocument
from layers.space.replicates import LEFT_OPEN, most_of
from service.common.formatting import plural
from service.errors import InvalidDocumentError, Problem

SLOW_TPE_TRIALS = 2_000
"""From here on a TPE suggestion for several objectives takes about a quarter of a second and more, and grows."""

MOST_MODELLED_OBJECTIVES = 4
"""With more of them most points are on the front, and expecting more of one says little."""

MOST_MODELLED_TRIALS = 20_000
"""As many were measured: with two objectives a suggestion takes 44 ms then, and more with every trial."""

SURROGATE_STARTS = 10
"""Random points that the surrogate sampler begins with. Four or six were no better in 12 to 20 trials."""

FEW_TRIALS = 25
"""A budget below it is said to begin with them."""

TPE_STARTS, TPE_STARTS_OF_LAYERS = 10, 30
"""Ended trials from which on TPE suggests; the second if layers are drawn level first, which is better than what it
learns of many layers from ten."""

GP_STARTS = 10
"""Those of Optuna's Gaussian process."""

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

    Raises InvalidDocumentError if the sampler that it names cannot search this space or does not run here, or cannot
    start from earlier sweeps and is asked to.
    """
    choice = _chosen(document, feasibility)
    if document.search.get("transfer") and choice.sampler != "surrogate":
        detail = f"the sweep gets {_TITLES[choice.sampler]}, which cannot start from earlier sweeps: {choice.reason}"
        problem = Problem("/search/transfer", detail, "give sampler: surrogate, or leave transfer out")
        raise InvalidDocumentError(f"/search/transfer: {detail}", problems=[problem])
    return choice


def _chosen(document: SweepDocument, feasibility: FeasibilityReport) -> Choice:
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
    return Choice(
        named, f"the document asks for {_TITLES[named]}{_caveat(named, document)}{_random_points(named, document)}"
    )


def population_size(trials: int) -> int:
    """The individuals of one NSGA-II generation, for about ten generations in a small budget."""
    return min(50, max(10, trials // 10))


def _automatic(document: SweepDocument, feasibility: FeasibilityReport) -> Choice:
    trials = document.budget["trials"]
    if feasibility.points is not None and feasibility.points <= trials:
        covered = _covered(document, feasibility, feasibility.points)
        return Choice("grid", f"the budget of {plural(trials, 'trial')} covers {covered}")
    objectives = len(document.objectives)
    if objectives == 1:
        return _estimator(document, "TPE finds good points in few trials of a mixed space")
    if objectives > MOST_MODELLED_OBJECTIVES:
        too_much = f"{objectives} objectives"
    elif trials > MOST_MODELLED_TRIALS:
        too_much = f"{trials} trials"
    else:
        # Of a small budget the random points are a large part: who looks for the models' trials should know.
        points = trials - _reserved(document)
        if points <= SURROGATE_STARTS:
            return Choice(
                "surrogate",
                f"models begin after {SURROGATE_STARTS} random points, so all {points} are {_unmodelled(document)}",
            )
        begun = f", after {SURROGATE_STARTS} random ones" if trials < FEW_TRIALS else ""
        return Choice("surrogate", f"models of the {objectives} objectives find the front in the fewest trials{begun}")
    if trials > SLOW_TPE_TRIALS and not _has_conditions(document):
        return Choice("nsga2", f"{too_much} are too many for the surrogate sampler, and {trials} trials for TPE")
    return _estimator(document, f"{too_much} are too many for the surrogate sampler")


def _covered(document: SweepDocument, feasibility: FeasibilityReport, points: int) -> str:
    """How much of a space with at most as many points as the budget has trials: some are for further trainings."""
    reserved, feasible = _reserved(document), feasibility.feasible_points
    left = document.budget["trials"] - reserved
    if feasible is not None and feasible > left:
        takes = f"further trainings may take {plural(reserved, 'trial')}"
        return f"at least {left} of the {plural(feasible, 'point')} of the space: {takes}"
    return "the only point of the space" if points == 1 else f"all {plural(points, 'point')} of the space"


def _reserved(document: SweepDocument) -> int:
    """Trials of the budget that a number of further trainings may take; what `auto` means follows from the sampler."""
    return 0 if document.search.get("replicates", 0) in (0, LEFT_OPEN) else most_of(document.budget["trials"])


def _estimator(document: SweepDocument, reason: str) -> Choice:
    if _has_conditions(document):
        reason += "; TPE also models parameters that are conditional on others"
    return Choice("tpe", reason + _random_points("tpe", document))


def _random_points(sampler: str, document: SweepDocument) -> str:
    """That a small budget is spent largely, or wholly, on the random points with which a sampler begins."""
    differs = any(layer_name(parameter.name) is not None for parameter in document.space.open)
    tpe_starts = TPE_STARTS_OF_LAYERS if differs else TPE_STARTS
    starts = {"tpe": tpe_starts, "surrogate": SURROGATE_STARTS, "gp": GP_STARTS}.get(sampler, 0)
    points = document.budget["trials"] - _reserved(document)
    if document.search.get("transfer"):
        return ""
    if starts and points <= starts:
        return f"; it begins with {starts} random points, so all {points} are {_unmodelled(document)}"
    return (
        f"; the first {starts} points are {_unmodelled(document)}"
        if points < starts * FEW_TRIALS / SURROGATE_STARTS
        else ""
    )


def _unmodelled(document: SweepDocument) -> str:
    """What the points are with which a sampler begins: those of `start_from` count among them."""
    return "starts or random" if document.starts else "random"


def _has_conditions(document: SweepDocument) -> bool:
    return any(parameter.when is not None for parameter in document.space.open)


def _caveat(named: str, document: SweepDocument) -> str:
    if _has_conditions(document) and named in ("gp", "nsga2", "qmc"):
        return ", which draws conditional parameters at random"
    if named == "surrogate" and len(document.objectives) > MOST_MODELLED_OBJECTIVES:
        return ", which is meant for one to four objectives"
    return ""


def _refused(detail: str, remedy: str) -> InvalidDocumentError:
    return InvalidDocumentError(detail, problems=[Problem("/search/sampler", detail, remedy)])
