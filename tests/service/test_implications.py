"""What a profile implies: sizes with their sources, and warnings where they belong."""

from __future__ import annotations

from typing import Any

import pytest

from service.database.models import Dataset
from service.datasets.implications import TrainedModel, implications, truncated_share


def dataset(task: Any = "causal_lm", splits: Any = None, **profile: Any) -> Dataset:
    sizes = {"training": {"tokens": 100_000}, "validation": {"tokens": 20_000}, "test": {"tokens": 10_000}}
    return Dataset(name="d", task=task, parts=sizes if splits is None else splits, profile=profile)


def said(found: Any) -> list[tuple[str, str]]:
    return [(each.kind, each.says) for each in found.implications]


def test_a_text_implies_a_range_of_sizes_with_its_sources() -> None:
    found = implications(dataset(baselines_nats={"uniform": 4.0, "bigram": 2.0}))
    assert found.parameters_low == 5_000
    assert found.parameters_high == pytest.approx(100_000 * 2.0 / 0.6931 / 3.6, rel=1e-3)
    assert [each.source is not None for each in found.implications] == [True, True]
    assert not [kind for kind, _ in said(found) if kind == "warning"]


def test_a_model_that_can_memorize_the_corpus_is_warned_of() -> None:
    text = dataset(baselines_nats={"bigram": 2.0})
    for count, warned in ((50_000, False), (500_000, True)):
        found = implications(text, TrainedModel(parameter_count=count))
        assert any("memorize the training set" in says for kind, says in said(found) if kind == "warning") == warned


def test_leaks_small_splits_and_a_missing_test_split_are_told() -> None:
    splits = {"training": {"examples": 500}, "validation": {"examples": 50}}
    found = said(implications(dataset("classification", splits, duplicates={"validation_in_training_share": 0.3})))
    assert ("warning", found[0][1]) == found[0]
    assert "30.0% of the validation split's examples" in found[0][1]
    assert "50 examples: its loss is a rough estimate" in found[1][1]
    assert "--test 0.1" in found[2][1]


def test_sequences_that_are_cut_or_mostly_padding_are_told() -> None:
    lengths = {"minimum": 1, "mean": 20.0, "p50": 15.0, "p90": 40.0, "p99": 90.0, "longest": 100}
    pairs = dataset("seq2seq", lengths={"source": lengths, "target": lengths | {"mean": 80.0}})
    found = said(implications(pairs, TrainedModel({"source_length": 20, "sequence_length": 100})))
    (cut,) = [says for kind, says in found if kind == "warning"]
    assert cut == "a source length of 20 truncates 42% of the examples"
    (padded,) = [says for kind, says in found if kind == "note"]
    assert "80% of a batch at that source length is padding" in padded


def test_the_share_that_is_cut_is_read_off_the_percentiles() -> None:
    lengths = {"p50": 10, "p90": 30, "longest": 50}
    assert truncated_share(lengths, 50) == 0.0
    assert truncated_share(lengths, 30) == pytest.approx(0.1)
    assert truncated_share(lengths, 20) == pytest.approx(0.3)
    assert truncated_share(None, 20) is None
    assert truncated_share({"mean": 3}, 20) is None
