"""A document's own variables: searched like parameters, named in expressions, and in no configuration."""

from __future__ import annotations

import random
from typing import Any

import pytest

from layers.expressions.lexer import KEYWORDS
from layers.expressions.names import DECLARED
from layers.expressions.parser import FUNCTIONS
from layers.metrics import METRICS
from layers.space.document import parse_document, read_document
from tests.layers.sweep_documents import DATASETS, changed, measured, parsed, problems

RATIO: dict[str, Any] = {
    "/model/num_layers": 2,
    "/model/hidden_size": {"values": [32, 64]},
    "/model/attention/num_attention_heads": 2,
    "/variables/ratio": {"values": [2, 3, 4]},
    "/model/mlp/ffn_hidden_size": {"derived": "ratio * hidden_size"},
}
PER_LAYER: dict[str, Any] = RATIO | {
    "/model/num_layers": {"min": 1, "max": 3},
    "/variables/ratio": {"values": [2, 3, 4], "per_layer": True},
    "/model/mlp/ffn_hidden_size": {"derived": "ratio * hidden_size", "per_layer": True},
}
WIDTH = "mlp.ffn_hidden_size"


def test_a_variable_is_searched_and_shown_and_reaches_the_model_through_what_is_derived() -> None:
    space = parsed(RATIO).space
    assert [opening.name for opening in space.open] == ["variables.ratio", "hidden_size"]
    assert space.points() == 6
    values = space.resolve({"variables.ratio": 3, "hidden_size": 64})
    assert space.shown(values) == {"variables.ratio": 3, "hidden_size": 64, WIDTH: 192}
    assert space.variables_of(values) == {"variables.ratio": 3}
    model = space.configuration(values)["model"]
    assert model[WIDTH] == 192
    assert not [name for name in model if "ratio" in name]


def test_every_layer_has_its_own_where_it_is_per_layer() -> None:
    space = parsed(PER_LAYER).space
    values = space.resolve(
        {"num_layers": 2, "hidden_size": 32, "layers.0.variables.ratio": 2, "layers.1.variables.ratio": 4}
    )
    model = space.configuration(values)["model"]
    assert [model[f"layers.{layer}.{WIDTH}"] for layer in range(2)] == [64, 128]
    assert not [name for name in model if "variables" in name]
    assert space.points() == 2 * (3 + 9 + 27)


def test_an_encoder_and_a_decoder_have_layers_of_their_own() -> None:
    changes = PER_LAYER | {"/task": "seq2seq", "/dataset": "words", "/model/num_layers": 1}
    names = [opening.name for opening in parsed(changes).space.open]
    assert names == ["layers.0.variables.ratio", "encoder_layers.0.variables.ratio", "hidden_size"]


@pytest.mark.parametrize("changes", [RATIO, PER_LAYER])
def test_what_was_understood_is_read_as_the_same(changes: dict[str, Any]) -> None:
    sweep = parsed(changes)
    assert sweep.normalized["variables"]["ratio"]["values"] == [2, 3, 4]
    assert "variables.ratio * hidden_size" in str(sweep.normalized["model"])
    assert parse_document(sweep.normalized, find_dataset=DATASETS.get) == sweep
    assert "variables" not in parsed().normalized


def test_the_order_of_variables_means_nothing() -> None:
    both = RATIO | {"/variables/extra": {"values": [1, 2]}, "/rules": ["extra <= ratio"]}
    turned = changed(both)
    turned["variables"] = dict(reversed(turned["variables"].items()))
    assert [each.name for each in parsed(both).space.open][:2] == ["variables.extra", "variables.ratio"]
    assert parse_document(turned, find_dataset=DATASETS.get) == parsed(both)


@pytest.mark.parametrize(
    ("written", "used", "value"),
    [
        ({"values": [2, 2.5]}, "round_up(it * 32, 8)", 2.5),
        ({"min": 1.0, "max": 3.0, "step": 0.5}, "round_up(it * 32, 8)", 1.5),
        ({"min": 1, "max": 3}, "it * 32", 3),
        ({"min": 1.5, "max": 3, "log": True}, "round_up(it * 32, 8)", 2.25),
        ({"values": [True, False]}, "64 if it else 32", False),
        ({"values": ["wide", "narrow"]}, "64 if it == 'wide' else 32", "narrow"),
        ({"value": 2, "when": "hidden_size > 0"}, "it * 32", None),
        (2, "it * 32", None),
    ],
)
def test_its_values_say_what_it_is(written: Any, used: str, value: Any) -> None:
    sweep = parsed({**RATIO, "/variables": {"it": written}, "/model/mlp/ffn_hidden_size": {"derived": used}})
    space = sweep.space
    assert parse_document(sweep.normalized, find_dataset=DATASETS.get) == sweep
    chosen = space.sample(random.Random(0))
    if value is None:
        assert "variables.it" not in chosen
    else:
        chosen["variables.it"] = value
    assert space.judge(space.resolve(chosen)) is None


