"""A trial that loses to a model that only counts: passed over while another beats it, else told how long to train."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient
from rich.console import Console
from sqlalchemy.orm import Session

from layersweep.display.recommendations import render
from service.common.ids import new_id
from service.database.models import Dataset
from service.http.dependencies import Services
from service.leases.schemas import CurvePoint
from service.recommendation.baselines.comparison import steps_in_words
from service.recommendation.baselines.loss_slope import loss_slope
from tests.service.sweep_rows import add_attempt, add_sweep, add_trial, add_worker, complete_configuration, rank

QUALITIES = ((1.0, 5.0), (2.0, 4.0), (4.0, 1.0))
"""Latency and validation loss of the trials of the front; the rule alone takes trial 1."""


@pytest.fixture
def sweep_against(client: TestClient, services: Services):
    """Makes a sweep whose dataset has this bigram baseline; every trial's curve falls by `fall` nats a doubling."""

    def made(baseline: float, fall: float = 0.0, objectives: Any = None) -> str:
        def fill(session: Session):
            dataset = Dataset(
                id=new_id(),
                name="letters",
                task="causal_lm",
                tokenizer="char",
                sha256="a" * 64,
                size_bytes=1,
                facts={"vocabulary_size": 64},
                parts={"training": {"tokens": 1_000_000}, "validation": {"tokens": 50_000}},
                profile={"baselines_nats": {"uniform": baseline + 2, "bigram": baseline}},
                created_at=0.0,
            )
            session.add(dataset)
            session.flush()
            worker = add_worker(session)
            sweep = add_sweep(session, dataset_id=dataset.id, objectives=objectives)
            trials = []
            for number, (latency, loss) in enumerate(QUALITIES):
                metrics = {"latency_ms_p50": latency, "validation_loss": loss}
                configuration = complete_configuration(number + 1)
                trials.append(add_trial(session, sweep, number, metrics, configuration=configuration))
                curve = {step: loss - fall * math.log2(step / 200) for step in range(10, 201, 10)}
                losses = {step: {"validation_loss": each} for step, each in curve.items()}
                add_attempt(session, trials[-1], worker, curve=losses)
            rank(session, sweep, trials)
            return sweep.id

        return services.database.write(fill)

    return made


