"""The model: its own parameters and every section's, the rules between them, and what is known without building it.

Paths are flat below `model`: `hidden_size`, `attention.num_attention_heads`, `mlp.kind`, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from layers.declarations import (
    attention,
    dtypes,
    embedding,
    linear,
    mlp,
    normalization,
    per_layer,
    quantization,
    tensor_parallel,
)
from layers.declarations.assembly import heads
from layers.declarations.assembly.block import Shape
from layers.declarations.assembly.models import config_of
from layers.declarations.kinds import KINDS
from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

PARAMETERS: dict[str, Parameter] = {
    "kind": Parameter(
        type="string",
        choices=tuple(KINDS),
        default=None,
        meaning=f"{'; '.join(f'{name}: {kind.meaning}' for name, kind in KINDS.items())}; left out: the task's first",
        source="Radford et al. 2019 (decoder); Devlin et al. 2018 (encoder); Vaswani et al. 2017 (encoder_decoder)",
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
    "num_encoder_layers": Parameter(
        type="integer",
        minimum=1,
        maximum=1000,
        default=None,
        meaning="blocks of the encoder of an encoder_decoder; left out: num_layers",
        source="Raffel et al. 2020, arXiv 1910.10683; deeper encoders: Kasai et al. 2021, arXiv 2006.10369",
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
        choices=("pre", "post", "sandwich", "branch"),
        default="pre",
        meaning=(
            "pre: normalize what enters attention and feed-forward; post: normalize after each is added; sandwich: "
            "normalize what enters and what leaves each; branch: normalize what leaves each. All but post normalize "
            "once more at the end"
        ),
        source=(
            "Xiong et al. 2020, arXiv 2002.04745; sandwich: Gemma 2 (arXiv 2408.00118); branch: OLMo 2 (arXiv "
            "2501.00656)"
        ),
        search={"values": ["pre", "post"]},
    ),
    "residual": Parameter(
        type="string",
        choices=("sequential", "parallel"),
        default=None,
        meaning=(
            "sequential: feed-forward reads what attention has added to; parallel: both read the same, and are added "
            "together; left out: sequential"
        ),
        source="GPT-J (Wang & Komatsuzaki 2021); Black et al. 2022, arXiv 2204.06745",
        search={"values": ["sequential", "parallel"]},
    ),
    "shared_norm": Parameter(
        type="boolean",
        default=False,
        meaning="attention and feed-forward of a parallel block read from one norm",
        source="GPT-J, Phi-2, Falcon-7b (Almazrouei et al. 2023, arXiv 2311.16867)",
        search={"values": [True, False]},
    ),
    "residual_scale": Parameter(
        type="number",
        minimum=1e-4,
        maximum=1e4,
        default=None,
        meaning="what attention and feed-forward add is multiplied by it; left out: 1",
        source="Granite 3 (residual_multiplier); Yang et al. 2022, arXiv 2203.03466",
        search={"min": 0.1, "max": 1.0, "log": True},
    ),
    "embedding_scale": Parameter(
        type="number",
        minimum=1e-4,
        maximum=1e4,
        default=None,
        meaning="what comes out of the embedding is multiplied by it, before positions are added; left out: 1",
        source="Vaswani et al. 2017, arXiv 1706.03762 (the root of the width); Gemma (arXiv 2403.08295)",
        search={"min": 1.0, "max": 32.0, "log": True},
    ),
    "logits_scale": Parameter(
        type="number",
        minimum=1e-4,
        maximum=1e4,
        default=None,
        meaning="logits are multiplied by it; left out: 1",
        source="Granite 3 (one over its logits_scaling); Cohere (logit_scale)",
        search={"min": 0.0625, "max": 1.0, "log": True},
    ),
    "logits_softcap": Parameter(
        type="number",
        minimum=1e-3,
        maximum=1e6,
        default=None,
        meaning="logits l become logits_softcap x tanh(l / logits_softcap); left out: they stay as they are",
        source="Gemma 2: Gemma Team 2024, arXiv 2408.00118: 30",
        search={"values": [15.0, 30.0]},
    ),
    "tie_embeddings": Parameter(
        type="boolean",
        default=True,
        meaning="the head that makes logits shares the embedding's table",
        source="Press & Wolf 2017, arXiv 1608.05859",
        search={"values": [True, False]},
    ),
    "rescale_before_lm_head": Parameter(
        type="boolean",
        default=False,
        meaning="what enters a tied head is divided by the root of hidden_size",
        source="TensorRT-LLM's enc_dec models; Raffel et al. 2020, arXiv 1910.10683 (their code)",
        search={"values": [True, False]},
    ),
    "has_embedding_layernorm": Parameter(
        type="boolean",
        default=False,
        meaning="a norm over the sum of embedding and position, before the first block",
        source="TensorRT-LLM's enc_dec models; Devlin et al. 2018, arXiv 1810.04805",
        search={"values": [True, False]},
    ),
    "skip_first_norm": Parameter(
        type="boolean",
        default=None,
        meaning="the first block's attention reads the embedding's norm, without one of its own; left out: false",
        source="ModernBERT: Warner et al. 2024, arXiv 2412.13663",
        search={"values": [True, False]},
    ),
    "layers_sharing_weights": Parameter(
        type="integer",
        minimum=1,
        maximum=1000,
        default=None,
        meaning="consecutive layers that run on the same weights; num_layers: all of them do; left out: 1",
        source="ALBERT: Lan et al. 2019, arXiv 1909.11942 (all); MobileLLM-LS: Liu et al. 2024, arXiv 2402.14905 (2)",
        search={"values": [1, 2]},
    ),
    "share_source_embedding": Parameter(
        type="boolean",
        default=False,
        meaning="the encoder reads its tokens from the decoder's table: for one vocabulary of source and target",
        source="Raffel et al. 2020, arXiv 1910.10683",
        search={"values": [True, False]},
    ),
    **heads.PARAMETERS,
    "classes": Parameter(
        type="integer",
        minimum=2,
        maximum=1_000_000,
        default=None,
        meaning="classes that an encoder tells apart; left out: the dataset's",
        source="the dataset",
        search={"values": [2, 10, 100, 1000]},
    ),
    "dtype": Parameter(
        type="string",
        choices=tuple(dtypes.BYTES),
        default="float32",
        meaning=(
            "number format of the engine's weights and products, but for those layers that have one of their own; "
            "training is in float32. tf32: float32 whose products are rounded to 10 bits of mantissa on NVIDIA's "
            "tensor cores"
        ),
        source="TensorRT-LLM layers",
        search={"values": ["float32", "float16"]},
    ),
    "quantization": quantization.PARAMETER,
    "tp_size": tensor_parallel.TP_SIZE,
}

SECTIONS = {
    "attention": attention,
    "mlp": mlp,
    "norm": normalization,
    "embedding": embedding,
    "linear": linear,
}
"""The module that declares each section."""

_OF_BLOCKS = ("attention", "mlp", "norm")

DECLARATIONS: dict[str, Parameter] = {
    **PARAMETERS,
    **{f"{name}.{key}": value for name, section in SECTIONS.items() for key, value in section.PARAMETERS.items()},
}
"""Every parameter that can be set below `model`, by its path."""

APPLIES: dict[str, Condition] = {
    "rescale_before_lm_head": Condition("tie_embeddings", (True,)),
    "skip_first_norm": Condition("has_embedding_layernorm", (True,)),
    **heads.APPLIES,
    "shared_norm": Condition("residual", ("parallel",)),
    **{f"{name}.{key}": condition for name, section in SECTIONS.items() for key, condition in section.APPLIES.items()},
}
"""Parameters of a kind that apply under a condition only: elsewhere a completed model lacks them, and giving one is an
error."""

LATER: dict[str, str] = {
    **{f"{name}.{key}": feature for name, section in SECTIONS.items() for key, feature in section.LATER.items()},
}
"""Known parameters that are not built yet -> the feature they belong to. They are refused by name."""


def broken_rules(model: Mapping[str, Scalar]) -> list[Violation]:
    """The rules between parameters that a completed model breaks; empty if it can be built."""
    sections = KINDS[str(model["kind"])].sections
    if not per_layer.has_own(model):
        return [
            *_broken_rules_of(model, sections),
            *per_layer.broken_sharing(model),
            *quantization.broken_rules(model),
        ]
    blocks = [name for name in sections if name in _OF_BLOCKS]
    found = [v for name in sections if name not in blocks for v in SECTIONS[name].broken_rules(model)]
    for layer, view in per_layer.distinct_views(model):
        for violation in per_layer.kept(view, "broken", lambda view: _broken_rules_of(view, blocks)):
            own = {path: str(layer._replace(path=path)) for path in violation.paths}
            paths = tuple(name if name in model else path for path, name in own.items())
            found.append(Violation(violation.rule, f"{layer.layer}: {violation.message}", paths))
    of_stacks = (*per_layer.broken_rules(model), *per_layer.broken_sharing(model))
    return [*found, *of_stacks, *quantization.broken_rules(model)]


def _broken_rules_of(view: Mapping[str, Scalar], sections: Iterable[str]) -> list[Violation]:
    of_sections = [violation for name in sections for violation in SECTIONS[name].broken_rules(view)]
    return [*of_sections, *_broken_by_parallel(view), *_broken_by_first_norm(view)]


def _broken_by_first_norm(view: Mapping[str, Scalar]) -> Iterator[Violation]:
    """What a stack whose first block reads the embedding's norm cannot have."""
    if not view.get("skip_first_norm", False):
        return
    if view["norm_position"] != "pre" or view.get("shared_norm", False):
        message = "only a block that normalizes what its attention alone reads can do without that norm"
        paths = ("skip_first_norm", "norm_position", "shared_norm")
        yield Violation("skip_first_norm needs norm_position pre", message, paths)
    if int(view.get("layers_sharing_weights", 1)) > 1:
        message = "the first layer differs from the next, with which it would share weights"
        paths = ("skip_first_norm", "layers_sharing_weights")
        yield Violation("skip_first_norm and layers_sharing_weights", message, paths)


