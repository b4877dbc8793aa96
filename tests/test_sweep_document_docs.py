"""docs/sweep-document.md: its examples are valid, and it says what there is."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layers.dataset_facts import BUILT_IN
from layers.expressions.parser import FUNCTIONS
from layers.space import document_fields, feasibility
from layers.space.document import MAX_CHARACTERS, FeasibilityReport, read_document
from layers.space.document_fields import BUDGET, FIELDS, MAX_OBJECTIVES, SAMPLERS
from layers.wanted_target import RUNTIMES
from service.sweeps import documents

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sweep-document.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BASE: dict[str, Any] = {
    "name": "example",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"min": 1, "max": 8},
        "hidden_size": 128,
        "attention": {"num_attention_heads": {"values": [2, 4]}},
    },
    "objectives": [{"metric": "latency_ms_p50"}],
}


def find_dataset(name: str) -> Mapping[str, Any] | None:
    known: dict[str, Mapping[str, Any]] = {
        **BUILT_IN,
        "pronunciation": {
            "task": "seq2seq",
            "tokenizer": "char",
            "facts": {"source_vocabulary_size": 27, "vocabulary_size": 42, "source_length": 18, "target_length": 17},
        },
    }
    return known.get(name)


def whole(text: str) -> dict[str, Any]:
    """An example as a whole document: itself, or BASE with what it changes there."""
    example = documents.read(text.encode(), "application/yaml")
    document = copy.deepcopy(example if "name" in example else BASE)
    for field, value in example.items():
        if field == "model" and "name" not in example:
            dotted = "attention.num_attention_heads" in value
            document["model"] = {**document["model"], **({"attention": {}} if dotted else {}), **value}
        else:
            document[field] = value
    return document


def read(text: str) -> FeasibilityReport:
    """Validate an example."""
    return read_document(whole(text), find_dataset=find_dataset)[1]


@pytest.mark.parametrize(
    "name", ["quickstart", "digits", "pronunciation", "probe", "feed-forward-ratio", "chat", "serving-shapes"]
)
def test_the_example_sweeps_are_valid(name: str) -> None:
    assert read((ROOT / "examples" / f"{name}.yaml").read_text()).feasible_share > 0


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6
    assert PAGE.count("```") == 2 * len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_valid(example: str) -> None:
    assert read(example).feasible_share > 0


SMALL_FIELDS = ("parallel", "wall_seconds", "seed", "reuse", "transfer", "hardware_first", "replicates", "device_model")


@pytest.mark.parametrize("name", [*FIELDS, *BUDGET, *SAMPLERS, *RUNTIMES, *FUNCTIONS, *SMALL_FIELDS])
def test_every_field_is_told(name: str) -> None:
    assert re.search(rf"`(?:[^`]*\b)?{name}\b[^`]*`", PAGE), name


def test_the_figures_on_the_page_are_those_of_the_code() -> None:
    assert f"1 to {MAX_OBJECTIVES} metrics" in PAGE
    assert f"{feasibility.SAMPLES:,} random points, each parameter drawn by itself" in PAGE
    assert f"{feasibility.MAX_COMPLETIONS:,} different models" in PAGE
    assert f"{int(feasibility.MAX_COMPLETIONS / feasibility.STEP_WORK):,} points" in PAGE
    assert f"{MAX_CHARACTERS:,} together" in PAGE
    assert f"{documents.MAX_NODES:,} values" in PAGE
    assert [default for default, _, _ in document_fields.BUDGET.values()] == [100, 10]
