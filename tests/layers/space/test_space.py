"""Spaces: their points, conditions, rules, and what validation finds out about them."""

import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.capabilities import Capabilities
from layers.declarations.model import broken_rules
from layers.space.document import PointError, Space, flatten
from layers.space.feasibility import FEWEST_SAMPLES, SAMPLES, FeasibilityReport, measure_feasibility
from tests.layers.sweep_documents import measured, parsed, problems

CAPABILITIES: Capabilities = {
    "runtime": "onnxruntime",
    "version": "1.32.0",
    "device_model": "a CPU",
    "opset": 23,
    "dtypes": ["float32"],
    "device_memory_bytes": 2**30,
}

ROPE = "position_embedding_type == 'rope_gpt_neox'"
CONDITIONAL: dict[str, Any] = {
    "/model/attention/position_embedding_type": {"values": ["learned_absolute", "rope_gpt_neox"]},
    "/model/attention/rotary_embedding_base": {"values": [1e4, 1e5, 1e6], "when": ROPE},
    "/model/attention/rotary_embedding_percentage": {
        "values": [0.5, 1.0],
        "when": "attention.rotary_embedding_base > 1e4",
    },
}


def space(changes: dict[str, Any] | None = None) -> Space:
    return parsed(changes or {}).space


def chosen(**changes: Any) -> dict[str, Any]:
    return {"num_layers": 2, "hidden_size": 64, "attention.num_attention_heads": 2} | changes


# --- points ---------------------------------------------------------------------------------------------------------


def test_a_point_has_what_is_fixed_chosen_and_derived() -> None:
    made = space({"/model/mlp/ffn_hidden_size": {"derived": "4 * hidden_size"}, "/training/steps": 10})
    values = made.resolve(chosen())
    assert values == {**chosen(), "mlp.ffn_hidden_size": 256, "training.steps": 10}
    assert made.shown(values) == {**chosen(), "mlp.ffn_hidden_size": 256}


def test_a_configuration_has_every_default_filled_in() -> None:
    made = space({"/inference": {"batch_size": 4, "sequence_length": 32}, "/training/sequence_length": 48})
    configuration = made.configuration(made.resolve(chosen()))
    assert configuration["task"] == "causal_lm"
    assert configuration["model"]["attention.attention_head_size"] == 32
    assert configuration["model"]["embedding.num_embeddings"] == 256
    assert configuration["model"]["attention.max_position_embeddings"] == 48
    assert configuration["training"]["steps"] == 500
    assert configuration["inference"] == {"batch_size": 4, "sequence_length": 32}
    assert broken_rules(configuration["model"]) == []


def test_a_configuration_has_names_that_constraints_can_use() -> None:
    made = space()
    flat = flatten(made.configuration(made.resolve(chosen())))
    assert flat["hidden_size"] == 64
    assert flat["mlp.kind"] == "MLP"
    assert flat["training.batch_size"] == 32
    assert flat["inference.sequence_length"] == 128


@pytest.mark.parametrize(
    ("given_values", "name", "word"),
    [
        (chosen(hidden_size=48), "hidden_size", "32, 64, 96"),
        (chosen(num_layers=5), "num_layers", "from 1 to 4"),
        (chosen(num_layers=True), "num_layers", "from 1 to 4"),
        (chosen(num_layers="2"), "num_layers", "from 1 to 4"),
        (chosen(num_heads=2), "num_heads", "attention.num_attention_heads"),
        (chosen(dtype="float32"), "dtype", "not an open parameter"),
        ({"num_layers": 2, "hidden_size": 64}, "attention.num_attention_heads", "one of: 2, 3"),
    ],
)
def test_what_is_no_point_is_refused_with_the_parameter_named(
    given_values: dict[str, Any], name: str, word: str
) -> None:
    with pytest.raises(PointError) as refused:
        space().resolve(given_values)
    assert refused.value.name == name
    assert word in str(refused.value)
    assert refused.value.rejection().violation > 0


def test_steps_mean_decimal_numbers() -> None:
    made = space({"/training/dropout": {"min": 0, "max": 0.3, "step": 0.1}})
    (dropout,) = (parameter for parameter in made.open if parameter.name == "training.dropout")
    assert list(dropout.choices()) == [0.0, 0.1, 0.2, 0.3]
    values = made.resolve(chosen(**{"training.dropout": 0.1 + 0.2}))
    assert values["training.dropout"] == 0.3
    with pytest.raises(PointError, match="steps"):
        made.resolve(chosen(**{"training.dropout": 0.15}))


