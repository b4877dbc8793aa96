"""Layers that differ are drawn level first in the start-up points of samplers; other spaces, and older studies, not."""

from __future__ import annotations

from typing import Any

import pytest

from layers.space.document import Space, parse_document
from service.database.sessions import Database
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.studies import PastAsk, Suggestion, TrialResult
from service.settings import Settings
from tests.databases import POSTGRESQL_IN_SLOW_TESTS
from tests.service.sweep_driver import Driver, document, formula

DATASET = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}
WIDTHS = [64, 128, 192, 256]
LAYERS = {
    "num_layers": {"values": [4, 12]},
    "hidden_size": {"values": [32, 64]},
    "attention": {"num_attention_heads": 2},
    "mlp": {"ffn_hidden_size": {"values": WIDTHS, "per_layer": True}, "kind": {"values": ["MLP", "GatedMLP"]}},
}
SHARED = LAYERS | {"mlp": {"ffn_hidden_size": {"values": WIDTHS}}}
OLDER = {"starts": "each layer by itself"}


def _space(model: dict[str, Any] = LAYERS) -> Space:
    return parse_document(document(model=model, constraints=[]), find_dataset=lambda _: DATASET).space


def _study(sampler: str = "random", model: dict[str, Any] = LAYERS, seed: int = 3, **given: Any) -> OptunaStudy:
    return OptunaStudy(_space(model), ["minimize", "minimize"], sampler=sampler, seed=seed, population=10, **given)


def _widths(suggestion: Suggestion) -> list[int]:
    """Of each layer in order."""
    named = {name: value for name, value in suggestion.chosen.items() if name.endswith("ffn_hidden_size")}
    return [int(named[f"layers.{layer}.mlp.ffn_hidden_size"]) for layer in range(len(named))]


def _extreme_share(study: OptunaStudy) -> float:
    """Of 200 points, those whose layers are nearly all wide, or nearly all narrow."""
    means = [sum(widths) / len(widths) for widths in (_widths(study.ask()) for _ in range(200))]
    return sum(not 96 < mean < 224 for mean in means) / len(means)


def test_levels_of_layers_reach_the_ends_of_their_range() -> None:
    assert _extreme_share(_study()) > 0.3
    assert _extreme_share(_study(attributes=OLDER)) < 0.1


def test_a_layer_that_a_point_does_not_have_has_no_value() -> None:
    study = _study()
    asked = [study.ask() for _ in range(40)]
    assert {suggestion.chosen["num_layers"] for suggestion in asked} == {4, 12}
    assert all(len(_widths(suggestion)) == suggestion.chosen["num_layers"] for suggestion in asked)
    assert {width for suggestion in asked for width in _widths(suggestion)} == set(WIDTHS)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_starts_of_other_samplers_have_the_same_levels(sampler: str) -> None:
    """They follow from the seed and the number of the ask, not from what was asked or told before."""
    random, other = _study(), _study(sampler)
    other.ask({**random.ask().chosen})
    for number in range(1, 10):
        expected, found = _widths(random.ask()), _widths(suggestion := other.ask())
        shorter = min(len(expected), len(found))
        assert found[:shorter] == expected[:shorter], number
        other.tell(suggestion.ask, TrialResult("complete", (float(number), 1.0)))
    assert _widths(_study(seed=4).ask()) != _widths(_study().ask())


def test_after_its_starts_a_sampler_suggests_what_it_has_learnt() -> None:
    found: dict[str, list[float]] = {}
    for sampler in ("random", "tpe"):
        study = _study(sampler)
        for _ in range(45):
            suggestion = study.ask()
            cost = sum(_widths(suggestion)) / 1000
            study.tell(suggestion.ask, TrialResult("complete", (cost, cost)))
            found.setdefault(sampler, []).append(cost)
    assert found["tpe"][:30] == found["random"][:30]
    assert sum(found["tpe"][30:]) < sum(found["random"][30:])


def test_a_study_that_began_without_the_rule_goes_on_without_it() -> None:
    begun = _study(attributes=OLDER)
    past = [_past(begun.ask()) for _ in range(5)]
    assert _study(past=past).ask().chosen == begun.ask().chosen


def test_a_study_that_began_with_the_rule_goes_on_with_it() -> None:
    begun = _study()
    past = [_past(begun.ask()) for _ in range(5)]
    assert _study(past=past, attributes=begun.take_changed_attributes()).ask().chosen == begun.ask().chosen


def test_what_layers_share_is_drawn_as_ever() -> None:
    study = _study(model=SHARED)
    assert study.take_changed_attributes() == {}
    older = _study(model=SHARED, attributes=OLDER)
    assert [study.ask().chosen for _ in range(10)] == [older.ask().chosen for _ in range(10)]


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sweep_that_is_rebuilt_from_its_rows_has_the_same_points(
    database: Database, settings: Settings, sampler: str
) -> None:
    driver = Driver(database, settings)
    driver.add_dataset()
    written = document(model=LAYERS, search={"sampler": sampler}, constraints=[])
    whole, rebuilt = driver.post(written), driver.post(written)
    driver.run(whole, 15, formula)
    driver.cancel(whole)
    driver.run(rebuilt, 15, formula, rebuild_every=2)
    assert driver.sequence(rebuilt) == driver.sequence(whole)
    assert driver.attributes(rebuilt)["starts"] == {"value": "level_first"}


def _past(suggestion: Suggestion) -> PastAsk:
    return PastAsk(
        suggestion.ask, suggestion.suggestions, suggestion.distributions, suggestion.system_attrs, result=None
    )
