"""What is measured anew is the trial's own configuration, whatever its sweep left open."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from layers.expressions.metric_names import MetricNames
from layers.space.document import Rejection, parse_document
from service.assertions import limits
from service.assertions.remeasurement import measuring_document
from service.errors import UnprocessableError
from service.sweeps import documents
from tests.layers.sweep_documents import DATASETS

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
DATA = {"causal_lm": "bytes", "classification": "digits", "seq2seq": "words"}


def find_dataset(name: str) -> Any:
    return DATASETS.get(name)


def example(path: Path) -> dict[str, Any]:
    document = documents.read(path.read_bytes(), "application/yaml")
    return {**document, "dataset": DATA.get(document["task"]), "start_from": []}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_build_has_the_configuration_of_the_trial(path: Path) -> None:
    document = example(path)
    if document["task"] == "probe":
        pytest.skip("a probe has no seed")
    sweep = parse_document(document, find_dataset=find_dataset)
    space = sweep.space
    configuration = next(
        space.configured(completed)
        for completed in (space.complete_or_reject(space.resolve(space.sample(random.Random(n)))) for n in range(500))
        if not isinstance(completed, Rejection)
    )
    asked = limits.read(["latency_ms_p50 <= 2", "memory_bytes <= 1e9"], MetricNames.of(sweep.normalized))
    measuring = measuring_document(configuration, asked, 5) | {"name": "anew", "dataset": document["dataset"]}
    anew = parse_document(measuring, find_dataset=find_dataset).space
    assert [parameter.name for parameter in anew.open] == ["training.seed"]
    build = anew.configured(anew.complete(anew.resolve(anew.sample(random.Random(0)))))
    assert {**build, "training": None} == {**configuration, "training": None}
    assert build["training"]["steps"] == 1


def test_a_limit_on_what_was_learnt_keeps_the_training() -> None:
    configuration: Any = {"task": "causal_lm", "model": {}, "training": {"steps": 300, "seed": 4}, "inference": {}}
    asked = limits.read(["validation_loss <= 2"], MetricNames())
    training = measuring_document(configuration, asked, 5)["training"]
    assert (training["steps"], training["seed"]["min"]) == (300, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency <= 2", "did you mean"),
        ("latency_ms_p50 <= 2 * before", "before is neither a metric nor baseline"),
        ("latency_ms_p50 + latency_ms_p99 <= baseline", "baseline could be that of"),
        ("test_loss <= 2", "is not of a trial that is measured anew"),
        ("latency_ms_p50@chat <= 2", "the sweep names no shapes"),
        ("baseline <= 2", "it names no metric"),
        ("__import__('os')", ""),
    ],
)
def test_a_limit_that_cannot_be_judged_is_named(text: str, says: str) -> None:
    with pytest.raises(UnprocessableError) as error:
        limits.read(["latency_ms_p50 <= 2", text], MetricNames())
    problem = error.value.problems[0]
    assert problem.pointer == "/limits/1"
    assert says in f"{problem.detail} {problem.remedy}"
