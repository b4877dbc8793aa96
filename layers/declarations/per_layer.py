"""Blocks that differ: `layers.3.mlp.ffn_hidden_size` is a block's parameter for one layer alone.

Layers are counted from 0; those of an encoder_decoder's encoder are `encoder_layers.3.…`. A completed model has each of
a block's parameters either once, for all of its layers, or once for every layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from layers.declarations import attention, mlp, normalization
from layers.declarations.masks import PADDING_MASKS
from layers.declarations.rules import Violation
from layers.parameter import Scalar

T = TypeVar("T")

STACKS = {"layers": "num_layers", "encoder_layers": "num_encoder_layers"}
"""What the names of layers begin with, and the parameter that says how many there are."""

OF_ALL_LAYERS = ("attention.cross_attention", "attention.max_position_embeddings")
"""Parameters of a block's sections that are the whole stack's."""

DECODER_ONLY = ("attention.attention_mask_type", "attention.max_attention_window_size")
"""What an encoder_decoder's encoder does not choose: it sees all of the source but padding."""

OF_BLOCKS = ("norm_position", "residual", "shared_norm")
"""The model's own parameters that are a block's."""

BLOCK_PATHS: tuple[str, ...] = (
    *OF_BLOCKS,
    *(
        path
        for name, section in (("attention", attention), ("mlp", mlp), ("norm", normalization))
        for path in (f"{name}.{key}" for key in section.PARAMETERS)
        if path not in OF_ALL_LAYERS
    ),
)
"""The parameters that may differ from layer to layer."""

_ORDER = {path: place for place, path in enumerate(BLOCK_PATHS)}
_NAME = re.compile(rf"({'|'.join(STACKS)})\.(0|[1-9][0-9]{{0,3}})\.(.+)", re.ASCII)
_SECTION = re.compile(rf"({'|'.join(STACKS)})(\.(0|[1-9][0-9]{{0,3}})(\.(attention|mlp|norm))?)?", re.ASCII)


class LayerName(NamedTuple):
    """The name of one layer's parameter, in its parts."""

    stack: str
    number: int
    path: str

    def __str__(self) -> str:
        return f"{self.stack}.{self.number}.{self.path}"

    @property
    def layer(self) -> str:
        """The layer in words."""
        return f"{'encoder ' if self.stack == 'encoder_layers' else ''}layer {self.number}"


@lru_cache(maxsize=1 << 16)
def layer_name(name: str) -> LayerName | None:
    """The parts of a layer's own name (whether or not its path is a block's); None for any other name."""
    match = _NAME.fullmatch(name)
    return None if match is None else LayerName(match[1], int(match[2]), match[3])


def is_section(name: str) -> bool:
    """Whether parameters of a layer lie below `name`."""
    return _SECTION.fullmatch(name) is not None


def base_path(name: str) -> str:
    """The parameter that a layer's own name is a case of; any other name itself."""
    found = layer_name(name)
    return name if found is None else found.path


def place_of(name: LayerName) -> tuple[int, int, int]:
    """Where a layer's name stands among others in a completed model: by stack, layer, and declaration."""
    return (list(STACKS).index(name.stack), name.number, _ORDER.get(name.path, len(_ORDER)))


def has_own(model: Mapping[str, Scalar]) -> bool:
    """Whether some layer of a model has parameters of its own."""
    return isinstance(model, LayeredModel) or any(name.startswith(("layers.", "encoder_layers.")) for name in model)


