"""Completion, rules and counts of a model, without and against the built module."""

from __future__ import annotations

import itertools

import pytest
import torch

from layers.capabilities import unsupported
from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.model import APPLIES, DECLARATIONS, LATER, broken_rules, flops, parameter_count
from layers.modules.model import build
from layers.parameter import REQUIRED, ParameterError

CAPABILITIES = {
    "runtime": "onnxruntime",
    "version": "1.32.0",
    "device_model": "a CPU",
    "opset": 20,
    "dtypes": ["float32"],
    "device_memory_bytes": 10**9,
}


def rules(model):
    return [violation.rule for violation in broken_rules(model)]


def test_completion_fills_in_every_default_that_applies(completed):
    model = completed()
    of_a_decoder = {path for path in DECLARATIONS if KINDS["decoder"].has(path)}
    without_effect = {
        *("residual", "residual_scale", "embedding_scale", "logits_scale", "logits_softcap"),
        *("attention.dense_bias", "attention.qk_norm", "attention.softcap"),
        *("head_bias", "layers_sharing_weights"),
    }
    """What has no effect where it is left out stays so: models completed before it was declared are the same still."""
    applying = {"norm.bias", "rescale_before_lm_head"}
    assert of_a_decoder - set(model) == (set(APPLIES) & of_a_decoder - applying) | without_effect
    assert set(model) <= of_a_decoder
    assert model["attention.num_kv_heads"] == 4
    assert model["attention.attention_head_size"] == 8
    assert model["attention.max_position_embeddings"] == 12
    assert model["embedding.num_embeddings"] == 29
    assert model["mlp.ffn_hidden_size"] == 128
    assert (model["mlp.hidden_act"], model["norm.eps"]) == ("gelu", 1e-5)


def test_gated_models_and_rms_norm_have_defaults_of_their_own(completed):
    model = completed({"mlp.kind": "GatedMLP", "norm.kind": "RmsNorm"})
    assert model["mlp.ffn_hidden_size"] == 128  # 8/3 x 32 = 85.3, rounded up to a multiple of 64
    assert (model["mlp.hidden_act"], model["norm.eps"], model["norm.num_groups"]) == ("silu", 1e-6, 1)
    assert "norm.bias" not in model


def test_completing_twice_changes_nothing(models):
    for model in itertools.islice(models(1), 30):
        facts = {"vocabulary_size": 29, "sequence_length": [12, 8]}
        assert complete("causal_lm", model, facts) == model


