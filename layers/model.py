"""The model: its own parameters and every section's, their completion and rules, and what is known without building it.

Paths are flat below `model`: `hidden_size`, `attention.num_attention_heads`, `mlp.kind`, ... No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from layers import (
    attention,
    embedding,
    linear,
    mlp,
    normalization,
    number_format,
    per_layer,
    quantization,
    tensor_parallel,
)
from layers.base import REQUIRED, Parameter, ParameterError, Scalar
from layers.kinds import KINDS, TASKS, Kind, kinds_of, kinds_with
from layers.per_layer import LayerName, LayerView, layer_name
from layers.rules import Condition, Violation
from layers.stack import Shape, config_of

__all__ = [
    "APPLIES",
    "DECLARATIONS",
    "KINDS",
    "TASKS",
    "DoesNotApply",
    "Violation",
    "broken_rules",
    "complete",
    "flops",
    "parameter_count",
    "unsupported",
]

MOST_KEPT_LAYERS = 1_000
"""Layers that are kept completed beside the same values: most points of a space have layers that others have."""

LOWEST_OPSET = 17
"""LayerNormalization is an operator from opset 17 on."""

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
    "share_source_embedding": Parameter(
        type="boolean",
        default=False,
        meaning="the encoder reads its tokens from the decoder's table: for one vocabulary of source and target",
        source="Raffel et al. 2020, arXiv 1910.10683",
        search={"values": [True, False]},
    ),
    "pooling": Parameter(
        type="string",
        choices=("mean", "first", "pooler"),
        default="mean",
        meaning=(
            "the vector that is classified: the mean of all tokens but padding, the first token, or the first token "
            "through a dense layer and tanh (pooler: BERT's)"
        ),
        source="Devlin et al. 2018, arXiv 1810.04805 (pooler); Reimers & Gurevych 2019, arXiv 1908.10084 (mean)",
        search={"values": ["mean", "first"]},
    ),
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
        choices=tuple(number_format.BYTES),
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

_SECTIONS = {
    "attention": attention,
    "mlp": mlp,
    "norm": normalization,
    "embedding": embedding,
    "linear": linear,
}

_OF_BLOCKS = ("attention", "mlp", "norm")

DECLARATIONS: dict[str, Parameter] = {
    **PARAMETERS,
    **{f"{name}.{key}": value for name, section in _SECTIONS.items() for key, value in section.PARAMETERS.items()},
}
"""Every parameter that can be set below `model`, by its path."""

APPLIES: dict[str, Condition] = {
    "rescale_before_lm_head": Condition("tie_embeddings", (True,)),
    **{f"{name}.{key}": condition for name, section in _SECTIONS.items() for key, condition in section.APPLIES.items()},
}
"""Parameters of a kind that apply under a condition only: elsewhere a completed model lacks them, and giving one is an
error."""

LATER: dict[str, str] = {
    **{f"{name}.{key}": feature for name, section in _SECTIONS.items() for key, feature in section.LATER.items()},
}
"""Known parameters that are not built yet -> the feature they belong to. They are refused by name."""


class DoesNotApply(ParameterError):
    """A parameter that is given where it has no effect."""


def complete(task: str, values: Mapping[str, Scalar], facts: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return `values` (flat paths below `model`) with every default filled in, in the order of the declarations.

    facts: of the dataset, `vocabulary_size`, `source_vocabulary_size`, `classes`, as its task has them; and
    `sequence_length` and `source_length`: a length, or all that are trained or measured.
    Parameters of single layers (`layers.3.mlp.kind`) come last, for every layer: see `layers.per_layer`.
    Raises ParameterError for what is unknown, missing, out of bounds or does not apply (DoesNotApply). Completing
    twice changes nothing. Rules between parameters are `broken_rules`' matter.
    """
    if task not in TASKS:
        raise ParameterError("task", f"{task!r} is not something that Layersweep builds", f"one of: {', '.join(TASKS)}")
    own = {path: name for path in values if (name := layer_name(path)) is not None}
    if not own:
        return _complete(task, values, facts)
    return _complete_layers(task, values, own, facts)


