"""Which architecture of `transformers` a model is, or what keeps it from being one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from layers import completion
from layers.checkpoints.architecture import Architecture, Config, Model
from layers.checkpoints.config_json import CheckpointError, ConfigJson
from layers.checkpoints.families import bert, gemma, gpt, llama, modernbert, t5
from layers.declarations.kinds import KINDS
from layers.declarations.per_layer import STACKS, LayeredModel, LayerView, has_own, views
from layers.parameter import ParameterError, Scalar
from layers.problems import shown

ARCHITECTURES: tuple[Architecture, ...] = (
    *llama.ARCHITECTURES,
    *gemma.ARCHITECTURES,
    *gpt.ARCHITECTURES,
    *t5.ARCHITECTURES,
    *bert.ARCHITECTURES,
    *modernbert.ARCHITECTURES,
)
"""In the order in which they are tried."""

RULE = "transformers_export"
"""The name of the rule that every point is of one of them."""

_WITHOUT_EFFECT = frozenset(
    {
        "dtype",
        "quantization",
        "tp_size",
        "embedding.sharding_dim",
        "attention.qk_layernorm",
        *(
            f"{section}.{name}"
            for section in ("attention", "mlp", "norm", "embedding")
            for name in ("dtype", "tp_size")
        ),
    }
)
"""What says how an engine computes, not what."""

_NEUTRAL: Mapping[str, Scalar] = {
    "residual": "sequential",
    "shared_norm": False,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
    "logits_scale": 1.0,
    "skip_first_norm": False,
    "layers_sharing_weights": 1,
    "pooler_act": "tanh",
    "pooler_bias": True,
    "pooler_norm": False,
    "attention.rotary_embedding_scale_type": "none",
    "attention.relative_table_per_layer": False,
}
"""What is so if nothing is said."""

_SAME: Mapping[str, Mapping[Scalar, Scalar]] = {
    "mlp.kind": {"FusedGatedMLP": "GatedMLP"},
    "attention.position_embedding_type": {"rope_gptj": "rope_gpt_neox"},
    # A mask of padding that hides nothing is none.
    "attention.attention_mask_type": {"bidirectional": "padding"},
}
"""Values that are others with the rows of the weights in another order."""


class NoArchitectureError(CheckpointError):
    """A model that no architecture of `transformers` is."""


@dataclass(frozen=True, slots=True)
class Match:
    """The architecture of a model, and its configuration there."""

    architecture: Architecture
    config: Config
    filled: tuple[str, ...]
    """Weights that ours has not, and that are zeros (scales: ones) there."""


def match(model: Model) -> Match:
    """The first architecture that a completed model is. Raises NoArchitectureError with what is in the way."""
    if str(KINDS[str(model["kind"])].task) == "probe":
        raise NoArchitectureError("a probe is one layer, and no model")
    every = whole(model)
    first = _canonical(views(every)[0])
    found: list[tuple[bool, int, str]] = []
    filled: Match | None = None
    for architecture in ARCHITECTURES:
        if architecture.kind != model["kind"]:
            continue
        outcome = _compared(architecture, every, first)
        if isinstance(outcome, Match):
            if not outcome.filled:
                return outcome
            filled = filled or outcome
        else:
            found.append((*outcome.distance, f"{architecture.name}: {'; '.join(outcome.reasons[:3])}"))
    if filled is not None:
        return filled
    if not found:
        raise NoArchitectureError(f"Layersweep writes no {model['kind']} for transformers yet")
    nearest = "; or ".join(text for _, _, text in sorted(found, key=lambda each: each[:2])[:2])
    raise NoArchitectureError(f"no architecture of transformers computes it. Nearest: {nearest}")


def misfit_of(model: Model) -> str | None:
    """What keeps a completed model from being of an architecture; None if it is of one."""
    try:
        match(model)
    except NoArchitectureError as error:
        return str(error)
    return None


def whole(model: Model) -> Model:
    """The model with its first layer's values as its own, so that all of a block's have one."""
    if not has_own(model):
        return model
    layers = cast("tuple[LayerView, ...]", views(model))
    return LayeredModel({**layers[0], **model}, layers)


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Everything that keeps a model from being of an architecture; `by_trait`: it is of another kind."""

    by_trait: bool
    reasons: list[str]

    @property
    def distance(self) -> tuple[bool, int]:
        return self.by_trait, len(self.reasons)


def _compared(architecture: Architecture, model: Model, first: Mapping[str, Scalar]) -> Match | _Misfit:
    """The match, or everything that is in its way."""
    wanting = [
        f"{path} is {shown(first.get(path))}, not {' or '.join(map(shown, allowed))}"
        for path, allowed in architecture.traits.items()
        if first.get(path) not in allowed
    ]
    if wanting:
        return _Misfit(True, wanting)
    if (forbidden := architecture.forbids(model)) is not None:
        return _Misfit(False, [forbidden])
    config = architecture.config(model)
    try:
        read = completed(architecture, config)
    except (CheckpointError, ParameterError) as error:
        return _Misfit(False, [str(error)])
    differing = list(dict.fromkeys(_differences(model, read)))
    filled = [path for path, ours, theirs in differing if path in architecture.fills and ours is False and theirs]
    others = [each for each in differing if each[0] not in filled]
    if others:
        return _Misfit(False, [f"{path} is {shown(ours)}, and {shown(theirs)} there" for path, ours, theirs in others])
    named: Config = {"architectures": [architecture.class_name], "model_type": architecture.model_type}
    return Match(architecture, {**named, **config, "dtype": "float32"}, tuple(dict.fromkeys(filled)))


def completed(architecture: Architecture, config: Config) -> dict[str, Scalar]:
    """The completed model that config.json describes. Raises CheckpointError, ParameterError."""
    values = architecture.values(ConfigJson(config))
    return completion.complete(KINDS[architecture.kind].task, values, {})


def _canonical(view: Model) -> dict[str, Scalar]:
    """A layer's values without those that have no effect, each in one of several spellings."""
    found = {**_NEUTRAL, **{path: value for path, value in view.items() if path not in _WITHOUT_EFFECT}}
    found.setdefault("head_bias", view["kind"] == "encoder")
    if "attention.bias" in found:
        found.setdefault("attention.dense_bias", found["attention.bias"])
        found.setdefault("attention.qk_norm", "LayerNorm" if view.get("attention.qk_layernorm") else "none")
    for path, others in _SAME.items():
        if path in found:
            found[path] = others.get(found[path], found[path])
    return found


def _differences(ours: Model, theirs: Model) -> Iterator[tuple[str, Scalar | None, Scalar | None]]:
    """Where two models of the same number of layers differ: path, ours, theirs."""
    seen: set[tuple[int, int]] = set()
    for stack, count in STACKS.items():
        if count not in ours:
            continue
        for number, (our, their) in enumerate(zip(views(ours, stack), views(theirs, stack), strict=True)):
            if (id(our), id(their)) in seen:
                continue
            seen.add((id(our), id(their)))
            mine, read = _canonical(our), _canonical(their)
            for path in {**mine, **read}:
                if not _equal(mine.get(path), read.get(path)):
                    own = f"{stack}.{number}.{path}"
                    yield own if own in ours else path, mine.get(path), read.get(path)


def _equal(ours: Scalar | None, theirs: Scalar | None) -> bool:
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return ours == theirs
