"""Which points can leave for `transformers`, and a sweep that asks it of all of them."""

from __future__ import annotations

from typing import Any

import pytest

from layers.checkpoints.matching import RULE
from layers.dataset_facts import BUILT_IN
from layers.space.document import DocumentError, parse_document, read_document
from layers.space.transformers_share import transformers_share

DOCUMENT: dict[str, Any] = {
    "name": "leaving",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": 2,
        "hidden_size": 32,
        "attention": {
            "num_attention_heads": 2,
            "position_embedding_type": {"values": ["rope_gpt_neox", "alibi"]},
            "qk_norm": {"values": ["none", "RmsNorm"]},
            "bias": False,
        },
        "mlp": {"kind": "GatedMLP", "bias": False},
        "norm": {"kind": "RmsNorm"},
    },
    "objectives": [{"metric": "validation_loss"}],
}


def test_validation_says_which_share_leaves_as_what() -> None:
    space = parse_document(DOCUMENT, find_dataset=BUILT_IN.get).space
    assert transformers_share(space).judged == 4, "every point, once"
    found = transformers_share(space, draws=3)
    assert found.judged == 3
    training = {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}
    found = transformers_share(parse_document({**DOCUMENT, "training": training}, find_dataset=BUILT_IN.get).space)
    assert found.judged == 100
    assert set(found.architectures) == {"Llama", "Qwen3"}
    assert 30 < sum(found.architectures.values()) < 70
    assert found.misfit is not None
    assert "position_embedding_type is 'alibi'" in found.misfit


def test_a_requirement_rejects_what_cannot_leave_under_its_own_name() -> None:
    document = {**DOCUMENT, "require": RULE}
    sweep, feasibility = read_document(document, find_dataset=BUILT_IN.get)
    assert feasibility.rejections == {RULE: 0.5}
    assert "'alibi'" in feasibility.examples[RULE].message
    assert sweep.normalized.get("require") == RULE
    assert parse_document(sweep.normalized, find_dataset=BUILT_IN.get).normalized == sweep.normalized
    assert transformers_share(sweep.space).misfit is None


def test_a_space_of_which_nothing_can_leave_is_refused_there() -> None:
    attention = {**DOCUMENT["model"]["attention"], "position_embedding_type": "alibi"}
    document = {**DOCUMENT, "require": RULE, "model": {**DOCUMENT["model"], "attention": attention}}
    with pytest.raises(DocumentError) as refused:
        read_document(document, find_dataset=BUILT_IN.get)
    (problem,) = refused.value.problems
    assert problem.pointer == "/require"
    assert "transformers_export rejects 100.0%" in problem.detail


@pytest.mark.parametrize("given", ["vllm", True, ["transformers_export"]])
def test_other_requirements_are_refused(given: object) -> None:
    with pytest.raises(DocumentError, match="is not a requirement"):
        parse_document({**DOCUMENT, "require": given}, find_dataset=BUILT_IN.get)


def test_a_probe_leaves_nothing() -> None:
    probe = {
        "name": "probe",
        "task": "probe",
        "model": {"kind": "mlp", "hidden_size": 32},
        "objectives": [{"metric": "latency_ms_p50"}],
        "require": RULE,
    }
    with pytest.raises(DocumentError, match="leaves no checkpoint"):
        parse_document(probe, find_dataset=BUILT_IN.get)