def test_values_are_ordinal_where_they_are_numbers() -> None:
    made = space({"/model/hidden_size": {"values": [96, 32, 64]}, "/model/mlp/bias": {"values": [True, False]}})
    by_name = {parameter.name: parameter for parameter in made.open}
    assert by_name["hidden_size"].values == (32, 64, 96)
    assert by_name["hidden_size"].ordinal
    assert by_name["mlp.bias"].values == (True, False)
    assert not by_name["mlp.bias"].ordinal


# --- conditions -----------------------------------------------------------------------------------------------------


def test_parameters_are_suggested_after_what_their_conditions_name() -> None:
    made = space(CONDITIONAL)
    names = [parameter.name for parameter in made.open]
    position = names.index("attention.position_embedding_type")
    base = names.index("attention.rotary_embedding_base")
    assert position < base < names.index("attention.rotary_embedding_percentage")


def test_the_order_does_not_depend_on_the_documents() -> None:
    """Databases do not keep the order of keys; suggestions must not change with it."""
    one, other = parsed(CONDITIONAL), parsed(dict(reversed(CONDITIONAL.items())))
    assert [parameter.name for parameter in one.space.open] == [parameter.name for parameter in other.space.open]
    assert list(one.space.enumerate()) == list(other.space.enumerate())


def test_a_parameter_whose_condition_is_false_is_absent() -> None:
    made = space(CONDITIONAL)
    by_name = {parameter.name: parameter for parameter in made.open}
    base, percentage = (by_name[f"attention.rotary_embedding_{last}"] for last in ("base", "percentage"))
    learned = chosen(**{"attention.position_embedding_type": "learned_absolute"})
    rope = chosen(**{"attention.position_embedding_type": "rope_gpt_neox"})
    assert not made.active(base, learned)
    assert made.active(base, rope)
    # A condition that names an absent parameter is false.
    assert not made.active(percentage, learned)
    assert not made.active(percentage, rope | {base.name: 1e4})
    assert made.active(percentage, rope | {base.name: 1e5})
    assert base.name not in made.resolve(learned)
    with pytest.raises(PointError, match="absent"):
        made.resolve(learned | {base.name: 1e4})
    with pytest.raises(PointError, match="has no value"):
        made.resolve(rope)


def test_a_rule_that_names_an_absent_parameter_is_skipped() -> None:
    made = space(CONDITIONAL | {"/rules": ["rotary_embedding_base < 0"]})
    learned = made.resolve(chosen(**{"attention.position_embedding_type": "learned_absolute"}))
    rope = {"attention.position_embedding_type": "rope_gpt_neox", "attention.rotary_embedding_base": 1e4}
    assert made.judge(learned) is None
    assert made.judge(made.resolve(chosen(**rope))) is not None


def test_a_condition_may_depend_on_derived_values_and_defaults() -> None:
    made = space(
        {
            "/model/mlp/ffn_hidden_size": {"derived": "hidden_size * 2"},
            "/model/dtype": {"values": ["float32", "float16"], "when": "mlp.ffn_hidden_size > 100 and mlp.bias"},
        }
    )
    (dtype,) = (parameter for parameter in made.open if parameter.name == "dtype")
    assert made.active(dtype, {"hidden_size": 64})
    assert not made.active(dtype, {"hidden_size": 32})
    assert made.points() == 4 * 2 * (2 + 2 + 1)


def test_a_fixed_value_can_have_a_condition() -> None:
    made = space(CONDITIONAL | {"/model/attention/rotary_embedding_base": {"value": 5e5, "when": ROPE}})
    learned = made.resolve(chosen(**{"attention.position_embedding_type": "learned_absolute"}))
    assert "attention.rotary_embedding_base" not in learned
    assert made.judge(learned) is None


def test_a_parameter_that_does_not_apply_somewhere_needs_a_condition() -> None:
    (problem,) = problems(CONDITIONAL | {"/model/attention/rotary_embedding_base": {"values": [1e4, 1e5]}})
    assert problem.pointer == "/model/attention/rotary_embedding_base"
    assert "when" in problem.remedy


