"""Sweep documents: what is read, what is filled in, and what is refused, where and with which remedy."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.declarations.model import DECLARATIONS
from layers.expressions.names import DECLARED
from layers.metrics import METRICS
from layers.parameter import Scalar
from layers.presets import PRESETS
from layers.space.checks.windows import window_notes
from layers.space.document import DocumentError, Problem, flatten, parse_document, read_document
from tests.layers.sweep_documents import DATASETS, GOOD, LEFT_OUT, changed, measured, parsed, problems

FULL: dict[str, Any] = {
    "name": "shakespeare-small",
    "task": "causal_lm",
    "dataset": "characters",
    "model": {
        "num_layers": {"min": 2, "max": 8},
        "hidden_size": {"values": [128, 192, 256, 384]},
        "embedding": {"kind": "Embedding"},
        "attention": {
            "num_attention_heads": {"values": [2, 4, 6, 8]},
            "attention_mask_type": "causal",
            "position_embedding_type": {"values": ["learned_absolute", "rope_gpt_neox"]},
            "rotary_embedding_base": {
                "values": [10000, 500000],
                "when": "position_embedding_type == 'rope_gpt_neox'",
            },
        },
        "mlp": {
            "kind": {"values": ["MLP", "GatedMLP", "FusedGatedMLP"]},
            "ffn_hidden_size": {
                "derived": "4 * hidden_size if mlp.kind == 'MLP' else round_up(8 * hidden_size / 3, 64)"
            },
            "hidden_act": {"values": ["gelu", "silu"]},
        },
        "norm": {"kind": {"values": ["LayerNorm", "RmsNorm"]}, "eps": {"min": 1.0e-8, "max": 1.0e-4, "log": True}},
        "dtype": {"values": ["float32", "float16"]},
    },
    "training": {
        "steps": 500,
        "batch_size": 32,
        "learning_rate": {"min": 1.0e-4, "max": 3.0e-3, "log": True},
        "betas": [0.9, 0.99],
    },
    "inference": {"batch_size": 8, "sequence_length": 128},
    "objectives": [
        {"metric": "latency_ms_p50", "goal": "minimize"},
        {"metric": "memory_bytes"},
        {"metric": "validation_loss"},
        {"metric": "throughput_per_s"},
    ],
    "constraints": ["latency_ms_p99 <= 2.0", "parameter_count <= 2e7"],
    "rules": ["hidden_size % num_attention_heads == 0"],
    "budget": {"trials": 100, "parallel": 4, "failures": 10, "wall_seconds": 7200},
    "search": {"sampler": "auto", "seed": 3, "reuse": False},
    "start_from": ["preset:nanogpt-char-cpu"],
    "target": {"runtime": "tensorrt"},
}


def read(document: dict[str, Any]) -> Any:
    return parse_document(document, find_dataset=DATASETS.get)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_whole_document_is_read() -> None:
    sweep = read(FULL)
    assert (sweep.name, sweep.task, sweep.dataset) == ("shakespeare-small", "causal_lm", "characters")
    assert [objective["goal"] for objective in sweep.objectives] == ["minimize"] * 3 + ["maximize"]
    assert [constraint.stage for constraint in sweep.constraints] == ["hardware", "static"]
    assert sweep.rules == ("hidden_size % attention.num_attention_heads == 0",)
    assert sweep.budget == {
        "trials": 100,
        "parallel": 4,
        "failures": 10,
        "wall_seconds": 7200.0,
        "device_seconds": None,
    }
    assert sweep.search == {"sampler": "auto", "seed": 3, "reuse": False, "hardware_first": "auto"}
    assert sweep.target_runtime == "tensorrt"
    assert sweep.starts[0].name == "preset:nanogpt-char-cpu"
    values = sweep.space.resolve(sweep.starts[0].chosen)
    assert values["mlp.ffn_hidden_size"] == 512
    assert (values["training.beta1"], values["training.beta2"]) == (0.9, 0.99)


def test_defaults_of_the_documents_own_fields_are_filled_in() -> None:
    sweep = parsed()
    assert sweep.budget == {
        "trials": 100,
        "parallel": "auto",
        "failures": 10,
        "wall_seconds": None,
        "device_seconds": None,
    }
    assert sweep.search == {"sampler": "auto", "seed": 0, "reuse": True, "hardware_first": "auto"}
    assert sweep.target_runtime is None
    assert not sweep.allow_sparse
    assert sweep.starts == ()
    assert sweep.objectives[0]["goal"] == "minimize"


PROBE: dict[str, Any] = {
    "name": "linear",
    "task": "probe",
    "model": {"kind": "linear", "linear": {"in_features": {"min": 8, "max": 64, "step": 8}, "out_features": 64}},
    "inference": {"batch_size": 1, "sequence_length": 8},
    "objectives": [{"metric": "latency_ms_p50"}],
}


@pytest.mark.parametrize("document", [GOOD, FULL, PROBE], ids=["good", "full", "probe"])
def test_reading_what_was_understood_changes_nothing(document: dict[str, Any]) -> None:
    sweep = read(document)
    stored = json.loads(json.dumps(sweep.normalized, sort_keys=True))
    again = read(stored)
    assert again == sweep
    assert again.normalized == sweep.normalized
    assert again.space.open == sweep.space.open


def test_the_document_that_was_sent_is_left_as_it_was() -> None:
    document = changed({}, FULL)
    sweep = read(document)
    assert document == FULL
    sweep.normalized["budget"]["trials"] = 1
    assert sweep.budget["trials"] == 100


def test_names_in_expressions_are_written_in_full() -> None:
    rope = read(FULL).normalized["model"]["attention"]["rotary_embedding_base"]
    assert rope["when"] == "attention.position_embedding_type == 'rope_gpt_neox'"


def test_dotted_and_nested_names_are_the_same() -> None:
    dotted = {
        "num_layers": 2,
        "hidden_size": 32,
        "attention.num_attention_heads": {"values": [2, 4]},
        "mlp.kind": "MLP",
    }
    assert parsed({"/model": dotted}).normalized["model"]["attention"] == {"num_attention_heads": {"values": [2, 4]}}


@pytest.mark.parametrize(
    "name", [name for name in DECLARED if name not in ("kind", "inference.mode", "training.initialize_from")]
)
def test_every_declared_parameter_has_a_search_default_that_can_be_used_as_it_is(name: str) -> None:
    """`kind` has none: which there are depends on the task. The mode is the same for all trials,
    and a checkpoint is one of the project's."""
    pointer = name if name.startswith(("training.", "inference.")) else f"model.{name}"
    sweep = read(changed({f"/{pointer.replace('.', '/')}": "default_space"}))
    opening = next(parameter for parameter in sweep.space.open if parameter.name == name)
    choices = DECLARED[name].choices
    assert opening.size is None or opening.size > 1 or len(choices) == 1
    assert read(sweep.normalized).normalized == sweep.normalized


