"""Published configurations, each with its source.

A preset gives values by flat names, as a start does: model parameters bare (`hidden_size`, `mlp.kind`), others with
their section (`training.steps`, `inference.sequence_length`). Sizes of vocabularies and the number of classes always
come from the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from layers.declarations.kinds import KINDS
from layers.parameter import Scalar
from layers.sections import DocumentSections, document_sections


class PresetDocument(DocumentSections):
    """The parts of a sweep document that a preset sets."""

    task: str


@dataclass(frozen=True, slots=True)
class Preset:
    """One published configuration. What it does not name has the declarations' defaults."""

    name: str
    title: str
    source: str
    url: str
    values: Mapping[str, Scalar]

    @property
    def task(self) -> str:
        """The task that its kind of model is for."""
        return KINDS[str(self.values["kind"])].task

    def document(self) -> PresetDocument:
        """The parts of a sweep document that it sets."""
        return {"task": self.task, **document_sections(self.values)}


_NANOGPT_MODEL: dict[str, Scalar] = {
    "kind": "decoder",
    "norm_position": "pre",
    "tie_embeddings": True,
    "attention.position_embedding_type": "learned_absolute",
    "attention.bias": False,
    "mlp.kind": "MLP",
    "mlp.hidden_act": "gelu",
    "mlp.bias": False,
    "norm.kind": "LayerNorm",
    "norm.eps": 1e-5,
    "norm.bias": False,
}

_NANOGPT_TRAINING: dict[str, Scalar] = {
    "training.learning_rate": 1e-3,
    "training.min_learning_rate": 1e-4,
    "training.warmup_steps": 100,
    "training.beta1": 0.9,
    "training.beta2": 0.99,
    "training.weight_decay": 0.1,
    "training.gradient_clip": 1.0,
    "training.eval_every": 250,
}

_LLAMA_MODEL: dict[str, Scalar] = {
    "kind": "decoder",
    "norm_position": "pre",
    "attention.position_embedding_type": "rope_gpt_neox",
    "attention.bias": False,
    "mlp.kind": "GatedMLP",
    "mlp.hidden_act": "silu",
    "mlp.bias": False,
    "norm.kind": "RmsNorm",
}

_BERT_MODEL: dict[str, Scalar] = {
    "kind": "encoder",
    "norm_position": "post",
    "has_embedding_layernorm": True,
    "pooling": "pooler",
    "attention.attention_mask_type": "padding",
    "attention.position_embedding_type": "learned_absolute",
    "attention.max_position_embeddings": 512,
    "attention.bias": True,
    "mlp.kind": "MLP",
    "mlp.hidden_act": "gelu",
    "mlp.bias": True,
    "norm.kind": "LayerNorm",
    "norm.eps": 1e-12,
}
"""All tokens are of one type: the vector that BERT adds for it is part of the positions' table."""


def _bert(size: str, num_layers: int, num_attention_heads: int, hidden_size: int) -> Preset:
    url = f"https://huggingface.co/google/bert_uncased_L-{num_layers}_H-{hidden_size}_A-{num_attention_heads}"
    return Preset(
        name=f"bert-{size}",
        title=f"BERT {size} (with a vocabulary of 30,522 word pieces there)",
        source="Turc et al. 2019, arXiv 1908.08962; Devlin et al. 2018, arXiv 1810.04805",
        url=url,
        values={
            "num_layers": num_layers,
            "hidden_size": hidden_size,
            "attention.num_attention_heads": num_attention_heads,
            "mlp.ffn_hidden_size": 4 * hidden_size,
            **_BERT_MODEL,
        },
    )