# --- rules and judging ----------------------------------------------------------------------------------------------


def test_the_first_thing_that_is_broken_is_named() -> None:
    made = space({"/rules": ["hidden_size >= 64", "num_layers < 3"], "/constraints": ["parameter_count <= 1000"]})
    first = made.judge(made.resolve(chosen(hidden_size=32, num_layers=4)))
    second = made.judge(made.resolve(chosen(num_layers=4)))
    third = made.judge(made.resolve(chosen()))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.rule, first.violation) == ("hidden_size >= 64", 32)
    assert "hidden_size = 32" in first.message
    assert (second.rule, second.violation) == ("num_layers < 3", 1)
    assert third.rule == "parameter_count <= 1000"
    metrics = made.static_metrics(made.resolve(chosen()))
    assert third.violation == metrics["parameter_count"] - 1000


def test_the_models_own_rules_are_kept() -> None:
    rejection = space().judge(space().resolve(chosen(hidden_size=64, **{"attention.num_attention_heads": 3})))
    assert rejection is not None
    assert rejection.rule == "hidden_size % num_attention_heads"
    assert rejection.violation > 0


def test_rules_may_name_what_follows_from_other_parameters() -> None:
    made = space({"/rules": ["attention.attention_head_size in [32]", "training.steps == 500"]})
    assert made.judge(made.resolve(chosen())) is None
    rejection = made.judge(made.resolve(chosen(hidden_size=32)))
    assert rejection is not None
    assert rejection.rule == "attention.attention_head_size in [32]"


def test_constraints_on_later_metrics_do_not_reject_points() -> None:
    made = space({"/constraints": ["latency_ms_p50 <= 0", "validation_loss <= 0"]})
    assert made.judge(made.resolve(chosen())) is None


def test_what_the_target_lacks_rejects_a_point() -> None:
    made = space({"/model/dtype": {"values": ["float32", "float16"]}})
    half = made.resolve(chosen(dtype="float16"))
    assert made.judge(half) is None
    rejection = made.judge(half, CAPABILITIES)
    assert rejection is not None
    assert rejection.rule == "target"
    assert "float16" in rejection.message
    assert made.judge(made.resolve(chosen(dtype="float32")), CAPABILITIES) is None


def test_a_derived_value_out_of_bounds_rejects_its_point_alone() -> None:
    sweep, report = measured({"/model/mlp/ffn_hidden_size": {"derived": "hidden_size - 32"}})
    assert report.rejections["mlp.ffn_hidden_size"] == pytest.approx(1 / 3)
    rejection = sweep.space.judge(sweep.space.resolve(chosen(hidden_size=32)))
    assert rejection is not None
    assert rejection.rule == "mlp.ffn_hidden_size"


def test_sections_that_contradict_each_other_reject_a_point() -> None:
    _, report = measured({"/training": {"steps": {"values": [10, 100]}, "warmup_steps": 50}})
    assert report.rejections["training.warmup_steps"] == pytest.approx(1 / 2)


# --- what validation refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        (
            {"/model/mlp/ffn_hidden_size": {"derived": "hidden_size / 5"}},
            "/model/mlp/ffn_hidden_size",
            ["integer", "hidden_size = 32", "6.4"],
        ),
        (
            {"/model/mlp/ffn_hidden_size": {"derived": "hidden_size // (num_layers - 2)"}},
            "/model/mlp/ffn_hidden_size",
            ["division by zero", "num_layers = 2"],
        ),
        (
            {"/model/mlp/ffn_hidden_size": {"derived": "2 ** hidden_size"}},
            "/model/mlp/ffn_hidden_size",
            ["too large", "hidden_size = 64"],
        ),
        (
            CONDITIONAL | {"/model/mlp/ffn_hidden_size": {"derived": "round_up(attention.rotary_embedding_base, 1)"}},
            "/model/mlp/ffn_hidden_size",
            ["attention.rotary_embedding_base, which is absent"],
        ),
        ({"/rules": ["hidden_size % (num_layers - 2) == 0"]}, "/rules/0", ["division by zero", "num_layers = 2"]),
        (
            {"/model/dtype": {"value": "float16", "when": "hidden_size / (num_layers - 1) > 1"}},
            "/model/dtype",
            ["division by zero", "num_layers = 1"],
        ),
    ],
)
def test_a_value_that_some_point_does_not_have_is_an_error_with_an_example(
    changes: dict[str, Any], pointer: str, words: list[str]
) -> None:
    (problem,) = problems(changes)
    assert problem.pointer == pointer
    assert all(word in problem.detail for word in words), problem


