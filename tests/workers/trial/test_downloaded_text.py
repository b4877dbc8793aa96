"""`run.py --prompt` with engines of ONNX Runtime against PyTorch's model, which reads the whole text at once.

Prompts are shorter than the graph of the prompt reads, as long, and longer; texts are as long as the engines have room.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
import torch

from layers.completion import complete
from layers.dataset_facts import ModelFacts
from layers.declarations.inference.generation import BUCKETS, GenerationConfig
from layers.declarations.model import broken_rules
from layers.export.generation_export import export_decode, export_prefill
from layers.export.onnx_export import export, export_loss
from layers.modules.generation import GenerativeModel
from layers.modules.model import build
from layers.parameter import Scalar
from layers.signature import Signature, TensorSpec
from service.operations import artifacts
from workers.engine.onnxruntime.engine import OnnxRuntimeEngine
from workers.trial.download import loader
from workers.trial.download.checkout_graph import CheckoutGraph
from workers.trial.download.generation_plan import generation_plan, step_names
from workers.trial.download.graph_tensors import MEANINGS, decode_tensors, family, prefill_tensors
from workers.trial.download.readme import FILES, DownloadedTrial, readme
from workers.trial.generation.percentiles import weighted_percentiles

BATCH, PROMPT, NEW, SOURCE = 2, 5, 28, 6
LENGTH = PROMPT + NEW
CHARACTERS = [chr(ord("A") + number) for number in range(32)]
INFERENCE = {"batch_size": BATCH, "prompt_tokens": PROMPT, "new_tokens": NEW, "sequence_length": LENGTH}
TEXT_FACTS: dict[str, Any] = {"tokenizer": "char", "vocabulary": CHARACTERS, "vocabulary_size": 32}
PAIR_FACTS: dict[str, Any] = {
    "tokenizer": "char",
    "target_tokenizer": "whitespace",
    "pad_id": 0,
    "start_id": 1,
    "end_id": 2,
    "source_symbols": CHARACTERS[:31],
    "target_symbols": CHARACTERS[:29],
}
SLIDING = {"attention_mask_type": "sliding_window_causal"}
LAYERS: tuple[Mapping[str, Scalar], ...] = (
    {"position_embedding_type": "rope_gpt_neox", "num_kv_heads": 2, **SLIDING, "max_attention_window_size": 7},
    {"position_embedding_type": "alibi", "num_kv_heads": 1, **SLIDING, "max_attention_window_size": 20},
    {"position_embedding_type": "alibi"},
    {"position_embedding_type": "relative", "num_buckets": 8, "max_distance": 20},
    {"position_embedding_type": "rope_gptj", "rotary_embedding_percentage": 0.5},
    {"position_embedding_type": "learned_absolute"},
)
READING: tuple[Mapping[str, Scalar], ...] = (
    {"position_embedding_type": "relative", "num_kv_heads": 2},
    {"position_embedding_type": "rope_gpt_neox", **SLIDING, "max_attention_window_size": 9},
)
TABLE: Mapping[str, Scalar] = {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 3}
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Download:
    """A folder as `layersweep trial download` leaves it, and its model."""

    folder: Path
    model: GenerativeModel
    config: GenerationConfig
    described: dict[str, Any]

    def forward(self) -> dict[str, Any]:
        """As it is described in the mode `forward`."""
        return {**self.described, "generation": None}

    def likeliest(self, text: Sequence[int], source: Sequence[torch.Tensor]) -> list[int]:
        """The likeliest token after each of a text, by PyTorch's model."""
        with torch.no_grad():
            logits = self.model(*source, torch.tensor([list(text)], dtype=torch.int32))
        return logits[0].argmax(-1).tolist()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return _made(tmp_path_factory.mktemp("text"), "causal_lm", LAYERS, TABLE)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return _made(tmp_path_factory.mktemp("pairs"), "seq2seq", READING, {})


