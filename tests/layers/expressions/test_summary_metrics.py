"""Which metrics summaries show, in which order."""

from typing import Any

import pytest

from layers.expressions.summary_metrics import cost_metric, summary_metrics

GENERATE = {"mode": "generate", "batch_size": 1}


@pytest.mark.parametrize(
    ("document", "summary", "cost"),
    [
        (
            {
                "constraints": ["decode_ms_per_token_p50 <= 0.3", "prefill_ms_p50 <= 2", "parameter_count <= 1e6"],
                "inference": GENERATE,
            },
            ["validation_loss", "decode_ms_per_token_p50", "prefill_ms_p50", "parameter_count", "memory_bytes"],
            "decode_ms_per_token_p50",
        ),
        (
            {"constraints": [], "inference": GENERATE},
            ["validation_loss", "prefill_ms_p50", "decode_ms_per_token_p50", "memory_bytes", "parameter_count"],
            "prefill_ms_p50",
        ),
        (
            {"constraints": ["parameter_count <= 1e6"], "inference": {"batch_size": 1}},
            ["validation_loss", "parameter_count", "latency_ms_p50", "memory_bytes"],
            "parameter_count",
        ),
        (
            {"constraints": ["latency_ms_p99 <= 1", "validation_loss <= 3"]},
            ["validation_loss", "latency_ms_p99", "latency_ms_p50", "memory_bytes", "parameter_count"],
            "latency_ms_p99",
        ),
    ],
)
def test_what_the_sweep_decides_by_comes_first(document: dict[str, Any], summary: list[str], cost: str) -> None:
    objectives = ["validation_loss"]
    assert summary_metrics(objectives, document) == [*summary, "accuracy"]
    assert cost_metric(objectives, document) == cost


def test_of_several_shapes_those_that_decide_are_shown_else_the_first() -> None:
    document = {"inference": {"shapes": [{"name": "chat"}, {"name": "bulk"}]}}
    assert summary_metrics(["latency_ms_p50@bulk"], document)[:3] == [
        "latency_ms_p50@bulk",
        "memory_bytes@chat",
        "parameter_count",
    ]