def test_points_that_a_rule_excludes_need_no_derived_value() -> None:
    sweep, report = measured(
        {
            "/model/mlp/ffn_hidden_size": {"derived": "hidden_size / (num_layers - 2)"},
            "/rules": ["num_layers != 2", "hidden_size % 32 == 0"],
        }
    )
    assert report.rejections["num_layers != 2"] == pytest.approx(1 / 4)
    with pytest.raises(PointError):
        sweep.space.resolve(chosen())


@pytest.mark.parametrize(
    ("changes", "pointer", "word"),
    [
        ({"/rules": ["hidden_size > 0", "hidden_size < num_layers"]}, "/rules/1", "hidden_size < num_layers"),
        ({"/constraints": ["latency_ms_p50 < 1", "parameter_count < 10"]}, "/constraints/1", "parameter_count is"),
        ({"/model/embedding/num_embeddings": 100}, "/model/embedding/num_embeddings", "vocabulary"),
        ({"/model/attention/num_attention_heads": 5}, "/model", "hidden_size % num_attention_heads"),
        ({"/model/hidden_size": 32, "/model/num_layers": 1, "/rules": ["hidden_size > 32"]}, "/rules/0", "hidden_size"),
    ],
)
def test_a_space_without_a_feasible_point_is_refused_by_what_rejects_most(
    changes: dict[str, Any], pointer: str, word: str
) -> None:
    (problem,) = problems(changes)
    assert problem.pointer == pointer
    assert word in problem.detail
    # A space that was looked at as a whole has no feasible point: nothing to override.
    (again,) = problems(changes | {"/allow_sparse": True})
    assert again == problem


def test_the_rule_that_rejects_most_is_named_first_and_the_others_after_it() -> None:
    (problem,) = problems({"/rules": ["num_layers == 4", "hidden_size == 31"]})
    assert problem.pointer == "/rules/0"
    assert "num_layers == 4 rejects 75.0%" in problem.detail
    assert "hidden_size == 31 (25.0%)" in problem.detail


def test_sparse_spaces_that_are_sampled_can_be_allowed() -> None:
    sparse: dict[str, Any] = {
        "/training/learning_rate": {"min": 1e-6, "max": 1.0},
        "/rules": ["training.learning_rate < 1.1e-6"],
    }
    (problem,) = problems(sparse)
    assert problem.pointer == "/rules/0"
    assert f"{SAMPLES:,} sampled points" in problem.detail
    assert "allow_sparse" in problem.remedy
    _, report = measured(sparse | {"/allow_sparse": True})
    assert (report.feasible_share, report.sampled) == (0, True)


# --- counting, walking and drawing ----------------------------------------------------------------------------------


def test_points_of_a_conditional_space_are_counted_once() -> None:
    made = space(CONDITIONAL)
    # learned_absolute: 1; rope: base 1e4 alone, 1e5 and 1e6 with two percentages each.
    assert made.points() == 4 * 3 * 2 * (1 + 1 + 2 * 2)
    assert len({tuple(sorted(point.items())) for point in made.enumerate()}) == made.points()


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({}, 24),
        ({"/model/num_layers": 2, "/model/hidden_size": 64, "/model/attention/num_attention_heads": 2}, 1),
        ({"/training/seed": {"min": 0, "max": 9_999}}, 240_000),
        ({"/training/seed": {"min": 0, "max": 99_999}}, None),
        ({"/training/dropout": {"min": 0.0, "max": 0.5}}, None),
        ({"/training/dropout": {"min": 0.0, "max": 0.5, "step": 0.2}}, 72),
        ({"/training/batch_size": {"min": 8, "max": 64, "log": True}}, 24 * 57),
    ],
)
def test_points_are_counted_up_to_a_million(changes: dict[str, Any], points: int | None) -> None:
    assert space(changes).points() == points