def _complete_layers(
    task: str, values: Mapping[str, Scalar], own: Mapping[str, LayerName], facts: Mapping[str, Any]
) -> dict[str, Scalar]:
    """`complete` for a model of layers that differ: each is completed as a model of layers like itself."""
    shared = {path: value for path, value in values.items() if path not in own}
    _, kind = _kind(task, dict(shared))
    counts = {stack: int(_count(stack, shared)) for stack, path in per_layer.STACKS.items() if kind.has(path)}
    if not counts:
        first = next(iter(own))
        raise DoesNotApply(first, f"does not apply: a {task} has one block", f"give {per_layer.base_path(first)}")
    changes: dict[tuple[str, int], dict[str, Scalar]] = {}
    for path, name in own.items():
        _check_layer(path, name, counts)
        changes.setdefault((name.stack, name.number), {})[name.path] = values[path]
    completed = _completed_layers(task, shared, facts)
    layers: dict[tuple[str, int], LayerView] = {}
    for stack, count in counts.items():
        for index in range(count):
            of_layer = changes.get((stack, index), {})
            key = _key_of(of_layer)
            if key not in completed:
                made = _complete_layer(task, shared, LayerName(stack, index, ""), of_layer, facts)
                if len(completed) > 2 * MOST_KEPT_LAYERS:
                    completed.clear()
                # Layers that are alike are one object, however it is said that they are so.
                completed[key] = completed.setdefault(_key_of(made), LayerView(made))
            layers[stack, index] = completed[key]
    return per_layer.joined(layers, (name.path for name in own.values()), DECLARATIONS)


_Key = tuple[tuple[str, type, Any], ...]


def _key_of(values: Mapping[str, Any]) -> _Key:
    """Values by name, to look up by. With their types: 1, 1.0 and true are equal, and mean three things."""
    return tuple((path, type(values[path]), values[path]) for path in sorted(values))


def _completed_layers(task: str, shared: Mapping[str, Scalar], facts: Mapping[str, Any]) -> dict[_Key, LayerView]:
    """The layers that were completed beside the same `shared` values, by what is given for them."""
    try:
        return _layers_beside(task, _key_of(shared), _key_of(facts))
    except TypeError:
        # A list among the facts has no hash.
        return {}


@lru_cache(maxsize=8)
def _layers_beside(task: str, shared: _Key, facts: _Key) -> dict[_Key, LayerView]:
    return {}


def _count(stack: str, shared: Mapping[str, Scalar]) -> Scalar:
    """How many layers a stack has."""
    path = per_layer.STACKS[stack]
    given = shared.get(path, shared.get("num_layers"))
    if given is None:
        raise ParameterError("num_layers", "is missing", f"give {DECLARATIONS['num_layers'].meaning}")
    return DECLARATIONS[path].check(path, given)


def _check_layer(path: str, name: LayerName, counts: Mapping[str, int]) -> None:
    if name.path not in per_layer.BLOCK_PATHS:
        if name.path in DECLARATIONS:
            raise ParameterError(path, f"{name.path} is the same in all layers", f"give {name.path}")
        raise ParameterError(path, f"{name.path} is not a parameter", f"one of: {', '.join(per_layer.BLOCK_PATHS)}")
    if name.stack not in counts:
        raise DoesNotApply(path, "does not apply: there is no encoder beside the layers", f"give layers.N.{name.path}")
    if name.stack == "encoder_layers" and name.path in per_layer.DECODER_ONLY:
        raise DoesNotApply(path, "does not apply: an encoder sees all of the source but padding", "leave it out")
    if name.number >= counts[name.stack]:
        count = counts[name.stack]
        message = f"there is no {name.layer}: {per_layer.STACKS[name.stack]} is {count}, and the first layer is 0"
        raise DoesNotApply(path, message, f'add when: "{per_layer.STACKS[name.stack]} > {name.number}"')


