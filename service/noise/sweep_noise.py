"""How noisy the measurements of a sweep are, what cannot be judged because of it, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Session

from layers.expressions.constraints import parse_constraint
from layers.expressions.metric_names import MetricNames
from layers.expressions.summary_metrics import deciding_metrics, latency_metrics
from layers.metrics import METRICS, split_name
from service.common.formatting import plural
from service.common.noise import NOISY_CV, is_timed
from service.common.schemas import Schema
from service.common.states import TrialState
from service.database.models import Sweep, Trial, TrialMetric

CV = "latency_cv"
MOST_LOOKED_AT = 200
"""Trials that cannot be judged whose constraints are looked at, the newest ones."""

_IS_NOT_JUDGED = sa.and_(Trial.state == sa.literal_column(f"'{TrialState.COMPLETE}'"), Trial.feasible.is_(None))
"""As the index `ix_trials_not_judged` has it: by a parameter it would not be found."""

_MEDIANS = ("latency_ms_p50", "prefill_ms_p50", "decode_ms_per_token_p50")
_THREADS = re.compile(r", \d+ threads$")
"""Of a target: a processor that is used with several threads."""
_PERCENTILE = re.compile(r"_p\d\d$")
_PREFIX = re.compile(r"latency_ms_|_ms(?:_per_token)?(?=_)")


class SweepNoise(Schema):
    """How noisy a sweep's measurements are, and what it leaves undecided."""

    measured: int = Field(description="trials whose latency was measured; of several shapes at the first")
    noisy: int = Field(description=f"those of them whose latency_cv is above {NOISY_CV}")
    cv_low: float | None = Field(description="the smallest latency_cv of the noisy ones")
    cv_high: float | None
    not_judged: int = Field(description="complete trials that cannot be judged: a limit lies within the noise")
    metrics: list[str] = Field(description="those that the undecided constraints name")
    level: Literal["none", "note", "warning"] = Field(description="warning: something cannot be judged")
    says: str | None = Field(description="all this in words, and what to do; null where nothing is noisy")


@dataclass(frozen=True, slots=True)
class NoiseCounts:
    """Over a sweep's trials, as `SweepNoise` has them."""

    measured: int
    noisy: int
    cv_low: float | None
    cv_high: float | None
    not_judged: int


def noise_of_sweep(session: Session, sweep: Sweep) -> SweepNoise:
    """Of the trials so far."""
    of_cv = (TrialMetric.sweep_id == sweep.id, TrialMetric.name == cv_name(sweep))
    measured = session.scalar(sa.select(sa.func.count()).where(*of_cv)) or 0
    found = sa.select(sa.func.count(), sa.func.min(TrialMetric.value), sa.func.max(TrialMetric.value))
    noisy, low, high = session.execute(found.where(*of_cv, TrialMetric.value > NOISY_CV)).one()
    count = session.scalar(sa.select(sa.func.count()).select_from(Trial).where(*_not_judged(sweep))) or 0
    return noise_by_counts(session, sweep, NoiseCounts(measured, noisy, low, high, count))


def noise_by_counts(session: Session, sweep: Sweep, counts: NoiseCounts) -> SweepNoise:
    """The same for who has counted."""
    metrics = _undecided_metrics(session, sweep) if counts.not_judged else []
    return SweepNoise(
        measured=counts.measured,
        noisy=counts.noisy,
        cv_low=counts.cv_low,
        cv_high=counts.cv_high,
        not_judged=counts.not_judged,
        metrics=metrics,
        level="warning" if counts.not_judged else "note" if counts.noisy else "none",
        says=_says(
            counts,
            metrics,
            of_threads=_THREADS.search(sweep.target_key or "") is not None,
            is_constrained=bool(sweep.document.get("constraints")),
            of="" if any(map(is_of_forward, deciding_latencies(sweep))) else " of the forward pass",
        ),
    )


def cv_name(sweep: Sweep) -> str:
    """The metric that says how noisy a measurement is; of several shapes at the first."""
    return MetricNames.of(sweep.document).resolve(CV)


def deciding_latencies(sweep: Sweep) -> list[str]:
    """The timed metrics that a sweep decides by, in full; if there is none, the latencies of its mode of inference."""
    deciding = deciding_metrics([objective["metric"] for objective in sweep.objectives], sweep.document)
    return [name for name in deciding if is_timed(name)] or latency_metrics(sweep.document)


def is_of_forward(name: str) -> bool:
    """Whether a timed metric is of sequences that are read at once, not of a prompt or its answer."""
    return not METRICS[split_name(name)[0]].of_generation


def _not_judged(sweep: Sweep) -> tuple[sa.ColumnElement[bool], ...]:
    return Trial.sweep_id == sweep.id, _IS_NOT_JUDGED, Trial.replicate_of.is_(None)


def _undecided_metrics(session: Session, sweep: Sweep) -> list[str]:
    """The metrics that were timed in the constraints that cannot be judged."""
    newest = sa.select(Trial.noise).where(*_not_judged(sweep)).order_by(Trial.number.desc()).limit(MOST_LOOKED_AT)
    names: dict[str, None] = {}
    for noise in session.scalars(newest):
        if noise is not None:
            named = [name for text in noise["undecided"] for name in parse_constraint(text).metrics]
            names |= dict.fromkeys(name for name in named if name in noise["figures"])
    return sorted(names)


def _says(
    counts: NoiseCounts, metrics: Sequence[str], *, of_threads: bool, is_constrained: bool, of: str
) -> str | None:
    """`10 of 10 measurements are noisy (CV 35–416 %): p99 cannot be judged on this machine. Pin cores, ...`.

    `of_threads`: they were measured on a processor with several threads. `of`: what the CV is of, if the sweep does not
    decide by it.
    """
    if not counts.noisy and not counts.not_judged:
        return None
    cv = _cv(counts.cv_low, counts.cv_high, of)
    verb = "is" if counts.noisy == 1 else "are"
    are = f"{counts.noisy} of {plural(counts.measured, 'measurement')} {verb} noisy ({cv})"
    if not counts.not_judged:
        advice = " On a shared processor a worker with --threads 1 measures more steadily." if of_threads else ""
        judged = ", yet every constraint could be judged" if is_constrained else ""
        return f"{are}{judged}.{advice}"
    figures = " and ".join(map(short_name, metrics))
    of = "on this machine" if counts.not_judged >= counts.measured else f"of {plural(counts.not_judged, 'trial')}"
    remedies = ["Pin cores", "stop other load"]
    if of_threads:
        remedies.append("start the worker with --threads 1 and submit the sweep again")
    if not {split_name(name)[0] for name in metrics} <= {*_MEDIANS}:
        remedies.append("constrain p50")
    what = f"{figures} cannot be judged {of}. {', '.join(remedies[:-1])}, or {remedies[-1]}."
    return f"{are}: {what}" if counts.noisy else what


def _cv(low: float | None, high: float | None, of: str) -> str:
    """`CV 35–416 %`, of one `CV 35 %`."""
    ends = (f"{100 * each:.2g}" if each < 0.1 else f"{100 * each:.0f}" for each in (low, high) if each)
    return f"CV{of} {'–'.join(dict.fromkeys(ends))} %"


def short_name(name: str) -> str:
    """A metric as it is spoken of: p99, prefill p99 at chat, throughput_per_s."""
    base, shape = split_name(name)
    spoken = _PREFIX.sub("", base).replace("_", " ") if _PERCENTILE.search(base) else base
    return spoken + (f" at {shape}" if shape else "")
