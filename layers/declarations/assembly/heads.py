"""What makes logits of what a stack gives: of tokens, or of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.declarations.embedding import EmbeddingConfig
from layers.declarations.linear import LinearConfig
from layers.declarations.mlp import ACTIVATIONS, GATED_ACTIVATIONS
from layers.declarations.normalization import NormConfig
from layers.declarations.per_layer import views
from layers.declarations.rules import Condition
from layers.parameter import Parameter, Scalar

POOLERS = ("pooler", "mean_pooler")
"""The kinds of pooling that end with layers of their own."""

PARAMETERS: dict[str, Parameter] = {
    "head_bias": Parameter(
        type="boolean",
        default=None,
        meaning="a number added to each logit; left out: true in an encoder, else false",
        source="GPT-J (Wang & Komatsuzaki 2021), Phi-2, Marian (Junczys-Dowmunt et al. 2018, arXiv 1804.00344)",
        search={"values": [True, False]},
    ),
    "pooling": Parameter(
        type="string",
        choices=("mean", "first", *POOLERS),
        default="mean",
        meaning=(
            "the vector that is classified: the mean of all tokens but padding, the first token, or one of the two "
            "through a dense layer and an activation (of the first token, BERT's: pooler; of the mean: mean_pooler)"
        ),
        source=(
            "Devlin et al. 2018, arXiv 1810.04805 (pooler); Reimers & Gurevych 2019, arXiv 1908.10084 (mean); Warner "
            "et al. 2024, arXiv 2412.13663 (mean_pooler)"
        ),
        search={"values": ["mean", "first"]},
    ),
    "pooler_act": Parameter(
        type="string",
        choices=tuple(name for name in ACTIVATIONS if name not in GATED_ACTIVATIONS),
        default=None,
        meaning="activation of the pooler; left out: tanh",
        source="BERT (tanh); DistilBERT: Sanh et al. 2019, arXiv 1910.01108 (relu); ELECTRA: Clark et al. 2020, arXiv "
        "2003.10555 (gelu)",
        search={"values": ["tanh", "relu", "gelu"]},
    ),
    "pooler_bias": Parameter(
        type="boolean",
        default=None,
        meaning="a bias in the pooler's product; left out: true",
        source="BERT; none: ModernBERT (Warner et al. 2024, arXiv 2412.13663)",
        search={"values": [True, False]},
    ),
    "pooler_norm": Parameter(
        type="boolean",
        default=None,
        meaning="a norm, as the last layer's are, of what the pooler gives; left out: false",
        source="ModernBERT: Warner et al. 2024, arXiv 2412.13663",
        search={"values": [True, False]},
    ),
}

APPLIES: dict[str, Condition] = dict.fromkeys(
    ("pooler_act", "pooler_bias", "pooler_norm"), Condition("pooling", POOLERS)
)


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """From vectors to logits. `projection`, before a tied head: to the table's width, if it is not the model's."""

    linear: LinearConfig
    tied: bool
    projection: LinearConfig | None
    scale: float
    """Of what enters a tied head: T5 divides by the root of the width (Raffel et al. 2020, their code)."""
    bias: bool
    logits_scale: float
    logits_softcap: float | None

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> HeadConfig:
        embedding, width, tied = EmbeddingConfig.of(model), int(model["hidden_size"]), bool(model["tie_embeddings"])
        projected = tied and embedding.projection is not None
        return cls(
            linear=LinearConfig(embedding.embedding_dim if tied else width, embedding.num_embeddings, bias=False),
            tied=tied,
            projection=LinearConfig(width, embedding.embedding_dim, bias=False) if projected else None,
            scale=width**-0.5 if model.get("rescale_before_lm_head", False) else 1.0,
            bias=bool(model.get("head_bias", False)),
            logits_scale=float(model.get("logits_scale", 1.0)),
            logits_softcap=float(model["logits_softcap"]) if "logits_softcap" in model else None,
        )

    def parameter_count(self) -> int:
        projected = self.projection.parameter_count() if self.projection else 0
        biases = self.linear.out_features if self.bias else 0
        return projected + biases + (0 if self.tied else self.linear.parameter_count())

    def flops(self, rows: int) -> int:
        return self.linear.flops(rows) + (self.projection.flops(rows) if self.projection else 0)


@dataclass(frozen=True, slots=True)
class PoolerConfig:
    """What BERT puts between its first token and the classes: a product and an activation, then a norm if wanted."""

    linear: LinearConfig
    hidden_act: str
    norm: NormConfig | None

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> PoolerConfig | None:
        """None if a model pools without one. The norm is as that of the last layer."""
        if model["pooling"] not in POOLERS:
            return None
        width = int(model["hidden_size"])
        return cls(
            linear=LinearConfig(width, width, bias=bool(model.get("pooler_bias", True))),
            hidden_act=str(model.get("pooler_act", "tanh")),
            norm=NormConfig.of(views(model)[-1]) if model.get("pooler_norm", False) else None,
        )

    def parameter_count(self) -> int:
        return self.linear.parameter_count() + (self.norm.parameter_count() if self.norm else 0)


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """From vectors of tokens to the logits of classes."""

    pooling: str
    pooler: PoolerConfig | None
    linear: LinearConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> ClassifierConfig:
        return cls(
            pooling=str(model["pooling"]),
            pooler=PoolerConfig.of(model),
            linear=LinearConfig(int(model["hidden_size"]), int(model["classes"]), bool(model.get("head_bias", True))),
        )

    @property
    def means(self) -> bool:
        """Whether the mean of all tokens is classified; else the first one is."""
        return self.pooling in ("mean", "mean_pooler")

    def parameter_count(self) -> int:
        return self.linear.parameter_count() + (self.pooler.parameter_count() if self.pooler else 0)

    def flops(self, sequences: int) -> int:
        return self.linear.flops(sequences) + (self.pooler.linear.flops(sequences) if self.pooler else 0)