def test_a_continuous_space_cannot_be_enumerated() -> None:
    with pytest.raises(ValueError, match="continuous"):
        list(space({"/training/dropout": {"min": 0.0, "max": 0.5}}).enumerate())


def test_the_feasible_share_is_over_distinct_points() -> None:
    _, report = measured(CONDITIONAL | {"/rules": ["rotary_embedding_base > 1e4"]})
    # Of the 6 ways to place tokens one has a base of 1e4; of the 3 widths 64 cannot have 3 heads.
    assert report.points == 144
    assert report.rejections["attention.rotary_embedding_base > 1e4"] == pytest.approx(1 / 6)
    heads = report.rejections["hidden_size % num_attention_heads"]
    assert heads == pytest.approx(5 / 6 * 2 / 6)
    assert report.feasible_share == pytest.approx(5 / 6 * 4 / 6)
    assert not report.sampled


def test_the_share_of_a_continuous_space_is_sampled_and_the_same_every_time() -> None:
    changes = {"/training/learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}, "/rules": ["learning_rate < 1e-3"]}
    _, report = measured(changes)
    assert report.sampled
    assert report.points is None
    assert report.rejections["training.learning_rate < 1e-3"] == pytest.approx(1 / 2, abs=0.02)
    assert measured(changes)[1] == report


def test_a_finite_space_that_would_take_too_long_is_sampled() -> None:
    _, report = measured(
        {
            "/model/num_layers": {"min": 1, "max": 100},
            "/model/hidden_size": {"min": 6, "max": 1000, "step": 6},
            "/model/norm/eps": {"values": [1e-6, 1e-5, 1e-4, 1e-3]},
        }
    )
    assert report.points == 100 * 166 * 2 * 4
    assert report.sampled
    assert report.feasible_share == 1


def test_a_large_space_with_few_models_is_judged_as_a_whole() -> None:
    _, report = measured({"/training/seed": {"min": 0, "max": 4_999}})
    assert report.points == 120_000
    assert not report.sampled
    assert report.feasible_share == pytest.approx(4 / 6)


SLOW: dict[str, Any] = {"/training/learning_rate": {"min": 1e-4, "max": 1e-2}, "/rules": ["hidden_size != 96"]}
"""A space that is sampled."""


def test_a_measurement_of_feasibility_that_takes_too_long_ends_with_the_samples_it_has() -> None:
    _, whole = measured(SLOW)
    assert (whole.judged, whole.sampled) == (SAMPLES, True)
    report = measure_feasibility(space(SLOW), seconds=0.0)
    assert (report.judged, report.sampled) == (FEWEST_SAMPLES, True)
    low, high = report.interval
    assert low < report.feasible_share < high
    assert low < whole.interval[0] < whole.feasible_share < whole.interval[1] < high


def test_an_enumeration_that_takes_too_long_is_given_up_for_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"/rules": ["hidden_size != 96"]}
    assert (measured(changes)[1].judged, measured(changes)[1].sampled) == (24, False)
    monkeypatch.setattr("layers.space.feasibility.ENUMERATION_SHARE", 0.0)
    report = measure_feasibility(space(changes))
    assert (report.points, report.judged, report.sampled) == (24, SAMPLES, True)
    assert report.feasible_share == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize(
    ("feasible", "judged", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (1, 10_000, 0.0000177, 0.000566)],
)
def test_the_interval_of_a_sampled_share_is_wilsons(feasible: int, judged: int, low: float, high: float) -> None:
    # Newcombe 1998, Statistics in Medicine 17, method 3.
    report = FeasibilityReport(None, feasible / judged, True, judged, {})
    assert report.interval == pytest.approx((low, high), rel=2e-3, abs=1e-6)


def test_the_share_of_an_enumerated_space_is_exact() -> None:
    assert FeasibilityReport(24, 0.25, False, 24, {}).interval == (0.25, 0.25)


