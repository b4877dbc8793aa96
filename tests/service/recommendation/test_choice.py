"""Properties of the choice over random leaderboards, ties and values that are not numbers included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.expressions.metric_names import MetricNames
from layers.metrics import Goal
from service.errors import UnprocessableError
from service.recommendation.choice import (
    Candidate,
    Choice,
    CompareLosses,
    LossDifference,
    NothingWithinError,
    choose,
    find_smaller,
    rule_in_words,
)
from service.recommendation.preferences import SelectionPreferences, Within

GOALS: dict[str, Goal] = {"latency_ms_p50": "minimize", "validation_loss": "minimize", "accuracy": "maximize"}
TWO: dict[str, Goal] = {"latency_ms_p50": "minimize", "validation_loss": "minimize"}

# Few distinct values, so that ties are common; and what no measurement should be.
VALUES = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)


@st.composite
def leaderboards(draw: Any, names: Any = (*GOALS, "parameter_count")):
    count = draw(st.integers(1, 12))
    candidates = []
    for number in range(count):
        metrics = {name: draw(VALUES) for name in names if draw(st.integers(0, 9)) > 0}
        violations = {"c <= 1": draw(st.sampled_from([-1.0, -1.0, 0.0, 0.5, math.nan]))}
        feasible = draw(st.sampled_from([True, True, True, False]))
        candidates.append(Candidate(str(number), number, metrics, feasible, violations))
    return candidates


@st.composite
def wishes(draw: Any):
    metrics = [*GOALS, "parameter_count"]
    prefer = tuple(draw(st.lists(st.sampled_from(metrics), max_size=2, unique=True)))
    within = tuple(
        Within(metric, draw(st.sampled_from([0.0, 0.01, 0.5, 2.0])), draw(st.booleans()))
        for metric in draw(st.lists(st.sampled_from(metrics), max_size=2, unique=True))
    )
    weights = {} if prefer else {metric: draw(st.sampled_from([0.0, 1.0, 5.0])) for metric in list(GOALS)[:1]}
    return SelectionPreferences(prefer, within, weights)


def chosen_by(candidates: list[Candidate], goals: Mapping[str, Goal], wish: SelectionPreferences) -> Choice | None:
    try:
        return choose(candidates, goals, wish)
    except NothingWithinError:
        return None


def dominates(one: Candidate, other: Candidate, goals: Mapping[str, Goal]) -> bool:
    signs = {name: 1 if goal == "minimize" else -1 for name, goal in goals.items()}
    pairs = [(signs[name] * one.value(name), signs[name] * other.value(name)) for name in goals]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def is_able(candidate: Candidate, goals: Mapping[str, Goal]) -> bool:
    kept = all(violation <= 0 for violation in candidate.violations.values())
    return candidate.feasible and kept and all(math.isfinite(candidate.value(name)) for name in goals)


@given(leaderboards(), wishes())
def test_no_constraint_is_broken_and_nothing_dominates_the_choice(
    candidates: list[Candidate], wish: SelectionPreferences
) -> None:
    choice = chosen_by(candidates, GOALS, wish)
    if choice is None:
        return
    chosen = choice.chosen
    assert is_able(chosen, GOALS)
    assert not any(dominates(other, chosen, GOALS) for other in candidates if is_able(other, GOALS))


@given(leaderboards())
def test_there_is_a_choice_exactly_when_some_trial_is_able(candidates: list[Candidate]) -> None:
    able = [candidate for candidate in candidates if is_able(candidate, GOALS)]
    assert (choose(candidates, GOALS, SelectionPreferences()) is not None) == bool(able)


@given(leaderboards(), wishes())
def test_within_keeps_what_is_at_most_so_much_worse_than_the_fronts_best(
    candidates: list[Candidate], wish: SelectionPreferences
) -> None:
    choice = chosen_by(candidates, GOALS, wish)
    if choice is None:
        return
    for within in wish.within:
        goal = GOALS.get(within.metric, "minimize")
        sign = 1 if goal == "minimize" else -1
        best = min(sign * value for each in choice.front if math.isfinite(value := each.value(within.metric)))
        room = abs(best) * within.amount if within.is_share else within.amount
        assert sign * choice.chosen.value(within.metric) <= best + room


@given(leaderboards(), wishes(), st.sampled_from([*GOALS, "parameter_count"]))
def test_prefer_takes_the_best_of_what_is_within(
    candidates: list[Candidate], wish: SelectionPreferences, metric: Any
) -> None:
    choice = chosen_by(candidates, GOALS, SelectionPreferences((metric,), wish.within))
    if choice is None:
        return
    sign = 1 if GOALS.get(metric, "minimize") == "minimize" else -1
    values = [sign * value for each in choice.kept if not math.isnan(value := each.value(metric))]
    if values:
        assert sign * choice.chosen.value(metric) == min(values)


@given(leaderboards(), st.integers(0, 2))
def test_a_looser_limit_never_costs_what_is_preferred(candidates: list[Candidate], amount: Any) -> None:
    def preferred(room: float) -> float | None:
        wish = SelectionPreferences(("latency_ms_p50",), (Within("validation_loss", room, False),))
        choice = chosen_by(candidates, TWO, wish)
        return None if choice is None else choice.chosen.value("latency_ms_p50")

    tight, loose = preferred(amount), preferred(amount + 1.0)
    assert (tight is None) == (loose is None)
    if tight is not None and loose is not None:
        assert loose <= tight


@given(leaderboards())
def test_an_objective_with_all_the_weight_decides(candidates: list[Candidate]) -> None:
    choice = chosen_by(candidates, TWO, SelectionPreferences(weights={"latency_ms_p50": 1.0, "validation_loss": 0.0}))
    if choice is not None:
        assert choice.chosen.value("latency_ms_p50") == min(each.value("latency_ms_p50") for each in choice.front)


@given(leaderboards(), wishes(), st.randoms())
def test_the_order_of_the_rows_does_not_matter(
    candidates: list[Candidate], wish: SelectionPreferences, source: Any
) -> None:
    shuffled = list(candidates)
    source.shuffle(shuffled)
    one, other = chosen_by(candidates, GOALS, wish), chosen_by(shuffled, GOALS, wish)
    assert (one and one.chosen.id) == (other and other.chosen.id)


def by_figures(error: float | None) -> CompareLosses:
    """By the trials' own losses, whose difference has this standard error."""

    def compare(one: Candidate, other: Candidate) -> LossDifference | None:
        difference = one.value("validation_loss") - other.value("validation_loss")
        return None if error is None or not math.isfinite(difference) else LossDifference(difference, error)

    return compare


