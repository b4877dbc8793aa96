"""Random sweep documents over every task and kind: a sampled point is built and run, or refused for a true reason."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layers.declarations import model as models
from layers.declarations.kinds import KINDS
from layers.declarations.model import APPLIES, DECLARATIONS
from layers.declarations.per_layer import BLOCK_PATHS
from layers.export.onnx_export import cast_copy
from layers.modules.model import build, set_trainable
from layers.modules.tensor_parallel import Group, split
from layers.signature import signature
from layers.space.document import DocumentError, parse_document
from tests.layers.combinations import BASES, BATCH_SIZE, Combination, drawn, enumerated
from tests.layers.export.test_combinations import LARGEST_ERROR, parity_errors

DATASETS = {
    "causal_lm": {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 29}},
    "classification": {
        "task": "classification",
        "tokenizer": None,
        "facts": {"vocabulary_size": 29, "classes": 5, "sequence_length": 12},
    },
    "seq2seq": {
        "task": "seq2seq",
        "tokenizer": None,
        "facts": {"vocabulary_size": 29, "source_vocabulary_size": 29, "source_length": 9, "target_length": 12},
    },
}

NUMBERS: dict[str, list[Any]] = {
    "num_layers": [1, 2],
    "num_encoder_layers": [1, 2],
    "hidden_size": [24, 32, 40],
    "attention.num_attention_heads": [1, 2, 3, 4],
    "attention.num_kv_heads": [1, 2, 3],
    "attention.attention_head_size": [6, 7, 8],
    "attention.num_buckets": [4, 5, 8],
    "attention.max_distance": [2, 16],
    "attention.q_scaling": [0.5, 2.0],
    "attention.rotary_embedding_percentage": [0.1, 0.5, 1.0],
    "mlp.ffn_hidden_size": [20, 33],
    "norm.eps": [1e-6, 1e-3],
    "norm.num_groups": [1, 4, 5, 32],
    "embedding.embedding_dim": [16, 48],
    "embedding.num_embeddings": [29, 64],
    "embedding.prompt_length": [1, 5],
    "embedding.num_tasks": [2, 3],
    "tp_size": [1, 2, 4],
    "attention.tp_size": [1, 2],
    "mlp.tp_size": [1, 4],
    "embedding.tp_size": [1, 2],
    "embedding.sharding_dim": [0, 1],
    "linear.tp_size": [1, 4],
    "linear.in_features": [8, 9],
    "linear.out_features": [8, 9],
}

TRAINING: dict[str, list[Any]] = {
    "steps": [4, 20],
    "warmup_steps": [0, 10],
    "learning_rate": [1e-4, 1e-2],
    "min_learning_rate": [1e-5, 1e-3],
    "dropout": [0.0, 0.5],
    "trainable": ["all", "prompt"],
}

SEEN_BY_BUILDING = {
    "hidden_size % num_attention_heads",
    "num_attention_heads % num_kv_heads",
    "hidden_size % norm.num_groups",
    "mlp.hidden_act not gated in GatedMLP",
}
"""Rules without which no module can be made or run, whatever else it is. test_rules_are_true.py has every rule."""

SEEN_BY_SPLITTING = ("% tp_size", "of the group", "num_kv_heads and tp_size")
"""Ends of rules without which devices cannot share a module."""

FAILURES = (RuntimeError, ValueError, KeyError, TypeError, AssertionError, ZeroDivisionError)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A document of one kind of model, with some of its parameters open."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    model: dict[str, Any] = {"kind": kind, **BASES[kind]}
    paths = [
        path
        for path, parameter in DECLARATIONS.items()
        if KINDS[kind].has(path) and path != "kind" and (path in NUMBERS or enumerated(parameter))
    ]
    for path in draw(st.lists(st.sampled_from(paths), unique=True, max_size=5)):
        values = NUMBERS.get(path) or list(enumerated(DECLARATIONS[path]))
        opened: dict[str, Any] = {"values": draw(st.lists(st.sampled_from(values), unique=True, min_size=1))}
        if path in APPLIES and APPLIES[path].path in DECLARATIONS:
            condition = APPLIES[path]
            model.setdefault(condition.path, condition.values[0])
            opened["when"] = str(condition)
        model[path] = opened
    task = KINDS[kind].task
    hidden = [path for path, written in model.items() if isinstance(written, dict) and draw(st.booleans())]
    variables = {f"free_{number}": model[path] for number, path in enumerate(hidden)}
    for number, path in enumerate(hidden):
        # The parameter is what the variable is: the same points, chosen elsewhere.
        model[path] = {**variables[f"free_{number}"], "derived": f"free_{number}"}
        del model[path]["values"]
        if task != "probe" and path in BLOCK_PATHS and draw(st.booleans()):
            for written in (model[path], variables[f"free_{number}"]):
                written["per_layer"] = True
    training: dict[str, Any] = {}
    if task != "probe":
        for name in draw(st.lists(st.sampled_from(sorted(TRAINING)), unique=True, max_size=2)):
            training[name] = {"values": draw(st.lists(st.sampled_from(TRAINING[name]), unique=True, min_size=1))}
    known = {"dataset": task} if task in DATASETS else {}
    # A probe of an embedding has no dataset whose vocabulary it could follow.
    if kind == "embedding":
        model.setdefault("embedding.num_embeddings", 29)
        # The inputs that are drawn name two tasks.
        if "embedding.kind" in model:
            two = {"value": 2, "when": "embedding.kind == 'PromptTuningEmbedding'"}
            model.setdefault("embedding.num_tasks", two)
    return {
        "name": "drawn",
        "task": task,
        **known,
        **({"variables": variables} if variables else {}),
        "model": model,
        "training": training,
        "inference": {"batch_size": BATCH_SIZE, "sequence_length": 12},
        "objectives": [{"metric": "latency_ms_p50"}],
    }


def sampled(document: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """The document's space and one point of it."""
    space = parse_document(document, find_dataset=DATASETS.get).space
    return space, space.resolve(space.sample(random.Random(seed)))