def _made(folder: Path, task: str, layers: Sequence[Mapping[str, Scalar]], shared: Mapping[str, Scalar]) -> Download:
    own = {f"layers.{number}.attention.{name}": value for number, of in enumerate(layers) for name, value in of.items()}
    size: dict[str, Scalar] = {"hidden_size": 16, "num_layers": len(layers), "attention.num_attention_heads": 4}
    size["tie_embeddings"] = False
    facts: ModelFacts = {"vocabulary_size": 32, "sequence_length": LENGTH}
    inference: dict[str, Any] = dict(INFERENCE)
    if task == "seq2seq":
        facts |= {"source_vocabulary_size": 32, "source_length": SOURCE}
        inference |= {"source_length": SOURCE, "prompt_tokens": 1, "new_tokens": LENGTH - 1}
    declared = complete(task, {**size, **own, **shared}, facts)
    assert not broken_rules(declared)
    # Of a seed whose text is no token over and over.
    torch.manual_seed(1 if task == "seq2seq" else 2)
    # Larger weights than usual, so that no two logits are nearly the same.
    model = build(declared, initialization="fan_in").eval()
    assert isinstance(model, GenerativeModel)
    config = GenerationConfig.of(declared, inference)
    names = step_names(len(config.buckets))
    graphs = {bucket.capacity: folder / f"{name}.onnx" for name, bucket in zip(names, config.buckets, strict=True)}
    export_decode(model, config, graphs, opset=20)
    export_prefill(model, config, folder / "prefill.onnx", opset=20)
    sources = {"source": (BATCH, SOURCE), "source_mask": (BATCH, SOURCE)} if task == "seq2seq" else {}
    shapes = {**sources, "tokens": (BATCH, LENGTH)}
    inputs = tuple(torch.ones(shape, dtype=torch.int32) for shape in shapes.values())
    export(model, inputs, folder / "model.onnx", opset=20, input_names=tuple(shapes))
    export_loss(folder / "loss.onnx", logits_shape=(BATCH, LENGTH, 32), opset=20)
    for path in (folder / "prefill.onnx", folder / "model.onnx", folder / "loss.onnx", *graphs.values()):
        OnnxRuntimeEngine().build(path, path.with_suffix(".engine"), {})
    generator = np.random.default_rng(0)
    batches = {name: generator.integers(1, 2 if name.endswith("mask") else 32, (6, *shapes[name])) for name in shapes}
    batches["targets"] = generator.integers(0, 32, (6, BATCH, LENGTH))
    np.savez(
        folder / "validation.npz", allow_pickle=False, **_int32(batches), weights=np.ones((6, BATCH, LENGTH), "f4")
    )
    described = {
        "runtime": "onnxruntime",
        "configuration": {"task": task, "model": declared, "inference": inference},
        "dataset": {"name": "letters", "sha256": "0", "facts": PAIR_FACTS if task == "seq2seq" else TEXT_FACTS},
        "metrics": {"prefill_ms_p50": 1.0, "decode_ms_per_token_p50": 2.0, "validation_loss": 3.0},
        "environment": {"intra_op_threads": 1},
        "generation": generation_plan(config),
    }
    (folder / "configuration.json").write_text(json.dumps(described))
    return Download(folder, model, config, described)


def _int32(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.int32) for name, array in arrays.items()}


@pytest.mark.parametrize("prompt", ["C", "ROBES", "THE_OLD"])
def test_each_token_is_the_likeliest_by_the_model_that_reads_the_text_at_once(text: Download, prompt: str) -> None:
    count = LENGTH - len(prompt)
    for described in (text.described, text.forward()):
        found = loader.continued(text.folder, described, prompt, count)
        tokens = [CHARACTERS.index(symbol) for symbol in found]
        assert (found[: len(prompt)], len(tokens)) == (prompt, LENGTH)
        assert text.likeliest(tokens[:-1], ())[len(prompt) - 1 :] == tokens[len(prompt) :]
        assert len(set(tokens)) > 8, "one token over and over would say little"


def test_a_source_is_answered_until_its_end(pairs: Download) -> None:
    source = torch.zeros(1, SOURCE, dtype=torch.int32)
    source[0, :4] = torch.tensor([CHARACTERS.index(symbol) + 1 for symbol in "ROBE"])
    for described in (pairs.described, pairs.forward()):
        found = loader.continued(pairs.folder, described, "ROBE", None).split()
        tokens = [1, *(CHARACTERS.index(symbol) + 3 for symbol in found)]
        likeliest = pairs.likeliest(tokens[:LENGTH], (source, (source > 0).int()))
        assert likeliest[: len(found)] == tokens[1:]
        assert len(tokens) >= LENGTH or likeliest[len(found)] == PAIR_FACTS["end_id"]
        assert len(set(tokens)) > 3