def test_draws_follow_the_scale_of_a_range() -> None:
    made = space(
        {
            "/training/learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
            "/training/batch_size": {"min": 1, "max": 64, "log": True},
            "/training/dropout": {"min": 0.0, "max": 0.5},
        }
    )
    source = random.Random(1)
    drawn = [made.sample(source) for _ in range(4000)]
    below = {
        "training.learning_rate": 1e-3,
        "training.dropout": 0.25,
        "training.batch_size": 6,
    }
    for name, middle in below.items():
        share = sum(point[name] < middle for point in drawn) / len(drawn)  # pyright: ignore[reportOperatorIssue]
        assert share == pytest.approx(0.5, abs=0.1), name
    assert Counter(point["num_layers"] for point in drawn).keys() == {1, 2, 3, 4}


# --- properties -----------------------------------------------------------------------------------------------------

_HEADS = st.lists(st.integers(1, 16), min_size=1, max_size=4, unique=True)
_WIDTHS = st.lists(st.integers(8, 256), min_size=1, max_size=4, unique=True)


@st.composite
def _ranges(draw: st.DrawFn) -> dict[str, Any]:
    low, size = draw(st.integers(1, 50)), draw(st.integers(0, 20))
    made: dict[str, Any] = {"min": low, "max": low + size}
    kind = draw(st.sampled_from(["plain", "step", "log"]))
    if kind == "step":
        made["step"] = draw(st.integers(1, 8))
    elif kind == "log":
        made["log"] = True
    return made


@st.composite
def _changes(draw: st.DrawFn) -> dict[str, Any]:
    """Changes that make another valid document, conditional as often as not."""
    changes: dict[str, Any] = {
        "/model/num_layers": draw(_ranges()),
        "/model/hidden_size": {"values": draw(_WIDTHS)},
        "/model/attention/num_attention_heads": {"values": draw(_HEADS)},
    }
    if draw(st.booleans()):
        changes |= CONDITIONAL
    if draw(st.booleans()):
        bound = draw(st.integers(1, 60))
        changes["/training/dropout"] = {"values": [0.0, 0.1, 0.2], "when": f"num_layers > {bound}"}
        changes["/training/beta1"] = {"values": [0.9, 0.95], "when": "training.dropout > 0"}
    if draw(st.booleans()):
        changes["/model/mlp/ffn_hidden_size"] = {
            "derived": draw(st.sampled_from(["4 * hidden_size", "num_layers + 1"]))
        }
        changes["/model/mlp/bias"] = {"values": [True, False], "when": "mlp.ffn_hidden_size % 3 == 0"}
    return changes