def run(task: str, model: dict[str, Any]) -> None:
    """Build a completed model and run it; its outputs have the signature's shapes, and no NaN."""
    found = signature(task, model, BATCH_SIZE, 12, 9)
    with torch.no_grad():
        output = cast_copy(build(model), str(model["dtype"]))(*(drawn(spec) for spec in found.inputs))
    assert tuple(output.shape) == found.outputs[0].shape
    assert torch.isfinite(output).all()


def refused_training(space: Any, values: dict[str, Any], rule: str) -> None:
    """What a training is refused for is so: a warm-up that never ends, rates that rise, nothing to train."""
    if rule == "training.trainable":
        model = space.complete_model(values, space.complete_inference(values), {})
        module = build(model)
        set_trainable(module, "prompt")
        assert not any(parameter.requires_grad for parameter in module.parameters())
    elif rule == "training.warmup_steps":
        assert values["training.warmup_steps"] > values.get("training.steps", 500)
    else:
        assert rule == "training.min_learning_rate"
        assert values["training.min_learning_rate"] > values.get("training.learning_rate", 1e-3)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents(), st.integers(0, 2**16))
def test_a_sampled_point_runs_or_is_refused_for_a_true_reason(document: dict[str, Any], seed: int) -> None:
    try:
        space, values = sampled(document, seed)
    except DocumentError:
        return
    rejection = space.judge(values)
    if rejection is None:
        run(document["task"], space.complete(values).model)
        return
    assert rejection.message
    if rejection.rule.startswith("training."):
        refused_training(space, values, rejection.rule)
    elif rejection.rule.endswith(SEEN_BY_SPLITTING):
        model = space.complete(values).model
        if not SEEN_BY_BUILDING & {violation.rule for violation in models.broken_rules(model)}:
            with pytest.raises(ValueError):
                split(build(model), model, Group(0, model["tp_size"]))
    elif rejection.rule in SEEN_BY_BUILDING:
        model = space.complete(values).model
        assert rejection.rule in [violation.rule for violation in models.broken_rules(model)]
        # As it is exported: PyTorch's fused kernel takes heads that do not match, and answers nonsense.
        with (
            mock.patch("torch.compiler.is_exporting", return_value=True),
            pytest.raises(FAILURES),
        ):
            run(document["task"], model)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents(), st.integers(0, 2**16))
def test_variables_are_parameters_that_no_configuration_has(document: dict[str, Any], seed: int) -> None:
    try:
        read = parse_document(document, find_dataset=DATASETS.get)
    except DocumentError as refused:
        found = refused.problems
        assert all(problem.pointer.startswith("/") and problem.detail and problem.remedy for problem in found)
        return
    space = read.space
    assert parse_document(read.normalized, find_dataset=DATASETS.get) == read
    chosen = space.sample(random.Random(seed))
    values = space.resolve(chosen)
    assert space.chosen_of(values) == chosen
    variables = space.variables_of(values)
    assert variables.keys() == {name for name in values if "variables." in name}
    assert variables.items() <= space.shown(values).items()
    if space.judge(values) is None:
        configuration = space.configuration(values)
        assert not any("free_" in name for section in configuration.values() for name in section)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents(), st.integers(0, 2**16))
def test_a_sampled_point_exports_and_runs_in_onnx_runtime(document: dict[str, Any], seed: int) -> None:
    try:
        space, values = sampled(document, seed)
    except DocumentError:
        return
    if space.judge(values) is None:
        combination = Combination("drawn", document["task"], space.complete(values).model)
        with tempfile.TemporaryDirectory() as folder:
            assert parity_errors([combination], Path(folder))["drawn"] <= LARGEST_ERROR
