"""Presets: complete, within the rules, of the published size, and buildable."""

from __future__ import annotations

import pytest
import torch

from layers.model import broken_rules, complete, parameter_count
from layers.modules.model import build
from layers.presets import PRESETS
from layers.training import complete_inference, complete_training


def parts(name, vocabulary_size=65):
    values = dict(PRESETS[name].values)
    sections = {
        section: {
            path.removeprefix(f"{section}."): values.pop(path) for path in list(values) if path.startswith(section)
        }
        for section in ("training", "inference")
    }
    inference = complete_inference(sections["inference"])
    training = complete_training(sections["training"], inference)
    lengths = [inference["sequence_length"], training["sequence_length"]]
    facts = {"vocabulary_size": vocabulary_size, "sequence_length": lengths}
    return complete("causal_lm", values, facts), training, inference


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_breaks_no_rule_and_cites_its_source(name):
    model, _, _ = parts(name)
    assert broken_rules(model) == []
    preset = PRESETS[name]
    assert preset.name == name
    assert preset.source
    assert preset.url.startswith("https://")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds(name):
    model, _, _ = parts(name)
    with torch.device("meta"):
        module = build(model)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameter_count(model)


@pytest.mark.parametrize(
    ("name", "vocabulary_size", "published"),
    [
        ("nanogpt-char", 65, 10_745_088),
        ("gpt2-small", 50_257, 124_439_808),
        ("smollm2-135m", 49_152, 134_515_008),
        ("mobilellm-125m", 32_000, 124_635_456),
        ("mobilellm-350m", 32_000, 345_355_200),
    ],
)
def test_with_its_own_vocabulary_a_preset_has_the_published_size(name, vocabulary_size, published):
    assert parameter_count(parts(name, vocabulary_size)[0]) == published


def test_nanogpt_on_a_cpu_is_what_its_readme_says():
    model, training, inference = parts("nanogpt-char-cpu")
    assert (model["num_layers"], model["attention.num_attention_heads"], model["hidden_size"]) == (4, 4, 128)
    assert not any(name.endswith("bias") for name, _ in build(model).named_parameters())
    assert (training["batch_size"], training["sequence_length"], training["steps"]) == (12, 64, 2000)
    assert (training["learning_rate"], training["min_learning_rate"], training["warmup_steps"]) == (1e-3, 1e-4, 100)
    assert (training["beta2"], training["weight_decay"], training["dropout"]) == (0.99, 0.1, 0.0)
    assert inference["sequence_length"] == 64


@pytest.mark.parametrize("name", PRESETS)
def test_the_document_holds_the_same_values_nested(name):
    def flat(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    flattened = dict(flat(PRESETS[name].document()))
    assert {path.removeprefix("model."): value for path, value in flattened.items()} == dict(PRESETS[name].values)
