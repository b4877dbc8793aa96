"""The walk over every layer and every enumerated value: what the tests of each runtime export, build and compare.

A combination is a small model that differs from its task's base in one enumerated value (and what that value needs),
in each kind of its layer. `combinations()` are those that can be built, `refusals()` those that break a rule.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.masks import MASK_TYPES, MASKS_OF_KIND
from layers.declarations.model import APPLIES, DECLARATIONS, broken_rules
from layers.declarations.per_layer import BLOCK_PATHS
from layers.modules.model import build
from layers.parameter import Parameter, ParameterError, Scalar
from layers.signature import Signature, TensorSpec, signature

LENGTH = 12
SOURCE_LENGTH = 9
BATCH_SIZE = 2

_LENGTHS = {"sequence_length": LENGTH, "source_length": SOURCE_LENGTH}

FACTS: dict[str, dict[str, Any]] = {
    "causal_lm": {"vocabulary_size": 29, **_LENGTHS},
    "classification": {"vocabulary_size": 29, "classes": 5, **_LENGTHS},
    "seq2seq": {"vocabulary_size": 29, "source_vocabulary_size": 29, **_LENGTHS},
    "probe": {"vocabulary_size": 29, **_LENGTHS},
}
"""What each task's dataset and shapes say."""

_WIDTH: dict[str, Scalar] = {"hidden_size": 32}
_BLOCK: dict[str, Scalar] = {**_WIDTH, "attention.num_attention_heads": 4}
_STACK: dict[str, Scalar] = {**_BLOCK, "num_layers": 1}

BASES: dict[str, dict[str, Scalar]] = {
    "decoder": _STACK,
    "encoder": _STACK,
    "encoder_decoder": _STACK,
    "block": _BLOCK,
    "attention": _BLOCK,
    "mlp": _WIDTH,
    "linear": {"linear.in_features": 32, "linear.out_features": 48},
    "norm": _WIDTH,
    "embedding": _WIDTH,
}
"""Of each kind of model, the least that it needs."""

WALKED: dict[str, tuple[str, ...]] = {
    "decoder": ("", "attention", "mlp", "norm", "embedding"),
    "encoder": ("", "attention", "embedding"),
    "encoder_decoder": ("", "attention", "embedding"),
    "block": ("", "attention"),
    "attention": ("attention",),
    "mlp": ("mlp",),
    "linear": ("linear",),
    "norm": ("norm",),
    "embedding": ("embedding",),
}
"""The sections whose values are walked in a kind: every layer alone and in a decoder, attention wherever it differs."""

_APART = ("attention.num_attention_heads", "attention.attention_mask_type", "attention.position_embedding_type")

LAYERS_APART: dict[str, tuple[str, ...]] = {"decoder": BLOCK_PATHS, "encoder": _APART, "encoder_decoder": _APART}
"""Parameters in which the layers of a kind differ, one after the other."""

HELPS: dict[tuple[str, Scalar], dict[str, Scalar]] = {
    ("norm.kind", "GroupNorm"): {"norm.num_groups": 4},
    ("embedding.kind", "PromptTuningEmbedding"): {"embedding.prompt_length": 9},
    ("attention.cross_attention", True): {"attention.attention_mask_type": "bidirectional"},
    ("attention.relative_table_per_layer", True): {"num_layers": 2},
}
"""What a value needs beside it in so small a model."""

NOT_WALKED = ("kind", "dtype", "quantization", "linear.gather_output")
"""The model's kind is the base's; number formats are the walk's own argument; quantization is of the exported graph, by
test_quantization.py; what concerns several devices alone is walked by test_tensor_parallel.py."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One model of the walk. `values` are what a document would give."""

    id: str
    task: str
    values: Mapping[str, Scalar]

    def completed(self, dtype: str = "float32") -> dict[str, Scalar]:
        """The model with its defaults, in a number format. Raises ParameterError where it is refused at completion."""
        return complete(self.task, {"dtype": dtype, **self.values}, FACTS[self.task])

    def signature(self) -> Signature:
        """What the completed model takes and gives at the walk's shape."""
        return signature(self.task, self.completed(), BATCH_SIZE, LENGTH, SOURCE_LENGTH)


