"""The sections training and inference: defaults, and what does not go together."""

from __future__ import annotations

import math
import re

import pytest

from layers.declarations.inference.parameters import INFERENCE, complete_inference
from layers.declarations.training import TRAINING, complete_training, step_count
from layers.expressions.names import DECLARED
from layers.parameter import ParameterError, in_full

SHAPE = complete_inference({"sequence_length": 64})


def test_defaults_follow_each_other():
    training = complete_training({}, SHAPE)
    assert training["steps"] == 500
    assert training["sequence_length"] == 64
    assert training["min_learning_rate"] == pytest.approx(training["learning_rate"] / 10)
    assert training["warmup_steps"] == 100
    assert complete_training({"steps": 50}, SHAPE)["warmup_steps"] == 10
    assert complete_training(training, SHAPE) == training


def test_tokens_become_whole_steps():
    training = complete_training({"tokens": 10_000, "batch_size": 10}, SHAPE)
    assert "steps" not in training
    assert step_count(training) == 16  # 10,000 / 640 = 15.6
    assert step_count(complete_training({"seconds": 3.5}, SHAPE)) is None


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"steps": 5, "tokens": 5}, "training.tokens"),
        ({"tokens": 5, "seconds": 5}, "training.seconds"),
        ({"steps": 10, "warmup_steps": 11}, "training.warmup_steps"),
        ({"learning_rate": 1e-3, "min_learning_rate": 1e-2}, "training.min_learning_rate"),
        ({"dropout": 1.0}, "training.dropout"),
        ({"epochs": 3}, "training.epochs"),
    ],
)
def test_contradictions_are_refused_with_their_place(values, path):
    with pytest.raises(ParameterError) as caught:
        complete_training(values, SHAPE)
    assert caught.value.path == path


def test_an_unknown_shape_parameter_is_refused():
    with pytest.raises(ParameterError, match=r"inference.batch: is not a parameter \(one of: batch_size"):
        complete_inference({"batch": 1})


@pytest.mark.parametrize("declared", [TRAINING, INFERENCE])
def test_every_declaration_is_bounded_and_explained(declared):
    for name, parameter in declared.items():
        assert parameter.meaning
        if parameter.default is not None:
            assert parameter.check(name, parameter.default) == parameter.default
        for value in (parameter.search or {}).get("values", []):
            parameter.check(name, value)


@pytest.mark.parametrize(
    "path", [path for path, declared in DECLARED.items() if declared.type in ("integer", "number")]
)
def test_a_bound_is_said_as_it_is_and_as_people_write_it(path):
    declared = DECLARED[path]
    with pytest.raises(ParameterError) as refused:
        declared.check(path, math.nan)
    said = [word for word in refused.value.remedy.split() if word[0].isdigit() or word[0] == "-"]
    assert [float(word.replace(",", "")) for word in said] == [
        bound for bound in (declared.minimum, declared.maximum) if math.isfinite(bound)
    ]
    assert not re.search(r"e\+|e-0|\d{5}(?!\d*$)", refused.value.remedy)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1e8, "100,000,000"),
        (2**31 - 1, "2,147,483,647"),
        (1e-8, "1e-8"),
        (0.05, "0.05"),
        (1.5e20, "1.5e20"),
        (-1, "-1"),
    ],
)
def test_numbers_in_full(value, said):
    assert in_full(value) == said