@settings(max_examples=40, deadline=None)
@given(_changes())
def test_walking_a_space_meets_every_point_once(changes: dict[str, Any]) -> None:
    made = space(changes)
    points = [tuple(point.items()) for point in itertools.islice(made.enumerate(), 5001)]
    assert len(set(points)) == len(points)
    if len(points) <= 5000:
        assert made.points() == len(points)
    for point in points[:: max(1, len(points) // 50)]:
        assert made.chosen_of(made.resolve(dict(point))) == dict(point)


@settings(max_examples=40, deadline=None)
@given(_changes(), st.integers(0, 2**32))
def test_a_drawn_point_lies_in_the_space(changes: dict[str, Any], seed: int) -> None:
    made = space(changes | {"/training/learning_rate": {"min": 1e-5, "max": 1.0, "log": True}})
    point = made.sample(random.Random(seed))
    assert point == made.sample(random.Random(seed))
    values = made.resolve(point)
    assert made.chosen_of(values) == point
    so_far: dict[str, Any] = {}
    for parameter in made.open:
        assert made.active(parameter, so_far) is (parameter.name in point)
        if parameter.name in point:
            so_far[parameter.name] = point[parameter.name]
    rejection = made.judge(values)
    if rejection is None:
        assert flatten(made.configuration(values)).items() >= values.items()
    else:
        assert rejection.violation > 0


@settings(max_examples=25, deadline=None)
@given(_changes(), st.sampled_from(["hidden_size % 3 == 0", "num_layers < 20", "attention.attention_head_size > 8"]))
def test_a_measurement_of_feasibility_agrees_with_judging_every_point(changes: dict[str, Any], rule: str) -> None:
    made = space(changes | {"/rules": [rule], "/constraints": ["parameter_count < 1e6"]})
    points = made.points()
    if points is None or points > 3000:
        return
    found = Counter[str]()
    for point in made.enumerate():
        rejection = made.judge(made.resolve(point))
        found["" if rejection is None else rejection.rule] += 1
    report = measure_feasibility(made)
    assert report.errors == ()
    assert report.feasible_share == pytest.approx(found.pop("", 0) / points)
    assert report.rejections == pytest.approx({rule: count / points for rule, count in found.items()})


# --- rounding -------------------------------------------------------------------------------------------------------


def test_what_a_user_calculates_by_hand_is_kept() -> None:
    made = space(
        {
            "/training": {"dropout": {"values": [0.1, 0.5]}, "weight_decay": {"values": [0.2]}},
            "/rules": ["training.dropout + training.weight_decay <= 0.3"],
        }
    )
    shares = {
        dropout: made.judge(made.resolve(chosen(**{"training.dropout": dropout, "training.weight_decay": 0.2})))
        for dropout in (0.1, 0.5)
    }
    assert shares[0.1] is None
    assert shares[0.5] is not None


@pytest.mark.parametrize("text", ["hidden_size * 3.3 / 1.1", "hidden_size * 3.3 // 1.1"])
def test_a_derived_integer_is_what_it_is_but_for_rounding(text: str) -> None:
    sweep, report = measured(
        {
            "/model/hidden_size": 32,
            "/model/attention/num_attention_heads": 2,
            "/model/mlp/ffn_hidden_size": {"derived": text},
            "/rules": ["mlp.ffn_hidden_size == 96", "hidden_size * 3.3 / 1.1 in [96]"],
        }
    )
    assert report.feasible_share == 1
    assert sweep.space.resolve({"num_layers": 1})["mlp.ffn_hidden_size"] == 96


def test_a_derived_number_is_within_its_bounds_but_for_rounding() -> None:
    changes = {
        "/training/dropout": {"derived": "0.1 * 3 * 3"},
        "/training/min_learning_rate": {"derived": "0.1 * 3 / 100"},
        "/training/learning_rate": 0.003,
    }
    sweep, report = measured(changes)
    assert sweep.space.resolve(chosen())["training.dropout"] == 0.9
    assert report.rejections.keys() == {"hidden_size % num_attention_heads"}


def test_a_start_is_in_the_space_but_for_rounding() -> None:
    made = space({"/training/dropout": {"values": [0.0, 0.3]}})
    assert made.resolve(chosen(**{"training.dropout": 0.1 + 0.2}))["training.dropout"] == 0.3
    with pytest.raises(PointError):
        made.resolve(chosen(**{"training.dropout": 0.3001}))


# --- constraints that have no value ---------------------------------------------------------------------------------

ZERO = {"/training/dropout": {"values": [0.0, 0.1]}, "/model/attention/num_attention_heads": 2}


@pytest.mark.parametrize(
    "text",
    [
        "latency_ms_p50 <= 1 / training.dropout",
        "latency_ms_p50 / training.dropout <= 5",
        "parameter_count <= 1e9 / training.dropout",
        "validation_loss <= log2(training.dropout)",
        "latency_ms_p50 % training.dropout <= 1",
        "latency_ms_p50 <= 1 / training.weight_decay",
    ],
)
def test_a_constraint_without_a_value_is_refused_with_its_point(text: str) -> None:
    changes = {**ZERO, "/training/weight_decay": 0.0, "/constraints": ["parameter_count <= 1e12", text]}
    (problem,) = problems(changes)
    assert problem.pointer == "/constraints/1"
    name = "training.weight_decay" if "decay" in text else "training.dropout"
    assert f"{name} = 0.0" in problem.detail
    assert "a if condition else b" in problem.remedy


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("latency_ms_p50 <= 1 / training.dropout", ["training.dropout > 0"]),
        ("latency_ms_p50 <= (1 / training.dropout if training.dropout > 0 else 5)", []),
        # Whether these have a value is known only when it is measured.
        ("1 / (latency_ms_p50 - 0.37) <= 1", []),
        ("log2(generalization_gap) <= training.dropout", []),
        ("latency_ms_p50 <= 1 / num_layers", []),
    ],
)
def test_a_constraint_that_may_have_a_value_is_kept(text: str, rules: list[str]) -> None:
    _, report = measured({**ZERO, "/constraints": [text], "/rules": rules})
    assert report.errors == ()
    assert report.feasible_share > 0
