"""The grid's order: a permutation that never changes, and its points at once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from layers.space.document import Space
from service.scheduling.grid import ShuffledGrid
from tests.layers.sweep_documents import parsed

LARGE: dict[str, Any] = {
    "/model/num_layers": {"min": 1, "max": 50},
    "/model/hidden_size": {"min": 64, "max": 1280, "step": 64},
    "/model/attention/num_attention_heads": {"values": [1, 2, 4, 8]},
    "/model/mlp/kind": {"values": ["MLP", "GatedMLP"]},
    "/training/batch_size": {"values": [1, 2, 4, 8, 16]},
    "/training/learning_rate": {"min": 0.001, "max": 0.025, "step": 0.001},
}
"""A million points."""

CONDITIONAL: dict[str, Any] = {
    "/model/num_layers": {"min": 1, "max": 3},
    "/model/mlp/kind": {"values": ["MLP", "GatedMLP"], "per_layer": True},
    "/model/mlp/bias": {"values": [True, False], "per_layer": True, "when": "mlp.kind == 'MLP'"},
    "/training/dropout": {"values": [0.0, 0.1], "when": "hidden_size > 32"},
}


def order(changes: dict[str, Any], seed: int = 0) -> ShuffledGrid:
    space: Space = parsed(changes).space
    return ShuffledGrid(space, space.points() or 0, seed)


def digest(points: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(points).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("changes", "seed", "expected"),
    [
        ({}, 0, "11ae41bbe7b9bcfd"),
        ({}, 7, "2430a97bf3ee093c"),
        (CONDITIONAL, 0, "b24f2a26ea4ba3de"),
        (CONDITIONAL, 2**32 - 1, "1fb6613e4c391f81"),
    ],
)
def test_the_order_is_what_it_always_was(changes: dict[str, Any], seed: int, expected: str) -> None:
    # Of the version that enumerated the space: a sweep that began with it goes on from its position.
    made = order(changes, seed)
    assert digest([made.at(position) for position in range(len(made))]) == expected


def test_every_point_comes_once() -> None:
    made = order(CONDITIONAL)
    points = [tuple(made.at(position).items()) for position in range(len(made))]
    assert len(set(points)) == len(points) == len(list(parsed(CONDITIONAL).space.enumerate()))


def test_a_million_points_are_had_from_any_position(monkeypatch: pytest.MonkeyPatch) -> None:
    made = order(LARGE, seed=3)

    def walk(space: Space) -> None:
        raise AssertionError("the space is enumerated")

    monkeypatch.setattr(Space, "walk", walk)
    assert len(made) == 10**6
    assert digest([made.at(position) for position in (0, 1, 4_095, 4_096, 500_000, 999_999)]) == "5a1e45441148448f"
    with pytest.raises(IndexError):
        made.at(10**6)


def test_sweeps_with_one_seed_share_their_permutation() -> None:
    one, other = order(CONDITIONAL, seed=11), order(CONDITIONAL, seed=11)
    assert one._indexes is other._indexes
    assert order(CONDITIONAL, seed=12)._indexes is not one._indexes
