"""/v1/sweeps/{id}/recommendation over rows: the choice, and the evidence that comes with it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.common.ids import new_id
from service.database.models import Dataset, Sweep, Trial
from service.http.dependencies import Services
from service.recommendation.compatibility import compatibility
from service.recommendation.uncertainty import Noise, TimedFigure
from tests.service.sweep_rows import (
    TARGET,
    add_measurement,
    add_sweep,
    add_trial,
    add_worker,
    complete_configuration,
    rank,
)

QUALITIES = ((1.0, 5.0), (2.0, 4.0), (1.5, 6.0), (4.0, 1.0), (2.0, 4.0))
"""Latency and loss by trial number: rank 1 is 0, 1, 3, 4; rank 2 is 2."""


def losses(values: Any) -> dict:
    return {"validation": {"loss_sums": [10.0 * value for value in values], "weight_sums": [10.0] * len(values)}}


@pytest.fixture
def sweep(client: TestClient, services: Services) -> str:
    def fill(session: Session):
        sweep = add_sweep(session, document={"constraints": ["latency_ms_p50 <= 5", "validation_loss <= 7"]})
        trials = []
        for number, (latency, loss) in enumerate(QUALITIES):
            metrics = {"latency_ms_p50": latency, "validation_loss": loss, "parameter_count": 1000.0 - number}
            metrics["generalization_gap"] = 0.1 * number
            violations = {"latency_ms_p50 <= 5": latency - 5, "validation_loss <= 7": loss - 7}
            known = {"violations": violations, "configuration": complete_configuration(number + 1)}
            trials.append(add_trial(session, sweep, number, metrics, **known))
            add_measurement(session, trials[-1], "latency_first", {"latency_ms_p50": latency * 1.02})
            add_measurement(session, trials[-1], "loss_blocks", losses(np.linspace(loss - 0.1, loss + 0.1, 9)))
        broken = {"latency_ms_p50 <= 5": 1.0, "validation_loss <= 7": -6.9}
        metrics = {"latency_ms_p50": 6.0, "validation_loss": 0.1, "parameter_count": 5000.0}
        trials.append(add_trial(session, sweep, 5, metrics, feasible=False, violations=broken))
        add_trial(
            session,
            sweep,
            6,
            {"latency_ms_p50": 9.0},
            state="infeasible",
            feasible=False,
            violations={"latency_ms_p50 <= 5": 4.0},
        )
        rank(session, sweep, trials)
        return sweep.id

    return services.database.write(fill)


def recommended(client: TestClient, sweep: str, **params: Any):
    answer = client.get(f"/v1/sweeps/{sweep}/recommendation", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_nearest_to_the_ideal_point_is_recommended(client: TestClient, sweep: str) -> None:
    # Scaled to the front's range: trial 0 is (0, 1), trials 1 and 4 are (1/3, 3/4), trial 3 is (1, 0).
    # 1 and 4 are nearest and equal; 4 has fewer parameters.
    found = recommended(client, sweep)
    assert found["trial"]["number"] == 4
    assert found["configuration"]["model"]["num_layers"] == 5
    assert found["final"] is False
    assert "nearest to the ideal point" in found["rule"]
    assert found["smaller"] is None


def test_prefer_and_within_change_it_as_they_say(client: TestClient, sweep: str) -> None:
    assert recommended(client, sweep, prefer="latency_ms_p50")["trial"]["number"] == 0
    assert recommended(client, sweep, prefer="validation_loss")["trial"]["number"] == 3
    within = recommended(client, sweep, prefer="latency_ms_p50", within="validation_loss:3")
    assert within["trial"]["number"] == 4
    assert within["within"] == ["validation_loss:3"]
    assert recommended(client, sweep, weight="latency_ms_p50:10")["trial"]["number"] == 0


def test_wishes_that_nothing_meets_say_what_comes_closest(client: TestClient, sweep: str) -> None:
    params = {"within": ["validation_loss:1%", "latency_ms_p50:1%"]}
    answer = client.get(f"/v1/sweeps/{sweep}/recommendation", params=params)
    assert answer.status_code == 422
    assert {each["pointer"] for each in answer.json()["errors"]} == {
        "/within/validation_loss",
        "/within/latency_ms_p50",
    }
    assert "the closest, has" in answer.json()["errors"][0]["detail"]


def test_slack_and_what_other_limits_would_buy(client: TestClient, sweep: str) -> None:
    latency, loss = recommended(client, sweep)["evidence"]["constraints"]
    assert (latency["metric"], latency["value"], latency["limit"], latency["slack"]) == (
        "latency_ms_p50",
        2.0,
        5.0,
        3.0,
    )
    assert latency["slack_share"] == pytest.approx(0.6)
    assert latency["tighter"]["trial"]["number"] == 0
    assert latency["looser"]["trial"]["number"] == 5
    assert latency["looser"]["limit"] == 6.0
    assert "would join the front" in latency["looser"]["says"]
    assert loss["tighter"]["trial"]["number"] == 3
    assert "no measured trial is excluded" in loss["looser"]["says"]


def test_neighbours_say_what_they_trade(client: TestClient, sweep: str) -> None:
    found = {each["better_in"]: each for each in recommended(client, sweep)["neighbours"]}
    assert found["latency_ms_p50"]["trial"]["number"] == 0
    assert found["validation_loss"]["trial"]["number"] == 3
    trades = {each["metric"]: each["difference"] for each in found["validation_loss"]["trades"]}
    assert trades == {"latency_ms_p50": 2.0, "validation_loss": -3.0, "parameter_count": 1.0}


def test_certainty_states_its_noise(client: TestClient, sweep: str) -> None:
    found = recommended(client, sweep)["certainty"]
    assert found["latency_rebuilt_share"] == pytest.approx(1 / 1.02 - 1)
    assert found["validation_standard_error_nats"] > 0
    assert found["seeds"] == 1
    assert found["seed_spread_nats"] is None
    assert 0 < found["chosen_again_share"] <= 1
    assert any("confirm the sweep to measure it (layersweep confirm" in line for line in found["says"])


def test_its_certainty_does_not_depend_on_where_the_database_has_the_rows(
    client: TestClient, services: Services, sweep: str
) -> None:
    before = recommended(client, sweep)["certainty"]
    # PostgreSQL writes a row that is updated to another place, and reads it later.
    for number in (0, 3):
        moved = sa.update(Trial).where(Trial.sweep_id == sweep, Trial.number == number).values(reason=Trial.reason)
        services.database.write(lambda session, moved=moved: session.execute(moved))
    assert recommended(client, sweep)["certainty"] == before


def test_no_noise_is_shown_as_zero(client: TestClient, services: Services) -> None:
    """A clock that is too coarse for a difference, losses that are all but equal."""

    def fill(session: Session):
        sweep = add_sweep(session)
        trials = []
        for number, latency in enumerate((1.0, 0.9999)):
            metrics = {"latency_ms_p50": latency, "validation_loss": 2.0 + number}
            trials.append(add_trial(session, sweep, number, metrics, configuration=complete_configuration(2)))
            samples = {"environment": {"median_half_width": 0.0}}
            add_measurement(session, trials[-1], "latency_samples_ms", samples)
            add_measurement(session, trials[-1], "latency_first", {"latency_ms_p50": latency * 1.00001})
            add_measurement(session, trials[-1], "loss_blocks", losses(np.full(9, 2.0 + number)))
        rank(session, sweep, trials)
        return sweep.id

    found = recommended(client, services.database.write(fill))
    text = " ".join([*found["certainty"]["says"], *(each["says"] for each in found["neighbours"])])
    assert "known to within 0.1%" in text
    assert "its p50 differed by less than 0.1%" in text
    assert "standard error less than 0.0001 nats" in text
    assert "by under 0.1%" in text
    for nothing in ("+0.0%", "-0.0%", " 0.0%", "0.0000", "±"):
        assert nothing not in text


@pytest.mark.parametrize(
    ("low", "high", "processes", "says"),
    [
        (0.474, 3.876, 1, "between 0.4740 ms and 3.876 ms (95 %, 1 process)"),
        (0.4839, 0.4841, 2, "known to within 0.1% (95 %, 2 processes)"),
    ],
)
def test_a_latency_that_may_only_be_higher_is_not_said_to_be_known_to_either_side(
    client: TestClient, services: Services, low: float, high: float, processes: int, says: str
) -> None:
    def fill(session: Session):
        sweep = add_sweep(session)
        noise = {"low": low, "high": high, "processes": processes, "spread": None, "known": False}
        trials = [
            add_trial(
                session,
                sweep,
                number,
                {"latency_ms_p50": latency, "validation_loss": 3.0 - number},
                configuration=complete_configuration(2),
                noise={"figures": {"latency_ms_p50": noise}, "undecided": []},
            )
            for number, latency in enumerate((0.484, 0.6))
        ]
        for trial in trials:
            add_measurement(session, trial, "latency_samples_ms", {"environment": {"median_half_width": 3.512}})
        rank(session, sweep, trials)
        return sweep.id

    found = recommended(client, services.database.write(fill), prefer="latency_ms_p50")["certainty"]
    assert f"the median latency is {says}" in found["says"]
    assert "±" not in " ".join(found["says"])
    assert found["latency_half_width_share"] == pytest.approx(max(high / 0.484 - 1, 1 - low / 0.484))


def test_a_latency_is_drawn_again_as_far_to_each_side_as_it_is_known_to() -> None:
    noise = Noise(median=TimedFigure(1.0, 0.98, 5.0, 1))
    source = random.Random(0)
    latencies = [noise.drawn("latency_ms_p50", 2.0, 1, source) for _ in range(400)]
    assert 1.9 < min(latencies) < 1.98
    assert max(latencies) > 8
    per_s = [noise.drawn("throughput_per_s", 500.0, 1, source) for _ in range(400)]
    assert 0 <= min(per_s) < 10
    assert 505 < max(per_s) < 525


def test_a_trial_that_was_not_trained_says_nothing_of_seeds(client: TestClient, services: Services) -> None:
    def fill(session: Session):
        sweep = add_sweep(session, objectives=[{"metric": "latency_ms_p50", "goal": "minimize"}])
        trial = add_trial(session, sweep, 0, {"latency_ms_p50": 1.0}, configuration=complete_configuration(2))
        rank(session, sweep, [trial])
        return sweep.id

    assert not any("seed" in line for line in recommended(client, services.database.write(fill))["certainty"]["says"])


@pytest.mark.parametrize(
    ("losses_of_trials", "said", "unsaid"),
    [
        ((3.0, 3.0, 3.0), "no objective varies over the 3 feasible trials: any is as good as this one", "repeats"),
        ((3.0, 2.0, 1.0), "latency p50 does not vary over the 3 feasible trials: it decides nothing", "no objective"),
        ((1.0, 1.0, 2.0), "the 2 trials of the front are the same in every objective", "no objective"),
        ((3.0,), "the front has one trial", "does not vary"),
    ],
)
def test_trials_that_are_all_the_same_are_said_to_be(
    client: TestClient, services: Services, losses_of_trials: Any, said: Any, unsaid: Any
) -> None:
    def fill(session: Session):
        sweep = add_sweep(session)
        trials = [
            add_trial(
                session,
                sweep,
                number,
                {"latency_ms_p50": 2.0, "validation_loss": loss},
                configuration=complete_configuration(2),
            )
            for number, loss in enumerate(losses_of_trials)
        ]
        rank(session, sweep, trials)
        return sweep.id

    sweep = services.database.write(fill)
    text = " ".join(recommended(client, sweep)["certainty"]["says"])
    assert said in text
    assert unsaid not in text
    report = client.get(f"/v1/sweeps/{sweep}/report", params={"format": "markdown"}).text
    assert said in report


def test_complexity_shows_the_gap_by_size(client: TestClient, sweep: str) -> None:
    found = recommended(client, sweep)["evidence"]["complexity"]
    assert [point["number"] for point in found["points"]] == [4, 3, 2, 1, 0]
    assert found["generalization_gap"] == pytest.approx(0.4)
    assert any("shrinks with size" in line for line in found["says"])


def test_a_smaller_trial_that_is_as_good_takes_its_place_and_says_why(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(session: Session):
        sweep = add_sweep(session)
        hardness = np.random.default_rng(0).normal(2.0, 0.3, 20)
        trials = []
        for number, (size, extra) in enumerate(((1e6, 0.0), (1e5, 0.001), (1e4, 0.5))):
            # The paired differences average `extra`, with a standard error of about 0.005.
            blocks = hardness + extra + (0.02 * (-1.0) ** np.arange(20) if number else 0.0)
            metrics = {"latency_ms_p50": 1.0, "validation_loss": float(blocks.mean()), "parameter_count": size}
            trials.append(add_trial(session, sweep, number, metrics, configuration=complete_configuration(2)))
            add_measurement(session, trials[-1], "loss_blocks", losses(blocks.tolist()))
            timed = {"environment": {"median_half_width": 0.01 * (number + 1)}}
            add_measurement(session, trials[-1], "latency_samples_ms", timed)
        rank(session, sweep, trials)
        return sweep.id

    sweep = services.database.write(fill)
    found = recommended(client, sweep)
    assert found["trial"]["number"] == 1
    assert found["certainty"]["latency_half_width_share"] == 0.02, "of the trial that is recommended"
    assert "the median latency is known to within 2.0%" in found["certainty"]["says"][0]
    assert found["trial"]["on_front"] is False
    assert found["smaller"]["instead_of"]["number"] == 0
    assert found["smaller"]["parameters_saved"] == 900_000
    assert "in place of trial 0" in found["smaller"]["says"]
    monkeypatch.setattr("service.report.contents.MAX_POINTS", 2)
    drawn = client.get(f"/v1/sweeps/{sweep}/report?format=json").json()["tradeoff"]
    assert ({point["number"] for point in drawn["points"]}, drawn["total"]) == ({0, 1}, 3)


def test_what_the_data_implies_and_where_it_builds(client: TestClient, services: Services, sweep: str) -> None:
    def fill(session: Session):
        add_worker(session)
        dataset = Dataset(
            id=new_id(),
            name="letters",
            task="causal_lm",
            tokenizer="char",
            sha256="a" * 64,
            size_bytes=1,
            facts={"vocabulary_size": 64},
            parts={"training": {"tokens": 1_000_000}, "validation": {"tokens": 5_000}},
            profile={
                "baselines_nats": {"uniform": 4.2, "5-gram": 1.8},
                "lines": {"validation_in_training_share": 0.2, "duplicate_share": 0.1},
            },
            created_at=0.0,
        )
        session.add(dataset)
        session.flush()
        row = session.get_one(Sweep, sweep)
        row.dataset_id, row.target_key = dataset.id, str(TARGET["key"])

    services.database.write(fill)
    evidence = recommended(client, sweep)["evidence"]
    data = evidence["data"]
    assert data["parameters_low"] == 50_000
    assert data["parameters_high"] == pytest.approx(1e6 * 1.8 / np.log(2) / 3.6)
    said = " ".join(each["says"] for each in data["implications"])
    for phrase in ("20.0% of the validation", "rough estimate", "--test 0.1"):
        assert phrase in said
    assert all(each["source"] for each in data["implications"] if each["kind"] == "range")
    assert evidence["complexity"]["tokens_per_parameter"] == pytest.approx(1e6 / 997), (
        "trial 3 alone beats the 5-gram model"
    )


def test_a_limit_on_one_of_two_objectives_names_the_best_in_the_other(
    client: TestClient, services: Services, sweep: str
) -> None:
    path = f"/v1/sweeps/{sweep}/recommendation"
    assert client.get(path).json()["under_limits"] is None, "both objectives have a limit"

    def drop(session: Session) -> None:
        row = session.get_one(Sweep, sweep)
        row.document = {**row.document, "constraints": ["latency_ms_p50 <= 5"]}

    services.database.write(drop)
    found = client.get(path).json()
    under = found["under_limits"]
    assert (found["trial"]["number"], under["trial"]["number"], under["better_in"]) == (4, 3, "validation_loss")
    best = "trial 3 has the best validation loss: validation loss 1 nats (-75.0%), latency p50 4 ms"
    assert under["says"].startswith(f"within latency_ms_p50 <= 5, {best}")
    assert under["says"].endswith("choose by validation_loss alone: --prefer validation_loss")
    for form in ("html", "markdown"):
        text = client.get(f"/v1/sweeps/{sweep}/report", params={"format": form}).text
        assert "trial 3 has the best validation loss" in text
    assert "trial 3 has the best validation loss" in client.get(f"/sweeps/{sweep}").text
    preferred = client.get(path, params={"prefer": "validation_loss"}).json()
    assert (preferred["trial"]["number"], preferred["under_limits"]) == (3, None)


def test_a_target_is_named_once_where_it_cannot_run_a_model() -> None:
    configuration: Any = complete_configuration(1)
    found = compatibility(configuration, None, [], {})
    (turing,) = [each for each in found.targets if each.target.startswith("tensorrt_rtx") and "7.5" in each.target]
    assert (turing.lacks or "").startswith("does not run float32")
    assert f"{turing.target}: {turing.lacks}" in found.says


@pytest.mark.parametrize("weights", ["", "&weight=validation_loss:2"])
def test_a_front_of_two_ends_is_said_to_be_decided_by_nothing_but_size(
    client: TestClient, services: Services, weights: str
) -> None:
    """Each is the best of one objective: a share of repeats would say that the choice is sure."""

    def fill(session: Session):
        sweep = add_sweep(session)
        trials = []
        for number, latency in enumerate((1.0, 2.0)):
            metrics = {"latency_ms_p50": latency, "validation_loss": 3.0 - number}
            trials.append(add_trial(session, sweep, number, metrics, configuration=complete_configuration(2)))
            add_measurement(session, trials[-1], "latency_samples_ms", {"environment": {"median_half_width": 0.01}})
            add_measurement(session, trials[-1], "loss_blocks", losses(np.full(9, 3.0 - number)))
        rank(session, sweep, trials)
        return sweep.id

    sweep = services.database.write(fill)
    certainty = client.get(f"/v1/sweeps/{sweep}/recommendation?{weights}").json()["certainty"]
    text = " ".join(certainty["says"])
    is_weighted = bool(weights)
    assert ("equally near to the ideal point" in text) is not is_weighted
    assert (certainty["chosen_again_share"] is not None) is is_weighted
