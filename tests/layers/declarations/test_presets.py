"""Presets: complete, within the rules, of the published size, and buildable."""

from __future__ import annotations

import pytest
import torch

from layers.completion import complete
from layers.declarations.inference.parameters import complete_inference
from layers.declarations.model import broken_rules, parameter_count
from layers.declarations.training import complete_training
from layers.modules.model import build
from layers.presets import PRESETS
from layers.space.document import parse_document


def parts(name, vocabulary_size=65):
    """The completed sections; a source has the target's vocabulary, and there are two classes."""
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
    facts = {
        "vocabulary_size": vocabulary_size,
        "source_vocabulary_size": vocabulary_size,
        "classes": 2,
        "sequence_length": lengths,
    }
    return complete(PRESETS[name].task, values, facts), training, inference


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
        ("t5-small", 32_128, 60_506_624),
        ("smollm2-135m", 49_152, 134_515_008),
        ("mobilellm-125m", 32_000, 124_635_456),
        ("mobilellm-350m", 32_000, 345_355_200),
        ("pythia-70m", 50_304, 70_426_624),
        ("llama-3.2-1b", 128_256, 1_235_814_400),
        ("qwen3-0.6b", 151_936, 596_049_920),
        ("gemma-3-270m", 262_144, 268_098_176),
        ("smollm3-3b", 128_256, 3_075_098_624),
        ("olmo-2-1b", 100_352, 1_484_916_736),
    ],
)
def test_with_its_own_vocabulary_a_preset_has_the_published_size(name, vocabulary_size, published):
    assert parameter_count(parts(name, vocabulary_size)[0]) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [("tiny", 4_385_920), ("mini", 11_170_560), ("small", 28_763_648), ("medium", 41_373_184)],
)
def test_berts_have_the_published_size_but_for_what_is_folded_and_added(name, published):
    """Its two vectors for types of tokens are part of the positions' table; a classifier of two classes is added."""
    model = parts(f"bert-{name}", 30_522)[0]
    width = int(model["hidden_size"])
    types_of_tokens, classifier = 2 * width, 2 * width + 2
    assert parameter_count(model) == published - types_of_tokens + classifier


def test_modernbert_has_the_published_size_but_for_its_head():
    """The published one predicts masked tokens by the table and a bias of its 50,368 rows; ours has two classes."""
    bias_of_rows, classifier = 50_368, 2 * 768 + 2
    assert parameter_count(parts("modernbert-base", 50_368)[0]) == 149_655_232 - bias_of_rows + classifier


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
    assert flattened.pop("task") == PRESETS[name].task
    assert {path.removeprefix("model."): value for path, value in flattened.items()} == dict(PRESETS[name].values)


TABLE = {
    # layers / heads / width, feed-forward and activation, norm and eps, as shared by those who publish them
    "nanogpt-char": (6, 6, 384, 1536, "gelu", "LayerNorm", 1e-5),
    "nanogpt-char-cpu": (4, 4, 128, 512, "gelu", "LayerNorm", 1e-5),
    "gpt2-small": (12, 12, 768, 3072, "gelu_new", "LayerNorm", 1e-5),
    "t5-small": (6, 8, 512, 2048, "relu", "RmsNorm", 1e-6),
    "bert-tiny": (2, 2, 128, 512, "gelu", "LayerNorm", 1e-12),
    "bert-mini": (4, 4, 256, 1024, "gelu", "LayerNorm", 1e-12),
    "bert-small": (4, 8, 512, 2048, "gelu", "LayerNorm", 1e-12),
    "bert-medium": (8, 8, 512, 2048, "gelu", "LayerNorm", 1e-12),
    "llama-ratio": (8, 4, 512, 1536, "silu", "RmsNorm", 1e-6),
    "smollm2-135m": (30, 9, 576, 1536, "silu", "RmsNorm", 1e-5),
    "mobilellm-125m": (30, 9, 576, 1536, "silu", "RmsNorm", 1e-5),
    "mobilellm-350m": (32, 15, 960, 2560, "silu", "RmsNorm", 1e-5),
    "modernbert-base": (22, 12, 768, 1152, "gelu", "LayerNorm", 1e-5),
    "pythia-70m": (6, 8, 512, 2048, "gelu", "LayerNorm", 1e-5),
    "llama-3.2-1b": (16, 32, 2048, 8192, "silu", "RmsNorm", 1e-5),
    "qwen3-0.6b": (28, 16, 1024, 3072, "silu", "RmsNorm", 1e-6),
    "gemma-3-270m": (18, 4, 640, 2048, "gelu_pytorch_tanh", "RmsNorm", 1e-6),
    "smollm3-3b": (36, 16, 2048, 11_008, "silu", "RmsNorm", 1e-6),
    "olmo-2-1b": (16, 16, 2048, 8192, "silu", "RmsNorm", 1e-6),
}


