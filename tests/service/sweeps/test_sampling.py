"""What samplers are asked and told: encodings, conditions, infeasible points, and which sampler `auto` is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from layers.space.document import SweepDocument, read_document
from service.errors import InvalidDocumentError
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.studies import FAILED, TrialResult
from service.sweeps.sampling import (
    FEW_TRIALS,
    MOST_MODELLED_TRIALS,
    Choice,
    choose,
    population_size,
)
from tests.service.sweep_driver import TWELVE_POINTS, document, small

DATASET = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}


def _read(written: Mapping[str, Any]) -> Any:
    return read_document(written, find_dataset=lambda name: DATASET)


def _study(parsed: SweepDocument, sampler: str, *, seed: int = 0) -> OptunaStudy:
    return OptunaStudy(parsed.space, ["minimize", "minimize"], sampler=sampler, seed=seed, population=8)


@pytest.fixture(scope="module")
def parsed() -> SweepDocument:
    return _read(document())[0]


def test_numeric_values_are_put_to_the_sampler_as_an_ordinal_index(parsed: SweepDocument) -> None:
    suggestion = _study(parsed, "random").ask()
    assert suggestion.distributions["hidden_size"]["name"] == "IntDistribution"
    assert suggestion.chosen["hidden_size"] == (32, 48, 64, 96)[suggestion.suggestions["hidden_size"]]
    assert suggestion.distributions["norm.kind"]["name"] == "CategoricalDistribution"
    assert suggestion.distributions["training.learning_rate"]["attributes"]["log"] is True


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "surrogate", "qmc"])
def test_every_suggestion_is_a_point_of_the_space(parsed: SweepDocument, sampler: str) -> None:
    study = _study(parsed, sampler)
    for number in range(30):
        suggestion = study.ask()
        # `resolve` refuses a parameter whose condition is false, and one that is missing.
        values = parsed.space.resolve(suggestion.chosen)
        assert ("norm.eps" in suggestion.chosen) == (values["norm.kind"] == "RmsNorm")
        study.tell(suggestion.ask, TrialResult("complete", (float(number % 7), float(number % 5)), -1.0))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "surrogate"])
def test_a_point_that_is_given_is_suggested_as_it_is(parsed: SweepDocument, sampler: str) -> None:
    study = _study(parsed, sampler)
    chosen = _study(parsed, "random", seed=3).ask().chosen
    assert study.ask(chosen).chosen == chosen
    assert study.ask().ask == 1


@pytest.mark.parametrize(
    ("sampler", "state"),
    [
        ("tpe", "PRUNED"),
        ("surrogate", "PRUNED"),
        ("random", "PRUNED"),
        ("qmc", "PRUNED"),
        ("grid", "PRUNED"),
        ("gp", "COMPLETE"),
        ("nsga2", "COMPLETE"),
    ],
)
def test_an_infeasible_point_is_told_so_that_the_sampler_learns_from_it(
    parsed: SweepDocument, sampler: str, state: str
) -> None:
    study = _study(parsed, sampler)
    study.tell(study.ask().ask, TrialResult("infeasible", None, 3.0))
    (trial,) = study.optuna_trials()
    assert trial.state.name == state
    assert trial.constraints == {"violation": 3.0}
    if state == "COMPLETE":
        assert trial.values == [float("inf"), float("inf")], "a penalty is the worst of its direction"


def test_the_surrogate_asks_for_nothing_that_breaks_a_rule_or_a_static_constraint() -> None:
    written = document(rules=["hidden_size <= 16 * num_layers"], constraints=["parameter_count <= 100000"])
    space = _read(written)[0].space
    study = OptunaStudy(space, ["minimize", "minimize"], sampler="surrogate", seed=0, population=8)
    for number in range(24):
        suggestion = study.ask()
        assert space.judge(space.resolve(suggestion.chosen)) is None
        study.tell(suggestion.ask, TrialResult("complete", (float(number % 7), float(number % 5)), -1.0))


def test_the_surrogate_finds_which_parameters_decide_on_the_presence_of_others(parsed: SweepDocument) -> None:
    study = _study(parsed, "surrogate")
    conditional: set[bool] = set()
    for number in range(16):
        suggestion = study.ask()
        conditional.add("norm.eps" in suggestion.chosen)
        study.tell(suggestion.ask, TrialResult("complete", (float(number % 7), float(number % 5)), -1.0))
    assert conditional == {True, False}


def test_a_failed_trial_teaches_nothing_and_a_pruned_one_is_pruned(parsed: SweepDocument) -> None:
    study = _study(parsed, "tpe")
    for told in (FAILED, TrialResult("pruned"), TrialResult("complete", (1.0, 2.0), 0.5)):
        study.tell(study.ask().ask, told)
    assert [trial.state.name for trial in study.optuna_trials()] == ["FAIL", "PRUNED", "COMPLETE"]
    assert study.optuna_trials()[2].constraints == {"violation": 0.5}


def test_tpe_learns_where_points_are_infeasible(parsed: SweepDocument) -> None:
    def infeasible_of_the_last_30(told_infeasible: Callable[[float], TrialResult]) -> int:
        study = _study(parsed, "tpe")
        excesses: list[float] = []
        for _ in range(50):
            suggestion = study.ask()
            excess = float(suggestion.chosen["num_layers"]) - 4
            # The best feasible point lies at the boundary.
            told = told_infeasible(excess) if excess > 0 else TrialResult("complete", (-excess, -excess), excess)
            study.tell(suggestion.ask, told)
            excesses.append(excess)
        return sum(excess > 0 for excess in excesses[20:])

    learning = infeasible_of_the_last_30(lambda excess: TrialResult("infeasible", None, excess))
    assert learning < infeasible_of_the_last_30(lambda excess: FAILED)


def test_auto_takes_the_grid_where_the_budget_covers_the_space() -> None:
    choice = choose(*_read(small(search={"sampler": "auto"}, budget={"trials": 12})))
    assert (choice.sampler, "12" in choice.reason) == ("grid", True)
    assert choose(*_read(small(search={"sampler": "auto"}, budget={"trials": 11}))).sampler == "surrogate"


@pytest.mark.parametrize(
    ("trials", "replicates", "covered"),
    [
        (12, 4, "at least 11 of the 12 points of the space: further trainings may take 1 trial"),
        (13, 4, "all 12 points of the space"),
        (12, "auto", "all 12 points of the space"),
    ],
)
def test_trials_that_are_kept_for_further_trainings_cover_no_points(trials: int, replicates: Any, covered: str) -> None:
    written = small(search={"sampler": "auto", "replicates": replicates}, budget={"trials": trials})
    assert choose(*_read(written)) == Choice("grid", f"the budget of {trials} trials covers {covered}")


def _automatic(**changes: Any) -> Choice:
    return choose(*_read(document(search={"sampler": "auto"}, **changes)))


WIDE = {**TWELVE_POINTS, "mlp": {"ffn_hidden_size": {"min": 32, "max": 512}}}
METRICS = ["latency_ms_p50", "validation_loss", "memory_bytes", "engine_bytes", "latency_ms_p90"]


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize(
    "model",
    [
        WIDE,
        {**WIDE, "norm": {"kind": {"values": ["LayerNorm", "RmsNorm"]}}},
        {**TWELVE_POINTS, "mlp": {"ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True}}},
        document()["model"],
    ],
)
def test_auto_takes_the_surrogate_for_two_to_four_objectives(model: dict[str, Any], objectives: int) -> None:
    metrics = [{"metric": metric} for metric in METRICS[:objectives]]
    choice = _automatic(model=model, objectives=metrics, budget={"trials": MOST_MODELLED_TRIALS})
    assert (choice.sampler, f"{objectives} objectives" in choice.reason) == ("surrogate", True)


def test_a_small_budget_is_told_of_the_random_points_that_the_surrogate_begins_with() -> None:
    said = [_automatic(model=WIDE, budget={"trials": trials}).reason for trials in (FEW_TRIALS - 1, FEW_TRIALS)]
    assert [reason.endswith("in the fewest trials, after 10 random ones") for reason in said] == [True, False]


def test_auto_takes_tpe_for_one_objective_and_for_five() -> None:
    for count in (1, 5):
        metrics = [{"metric": metric} for metric in METRICS[:count]]
        assert _automatic(model=WIDE, objectives=metrics, budget={"trials": 200}).sampler == "tpe"


def test_auto_takes_tpe_or_nsga2_where_the_surrogate_would_be_slow() -> None:
    long = {"trials": MOST_MODELLED_TRIALS + 1}
    choice = _automatic(model=WIDE, budget=long)
    assert (choice.sampler, str(long["trials"]) in choice.reason) == ("nsga2", True)
    assert _automatic(budget=long).sampler == "tpe", "it has a condition"
    metrics = [{"metric": metric} for metric in METRICS]
    choice = _automatic(model=WIDE, objectives=metrics, budget={"trials": 5000})
    assert (choice.sampler, "5 objectives" in choice.reason) == ("nsga2", True)


def test_the_surrogate_is_taken_where_it_is_named_and_says_what_it_is_meant_for() -> None:
    choice = choose(*_read(document(search={"sampler": "surrogate"})))
    assert (choice.sampler, "one to four" in choice.reason) == ("surrogate", False)
    many = document(search={"sampler": "surrogate"}, objectives=[{"metric": metric} for metric in METRICS])
    assert "one to four" in choose(*_read(many)).reason


def test_the_gaussian_process_is_refused_where_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("service.sweeps.sampling.find_spec", lambda name: None if name == "torch" else find_spec(name))
    with pytest.raises(InvalidDocumentError) as caught:
        choose(*_read(small(search={"sampler": "gp"})))
    assert caught.value.problems[0].pointer == "/search/sampler"


def test_a_grid_over_too_many_points_is_refused() -> None:
    model = {**TWELVE_POINTS, "mlp": {"ffn_hidden_size": {"min": 1, "max": 100_000}}}
    with pytest.raises(InvalidDocumentError, match="1,000,000"):
        choose(*_read(document(model=model, search={"sampler": "grid"}, training={"learning_rate": 1e-3})))


def test_a_small_budget_has_several_generations() -> None:
    assert [population_size(trials) for trials in (20, 100, 300, 10_000)] == [10, 10, 30, 50]


def test_study_attributes_are_reported_once(parsed: SweepDocument) -> None:
    study = _study(parsed, "qmc")
    assert study.take_changed_attributes() == {}
    for _ in range(2):
        study.tell(study.ask().ask, TrialResult("complete", (1.0, 1.0)))
    assert len(study.take_changed_attributes()) == 1
    assert study.take_changed_attributes() == {}


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "surrogate", "qmc", "gp", "grid"])
def test_a_parameter_of_each_layer_is_suggested_for_the_layers_that_a_point_has(sampler: str) -> None:
    widths = {"values": [32, 64, 128], "per_layer": True}
    model = {**TWELVE_POINTS, "mlp": {"ffn_hidden_size": widths, "bias": {"values": [True, False], "per_layer": True}}}
    space = _read(document(model=model, constraints=[]))[0].space
    study = OptunaStudy(space, ["minimize", "minimize"], sampler=sampler, seed=0, population=8)
    seen: set[int] = set()
    for number in range(12):
        suggestion = study.ask()
        values = space.resolve(suggestion.chosen)
        assert space.judge(values) is None
        layers = int(values["num_layers"])
        seen.add(layers)
        assert [f"layers.{index}.mlp.ffn_hidden_size" in suggestion.chosen for index in range(3)] == [
            index < layers for index in range(3)
        ]
        assert suggestion.distributions["layers.0.mlp.ffn_hidden_size"]["name"] == "IntDistribution"
        study.tell(suggestion.ask, TrialResult("complete", (float(number % 7), float(number % 5)), -1.0))
    assert len(seen) > 1


def test_a_small_budget_is_said_to_begin_at_random() -> None:
    said = [
        choose(*_read(document(search={"sampler": "tpe"}, budget={"trials": trials}))).reason for trials in (9, 14, 25)
    ]
    assert "so all 9 are random" in said[0]
    assert said[1].endswith("; the first 10 points are random")
    assert "random" not in said[2]
    start = {"num_layers": 1, "hidden_size": 64, "attention.num_attention_heads": 4, "training.dropout": 0.1}
    start |= {"training.learning_rate": 1e-3, "norm.kind": "LayerNorm"}
    start |= {"attention.position_embedding_type": "rope_gpt_neox"}
    started = document(search={"sampler": "tpe"}, budget={"trials": 9}, start_from=[start])
    assert "so all 9 are starts or random" in choose(*_read(started)).reason
