from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.results.leaderboards import Ranking

GOALS = ("minimize", "maximize")


def dominates(a, b, goals):
    signed = [(-x, -y) if goal == "maximize" else (x, y) for x, y, goal in zip(a, b, goals, strict=True)]
    return all(x <= y for x, y in signed) and any(x < y for x, y in signed)


def ranks_by_peeling(points, goals):
    """The definition: take the front off, count, repeat."""
    left, ranks, rank = dict(points), {}, 1
    while left:
        front = [name for name, a in left.items() if not any(dominates(b, a, goals) for b in left.values())]
        for name in front:
            ranks[name] = rank
            del left[name]
        rank += 1
    return ranks


@st.composite
def clouds(draw):
    goals = draw(st.lists(st.sampled_from(GOALS), min_size=1, max_size=4))
    coordinate = st.integers(0, 6).map(float) | st.floats(-1e6, 1e6)
    points = draw(st.lists(st.tuples(*[coordinate] * len(goals)), max_size=40))
    return goals, {f"t{number}": point for number, point in enumerate(points)}


@given(clouds())
@settings(max_examples=200, deadline=None)
def test_every_insertion_leaves_the_ranks_of_the_definition(cloud):
    goals, points = cloud
    ranking, known, told = Ranking(goals), {}, {}
    for name, point in points.items():
        changes = ranking.add(name, point)
        known[name] = point
        assert name in changes
        before = dict(told)
        told |= changes
        assert all(before.get(moved) != rank for moved, rank in changes.items()), "only what changed is reported"
        assert told == ranking.ranks == ranks_by_peeling(known, goals)
        assert ranking.front == [each for each in known if told[each] == 1]


@given(clouds(), st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_the_last_rank_holds_all_the_rest(cloud, last_rank):
    goals, points = cloud
    whole, ranking, told = Ranking(goals, last_rank=1000), Ranking(goals, last_rank=last_rank), {}
    for name, point in points.items():
        whole.add(name, point)
        changes = ranking.add(name, point)
        assert all(told.get(moved) != rank for moved, rank in changes.items()), "only what changed is reported"
        told |= changes
        assert told == ranking.ranks == {each: min(rank, last_rank) for each, rank in whole.ranks.items()}


def test_equal_points_share_a_rank():
    ranking = Ranking(["minimize", "minimize"])
    assert ranking.add("a", [1, 2]) == {"a": 1}
    assert ranking.add("b", [1, 2]) == {"b": 1}
    assert ranking.add("c", [2, 3]) == {"c": 2}
    assert ranking.add("d", [0, 0]) == {"d": 1, "a": 2, "b": 2, "c": 3}


def test_maximize_turns_the_comparison():
    ranking = Ranking(["minimize", "maximize"])
    ranking.add("slow and good", [9.0, 0.9])
    ranking.add("fast and bad", [1.0, 0.1])
    ranking.add("slow and bad", [9.0, 0.1])
    assert ranking.front == ["slow and good", "fast and bad"]
    assert ranking.rank("slow and bad") == 2


@pytest.mark.parametrize("values", [[1.0], [1.0, float("nan")], [float("inf"), 0.0], [1.0, 2.0, 3.0]])
def test_points_that_cannot_be_compared_are_refused(values):
    ranking = Ranking(["minimize", "minimize"])
    with pytest.raises(ValueError, match="2 finite values"):
        ranking.add("a", values)
    assert len(ranking) == 0


def test_a_point_is_ranked_once():
    ranking = Ranking(["minimize"])
    ranking.add("a", [1.0])
    with pytest.raises(ValueError, match="ranked already"):
        ranking.add("a", [0.5])