def mixtures() -> list[Combination]:
    """Every kind of layer in each number format in a model of another: for runtimes that mix them.

    The values name the model's own format, whatever a walk asks for.
    """
    found: list[Combination] = []
    for kind in ("decoder", "encoder_decoder", "mlp", "linear", "norm", "embedding"):
        for path in (each for each in DECLARATIONS if each.endswith(".dtype") and KINDS[kind].has(each)):
            for whole, own in itertools.permutations(("float32", "float16", "bfloat16"), 2):
                changes: dict[str, Scalar] = {"dtype": whole, path: own}
                found.append(
                    Combination(_id(kind, changes), KINDS[kind].task, {**BASES[kind], "kind": kind, **changes})
                )
    return found


def combinations() -> list[Combination]:
    """Every combination that can be built, each once."""
    return [each for each in _all() if refusal(each) is None]


def refusals() -> list[tuple[Combination, str]]:
    """Every combination that cannot be built, with the reason."""
    return [(each, reason) for each in _all() if (reason := refusal(each)) is not None]


def refusal(combination: Combination) -> str | None:
    """Why a combination cannot be built; None where it can."""
    try:
        violations = broken_rules(combination.completed())
    except ParameterError as error:
        return str(error)
    return violations[0].message if violations else None


def _all() -> Iterator[Combination]:
    seen: set[frozenset[tuple[str, Scalar]]] = set()
    for kind, base in BASES.items():
        task = KINDS[kind].task
        for changes in ({}, *_changes(kind)):
            values = {**base, "kind": kind, **changes}
            if kind == "embedding" and "embedding.prompt_length" in changes:
                values |= {"embedding.num_tasks": 2, "embedding.vocab_size": 20}
            key = frozenset(_completed_or_given(task, values).items())
            if key not in seen:
                seen.add(key)
                yield Combination(_id(kind, changes), task, values)


