"""Parameters that are independent in each layer: from the document to the module."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest
import torch

from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.model import DECLARATIONS, broken_rules, flops, parameter_count
from layers.declarations.per_layer import BLOCK_PATHS, OF_ALL_LAYERS, STACKS, mask_types, views
from layers.expressions.parser import parse_tree
from layers.modules.model import build
from layers.parameter import ParameterError, Scalar
from layers.presets import PRESETS
from layers.signature import signature
from layers.space.document import Space, flatten, read_document
from tests.layers.combinations import BASES, FACTS, drawn
from tests.layers.sweep_documents import DATASETS, changed, parsed, problems

WIDE = {"/model/mlp": {"ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True}}}
"""Layers 0 to 3 of GOOD, each with a feed-forward width of its own."""

FIXED = {"/model/num_layers": 3, "/model/hidden_size": 32, "/model/attention/num_attention_heads": 2}


def space_of(changes: dict[str, Any]) -> Space:
    return parsed({**WIDE, **changes}).space


def completed(changes: dict[str, Any], kind: str = "decoder") -> dict[str, Scalar]:
    task = KINDS[kind].task
    return complete(task, {**BASES[kind], "kind": kind, "num_layers": 3, **changes}, FACTS[task])


# --- the document ---------------------------------------------------------------------------------------------------


def test_a_parameter_is_independent_in_each_layer_that_a_point_has():
    space = space_of({})
    names = [f"layers.{index}.mlp.ffn_hidden_size" for index in range(4)]
    assert [each.name for each in space.open if "ffn" in each.name] == names
    assert [str(each.when and each.when.text) for each in space.open if "ffn" in each.name] == [
        "None",
        "num_layers > 1",
        "num_layers > 2",
        "num_layers > 3",
    ]
    source = random.Random(0)
    for _ in range(30):
        chosen = space.sample(source)
        there = [name for name in names if name in chosen]
        assert there == names[: int(chosen["num_layers"])]


def test_a_number_of_layers_that_is_fixed_needs_no_conditions():
    space = space_of({"/model/num_layers": 3})
    assert [each.when for each in space.open if "ffn" in each.name] == [None, None, None]
    assert space.points() == 3 * 2 * 3**3


def test_the_normalized_document_says_it_once_and_reads_the_same():
    sweep, _ = read_document(changed({**WIDE, "/rules": ["mlp.ffn_hidden_size >= 32"]}), find_dataset=DATASETS.get)
    assert sweep.normalized["model"]["mlp"] == {"ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True}}
    assert sweep.normalized["rules"] == ["mlp.ffn_hidden_size >= 32"]
    again, _ = read_document(sweep.normalized, find_dataset=DATASETS.get)
    assert again.normalized == sweep.normalized
    assert [each.name for each in again.space.entries] == [each.name for each in sweep.space.entries]


def test_a_condition_means_the_same_layer():
    space = space_of(
        {
            **FIXED,
            "/model/attention/position_embedding_type": {"values": ["relative", "alibi"], "per_layer": True},
            "/model/attention/num_buckets": {
                "values": [8, 16],
                "when": "position_embedding_type == 'relative'",
                "per_layer": True,
            },
            "/model/attention/max_distance": {
                "value": 64,
                "when": "position_embedding_type == 'relative'",
                "per_layer": True,
            },
        }
    )
    source = random.Random(1)
    for _ in range(20):
        values = space.resolve(space.sample(source))
        assert space.judge(values) is None
        model = space.complete(values).model
        for index in range(3):
            relative = model.get(f"layers.{index}.attention.position_embedding_type", "relative") == "relative"
            assert (f"layers.{index}.attention.num_buckets" in values) is relative
            assert model.get(f"layers.{index}.attention.max_distance") == (64 if relative else None)


def test_default_space_is_absent_in_the_layers_where_it_does_not_apply():
    space = space_of(
        {
            **FIXED,
            "/model/attention/position_embedding_type": {"values": ["rope_gptj", "alibi"], "per_layer": True},
            "/model/attention/rotary_embedding_base": {"values": "default_space", "per_layer": True},
        }
    )
    chosen = space.sample(random.Random(2))
    for index in range(3):
        rotates = chosen[f"layers.{index}.attention.position_embedding_type"] == "rope_gptj"
        assert (f"layers.{index}.attention.rotary_embedding_base" in chosen) is rotates
    assert space.judge(space.resolve(chosen)) is None


def test_a_derived_value_is_derived_in_each_layer():
    space = space_of(
        {
            **FIXED,
            "/model/mlp/kind": {"values": ["MLP", "GatedMLP"], "per_layer": True},
            "/model/mlp/ffn_hidden_size": {"derived": "128 if mlp.kind == 'MLP' else 96", "per_layer": True},
        }
    )
    values = space.resolve({f"layers.{index}.mlp.kind": "MLP" if index == 1 else "GatedMLP" for index in range(3)})
    assert [values[f"layers.{index}.mlp.ffn_hidden_size"] for index in range(3)] == [96, 128, 96]
    assert space.shown(values) == {name: values[name] for name in space.shown(values)}
    assert set(space.shown(values)) == {
        f"layers.{i}.mlp.{name}" for i in range(3) for name in ("kind", "ffn_hidden_size")
    }


def test_one_layer_alone_can_be_told_apart():
    space = space_of(
        {
            "/model/mlp": {"ffn_hidden_size": 64},
            "/model/layers": {"3": {"mlp": {"ffn_hidden_size": {"derived": "2 * hidden_size"}}}},
            "/model/layers.0.mlp.kind": {"values": ["MLP", "GatedMLP"]},
        }
    )
    heads = {"attention.num_attention_heads": 2, "hidden_size": 96, "layers.0.mlp.kind": "GatedMLP"}
    short = space.complete(space.resolve({**heads, "num_layers": 2})).model
    assert short["mlp.ffn_hidden_size"] == 64
    assert [short[f"layers.{index}.mlp.kind"] for index in range(2)] == ["GatedMLP", "MLP"]
    long = space.complete(space.resolve({**heads, "num_layers": 4})).model
    assert [long[f"layers.{index}.mlp.ffn_hidden_size"] for index in range(4)] == [64, 64, 64, 192]


def test_a_rule_holds_in_each_layer_and_its_reason_names_the_layer():
    space = space_of({**FIXED, "/rules": ["mlp.ffn_hidden_size <= 2 * hidden_size"]})
    widths = {f"layers.{index}.mlp.ffn_hidden_size": 64 for index in range(3)}
    assert space.judge(space.resolve(widths)) is None
    rejection = space.judge(space.resolve({**widths, "layers.2.mlp.ffn_hidden_size": 128}))
    assert rejection is not None
    assert rejection.rule == "layers.2.mlp.ffn_hidden_size <= 2 * hidden_size"
    assert "layers.2.mlp.ffn_hidden_size = 128" in rejection.message
    assert rejection.violation == 64


def test_a_rule_may_name_what_follows_from_a_layers_own_parameter():
    space = space_of(
        {
            **FIXED,
            "/model/hidden_size": 64,
            "/model/mlp": {"kind": {"values": ["MLP", "GatedMLP"], "per_layer": True}},
            "/rules": ["mlp.ffn_hidden_size <= 200"],
        }
    )
    gated = {f"layers.{index}.mlp.kind": "GatedMLP" for index in range(3)}
    assert space.judge(space.resolve({**gated, "layers.1.mlp.kind": "MLP"})).rule == (
        "layers.1.mlp.ffn_hidden_size <= 200"
    )


def test_rules_and_constraints_may_compare_layers():
    space = space_of({**FIXED, "/rules": ["layers.0.ffn_hidden_size <= layers.1.ffn_hidden_size"]})
    narrowing = {
        "layers.0.mlp.ffn_hidden_size": 64,
        "layers.1.mlp.ffn_hidden_size": 32,
        "layers.2.mlp.ffn_hidden_size": 32,
    }
    assert space.judge(space.resolve(narrowing)) is not None
    space = space_of({**FIXED, "/constraints": ["parameter_count <= 200 * layers.0.mlp.ffn_hidden_size"]})
    widths = {f"layers.{index}.mlp.ffn_hidden_size": 32 for index in range(3)}
    assert "parameter_count is" in space.judge(space.resolve(widths)).message


def test_a_rule_of_the_model_names_the_layer():
    heads = {"/model/attention/num_attention_heads": {"values": [2, 3], "per_layer": True}, "/model/num_layers": 2}
    space = space_of({**heads, "/model/hidden_size": 32, "/model/mlp": {}})
    good = {"layers.0.attention.num_attention_heads": 2, "layers.1.attention.num_attention_heads": 2}
    assert space.judge(space.resolve(good)) is None
    rejection = space.judge(space.resolve({**good, "layers.1.attention.num_attention_heads": 3}))
    assert rejection.rule == "hidden_size % num_attention_heads"
    assert rejection.message.startswith("layer 1: hidden_size 32 is not a multiple of 3 heads")


def test_starts_say_of_each_layer_what_they_say_of_all():
    known = {"num_layers": 2, "hidden_size": 32, "attention.num_attention_heads": 2}
    sweep = parsed(
        {
            **WIDE,
            "/model/num_layers": {"min": 2, "max": 4},
            "/start_from": [
                {**known, "mlp.ffn_hidden_size": 64},
                {**known, "layers": {"0": {"mlp": {"ffn_hidden_size": 32}}, "1": {"mlp.ffn_hidden_size": 128}}},
                "trial:plain",
                "trial:layered",
            ],
        },
        find_start={
            "trial:plain": {**known, "mlp.ffn_hidden_size": 32},
            "trial:layered": flatten(
                {
                    "model": complete(
                        "causal_lm",
                        {**known, "layers.0.mlp.ffn_hidden_size": 64, "layers.1.mlp.ffn_hidden_size": 32},
                        {"vocabulary_size": 256, "sequence_length": 128},
                    ),
                    "training": {},
                    "inference": {},
                }
            ),
        }.get,
    )
    widths = [[each.chosen[f"layers.{index}.mlp.ffn_hidden_size"] for index in range(2)] for each in sweep.starts]
    assert widths == [[64, 64], [32, 128], [32, 32], [64, 32]]


def test_a_preset_is_a_start_of_layers_that_differ():
    preset = PRESETS["nanogpt-char-cpu"].values
    sweep = parsed(
        {
            "/model/hidden_size": preset["hidden_size"],
            "/model/attention/num_attention_heads": {"values": [2, 4], "per_layer": True},
            "/model/mlp": {"ffn_hidden_size": {"min": 64, "max": 512, "step": 64, "per_layer": True}},
            "/start_from": ["preset:nanogpt-char-cpu"],
        }
    )
    chosen = sweep.starts[0].chosen
    assert [chosen[f"layers.{index}.mlp.ffn_hidden_size"] for index in range(4)] == [512] * 4
    assert [chosen[f"layers.{index}.attention.num_attention_heads"] for index in range(4)] == [4] * 4


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "not a block's": (
        {"/model/hidden_size": {"values": [32, 64], "per_layer": True}},
        "/model/hidden_size/per_layer",
        "the same in all layers",
    ),
    "of training": (
        {"/training": {"steps": {"values": [10, 20], "per_layer": True}}},
        "/training/steps/per_layer",
        "not a block's",
    ),
    "not true or false": (
        {"/model/mlp/ffn_hidden_size/per_layer": "yes"},
        "/model/mlp/ffn_hidden_size/per_layer",
        "yes",
    ),
    "twice": (
        {"/model/layers": {"2": {"mlp": {"ffn_hidden_size": 64}}}},
        "/model/layers/2/mlp/ffn_hidden_size",
        "given twice",
    ),
    "no such layer": ({"/model/layers.7.mlp.bias": False}, "/model/layers.7.mlp.bias", "there is no layer 7"),
    "no encoder": ({"/model/encoder_layers.0.mlp.bias": False}, "/model/encoder_layers.0.mlp.bias", "encoder"),
    "a layer's width": ({"/model/layers.1.hidden_size": 64}, "/model/layers.1.hidden_size", "the same in all layers"),
    "a layer's misspelt": ({"/model/layers": {"1": {"mlp": {"widht": 64}}}}, "/model/layers/1/mlp/widht", "widht"),
    "layers are a section": ({"/model/layers": 3}, "/model/layers", "a section"),
    "one layer's per layer": (
        {"/model/layers.1.mlp.bias": {"values": [True, False], "per_layer": True}},
        "/model/layers.1.mlp.bias/per_layer",
        "one layer's already",
    ),
    "shared names own": (
        {"/model/norm": {"eps": {"derived": "1e-5 if mlp.ffn_hidden_size > 64 else 1e-6"}}},
        "/model/norm/eps/derived",
        "differs from layer to layer",
    ),
    "a constraint names no layer": (
        {"/constraints": ["latency_ms_p50 <= mlp.ffn_hidden_size"]},
        "/constraints/0",
        "differs from layer to layer",
    ),
    "a rule names no layer's": ({"/rules": ["layers.0.mlp.bias"]}, "/rules/0", "the same in all layers"),
    "a rule names no such layer": ({"/rules": ["layers.9.mlp.ffn_hidden_size > 3"]}, "/rules/0", "there is no layer 9"),
    "layers unknown": (
        {"/model/num_layers": {"derived": "hidden_size // 32"}},
        "/model/num_layers/derived",
        "not known before",
    ),
    "too many": ({"/model/num_layers": {"min": 1, "max": 201}}, "/model/num_layers", "may be 201"),
    "too many open": ({"/model/num_layers": {"min": 1, "max": 199}}, "/model", "parameters are open"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_its_place(case: str) -> None:
    changes, pointer, words = REFUSED[case]
    found = problems({**WIDE, **changes})
    assert [each for each in found if each.pointer == pointer and words in each.detail], found


def test_a_probe_has_no_layers_that_could_differ():
    document = {
        "name": "probe",
        "task": "probe",
        "model": {"hidden_size": 32, "attention": {"num_attention_heads": {"values": [2, 4], "per_layer": True}}},
        "objectives": [{"metric": "latency_ms_p50"}],
    }
    with pytest.raises(ValueError, match="a probe has no layers that could differ"):
        read_document(document, find_dataset=DATASETS.get)


def test_an_encoder_decoders_stacks_both_differ():
    document = {
        "name": "two stacks",
        "task": "seq2seq",
        "dataset": "words",
        "model": {
            "num_layers": 2,
            "num_encoder_layers": {"values": [1, 3]},
            "hidden_size": 32,
            "attention": {
                "num_attention_heads": {"values": [2, 4], "per_layer": True},
                "attention_mask_type": {"values": ["causal", "sliding_window_causal"], "per_layer": True},
            },
        },
        "objectives": [{"metric": "latency_ms_p50"}],
    }
    sweep, feasibility = read_document(document, find_dataset=DATASETS.get)
    assert [each.name for each in sweep.space.open] == [
        "num_encoder_layers",
        *(f"layers.{index}.attention.num_attention_heads" for index in range(2)),
        *(f"encoder_layers.{index}.attention.num_attention_heads" for index in range(3)),
        *(f"layers.{index}.attention.attention_mask_type" for index in range(2)),
    ]
    assert feasibility.feasible_share == 1
    chosen = {
        "num_encoder_layers": 1,
        "layers.0.attention.num_attention_heads": 2,
        "layers.1.attention.num_attention_heads": 4,
        "encoder_layers.0.attention.num_attention_heads": 4,
        "layers.0.attention.attention_mask_type": "sliding_window_causal",
        "layers.1.attention.attention_mask_type": "causal",
    }
    model = sweep.space.complete(sweep.space.resolve(chosen)).model
    module = build(model)
    assert [block.attention.config.num_attention_heads for block in module.encoder.layers] == [4]
    assert [block.attention.config.num_attention_heads for block in module.decoder.layers] == [2, 4]
    assert [block.attention.config.attention_mask_type for block in module.encoder.layers] == ["padding"]
    assert [block.attention.config.max_attention_window_size for block in module.decoder.layers] == [10, None]


# --- the model ------------------------------------------------------------------------------------------------------


def test_a_completed_model_has_a_parameter_once_or_in_every_layer():
    model = completed({"layers.1.mlp.kind": "GatedMLP"})
    assert "mlp.kind" not in model
    assert [model[f"layers.{index}.mlp.kind"] for index in range(3)] == ["MLP", "GatedMLP", "MLP"]
    assert [model[f"layers.{index}.mlp.hidden_act"] for index in range(3)] == ["gelu", "silu", "gelu"]
    assert model["mlp.bias"] is True
    assert completed(model) == model


def test_layers_alike_are_the_model_that_says_it_once():
    once, each = (
        completed({"mlp.kind": "GatedMLP"}),
        completed({f"layers.{index}.mlp.kind": "GatedMLP" for index in range(3)}),
    )
    torch.manual_seed(0)
    one = build(once)
    torch.manual_seed(0)
    other = build(each)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    tokens = drawn(signature("causal_lm", once, 2, 12).inputs[0])
    assert torch.equal(one(tokens), other(tokens))


def test_the_norms_around_the_layers_are_those_of_the_first_and_the_last():
    norms = {"layers.0.norm.kind": "RmsNorm", "layers.2.norm.kind": "GroupNorm", "norm.eps": 1e-3}
    model = completed({**norms, "layers.2.norm.num_groups": 4, "has_embedding_layernorm": True})
    stack = build(model).stack
    assert type(stack.embedding_layernorm).__name__ == "RmsNorm"
    assert type(stack.final_layernorm).__name__ == "GroupNorm"
    assert stack.final_layernorm.num_groups == 4
    post = build(completed({"layers.2.norm_position": "post"}))
    assert post.stack.final_layernorm is None


def test_layers_with_the_same_relative_positions_share_their_table():
    relative = {"attention.position_embedding_type": "relative", "layers.1.attention.num_buckets": 8}
    module = build(completed(relative))
    assert len(module.stack.score_biases) == 2


@pytest.mark.parametrize("seed", range(12))
def test_the_formulas_count_what_the_module_has(seed: int) -> None:
    """Layers drawn apart: parameters by formula are those of the module, and the signature's shapes come out."""
    draw = random.Random(seed)
    kind = draw.choice(["decoder", "encoder", "encoder_decoder"])
    changes: dict[str, Any] = {"has_embedding_layernorm": draw.choice([True, False]), "num_layers": draw.randint(1, 3)}
    for stack in ("layers", "encoder_layers") if kind == "encoder_decoder" else ("layers",):
        for index in range(int(changes["num_layers"])):
            changes |= {
                f"{stack}.{index}.{path}": draw.choice(choices)
                for path, choices in {
                    "attention.num_attention_heads": [2, 4],
                    "attention.attention_head_size": [8, 16],
                    "attention.position_embedding_type": ["relative", "learned_absolute", "rope_gptj", "alibi"],
                    "attention.bias": [True, False],
                    "attention.qk_layernorm": [True, False],
                    "mlp.kind": ["MLP", "GatedMLP", "FusedGatedMLP"],
                    "mlp.ffn_hidden_size": [20, 40],
                    "norm.kind": ["LayerNorm", "RmsNorm"],
                    "norm_position": ["pre", "post"],
                }.items()
                if draw.random() < 0.7
            }
    model = completed(changes, kind)
    assert broken_rules(model) == []
    module = build(model).eval()
    assert parameter_count(model) == sum(parameter.numel() for parameter in module.parameters())
    found = signature(KINDS[kind].task, model, 2, 12, 9)
    assert tuple(module(*(drawn(spec) for spec in found.inputs)).shape) == found.outputs[0].shape


