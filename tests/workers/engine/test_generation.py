"""Prompt and steps against the model that reads a text at once: ONNX Runtime's engines, and the caches between steps.

One model has a layer of each kind of attention. A wrong one would make all that follows it another function. Another
reads a source before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from layers.completion import complete
from layers.dataset_facts import ModelFacts
from layers.declarations.inference.generation import GenerationConfig
from layers.declarations.model import broken_rules
from layers.export.generation_export import export_decode, export_prefill
from layers.export.onnx_export import cast_copy
from layers.modules.generation import GenerativeModel
from layers.modules.model import build
from layers.parameter import Scalar
from tests.workers.engine_parent import Parent, Refused
from workers.engine.base import RowWrite
from workers.engine.generation import caches
from workers.engine.generation.caches import Caches, positions_in, row_writes
from workers.engine.generation.text import GeneratedText, Step, generate
from workers.engine.onnxruntime.engine import OnnxRuntimeEngine
from workers.engine.protocol import RequestError
from workers.trial import parity

NEW_TOKENS = 64
SOURCE = 6
INFERENCE = {"batch_size": 2, "prompt_tokens": 5, "new_tokens": NEW_TOKENS, "source_length": SOURCE}

LAYERS = (
    {
        "position_embedding_type": "rope_gpt_neox",
        "rotary_embedding_scale_type": "yarn",
        "rotary_embedding_scale": 2.0,
        "num_kv_heads": 2,
        "attention_mask_type": "sliding_window_causal",
        "max_attention_window_size": 7,
    },
    {"position_embedding_type": "rope_gptj", "rotary_embedding_percentage": 0.5, "num_kv_heads": 1, "softcap": 5.0},
    {"position_embedding_type": "alibi", "num_kv_heads": 2, "qk_norm": "LayerNorm", "qk_norm_scope": "width"},
    {"position_embedding_type": "relative", "num_buckets": 8, "max_distance": 20, "attention_head_size": 8},
    {"position_embedding_type": "learned_absolute", "qk_norm": "RmsNorm", "bias": False},
)
"""The attention of each layer."""

RTX_OPTIONS = {"optimization_level": 0, "compute_capability": 89}

READING = (
    {"position_embedding_type": "relative", "num_buckets": 8, "max_distance": 20, "num_kv_heads": 2},
    {
        "position_embedding_type": "rope_gpt_neox",
        "qk_norm": "RmsNorm",
        "attention_mask_type": "sliding_window_causal",
        "max_attention_window_size": 9,
    },
)
"""The attention of each layer of a decoder that reads a source."""


@dataclass(frozen=True)
class Generating:
    """A model and its engines."""

    model: GenerativeModel
    config: GenerationConfig
    prefill: Path
    steps: tuple[Path, ...]
    source: Mapping[str, np.ndarray]
    """What is read beside the tokens, in the order of the model."""

    def text(self, tokens: np.ndarray) -> GeneratedText:
        steps = [
            Step(path.with_suffix(".engine"), bucket.steps)
            for path, bucket in zip(self.steps, self.config.buckets, strict=True)
        ]
        given = {**self.source, "tokens": tokens}
        return generate(OnnxRuntimeEngine(), self.prefill.with_suffix(".engine"), steps, given, {})

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Of the model, for each new token."""
        with torch.no_grad():
            read = map(torch.from_numpy, (*self.source.values(), tokens))
            return self.model(*read)[:, self.config.prompt_tokens - 1 :].numpy()


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Generating:
    return _made("causal_lm", LAYERS, {}, tmp_path_factory.mktemp("generation"))


@pytest.fixture(scope="module")
def from_source(tmp_path_factory: pytest.TempPathFactory) -> Generating:
    source = np.random.default_rng(1).integers(0, 29, (2, SOURCE), dtype=np.int32)
    padding = np.array([[1] * SOURCE, [1] * (SOURCE - 2) + [0] * 2], np.int32)
    given = {"source": source, "source_mask": padding}
    return _made("seq2seq", READING, given, tmp_path_factory.mktemp("from_source"))


@pytest.fixture(params=["generating", "from_source"])
def either(request: pytest.FixtureRequest) -> Generating:
    return request.getfixturevalue(request.param)


def _made(
    task: str, layers: Sequence[Mapping[str, Scalar]], source: Mapping[str, np.ndarray], folder: Path
) -> Generating:
    """A model and its engines of ONNX Runtime."""
    made = _exported(task, layers, source, folder)
    for path in (made.prefill, *made.steps):
        OnnxRuntimeEngine().build(path, path.with_suffix(".engine"), {})
    return made