def _complete_layer(
    task: str, shared: Mapping[str, Scalar], layer: LayerName, changes: Mapping[str, Scalar], facts: Mapping[str, Any]
) -> dict[str, Scalar]:
    """One layer's view of the model; what is wrong with it is said of that layer."""
    try:
        return _complete(task, {**shared, **changes}, facts)
    except ParameterError as error:
        if error.path not in per_layer.BLOCK_PATHS:
            raise
        path = str(layer._replace(path=error.path)) if error.path in changes else error.path
        raise type(error)(path, f"{error.message} in {layer.layer}", error.remedy) from None


def _kind(task: str, model: dict[str, Scalar]) -> tuple[str, Kind]:
    """The kind of a model, filled in where it is not given. Raises ParameterError where it does not fit the task."""
    name = str(DECLARATIONS["kind"].check("kind", model.setdefault("kind", kinds_of(task)[0])))
    if KINDS[name].task != task:
        message = f"{name!r} is a kind for {KINDS[name].task}, not for {task}"
        raise ParameterError("kind", message, f"one of: {', '.join(kinds_of(task))}; or task: {KINDS[name].task}")
    return name, KINDS[name]


def _complete(task: str, values: Mapping[str, Scalar], facts: Mapping[str, Any]) -> dict[str, Scalar]:
    """`complete` for a model whose layers are alike."""
    model = {path: _declaration(path).check(path, value) for path, value in values.items()}
    _, kind = _kind(task, model)
    for path in model:
        if path not in _declared_of(str(model["kind"])):
            raise DoesNotApply(path, f"does not apply to the kind {model['kind']}", _kinds_remedy(task, path))
    declared = _declared_of(str(model["kind"]))
    for path, default in declared.items():
        if path in APPLIES or path in model:
            continue
        if default is REQUIRED:
            raise ParameterError(path, "is missing", f"give {DECLARATIONS[path].meaning}")
        if default is not None:
            model[path] = default
    for path, condition in APPLIES.items():
        if path not in declared:
            continue
        if not condition.holds(model):
            if path in model:
                place = f"{condition.path} is {model.get(condition.path)!r}"
                raise DoesNotApply(path, f"does not apply where {place}", f'leave it out, or add when: "{condition}"')
        elif (default := declared[path]) is not None:
            model.setdefault(path, default)
    for name in kind.sections:
        _SECTIONS[name].follow(model)
    _follow_facts(model, facts)
    return {path: model[path] for path in declared if path in model}


@cache
def _declared_of(kind: str) -> dict[str, Scalar | None]:
    """The parameters of a kind in the order of the declarations, each with its default."""
    defaults = KINDS[kind].defaults
    return {path: defaults.get(path, each.default) for path, each in DECLARATIONS.items() if KINDS[kind].has(path)}


def _kinds_remedy(task: str, path: str) -> str:
    """What to do about a parameter that a kind lacks."""
    of_task = tuple(name for name in kinds_with(path) if KINDS[name].task == task)
    if of_task:
        return f'leave it out, or add when: "{Condition("kind", of_task)}"'
    return f"leave it out: it is a parameter of {', '.join(kinds_with(path))}"


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
    kind = KINDS[model["kind"]]
    sources: list[int | Iterable[int] | None] = []
    prompt = int(model.get("embedding.prompt_length", 0))
    own = [facts.get("sequence_length")]
    if kind.has("num_encoder_layers"):
        model.setdefault("num_encoder_layers", model["num_layers"])
    if "embedding" in kind.sections:
        embedding.follow_facts(model, facts)
    if model.get("attention.cross_attention") or kind.has("num_encoder_layers"):
        sources.append(facts.get("source_length"))
    if "attention" in kind.sections:
        # A prompt stands before the tokens, an encoder_decoder's before those of its source.
        prompted, others = (sources, own) if kind.has("num_encoder_layers") else (own, sources)
        longest = _longest(prompted)
        attention.follow_lengths(model, _longest([None if longest is None else longest + prompt, *others]))
    if kind.has("classes"):
        _follow_classes(model, facts.get("classes"))


def _follow_classes(model: dict[str, Any], classes: int | None) -> None:
    if model.setdefault("classes", classes) is None:
        raise ParameterError("classes", "is missing", "name a dataset, whose classes give it, or give it")
    if classes is not None and model["classes"] < classes:
        message = f"{model['classes']} are fewer than the dataset's {classes}"
        raise ParameterError("classes", message, f"at least {classes}, or leave it out")