@given(leaderboards(), wishes(), st.one_of(st.none(), st.floats(0, 2)), st.floats(0, 0.5))
def test_a_dominated_trial_is_named_only_for_being_smaller_and_as_good(
    candidates: list[Candidate], wish: SelectionPreferences, error: Any, noise: Any
) -> None:
    choice = chosen_by(candidates, GOALS, wish)
    if choice is None:
        return
    smaller = find_smaller(choice, candidates, GOALS, by_figures(error), lambda one, other, metric: noise).taken
    if smaller is None:
        return
    named, before = smaller.candidate, choice.chosen
    assert smaller.instead_of is before
    assert named.keeps_constraints
    assert named.value("parameter_count") < before.value("parameter_count")
    assert named.value("validation_loss") - before.value("validation_loss") <= error
    assert named.value("latency_ms_p50") <= before.value("latency_ms_p50") + noise
    assert named.value("accuracy") >= before.value("accuracy") - noise
    for within in wish.within:
        sign = 1 if GOALS.get(within.metric, "minimize") == "minimize" else -1
        assert sign * named.value(within.metric) <= sign * choice.limits[within.metric]


def test_the_smallest_of_those_as_good_is_named() -> None:
    big = Candidate("0", 0, {"latency_ms_p50": 1.0, "validation_loss": 1.0, "parameter_count": 1000})
    middle = Candidate("1", 1, {"latency_ms_p50": 1.0, "validation_loss": 1.01, "parameter_count": 500})
    small = Candidate("2", 2, {"latency_ms_p50": 1.0, "validation_loss": 1.04, "parameter_count": 100})
    slow = Candidate("3", 3, {"latency_ms_p50": 1.2, "validation_loss": 1.0, "parameter_count": 50})
    choice = choose([big, middle, small, slow], TWO, SelectionPreferences())
    assert choice is not None
    assert choice.chosen is big

    def named(error: float | None, noise: float = 0.0) -> str | None:
        found = find_smaller(choice, [big, middle, small, slow], TWO, by_figures(error), lambda a, b, metric: noise)
        return found.taken and found.taken.candidate.id

    assert named(0.05) == "2"
    assert named(0.02) == "1"
    assert named(0.001) is None
    assert named(None) is None, "where the error is not known, nothing is as good"
    assert named(0.05, noise=0.3) == "3"


@pytest.mark.parametrize(
    ("confirmed", "taken", "unconfirmed"),
    [("", "3", None), ("0", None, "3"), ("01", "1", "3"), ("2", "2", "3"), ("012", "2", "3"), ("0123", "3", None)],
)
def test_no_unconfirmed_trial_takes_the_place_of_a_confirmed_one(
    confirmed: str, taken: str | None, unconfirmed: str | None
) -> None:
    trials = [
        Candidate(
            str(number), number, {"latency_ms_p50": 1.0, "validation_loss": 1 + number / 100, "parameter_count": n}
        )
        for number, n in enumerate((1000, 500, 100, 50))
    ]
    choice = choose(trials, TWO, SelectionPreferences())
    assert choice is not None
    found = find_smaller(choice, trials, TWO, by_figures(0.1), lambda one, other, metric: 0.0, confirmed)
    names = [each and each.candidate.id for each in (found.taken, found.unconfirmed)]
    assert names == [taken, unconfirmed]


