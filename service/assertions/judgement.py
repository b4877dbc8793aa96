"""Whether limits are kept, by what several builds of a trial have measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from layers.expressions.metric_names import MetricNames
from service.assertions import limits
from service.assertions.limits import Limit
from service.assertions.rank_intervals import MOST_BUILDS, Floats, RankInterval, Risks, one_sample, two_samples
from service.assertions.schemas import (
    Baseline,
    JudgedLimit,
    Judgement,
    JudgementRequest,
    MeasuredMetric,
    Range,
    Verdict,
)
from service.common.states import TrialState
from service.database.models import Sweep, Trial, Worker
from service.errors import BaselineMismatchError, ConflictError, NotFoundError, Problem, UnprocessableError
from service.sweeps import sweeps

SMALLEST = 1e-30
"""A baseline below it has no share that a change could be."""
SHOWN = 200
"""Characters of a baseline's fact that an error repeats."""


def judge(session: Session, sweep_id: str, asked: JudgementRequest) -> Judgement:
    """Judge the builds of a sweep that `:remeasure` made, those that have ended until now.

    Raises ConflictError while no build is complete, BaselineMismatchError if the baseline was measured elsewhere or
    by something else, UnprocessableError for limits that cannot be judged.
    """
    sweep = sweeps.get(session, sweep_id)
    found = limits.read(asked.limits, MetricNames.of(sweep.document))
    trials = _builds(session, sweep)
    measured = _measured(session, sweep, trials, limits.metrics_of(found))
    baseline = _baseline(session, sweep, asked, measured, found)
    risks = asked.risk_of_alarm, asked.risk_of_miss
    judged = [_judged(limit, trials, baseline, risks) for limit in found]
    return Judgement(
        id=sweep.id,
        verdict=_worst([each.verdict for each in judged]),
        builds=len(trials),
        risk_of_alarm=asked.risk_of_alarm,
        risk_of_miss=asked.risk_of_miss,
        limits=judged,
        measured=measured,
    )


def verdict_of(excess: RankInterval) -> Verdict:
    """Kept or broken where the whole interval is."""
    if excess.high is not None and excess.high <= 0:
        return "kept"
    return "broken" if excess.low is not None and excess.low > 0 else "undecided"


def excess_of(limit: Limit, builds: Sequence[Mapping[str, float]], baseline: Sequence[float], risks: Risks) -> Range:
    """By how much a limit is broken by these builds. `baseline`: what its metric was in each of the builds before."""
    if not limit.has_baseline:
        return _range(one_sample(np.array([limit.excess(build) for build in builds]), risks))
    pairs = np.array([[limit.excess(build, before) for before in baseline] for build in builds])
    return _range(two_samples(pairs, risks))


def _builds(session: Session, sweep: Sweep) -> list[Trial]:
    mine = Trial.sweep_id == sweep.id, Trial.state == TrialState.COMPLETE, Trial.reused_from.is_(None)
    found = list(session.scalars(select(Trial).where(*mine).order_by(Trial.number).limit(MOST_BUILDS)))
    if not found:
        raise ConflictError(
            f"the sweep is {sweep.state} and no build of it is complete"
            + (f": {sweep.reason}" if sweep.reason else ". Wait for it to end")
        )
    if len({_point(trial) for trial in found}) > 1:
        detail = "its trials differ in more than their seed: they are no builds of one configuration"
        raise UnprocessableError(f"{detail}. Measure one of them anew: POST /v1/sweeps/{sweep.id}:remeasure")
    return found


def _point(trial: Trial) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in trial.parameters.items() if name != "training.seed"))