def _completed_or_given(task: str, values: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """The completed model, so that two spellings of one are the same; what was given where it is refused."""
    try:
        return complete(task, values, FACTS[task])
    except ParameterError:
        return values


DIFFERENT: dict[str, Scalar] = {
    "attention.num_attention_heads": 2,
    "attention.num_kv_heads": 2,
    "attention.attention_head_size": 12,
    "attention.max_attention_window_size": 3,
    "attention.num_buckets": 8,
    "attention.max_distance": 20,
    "attention.rotary_embedding_base": 100.0,
    "attention.rotary_embedding_percentage": 0.5,
    "attention.rotary_embedding_scale": 2.0,
    "attention.original_max_position_embeddings": 4,
    "attention.rotary_embedding_low_freq_factor": 2.0,
    "attention.rotary_embedding_high_freq_factor": 8.0,
    "attention.rotary_embedding_beta_fast": 16.0,
    "attention.rotary_embedding_beta_slow": 2.0,
    "attention.q_scaling": 0.5,
    "attention.qk_norm_eps": 1e-3,
    "attention.softcap": 2.0,
    "shared_norm": True,
    "mlp.ffn_hidden_size": 48,
    "norm.eps": 1e-3,
    "norm.num_groups": 2,
    "norm.bias": False,
}
"""What the second layer has of what may differ from layer to layer, where it is no enumerated value but the default."""


def _layers_apart(model_kind: str) -> Iterator[dict[str, Scalar]]:
    """Two layers, the second of which differs in one parameter: in an enumerated value or a number of DIFFERENT."""
    for path in LAYERS_APART.get(model_kind, ()):
        if path.endswith((".tp_size", ".dtype")):
            continue
        parameter = DECLARATIONS[path]
        value = (
            DIFFERENT[path] if path in DIFFERENT else next(v for v in enumerated(parameter) if v != parameter.default)
        )
        if path == "attention.attention_mask_type":
            value = {"encoder": "sliding_window"}.get(model_kind, "sliding_window_causal")
        needed = needs_of(path, model_kind)
        own = {name: given for name, given in HELPS.get((path, value), {}).items() if name in BLOCK_PATHS}
        helps = {f"layers.1.{name}": given for name, given in own.items()}
        yield {"num_layers": 2, **needed, **helps, f"layers.1.{path}": value}


def needs_of(path: str, kind: str = "") -> dict[str, Scalar]:
    """What a parameter applies under, and what that applies under in turn; of a mask, one that the kind may have."""
    condition = APPLIES.get(path)
    if condition is None:
        return {}
    masks = MASKS_OF_KIND.get(kind, MASK_TYPES)
    fitting = [value for value in condition.values if value not in MASK_TYPES or value in masks]
    return {**needs_of(condition.path, kind), condition.path: fitting[0]}


def _changes(model_kind: str) -> Iterator[dict[str, Scalar]]:
    """One enumerated value in one kind of its layer, and what it needs."""
    yield from _layers_apart(model_kind)
    yield from _numbers(model_kind)
    for path, parameter in DECLARATIONS.items():
        section = path.rpartition(".")[0]
        walked = section in WALKED[model_kind] and KINDS[model_kind].has(path)
        if not walked or path in NOT_WALKED or path.endswith(".dtype"):
            continue
        kinds = DECLARATIONS[f"{section}.kind"].choices if f"{section}.kind" in DECLARATIONS else (None,)
        for value in enumerated(parameter):
            for kind in kinds:
                changes: dict[str, Scalar] = {} if kind is None else {f"{section}.kind": kind}
                if path == f"{section}.kind" and kind != value:
                    continue
                yield from _with_needs({**changes, path: value}, {"kind": model_kind})


NUMBERS: dict[str, dict[str, Scalar]] = {
    "residual_scale": {"residual_scale": 0.5},
    "embedding_scale": {"embedding_scale": 2.0},
    "logits_scale": {"logits_scale": 0.5},
    "logits_softcap": {"logits_softcap": 2.0},
    "layers_sharing_weights": {"layers_sharing_weights": 2, "num_layers": 4, "num_encoder_layers": 2},
}
"""Numbers of a whole model that change what an engine computes beside its sizes, with what they need."""


def _numbers(model_kind: str) -> Iterator[dict[str, Scalar]]:
    for path, changes in NUMBERS.items():
        if KINDS[model_kind].has(path):
            yield {name: value for name, value in changes.items() if KINDS[model_kind].has(name)}


def enumerated(parameter: Parameter) -> tuple[Scalar, ...]:
    """The values of a parameter that has a list of them."""
    return (True, False) if parameter.type == "boolean" else parameter.choices


def _with_needs(changes: dict[str, Scalar], given: Mapping[str, Scalar]) -> Iterator[dict[str, Scalar]]:
    """The changes with what they apply under; nothing where that contradicts them or what is given."""
    needed = dict(changes)
    for path, value in changes.items():
        needed = {**HELPS.get((path, value), {}), **needed}
        condition = APPLIES.get(path)
        if condition is not None and {**needed, **given}.get(condition.path) not in condition.values:
            if condition.path in {**changes, **given}:
                return
            needed |= needs_of(path, str(given.get("kind", "")))
    yield needed


def _id(kind: str, changes: Mapping[str, Scalar]) -> str:
    return f"{kind}/" + (",".join(f"{path}={value}" for path, value in changes.items()) or "base")


def lively(model: Mapping[str, Scalar]) -> nn.Module:
    """A module whose weights are so large that every part of it matters."""
    torch.manual_seed(0)
    module = build(model).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.15).add_(1.0 if parameter.dim() == 1 else 0.0)
    return module


def drawn(spec: TensorSpec) -> Tensor:
    """An input that a signature asks for: tokens of the vocabulary, masks that hide some, ordinary numbers."""
    generator = torch.Generator().manual_seed(1)
    if spec.dtype == "float32":
        return torch.randn(spec.shape, generator=generator)
    if spec.name in ("token_mask", "source_mask"):
        return (torch.arange(spec.shape[-1]) < spec.shape[-1] - 3).int().expand(spec.shape).contiguous()
    if spec.name == "attention_mask":
        seen = torch.randint(0, 2, spec.shape, generator=generator, dtype=torch.int32)
        return seen | torch.eye(spec.shape[-2], spec.shape[-1], dtype=torch.int32)
    highest = 2 if spec.name == "tasks" else 29
    return torch.randint(0, highest, spec.shape, generator=generator, dtype=torch.int32)