def test_presets_have_the_published_shapes():
    names = ("num_layers", "attention.num_attention_heads", "hidden_size", "mlp.ffn_hidden_size", "mlp.hidden_act")
    names += ("norm.kind", "norm.eps")
    assert {name: tuple(preset.values[path] for path in names) for name, preset in PRESETS.items()} == TABLE


FACTS = {
    "causal_lm": {"vocabulary_size": 65},
    "classification": {"vocabulary_size": 65, "classes": 10, "sequence_length": 64},
    "seq2seq": {"vocabulary_size": 70, "source_vocabulary_size": 29, "source_length": 24, "target_length": 24},
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_start_of_its_tasks_sweeps(name):
    """Of a sweep with other data than its own, whose vocabularies are not one."""
    preset = PRESETS[name]
    model = {
        "num_layers": {"min": 1, "max": 40},
        "hidden_size": {"values": [128, 256, 384, 512, 576, 640, 768, 960, 1024, 2048]},
        "attention": {"num_attention_heads": {"min": 1, "max": 32}},
        "mlp": {
            "kind": {"values": ["MLP", "GatedMLP"]},
            "hidden_act": {"values": ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]},
        },
        "norm": {"kind": {"values": ["LayerNorm", "RmsNorm"]}},
        "norm_position": {"values": ["pre", "post", "sandwich", "branch"]},
    }
    sweep = parse_document(
        {
            "name": "a start",
            "task": preset.task,
            "dataset": "data",
            "model": model,
            "objectives": [{"metric": "validation_loss"}],
            "start_from": [f"preset:{name}"],
        },
        find_dataset=lambda _: {"task": preset.task, "tokenizer": None, "facts": FACTS[preset.task]},
    )
    (start,) = sweep.starts
    assert start.chosen == {path: preset.values[path] for path in start.chosen}
    assert set(start.chosen) == {open_parameter.name for open_parameter in sweep.space.open}


def test_a_preset_of_another_task_lends_its_shape():
    document = {
        "name": "a shape",
        "task": "causal_lm",
        "dataset": "data",
        "model": {
            "num_layers": {"min": 1, "max": 4},
            "hidden_size": {"values": [128, 256]},
            "attention": {"num_attention_heads": {"values": [2, 4]}},
            "norm": {"eps": {"min": 1e-12, "max": 1e-3, "log": True}, "bias": {"values": [True, False]}},
        },
        "objectives": [{"metric": "validation_loss"}],
        "start_from": ["preset:bert-tiny"],
    }
    dataset = {"task": "causal_lm", "tokenizer": None, "facts": FACTS["causal_lm"]}
    (start,) = parse_document(document, find_dataset=lambda _: dataset).starts
    assert start.chosen == {
        "num_layers": 2,
        "hidden_size": 128,
        "attention.num_attention_heads": 2,
        "norm.eps": 1e-12,
        "norm.bias": True,
    }