def _measured(session: Session, sweep: Sweep, trials: Sequence[Trial], metrics: Sequence[str]) -> Baseline:
    worker = None if trials[0].worker_id is None else session.get(Worker, trials[0].worker_id)
    ended_at = max(trial.ended_at or trial.created_at for trial in trials)
    configuration = trials[0].configuration
    return Baseline(
        name=sweep.name,
        target=trials[0].target_key,
        results_version=sweep.results_version,
        inference={**configuration["inference"], **({"shapes": shapes} if (shapes := _shapes(trials[0])) else {})},
        measured_at=datetime.fromtimestamp(ended_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        versions={} if worker is None else {name: str(version) for name, version in worker.versions.items()},
        metrics={name: _metric([_value(trial, name) for trial in trials]) for name in metrics},
    )


def _shapes(trial: Trial) -> list[dict[str, bool | int | float | str]]:
    return [dict(shape) for shape in trial.configuration.get("shapes", [])]


def _metric(values: list[float]) -> MeasuredMetric:
    return MeasuredMetric(value=float(np.median(values)), builds=values)


def _value(trial: Trial, name: str) -> float:
    if (value := trial.metrics.get(name)) is None:
        raise UnprocessableError(f"trial {trial.number} has no {name}: its target does not measure it")
    return value


def _baseline(
    session: Session, sweep: Sweep, asked: JudgementRequest, measured: Baseline, found: Sequence[Limit]
) -> Mapping[str, MeasuredMetric]:
    """What `baseline` means in each limit that names it, by metric."""
    needed = [limit.only_metric for limit in found if limit.has_baseline]
    if asked.baseline is not None and asked.against is not None:
        detail = "`baseline` and `against` are two answers to one question"
        raise UnprocessableError(f"{detail}: give one", problems=[Problem("/against", detail, "leave one out")])
    if not needed:
        return {}
    if asked.against is not None:
        other = sweeps.get(session, asked.against)
        if other.project != sweep.project:
            # As for what is not there: who calls may reach this project alone.
            raise NotFoundError(f"there is no sweep {asked.against}")
        before = _measured(session, other, _builds(session, other), needed)
    elif asked.baseline is not None:
        before = asked.baseline
    else:
        detail = "a limit names baseline, and there is none"
        remedy = "send `baseline`, kept from an earlier judgement, or `against`, a sweep that measured the other trial"
        raise UnprocessableError(f"{detail}: {remedy}", problems=[Problem("/baseline", detail, remedy)])
    _refuse_if_elsewhere(before, measured, "/baseline" if asked.against is None else "/against")
    if lacking := [metric for metric in needed if metric not in before.metrics]:
        detail = f"the baseline has no {', '.join(lacking)}"
        remedy = "write it again for all metrics that a limit compares with it"
        raise UnprocessableError(f"{detail}: {remedy}", problems=[Problem("/baseline/metrics", detail, remedy)])
    return {metric: before.metrics[metric] for metric in needed}


def _refuse_if_elsewhere(before: Baseline, measured: Baseline, pointer: str) -> None:
    compared = {
        "target": (before.target, measured.target),
        "results_version": (before.results_version, measured.results_version),
        "inference": (before.inference, measured.inference),
    }
    problems = [
        Problem(
            f"{pointer}/{name}" if pointer == "/baseline" else pointer,
            f"the baseline's {name} is {str(then)[:SHOWN]}, this measurement's is {str(now)[:SHOWN]}",
        )
        for name, (then, now) in compared.items()
        if then != now
    ]
    if problems:
        raise BaselineMismatchError(
            "the baseline cannot be compared with: "
            + "; ".join(problem.detail for problem in problems)
            + ". Write a baseline here, or measure the other trial beside this one",
            problems=problems,
        )


def _judged(limit: Limit, trials: Sequence[Trial], baseline: Mapping[str, MeasuredMetric], risks: Risks) -> JudgedLimit:
    builds = [{metric: _value(trial, metric) for metric in limit.metrics.values()} for trial in trials]
    before = baseline[limit.only_metric] if limit.has_baseline else None
    excess = excess_of(limit, builds, [] if before is None else before.builds, risks)
    return JudgedLimit(
        limit=limit.text,
        metrics=list(dict.fromkeys(limit.metrics.values())),
        verdict=verdict_of(RankInterval(excess.estimate, excess.low, excess.high)),
        excess=excess,
        baseline=None if before is None else before.value,
        change=None if before is None else _change([build[limit.only_metric] for build in builds], before, risks),
    )


def _change(values: Sequence[float], before: MeasuredMetric, risks: Risks) -> Range | None:
    if min(map(abs, before.builds)) < SMALLEST:
        return None
    pairs: Floats = np.array(values)[:, None] / np.array(before.builds)[None, :] - 1
    return _range(two_samples(pairs, risks))


def _range(found: RankInterval) -> Range:
    return Range(estimate=found.estimate, low=found.low, high=found.high)


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    if "broken" in verdicts:
        return "broken"
    return "undecided" if "undecided" in verdicts else "kept"
