"""The model: its own parameters and every section's, their completion and rules, and what is known without building it.

Paths are flat below `model`: `hidden_size`, `attention.num_attention_heads`, `mlp.kind`, ... No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from layers import attention, embedding, mlp, normalization
from layers.attention import AttentionConfig
from layers.base import REQUIRED, Parameter, ParameterError, Scalar
from layers.embedding import EmbeddingConfig
from layers.linear import LinearConfig
from layers.mlp import MlpConfig
from layers.normalization import NormConfig
from layers.rules import Condition, Violation

__all__ = [
    "APPLIES",
    "DECLARATIONS",
    "DTYPE_BYTES",
    "TASKS",
    "ModelConfig",
    "Violation",
    "broken_rules",
    "complete",
    "flops",
    "parameter_count",
    "unsupported",
]

TASKS = ("causal_lm",)
"""Tasks that models are built for; classification, seq2seq and probe come later and are refused by name."""

DTYPE_BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
LOWEST_OPSET = 17
"""LayerNormalization is an operator from opset 17 on."""

PARAMETERS: dict[str, Parameter] = {
    "kind": Parameter(
        type="string",
        choices=("decoder",),
        default="decoder",
        meaning="decoder: a stack of causal blocks that predicts the next token",
        source="Radford et al. 2019",
    ),
    "num_layers": Parameter(
        type="integer",
        minimum=1,
        maximum=1000,
        meaning="blocks of attention and feed-forward",
        source=(
            "Vaswani et al. 2017, arXiv 1706.03762; deep and thin below 1 B parameters: Liu et al. 2024, arXiv "
            "2402.14905"
        ),
        search={"min": 2, "max": 12},
    ),
    "hidden_size": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        meaning="width: channels of a token between blocks",
        source="multiples of 64 keep tensor cores busy: Anthony et al. 2024, arXiv 2401.14489",
        search={"values": [128, 256, 384, 512, 768]},
    ),
    "norm_position": Parameter(
        type="string",
        choices=("pre", "post"),
        default="pre",
        meaning=(
            "pre: normalize what enters attention and feed-forward, and once at the end; post: normalize after "
            "each is added"
        ),
        source="Xiong et al. 2020, arXiv 2002.04745",
        search={"values": ["pre", "post"]},
    ),
    "tie_embeddings": Parameter(
        type="boolean",
        default=True,
        meaning="the head that makes logits shares the embedding's table",
        source="Press & Wolf 2017, arXiv 1608.05859",
        search={"values": [True, False]},
    ),
    "dtype": Parameter(
        type="string",
        choices=tuple(DTYPE_BYTES),
        default="float32",
        meaning=(
            "number format of the engine's weights and products; training is in float32, norms always are. tf32: "
            "float32 whose products are rounded to 10 bits of mantissa on NVIDIA's tensor cores"
        ),
        source="TensorRT-LLM layers",
        search={"values": ["float32", "float16"]},
    ),
}

_SECTIONS = {"attention": attention, "mlp": mlp, "norm": normalization, "embedding": embedding}

DECLARATIONS: dict[str, Parameter] = {
    **PARAMETERS,
    **{f"{name}.{key}": value for name, section in _SECTIONS.items() for key, value in section.PARAMETERS.items()},
}
"""Every parameter that can be set below `model`, by its path."""

APPLIES: dict[str, Condition] = {
    f"{name}.{key}": condition for name, section in _SECTIONS.items() for key, condition in section.APPLIES.items()
}
"""Parameters that apply under a condition only: elsewhere a completed model lacks them, and giving one is an error."""

LATER: dict[str, str] = {
    "per_layer": "blocks that differ",
    "tp_size": "tensor parallelism",
    **{f"{name}.{key}": feature for name, section in _SECTIONS.items() for key, feature in section.LATER.items()},
}
"""Known parameters that are not built yet -> the feature they belong to. They are refused by name."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A completed model, by layer. Raises KeyError where the rules are broken so far that a size is unknown."""

    num_layers: int
    hidden_size: int
    norm_position: str
    tie_embeddings: bool
    dtype: str
    position_rows: int
    attention: AttentionConfig
    mlp: MlpConfig
    norm: NormConfig
    embedding: EmbeddingConfig

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> ModelConfig:
        return cls(
            num_layers=model["num_layers"],
            hidden_size=model["hidden_size"],
            norm_position=model["norm_position"],
            tie_embeddings=model["tie_embeddings"],
            dtype=model["dtype"],
            position_rows=attention.table_rows(model),
            attention=AttentionConfig.of(model),
            mlp=MlpConfig.of(model),
            norm=NormConfig.of(model),
            embedding=EmbeddingConfig.of(model),
        )

    @property
    def norm_count(self) -> int:
        """Two a block; with norm_position pre, one more before the head."""
        return 2 * self.num_layers + (1 if self.norm_position == "pre" else 0)

    @property
    def head_projection(self) -> LinearConfig | None:
        """Before a tied head: from the model's width back to the table's, where they differ."""
        if not self.tie_embeddings or self.embedding.projection is None:
            return None
        return LinearConfig(self.hidden_size, self.embedding.embedding_dim, bias=False)

    @property
    def head(self) -> LinearConfig:
        width = self.embedding.embedding_dim if self.tie_embeddings else self.hidden_size
        return LinearConfig(width, self.embedding.num_embeddings, bias=False)

    def parameter_count(self) -> int:
        block = self.attention.parameter_count() + self.mlp.parameter_count()
        head = 0 if self.tie_embeddings else self.head.parameter_count()
        return (
            self.embedding.parameter_count()
            + self.position_rows * self.hidden_size
            + self.num_layers * block
            + self.norm_count * self.norm.parameter_count()
            + (self.head_projection.parameter_count() if self.head_projection else 0)
            + head
        )

    def flops(self, batch_size: int, sequence_length: int) -> int:
        rows = batch_size * sequence_length
        block = self.attention.flops(batch_size, sequence_length) + self.mlp.flops(rows)
        head = self.head.flops(rows) + (self.head_projection.flops(rows) if self.head_projection else 0)
        return self.embedding.flops(rows) + self.num_layers * block + head