def test_it_is_named_in_conditions_rules_and_static_constraints() -> None:
    sweep, feasibility = measured(
        RATIO
        | {
            "/model/attention/position_embedding_type": {
                "values": ["learned_absolute", "relative"],
                "when": "ratio > 2",
            },
            "/rules": ["ratio < 4", "variables.ratio != 2 or hidden_size == 32"],
            "/constraints": ["parameter_count <= 20000 * ratio"],
        }
    )
    space = sweep.space
    assert feasibility.rejections.keys() == {
        "variables.ratio < 4",
        "variables.ratio != 2 or hidden_size == 32",
        "parameter_count <= 20000 * variables.ratio",
    }
    assert "attention.position_embedding_type" not in space.resolve({"variables.ratio": 2, "hidden_size": 32})
    rejected = space.judge(space.resolve({"variables.ratio": 2, "hidden_size": 64}))
    assert rejected is not None
    assert "variables.ratio = 2" in rejected.message


def test_a_rule_holds_in_every_layer_or_names_one() -> None:
    space = parsed(PER_LAYER | {"/rules": ["ratio < 4", "layers.0.ratio >= layers.1.ratio"]}).space
    assert [rule.text for rule in space.rules] == [
        *(f"layers.{layer}.variables.ratio < 4" for layer in range(3)),
        "layers.0.variables.ratio >= layers.1.variables.ratio",
    ]


@pytest.mark.parametrize(
    "start",
    [
        {"hidden_size": 64, "num_layers": 2, "variables": {"ratio": 3}},
        {"hidden_size": 64, "num_layers": 2, "variables.ratio": 3},
        {"hidden_size": 64, "num_layers": 2, "layers": {"0": {"variables": {"ratio": 3}}, "1.variables.ratio": 3}},
    ],
)
def test_a_start_gives_it(start: dict[str, Any]) -> None:
    (found,) = parsed(PER_LAYER | {"/start_from": [start]}).starts
    assert found.chosen["layers.0.variables.ratio"] == found.chosen["layers.1.variables.ratio"] == 3


