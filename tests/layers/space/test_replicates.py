"""`search.replicates`: what a document may say, and where it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from layers.space.document import DocumentError, parse_document


def _document(replicates: Any, **changes: Any) -> dict[str, Any]:
    return {
        "name": "again",
        "task": "causal_lm",
        "dataset": "letters",
        "model": {"num_layers": 1, "hidden_size": {"values": [16, 32]}, "attention": {"num_attention_heads": 2}},
        "training": {"steps": 10},
        "objectives": [{"metric": "validation_loss"}],
        "search": {"replicates": replicates},
        **changes,
    }


@pytest.mark.parametrize("wrong", [-1, 21, 1.5, True, "many", None, [], float("nan"), float("inf")])
def test_what_is_no_number_of_trainings_is_refused_with_its_place(wrong: Any) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_document(_document(wrong), find_dataset=lambda _: None)
    assert "/search/replicates" in {problem.pointer for problem in refused.value.problems}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"objectives": [{"metric": "latency_ms_p50"}]}, "no objective"),
        ({"training": {"steps": 10, "seed": {"min": 0, "max": 9}}}, "training.seed is open"),
    ],
)
def test_replicates_that_would_decide_nothing_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_document(_document(2, **changes), find_dataset=lambda _: None)
    assert any(why in problem.detail for problem in refused.value.problems)
    with pytest.raises(DocumentError) as of_the_dataset_alone:
        parse_document(_document("auto", **changes), find_dataset=lambda _: None)
    assert {problem.pointer for problem in of_the_dataset_alone.value.problems} == {"/dataset"}


@pytest.mark.parametrize("metric", ["trainings", "validation_loss_stderr"])
def test_how_sure_a_loss_is_is_no_objective(metric: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_document(_document(0, objectives=[{"metric": metric}]), find_dataset=lambda _: None)
    assert any("how sure" in problem.detail for problem in refused.value.problems)
