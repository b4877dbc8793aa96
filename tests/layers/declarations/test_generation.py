"""The inference mode `generate`: what its section must say, the caches that follow, and what cannot be cached."""

from __future__ import annotations

from typing import Any

import pytest

from layers.completion import check_model, complete
from layers.dataset_facts import DatasetFacts, ModelFacts
from layers.declarations.inference.generation import Bucket, GenerationConfig, kv_cache_bytes
from layers.declarations.inference.parameters import complete_inference
from layers.parameter import ParameterError

GENERATE = {"mode": "generate", "batch_size": 2, "prompt_tokens": 100, "new_tokens": 41}
MODEL = {"hidden_size": 64, "num_layers": 3, "attention.num_attention_heads": 4, "embedding.num_embeddings": 29}


def _model(**values: Any) -> dict[str, Any]:
    return complete("causal_lm", {**MODEL, **values}, {"sequence_length": 141})


def test_the_sequence_that_is_scored_is_prompt_and_text() -> None:
    assert complete_inference(GENERATE)["sequence_length"] == 141
    assert complete_inference({**GENERATE, "sequence_length": 200})["sequence_length"] == 200
    assert complete_inference({"mode": "forward"}) == complete_inference({})


def test_a_target_begins_with_its_start_and_is_as_long_as_the_longest_of_the_data() -> None:
    facts: DatasetFacts = {"source_length": 9, "target_length": 12}
    short = complete_inference({"mode": "generate", "new_tokens": 8}, "seq2seq", facts)
    assert (short["prompt_tokens"], short["sequence_length"], short["source_length"]) == (1, 12, 9)
    long = complete_inference({"mode": "generate", "prompt_tokens": 3, "new_tokens": 12}, "seq2seq", facts)
    assert long["sequence_length"] == 15


@pytest.mark.parametrize(
    ("values", "task", "path", "message"),
    [
        ({"mode": "generate", "prompt_tokens": 3}, "causal_lm", "inference.new_tokens", "is missing"),
        ({"prompt_tokens": 3}, "causal_lm", "inference.prompt_tokens", "mode forward"),
        ({**GENERATE, "new_tokens": 1}, "causal_lm", "inference.new_tokens", "out of range"),
        ({**GENERATE, "new_tokens": "many"}, "causal_lm", "inference.new_tokens", "not a finite number"),
        ({**GENERATE, "sequence_length": 140}, "causal_lm", "inference.sequence_length", "shorter than"),
        ({**GENERATE, "mode": "dream"}, "causal_lm", "inference.mode", "dream"),
        ({"mode": "generate"}, "seq2seq", "inference.new_tokens", "is missing"),
        (GENERATE, "probe", "inference.mode", "probe"),
        (GENERATE, "classification", "inference.mode", "classification"),
    ],
)
def test_what_cannot_be_generated_is_refused_by_name(
    values: dict[str, Any], task: str, path: str, message: str
) -> None:
    with pytest.raises(ParameterError, match=message) as refusal:
        complete_inference(values, task)
    assert refusal.value.path == path


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"quantization": "int8"}, "quantization"),
        ({"tp_size": 2}, "tp_size"),
    ],
)
def test_what_is_not_cached_is_refused_by_name(values: dict[str, Any], path: str) -> None:
    model, inference = _model(**values), complete_inference(GENERATE)
    with pytest.raises(ParameterError, match="forward") as refusal:
        check_model("causal_lm", model, inference, {}, {})
    assert refusal.value.path == path
    check_model("causal_lm", model, complete_inference({}), {}, {})


def test_steps_are_spread_over_buckets_of_rising_capacity() -> None:
    config = GenerationConfig.of(_model(), complete_inference(GENERATE))
    assert config.buckets == (Bucket(112, 10, 100), Bucket(120, 10, 110), Bucket(136, 10, 120), Bucket(144, 10, 130))
    assert config.capacity == 144
    few = GenerationConfig.of(_model(), complete_inference({**GENERATE, "new_tokens": 3}))
    assert few.buckets == (Bucket(104, 2, 100),), "101 and 102 keys have the same room"


def test_caches_are_as_large_as_what_their_layer_sees() -> None:
    inference = complete_inference(GENERATE)
    # Keys and values of 2 sequences, heads of 16, in float32.
    row = 2 * 2 * 16 * 4
    assert kv_cache_bytes(_model(), inference) == 3 * 4 * 144 * row
    assert kv_cache_bytes(_model(**{"attention.num_kv_heads": 1}), inference) == 3 * 144 * row
    assert kv_cache_bytes(_model(dtype="float16"), inference) == 3 * 4 * 144 * row // 2
    sliding: dict[str, Any] = {"layers.1.attention.attention_mask_type": "sliding_window_causal"}
    sliding["layers.1.attention.max_attention_window_size"] = 33
    assert kv_cache_bytes(_model(**sliding), inference) == (2 * 144 + 32) * 4 * row
    assert kv_cache_bytes(_model(), complete_inference({})) is None
    prompt = {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 10}
    assert kv_cache_bytes(_model(**prompt), inference) == 3 * 4 * 152 * row


def test_keys_of_a_source_are_cached_beside_those_of_the_target() -> None:
    given = {"mode": "generate", "batch_size": 2, "new_tokens": 20, "source_length": 50}
    inference = complete_inference(given, "seq2seq")
    facts: ModelFacts = {"source_vocabulary_size": 29, "sequence_length": 21, "source_length": 50}
    row = 2 * 2 * 16 * 4
    assert kv_cache_bytes(complete("seq2seq", MODEL, facts), inference) == 3 * 4 * (24 + 50) * row
    prompt = {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 10}
    assert kv_cache_bytes(complete("seq2seq", {**MODEL, **prompt}, facts), inference) == 3 * 4 * (24 + 60) * row
