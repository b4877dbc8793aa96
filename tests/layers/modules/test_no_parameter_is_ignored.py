"""No parameter is accepted and ignored: each is changed alone, in every kind of model that has it.

What must change: the inputs or outputs, the weights, or what the same weights compute of the same inputs. A value that
is refused (a broken rule) is not ignored. What is tested elsewhere, since a module alone does not show it, is in
ELSEWHERE with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.model import APPLIES, DECLARATIONS, broken_rules
from layers.declarations.tensor_parallel import SHARED
from layers.export.onnx_export import cast_copy
from layers.modules.model import build
from layers.parameter import ParameterError, Scalar
from layers.signature import Signature, signature
from tests.layers.combinations import needs_of

FACTS = {"vocabulary_size": 29, "source_vocabulary_size": 29, "classes": 10, "sequence_length": 12, "source_length": 9}
WIDTH = {"hidden_size": 64}
HEADS = {**WIDTH, "attention.num_attention_heads": 4}
LAYERS = {**HEADS, "num_layers": 2}
BASES: dict[str, dict[str, Scalar]] = {
    "decoder": LAYERS,
    "encoder": LAYERS,
    "encoder_decoder": LAYERS,
    "block": HEADS,
    "attention": HEADS,
    "mlp": WIDTH,
    "linear": {"linear.in_features": 6, "linear.out_features": 8},
    "norm": WIDTH,
    "embedding": {**WIDTH, "embedding.num_embeddings": 29},
}
"""What each kind must be given."""

NUMBERS: dict[str, Scalar] = {
    "num_layers": 3,
    "num_encoder_layers": 3,
    "layers_sharing_weights": 2,
    "hidden_size": 128,
    "classes": 11,
    "attention.num_attention_heads": 8,
    "attention.num_kv_heads": 2,
    "attention.attention_head_size": 8,
    "attention.max_attention_window_size": 2,
    "attention.num_buckets": 8,
    "attention.max_distance": 20,
    "attention.max_position_embeddings": 20,
    "attention.rotary_embedding_base": 100.0,
    "attention.rotary_embedding_percentage": 0.5,
    "attention.rotary_embedding_scale": 2.0,
    "attention.original_max_position_embeddings": 64,
    "attention.rotary_embedding_low_freq_factor": 2.0,
    "attention.rotary_embedding_high_freq_factor": 8.0,
    "attention.rotary_embedding_beta_fast": 4.0,
    "attention.rotary_embedding_beta_slow": 2.0,
    "attention.q_scaling": 0.5,
    "attention.qk_norm_eps": 0.1,
    "attention.softcap": 2.0,
    "residual_scale": 0.5,
    "embedding_scale": 2.0,
    "logits_scale": 0.5,
    "logits_softcap": 2.0,
    "mlp.ffn_hidden_size": 48,
    "norm.eps": 0.1,
    "norm.num_groups": 8,
    "embedding.num_embeddings": 31,
    "embedding.source_num_embeddings": 31,
    "embedding.embedding_dim": 16,
    "embedding.prompt_length": 9,
    "embedding.num_tasks": 3,
    "embedding.vocab_size": 20,
    "linear.in_features": 7,
    "linear.out_features": 9,
}
"""Another value of each number."""

HELPS: dict[str, dict[str, Scalar]] = {
    # 12 tokens have no distance in the logarithmic buckets of 32.
    "attention.max_distance": {"attention.num_buckets": 8},
    "attention.max_position_embeddings": {"attention.position_embedding_type": "rope_gpt_neox"},
    # A probe has no table of positions: learned ones and none are the same there.
    "attention.position_embedding_type": {"attention.position_embedding_type": "rope_gpt_neox"},
    # What is left out is as one of the values.
    "attention.rotary_embedding_scale_type": {"attention.rotary_embedding_scale_type": "linear"},
    "attention.qk_norm": {"attention.qk_norm": "RmsNorm"},
    "attention.dense_bias": {"attention.dense_bias": False},
    "residual": {"residual": "parallel"},
    "attention.relative_table_per_layer": {"attention.relative_table_per_layer": False},
    "skip_first_norm": {"skip_first_norm": False},
    "head_bias": {"head_bias": False},
    "pooler_act": {"pooler_act": "relu"},
    "pooler_bias": {"pooler_bias": False},
    "pooler_norm": {"pooler_norm": False},
}
"""What a parameter needs beside it to matter."""

ELSEWHERE = {
    ("dtype", "tf32"): "a flag of the builder: tests/workers/engine/tensorrt/test_engine.py",
    ("quantization", "int8"): "of the engine's graph: test_quantization.py",
    ("quantization", "fp8"): "of the engine's graph: test_quantization.py",
    ("linear.kind", "ColumnLinear"): "the three differ where devices share the work",
    ("linear.kind", "RowLinear"): "the three differ where devices share the work",
}


def _cases() -> list[tuple[str, str, Scalar]]:
    found: list[tuple[str, str, Scalar]] = []
    for kind in KINDS:
        for path, parameter in DECLARATIONS.items():
            if path == "kind" or not KINDS[kind].has(path):
                continue
            condition = APPLIES.get(path)
            if path == "tp_size" or condition == SHARED:
                continue  # what processes share of a module: test_tensor_parallel.py
            if condition is not None and condition.path == "kind" and kind not in condition.values:
                continue
            values = {"boolean": (True, False), "string": parameter.choices}.get(parameter.type, (NUMBERS.get(path),))
            found += [(kind, path, value) for value in values if (path, value) not in ELSEWHERE]
    return found


def completed(kind: str, changes: Mapping[str, Any]) -> dict[str, Scalar]:
    return complete(KINDS[kind].task, {"kind": kind, **BASES[kind], **changes}, FACTS)


def made(model: Mapping[str, Scalar]) -> tuple[nn.Module, Signature]:
    """The module with weights large enough that everything matters, in the model's number format."""
    torch.manual_seed(0)
    module = build(model).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return cast_copy(module, str(model["dtype"])), signature(KINDS[str(model["kind"])].task, model, 2, 12, 9)