def recommended(client: TestClient, sweep: str, **params: Any):
    answer = client.get(f"/v1/sweeps/{sweep}/recommendation", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def everywhere(client: TestClient, sweep: str) -> dict[str, str]:
    """What page, report and terminal say of the recommendation."""
    terminal = io.StringIO()
    Console(file=terminal, width=10_000).print(render(recommended(client, sweep)))
    report = f"/v1/sweeps/{sweep}/report"
    return {
        "page": client.get(f"/sweeps/{sweep}").text,
        "html": client.get(report).text,
        "markdown": client.get(report, params={"format": "markdown"}).text,
        "terminal": terminal.getvalue(),
    }


def test_what_loses_to_counting_is_passed_over_while_another_beats_it(client: TestClient, sweep_against: Any) -> None:
    sweep = sweep_against(3.5)
    found = recommended(client, sweep)
    assert found["trial"]["number"] == 2
    assert found["baseline"]["instead_of"]["number"] == 1
    assert (found["baseline"]["model"], found["baseline"]["beaten"], found["baseline"]["slope"]) == (
        "bigram",
        True,
        None,
    )
    assert "which only counts, is passed over while another one beats it" in found["rule"]
    (said,) = found["baseline"]["says"]
    assert "trial 1, which the rule alone would choose, is passed over: its validation loss (4 nats)" in said
    for place, text in everywhere(client, sweep).items():
        assert said[1:] in text, place
    assert recommended(client, sweep, prefer="latency_ms_p50")["trial"]["number"] == 2, "a wish passes over it, too"


def test_where_nothing_beats_counting_the_answer_is_to_train_longer_by_the_curve(
    client: TestClient, sweep_against: Any
) -> None:
    sweep = sweep_against(3.5 - 3.0, fall=0.5)
    found = recommended(client, sweep)
    assert found["trial"]["number"] == 1
    baseline = found["baseline"]
    assert (baseline["beaten"], baseline["instead_of"]) == (False, None)
    assert baseline["slope"]["nats_per_doubling"] == pytest.approx(-0.5)
    assert baseline["slope"]["steps_to_baseline"] is None, "128 times as many steps are not told from two doublings"
    assert "train longer before you deploy one" in baseline["says"][0]
    assert "over steps 50 to 200 its validation loss fell by 0.500 ± 0.000 nats" in baseline["says"][1]
    assert "more than 8 times as many steps" in baseline["says"][1]
    for place, text in everywhere(client, sweep).items():
        assert "rain longer before you deploy one" in text, place
        assert baseline["says"][1][1:] in text, place


def test_a_slope_that_reaches_the_baseline_says_at_how_many_steps(client: TestClient, sweep_against: Any) -> None:
    baseline = recommended(client, sweep_against(0.5, fall=3.5))["baseline"]
    assert baseline["slope"]["steps_to_baseline"] == 400
    assert "at about 400 steps, 2 times as many" in baseline["says"][1]
    assert "count on more" in baseline["says"][1]


def test_a_curve_that_no_longer_falls_is_not_told_to_go_on(client: TestClient, sweep_against: Any) -> None:
    baseline = recommended(client, sweep_against(0.5))["baseline"]
    assert baseline["slope"]["steps_to_baseline"] is None
    assert "no longer falls clearly" in baseline["says"][1]


def test_limits_that_leave_only_losers_name_the_trial_beyond_them(client: TestClient, sweep_against: Any) -> None:
    found = recommended(client, sweep_against(3.5), within="latency_ms_p50:1.5")
    assert found["trial"]["number"] == 1
    assert "no trial within these limits beats" in found["baseline"]["says"][0]
    assert "Trial 2 of the front does, with 1" in found["baseline"]["says"][0]


def test_a_front_without_losses_is_told_to_weigh_them(client: TestClient, sweep_against: Any) -> None:
    found = recommended(client, sweep_against(0.5, objectives=[{"metric": "latency_ms_p50", "goal": "minimize"}]))
    assert found["trial"]["number"] == 0
    assert "make validation_loss an objective, or train longer" in found["baseline"]["says"][0]


def test_a_slope_is_of_the_last_part_and_of_the_losses_that_there_are() -> None:
    rising = [CurvePoint(step=step, training_loss=10.0 + step) for step in range(1, 50)]
    falling = [CurvePoint(step=step, training_loss=9.0 - math.log2(step)) for step in range(50, 201, 10)]
    slope = loss_slope([*rising, *falling])
    assert slope is not None
    assert (slope.metric, slope.from_step, slope.to_step) == ("training_loss", 50, 200)
    assert slope.nats_per_doubling == pytest.approx(-1.0)
    assert slope.times_to(1.5) == pytest.approx(2**1.5)
    assert loss_slope(falling[:3]) is None
    assert loss_slope([]) is None


@pytest.mark.parametrize(
    ("times", "most", "said"),
    [
        (1.004, 1.01, "little more than 1,500 steps"),
        (1.4142, 1.8, "about 2,100 steps, 1.4 times as many (by the scatter of its points up to 2,700)"),
        (2.0, None, "about 3,000 steps, 2 times as many (by the scatter of its points perhaps more than 8 times)"),
    ],
)
def test_an_extrapolation_is_said_as_roughly_as_it_is_known(times: float, most: float | None, said: str) -> None:
    assert steps_in_words(1500, times, most) == said


def test_a_slope_begins_after_the_warm_up() -> None:
    """While the learning rate rises a loss falls faster than it does afterwards."""
    curve = [
        CurvePoint(step=step, training_loss=9.0 - math.log2(step) * (2.0 if step < 100 else 0.5))
        for step in range(10, 201, 10)
    ]
    slope = loss_slope(curve, warmup_steps=100)
    assert slope is not None
    assert (slope.from_step, slope.nats_per_doubling) == (100, pytest.approx(-0.5))
    assert loss_slope(curve, warmup_steps=190) is None, "two points are too few"
