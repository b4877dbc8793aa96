"""Are the tokens of cached engines those of the model without caches? For every kind of attention, on this device.

    python -m benchmarks.conformance.generation --runtime tensorrt [--dtype float16] [--new 64]
        [--out benchmarks/results/generation_tokens.json]

64 greedy tokens of two sequences are compared with PyTorch's, which reads the whole text again for each: in float32 all
are equal. In other formats a text is given, and the logits of each step are held against PyTorch's in float32; the
likeliest token is the same wherever PyTorch's two largest logits are further apart than the largest difference found.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.performance.engines import ask, build_engine, engine_child, load_options
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.completion import complete
from layers.declarations.inference.generation import GenerationConfig
from layers.export.generation_export import export_decode, export_prefill
from layers.export.onnx_export import cast_copy
from layers.modules.model import Decoder, build
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
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runtime", default="tensorrt")
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--new", type=int, default=64)
    arguments.add_argument("--only", nargs="*", choices=sorted(VARIANTS))
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    child = engine_child()
    target = ask(child, "describe", runtime=options.runtime)
    found: dict[str, dict[str, Any]] = {}
    for name in options.only or VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = _compared(child, options.runtime, target["opset"], Path(folder), VARIANTS[name], options)
        print(json.dumps({name: found[name]}), flush=True)
    child.close()
    report = {
        "benchmark": "generation_tokens",
        "command": "python -m benchmarks.conformance.generation " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "variants": found,
        "wrong": sorted(name for name, each in found.items() if not each["right"]),
    }
    write(report, options.out)
    print(json.dumps({"variants": len(found), "wrong": report["wrong"]}))
    return 1 if report["wrong"] else 0


def _compared(
    child: Child, runtime: str, opset: int, folder: Path, values: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    shared = {"num_layers": 2, "hidden_size": 64, "attention.num_attention_heads": 4, "dtype": options.dtype}
    length = PROMPT + options.new
    model = complete("causal_lm", {**shared, **values}, {"vocabulary_size": VOCABULARY, "sequence_length": length})
    config = GenerationConfig.of(model, {"batch_size": 2, "prompt_tokens": PROMPT, "new_tokens": options.new})
    torch.manual_seed(0)
    module = build(model, initialization="fan_in").eval()
    deployed = cast_copy(module, options.dtype)
    assert isinstance(deployed, Decoder)
    steps = {bucket.capacity: folder / f"step_{bucket.capacity}.onnx" for bucket in config.buckets}
    export_prefill(deployed, config, folder / "prefill.onnx", opset=opset)
    export_decode(deployed, config, steps, opset=opset)
    for path in (folder / "prefill.onnx", *steps.values()):
        build_engine(child, runtime, path, path.with_suffix(".engine"))
    text = torch.randint(0, VOCABULARY, (2, length - 1), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    given = _generated(child, runtime, folder, config, text.numpy())
    with torch.inference_mode():
        expected = module(text)[:, PROMPT - 1 :].numpy()
    off = parity.compare(given["logits"], expected)
    apart = np.sort(expected, axis=-1)[..., -1] - np.sort(expected, axis=-1)[..., -2]
    largest = float(np.abs(given["logits"].astype(np.float32) - expected).max())
    unequal = int(((given["tokens"] != expected.argmax(-1)) & (apart > 2 * largest)).sum())
    result = {"error": off.error, "worst": off.worst, "largest": largest, "unequal_where_apart": unequal}
    right = off.kept(parity.TOLERANCES[options.dtype]) and unequal == 0
    if options.dtype == "float32":
        tokens = _generated(child, runtime, folder, config, text[:, :PROMPT].numpy())["tokens"]
        result["greedy_equal"] = int((tokens == _greedy(module, text[:, :PROMPT], options.new)).sum())
        right = right and result["greedy_equal"] == tokens.size
    return {**result, "right": bool(right)}


def _generated(
    child: Child, runtime: str, folder: Path, config: GenerationConfig, tokens: np.ndarray
) -> dict[str, np.ndarray]:
    """Tokens and logits of the engines in a folder."""
    np.savez(folder / "text.npz", tokens=tokens)
    steps = [
        {"engine": str(folder / f"step_{bucket.capacity}.engine"), "steps": bucket.steps} for bucket in config.buckets
    ]
    ask(
        child,
        "generate",
        runtime=runtime,
        prefill=str(folder / "prefill.engine"),
        steps=steps,
        inputs=str(folder / "text.npz"),
        outputs=str(folder / "found.npz"),
        options=load_options(runtime),
    )
    with np.load(folder / "found.npz", allow_pickle=False) as found:
        return {name: found[name] for name in ("tokens", "logits")}


@torch.inference_mode()
def _greedy(module: torch.nn.Module, tokens: torch.Tensor, count: int) -> np.ndarray:
    """The likeliest tokens, the whole text read again for each."""
    prompt = tokens.shape[1]
    for _ in range(count):
        tokens = torch.cat((tokens, module(tokens)[:, -1:].argmax(-1).int()), dim=1)
    return tokens[:, prompt:].numpy()


if __name__ == "__main__":
    sys.exit(main())