def _exported(
    task: str,
    layers: Sequence[Mapping[str, Scalar]],
    source: Mapping[str, np.ndarray],
    folder: Path,
    dtype: str = "float32",
) -> Generating:
    shared: dict[str, Scalar] = {"hidden_size": 16, "num_layers": len(layers), "attention.num_attention_heads": 4}
    own = {
        f"layers.{index}.attention.{name}": value for index, layer in enumerate(layers) for name, value in layer.items()
    }
    facts: ModelFacts = {"vocabulary_size": 29, "sequence_length": 69}
    if source:
        facts |= {"source_vocabulary_size": 29, "source_length": SOURCE}
        shared |= {"tie_embeddings": False, "embedding_scale": 4.0}
    declared = complete(task, {**shared, **own, "dtype": dtype}, facts)
    assert not broken_rules(declared)
    torch.manual_seed(0)
    # Larger than usual, so that no two logits are nearly the same.
    model = cast_copy(build(declared, initialization="fan_in"), dtype)
    assert isinstance(model, GenerativeModel)
    config = GenerationConfig.of(declared, INFERENCE)
    prefill = folder / "prefill.onnx"
    steps = {bucket.capacity: folder / f"decode_{bucket.capacity}.onnx" for bucket in config.buckets}
    export_prefill(model, config, prefill, opset=20)
    export_decode(model, config, steps, opset=20)
    return Generating(model, config, prefill, tuple(steps.values()), source)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """A text whose new tokens are given: all but the last one."""
    return np.random.default_rng(0).integers(0, 29, (2, 5 + NEW_TOKENS - 1), dtype=np.int32)


def test_greedy_tokens_are_those_of_the_model_without_caches(either: Generating, tokens: np.ndarray) -> None:
    text = tokens[:, :5]
    for _ in range(NEW_TOKENS):
        text = np.concatenate((text, either.logits(text)[:, -1:].argmax(-1)), axis=1).astype(np.int32)
    assert either.text(tokens[:, :5]).tokens.tolist() == text[:, 5:].tolist()
    assert len(np.unique(text[:, 5:])) > 3, "one token over and over would say little"


def test_logits_of_a_given_text_are_those_of_the_model(either: Generating, tokens: np.ndarray) -> None:
    found = either.text(tokens).logits
    assert found.shape == (2, NEW_TOKENS, 29)
    assert parity.compare(found, either.logits(tokens)).worst < 1e-4


def _one_later(capacity: int, length: int) -> np.ndarray:
    """Each key is said to lie a token later than it does."""
    positions = positions_in(capacity, length)
    return np.where(positions >= 0, np.minimum(positions + 1, length - 1), positions).astype(np.int32)


def _last_forgotten(capacity: int, length: int) -> np.ndarray:
    """The last token is said not to be there."""
    positions = positions_in(capacity, length)
    return np.where(positions == length - 1, caches.NOTHING, positions).astype(np.int32)


@pytest.mark.parametrize("wrong", [_one_later, pytest.param(_last_forgotten, marks=pytest.mark.slow)])
def test_a_cache_position_that_is_shifted_is_caught(
    either: Generating,
    tokens: np.ndarray,
    wrong: Callable[[int, int], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caches, "positions_in", wrong)
    found = parity.compare(either.text(tokens).logits, either.logits(tokens))
    assert not found.kept(parity.TOLERANCES["float32"])


def test_a_text_that_is_given_in_part_is_refused(generating: Generating, tokens: np.ndarray) -> None:
    with pytest.raises(RequestError, match="3 new tokens are given; give none, or the 63 that are read"):
        generating.text(tokens[:, :8])


def test_a_timed_step_writes_its_rows_into_its_caches(generating: Generating) -> None:
    engine = OnnxRuntimeEngine()
    engine.load(generating.steps[0].with_suffix(".engine"), {})
    inputs = Caches(engine.inputs).step(np.array([3, 4]), 9)
    rows = engine.run(inputs)
    prepared = engine.prepare(inputs)
    writes = row_writes(engine.inputs, 9)
    # Layer 0 sees 7 tokens, and has room for 8 keys: the tenth token takes the place of the second.
    assert RowWrite("key_0", "past_key_0", 1) in writes
    engine.keep_rows(prepared, writes)
    engine.timed_run(prepared)
    for write in writes:
        cache = prepared.inputs[write.cache].numpy()
        np.testing.assert_array_equal(cache[:, :, write.slot], rows[write.output][:, :, 0])
        assert np.count_nonzero(np.delete(cache, write.slot, axis=2)) == 0


def test_positions_are_those_of_the_last_tokens() -> None:
    assert positions_in(4, 0).tolist() == [-1, -1, -1, -1]
    assert positions_in(4, 3).tolist() == [0, 1, 2, -1]
    assert positions_in(4, 6).tolist() == [4, 5, 2, 3]


def test_a_runtime_that_builds_only_builds_both_graphs(generating: Generating) -> None:
    _build_for_rtx(generating)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "layers", "dtype"),
    [
        ("causal_lm", LAYERS, "float16"),
        ("causal_lm", LAYERS, "bfloat16"),
        ("seq2seq", READING, "float32"),
        ("seq2seq", READING, "float16"),
        ("seq2seq", READING, "bfloat16"),
    ],
)
def test_it_builds_them_in_other_formats_and_of_a_source(
    task: str, layers: Sequence[Mapping[str, Scalar]], dtype: str, tmp_path: Path
) -> None:
    source = {"source": np.zeros((2, SOURCE), np.int32)} if task == "seq2seq" else {}
    _build_for_rtx(_exported(task, layers, source, tmp_path, dtype))


def _build_for_rtx(made: Generating) -> None:
    with Parent() as parent:
        for onnx in (made.prefill, made.steps[0]):
            arguments = {"onnx": str(onnx), "engine": str(onnx.with_suffix(".rtx")), "options": RTX_OPTIONS}
            try:
                built = parent.ask("build", runtime="tensorrt_rtx", **arguments)
            except Refused as reason:
                if "cannot use tensorrt_rtx" in str(reason):
                    pytest.skip(str(reason))
                raise
            assert built["engine_bytes"] > 0
