"""Every kind of model: completed, counted, exported to the function that it computes, refused with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from layers.completion import DoesNotApply, complete
from layers.declarations.kinds import KINDS, TASKS, kinds_of
from layers.declarations.model import DECLARATIONS, broken_rules, flops, parameter_count
from layers.export.onnx_export import export
from layers.modules.model import build
from layers.parameter import ParameterError
from layers.signature import signature

B, T, S = 3, 12, 9
FACTS = {
    "causal_lm": {"vocabulary_size": 29},
    "classification": {"vocabulary_size": 29, "classes": 10},
    "seq2seq": {"vocabulary_size": 29, "source_vocabulary_size": 31, "source_length": S},
    "probe": {"source_length": S},
}
WIDTH = {"hidden_size": 32}
HEADS = {**WIDTH, "attention.num_attention_heads": 4}
LAYERS = {**HEADS, "num_layers": 2}
LEAST = {
    "decoder": LAYERS,
    "encoder": LAYERS,
    "encoder_decoder": LAYERS,
    "block": HEADS,
    "attention": HEADS,
    "mlp": WIDTH,
    "linear": {"linear.in_features": 5, "linear.out_features": 7},
    "norm": WIDTH,
    "embedding": {**WIDTH, "embedding.num_embeddings": 29},
}
"""What must be given for a kind."""

RELATIVE = {"attention.position_embedding_type": "relative"}
VARIANTS = [
    *((kind, {}) for kind in KINDS),
    ("decoder", RELATIVE),
    ("decoder", {"attention.position_embedding_type": "alibi", "has_embedding_layernorm": True}),
    ("decoder", {"attention.position_embedding_type": "alibi_with_scale", "norm_position": "post"}),
    ("decoder", {"attention.attention_mask_type": "sliding_window_causal", "norm.kind": "RmsNorm"}),
    ("encoder", {**RELATIVE, "attention.attention_mask_type": "custom_mask", "pooling": "pooler"}),
    ("encoder", {"attention.attention_mask_type": "bidirectional", "has_embedding_layernorm": True}),
    ("encoder", {"pooling": "first", "norm_position": "post", "attention.position_embedding_type": "alibi"}),
    ("encoder_decoder", {**RELATIVE, "norm.kind": "RmsNorm", "rescale_before_lm_head": True}),
    ("encoder_decoder", {"norm_position": "post", "tie_embeddings": False, "embedding.embedding_dim": 16}),
    ("encoder_decoder", {"num_encoder_layers": 1, "attention.num_kv_heads": 2, "attention.qk_layernorm": True}),
    ("block", {"attention.cross_attention": True, "attention.attention_mask_type": "padding"}),
    ("block", {**RELATIVE, "attention.attention_mask_type": "bidirectional", "norm_position": "post"}),
    ("attention", {**RELATIVE, "attention.attention_mask_type": "custom_mask"}),
    ("attention", {"attention.cross_attention": True, "attention.attention_mask_type": "padding"}),
    ("attention", {"attention.cross_attention": True, "attention.attention_mask_type": "custom_mask"}),
    ("norm", {"norm.elementwise_affine": False}),
]


def completed(kind, changes=None):
    task = KINDS[kind].task
    values = {"kind": kind, **LEAST[kind], **(changes or {})}
    return complete(task, values, {**FACTS[task], "sequence_length": T})


def made(model):
    """The module with weights large enough that everything matters, and inputs by its signature."""
    torch.manual_seed(0)
    module = build(model).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.15)
    found = signature(KINDS[model["kind"]].task, model, B, T, S)
    inputs = []
    for spec in found.inputs:
        if spec.dtype == "float32":
            inputs.append(torch.randn(spec.shape))
        elif "mask" in spec.name:
            mask = torch.randint(0, 2, spec.shape, dtype=torch.int32)
            mask[..., 0] = 1
            inputs.append(mask)
        else:
            inputs.append(torch.randint(0, 29, spec.shape, dtype=torch.int32))
    return module, found, tuple(inputs)


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_a_kind_is_counted_exactly_and_shaped_as_its_signature_says(kind, changes):
    model = completed(kind, changes)
    assert broken_rules(model) == []
    task = KINDS[kind].task
    assert complete(task, model, {**FACTS[task], "sequence_length": T}) == model
    module, found, inputs = made(model)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        output = module(*inputs)
    assert tuple(output.shape) == found.outputs[0].shape
    assert parameter_count(model) == sum(parameter.numel() for parameter in module.parameters())
    assert flops(model, B, T, S) == counter.get_total_flops()


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_a_kind_exports_to_the_function_that_it_computes(kind, changes, tmp_path):
    module, found, inputs = made(completed(kind, changes))
    names = {
        "input_names": [spec.name for spec in found.inputs],
        "output_names": [spec.name for spec in found.outputs],
    }
    path = tmp_path / "model.onnx"
    export(module, inputs, path, opset=17, **names)
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == names["input_names"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {spec.name: value.numpy() for spec, value in zip(found.inputs, inputs, strict=True)}
    (got,) = session.run(names["output_names"], given)
    with torch.no_grad():
        expected = module(*inputs).numpy()
    assert np.linalg.norm(got - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_runs_in_half_precision(kind):
    module, _, inputs = made(completed(kind, {"dtype": "bfloat16"}))
    with torch.no_grad():
        output = module.to(torch.bfloat16)(*inputs)
    assert output.dtype == torch.bfloat16
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_a_default_kind_and_refuses_the_others(task):
    (first, *_), others = kinds_of(task), set(KINDS) - set(kinds_of(task))
    values = LEAST[first]
    assert complete(task, values, {**FACTS[task], "sequence_length": T})["kind"] == first
    for kind in others:
        with pytest.raises(ParameterError, match=f"{kind}.*not for {task}.*{first}"):
            complete(task, {**values, "kind": kind}, {**FACTS[task], "sequence_length": T})


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_does_not_have_is_refused(kind):
    lacking = [path for path in DECLARATIONS if not KINDS[kind].has(path)]
    assert lacking or kind == "encoder_decoder"
    for path in lacking:
        parameter = DECLARATIONS[path]
        value = {"boolean": True, "string": (parameter.choices or ("x",))[0]}.get(parameter.type, parameter.maximum)
        with pytest.raises(DoesNotApply, match="does not apply"):
            completed(kind, {path: value})


@pytest.mark.parametrize(
    ("kind", "changes", "rule"),
    [
        ("decoder", {"attention.attention_mask_type": "padding"}, "decoder needs a causal mask"),
        ("encoder_decoder", {"attention.attention_mask_type": "bidirectional"}, "encoder_decoder needs a causal mask"),
        ("encoder", {"attention.attention_mask_type": "sliding_window_causal"}, "encoder needs an open mask"),
        ("encoder_decoder", {"attention.cross_attention": False}, "encoder_decoder needs cross attention"),
        ("attention", {"attention.cross_attention": True}, "cross attention is not causal"),
        (
            "attention",
            {**RELATIVE, "attention.cross_attention": True, "attention.attention_mask_type": "padding"},
            "cross attention has no distances",
        ),
        ("decoder", {**RELATIVE, "attention.max_distance": 16}, "max_distance > num_buckets / 2"),
        ("encoder", {**RELATIVE, "attention.max_distance": 8}, "max_distance > num_buckets / 4"),
        ("encoder", {**RELATIVE, "attention.num_buckets": 9}, "num_buckets even"),
        ("encoder_decoder", {**RELATIVE, "attention.num_buckets": 9}, "num_buckets even"),
        ("encoder_decoder", {**RELATIVE, "attention.max_distance": 12}, "max_distance > num_buckets / 2"),
    ],
)
def test_a_broken_rule_of_a_kind_is_named(kind, changes, rule):
    assert [violation.rule for violation in broken_rules(completed(kind, changes))] == [rule]


def test_a_decoder_may_have_an_odd_number_of_buckets():
    assert broken_rules(completed("decoder", {**RELATIVE, "attention.num_buckets": 9})) == []


def test_a_shared_source_table_needs_one_vocabulary():
    with pytest.raises(ParameterError, match="31 tokens and the target's 29"):
        completed("encoder_decoder", {"share_source_embedding": True})
    facts = {"vocabulary_size": 29, "source_vocabulary_size": 29, "sequence_length": T}
    values = {**LAYERS, "share_source_embedding": True}
    shared, apart = (
        complete("seq2seq", {**values, **change}, facts) for change in ({}, {"share_source_embedding": False})
    )
    assert parameter_count(apart) - parameter_count(shared) == 29 * 32
    assert sum(parameter.numel() for parameter in build(shared).parameters()) == parameter_count(shared)


def test_positions_cover_the_source_as_well():
    facts = {**FACTS["seq2seq"], "source_length": 40, "sequence_length": T}
    assert complete("seq2seq", LAYERS, facts)["attention.max_position_embeddings"] == 40


def test_what_only_the_data_can_tell_is_missing_without_it():
    for task, path in [("causal_lm", "embedding.num_embeddings"), ("classification", "classes")]:
        facts = {"vocabulary_size": 29} if task == "classification" else {}
        with pytest.raises(ParameterError) as caught:
            complete(task, LAYERS, {**facts, "sequence_length": T})
        assert caught.value.path == path


@pytest.mark.parametrize("padded", [S - 1, 4])
def test_padding_changes_no_logit(padded):
    """Whatever stands there: the source of an encoder_decoder, the tokens of an encoder that pools their mean."""
    module, _, (source, mask, tokens) = made(completed("encoder_decoder", RELATIVE))
    mask = torch.ones_like(mask)
    mask[:, padded:] = 0
    with torch.no_grad():
        before = module(source, mask, tokens)
        source[:, padded:] = 7
        torch.testing.assert_close(module(source, mask, tokens), before)
        torch.testing.assert_close(module(source[:, :padded], mask[:, :padded], tokens), before, rtol=1e-4, atol=1e-5)
    module, _, (tokens, mask) = made(completed("encoder"))
    mask = torch.ones_like(mask)
    mask[:, padded:] = 0
    with torch.no_grad():
        before = module(tokens, mask)
        tokens[:, padded:] = 7
        torch.testing.assert_close(module(tokens, mask), before)
        torch.testing.assert_close(module(tokens[:, :padded], mask[:, :padded]), before, rtol=1e-4, atol=1e-5)


def test_layers_share_one_table_of_relative_positions():
    module = build(completed("encoder_decoder", RELATIVE))
    tables = [name for name, _ in module.named_parameters() if name.endswith("relative.table")]
    assert len(tables) == 2
    assert {name.split(".")[0] for name in tables} == {"encoder", "decoder"}
