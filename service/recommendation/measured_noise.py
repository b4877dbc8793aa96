"""The noise of a recommendation's figures, read from what workers measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from layers.expressions.metric_names import MetricNames
from layers.metrics import AT
from service.database.models import Dataset, Measurement, Sweep, Trial, TrialMetric
from service.noise.sweep_noise import deciding_latencies, is_of_forward
from service.recommendation.choice import Candidate
from service.recommendation.further_trainings import ConfirmedLosses
from service.recommendation.noise import BLOCKS_MEASUREMENT, Blocks, sampling_error
from service.recommendation.uncertainty import Noise, TimedFigure

SPLIT = "validation"
LATENCY = "latency_ms_p50"


def noise_of(
    session: Session, sweep: Sweep, chosen: Candidate, front: Mapping[str, Trial], confirmed: ConfirmedLosses
) -> Noise:
    """Of the chosen trial's figures. `front`: the trials of the front, by id.

    Of several shapes, latencies at the first one tell it.
    """
    metrics = MetricNames.of(sweep.document)
    latency, at = metrics.resolve(LATENCY), "" if metrics.first is None else f"{AT}{metrics.first}"
    first = dict(
        session.execute(
            sa.select(Measurement.trial_id, Measurement.data[LATENCY].as_float()).where(
                Measurement.name == f"latency_first{at}", Measurement.trial_id.in_(list(front))
            )
        ).all()
    )
    rebuilt = {
        trial_id: trial.metrics[latency] / first[trial_id] - 1
        for trial_id, trial in front.items()
        if first.get(trial_id) and latency in trial.metrics
    }
    half_width = session.scalar(
        sa.select(Measurement.data[("environment", "median_half_width")].as_float()).where(
            Measurement.name == f"latency_samples_ms{at}", Measurement.trial_id == chosen.id
        )
    )
    blocks = validation_blocks(session, [chosen.id])
    deciding = deciding_latencies(sweep)
    spread = confirmed.spread
    own_spread = None if spread is not None else spread_of_trainings(session, sweep.id)
    return Noise(
        shape=metrics.first,
        seed_spread_nats=own_spread if spread is None else spread,
        seeds=chosen.trainings + len(confirmed.by_trial.get(chosen.id, ())),
        trainings=chosen.trainings,
        is_confirmed=spread is not None,
        is_confirmable=sweep.dataset_id is None or "test" in session.get_one(Dataset, sweep.dataset_id).parts,
        timed={name: figure for name in deciding if (figure := _timed(front[chosen.id], name)) is not None},
        is_of_forward=any(map(is_of_forward, deciding)),
        median=_timed(front[chosen.id], latency),
        worker_half_width_share=half_width,
        latency_rebuilt_share=rebuilt.get(chosen.id),
        front_rebuilt_shares=tuple(rebuilt.values()),
        sampling_error_nats=sampling_error(blocks.get(chosen.id)),
    )


def _timed(trial: Trial, metric: str) -> TimedFigure | None:
    """With its interval, as the worker said it."""
    figure = None if trial.noise is None else trial.noise["figures"].get(metric)
    if figure is None or metric not in trial.metrics:
        return None
    return TimedFigure(trial.metrics[metric], figure["low"], figure["high"], figure["processes"])


def spread_of_trainings(session: Session, sweep_id: str) -> float | None:
    """The spread of one training's loss over seeds, pooled over the sweep's trials that were trained again."""
    error, count = aliased(TrialMetric), aliased(TrialMetric)
    rows = session.execute(
        sa.select(error.value, count.value)
        .join(count, count.trial_id == error.trial_id)
        .where(error.sweep_id == sweep_id, error.name == "validation_loss_stderr")
        .where(count.sweep_id == sweep_id, count.name == "trainings", count.value > 1)
        .order_by(error.trial_id)
    ).all()
    degrees = sum(trainings - 1 for _, trainings in rows)
    if not degrees:
        return None
    # Products, not powers: those of stored figures that cannot be are infinite, and raise nothing.
    spread = math.sqrt(sum(each * each * trainings * (trainings - 1) for each, trainings in rows) / degrees)
    return spread if math.isfinite(spread) else None


def validation_blocks(session: Session, trial_ids: Collection[str]) -> dict[str, Blocks]:
    """Trial -> its losses along the validation split, if they were stored."""
    rows = session.execute(
        sa.select(Measurement.trial_id, Measurement.data).where(
            Measurement.name == BLOCKS_MEASUREMENT, Measurement.trial_id.in_(trial_ids)
        )
    )
    read = ((trial_id, Blocks.read(found.get(SPLIT))) for trial_id, found in rows)
    return {trial_id: blocks for trial_id, blocks in read if blocks is not None}
