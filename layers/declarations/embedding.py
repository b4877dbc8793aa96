"""Embedding: token ids to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from layers.dataset_facts import ModelFacts
from layers.declarations import dtypes, tensor_parallel
from layers.declarations.linear import LinearConfig
from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, ParameterError, Scalar

PROMPT_TUNING = "PromptTuningEmbedding"
KINDS = ("Embedding", PROMPT_TUNING)
SHARDING_DIM = "embedding.sharding_dim"

PARAMETERS: dict[str, Parameter] = {
    "kind": Parameter(
        type="string",
        choices=KINDS,
        default="Embedding",
        meaning=(
            "which embedding; PromptTuningEmbedding reads ids from vocab_size on from a learned table of prompts, and "
            "puts one prompt before the tokens of a model (an encoder_decoder's: of its source)"
        ),
        source="TensorRT-LLM layers; prompts: Lester et al. 2021, arXiv 2104.08691",
        search={"values": list(KINDS)},
    ),
    "num_embeddings": Parameter(
        type="integer",
        minimum=1,
        maximum=2_000_000,
        default=None,
        meaning=(
            "rows of the table and logits a token, at least the vocabulary's size; left out: the vocabulary's "
            "size. More (a multiple of 64, say) pads it"
        ),
        source="padding to a multiple of 64: Anthony et al. 2024, arXiv 2401.14489",
        search={"values": [512, 1024, 8192, 32_768, 65_536]},
    ),
    "source_num_embeddings": Parameter(
        type="integer",
        minimum=1,
        maximum=2_000_000,
        default=None,
        meaning="rows of an encoder_decoder's table of source tokens; left out: the size of the source's vocabulary",
        source="padding to a multiple of 64: Anthony et al. 2024, arXiv 2401.14489",
        search={"values": [512, 1024, 8192, 32_768, 65_536]},
    ),
    "embedding_dim": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        default=None,
        meaning=(
            "width of the table; left out: hidden_size. Another width adds a projection (no bias) to hidden_size,"
            " and one back before a tied head"
        ),
        source="Lan et al. 2019, arXiv 1909.11942; Zhang et al. 2022, arXiv 2205.01068",
        search={"values": [64, 128, 256]},
    ),
    "prompt_length": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        default=20,
        meaning="vectors of one prompt (TensorRT-LLM's task_vocab_size)",
        source="Lester et al. 2021, arXiv 2104.08691: 20 to 100",
        search={"values": [5, 20, 100]},
    ),
    "num_tasks": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        default=1,
        meaning="prompts in the table, one a task; a dataset is one task, so that a probe alone has more",
        source="TensorRT-LLM layers",
        search={"values": [1, 8, 64]},
    ),
    "vocab_size": Parameter(
        type="integer",
        minimum=1,
        maximum=2_000_000,
        default=None,
        meaning="ids from here on are those of the prompt; left out: num_embeddings",
        source="TensorRT-LLM layers",
        search={"values": [512, 8192, 32_768]},
    ),
    "dtype": dtypes.layer_dtype("the table"),
    "tp_size": tensor_parallel.layer_tp_size("its table"),
    "sharding_dim": Parameter(
        type="integer",
        minimum=0,
        maximum=1,
        default=0,
        meaning="how devices split the table: by rows, which are the vocabulary (0), or by columns (1)",
        source="TensorRT-LLM layers",
        search={"values": [0, 1]},
    ),
}

APPLIES: dict[str, Condition] = {
    "source_num_embeddings": Condition("share_source_embedding", (False,)),
    "prompt_length": Condition("embedding.kind", (PROMPT_TUNING,)),
    "num_tasks": Condition("embedding.kind", (PROMPT_TUNING,)),
    "vocab_size": Condition("embedding.kind", (PROMPT_TUNING,)),
    "tp_size": tensor_parallel.SHARED,
    "sharding_dim": tensor_parallel.SHARED,
}

LATER: dict[str, str] = {}
"""Parameters of TensorRT-LLM's layers that are not built yet -> what they belong to."""


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """A table [num_embeddings, embedding_dim], projected to `hidden_size` if the widths differ."""

    num_embeddings: int
    embedding_dim: int
    hidden_size: int
    dtype: str | None = None
    """Of the table; None: the model's."""
    prompt_length: int = 0
    """Rows of one task's prompt; 0 without prompts."""
    num_tasks: int = 1
    vocab_size: int = 0
    """With prompts: the first of their ids."""

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> EmbeddingConfig:
        return cls(
            num_embeddings=int(model["embedding.num_embeddings"]),
            embedding_dim=int(model["embedding.embedding_dim"]),
            hidden_size=int(model["hidden_size"]),
            dtype=dtypes.own_dtype(model, "embedding"),
            prompt_length=int(model.get("embedding.prompt_length", 0)),
            num_tasks=int(model.get("embedding.num_tasks", 1)),
            vocab_size=int(model.get("embedding.vocab_size", model["embedding.num_embeddings"])),
        )

    def of_source(self, model: Mapping[str, Scalar]) -> EmbeddingConfig:
        """The same for the source's tokens of an encoder_decoder."""
        rows = int(model["embedding.source_num_embeddings"])
        return replace(self, num_embeddings=rows, vocab_size=rows)

    def without_prompt(self) -> EmbeddingConfig:
        """The same without prompts."""
        return replace(self, prompt_length=0)

    @property
    def projection(self) -> LinearConfig | None:
        """From the table's width to the model's, or None if they are the same."""
        if self.embedding_dim == self.hidden_size:
            return None
        return LinearConfig(self.embedding_dim, self.hidden_size, bias=False)

    def parameter_count(self) -> int:
        projected = self.projection.parameter_count() if self.projection else 0
        rows = self.num_embeddings + self.num_tasks * self.prompt_length
        return rows * self.embedding_dim + projected

    def flops(self, rows: int) -> int:
        """A look-up computes nothing; the projection does."""
        return self.projection.flops(rows) if self.projection else 0