class LayerView(dict[str, Scalar]):
    """One layer by itself: the model as it were if all of its layers were like this one. Not changed once it is made.

    `kept` holds what was found out about it: of the thousands of points that validation looks at, many have it.
    """

    __slots__ = ("kept",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[type[LayerView], tuple[dict[str, Scalar]]]:
        return LayerView, (dict(self),)


class LayeredModel(dict[str, Scalar]):
    """A completed model of layers that differ, with its layers' views if they are known. Not changed once made."""

    __slots__ = ("layers",)

    def __init__(self, values: Mapping[str, Scalar], layers: tuple[LayerView, ...] | None = None) -> None:
        super().__init__(values)
        self.layers = layers

    def __reduce__(self) -> tuple[type[dict[str, Scalar]], tuple[dict[str, Scalar]]]:
        return dict, (dict(self),)


def kept(view: Mapping[str, Scalar], key: object, make: Callable[[Mapping[str, Scalar]], T]) -> T:
    """What `make` finds out about a layer's view, kept with it under `key`; of any other model it is made anew."""
    if not isinstance(view, LayerView):
        return make(view)
    if key not in view.kept:
        view.kept[key] = make(view)
    return view.kept[key]


def views(model: Mapping[str, Scalar], stack: str = "layers") -> tuple[Mapping[str, Scalar], ...]:
    """Each layer of a completed model's stack by itself: the model as it were if all of its layers were like this one.

    Layers that are alike are the same object.
    """
    if stack == "layers" and isinstance(model, LayeredModel) and model.layers is not None:
        return model.layers
    count = int(model[STACKS[stack]])
    if not has_own(model):
        return (model,) * count
    shared = {name: value for name, value in model.items() if layer_name(name) is None}
    if stack == "encoder_layers":
        # Not read if the mask is known to be the source's padding, but a view is whole.
        shared.setdefault("attention.attention_mask_type", "causal")
    own: list[dict[str, Scalar]] = [{} for _ in range(count)]
    for name, value in model.items():
        found = layer_name(name)
        if found is not None and found.stack == stack and found.number < count:
            own[found.number][found.path] = value
    made: dict[tuple[tuple[str, Any], ...], LayerView] = {}
    for each in own:
        key = tuple(sorted(each.items()))
        if key not in made:
            made[key] = LayerView({**shared, **each})
    return tuple(made[tuple(sorted(each.items()))] for each in own)


def spelt_out(model: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Every block's parameter of every layer by the layer's own name, whether or not the layers differ in it."""
    return {
        f"{stack}.{index}.{path}": view[path]
        for stack, count in STACKS.items()
        if count in model
        for index, view in enumerate(views(model, stack))
        for path in BLOCK_PATHS
        if path in view and _has((stack, index), path)
    }


def distinct_views(model: Mapping[str, Scalar]) -> Iterator[tuple[LayerName, Mapping[str, Scalar]]]:
    """The layers of all stacks that differ, each once, with the first that is so (its path is empty)."""
    for stack in STACKS:
        seen: set[int] = set()
        if STACKS[stack] in model and any(name.startswith(f"{stack}.") for name in model):
            for index, view in enumerate(views(model, stack)):
                if id(view) not in seen:
                    seen.add(id(view))
                    yield LayerName(stack, index, ""), view


def joined(layers: Mapping[tuple[str, int], LayerView], given: Iterable[str], order: Iterable[str]) -> LayeredModel:
    """One completed model of the layers of its stacks, each completed by itself, by stack and number.

    A block's parameter that is `given` for a layer, or is not the same in all, is every layer's own. `order`: paths.
    """
    first = next(iter(layers.values()))
    distinct = {(stack, id(layer)): layer for (stack, _), layer in layers.items()}
    apart = {stack: set[str]() for stack in STACKS}
    for (stack, _), layer in distinct.items():
        apart[stack] |= kept(layer, ("apart", id(first)), lambda layer: _Apart(first, layer)).paths
    differing = apart["layers"] | {path for path in apart["encoder_layers"] if path not in DECODER_ONLY}
    own = {*given, *(path for path in BLOCK_PATHS if path in differing)}
    in_order = [path for path in BLOCK_PATHS if path in own]
    model = {path: first[path] for path in order if path in first and path not in own}
    for (stack, index), layer in layers.items():
        names = _names(stack, index)
        for path in in_order:
            if path in layer and _has((stack, index), path):
                model[names[path]] = layer[path]
    # In whatever else they differ, the model is as its first layer says, and so are its views.
    is_of_one_stack = all(stack == "layers" for stack, _ in distinct)
    return LayeredModel(model, tuple(layers.values()) if is_of_one_stack and differing.issubset(_ORDER) else None)


class _Apart:
    """What a layer has otherwise than the first one, which is kept from being another by and by."""

    __slots__ = ("first", "paths")

    def __init__(self, first: Mapping[str, Scalar], layer: Mapping[str, Scalar]) -> None:
        self.first = first
        self.paths = frozenset(
            path for path in {**first, **layer} if (path in first, first.get(path)) != (path in layer, layer.get(path))
        )


@lru_cache(maxsize=1 << 10)
def _names(stack: str, index: int) -> dict[str, str]:
    """What each parameter of a block is called in one layer."""
    return {path: f"{stack}.{index}.{path}" for path in BLOCK_PATHS}


def _has(layer: tuple[str, int], path: str) -> bool:
    return layer[0] == "layers" or path not in DECODER_ONLY


def mask_types(model: Mapping[str, Scalar]) -> set[str]:
    """The masks of a completed model's attention; of an encoder_decoder its decoder's. Empty without attention."""
    if isinstance(model, LayeredModel) and model.layers is not None:
        found = {layer.get("attention.attention_mask_type") for layer in model.layers}
        return {str(value) for value in found if value is not None}
    own = {value for name, value in model.items() if base_path(name) == "attention.attention_mask_type"}
    return {str(value) for value in own}


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    """What does not go together in layers that differ, each of which is right by itself."""
    masks = mask_types(model)
    if "custom_mask" in masks and masks & set(PADDING_MASKS):
        message = f"layers with the masks {' and '.join(sorted(masks))} would need two masks with each example"
        yield Violation("one mask with each example", message, ("attention.attention_mask_type",))


def broken_sharing(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    """What layers that share weights cannot have."""
    sharing = int(model.get("layers_sharing_weights", 1))
    if sharing == 1:
        return
    for stack, count in STACKS.items():
        if count not in model:
            continue
        paths = (count, "layers_sharing_weights")
        if int(model[count]) % sharing:
            message = f"{count} {model[count]} is not a multiple of the {sharing} layers that share weights"
            yield Violation(f"{count} % layers_sharing_weights", message, paths)
        found = views(model, stack)
        if any(layer != found[number - number % sharing] for number, layer in enumerate(found)):
            message = f"layers that share weights are alike: each {sharing} of {stack} are to have the same parameters"
            yield Violation("layers that share weights are alike", message, ("layers_sharing_weights",))
