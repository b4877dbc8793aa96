"""PromptTuningEmbedding: the layer, the models that read a prompt, and training of the prompt alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from layers.capabilities import unsupported
from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.model import broken_rules, flops, parameter_count
from layers.modules.model import build, set_trainable
from layers.parameter import ParameterError, Scalar
from layers.signature import signature
from layers.space.document import parse_document
from tests.layers.combinations import BASES, FACTS, drawn, lively
from tests.layers.sweep_documents import DATASETS, changed

PROMPT: dict[str, Scalar] = {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 5}


def completed(kind: str, changes: dict[str, Any]) -> dict[str, Scalar]:
    task = KINDS[kind].task
    return complete(task, {**BASES[kind], "kind": kind, **changes}, FACTS[task])


def test_ids_beyond_the_vocabulary_read_their_tasks_prompt() -> None:
    model = completed("embedding", {**PROMPT, "embedding.vocab_size": 20, "embedding.num_tasks": 3})
    module = lively(model).layer
    tokens = torch.tensor([[0, 19, 20, 24], [22, 3, 21, 1]], dtype=torch.int32)
    found = module(tokens, torch.tensor([2, 0], dtype=torch.int32)).detach().numpy()
    table, prompts = (each.weight.detach().numpy() for each in (module.table, module.prompts))
    assert prompts.shape == (15, 32)
    assert np.array_equal(found[0], [table[0], table[19], prompts[10], prompts[14]])
    assert np.array_equal(found[1], [prompts[2], table[3], prompts[1], table[1]])


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder_decoder"])
def test_a_model_reads_a_prompt_before_its_tokens(kind: str) -> None:
    model = completed(kind, PROMPT)
    assert broken_rules(model) == []
    module = lively(model)
    found = signature(KINDS[kind].task, model, 2, 12, 9)
    inputs = tuple(drawn(spec) for spec in found.inputs)
    before = module(*inputs)
    assert tuple(before.shape) == found.outputs[0].shape
    prompts = next(part for name, part in module.named_parameters() if name.endswith("prompts.weight"))
    with torch.no_grad():
        prompts[0].neg_()
    assert not torch.allclose(before, module(*inputs), atol=1e-4), "every prompt's vector is seen"
    assert parameter_count(model) == sum(each.numel() for each in module.parameters())
    without = completed(kind, {})
    assert parameter_count(model) > parameter_count(without)
    assert flops(model, 2, 12, 9) > flops(without, 2, 12, 9)


def test_a_decoder_with_a_prompt_is_the_decoder_over_longer_sequences() -> None:
    """With rotations, which need no table of positions: prompt and tokens are one sequence."""
    rope: dict[str, Scalar] = {"attention.position_embedding_type": "rope_gpt_neox"}
    model = completed("decoder", {**PROMPT, **rope})
    assert model["attention.max_position_embeddings"] == 12 + 5
    module = lively(model)
    (tokens,) = (drawn(spec) for spec in signature("causal_lm", model, 2, 12).inputs)
    read = torch.cat((module.embedding.prompts.weight.expand(2, -1, -1), module.embedding.table(tokens)), dim=1)
    expected = functional.linear(module.stack(read)[:, 5:], module.embedding.table.weight)
    torch.testing.assert_close(module(tokens), expected)


@pytest.mark.parametrize("mask", ["padding", "custom_mask", "bidirectional"])
def test_a_prompt_is_never_hidden_and_never_pooled(mask: str) -> None:
    model = completed("encoder", {**PROMPT, "attention.attention_mask_type": mask})
    module = lively(model)
    inputs = tuple(drawn(spec) for spec in signature("classification", model, 2, 12).inputs)
    seen: list[torch.Size] = []
    module.classifier.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    assert torch.isfinite(module(*inputs)).all()
    assert seen == [torch.Size([2, 32])]


def test_only_the_prompt_is_trained_when_the_rest_is_frozen() -> None:
    module = build(completed("decoder", PROMPT))
    set_trainable(module, "prompt")
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert trained == ["embedding.prompts.weight"]
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad], lr=0.1)
    tokens = drawn(signature("causal_lm", completed("decoder", PROMPT), 2, 12).inputs[0])
    losses: list[float] = []
    for _ in range(8):
        loss = functional.cross_entropy(module(tokens).flatten(0, 1), tokens.flatten().long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed_ones = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    assert changed_ones == ["embedding.prompts.weight"]
    set_trainable(module, "all")
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_training_the_prompt_alone_needs_one() -> None:
    document = changed(
        {
            "/model/embedding/kind": {"values": ["Embedding", "PromptTuningEmbedding"]},
            "/model/embedding/prompt_length": {"value": 4, "when": "embedding.kind == 'PromptTuningEmbedding'"},
            "/training": {"steps": 10, "trainable": "prompt"},
        }
    )
    space = parse_document(document, find_dataset=DATASETS.get).space
    point = {"num_layers": 1, "hidden_size": 32, "attention.num_attention_heads": 2}
    rejection = space.judge(space.resolve({**point, "embedding.kind": "Embedding"}))
    assert rejection is not None
    assert "has no prompt to train" in rejection.message
    values = space.resolve({**point, "embedding.kind": "PromptTuningEmbedding"})
    assert space.judge(values) is None
    assert space.configuration(values)["training"]["trainable"] == "prompt"


def test_what_a_prompt_cannot_be_is_refused() -> None:
    with pytest.raises(ParameterError, match="does not apply"):
        completed("decoder", {"embedding.prompt_length": 4})
    with pytest.raises(ParameterError, match="does not apply to the kind decoder"):
        completed("decoder", {**PROMPT, "embedding.num_tasks": 2})
    broken = broken_rules(completed("embedding", {**PROMPT, "embedding.vocab_size": 30}))
    assert [violation.rule for violation in broken] == ["embedding.vocab_size <= num_embeddings"]
    with pytest.raises(ParameterError, match="12 positions are too few for sequences of 17"):
        completed("decoder", {**PROMPT, "attention.max_position_embeddings": 12})
    assert (
        unsupported(
            completed("decoder", PROMPT),
            {
                "runtime": "onnxruntime",
                "version": "1.32",
                "device_model": "a CPU",
                "opset": 20,
                "dtypes": ["float32"],
                "device_memory_bytes": 10**9,
            },
        )
        is None
    )