def follow(model: dict[str, Scalar]) -> None:
    """Fill in the defaults that follow from other parameters."""
    tensor_parallel.follow(model, "embedding")
    dtypes.follow(model, "embedding")
    model.setdefault("embedding.embedding_dim", model["hidden_size"])


def follow_facts(model: dict[str, Scalar], facts: ModelFacts) -> None:
    """Fill in what follows from the dataset's vocabularies. Raises ParameterError for what they forbid."""
    size, source_size = facts.get("vocabulary_size"), facts.get("source_vocabulary_size")
    _follow_vocabulary(model, "embedding.num_embeddings", size)
    if model["kind"] == "embedding" and APPLIES["vocab_size"].holds(model):
        model.setdefault("embedding.vocab_size", model["embedding.num_embeddings"])
    if APPLIES["source_num_embeddings"].holds(model):
        _follow_vocabulary(model, "embedding.source_num_embeddings", source_size)
    elif model.get("share_source_embedding") and source_size != size:
        message = f"the source's vocabulary has {source_size} tokens and the target's {size}: they are not the same"
        raise ParameterError("share_source_embedding", message, "set it to false")


def _follow_vocabulary(model: dict[str, Scalar], path: str, size: int | None) -> None:
    if size is None:
        if path not in model:
            raise ParameterError(path, "is missing", "name a dataset, whose vocabulary gives it, or give it")
        return
    rows = int(model.setdefault(path, size))
    if rows < size:
        message = f"{rows} rows are too few for a vocabulary of {size}"
        raise ParameterError(path, message, f"at least {size}, or leave it out")


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    rows, hidden_size = int(model["embedding.num_embeddings"]), int(model["hidden_size"])
    width, vocabulary = int(model["embedding.embedding_dim"]), int(model.get("embedding.vocab_size", 0))
    columns = {"embedding.embedding_dim": width} if model.get(SHARDING_DIM) == 1 else {}
    yield from tensor_parallel.broken_rules(model, "embedding", columns)
    yield from dtypes.broken_rules(model, "embedding")
    if vocabulary > rows:
        message = f"ids up to embedding.vocab_size {vocabulary} are read from a table of {rows} rows"
        paths = ("embedding.vocab_size", "embedding.num_embeddings")
        yield Violation("embedding.vocab_size <= num_embeddings", message, paths)
    if width > hidden_size:
        message = f"embedding.embedding_dim {width} is wider than hidden_size {hidden_size}"
        yield Violation("embedding.embedding_dim <= hidden_size", message, ("embedding.embedding_dim", "hidden_size"))
