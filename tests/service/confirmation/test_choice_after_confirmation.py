"""Which trial is recommended once seeds were seen to spread. Nothing is trained: finishes carry made-up losses."""

from __future__ import annotations

import pytest

from service.confirmation import confirmations
from tests.service.confirmation.finishing import claim, finish
from tests.service.pages import page
from tests.service.sweep_rows import TARGET, add_measurement, add_sweep, add_trial, complete_configuration, rank

SIZES_AND_LOSSES = ((1000.0, 2.0), (500.0, 2.05), (100.0, 2.1))
"""By trial number; all are as fast."""


@pytest.fixture
def sweep(services, register) -> str:
    dataset = register("letters", "0.2")

    def fill(session):
        row = {"dataset_id": dataset, "target": TARGET, "target_key": TARGET["key"]}
        sweep = add_sweep(session, document={"task": "causal_lm"}, state="completed", **row)
        trials = []
        for number, (size, loss) in enumerate(SIZES_AND_LOSSES):
            metrics = {"latency_ms_p50": 1.0, "validation_loss": loss, "parameter_count": size}
            trials.append(add_trial(session, sweep, number, metrics, configuration=complete_configuration(2)))
            along = {"loss_sums": [loss * 10, loss * 10], "weight_sums": [10, 10]}
            add_measurement(session, trials[-1], "loss_blocks", {"validation": along})
        rank(session, sweep, trials)
        return sweep.id

    return services.database.write(fill)


@pytest.fixture
def confirm(client, services, worker, sweep):
    def confirm(**losses: tuple[float, float]) -> None:
        """`t0=(2.0, 2.2)`: of trial 0, with two further seeds."""
        numbers = [int(name[1:]) for name in losses]
        made = client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 2, "trials": numbers})
        assert made.status_code == 201, made.text
        # One seed after the other, of each trial.
        for loss in [each[seed] for seed in (0, 1) for each in losses.values()]:
            finish(client, claim(client, services, worker), validation_loss=loss)
        services.database.write(confirmations.end_finished)

    return confirm


@pytest.fixture
def recommended(client, sweep):
    return lambda: client.get(f"/v1/sweeps/{sweep}/recommendation").json()


def test_a_spread_over_seeds_does_not_recommend_a_trial_that_was_not_confirmed(client, sweep, confirm, recommended):
    assert recommended()["trial"]["number"] == 0
    confirm(t0=(2.0, 2.6))
    found = recommended()
    assert (found["trial"]["number"], found["smaller"]) == (0, None)
    assert "no unconfirmed trial takes the place" in found["rule"]
    says = found["evidence"]["complexity"]["says"][-1]
    assert says.startswith("trial 2 may be as good as trial 0, but was not confirmed: with 900 parameters less (90%)")
    assert says.endswith("(layersweep confirm SWEEP --trial 2)")
    assert "Trial 2 may be as good as trial 0" in page(client, f"/sweeps/{sweep}", part="sweep-results")


def test_trials_confirmed_one_after_the_other_are_compared_by_their_further_seeds(client, sweep, confirm, recommended):
    confirm(t0=(2.0, 2.6))
    confirm(t2=(3.0, 3.2))
    found = recommended()
    assert found["trial"]["number"] == 0, "trial 2 is worse by more than the spread"
    assert found["evidence"]["complexity"]["says"][-1].startswith("trial 1 may be as good as trial 0")
    shown = [each["trial"]["number"] for each in found["confirmation"]["candidates"]]
    assert shown == [0], "that of the recommended trial, not the newest"
    assert "was not confirmed: these were" not in page(client, f"/sweeps/{sweep}", part="sweep-results")
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 1, "trials": [1]}).status_code == 201
    going = recommended()["confirmation"]
    assert going["says"] == ["trial 0, which is recommended, has a confirmation of its own, not this one"]
    assert "not being confirmed" not in page(client, f"/sweeps/{sweep}", part="sweep-results")
    assert client.post(f"/v1/sweeps/{going['id']}:cancel").status_code == 200
    confirm(t1=(2.3, 2.2))
    found = recommended()
    assert (found["trial"]["number"], found["smaller"]["instead_of"]["number"]) == (1, 0)
    assert found["smaller"]["loss_difference_nats"] == pytest.approx(-0.05)
    assert "its mean validation loss over further seeds is -0.0500 nats" in found["smaller"]["says"]