def test_a_default_space_is_absent_where_its_parameter_does_not_apply() -> None:
    changes = {"/model/norm/kind": "default_space", "/model/norm/num_groups": "default_space"}
    sweep, report = measured(changes)
    assert sweep.normalized["model"]["norm"]["num_groups"]["when"] == "norm.kind in ['RmsNorm', 'GroupNorm']"
    assert report.feasible_share > 0
    chosen = [point for point in sweep.space.enumerate() if point["norm.kind"] == "LayerNorm"]
    assert chosen
    assert all("norm.num_groups" not in point for point in chosen)


def test_a_default_space_takes_a_condition() -> None:
    space = {"values": "default_space", "when": "num_layers > 2"}
    sweep = parsed({"/model/mlp/hidden_act": space})
    assert sweep.normalized["model"]["mlp"]["hidden_act"] == {
        "values": ["gelu", "silu", "relu"],
        "when": "num_layers > 2",
    }


def test_a_parameter_without_a_default_space_says_so() -> None:
    (problem,) = problems({"/model/kind": "default_space"})
    assert (problem.pointer, "no default_space" in problem.detail) == ("/model/kind", True)


# --- what is refused ------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"/name": LEFT_OUT}, "/name", "no name"),
    "blank name": ({"/name": "  "}, "/name", "not a name"),
    "long name": ({"/name": "x" * 201}, "/name", "not a name"),
    "name with a control character": ({"/name": "a\x1bb"}, "/name", "cannot be shown"),
    "number for a name": ({"/name": 3}, "/name", "not a name"),
    "no task": ({"/task": LEFT_OUT}, "/task", "no task"),
    "unknown task": ({"/task": "translation"}, "/task", "translation"),
    "list for a task": ({"/task": ["causal_lm"]}, "/task", "not a task"),
    "no dataset": ({"/dataset": LEFT_OUT}, "/dataset", "no dataset"),
    "unknown dataset": ({"/dataset": "wikipedia"}, "/dataset", "wikipedia"),
    "another task's dataset": ({"/dataset": "digits"}, "/dataset", "set task: classification, or name a dataset for"),
    "mapping for a dataset": ({"/dataset": {"name": "bytes"}}, "/dataset", "not a dataset"),
    "no model": ({"/model": LEFT_OUT}, "/model", "num_layers is missing"),
    "empty model": ({"/model": None}, "/model", "null"),
    "unknown field": ({"/modle": {}}, "/modle", "model"),
    "unknown parameter": ({"/model/attention/num_heads": 4}, "/model/attention/num_heads", "num_attention_heads"),
    "parameter in the wrong place": ({"/model/num_attention_heads": 4}, "/model/num_attention_heads", "attention.num_"),
    "training's parameter in model": ({"/model/learning_rate": 4}, "/model/learning_rate", "not a parameter"),
    "unknown training parameter": ({"/training/learning_rte": 1e-3}, "/training/learning_rte", "learning_rate"),
    "section for a parameter": ({"/model/mlp": "GatedMLP"}, "/model/mlp", "section"),
    "share of a model that is not shared": ({"/model/mlp/tp_size": 2}, "/model/mlp/tp_size", "does not apply"),
    "blocks that differ": ({"/model/per_layer": True}, "/model/per_layer", "per_layer"),
    "wrong type": ({"/model/num_layers": "many"}, "/model/num_layers", "integer"),
    "boolean for a number": ({"/model/num_layers": True}, "/model/num_layers", "integer"),
    "number for a boolean": ({"/model/tie_embeddings": 1}, "/model/tie_embeddings", "true or false"),
    "fraction for an integer": ({"/model/num_layers": 1.5}, "/model/num_layers", "integer"),
    "null for a number": ({"/model/num_layers": None}, "/model/num_layers", "no value"),
    "list for a number": ({"/model/num_layers": [1, 2]}, "/model/num_layers", "values: [...]"),
    "out of bounds": ({"/model/num_layers": 0}, "/model/num_layers", "1 to 1,000"),
    "NaN": ({"/training/learning_rate": float("nan")}, "/training/learning_rate", "finite"),
    "infinity in a range": (
        {"/training/learning_rate": {"min": 0.1, "max": float("inf")}},
        "/training/learning_rate/max",
        "finite",
    ),
    "an integer of 400 digits": ({"/model/num_layers": 10**400}, "/model/num_layers", "too large"),
    "unknown choice": ({"/model/mlp/kind": "MLPs"}, "/model/mlp/kind", "GatedMLP"),
    "unknown choice in values": (
        {"/model/mlp/kind": {"values": ["MLP", "Moe"]}},
        "/model/mlp/kind/values/1",
        "GatedMLP",
    ),
    "empty values": ({"/model/hidden_size": {"values": []}}, "/model/hidden_size/values", "empty"),
    "values that are no list": ({"/model/hidden_size": {"values": 3}}, "/model/hidden_size/values", "list"),
    "duplicate values": ({"/model/hidden_size": {"values": [32, 64, 32.0]}}, "/model/hidden_size/values/2", "twice"),
    "mixed values": ({"/model/hidden_size": {"values": [32, "64"]}}, "/model/hidden_size/values/1", "integer"),
    "true among numbers": ({"/model/num_layers": {"values": [1, True]}}, "/model/num_layers/values/1", "integer"),
    "nested values": ({"/model/hidden_size": {"values": [[32]]}}, "/model/hidden_size/values/0", "list"),
    "too many values": ({"/training/seed": {"values": list(range(10_001))}}, "/training/seed/values", "10000"),
    "empty mapping": ({"/model/hidden_size": {}}, "/model/hidden_size", "values"),
    "values and a range": (
        {"/model/hidden_size": {"values": [32], "min": 1, "max": 3}},
        "/model/hidden_size",
        "one of",
    ),
    "unknown field of a parameter": ({"/model/hidden_size": {"valuse": [32]}}, "/model/hidden_size/valuse", "values"),
    "min alone": ({"/model/num_layers": {"min": 1}}, "/model/num_layers", "max is missing"),
    "log alone": ({"/model/num_layers": {"log": True}}, "/model/num_layers", "min and max is missing"),
    "min above max": ({"/model/num_layers": {"min": 8, "max": 2}}, "/model/num_layers", "above"),
    "log of zero": ({"/training/dropout": {"min": 0, "max": 0.5, "log": True}}, "/training/dropout/min", "logarithmic"),
    "log with a step": (
        {"/model/num_layers": {"min": 1, "max": 4, "step": 1, "log": True}},
        "/model/num_layers/step",
        "log",
    ),
    "log that is no boolean": (
        {"/model/num_layers": {"min": 1, "max": 4, "log": "yes"}},
        "/model/num_layers/log",
        "true",
    ),
    "step of zero": ({"/model/num_layers": {"min": 1, "max": 4, "step": 0}}, "/model/num_layers/step", "above 0"),
    "fractional step": ({"/model/num_layers": {"min": 1, "max": 4, "step": 0.5}}, "/model/num_layers/step", "integer"),
    "step of NaN": (
        {"/training/dropout": {"min": 0, "max": 0.5, "step": float("nan")}},
        "/training/dropout/step",
        "above 0",
    ),
    "steps too fine": ({"/training/dropout": {"min": 0, "max": 0.5, "step": 1e-300}}, "/training/dropout/step", "fine"),
    "range of names": ({"/model/mlp/kind": {"min": 1, "max": 2}}, "/model/mlp/kind", "GatedMLP"),
    "range of booleans": ({"/model/mlp/bias": {"min": 0, "max": 1}}, "/model/mlp/bias", "values: [true, false]"),
    "three betas": ({"/training/betas": [0.9, 0.9, 0.9]}, "/training/betas", "two numbers"),
    "beta out of bounds": ({"/training/betas": [0.9, 1.5]}, "/training/betas/1", "out of range"),
    "betas twice": ({"/training": {"betas": [0.9, 0.99], "beta1": 0.8}}, "/training/beta1", "twice"),
    "steps and tokens": ({"/training": {"steps": 10, "tokens": 100}}, "/training/tokens", "how long"),
    "given twice": ({"/model/mlp.kind": "MLP", "/model/mlp": {"kind": "MLP"}}, "/model/mlp/kind", "twice"),
    "relative attention as a name": (
        {"/model/attention/relative_attention": "yes"},
        "/model/attention/relative_attention",
        "true or false",
    ),
    "no objectives": ({"/objectives": LEFT_OUT}, "/objectives", "no objectives"),
    "empty objectives": ({"/objectives": []}, "/objectives", "empty"),
    "objective as text": ({"/objectives": ["latency_ms_p50"]}, "/objectives/0", "metric:"),
    "objectives as a mapping": ({"/objectives": {"metric": "flops"}}, "/objectives", "not a list"),
    "unknown metric": ({"/objectives": [{"metric": "latency_ms_p51"}]}, "/objectives/0/metric", "latency_ms_p50"),
    "no metric": ({"/objectives": [{"goal": "minimize"}]}, "/objectives/0/metric", "latency_ms_p50"),
    "unknown goal": ({"/objectives": [{"metric": "flops", "goal": "min"}]}, "/objectives/0/goal", "minimize"),
    "unknown field of an objective": (
        {"/objectives": [{"metric": "flops", "gaol": "x"}]},
        "/objectives/0/gaol",
        "goal",
    ),
    "an objective twice": ({"/objectives": [{"metric": "flops"}, {"metric": "flops"}]}, "/objectives/1", "already"),
    "accuracy of a language model": ({"/objectives": [{"metric": "accuracy"}]}, "/objectives/0/metric", "causal_lm"),
    "bits per byte where no bytes were counted": (
        {"/dataset": "characters", "/objectives": [{"metric": "bits_per_byte"}]},
        "/objectives/0/metric",
        "register its file again",
    ),
    "enqueue latency on the CPU": (
        {"/target": {"runtime": "onnxruntime"}, "/objectives": [{"metric": "latency_ms_enqueue_p50"}]},
        "/objectives/0/metric",
        "GPU",
    ),
    "tokens that are not generated": (
        {"/objectives": [{"metric": "tokens_per_s"}]},
        "/objectives/0/metric",
        "mode generate",
    ),
    "steps that are not measured": (
        {"/constraints": ["decode_ms_per_token_p99 < 3"]},
        "/constraints/0",
        "mode generate",
    ),
    "one mode or the other": (
        {"/inference": {"mode": {"values": ["forward", "generate"]}}},
        "/inference/mode",
        "the same for all trials",
    ),
    "bits per byte in a constraint": (
        {"/dataset": "characters", "/constraints": ["bits_per_byte < 3"]},
        "/constraints/0",
        "bytes",
    ),
    "constraint that is a rule": ({"/constraints": ["hidden_size < 100"]}, "/constraints/0", "rules"),
    "constraint of an unknown metric": ({"/constraints": ["latency_ms_p98 < 2"]}, "/constraints/0", "latency_ms_p99"),
    "constraint with one =": ({"/constraints": ["latency_ms_p99 = 2"]}, "/constraints/0", "write <= or >="),
    "constraint without a comparison": ({"/constraints": ["latency_ms_p99 + 1"]}, "/constraints/0", "true or false"),
    "constraint as a mapping": ({"/constraints": [{"latency": 2}]}, "/constraints/0", "not an expression"),
    "constraints as text": ({"/constraints": "flops < 1"}, "/constraints", "not a list"),
    "constraint on a name": ({"/constraints": ["flops < mlp.kind"]}, "/constraints/0", "a number is needed"),
    "a constraint twice": ({"/constraints": ["flops < 1e12", "flops < 1e12"]}, "/constraints/1", "twice"),
    "rule on a metric": ({"/rules": ["latency_ms_p50 < 2"]}, "/rules/0", "constraints"),
    "rule that is a value": ({"/rules": ["hidden_size % 3"]}, "/rules/0", "true or false"),
    "rule without a name": ({"/rules": ["1 < 2"]}, "/rules/0", "names no parameter"),
    "rule on an unknown parameter": ({"/rules": ["hiden_size > 2"]}, "/rules/0", "hidden_size"),
    "rule on an ambiguous name": ({"/rules": ["bias"]}, "/rules/0", "attention.bias, mlp.bias, norm.bias"),
    "rule on an ambiguous section": (
        {"/rules": ["batch_size > 2"]},
        "/rules/0",
        "training.batch_size, inference.batch_size",
    ),
    "rule below model": ({"/rules": ["model.hidden_size > 2"]}, "/rules/0", "write hidden_size"),
    "rule on what is not built": ({"/rules": ["embedding.prompt_width > 2"]}, "/rules/0", "prompt_length"),
    "rule on another spelling": (
        {"/rules": ["relative_attention"]},
        "/rules/0",
        "position_embedding_type == 'relative'",
    ),
    "a rule that compares kinds": ({"/rules": ["hidden_size == '32'"]}, "/rules/0", "never equal"),
    "a rule with an unknown choice": ({"/rules": ["mlp.kind == 'GatedMPL'"]}, "/rules/0", "GatedMLP"),
    "a rule with an unknown choice in a list": ({"/rules": ["mlp.kind in ['MLP', 'Moe']"]}, "/rules/0", "Moe"),
    "a rule that is a number": ({"/rules": ["hidden_size"]}, "/rules/0", "a number"),
    "code in a rule": ({"/rules": ["__import__('os').system('x') == 0"]}, "/rules/0", "attributes"),
    "100 brackets in a rule": ({"/rules": ["(" * 100 + "hidden_size" + ")" * 100 + " > 1"]}, "/rules/0", "deep"),
    "derived from nothing known": (
        {"/model/mlp/ffn_hidden_size": {"derived": "4 * hidden_sise"}},
        "/model/mlp/ffn_hidden_size/derived",
        "hidden_size",
    ),
    "derived from what follows": (
        {"/model/mlp/ffn_hidden_size": {"derived": "attention.attention_head_size"}},
        "/model/mlp/ffn_hidden_size/derived",
        "follows",
    ),
    "derived name for a number": (
        {"/model/mlp/ffn_hidden_size": {"derived": "'big' if hidden_size > 3 else 'small'"}},
        "/model/mlp/ffn_hidden_size/derived",
        "a number is needed",
    ),
    "derived unknown choice": (
        {"/model/mlp/hidden_act": {"derived": "'gelu' if hidden_size > 3 else 'sliu'"}},
        "/model/mlp/hidden_act/derived",
        "silu",
    ),
    "derived number as a number": (
        {"/model/mlp/ffn_hidden_size": {"derived": 4}},
        "/model/mlp/ffn_hidden_size/derived",
        "text",
    ),
    "when that is no text": ({"/model/dtype": {"value": "float32", "when": True}}, "/model/dtype/when", "text"),
    "when that is a value": (
        {"/model/dtype": {"value": "float32", "when": "hidden_size"}},
        "/model/dtype/when",
        "a number",
    ),
    "when on nothing known": (
        {"/model/dtype": {"value": "float32", "when": "width > 2"}},
        "/model/dtype/when",
        "width",
    ),
    "derived from itself": (
        {"/model/hidden_size": {"derived": "hidden_size * 2"}},
        "/model/hidden_size",
        "hidden_size needs hidden_size",
    ),
    "a cycle": (
        {
            "/model/hidden_size": {"derived": "num_layers * 32"},
            "/model/num_layers": {"values": [1, 2], "when": "attention.num_attention_heads > 1"},
            "/model/attention/num_attention_heads": {"derived": "hidden_size // 16"},
        },
        "/model",
        "num_layers needs attention.num_attention_heads needs hidden_size needs num_layers",
    ),
    "no trials": ({"/budget": {"trials": 0}}, "/budget/trials", "1 to"),
    "trials as text": ({"/budget": {"trials": "many"}}, "/budget/trials", "integer"),
    "half a trial": ({"/budget": {"trials": 1.5}}, "/budget/trials", "integer"),
    "true trials": ({"/budget": {"trials": True}}, "/budget/trials", "integer"),
    "budget as a number": ({"/budget": 100}, "/budget", "mapping"),
    "no time": ({"/budget": {"wall_seconds": 0}}, "/budget/wall_seconds", "above 0"),
    "time without end": ({"/budget": {"wall_seconds": float("inf")}}, "/budget/wall_seconds", "at most"),
    "time that is no number": ({"/budget": {"wall_seconds": float("nan")}}, "/budget/wall_seconds", "above 0"),
    "unknown field of the budget": ({"/budget": {"trails": 3}}, "/budget/trails", "trials"),
    "unknown sampler": ({"/search": {"sampler": "magic"}}, "/search/sampler", "nsga2"),
    "unhashable sampler": ({"/search": {"sampler": ["tpe"]}}, "/search/sampler", "nsga2"),
    "negative seed": ({"/search": {"seed": -1}}, "/search/seed", "0 to"),
    "reuse as text": ({"/search": {"reuse": "no"}}, "/search/reuse", "true or false"),
    "an order of work that is none": (
        {"/search": {"hardware_first": True}},
        "/search/hardware_first",
        "one of: auto, always, never",
    ),
    "an order of work as a list": ({"/search": {"hardware_first": ["always"]}}, "/search/hardware_first", "one of"),
    "a pruner": ({"/search": {"pruner": "median"}}, "/search/pruner", "pareto"),
    "a grid of a continuous space": (
        {"/search": {"sampler": "grid"}, "/training/dropout": {"min": 0.0, "max": 0.5}},
        "/training/dropout",
        "step",
    ),
    "unknown runtime": ({"/target": {"runtime": "tvm"}}, "/target/runtime", "onnxruntime"),
    "target as text": ({"/target": "tensorrt"}, "/target", "runtime"),
    "empty target": ({"/target": {}}, "/target/runtime", "onnxruntime"),
    "device in the target": ({"/target": {"runtime": "tensorrt", "device": "H100"}}, "/target/device", "runtime"),
    "allow_sparse as text": ({"/allow_sparse": "yes"}, "/allow_sparse", "true or false"),
    "starts as text": ({"/start_from": "preset:nanogpt-char"}, "/start_from", "list"),
    "a start that is nothing": ({"/start_from": ["nanogpt-char"]}, "/start_from/0", "preset:NAME"),
    "a number for a start": ({"/start_from": [3]}, "/start_from/0", "preset:NAME"),
    "unknown preset": ({"/start_from": ["preset:nanogpt-chart"]}, "/start_from/0", "nanogpt-char"),
    "unknown trial": ({"/start_from": ["trial:01H"]}, "/start_from/0", "no trial"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_refused_with_its_place_and_its_remedy(case: str) -> None:
    changes, pointer, word = REFUSED[case]
    found = problems(changes)
    there = [problem for problem in found if problem.pointer == pointer or problem.pointer.startswith(f"{pointer}/")]
    assert there, found
    assert any(word in f"{problem.detail} {problem.remedy}" for problem in there), there


def test_every_problem_is_reported_at_once() -> None:
    found = problems(
        {
            "/name": "",
            "/model/num_layers": 0,
            "/model/hidden_size": {"values": []},
            "/training/learning_rate": {"min": 1, "max": 0.1},
            "/rules": ["hidden_size >", "hidden_size % 2 == 0"],
            "/constraints": ["latency < 2"],
            "/budget/trials": 0,
            "/objectives": [{"metric": "speed"}],
        }
    )
    assert {problem.pointer for problem in found} == {
        "/name",
        "/model/num_layers",
        "/model/hidden_size/values",
        "/training/learning_rate",
        "/rules/0",
        "/constraints/0",
        "/budget/trials",
        "/objectives/0/metric",
    }


def test_a_document_of_nonsense_is_refused_quickly() -> None:
    """Looking for what was meant takes time: after a hundred problems nobody reads on."""
    assert len(problems({"/model": {f"num_layer{n}": 1 for n in range(20_000)}})) == 100


def test_the_expressions_of_a_document_are_bounded_together() -> None:
    rule = " and ".join(["hidden_size > 0"] * 60)
    found = problems({"/rules": [f"{rule} and num_layers < {100 + n}" for n in range(20)]})
    assert [problem.pointer for problem in found] == ["/rules"]
    assert "10,000" in found[0].remedy


def test_problems_of_starts_and_of_rules_are_reported_together() -> None:
    found = problems({"/start_from": ["preset:gpt9"], "/rules": ["hidden_size < num_layers"]})
    assert {problem.pointer for problem in found} == {"/start_from/0", "/rules/0"}


def test_pointers_escape_what_is_special_in_them() -> None:
    (problem,) = problems({"/model/attention": {"num_attention_heads": 2, "a/b~c": 1}})
    assert problem.pointer == "/model/attention/a~1b~0c"


def test_a_whole_range_is_one_point_wide_at_least() -> None:
    assert parsed({"/model/num_layers": {"min": 3, "max": 3}}).space.points() == 6
    assert parsed({"/model/num_layers": {"values": [3]}}).space.points() == 6


def test_steps_that_do_not_reach_the_end_are_noted() -> None:
    sweep = parsed({"/model/num_layers": {"min": 1, "max": 8, "step": 3}})
    (note,) = sweep.notes
    assert note.pointer == "/model/num_layers/step"
    assert "the last value is 7" in note.detail
    assert sweep.space.open[0].high == 7
    assert sweep.normalized["model"]["num_layers"] == {"min": 1, "max": 8, "step": 3}


@pytest.mark.parametrize("document", [None, [], [GOOD], "name: x", 3])
def test_only_a_mapping_is_a_document(document: Any) -> None:
    with pytest.raises(DocumentError) as refused:
        read(document)
    assert refused.value.problems[0].pointer == ""


def test_bytes_have_bits_per_byte() -> None:
    assert parsed({"/objectives": [{"metric": "bits_per_byte"}]}).objectives[0]["goal"] == "minimize"


# --- other spellings ------------------------------------------------------------------------------------------------


def test_relative_attention_is_another_spelling_of_a_position_embedding() -> None:
    sweep = parsed({"/model/attention/relative_attention": True})
    assert sweep.normalized == parsed({"/model/attention/position_embedding_type": "relative"}).normalized
    assert sweep.normalized["model"]["attention"]["position_embedding_type"] == "relative"


def test_no_relative_attention_says_nothing() -> None:
    sweep = parsed({"/model/attention/relative_attention": False})
    assert sweep.normalized == parsed().normalized


@pytest.mark.parametrize("position", ["learned_absolute", {"values": ["learned_absolute", "rope_gptj"]}])
def test_a_contradiction_of_two_spellings_is_an_error(position: Any) -> None:
    found = problems(
        {"/model/attention/relative_attention": True, "/model/attention/position_embedding_type": position}
    )
    assert any("contradicts" in problem.detail for problem in found)


# --- starts ---------------------------------------------------------------------------------------------------------

POINT: dict[str, Any] = {"num_layers": 2, "hidden_size": 64, "attention.num_attention_heads": 2}


def start_problems(start: Any, changes: dict[str, Any] | None = None, **known: Any) -> list[Problem]:
    return problems({"/start_from": [start], **(changes or {})}, **known)


@pytest.mark.parametrize(
    "start", [POINT, {"num_layers": 2, "hidden_size": 64, "attention": {"num_attention_heads": 2}}]
)
def test_a_start_can_be_spelt_out(start: dict[str, Any]) -> None:
    (read_start,) = parsed({"/start_from": [start]}).starts
    assert read_start.name == "start_from/0"
    assert read_start.chosen == POINT


@pytest.mark.parametrize(
    ("start", "pointer", "word"),
    [
        (POINT | {"hidden_size": 48}, "/start_from/0/hidden_size", "32, 64, 96"),
        (POINT | {"num_layers": 9}, "/start_from/0/num_layers", "from 1 to 4"),
        (POINT | {"attention.num_attention_heads": 3}, "/start_from/0", "64 is not a multiple of 3"),
        (POINT | {"mlp.kind": "MLP"}, "/start_from/0/mlp.kind", "not open"),
        (POINT | {"hiden_size": 3}, "/start_from/0/hiden_size", "hidden_size"),
        ({"num_layers": 2, "hidden_size": 64}, "/start_from/0", "one of: 2, 3"),
        (POINT | {"attention": {"num_attention_heads": 2}}, "/start_from/0", "twice"),
    ],
)
def test_a_start_outside_the_space_is_refused_with_the_place(start: Any, pointer: str, word: str) -> None:
    found = start_problems(start)
    assert any(
        problem.pointer.startswith(pointer) and word in f"{problem.detail} {problem.remedy}" for problem in found
    ), found


def test_a_preset_outside_the_space_is_refused_with_the_parameters() -> None:
    found = start_problems("preset:gpt2-small")
    assert {problem.pointer for problem in found} == {"/start_from/0"}
    assert any("hidden_size: 768" in problem.detail and "32, 64, 96" in problem.remedy for problem in found)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_start_a_sweep_that_holds_it(name: str) -> None:
    preset = PRESETS[name]
    opened: dict[str, Any] = {}
    for path, value in preset.values.items():
        section = "" if path.startswith(("training.", "inference.")) else "model."
        opened["/" + f"{section}{path}".replace(".", "/")] = {"values": [value]}
    dataset = {"causal_lm": "bytes", "classification": "digits", "seq2seq": "words"}[preset.task]
    opened |= {"/task": preset.task, "/dataset": dataset, "/start_from": [f"preset:{name}"]}
    (start,) = parsed(opened).starts
    assert start.chosen == dict(preset.values)


def test_what_a_preset_does_not_name_has_its_default() -> None:
    sweep = read(changed({"/model/attention/q_scaling": {"values": [1.0, 2.0]}}, FULL))
    assert sweep.starts[0].chosen["attention.q_scaling"] == 1.0


def test_a_start_that_lacks_a_value_says_where_to_write_it() -> None:
    spelt, *_ = start_problems({"hidden_size": 64})
    assert spelt.remedy.startswith("add it to this start")


def test_a_start_says_nothing_of_parameters_that_are_absent_there() -> None:
    conditional = {"/model/attention/rotary_embedding_base": {"values": [1e4], "when": "num_layers > 2"}}
    assert "attention.rotary_embedding_base" not in parsed(conditional | {"/start_from": [POINT]}).starts[0].chosen
    found = start_problems(POINT | {"attention.rotary_embedding_base": 1e4}, conditional)
    assert any("absent here" in problem.detail for problem in found)


def test_a_start_breaks_no_rule_and_no_static_constraint() -> None:
    (rule,) = start_problems(POINT, {"/rules": ["num_layers > 2"]})
    (constraint,) = start_problems(POINT, {"/constraints": ["parameter_count <= 100000"]})
    assert "num_layers > 2" in rule.detail
    assert "parameter_count <= 100000" in constraint.detail


def test_a_trial_can_be_a_start_by_its_configuration() -> None:
    sweep = parsed()
    configuration = sweep.space.configuration(sweep.space.resolve(POINT))
    known: dict[str, dict[str, Any]] = {"trial:01J": configuration, "trial:02J": flatten(configuration)}

    def find_start(reference: str) -> dict[str, Scalar] | None:
        return known.get(reference)

    (start,) = parsed({"/start_from": ["trial:01J"]}, find_start=find_start).starts
    (other,) = parsed({"/start_from": ["trial:02J"]}, find_start=find_start).starts
    assert start.chosen == other.chosen == POINT
    assert start.name == "trial:01J"
    (problem,) = problems({"/start_from": ["trial:01J", "trial:02J"]}, find_start=find_start)
    assert problem.pointer == "/start_from/1"
    assert "the same point" in problem.detail


# --- several problems -------------------------------------------------------------------------------------------------

WINDOW = {"/model/attention/max_attention_window_size": {"values": [512]}}
MASKS = {"/model/attention/attention_mask_type": {"values": ["causal", "sliding_window_causal"]}}
GENERATED = {"/constraints": ["decode_ms_per_token_p50 <= 1"]}


def test_one_answer_has_the_true_problems_and_none_that_follow_from_them() -> None:
    found = problems(WINDOW | MASKS | GENERATED | {"/inference": {"mode": "generation"}})
    assert sorted(problem.pointer for problem in found) == ["/inference/mode", *WINDOW]
    (misfit,) = (problem for problem in found if problem.pointer in WINDOW)
    assert "add when" in misfit.remedy
    excluded = {"/rules": ["attention.attention_mask_type != 'causal'"]}
    assert len(problems(WINDOW | MASKS | excluded | {"/inference": {"mode": "generation"}})) == 1


def test_a_metric_of_generating_says_how_to_have_it() -> None:
    (problem,) = problems(GENERATED)
    assert problem.remedy.startswith("set inference.mode: generate")


def test_a_misspelt_metric_is_told_to_be_none() -> None:
    (constraint,) = problems({"/constraints": ["decode_ms_per_token <= 1"]})
    assert "is not a metric" in constraint.detail
    (rule,) = problems({"/rules": ["decode_ms_per_token <= 1"]})
    assert "belong in constraints" in rule.remedy


def test_a_window_that_hides_nothing_is_noted() -> None:
    mask = {"/model/attention/attention_mask_type": "sliding_window_causal", "/inference/sequence_length": 128}
    sizes = {"/model/attention/max_attention_window_size": {"values": [64, 128, 512]}}
    notes = list(window_notes(parsed(mask | sizes).space))
    assert [note.pointer[-1] for note in notes] == ["1", "2"]
    assert "more than 128 tokens" in notes[1].detail


# --- garbage --------------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["hidden_size > 2", "preset:gpt2-small", "MLP", "latency_ms_p50 < 2", "1 / 0", "causal_lm"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["values", "min", "max", "step", "log", "derived", "when", "value", "metric", "goal", "kind"]
            )
            | st.text(max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_PLACES = st.sampled_from(
    [f"/{field}" for field in (*GOOD, "rules", "constraints", "budget", "search", "start_from", "target", "training")]
    + ["/model/" + name.replace(".", "/") for name in DECLARATIONS]
    + ["/training/steps", "/training/betas", "/training/dropout", "/budget/trials", "/search/sampler", "/allow_sparse"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_PLACES, _JSON, min_size=1, max_size=4))
def test_garbage_is_refused_and_breaks_nothing(places: dict[str, Any]) -> None:
    document: dict[Any, Any] = changed({})
    for pointer, value in places.items():
        *parents, last = pointer.strip("/").split("/")
        place: Any = document
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
    try:
        sweep, _ = read_document(document, find_dataset=DATASETS.get)
    except DocumentError as refused:
        found = refused.problems
    else:
        assert parse_document(json.loads(json.dumps(sweep.normalized)), find_dataset=DATASETS.get) == sweep
        return
    assert all(problem.detail and problem.remedy for problem in found), found
    assert all(problem.pointer == "" or problem.pointer.startswith("/") for problem in found)
    assert all(len(problem.detail) < 5000 for problem in found)


@settings(max_examples=200, deadline=None)
@given(_JSON | st.dictionaries(st.integers() | st.none() | st.text(max_size=5), _JSON, max_size=5))
def test_what_is_no_document_at_all_is_refused(document: Any) -> None:
    with pytest.raises(DocumentError):
        read(document)


def test_every_metric_can_be_an_objective_or_says_why_not() -> None:
    refused = []
    for metric in METRICS:
        try:
            parsed({"/objectives": [{"metric": metric}]})
        except DocumentError as error:
            refused.append((metric, error.problems[0].detail))
    generated = [name for name, metric in METRICS.items() if metric.of_generation]
    of_replicates = ("trainings", "validation_loss_stderr")
    assert {metric for metric, _ in refused} == {*generated, *of_replicates, "accuracy", "test_loss"}
    generating = {"/inference": {"mode": "generate", "prompt_tokens": 8, "new_tokens": 8}}
    for metric in generated:
        assert parsed({**generating, "/objectives": [{"metric": metric}]})


@pytest.mark.parametrize("mode", [{}, {"mode": "forward"}])
@pytest.mark.parametrize("also", [{}, {"/model/hidden_size": "wide"}])
def test_lengths_of_what_is_generated_do_not_apply_in_forward_mode(mode: dict[str, str], also: dict[str, str]) -> None:
    changes = {"/inference": {**mode, "prompt_tokens": 16, "new_tokens": {"values": [4, 8]}}, **also}
    with pytest.raises(DocumentError) as refused:
        measured(changes)
    found = {each.pointer: each for each in refused.value.problems}
    assert set(found) == {"/inference/prompt_tokens", "/inference/new_tokens", *also}
    problem = found["/inference/prompt_tokens"]
    assert problem.detail == "inference.prompt_tokens: does not apply: nothing is generated in mode forward"
    assert problem.remedy == "leave it out, or give mode: generate"


# --- a text's length ------------------------------------------------------------------------------------------------

SHORT_TEXT = {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 256, "training_tokens": 11_599}}


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"/training/sequence_length": 16_384}, ["/training/sequence_length"]),
        ({"/training/sequence_length": {"value": 11_599}}, ["/training/sequence_length"]),
        (
            {"/training/sequence_length": {"values": [64, 16_384, 128, 11_599]}},
            ["/training/sequence_length/values/1", "/training/sequence_length/values/3"],
        ),
        ({"/training/sequence_length": {"min": 64, "max": 16_384, "log": True}}, ["/training/sequence_length/max"]),
        ({"/inference/sequence_length": 16_384}, ["/inference/sequence_length"]),
        # None of its points is left, and it is found there.
        ({"/training/sequence_length": {"derived": "hidden_size * 1000"}}, ["/training/sequence_length"]),
        ({"/training/sequence_length": 11_598}, []),
        ({"/training/sequence_length": {"values": [64, 11_598]}}, []),
    ],
)
def test_a_sequence_longer_than_the_training_split_is_refused_in_its_place(
    changes: dict[str, Any], pointers: list[str]
) -> None:
    try:
        read_document(changed(changes), find_dataset=lambda _: SHORT_TEXT)
        found: list[Problem] = []
    except DocumentError as error:
        found = error.problems
    assert [problem.pointer for problem in found] == pointers
    assert all("11,599" in problem.detail for problem in found)


