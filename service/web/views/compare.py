"""Two to ten trials of a sweep beside one another: objectives first, and what differs by more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from layers.configuration import Sections, flatten
from layers.expressions.metric_names import MetricNames
from layers.metrics import metric as declaration_of
from layers.parameter import Scalar
from service.common import formatting
from service.database.models import Sweep, Trial
from service.database.sessions import now
from service.errors import NotFoundError, UnprocessableError
from service.leases import trials as trial_details
from service.recommendation.choice import LOSS, candidate_of
from service.recommendation.further_trainings import confirmed_losses
from service.recommendation.measured_noise import noise_of
from service.recommendation.recommend import recommend
from service.recommendation.uncertainty import Z95, Noise
from service.results import charts, leaderboards
from service.web.views.query import MAX_COMPARED, SweepQuery

SQRT_2 = 2**0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One metric or parameter of all that is compared."""

    name: str
    values: list[Scalar | None]
    best: float | None = None
    """The best of the values, if one is better than another."""
    noise: float = 0.0
    """By how much two of the values may differ by noise alone."""

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1

    @property
    def is_noise(self) -> bool:
        """Whether all values lie within noise of one another."""
        if self.noise == 0:
            return False
        known = [float(value) for value in self.values if value is not None]
        return len(known) == len(self.values) and max(known) - min(known) <= self.noise

    def is_best(self, value: Scalar | None) -> bool:
        """Whether nothing that is compared is better by more than noise."""
        return self.best is not None and value is not None and abs(float(value) - self.best) <= self.noise


@dataclass(frozen=True, slots=True)
class Comparison:
    now: float
    sweep: Sweep
    query: SweepQuery
    trials: list[Trial]
    recommended: str | None
    objectives: list[Row]
    metrics: list[Row]
    """The others that differ."""
    parameters: list[Row]
    """What the sweep varies, if it differs."""
    following: list[Row]
    """What else of the configurations differs: it follows from the parameters."""
    alike: list[Row]
    """Metrics that are the same, or within noise."""
    same: list[Row]
    """Of the configurations."""
    curves: charts.Curve | None


def compare(session: Session, sweep_id: str, query: SweepQuery) -> Comparison:
    """The chosen trials. Raises NotFoundError, and UnprocessableError for fewer than two or more than ten."""
    row = leaderboards.get_sweep(session, sweep_id)
    numbers = [int(number) for number in query.trial]
    if not 2 <= len(numbers) <= MAX_COMPARED:
        raise UnprocessableError(
            f"{formatting.plural(len(numbers), 'trial')} chosen: choose from 2 to {MAX_COMPARED} on the leaderboard"
        )
    found = {
        trial.number: trial
        for trial in session.scalars(select(Trial).where(Trial.sweep_id == row.id, Trial.number.in_(numbers)))
    }
    if missing := [number for number in numbers if number not in found]:
        raise NotFoundError(f"there is no trial {missing[0]} in sweep {row.id}")
    chosen = [found[number] for number in numbers]
    objectives = [each["metric"] for each in row.objectives]
    metrics = _metrics(session, row, chosen)
    others = [each for each in metrics if each.name not in objectives]
    parameters = parameter_rows(chosen)
    varied = {name for trial in chosen for name in trial.parameters}
    return Comparison(
        now=now(session),
        sweep=row,
        query=query,
        trials=chosen,
        recommended=_recommended(session, row),
        objectives=[each for each in metrics if each.name in objectives],
        metrics=[each for each in others if not _is_alike(each)],
        parameters=[each for each in parameters if each.differs and each.name in varied],
        following=[each for each in parameters if each.differs and each.name not in varied],
        alike=[each for each in others if _is_alike(each)],
        same=[each for each in parameters if not each.differs],
        curves=_curves(session, chosen),
    )


def _is_alike(row: Row) -> bool:
    """Whether nobody would tell its values from one another: they are within noise, or read the same."""
    return row.is_noise or len({formatting.metric(row.name, cast("float | None", each)) for each in row.values}) == 1


def _recommended(session: Session, sweep: Sweep) -> str | None:
    try:
        return recommend(session, sweep).trial.trial
    except NotFoundError:
        return None


def _metrics(session: Session, sweep: Sweep, chosen: Sequence[Trial]) -> list[Row]:
    goals = {each["metric"]: each["goal"] for each in sweep.objectives}
    names = [*goals, *(name for name in MetricNames.of(sweep.document) if name not in goals)]
    confirmed = confirmed_losses(session, sweep.id)
    noise = noise_of(session, sweep, candidate_of(chosen[0]), {trial.id: trial for trial in chosen}, confirmed)
    rows: list[Row] = []
    for name in names:
        values: list[Scalar | None] = [trial.metrics.get(name) for trial in chosen]
        known = [float(value) for value in values if value is not None]
        if known:
            best = max(known) if goals.get(name, declaration_of(name).goal) == "maximize" else min(known)
            rows.append(Row(name, values, best if len(set(known)) > 1 else None, _noise(noise, name, known)))
    return rows


def _noise(noise: Noise, name: str, known: Sequence[float]) -> float:
    """What the difference of two such values stays within 19 times in 20."""
    if name == "bits_per_byte":
        # The loss in another unit.
        name = LOSS
    return Z95 * SQRT_2 * noise.deviation(name, sum(map(abs, known)) / len(known))


def parameter_rows(chosen: Sequence[Trial | None]) -> list[Row]:
    """Of the whole configurations, fixed parameters too: what their sweeps vary comes first. None has no values."""
    # Variables of a sweep are in no configuration.
    flat = [trial.parameters | flatten(cast("Sections", trial.configuration)) if trial else {} for trial in chosen]
    names = dict.fromkeys(name for trial in chosen if trial for name in trial.parameters)
    names |= dict.fromkeys(name for values in flat for name in values)
    return [Row(name, [values.get(name) for values in flat]) for name in names]


def _curves(session: Session, chosen: Sequence[Trial]) -> charts.Curve | None:
    """The validation losses of the trials by step."""
    series: list[charts.Series] = []
    for trial in chosen:
        points = trial_details.curve(session, trial)
        losses = [(float(point.step), loss) for point in points if (loss := point.validation_loss) is not None]
        series.append(charts.Series(f"trial {trial.number}", losses))
    return charts.overlaid(series, "step", "loss")
