"""Are the tokens of cached engines those of the model without caches? For every kind of attention, on this device.

    python -m benchmarks.conformance.generation --runtime tensorrt [--dtype float16] [--new 64]
        [--seconds 240] [--out benchmarks/results/generation_tokens.json]

64 greedy tokens of two sequences are compared with PyTorch's, which reads the whole text again for each: in float32 all
are equal. In other formats a text is given, and the logits of each step are held against PyTorch's in float32; the
likeliest token is the same wherever PyTorch's two largest logits are further apart than the largest difference found.

After --seconds no further variant begins; those that were not tried are named.

With --build-only nothing runs: the graphs of the prompt and of each capacity are built, by a runtime that needs no GPU
for it (tensorrt_rtx).
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.performance.engines import ask, build_engine, engine_child, load_options
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.completion import complete
from layers.dataset_facts import ModelFacts
from layers.declarations.inference.generation import GenerationConfig
from layers.export.generation_export import export_decode, export_prefill
from layers.export.onnx_export import cast_copy
from layers.modules.generation import GenerativeModel
from layers.modules.model import build
from workers.processes.child import Child
from workers.trial import parity

VOCABULARY, PROMPT = 256, 16
SLIDING = {"attention.attention_mask_type": "sliding_window_causal"}

VARIANTS: dict[str, dict[str, Any]] = {
    "learned_absolute": {},
    **{
        name: {"attention.position_embedding_type": name}
        for name in ("rope_gpt_neox", "rope_gptj", "alibi", "relative")
    },
    "alibi_with_scale, 1 key head": {
        "attention.position_embedding_type": "alibi_with_scale",
        "attention.num_kv_heads": 1,
    },
    "none, 2 key heads": {"attention.position_embedding_type": "none", "attention.num_kv_heads": 2},
    **{
        f"rope {scale}": {
            "attention.position_embedding_type": "rope_gpt_neox",
            "attention.rotary_embedding_scale_type": scale,
            "attention.rotary_embedding_scale": 4.0,
        }
        for scale in ("linear", "llama3", "yarn")
    },
    "window of 8": {**SLIDING, "attention.max_attention_window_size": 8},
    "windows that differ": {**SLIDING, "layers.0.attention.max_attention_window_size": 5},
    "relative, window of 8": {
        **SLIDING,
        "attention.max_attention_window_size": 8,
        "attention.position_embedding_type": "relative",
    },
    "normalized, capped": {"attention.qk_norm": "RmsNorm", "attention.softcap": 20.0},
    "normalized width": {"attention.qk_norm": "LayerNorm", "attention.qk_norm_scope": "width"},
    "side by side": {"residual": "parallel"},
    "learned prompt": {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 5},
    "layers that differ": {
        **SLIDING,
        "attention.max_attention_window_size": 8,
        "attention.position_embedding_type": "rope_gpt_neox",
        "layers.1.attention.attention_mask_type": "causal",
        "layers.1.attention.position_embedding_type": "relative",
        "layers.1.attention.num_kv_heads": 1,
    },
}
"""Of a causal_lm."""

SOURCE = 12

FROM_SOURCE: dict[str, dict[str, Any]] = {
    "seq2seq": {},
    **{
        f"seq2seq, {name}": {"attention.position_embedding_type": name, "attention.num_kv_heads": 2}
        for name in ("rope_gpt_neox", "alibi", "relative")
    },
    "seq2seq, window of 8": {**SLIDING, "attention.max_attention_window_size": 8, "attention.num_kv_heads": 1},
    "seq2seq, normalized, capped": {"attention.qk_norm": "RmsNorm", "attention.softcap": 20.0},
    "seq2seq, normalized width": {"attention.qk_norm": "LayerNorm", "attention.qk_norm_scope": "width"},
    "seq2seq, learned prompt": {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 5},
}
"""Of a seq2seq, whose source is encoded once."""

EVERY = {**VARIANTS, **FROM_SOURCE}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--new", type=int, default=64)
    arguments.add_argument("--only", nargs="*", choices=sorted(EVERY))
    arguments.add_argument("--build-only", action="store_true")
    arguments.add_argument("--seconds", type=float, default=math.inf)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    child = engine_child()
    target = ask(child, "describe", runtime=options.runtime)
    found: dict[str, dict[str, Any]] = {}
    chosen, until = list(options.only or EVERY), time.monotonic() + options.seconds
    for name in chosen:
        if time.monotonic() > until:
            break
        with tempfile.TemporaryDirectory() as folder:
            variant = _made(name, options)
            engines = _Engines.built(child, options.runtime, target["opset"], Path(folder), variant, options.dtype)
            found[name] = engines.sizes() if options.build_only else _compared(engines, variant, options)
        print(json.dumps({name: found[name]}), flush=True)
        write(_report(options, target, chosen, found), options.out)
    child.close()
    wrong = [name for name, each in found.items() if not each["right"]]
    print(json.dumps({"variants": len(found), "not_tried": chosen[len(found) :], "wrong": wrong}))
    return 1 if wrong else 0


def _report(
    options: argparse.Namespace,
    target: Mapping[str, Any],
    chosen: Sequence[str],
    found: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What was found until now."""
    return {
        "benchmark": "generation_builds" if options.build_only else "generation_tokens",
        "command": "python -m benchmarks.conformance.generation " + shlex.join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "variants": found,
        "not_tried": chosen[len(found) :],
        "wrong": sorted(name for name, each in found.items() if not each["right"]),
    }