def inputs_of(found: Signature) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    inputs: list[Tensor] = []
    for spec in found.inputs:
        if spec.dtype == "float32":
            inputs.append(torch.randn(spec.shape, generator=generator))
        else:
            highest = {"tasks": 1}.get(spec.name, 2 if "mask" in spec.name else 29)
            inputs.append(torch.randint(0, highest, spec.shape, generator=generator, dtype=torch.int32))
    return tuple(inputs)


def assert_differs(before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> None:
    old, new = made(before), made(after)
    if old[1] != new[1]:
        return
    weights = [{name: value.shape for name, value in module.named_parameters()} for module, _ in (old, new)]
    if weights[0] != weights[1]:
        return
    with torch.no_grad():
        outputs = [module(*inputs_of(old[1])).float() for module, _ in (old, new)]
    if (outputs[0] - outputs[1]).norm() > 1e-6 * outputs[0].norm():
        return
    longest = int(before["attention.max_position_embeddings"]) + 1
    longer = inputs_of(signature(KINDS[str(before["kind"])].task, before, 2, longest, 9))
    with pytest.raises(ValueError, match="max_position_embeddings"):
        old[0](*longer)
    new[0](*longer)


@pytest.mark.parametrize(("kind", "path", "value"), _cases())
def test_a_parameter_changed_alone_changes_the_model(kind: str, path: str, value: Scalar | None) -> None:
    assert value is not None, f"{path} is a number without another value in NUMBERS"
    base = {**HELPS.get(path, {}), **needs_of(path, kind)}
    base.pop("kind", None)
    before = completed(kind, base)
    assert broken_rules(before) == []
    if before.get(path) == value:
        return
    try:
        after = completed(kind, {**base, path: value})
    except ParameterError:
        return
    if not broken_rules(after):
        assert_differs(before, after)