def test_operations_are_the_sum_of_the_layers():
    plain = [completed({"num_layers": 1, "mlp.ffn_hidden_size": width}) for width in (32, 64, 96)]
    layered = completed({f"layers.{index}.mlp.ffn_hidden_size": width for index, width in enumerate((32, 64, 96))})
    without = flops(completed({"num_layers": 2}), 2, 12) - 2 * (
        flops(completed({"num_layers": 2}), 2, 12) - flops(completed({"num_layers": 1}), 2, 12)
    )
    assert flops(layered, 2, 12) == sum(flops(model, 2, 12) - without for model in plain) + without


def test_masks_of_an_encoders_layers_may_mix_as_long_as_one_is_given():
    padding = completed({"layers.1.attention.attention_mask_type": "bidirectional"}, "encoder")
    assert [spec.name for spec in signature("classification", padding, 2, 12).inputs] == ["tokens", "token_mask"]
    assert broken_rules(padding) == []
    two = completed({"layers.1.attention.attention_mask_type": "custom_mask"}, "encoder")
    assert [violation.rule for violation in broken_rules(two)] == ["one mask with each example"]


def test_every_parameter_of_a_block_may_differ():
    sections = ("attention", "mlp", "norm")
    of_blocks = {path for path in DECLARATIONS if path.startswith(tuple(f"{section}." for section in sections))}
    assert set(BLOCK_PATHS) == of_blocks - set(OF_ALL_LAYERS) | {"norm_position", "residual", "shared_norm"}