@dataclass(frozen=True, slots=True)
class _Variant:
    """A model with random weights, and what it reads beside its tokens."""

    module: GenerativeModel
    config: GenerationConfig
    source: Mapping[str, torch.Tensor]

    @torch.inference_mode()
    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.module(*self.source.values(), tokens)

    def greedy(self, tokens: torch.Tensor, count: int) -> np.ndarray:
        """The likeliest tokens, the whole text read again for each."""
        prompt = tokens.shape[1]
        for _ in range(count):
            tokens = torch.cat((tokens, self.logits(tokens)[:, -1:].argmax(-1).int()), dim=1)
        return tokens[:, prompt:].numpy()


def _made(name: str, options: argparse.Namespace) -> _Variant:
    shared = {"num_layers": 2, "hidden_size": 64, "attention.num_attention_heads": 4, "dtype": options.dtype}
    facts: ModelFacts = {"vocabulary_size": VOCABULARY, "sequence_length": PROMPT + options.new}
    source: dict[str, torch.Tensor] = {}
    if name in FROM_SOURCE:
        facts |= {"source_vocabulary_size": VOCABULARY, "source_length": SOURCE}
        generator = torch.Generator().manual_seed(1)
        source["source"] = torch.randint(0, VOCABULARY, (2, SOURCE), dtype=torch.int32, generator=generator)
        source["source_mask"] = (torch.arange(SOURCE) < torch.tensor([[SOURCE], [SOURCE - 4]])).int()
    model = complete("seq2seq" if source else "causal_lm", {**shared, **EVERY[name]}, facts)
    lengths = {"prompt_tokens": PROMPT, "new_tokens": options.new, "source_length": SOURCE}
    torch.manual_seed(0)
    module = build(model, initialization="fan_in").eval()
    assert isinstance(module, GenerativeModel)
    return _Variant(module, GenerationConfig.of(model, {"batch_size": 2, **lengths}), source)


@dataclass(frozen=True, slots=True)
class _Engines:
    """The engines of a variant, in a folder."""

    child: Child
    runtime: str
    folder: Path
    said: Mapping[str, Mapping[str, Any]]
    """What the build of each said."""

    @classmethod
    def built(cls, child: Child, runtime: str, opset: int, folder: Path, variant: _Variant, dtype: str) -> _Engines:
        deployed, config = cast_copy(variant.module, dtype), variant.config
        assert isinstance(deployed, GenerativeModel)
        steps = {bucket.capacity: folder / f"step_{bucket.capacity}.onnx" for bucket in config.buckets}
        export_prefill(deployed, config, folder / "prefill.onnx", opset=opset)
        export_decode(deployed, config, steps, opset=opset)
        paths = (folder / "prefill.onnx", *steps.values())
        said = {path.stem: build_engine(child, runtime, path, path.with_suffix(".engine")) for path in paths}
        return cls(child, runtime, folder, said)

    def sizes(self) -> dict[str, Any]:
        return {"engine_bytes": {name: said["engine_bytes"] for name, said in self.said.items()}, "right": True}

    def generated(self, variant: _Variant, tokens: torch.Tensor) -> dict[str, np.ndarray]:
        """Tokens and logits of a text."""
        read = {**variant.source, "tokens": tokens}
        np.savez(self.folder / "text.npz", allow_pickle=False, **{name: each.numpy() for name, each in read.items()})
        ask(
            self.child,
            "generate",
            runtime=self.runtime,
            prefill=str(self.folder / "prefill.engine"),
            steps=[
                {"engine": str(self.folder / f"step_{bucket.capacity}.engine"), "steps": bucket.steps}
                for bucket in variant.config.buckets
            ],
            inputs=str(self.folder / "text.npz"),
            outputs=str(self.folder / "found.npz"),
            options=load_options(self.runtime),
        )
        with np.load(self.folder / "found.npz", allow_pickle=False) as found:
            return {name: found[name] for name in ("tokens", "logits")}


def _compared(engines: _Engines, variant: _Variant, options: argparse.Namespace) -> dict[str, Any]:
    shape = (2, PROMPT + options.new - 1)
    text = torch.randint(0, VOCABULARY, shape, dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    given = engines.generated(variant, text)
    expected = variant.logits(text)[:, PROMPT - 1 :].numpy()
    off = parity.compare(given["logits"], expected)
    apart = np.sort(expected, axis=-1)[..., -1] - np.sort(expected, axis=-1)[..., -2]
    largest = float(np.abs(given["logits"].astype(np.float32) - expected).max())
    unequal = int(((given["tokens"] != expected.argmax(-1)) & (apart > 2 * largest)).sum())
    result = {"error": off.error, "worst": off.worst, "largest": largest, "unequal_where_apart": unequal}
    right = off.kept(parity.TOLERANCES[options.dtype]) and unequal == 0
    if options.dtype == "float32":
        tokens = engines.generated(variant, text[:, :PROMPT])["tokens"]
        greedy = variant.greedy(text[:, :PROMPT], options.new)
        result["greedy_equal"] = int((tokens == greedy).sum())
        result["distinct_tokens"] = len(np.unique(greedy))
        right = right and result["greedy_equal"] == tokens.size
    return {**result, "right": bool(right)}


if __name__ == "__main__":
    sys.exit(main())
