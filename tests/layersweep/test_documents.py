"""A trial's configuration as a document."""

from __future__ import annotations

from typing import Any

import pytest

from layers.declarations.inference.parameters import complete_inference
from layers.declarations.training import complete_training
from layersweep.documents import of_configuration

SHAPE = complete_inference({"sequence_length": 64})


def configuration(training: dict[str, Any]) -> dict[str, Any]:
    return {"task": "causal_lm", "model": {"mlp.kind": "MLP"}, "training": training, "inference": SHAPE}


def test_sections_are_nested_and_the_dataset_is_named() -> None:
    document = of_configuration(configuration(complete_training({}, SHAPE)), "letters")
    assert list(document) == ["task", "dataset", "model", "training", "inference"]
    assert document["model"] == {"mlp": {"kind": "MLP"}}


@pytest.mark.parametrize("rate", [0.003, 0.007, 0.0006])
def test_what_follows_is_left_out_where_it_has_the_digits_of_rounding(rate: float) -> None:
    training = complete_training({"learning_rate": rate}, SHAPE)
    shown = of_configuration(configuration(training))["training"]
    assert all(len(repr(value)) < 15 for value in shown.values())
    assert complete_training(shown, SHAPE) == training, "what is pasted is the same configuration"


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0.001},
        {"learning_rate": 0.0009679441234567891},
        {"learning_rate": 0.003, "min_learning_rate": 0.0003},
        {"learning_rate": 0.003, "min_learning_rate": 0.00012345678901234567},
    ],
)
def test_any_other_lowest_learning_rate_is_shown(given: dict[str, Any]) -> None:
    training = complete_training(given, SHAPE)
    assert of_configuration(configuration(training))["training"] == training
