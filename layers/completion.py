"""The completion of a model: every default filled in, and what the parameters, the data and the shapes forbid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

from layers.dataset_facts import DatasetFacts, ModelFacts
from layers.declarations import attention, embedding, per_layer
from layers.declarations.inference.generation import check_generation
from layers.declarations.inference.mode import is_generated
from layers.declarations.kinds import KINDS, TASKS, Kind, kinds_of, kinds_with
from layers.declarations.model import APPLIES, DECLARATIONS, LATER, SECTIONS
from layers.declarations.per_layer import LayerName, LayerView, layer_name
from layers.declarations.rules import Condition
from layers.parameter import REQUIRED, Parameter, ParameterError, Scalar

MOST_KEPT_LAYERS = 1_000
"""Layers that are kept completed beside the same values: most points of a space have layers that others have."""


class DoesNotApply(ParameterError):
    """A parameter that is given where it has no effect."""


def complete(task: str, values: Mapping[str, Scalar], facts: ModelFacts) -> dict[str, Scalar]:
    """Return `values` (flat paths below `model`) with every default filled in, in the order of the declarations.

    Parameters of single layers (`layers.3.mlp.kind`) come last, for every layer: see `layers.declarations.per_layer`.
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
    task: str, values: Mapping[str, Scalar], own: Mapping[str, LayerName], facts: ModelFacts
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
            own_changes = changes.get((stack, index), {})
            key = _key_of(own_changes)
            if key not in completed:
                made = _complete_layer(task, shared, LayerName(stack, index, ""), own_changes, facts)
                if len(completed) > 2 * MOST_KEPT_LAYERS:
                    completed.clear()
                # Layers that are alike are one object, however it is said that they are so.
                completed[key] = completed.setdefault(_key_of(made), LayerView(made))
            layers[stack, index] = completed[key]
    for path in (each for each in shared if each in APPLIES and all(each not in layer for layer in layers.values())):
        raise DoesNotApply(path, f"applies to no layer: {APPLIES[path]} holds in none", "leave it out")
    return per_layer.joined(layers, (name.path for name in own.values()), DECLARATIONS)


_Key = tuple[tuple[str, type, object], ...]


def _key_of(values: Mapping[str, object]) -> _Key:
    """Values by name, to look up by. With their types: 1, 1.0 and true are equal, and mean three things."""
    return tuple((path, type(values[path]), values[path]) for path in sorted(values))


def _completed_layers(task: str, shared: Mapping[str, Scalar], facts: ModelFacts) -> dict[_Key, LayerView]:
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
    task: str, shared: Mapping[str, Scalar], layer: LayerName, changes: Mapping[str, Scalar], facts: ModelFacts
) -> dict[str, Scalar]:
    """One layer's view of the model; what is wrong with it is said of that layer."""
    try:
        return _complete(task, _applying(shared, changes), facts)
    except ParameterError as error:
        if error.path not in per_layer.BLOCK_PATHS:
            raise
        path = str(layer._replace(path=error.path)) if error.path in changes else error.path
        raise type(error)(path, f"{error.message} in {layer.layer}", error.remedy) from None