def _each(layers: Iterable[int], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The same values of single layers."""
    return {f"layers.{layer}.{path}": value for layer in layers for path, value in values.items()}


_ALL = (
    Preset(
        name="nanogpt-char",
        title="nanoGPT, characters of Shakespeare, on a GPU (its validation loss there: 1.4697)",
        source="karpathy/nanoGPT, config/train_shakespeare_char.py and README",
        url="https://github.com/karpathy/nanoGPT",
        values={
            "num_layers": 6,
            "hidden_size": 384,
            "attention.num_attention_heads": 6,
            "mlp.ffn_hidden_size": 1536,
            **_NANOGPT_MODEL,
            "training.steps": 5000,
            "training.batch_size": 64,
            "training.sequence_length": 256,
            "training.dropout": 0.2,
            **_NANOGPT_TRAINING,
            "inference.sequence_length": 256,
        },
    ),
    Preset(
        name="nanogpt-char-cpu",
        title="nanoGPT, characters of Shakespeare, on a CPU (its validation loss there: 1.88)",
        source="karpathy/nanoGPT, README",
        url="https://github.com/karpathy/nanoGPT",
        values={
            "num_layers": 4,
            "hidden_size": 128,
            "attention.num_attention_heads": 4,
            "mlp.ffn_hidden_size": 512,
            **_NANOGPT_MODEL,
            "training.steps": 2000,
            "training.batch_size": 12,
            "training.sequence_length": 64,
            "training.dropout": 0.0,
            **_NANOGPT_TRAINING,
            "inference.sequence_length": 64,
        },
    ),
    Preset(
        name="gpt2-small",
        title="GPT-2 small (124 M parameters with its vocabulary of 50,257)",
        source="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
        url="https://huggingface.co/openai-community/gpt2",
        values={
            "kind": "decoder",
            "num_layers": 12,
            "hidden_size": 768,
            "norm_position": "pre",
            "tie_embeddings": True,
            "attention.num_attention_heads": 12,
            "attention.position_embedding_type": "learned_absolute",
            "attention.max_position_embeddings": 1024,
            "attention.bias": True,
            "mlp.kind": "MLP",
            "mlp.ffn_hidden_size": 3072,
            "mlp.hidden_act": "gelu_new",
            "mlp.bias": True,
            "norm.kind": "LayerNorm",
            "norm.eps": 1e-5,
        },
    ),
    Preset(
        name="t5-small",
        title="T5 small (60.5 M parameters with its vocabulary of 32,128 for source and target)",
        source="Raffel et al. 2020, arXiv 1910.10683",
        url="https://huggingface.co/google-t5/t5-small",
        values={
            "kind": "encoder_decoder",
            "num_layers": 6,
            "num_encoder_layers": 6,
            "hidden_size": 512,
            "norm_position": "pre",
            "tie_embeddings": True,
            "rescale_before_lm_head": True,
            "share_source_embedding": True,
            "attention.num_attention_heads": 8,
            "attention.attention_head_size": 64,
            "attention.position_embedding_type": "relative",
            "attention.num_buckets": 32,
            "attention.max_distance": 128,
            # T5 does not divide scores by the root of the head size, 8.
            "attention.q_scaling": 0.125,
            "attention.bias": False,
            "mlp.kind": "MLP",
            "mlp.ffn_hidden_size": 2048,
            "mlp.hidden_act": "relu",
            "mlp.bias": False,
            "norm.kind": "RmsNorm",
            "norm.eps": 1e-6,
        },
    ),
    _bert("tiny", 2, 2, 128),
    _bert("mini", 4, 4, 256),
    _bert("small", 4, 8, 512),
    _bert("medium", 8, 8, 512),
    Preset(
        name="llama-ratio",
        title="Llama's ratios (heads of 128, feed-forward 8/3 of the width rounded up to 256) at 8 layers of width 512",
        source="Touvron et al. 2023, arXiv 2302.13971; depth and width are Layersweep's choice",
        url="https://arxiv.org/abs/2302.13971",
        values={
            "num_layers": 8,
            "hidden_size": 512,
            "tie_embeddings": False,
            "attention.num_attention_heads": 4,
            "mlp.ffn_hidden_size": 1536,
            **_LLAMA_MODEL,
            "attention.rotary_embedding_base": 10_000.0,
            "norm.eps": 1e-6,
        },
    ),
    Preset(
        name="smollm2-135m",
        title="SmolLM2 135M (with its vocabulary of 49,152)",
        source="SmolLM2 model card; Ben Allal et al. 2025, arXiv 2502.02737",
        url="https://huggingface.co/HuggingFaceTB/SmolLM2-135M",
        values={
            "num_layers": 30,
            "hidden_size": 576,
            "tie_embeddings": True,
            "attention.num_attention_heads": 9,
            "attention.num_kv_heads": 3,
            "mlp.ffn_hidden_size": 1536,
            **_LLAMA_MODEL,
            "attention.rotary_embedding_base": 100_000.0,
            "norm.eps": 1e-5,
        },
    ),
    Preset(
        name="mobilellm-125m",
        title="MobileLLM 125M (with its vocabulary of 32,000)",
        source="Liu et al. 2024, arXiv 2402.14905",
        url="https://arxiv.org/abs/2402.14905",
        values={
            "num_layers": 30,
            "hidden_size": 576,
            "tie_embeddings": True,
            "attention.num_attention_heads": 9,
            "attention.num_kv_heads": 3,
            "mlp.ffn_hidden_size": 1536,
            **_LLAMA_MODEL,
            "norm.eps": 1e-5,
        },
    ),
    Preset(
        name="mobilellm-350m",
        title="MobileLLM 350M (with its vocabulary of 32,000)",
        source="Liu et al. 2024, arXiv 2402.14905",
        url="https://arxiv.org/abs/2402.14905",
        values={
            "num_layers": 32,
            "hidden_size": 960,
            "tie_embeddings": True,
            "attention.num_attention_heads": 15,
            "attention.num_kv_heads": 5,
            "mlp.ffn_hidden_size": 2560,
            **_LLAMA_MODEL,
            "norm.eps": 1e-5,
        },
    ),
    Preset(
        name="pythia-70m",
        title="Pythia 70M (with its vocabulary of 50,304)",
        source="Biderman et al. 2023, arXiv 2304.01373",
        url="https://huggingface.co/EleutherAI/pythia-70m",
        values={
            "kind": "decoder",
            "num_layers": 6,
            "hidden_size": 512,
            "norm_position": "pre",
            "residual": "parallel",
            "tie_embeddings": False,
            "attention.num_attention_heads": 8,
            "attention.position_embedding_type": "rope_gpt_neox",
            "attention.rotary_embedding_percentage": 0.25,
            "attention.bias": True,
            "mlp.kind": "MLP",
            "mlp.ffn_hidden_size": 2048,
            "mlp.hidden_act": "gelu",
            "mlp.bias": True,
            "norm.kind": "LayerNorm",
            "norm.eps": 1e-5,
        },
    ),
    Preset(
        name="llama-3.2-1b",
        title="Llama 3.2 1B (with its vocabulary of 128,256)",
        source="Grattafiori et al. 2024, arXiv 2407.21783; Llama 3.2 model card",
        url="https://huggingface.co/meta-llama/Llama-3.2-1B",
        values={
            "num_layers": 16,
            "hidden_size": 2048,
            "tie_embeddings": True,
            "attention.num_attention_heads": 32,
            "attention.num_kv_heads": 8,
            "mlp.ffn_hidden_size": 8192,
            **_LLAMA_MODEL,
            "attention.rotary_embedding_base": 500_000.0,
            "attention.rotary_embedding_scale_type": "llama3",
            "attention.rotary_embedding_scale": 32.0,
            "attention.rotary_embedding_low_freq_factor": 1.0,
            "attention.rotary_embedding_high_freq_factor": 4.0,
            "attention.original_max_position_embeddings": 8192,
            "norm.eps": 1e-5,
        },
    ),
    Preset(
        name="qwen3-0.6b",
        title="Qwen3 0.6B (with its vocabulary of 151,936)",
        source="Yang et al. 2025, arXiv 2505.09388",
        url="https://huggingface.co/Qwen/Qwen3-0.6B",
        values={
            "num_layers": 28,
            "hidden_size": 1024,
            "tie_embeddings": True,
            "attention.num_attention_heads": 16,
            "attention.num_kv_heads": 8,
            "attention.attention_head_size": 128,
            "mlp.ffn_hidden_size": 3072,
            **_LLAMA_MODEL,
            "attention.rotary_embedding_base": 1_000_000.0,
            "attention.qk_norm": "RmsNorm",
            "norm.eps": 1e-6,
        },
    ),
    Preset(
        name="gemma-3-270m",
        title="Gemma 3 270M (with its vocabulary of 262,144)",
        source="Gemma Team 2025, arXiv 2503.19786; Gemma 3 270M model card",
        url="https://huggingface.co/google/gemma-3-270m",
        values={
            "num_layers": 18,
            "hidden_size": 640,
            "tie_embeddings": True,
            "embedding_scale": 640**0.5,
            "attention.num_attention_heads": 4,
            "attention.num_kv_heads": 1,
            "attention.attention_head_size": 256,
            "mlp.ffn_hidden_size": 2048,
            **_LLAMA_MODEL,
            "norm_position": "sandwich",
            "attention.attention_mask_type": "causal",
            "attention.rotary_embedding_base": 1_000_000.0,
            "attention.qk_norm": "RmsNorm",
            "mlp.hidden_act": "gelu_pytorch_tanh",
            "norm.eps": 1e-6,
            # Five layers of a window, then one that sees everything.
            **_each(
                (layer for layer in range(18) if (layer + 1) % 6),
                {
                    "attention.attention_mask_type": "sliding_window_causal",
                    "attention.max_attention_window_size": 512,
                    "attention.rotary_embedding_base": 10_000.0,
                },
            ),
        },
    ),
    Preset(
        name="smollm3-3b",
        title="SmolLM3 3B (with its vocabulary of 128,256)",
        source="SmolLM3 model card; layers without positions: Yang et al. 2025, arXiv 2501.18795",
        url="https://huggingface.co/HuggingFaceTB/SmolLM3-3B",
        values={
            "num_layers": 36,
            "hidden_size": 2048,
            "tie_embeddings": True,
            "attention.num_attention_heads": 16,
            "attention.num_kv_heads": 4,
            "mlp.ffn_hidden_size": 11_008,
            **_LLAMA_MODEL,
            "attention.rotary_embedding_base": 5_000_000.0,
            "norm.eps": 1e-6,
            **_each(range(3, 36, 4), {"attention.position_embedding_type": "none"}),
        },
    ),
    Preset(
        name="olmo-2-1b",
        title="OLMo 2 1B (with its vocabulary of 100,352)",
        source="OLMo et al. 2024, arXiv 2501.00656",
        url="https://huggingface.co/allenai/OLMo-2-0425-1B",
        values={
            "num_layers": 16,
            "hidden_size": 2048,
            "tie_embeddings": False,
            "attention.num_attention_heads": 16,
            "mlp.ffn_hidden_size": 8192,
            **_LLAMA_MODEL,
            "norm_position": "branch",
            "attention.rotary_embedding_base": 500_000.0,
            "attention.qk_norm": "RmsNorm",
            "attention.qk_norm_scope": "width",
            "norm.eps": 1e-6,
        },
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