def complete(task: str, values: Mapping[str, Scalar], facts: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return `values` (flat paths below `model`) with every default filled in, in the order of the declarations.

    facts: of the dataset, `vocabulary_size`; and `sequence_length`: a length, or all that are trained or measured.
    Raises ParameterError for what is unknown, missing, out of bounds or does not apply. Completing twice changes
    nothing. Rules between parameters are `broken_rules`' matter.
    """
    if task not in TASKS:
        raise ParameterError("task", f"{task!r} is not something that Layersweep builds", f"one of: {', '.join(TASKS)}")
    model = {path: _declaration(path).check(path, value) for path, value in values.items()}
    for path, parameter in DECLARATIONS.items():
        if path in APPLIES:
            continue
        if path not in model and parameter.default is REQUIRED:
            raise ParameterError(path, "is missing", f"give {parameter.meaning}")
        if parameter.default is not None:
            model.setdefault(path, parameter.default)
    for path, condition in APPLIES.items():
        if not condition.holds(model):
            if path in model:
                place = f"{condition.path} is {model.get(condition.path)!r}"
                raise ParameterError(path, f"does not apply where {place}", f'leave it out, or add when: "{condition}"')
        elif (default := DECLARATIONS[path].default) is not None:
            model.setdefault(path, default)
    for section in _SECTIONS.values():
        section.follow(model)
    _follow_facts(model, facts)
    return {path: model[path] for path in DECLARATIONS if path in model}


def _declaration(path: str) -> Parameter:
    if path in DECLARATIONS:
        return DECLARATIONS[path]
    if path in LATER:
        raise ParameterError(path, f"{LATER[path]} is not something that Layersweep builds", "leave it out")
    section = path.rpartition(".")[0]
    siblings = [known for known in DECLARATIONS if known.rpartition(".")[0] == section]
    raise ParameterError(path, "is not a parameter", f"one of: {', '.join(siblings or DECLARATIONS)}")


def _follow_facts(model: dict[str, Any], facts: Mapping[str, Any]) -> None:
    """What follows from the data and the shapes, and what they forbid."""
    vocabulary_size = facts.get("vocabulary_size")
    rows = model.setdefault("embedding.num_embeddings", vocabulary_size)
    if rows is None:
        raise ParameterError(
            "embedding.num_embeddings", "is missing", "name a dataset, whose vocabulary gives it, or give it"
        )
    if vocabulary_size is not None and rows < vocabulary_size:
        message = f"{rows} rows are too few for a vocabulary of {vocabulary_size}"
        raise ParameterError("embedding.num_embeddings", message, f"at least {vocabulary_size}, or leave it out")
    longest = _longest(facts.get("sequence_length"))
    positions = model.setdefault("attention.max_position_embeddings", longest)
    if positions is None:
        raise ParameterError(
            "attention.max_position_embeddings", "is missing", "give inference.sequence_length, or give it"
        )
    if longest is not None and positions < longest:
        message = f"{positions} positions are too few for sequences of {longest}"
        raise ParameterError("attention.max_position_embeddings", message, f"at least {longest}, or leave it out")


def _longest(lengths: int | Iterable[int] | None) -> int | None:
    if lengths is None or isinstance(lengths, int):
        return lengths
    return max(lengths, default=None)


def broken_rules(model: Mapping[str, Scalar]) -> list[Violation]:
    """The rules between parameters that a completed model breaks; empty where it can be built."""
    violations = [violation for section in _SECTIONS.values() for violation in section.broken_rules(model)]
    if model["kind"] == "decoder" and model["attention.attention_mask_type"] == "bidirectional":
        message = "a decoder with a bidirectional mask would see the tokens that it is to predict"
        violations.append(Violation("decoder needs a causal mask", message, ("kind", "attention.attention_mask_type")))
    return violations


def unsupported(model: Mapping[str, Scalar], capabilities: Mapping[str, Any]) -> str | None:
    """What the target lacks for this model, in words; None where it lacks nothing."""
    dtype = str(model["dtype"])
    target = f"{capabilities['runtime']} {capabilities['version']} on {capabilities['device_model']}"
    if dtype not in capabilities["dtypes"]:
        why = capabilities.get("lacks", {}).get(f"dtype {dtype}")
        because = f": {why}" if why else ""
        return f"{target} does not run {dtype} (it runs {', '.join(capabilities['dtypes'])}){because}"
    if capabilities["opset"] < LOWEST_OPSET:
        return f"{target} reads ONNX opset {capabilities['opset']}: at least {LOWEST_OPSET} is needed"
    weights_bytes = parameter_count(model) * DTYPE_BYTES[dtype]
    if weights_bytes > capabilities["device_memory_bytes"]:
        return f"the weights alone take {weights_bytes:,} bytes: {target} has {capabilities['device_memory_bytes']:,}"
    return None


def parameter_count(model: Mapping[str, Scalar]) -> int:
    """Trainable parameters of a completed model; a tied table counts once."""
    return ModelConfig.of(model).parameter_count()


def flops(model: Mapping[str, Scalar], batch_size: int, sequence_length: int) -> int:
    """Floating-point operations of one inference: matrix products only, a multiply-add counted as two.

    Look-ups, norms, activations and softmax are left out, as is usual (Kaplan et al. 2020, arXiv 2001.08361).
    """
    return ModelConfig.of(model).flops(batch_size, sequence_length)
