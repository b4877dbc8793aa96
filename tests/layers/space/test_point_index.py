"""Points by their index: the same as the walk meets, without the walk."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.space.document import Space
from tests.layers.sweep_documents import parsed

_NUMBERS = ("num_layers", "hidden_size", "training.steps", "training.batch_size")
_CONDITIONS = (
    "num_layers > {bound}",
    "hidden_size % 3 == 0 and training.steps > {bound}",
    "training.batch_size * num_layers < {bound}",
    "mlp.ffn_hidden_size > 4 * {bound}",
    # Without a value where num_layers is 7: absent there, as in the walk.
    "12 / (num_layers - 7) > 1",
    "training.dropout > 0",
)
_CONDITIONAL: dict[str, list[Any]] = {
    "/training/dropout": [0.0, 0.1, 0.2],
    "/training/beta1": [0.9, 0.95],
    "/model/norm_position": ["pre", "post"],
    "/model/tie_embeddings": [True, False],
    "/inference/batch_size": [1, 8],
}


@st.composite
def _ranges(draw: st.DrawFn) -> dict[str, Any]:
    low, size = draw(st.integers(1, 12)), draw(st.integers(0, 6))
    made: dict[str, Any] = {"min": low, "max": low + size}
    kind = draw(st.sampled_from(["plain", "step", "log", "values"]))
    if kind == "values":
        return {"values": draw(st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True))}
    return made | ({"step": draw(st.integers(1, 3))} if kind == "step" else {"log": True} if kind == "log" else {})


@st.composite
def _changes(draw: st.DrawFn) -> dict[str, Any]:
    """Changes that make another finite document, with conditions, derivations, steps and layers that differ."""
    changes: dict[str, Any] = {"/model/attention/num_attention_heads": 1}
    for name in _NUMBERS:
        section, _, path = name.rpartition(".")
        changes[f"/{section or 'model'}/{path}"] = draw(_ranges())
    changes["/model/mlp/ffn_hidden_size"] = {
        "derived": draw(st.sampled_from(["4 * hidden_size", "num_layers + 1", "12 // (num_layers - 7)"]))
    }
    for pointer in draw(st.lists(st.sampled_from(sorted(_CONDITIONAL)), unique=True)):
        opened: dict[str, Any] = {"values": _CONDITIONAL[pointer]}
        if draw(st.booleans()):
            texts = [text for text in _CONDITIONS if pointer != "/training/dropout" or "dropout" not in text]
            opened["when"] = draw(st.sampled_from(texts)).format(bound=draw(st.integers(1, 12)))
            if "training.dropout" in opened["when"]:
                changes.setdefault("/training/dropout", {"min": 0.0, "max": 0.3, "step": 0.1})
        changes[pointer] = opened
    if draw(st.booleans()):
        changes["/model/num_layers"] = {"min": draw(st.integers(1, 3)), "max": 3}
        changes["/model/mlp/kind"] = {"values": ["MLP", "GatedMLP"], "per_layer": True}
        if draw(st.booleans()):
            changes["/model/mlp/bias"] = {"values": [True, False], "per_layer": True, "when": "mlp.kind == 'MLP'"}
    return changes


@settings(max_examples=150, deadline=None)
@given(_changes(), st.data())
def test_a_point_by_its_index_is_the_one_that_the_walk_meets(changes: dict[str, Any], data: st.DataObject) -> None:
    space = parsed(changes).space
    points = space.points()
    assert points is not None
    some = sorted(data.draw(st.sets(st.integers(0, min(points, 20_000) - 1), max_size=40)) | {0})
    walked = {
        index: list(point.items()) for index, point in enumerate(itertools.islice(space.enumerate(), some[-1] + 1))
    }
    assert {index: list(space.at(index).items()) for index in some} == {index: walked[index] for index in some}


@settings(max_examples=60, deadline=None)
@given(_changes())
def test_as_many_points_are_counted_as_the_walk_meets(changes: dict[str, Any]) -> None:
    space = parsed(changes).space
    points = space.points()
    assert points is not None
    if points <= 3_000:
        assert [list(space.at(index).items()) for index in range(points)] == [
            list(point.items()) for point in space.enumerate()
        ]
        assert points == sum(1 for _ in space.enumerate())


def deep(layers: int) -> Space:
    """A space of 12 ** layers points and more, of which conditions see the number of layers alone."""
    return parsed(
        {
            "/model/num_layers": {"min": 1, "max": layers},
            "/model/mlp/kind": {"values": ["MLP", "GatedMLP"], "per_layer": True},
            "/model/mlp/ffn_hidden_size": {"values": [128, 256, 512], "per_layer": True},
            "/model/mlp/hidden_act": {"values": ["gelu", "silu"], "per_layer": True},
        }
    ).space


def test_layers_that_differ_are_counted_without_a_walk() -> None:
    space = deep(4)
    # GOOD's three widths and two numbers of heads, and 12 ways for each layer.
    assert space.points() == 6 * (12 + 12**2 + 12**3 + 12**4)
    last = (space.points() or 0) - 1
    assert space.at(last)["layers.3.mlp.hidden_act"] == "silu"
    assert "layers.1.mlp.kind" not in space.at(0)


def test_a_space_beyond_a_million_points_is_not_counted() -> None:
    space = deep(32)
    assert space.points() is None
    with pytest.raises(ValueError, match="too many"):
        space.at(0)


@pytest.mark.parametrize("index", [-1, 24])
def test_an_index_outside_has_no_point(index: int) -> None:
    space = parsed().space
    assert space.points() == 24
    with pytest.raises(IndexError):
        space.at(index)


def test_branches_with_few_points_are_counted_again_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layers.space.point_index.ALWAYS_KEPT", 0)
    space = parsed(
        {
            "/training/steps": {"min": 1, "max": 40},
            "/training/batch_size": {"min": 1, "max": 9},
            "/training/dropout": {"values": [0.0, 0.1], "when": "training.steps % training.batch_size == 0"},
        }
    ).space
    assert [space.at(index) for index in range(space.points() or 0)] == list(space.enumerate())