def test_a_text_that_is_shorter_than_the_default_shape_says_so() -> None:
    tiny = {**SHORT_TEXT, "facts": {"vocabulary_size": 256, "training_tokens": 100}}
    with pytest.raises(DocumentError) as refused:
        read_document(changed({}), find_dataset=lambda _: tiny)
    (problem,) = refused.value.problems
    assert problem.pointer == "/inference/sequence_length"
    assert "at most 99" in problem.detail


def test_rows_and_pairs_are_filled_up_to_any_length() -> None:
    pairs = {**DATASETS["words"], "facts": {**DATASETS["words"]["facts"], "training_tokens": 30}}
    document = changed({"/task": "seq2seq", "/dataset": "words", "/training/sequence_length": 64})
    assert read_document(document, find_dataset=lambda _: pairs)[1].feasible_share > 0


@pytest.mark.parametrize(
    ("objective", "notes"),
    [
        ({"metric": "validation_loss", "goal": "maximize"}, ["validation_loss is better where it is lower"]),
        ({"metric": "throughput_per_s", "goal": "minimize"}, ["throughput_per_s is better where it is higher"]),
        ({"metric": "validation_loss", "goal": "minimize"}, []),
        ({"metric": "throughput_per_s"}, []),
    ],
)
def test_a_goal_against_its_metric_is_worth_a_note(objective: dict[str, str], notes: list[str]) -> None:
    found = parsed({"/objectives": [objective]}).notes
    assert [(note.pointer, note.detail.partition(",")[0]) for note in found] == [
        ("/objectives/0/goal", note) for note in notes
    ]