def _applying(shared: Mapping[str, Scalar], changes: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A layer's values: what is given for all layers is left out if the layer's own values say that it applies not.

    So a base of rotations is the other layers' if one has no positions.
    """
    values, decided = {**shared, **changes}, set(changes)
    for path, condition in APPLIES.items():
        if path in values and path not in changes and condition.path in decided and not condition.holds(values):
            del values[path]
            decided.add(path)
    return values


def _kind(task: str, model: dict[str, Scalar]) -> tuple[str, Kind]:
    """The kind of a model, filled in if it is not given. Raises ParameterError if it does not fit the task."""
    name = str(DECLARATIONS["kind"].check("kind", model.setdefault("kind", kinds_of(task)[0])))
    if KINDS[name].task != task:
        message = f"{name!r} is a kind for {KINDS[name].task}, not for {task}"
        raise ParameterError("kind", message, f"one of: {', '.join(kinds_of(task))}; or task: {KINDS[name].task}")
    return name, KINDS[name]


def _complete(task: str, values: Mapping[str, Scalar], facts: ModelFacts) -> dict[str, Scalar]:
    """`complete` for a model whose layers are alike."""
    model = {path: _declaration(path).check(path, value) for path, value in values.items()}
    _, kind = _kind(task, model)
    for path in model:
        if path not in _declared_of(str(model["kind"])):
            raise DoesNotApply(path, f"does not apply to the kind {model['kind']}", _kinds_remedy(task, path))
    declared = _declared_of(str(model["kind"]))
    _fill_in(model, declared)
    _fill_in_conditional(model, declared)
    for name in kind.sections:
        SECTIONS[name].follow(model)
    _follow_facts(model, facts)
    return {path: model[path] for path in declared if path in model}


def _fill_in(model: dict[str, Scalar], declared: Mapping[str, Scalar | None]) -> None:
    """The defaults of parameters that always apply."""
    for path, default in declared.items():
        if path in APPLIES or path in model:
            continue
        if default is REQUIRED:
            raise ParameterError(path, "is missing", f"give {DECLARATIONS[path].meaning}")
        if default is not None:
            model[path] = default


def _fill_in_conditional(model: dict[str, Scalar], declared: Mapping[str, Scalar | None]) -> None:
    """The defaults of parameters that apply under a condition, if it holds."""
    for path, condition in APPLIES.items():
        if path not in declared:
            continue
        if not condition.holds(model):
            if path in model:
                place = f"{condition.path} is {model.get(condition.path)!r}"
                raise DoesNotApply(path, f"does not apply where {place}", f'leave it out, or add when: "{condition}"')
        elif (default := declared[path]) is not None:
            model.setdefault(path, default)


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


def _follow_facts(model: dict[str, Scalar], facts: ModelFacts) -> None:
    """What follows from the data and the shapes, and what they forbid."""
    kind = KINDS[str(model["kind"])]
    sources: list[int | Iterable[int] | None] = []
    prompt = int(model.get("embedding.prompt_length", 0))
    own: list[int | Iterable[int] | None] = [facts.get("sequence_length")]
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


def _follow_classes(model: dict[str, Scalar], classes: int | None) -> None:
    if classes is None:
        if "classes" not in model:
            raise ParameterError("classes", "is missing", "name a dataset, whose classes give it, or give it")
        return
    if int(model.setdefault("classes", classes)) < classes:
        message = f"{model['classes']} are fewer than the dataset's {classes}"
        raise ParameterError("classes", message, f"at least {classes}, or leave it out")


def _longest(lengths: Iterable[int | Iterable[int] | None]) -> int | None:
    """The largest of lengths and lists of them; None if there is none."""
    found: list[int] = []
    for length in lengths:
        found += [] if length is None else [length] if isinstance(length, int) else list(length)
    return max(found, default=None)


def check_model(
    task: str,
    model: Mapping[str, Scalar],
    inference: Mapping[str, Scalar],
    training: Mapping[str, Scalar],
    facts: DatasetFacts,
) -> None:
    """Raise ParameterError if a completed model lacks what is trained, or needs what data and shape have not."""
    if is_generated(inference):
        check_generation(model, inference)
    if training.get("trainable") == "prompt" and "embedding.prompt_length" not in model:
        raise ParameterError(
            "training.trainable",
            f"a model with embedding.kind {model['embedding.kind']} has no prompt to train",
            "choose all, or PromptTuningEmbedding",
        )
    needs_mask = "custom_mask" in per_layer.mask_types(model)
    if task == "classification" and facts and needs_mask and not facts.get("attention_mask"):
        raise ParameterError(
            "attention.attention_mask_type",
            "custom_mask needs a mask with every example, and the dataset has none",
            "upload the data as NPZ with the array attention_mask, or choose another mask",
        )
    if task == "probe" and "source_length" in inference and not model.get("attention.cross_attention"):
        raise ParameterError(
            "inference.source_length",
            "does not apply: without cross attention there is no source",
            'leave it out, or add when: "attention.cross_attention"',
        )