def _longest(lengths: Iterable[int | Iterable[int] | None]) -> int | None:
    """The largest of lengths and lists of them; None where there is none."""
    found: list[int] = []
    for length in lengths:
        found += [] if length is None else [length] if isinstance(length, int) else list(length)
    return max(found, default=None)


def broken_rules(model: Mapping[str, Scalar]) -> list[Violation]:
    """The rules between parameters that a completed model breaks; empty where it can be built."""
    sections = KINDS[str(model["kind"])].sections
    if not per_layer.has_own(model):
        of_sections = [violation for name in sections for violation in _SECTIONS[name].broken_rules(model)]
        return [*of_sections, *quantization.broken_rules(model)]
    blocks = [name for name in sections if name in _OF_BLOCKS]
    found = [v for name in sections if name not in blocks for v in _SECTIONS[name].broken_rules(model)]
    for layer, view in per_layer.distinct_views(model):
        for violation in per_layer.kept(view, "broken", lambda view: _broken_rules_of(view, blocks)):
            own = {path: str(layer._replace(path=path)) for path in violation.paths}
            paths = tuple(name if name in model else path for path, name in own.items())
            found.append(Violation(violation.rule, f"{layer.layer}: {violation.message}", paths))
    return [*found, *per_layer.broken_rules(model), *quantization.broken_rules(model)]


def _broken_rules_of(view: Mapping[str, Any], sections: Iterable[str]) -> list[Violation]:
    return [violation for name in sections for violation in _SECTIONS[name].broken_rules(view)]


def unsupported(model: Mapping[str, Scalar], capabilities: Mapping[str, Any]) -> str | None:
    """What the target lacks for this model, in words; None where it lacks nothing."""
    target = f"{capabilities['runtime']} {capabilities['version']} on {capabilities['device_model']}"
    if lacking := _lacking_format(model, capabilities) or quantization.lacking(model, capabilities):
        return f"{target} {lacking}"
    if capabilities["opset"] < LOWEST_OPSET:
        return f"{target} reads ONNX opset {capabilities['opset']}: at least {LOWEST_OPSET} is needed"
    if lacking := tensor_parallel.lacking_devices(model, capabilities):
        return f"{target} {lacking}"
    needed = weights_bytes(model)
    if needed > capabilities["device_memory_bytes"]:
        return f"the weights alone take {needed:,} bytes: {target} has {capabilities['device_memory_bytes']:,}"
    return None


def _lacking_format(model: Mapping[str, Scalar], capabilities: Mapping[str, Any]) -> str | None:
    """Which number format, or mixture of them, a target does not run, in words without its name."""
    lacks: Mapping[str, str] = capabilities.get("lacks", {})
    formats = number_format.formats(model)
    for path, dtype in formats.items():
        if dtype not in capabilities["dtypes"]:
            what = dtype if path == "dtype" or dtype == model["dtype"] else f"{path} {dtype}"
            because = f": {lacks[f'dtype {dtype}']}" if f"dtype {dtype}" in lacks else ""
            return f"does not run {what} (it runs {', '.join(capabilities['dtypes'])}){because}"
    if len(set(formats.values())) > 1 and number_format.MIXED in lacks:
        differing = next(path for path, dtype in formats.items() if dtype != model["dtype"])
        why = lacks[number_format.MIXED]
        return f"does not run {differing} {formats[differing]} in an engine of dtype {model['dtype']}: {why}"
    return None


def weights_bytes(model: Mapping[str, Scalar]) -> int:
    """What the weights of a completed model take in the number formats that its layers have."""
    config, whole = config_of(model), number_format.BYTES[str(model["dtype"])]
    own = sum(
        layer.parameter_count() * (number_format.BYTES[str(layer.dtype)] - whole)
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
    `source_length` left out: sequence_length; it matters where there is cross attention.
    """
    return config_of(model).flops(Shape(batch_size, sequence_length, source_length or sequence_length))