def _broken_by_parallel(view: Mapping[str, Scalar]) -> Iterator[Violation]:
    """What a block whose layers stand side by side cannot have."""
    if view.get("residual") != "parallel":
        return
    if (position := view["norm_position"]) != "pre":
        message = f"layers that stand side by side are normalized before they read, not {position}"
        yield Violation("residual parallel needs norm_position pre", message, ("residual", "norm_position"))
    if view.get("attention.cross_attention", False):
        message = "a block that attends to an encoder does so between attention and feed-forward: they are sequential"
        yield Violation("residual parallel without cross attention", message, ("residual", "attention.cross_attention"))


def weights_bytes(model: Mapping[str, Scalar]) -> int:
    """What the weights of a completed model take in the number formats that its layers have."""
    config, whole = config_of(model), dtypes.BYTES[str(model["dtype"])]
    if set(dtypes.by_parameter(model).values()) == {model["dtype"]}:
        return config.parameter_count() * whole
    own = sum(
        layer.parameter_count() * (dtypes.BYTES[str(layer.dtype)] - whole)
        for layer in config.formatted()
        if layer.dtype not in (None, model["dtype"])
    )
    return config.parameter_count() * whole + own


def parameter_count(model: Mapping[str, Scalar]) -> int:
    """Trainable parameters of a completed model; a table that is tied or shared counts once."""
    return config_of(model).parameter_count()


def flops(model: Mapping[str, Scalar], batch_size: int, sequence_length: int, source_length: int | None = None) -> int:
    """Floating-point operations of one inference: matrix products only, a multiply-add counted as two.

    Look-ups, norms, activations and softmax are left out, as is usual (Kaplan et al. 2020, arXiv 2001.08361).
    `source_length` left out: sequence_length; it matters if there is cross attention.
    """
    return config_of(model).flops(Shape(batch_size, sequence_length, source_length or sequence_length))