def test_the_checkout_generates_the_same(text: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = loader.continued(text.folder, text.described, "ROBES", None)
    monkeypatch.setattr(loader, "opener", lambda described: partial(CheckoutGraph, described["runtime"]))
    assert loader.continued(text.folder, text.described, "ROBES", None) == expected


def test_prompt_and_steps_are_measured_beside_what_was_reported(
    text: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "WARMUP_SECONDS", 0.0)
    monkeypatch.setattr(loader, "MEASURE_SECONDS", 0.01)
    found = loader.measured(text.folder, text.described)
    names = {"latency_ms_p50", "prefill_ms_p50", "decode_ms_per_token_p50", "validation_loss"}
    assert set(found) == {*names, "runs", "reported"}
    assert all(found[name] > 0 for name in names)
    assert found["reported"] == {**text.described["metrics"], "latency_ms_p50": None}


def test_steps_count_as_the_worker_counts_them() -> None:
    samples, counts = [[1.0, 1.5, 1.25], [4.0, 9.0, 4.5, 4.25, 5.0], [2.0]], [3, 5, 4]
    assert loader.weighted_median(samples, counts) == pytest.approx(weighted_percentiles(samples, counts)[50])


@pytest.mark.parametrize(
    ("prompt", "count", "said"),
    [
        ("", None, "--prompt is empty"),
        ("A" * LENGTH, None, f"--prompt has {LENGTH} tokens: there is room for {LENGTH - 1} and an answer"),
        ("ROBES", NEW + 1, f"--tokens is {NEW + 1}: after this prompt the engines have room for 1 to {NEW}"),
        ("lower", None, "the dataset has no 'e', 'l', 'o', 'r', 'w': write --prompt without"),
    ],
)
def test_what_cannot_be_generated_is_said(text: Download, prompt: str, count: int | None, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        loader.continued(text.folder, text.described, prompt, count)


def test_tensors_are_those_of_the_exported_graphs(text: Download, pairs: Download) -> None:
    for download in (text, pairs):
        logits = TensorSpec("logits", "float32", (BATCH, LENGTH, 32))
        for name, tensors in (("prefill", prefill_tensors), ("decode", decode_tensors)):
            graph = onnx.load(download.folder / f"{name}.onnx").graph
            signature = tensors(download.config, logits)
            assert list(signature.inputs) == [_spec(value) for value in graph.input]
            assert list(signature.outputs) == [_spec(value) for value in graph.output]


def test_readme_lists_every_tensor_and_file(text: Download) -> None:
    signature = Signature(
        (TensorSpec("tokens", "int32", (BATCH, LENGTH)),), (TensorSpec("logits", "float32", (2, 33, 32)),)
    )
    trial = DownloadedTrial("01T", "letters", "onnxruntime", "causal_lm", signature, text.config)
    said = readme(trial, FILES)
    for name in (*FILES, *_names(text, "prefill"), *_names(text, "decode")):
        assert f"`{name}`" in said
    assert "python run.py --prompt" in said
    assert "3 learned vectors lie before the tokens" in said
    read = replace(trial, task="classification", generation=None)
    assert "run.py --prompt" not in readme(read, ["run.py", "model.engine"])


def test_a_trial_whose_engines_devices_share_is_not_said_to_run(
    text: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = Signature((), (TensorSpec("logits", "float32", (2, 33, 32)),))
    said = readme(DownloadedTrial("01T", "letters", "onnxruntime", "causal_lm", signature, None), ["run.py"])
    assert "are not kept" in said
    assert "```" not in said
    (tmp_path / "configuration.json").write_text(json.dumps(text.described))
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path)])
    with pytest.raises(SystemExit):
        loader.main()
    assert "it has no model.engine" in capsys.readouterr().err


def test_every_file_that_the_service_keeps_is_described() -> None:
    assert set(artifacts.NAMES) == {*FILES, "README.md"}
    assert {f"{name}.engine" for name in step_names(BUCKETS)} <= set(FILES)


def test_the_page_about_exported_graphs_lists_the_tensors_of_both(text: Download, pairs: Download) -> None:
    """docs/exported-graphs.md, by the graphs that are exported."""
    page = (ROOT / "docs" / "exported-graphs.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| (?:in|out)put \| `(\w+)`", page, re.MULTILINE))
    found = {family(name) for each in (text, pairs) for graph in ("prefill", "decode") for name in _names(each, graph)}
    assert listed == found == set(MEANINGS)


def _names(download: Download, graph: str) -> list[str]:
    loaded = onnx.load(download.folder / f"{graph}.onnx").graph
    return [value.name for value in (*loaded.input, *loaded.output)]


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value for axis in tensor.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)
