"""The same document and the same endings give the same suggestions, whether or not the scheduler was ever stopped.

Trials are run by the pretend worker of `sweep_driver`: nothing is measured.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.databases import POSTGRESQL_IN_SLOW_TESTS
from tests.service.sweep_driver import Driver, document, small

SAMPLERS = [("random", 15), ("tpe", 24), ("nsga2", 30), ("surrogate", 24), ("qmc", 12), ("gp", 13), ("grid", 12)]


def _document(sampler: str, seed: int = 7) -> dict[str, Any]:
    search = {"sampler": sampler, "seed": seed}
    budget = {"trials": 100, "parallel": 2}
    return small(search=search, budget=budget) if sampler == "grid" else document(search=search, budget=budget)


def _run(driver: Driver, written: dict[str, Any], trials: int, *, rebuild_every: int = 0) -> list[Any]:
    """What the sampler suggests over `trials` trials of a new sweep, which is then ended."""
    sweep = driver.post(written)
    driver.run(sweep, trials, rebuild_every=rebuild_every)
    driver.cancel(sweep)
    return driver.sequence(sweep)


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize(("sampler", "trials"), SAMPLERS)
def test_a_rebuilt_study_goes_on_as_if_it_had_never_stopped(driver: Driver, sampler: str, trials: int) -> None:
    uninterrupted = _run(driver, _document(sampler), trials)
    rebuilt = _run(driver, _document(sampler), trials, rebuild_every=3)
    assert len(uninterrupted) >= trials
    assert rebuilt == uninterrupted


PER_LAYER = {
    "num_layers": {"min": 1, "max": 3},
    "hidden_size": {"values": [32, 64]},
    "attention": {"num_attention_heads": {"values": [2, 4]}},
    "mlp": {"ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True}},
}
THREE = [{"metric": "latency_ms_p50"}, {"metric": "validation_loss"}, {"metric": "memory_bytes"}]


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize("parallel", [1, 6])
@pytest.mark.parametrize("changes", [{}, {"objectives": THREE}, {"model": PER_LAYER}], ids=["two", "three", "layers"])
def test_a_rebuilt_surrogate_goes_on_with_constraints_conditions_and_layers(
    driver: Driver, changes: dict[str, Any], parallel: int
) -> None:
    written = document(search={"sampler": "auto", "seed": 3}, budget={"trials": 60, "parallel": parallel}, **changes)
    uninterrupted = _run(driver, written, 26)
    assert _run(driver, written, 26, rebuild_every=5) == uninterrupted


# Whether a study is the same after it was read back is asked of both databases above.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "surrogate", "qmc", "grid"])
def test_the_seed_decides(driver: Driver, sampler: str) -> None:
    first, again, other = (_run(driver, _document(sampler, seed), 12) for seed in (7, 7, 8))
    assert again == first
    assert other != first


def test_asks_depend_on_the_order_of_the_endings_and_not_on_when_they_are_worked_in(driver: Driver) -> None:
    at_once, late = (driver.post(_document("tpe")) for _ in range(2))
    driver.run(at_once, 24)
    driver.cancel(at_once)
    driver.step(late)
    for _ in range(6):
        # All trials that there are end, before the scheduler looks again.
        while (lease := driver.claim()) is not None:
            driver.finish(lease)
        driver.step(late)
    both = list(zip(driver.sequence(at_once), driver.sequence(late), strict=False))
    assert len(both) >= 20
    assert all(one == other for one, other in both)


def test_a_start_is_part_of_an_nsga2_generation_after_a_rebuild_too(driver: Driver) -> None:
    start = {
        "num_layers": 2,
        "hidden_size": 64,
        "attention.num_attention_heads": 4,
        "attention.position_embedding_type": "rope_gpt_neox",
        "norm.kind": "LayerNorm",
        "training.learning_rate": 1e-3,
        "training.dropout": 0.3,
    }
    written = _document("nsga2") | {"start_from": [start]}
    uninterrupted = _run(driver, written, 30)
    assert uninterrupted[0][0]["training.dropout"] == 3, "a stepped number is suggested as an index"
    assert _run(driver, written, 30, rebuild_every=4) == uninterrupted