def test_positions_cover_the_longest_of_several_lengths(completed):
    facts = {"vocabulary_size": 29, "sequence_length": [8, 40]}
    assert completed(facts=facts)["attention.max_position_embeddings"] == 40


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"num_layers": 0}, "num_layers", "from 1"),
        ({"hidden_size": 32.5}, "hidden_size", "integer"),
        ({"mlp.hidden_act": "mish"}, "mlp.hidden_act", "squared-relu"),
        ({"attention.position_embedding_type": "yarn"}, "attention.position_embedding_type", "rope_gpt_neox"),
        ({"attention.attention_mask_type": "blocksparse"}, "attention.attention_mask_type", "causal"),
        ({"embedding.kind": "LookupEmbedding"}, "embedding.kind", "PromptTuningEmbedding"),
        ({"attention.tp_size": 2}, "attention.tp_size", "tp_size in [2, 3, 4"),
        ({"attention.cross_attention": True}, "attention.cross_attention", "encoder_decoder, block, attention"),
        ({"attention.num_buckets": 8}, "attention.num_buckets", "attention.position_embedding_type == 'relative'"),
        ({"attention.max_attention_window_size": 8}, "attention.max_attention_window_size", "sliding_window_causal"),
        ({"tie_embeddings": False, "rescale_before_lm_head": True}, "rescale_before_lm_head", "tie_embeddings == true"),
        ({"kind": "encoder"}, "kind", "task: classification"),
        ({"classes": 10}, "classes", "kind decoder"),
        ({"linear.in_features": 10}, "linear.in_features", "kind decoder"),
        ({"mlp.width": 5}, "mlp.width", "mlp.ffn_hidden_size"),
        ({"norm.num_groups": 2}, "norm.num_groups", "norm.kind in ['RmsNorm', 'GroupNorm']"),
        ({"norm.kind": "RmsNorm", "norm.bias": False}, "norm.bias", "RmsNorm"),
        ({"attention.rotary_embedding_base": 1e4}, "attention.rotary_embedding_base", "learned_absolute"),
        ({"embedding.num_embeddings": 20}, "embedding.num_embeddings", "29"),
        ({"attention.max_position_embeddings": 8}, "attention.max_position_embeddings", "12"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_place_and_the_remedy(completed, changes, path, words):
    with pytest.raises(ParameterError) as caught:
        completed(changes)
    assert caught.value.path == path
    assert words in str(caught.value)


def test_a_task_without_models_is_refused_by_name():
    with pytest.raises(ParameterError, match=r"poetry.*causal_lm, classification, seq2seq, probe"):
        complete("poetry", {}, {})


def test_what_has_no_default_must_be_given():
    with pytest.raises(ParameterError, match="num_layers: is missing"):
        complete("causal_lm", {"hidden_size": 32}, {"vocabulary_size": 5, "sequence_length": 4})
    values = {"num_layers": 1, "hidden_size": 32, "attention.num_attention_heads": 4}
    with pytest.raises(ParameterError, match="name a dataset"):
        complete("causal_lm", values, {"sequence_length": 4})


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"attention.num_attention_heads": 5}, "hidden_size % num_attention_heads"),
        ({"attention.num_kv_heads": 3}, "num_attention_heads % num_kv_heads"),
        ({"attention.num_kv_heads": 8}, "num_attention_heads % num_kv_heads"),
        (
            {"attention.position_embedding_type": "rope_gpt_neox", "attention.attention_head_size": 5},
            "rotary dimension even",
        ),
        (
            {"attention.position_embedding_type": "rope_gptj", "attention.rotary_embedding_percentage": 0.1},
            "rotary dimension even",
        ),
        ({"attention.attention_mask_type": "bidirectional"}, "decoder needs a causal mask"),
        ({"mlp.kind": "GatedMLP", "mlp.hidden_act": "swiglu"}, "mlp.hidden_act not gated in GatedMLP"),
        ({"mlp.kind": "FusedGatedMLP", "mlp.hidden_act": "geglu"}, "mlp.hidden_act not gated in FusedGatedMLP"),
        ({"norm.kind": "RmsNorm", "norm.num_groups": 5}, "hidden_size % norm.num_groups"),
        ({"norm.kind": "GroupNorm"}, "norm.num_groups < hidden_size"),
        ({"norm.elementwise_affine": False, "norm.bias": True}, "norm.bias needs elementwise_affine"),
        ({"embedding.embedding_dim": 64}, "embedding.embedding_dim <= hidden_size"),
    ],
)
def test_broken_rules_are_named(completed, changes, rule):
    assert rules(completed(changes)) == [rule]


def test_a_given_head_size_frees_the_width_from_the_heads(completed):
    model = completed({"attention.num_attention_heads": 5, "attention.attention_head_size": 6})
    assert rules(model) == []
    assert parameter_count(model) == sum(p.numel() for p in build(model).parameters())


def test_parameter_count_is_exact(models):
    for model in itertools.islice(models(2), 200):
        assert parameter_count(model) == sum(parameter.numel() for parameter in build(model).parameters()), model


def test_flops_count_every_product_of_the_module(models):
    """Against PyTorch's own counter, which sees the products that are executed."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for model in itertools.islice(models(3), 40):
        tokens = torch.zeros(3, 12, dtype=torch.int32)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            build(model).eval()(tokens)
        assert flops(model, 3, 12) == counter.get_total_flops(), model


def test_a_target_says_what_it_lacks(completed):
    model = completed()
    assert unsupported(model, CAPABILITIES) is None
    assert "does not run float16" in (unsupported(completed({"dtype": "float16"}), CAPABILITIES) or "")
    assert "opset 16" in (unsupported(model, {**CAPABILITIES, "opset": 16}) or "")
    assert "weights alone" in (unsupported(model, {**CAPABILITIES, "device_memory_bytes": 1000}) or "")


@pytest.mark.parametrize("path", DECLARATIONS)
def test_every_declaration_says_what_it_means_where_from_and_within_what(path):
    parameter = DECLARATIONS[path]
    assert parameter.meaning
    assert parameter.source
    if parameter.type in ("integer", "number"):
        assert parameter.minimum > float("-inf")
        assert parameter.maximum < float("inf")
    if parameter.default not in (None, REQUIRED):
        assert parameter.check(path, parameter.default) == parameter.default
    for value in (parameter.search or {}).get("values", []):
        parameter.check(path, value)
    for bound in ("min", "max"):
        if parameter.search and bound in parameter.search:
            parameter.check(path, parameter.search[bound])
    assert path not in LATER


@pytest.mark.parametrize("path", sorted(APPLIES))
def test_conditions_name_a_declared_parameter_and_values_that_it_takes(path):
    condition = APPLIES[path]
    assert path in DECLARATIONS
    for value in condition.values:
        DECLARATIONS[condition.path].check(condition.path, value)