def test_a_trial_that_has_it_is_a_start() -> None:
    space = parsed(RATIO).space
    values = space.resolve({"variables.ratio": 3, "hidden_size": 64})
    trial = {**space.configuration(values), "variables": space.variables_of(values)}
    (start,) = parsed(RATIO | {"/start_from": ["trial:01J"]}, find_start=lambda _: trial).starts
    assert start.chosen == {"variables.ratio": 3, "hidden_size": 64}
    without = space.configuration(values)
    (problem,) = problems(RATIO | {"/start_from": ["trial:01J"]}, find_start=lambda _: without)
    assert (problem.pointer, "variables.ratio" in problem.detail) == ("/start_from/0", True)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no mapping": ({"/variables": [1]}, "/variables", "not a mapping"),
    "unused": ({"/variables/other": {"values": [1, 2]}}, "/variables/other", "used in no expression"),
    "unknown in an expression": (
        {"/model/mlp/ffn_hidden_size": {"derived": "ration * hidden_size"}},
        "/model/mlp/ffn_hidden_size/derived",
        "not a parameter",
    ),
    "nothing to search": ({"/variables/ratio": {"per_layer": False}}, "/variables/ratio", "neither value"),
    "no value": ({"/variables/ratio": None}, "/variables/ratio", "no value"),
    "empty values": ({"/variables/ratio": {"values": []}}, "/variables/ratio/values", "empty"),
    "values of two kinds": (
        {"/variables/ratio": {"values": [2, "three"]}},
        "/variables/ratio/values/1",
        "finite number",
    ),
    "a list": ({"/variables/ratio": [2, 3]}, "/variables/ratio", "is a list"),
    "unknown field": ({"/variables/ratio": {"values": [2], "then": 1}}, "/variables/ratio/then", "not a field"),
    "derived": ({"/variables/ratio": {"derived": "hidden_size"}}, "/variables/ratio/derived", "free, not derived"),
    "a default space": ({"/variables/ratio": "default_space"}, "/variables/ratio", "default_space"),
    "infinite": ({"/variables/ratio": {"values": [2.0, float("inf")]}}, "/variables/ratio/values/1", "finite"),
    "too large": ({"/variables/ratio": {"values": [2, 2**70]}}, "/variables/ratio/values/1", "too large"),
    "a name compared with a number": (
        {"/variables/shape": {"values": ["wide", "narrow"]}, "/rules": ["shape > 2"]},
        "/rules/0",
        "is a name",
    ),
    "a name equal to a number": (
        {"/variables/shape": {"values": ["wide", "narrow"]}, "/rules": ["shape == 2"]},
        "/rules/0",
        "never equal",
    ),
    "a name that it never has": (
        {"/variables/shape": {"values": ["wide", "narrow"]}, "/rules": ["shape == 'flat'"]},
        "/rules/0",
        "not a value of variables.shape",
    ),
    "a cycle": (
        {"/variables/ratio": {"values": [2, 3], "when": "mlp.ffn_hidden_size > 64"}},
        "/variables/ratio",
        "cycle",
    ),
    "absent where it is needed": (
        {"/variables/ratio": {"values": [2, 3], "when": "hidden_size == 32"}},
        "/model/mlp/ffn_hidden_size",
        "which is absent",
    ),
    "a fraction": (
        {"/variables/ratio": {"values": [0.3, 2.0]}},
        "/model/mlp/ffn_hidden_size",
        "an integer is needed",
    ),
    "per layer, in what layers share": (
        {"/variables/ratio": {"values": [2, 3], "per_layer": True}},
        "/model/mlp/ffn_hidden_size/derived",
        "differs from layer to layer",
    ),
    "per layer, and no layers": (
        {
            "/task": "probe",
            "/dataset": None,
            "/model": {"kind": "linear", "linear": {"in_features": 8, "out_features": {"derived": "ratio * 8"}}},
            "/variables/ratio": {"values": [2, 3], "per_layer": True},
            "/objectives": [{"metric": "latency_ms_p50"}],
        },
        "/variables/ratio",
        "no layers",
    ),
    "a layer's, where all have the same": (
        {"/rules": ["layers.0.ratio > 2"]},
        "/rules/0",
        "the same in all layers",
    ),
    "a layer that there is not": (
        PER_LAYER | {"/rules": ["layers.7.ratio > 2"]},
        "/rules/0",
        "no layer 7",
    ),
    "below the model": ({"/model/variables": {"ratio": 2}}, "/model/variables", "not a parameter"),
    "in a constraint on what is measured": (
        {"/constraints": ["latency_ms_p50 <= 0.5 * ratio"]},
        "/constraints/0",
        "know no variables.ratio",
    ),
    "of every layer in a constraint": (
        PER_LAYER | {"/constraints": ["parameter_count <= 1e5 * ratio"]},
        "/constraints/0",
        "say which one",
    ),
    "unknown in a start": (
        {"/start_from": [{"hidden_size": 32, "variables": {"ratio": 2, "other": 1}}]},
        "/start_from/0/variables/other",
        "not a parameter",
    ),
    "out of its values in a start": (
        {"/start_from": [{"hidden_size": 32, "variables": {"ratio": 7}}]},
        "/start_from/0/variables/ratio",
        "not among its values",
    ),
    "left out of a start": ({"/start_from": [{"hidden_size": 32}]}, "/start_from/0", "nothing of variables.ratio"),
    "unknown to a preset": (
        {"/start_from": ["preset:nanogpt-char-cpu"], "/model/hidden_size": 128},
        "/start_from/0",
        "variables.ratio",
    ),
    "a grid over a continuum": (
        {"/variables/ratio": {"min": 1.0, "max": 2.0}, "/search": {"sampler": "grid"}},
        "/variables/ratio",
        "continuous",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place_and_a_remedy(case: str) -> None:
    changes, pointer, word = WRONG[case]
    found = {problem.pointer: problem for problem in problems({**RATIO, **changes})}
    assert pointer in found, found
    assert word in found[pointer].detail + found[pointer].remedy


_TAKEN = ["hidden_size", "bias", "attention", "training", "variables", "model", "layers", "encoder_layers"]


@pytest.mark.parametrize("name", [*_TAKEN, *METRICS, *FUNCTIONS, *sorted(KEYWORDS), "true", "False"])
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    (problem,) = problems({f"/variables/{name}": {"values": [1, 2]}, "/rules": ["num_layers > 0"]})
    assert problem.pointer == f"/variables/{name}"
    assert problem.remedy == "choose another name"


@pytest.mark.parametrize("name", ["", "2nd", "a.b", "a-b", "ä", "a b", "x" * 65])
def test_a_name_that_no_expression_could_name_is_refused(name: str) -> None:
    document = changed({})
    document["variables"] = {name: {"values": [1, 2]}}
    with pytest.raises(ValueError, match="not a variable's name"):
        parse_document(document, find_dataset=DATASETS.get)


def test_no_parameter_could_be_meant_by_a_variables_name() -> None:
    """By its last part a parameter may be named in an expression."""
    for path in DECLARED:
        document = changed({"/rules": ["num_layers > 0"]})
        document["variables"] = {path.rpartition(".")[2]: {"values": [1, 2]}}
        with pytest.raises(ValueError, match="in an expression"):
            read_document(document, find_dataset=DATASETS.get)


def test_what_was_accepted_stays_good_where_a_later_version_has_a_parameter_of_that_name() -> None:
    accepted = changed(
        RATIO
        | {"/variables": {"bias": {"values": [2, 3]}}, "/model/mlp/ffn_hidden_size": {"derived": "variables.bias * 32"}}
    )
    sweep = parse_document(accepted, find_dataset=DATASETS.get)
    assert sweep.space.resolve({"variables.bias": 3, "hidden_size": 64})[WIDTH] == 96
    with pytest.raises(ValueError, match="bias"):
        read_document(accepted, find_dataset=DATASETS.get)