def test_what_does_not_apply_in_a_layer_is_the_other_layers():
    """A base of rotations, where one layer has no positions."""
    rotated = {"attention.position_embedding_type": "rope_gpt_neox", "attention.rotary_embedding_base": 500.0}
    model = completed({**rotated, "layers.1.attention.position_embedding_type": "none"})
    assert model["layers.0.attention.rotary_embedding_base"] == 500.0
    assert "layers.1.attention.rotary_embedding_base" not in model
    nowhere = {f"layers.{i}.attention.position_embedding_type": "none" for i in range(3)}
    with pytest.raises(ParameterError, match="applies to no layer"):
        completed({**rotated, **nowhere})


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"layers.3.mlp.bias": False}, "decoder", "there is no layer 3: num_layers is 3"),
        ({"layers.0.hidden_size": 64}, "decoder", "hidden_size is the same in all layers"),
        ({"layers.0.attention.cross_attention": True}, "encoder_decoder", "is the same in all layers"),
        ({"layers.0.mlp.nothing": 1}, "decoder", "is not a parameter"),
        ({"encoder_layers.0.mlp.bias": False}, "decoder", "there is no encoder"),
        (
            {"encoder_layers.0.attention.attention_mask_type": "causal"},
            "encoder_decoder",
            "sees all of the source but padding",
        ),
        ({"layers.0.attention.num_buckets": 8}, "decoder", "does not apply where"),
        ({"layers.2.mlp.ffn_hidden_size": 0}, "decoder", "layer 2"),
    ],
)
def test_what_no_layer_can_have_is_refused(changes: dict[str, Any], kind: str, words: str) -> None:
    with pytest.raises(ParameterError) as refused:
        completed(changes, kind)
    assert words in str(refused.value)
    assert refused.value.path == next(iter(changes))