def test_limits_that_nothing_keeps_name_the_closest_trial() -> None:
    fast = Candidate("0", 0, {"latency_ms_p50": 1.0, "validation_loss": 4.0})
    good = Candidate("1", 1, {"latency_ms_p50": 4.0, "validation_loss": 1.0})
    wish = SelectionPreferences(within=(Within("latency_ms_p50", 0.1, True), Within("validation_loss", 1.0, False)))
    with pytest.raises(NothingWithinError) as nothing:
        choose([fast, good], TWO, wish)
    assert nothing.value.closest is fast
    assert nothing.value.limits == {"latency_ms_p50": pytest.approx(1.1), "validation_loss": 2.0}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"prefer": ["speed"]}, "'speed' is not a metric"),
        ({"within": ["validation_loss"]}, "is not an amount"),
        ({"within": ["validation_loss:-1%"]}, "is not an amount"),
        ({"within": ["validation_loss:nan"]}, "is not an amount"),
        ({"within": ["validation_loss:1%", "validation_loss:2%"]}, "two limits"),
        ({"weight": ["parameter_count:2"]}, "is no objective"),
        ({"weight": ["latency_ms_p50:0", "validation_loss:0"]}, "all weights are 0"),
        ({"weight": ["latency_ms_p50:1", "latency_ms_p50:2"]}, "has a weight already"),
        ({"weight": ["latency_ms_p50:x"]}, "is not a weight"),
        ({"prefer": ["latency_ms_p50"], "weight": ["latency_ms_p50:2"]}, "both given"),
    ],
)
def test_wishes_that_cannot_be_read_are_refused_with_a_remedy(query: Any, said: Any) -> None:
    given = {"prefer": [], "within": [], "weight": []} | query
    with pytest.raises(UnprocessableError, match=said) as refused:
        SelectionPreferences.parse(list(TWO), MetricNames(), **given)
    assert all(problem.pointer and problem.remedy for problem in refused.value.problems)


def test_an_objective_without_weight_leaves_the_choice_to_the_others() -> None:
    assert SelectionPreferences.parse(
        list(TWO), MetricNames(), prefer=[], within=[], weight=["latency_ms_p50:0"]
    ).weights == {"latency_ms_p50": 0}


def test_the_rule_says_what_was_wished() -> None:
    wish = SelectionPreferences.parse(
        list(TWO), MetricNames(), prefer=["latency_ms_p50"], within=["validation_loss:1%"], weight=[]
    )
    assert "best latency_ms_p50" in rule_in_words(wish, "causal_lm", GOALS)
    assert "validation_loss:1%" in rule_in_words(wish, "causal_lm", GOALS)
    weighted = SelectionPreferences.parse(list(TWO), MetricNames(), prefer=[], within=[], weight=["latency_ms_p50:3"])
    assert "latency_ms_p50 3" in rule_in_words(weighted, "causal_lm", GOALS)
    nothing = SelectionPreferences.parse(["latency_ms_p50"], MetricNames(), prefer=[], within=[], weight=[])
    alone = rule_in_words(nothing, "causal_lm", ["latency_ms_p50"])
    assert alone.startswith("Among the feasible complete trials, the one with the best latency_ms_p50,")


@given(leaderboards(), wishes(), st.sampled_from([0.5, 1.0, 1.5]))
def test_no_trial_that_loses_to_the_baseline_is_chosen_while_another_within_the_limits_beats_it(
    candidates: list[Candidate], wish: SelectionPreferences, baseline: Any
) -> None:
    try:
        choice = choose(candidates, GOALS, wish, baseline)
    except NothingWithinError:
        return
    if choice is None:
        return
    beating = [each for each in choice.kept if each.value("validation_loss") < baseline]
    assert choice.beats_baseline(choice.chosen) == bool(beating)
    alone = choose(candidates, GOALS, wish)
    assert alone is not None
    assert [each.id for each in alone.kept if each in beating] == [each.id for each in beating], "the order stays"
    assert (choice.passed_over.id if choice.passed_over else choice.chosen.id) == alone.chosen.id


def test_a_smaller_trial_that_loses_to_the_baseline_takes_no_place() -> None:
    big = Candidate("0", 0, {"latency_ms_p50": 1.0, "validation_loss": 1.99, "parameter_count": 100.0})
    small = Candidate("1", 1, {"latency_ms_p50": 1.0, "validation_loss": 2.01, "parameter_count": 10.0})
    for baseline, found in ((None, True), (1.9, True), (2.0, False)):
        choice = choose([big], TWO, SelectionPreferences(), baseline)
        assert choice is not None
        smaller = find_smaller(choice, [small], TWO, by_figures(0.1), lambda one, other, metric: 0.0)
        assert (smaller.taken is not None) == found, baseline
