"""Random search without a history suggests what Optuna's study with one does."""

from __future__ import annotations

from typing import Any

import pytest

from layers.space.document import SweepDocument, read_document
from service.common.states import TrialState
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.samplers.random_study import RandomStudy
from service.scheduling.studies import PastAsk, Suggestion, TrialResult
from tests.service.sweep_driver import document

DATASET: Any = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}
ONE_VALUE: dict[str, Any] = {"num_layers": {"values": [2]}, "norm": {"kind": {"values": ["RmsNorm"]}}}
"""Open, but with nothing to choose."""


def _read(**changes: Any) -> SweepDocument:
    return read_document(document(**changes), find_dataset=lambda name: DATASET)[0]


def _with_history(parsed: SweepDocument) -> OptunaStudy:
    return OptunaStudy(parsed.space, ["minimize", "minimize"], sampler="random", seed=3, population=8)


@pytest.fixture(scope="module", params=["as it is", "with parameters of one value"])
def parsed(request: pytest.FixtureRequest) -> SweepDocument:
    plain = document()
    return _read() if request.param == "as it is" else _read(model=plain["model"] | ONE_VALUE)


def test_it_suggests_the_same_point_after_point_whatever_it_is_told(parsed: SweepDocument) -> None:
    with_history, without = _with_history(parsed), RandomStudy(parsed.space, seed=3)
    for number in range(40):
        expected = with_history.ask()
        assert without.ask() == expected
        result = TrialResult(TrialState.COMPLETE, (float(number), 1.0), -1.0)
        with_history.tell(expected.ask, result)
        without.tell(expected.ask, result)
    assert without.take_changed_attributes() == with_history.take_changed_attributes() == {}


def test_a_point_that_is_given_changes_no_later_one(parsed: SweepDocument) -> None:
    given = RandomStudy(parsed.space, seed=11).ask().chosen
    with_history, without = _with_history(parsed), RandomStudy(parsed.space, seed=3)
    assert [without.ask(given), without.ask()] == [with_history.ask(given), with_history.ask()]


def test_it_goes_on_where_it_stopped(parsed: SweepDocument) -> None:
    study = RandomStudy(parsed.space, seed=3)
    past = [_past(study.ask()) for _ in range(5)]
    assert RandomStudy(parsed.space, seed=3, past=past).ask() == study.ask()
    with pytest.raises(ValueError, match="rows are missing"):
        RandomStudy(parsed.space, seed=3, past=past[1:])


def test_layers_that_are_drawn_together_need_a_study_with_a_history() -> None:
    widths = {"ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True}}
    layers = {"num_layers": 4, "hidden_size": 32, "attention": {"num_attention_heads": 2}, "mlp": widths}
    assert RandomStudy.suits(_read().space)
    assert not RandomStudy.suits(_read(model=layers, constraints=[]).space)


def _past(asked: Suggestion) -> PastAsk:
    return PastAsk(asked.ask, asked.suggestions, asked.distributions, asked.system_attrs, None)