def test_expressions_are_counted_for_each_layer_before_they_are_written_out(monkeypatch: pytest.MonkeyPatch):
    long = "mlp.ffn_hidden_size > 0" + " and 1 + 1 > 1" * 40
    changes = {**WIDE, "/model/num_layers": 150, "/rules": [f"{long} + {number}" for number in range(50)]}
    parsed_texts: list[str] = []
    monkeypatch.setattr(
        "layers.expressions.parser.parse_tree", lambda text: parsed_texts.append(text) or parse_tree(text)
    )
    (problem,) = problems(changes)
    assert (problem.pointer, "more than 10,000 characters" in problem.detail) == ("/rules", True)
    assert len(parsed_texts) < 200


# --- what is kept from one point to the next ------------------------------------------------------------------------

DIFFERING: dict[str, dict[str, Any]] = {
    "decoder": {
        "/model/attention/attention_mask_type": {"values": ["causal", "sliding_window_causal"], "per_layer": True},
        "/model/attention/position_embedding_type": {"values": ["learned_absolute", "rope_gpt_neox"]},
    },
    "encoder": {
        "/task": "classification",
        "/dataset": "digits",
        "/model/attention/attention_mask_type": {
            "values": ["padding", "custom_mask", "bidirectional"],
            "per_layer": True,
        },
    },
    "encoder_decoder": {"/task": "seq2seq", "/dataset": "words", "/model/num_encoder_layers": {"min": 1, "max": 3}},
}


