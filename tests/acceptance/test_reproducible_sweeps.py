"""The same document and seed give the same parameters in the same order and the same losses, restart or not."""

from typing import Any

import pytest

from tests.acceptance.deployment import Deployment


def _learnt(deployment: Deployment, sweep: str) -> list[tuple[Any, Any]]:
    return [(trial["parameters"], trial["metrics"].get("validation_loss")) for trial in deployment.trials(sweep)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "surrogate"])
def test_a_seed_reproduces_a_sweep(deployment: Deployment, small_sweep: dict[str, Any], sampler: str) -> None:
    small_sweep["search"]["sampler"] = sampler
    small_sweep["budget"]["trials"] = 14  # TPE and the surrogate draw at random for the first ten
    small_sweep["training"]["steps"] = 5
    service = deployment.start_service()
    deployment.start_brief_worker()
    first, second = deployment.submit(small_sweep), deployment.submit(small_sweep)
    deployment.finish_sweep(first)
    deployment.finish_sweep(second)
    assert _learnt(deployment, first) == _learnt(deployment, second)
    assert len(_learnt(deployment, first)) == 14

    third = deployment.submit(small_sweep)
    endings = 0

    def half_way(event: dict[str, Any]) -> bool:
        nonlocal endings
        endings += event["kind"] == "trial.ended"
        return endings == 7

    deployment.events(third, until=half_way)
    deployment.kill(service)
    deployment.start_service()
    deployment.finish_sweep(third)
    assert _learnt(deployment, third) == _learnt(deployment, first)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_reuse_costs_no_device_seconds_and_says_where_answers_came_from(
    deployment: Deployment, small_sweep: dict[str, Any]
) -> None:
    small_sweep["search"]["reuse"] = True
    small_sweep["budget"]["trials"] = 2
    deployment.start_service()
    worker = deployment.start_brief_worker()
    first = deployment.submit(small_sweep)
    deployment.finish_sweep(first)
    deployment.kill(worker)

    second = deployment.submit(small_sweep)
    deployment.finish_sweep(second)

    sources, answers = deployment.trials(first), deployment.trials(second)
    assert [trial["reused_from"] for trial in answers] == [trial["id"] for trial in sources]
    assert [trial["metrics"] for trial in answers] == [trial["metrics"] for trial in sources]
    assert [trial["attempt"] for trial in answers] == [0, 0]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_space_of_12_points_is_exhausted_after_12_trials(deployment: Deployment, small_sweep: dict[str, Any]) -> None:
    small_sweep["training"] |= {"learning_rate": 1e-3, "steps": 5}
    small_sweep["budget"]["trials"] = 100
    deployment.start_service()
    deployment.start_brief_worker()
    sweep = deployment.submit(small_sweep)
    ended = deployment.finish_sweep(sweep)
    assert (ended["state"], ended["reason"]) == ("completed", "space_exhausted")
    assert len(deployment.trials(sweep)) == 12
