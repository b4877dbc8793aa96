"""A trial's configuration is understood as it was stored, also by a release that knew fewer parameters."""

from __future__ import annotations

from typing import Any

from layers.configuration import TrialConfiguration, flatten
from layers.declarations.inference.parameters import complete_inference
from layers.declarations.training import complete_training

INFERENCE = complete_inference({"batch_size": 2, "sequence_length": 8, "workspace_mib": 64})


def stored(training: dict[str, Any]) -> Any:
    return {"task": "causal_lm", "model": {"hidden_size": 8}, "training": training, "inference": INFERENCE}


def test_a_configuration_says_how_to_train_and_what_to_measure() -> None:
    given = stored(complete_training({"tokens": 1000, "batch_size": 4}, INFERENCE))
    understood = TrialConfiguration.of(given)
    assert understood.training is not None
    assert (understood.training.steps, understood.training.step_count()) == (None, 32)
    assert understood.inference.build_options() == {"workspace_mib": 64}
    assert understood.document is given


def test_a_probe_is_not_trained() -> None:
    assert TrialConfiguration.of(stored({})).training is None


def test_an_older_configuration_is_trained_as_it_was() -> None:
    training = complete_training({"steps": 5}, INFERENCE)
    del training["initialization"], training["trainable"]
    understood = TrialConfiguration.of(stored(training)).training
    assert understood is not None
    assert (understood.initialization, understood.trainable) == ("gpt2", "all")


def test_values_have_the_names_that_constraints_use() -> None:
    flat = flatten(stored(complete_training({"steps": 5}, INFERENCE)))
    assert (flat["hidden_size"], flat["training.steps"], flat["inference.batch_size"]) == (8, 5, 2)