@pytest.mark.parametrize("kind", sorted(DIFFERING))
def test_a_model_that_knows_its_layers_is_as_one_that_does_not(kind: str):
    space = space_of(
        {
            "/model/mlp/kind": {"values": ["MLP", "GatedMLP", "FusedGatedMLP"], "per_layer": True},
            "/model/mlp/hidden_act": {"values": ["gelu", "silu", "swiglu"], "per_layer": True},
            "/model/norm": {"kind": {"values": ["LayerNorm", "GroupNorm"], "per_layer": True}},
            "/inference": {"sequence_length": 64} if kind == "encoder" else {},
            **DIFFERING[kind],
        }
    )
    source = random.Random(0)
    for _ in range(100):
        values = space.resolve(space.sample(source))
        inference = space.complete_inference(values)
        try:
            model = space.complete_model(values, inference, space.complete_training(values, inference))
        except ParameterError:
            continue
        plain = dict(model)
        for stack in [stack for stack, count in STACKS.items() if count in model]:
            layers = views(model, stack)
            assert layers == views(plain, stack)
            assert all((one is other) is (one == other) for one in layers for other in layers)
        assert broken_rules(model) == broken_rules(plain)
        assert mask_types(model) == mask_types(plain)
        if not broken_rules(plain):
            assert parameter_count(model) == parameter_count(plain)
            assert flops(model, 2, 16, 8) == flops(plain, 2, 16, 8)
        assert pickle.loads(pickle.dumps(model)) == plain


def test_what_is_kept_of_a_layer_is_of_the_values_beside_it():
    for width in (32, 64, 32):
        model = completed({"hidden_size": width, "layers.1.mlp.kind": "GatedMLP"})
        assert views(model)[0]["mlp.ffn_hidden_size"] == 4 * width
    with pytest.raises(ParameterError, match="true or false"):
        completed({"layers.0.mlp.bias": 1})
    assert completed({"layers.0.mlp.bias": True})["layers.0.mlp.bias"] is True
