"""The JSON Schema of the sweep document: it accepts what the service accepts, and refuses what a schema can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from layers.document_schema.schema import as_json, document_schema
from layers.presets import PRESETS
from layersweep.cli import app
from service.errors import ServiceError
from service.sweeps import documents
from tests import test_sweep_document_docs as docs
from tests.layers.space.test_document import FULL, PROBE, REFUSED, read
from tests.layers.sweep_documents import GOOD, changed
from tests.service.sweeps.test_malformed_documents import CASES

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))

NEEDS_DATA = {
    "another task's dataset",
    "bits per byte in a constraint",
    "bits per byte where no bytes were counted",
    "start by a preset that does not fit",
    "start outside the space",
    "unknown dataset",
    "unknown trial",
}
"""Refused for what is registered, or for a start that is no point of the space."""

NEEDS_ARITHMETIC = {
    "NaN",
    "a grid of a continuous space",
    "given twice",
    "min above max",
    "share of a model that is not shared",
    "step of NaN",
    "steps too fine",
    "time that is no number",
}
"""Refused for how two of its numbers compare, or for one that JSON does not have."""

NEEDS_PARSER = {
    "100 brackets in a rule",
    "a cycle",
    "a rule that compares kinds",
    "a rule that is a number",
    "a rule with an unknown choice in a list",
    "a rule with an unknown choice",
    "code in a rule",
    "code in an expression",
    "constraint on a name",
    "cyclic derived",
    "derived from itself",
    "derived from nothing known",
    "derived from something absent",
    "derived from what follows",
    "derived name for a number",
    "derived that is no integer",
    "derived unknown choice",
    "huge exponent",
    "rule below model",
    "rule on an ambiguous name",
    "rule on an ambiguous section",
    "rule on an unknown parameter",
    "rule on another spelling",
    "rule on what is not built",
    "rule that is a value",
    "rule that no point satisfies",
    "rule that no sample satisfies",
    "rule without a name",
    "when on nothing known",
    "when that is a value",
}
"""Refused for what an expression says."""

BEYOND_SCHEMAS = NEEDS_DATA | NEEDS_ARITHMETIC | NEEDS_PARSER


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(as_json()))


def problems(schema: jsonschema.Draft202012Validator, document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in schema.iter_errors(document)]


def test_it_is_a_schema_by_its_metaschema() -> None:
    jsonschema.Draft202012Validator.check_schema(document_schema())


def test_what_it_refers_to_is_there(schema: jsonschema.Draft202012Validator) -> None:
    text = as_json()
    definitions = document_schema()["$defs"]
    assert isinstance(definitions, dict)
    named = {part.partition('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert {name.partition("/")[0] for name in named} == set(definitions)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_accepted(schema: jsonschema.Draft202012Validator, name: str) -> None:
    document = documents.read((ROOT / "examples" / name).read_bytes(), "application/yaml")
    assert problems(schema, document) == []


@pytest.mark.parametrize("text", docs.EXAMPLES)
def test_every_example_of_the_documentation_is_accepted(schema: jsonschema.Draft202012Validator, text: str) -> None:
    assert problems(schema, docs.whole(text)) == []


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_accepted(schema: jsonschema.Draft202012Validator, name: str) -> None:
    preset = json.loads(json.dumps(PRESETS[name].document()))
    whole = {"name": name, "dataset": "mine", "objectives": [{"metric": "validation_loss"}], **preset}
    assert problems(schema, whole) == []


@pytest.mark.parametrize("document", [GOOD, FULL, PROBE], ids=["good", "full", "probe"])
def test_a_document_is_accepted_as_the_service_shows_it(
    schema: jsonschema.Draft202012Validator, document: dict[str, Any]
) -> None:
    assert problems(schema, read(document).normalized) == []


@pytest.mark.parametrize(
    "model",
    [
        {"layers": {"0": {"mlp": {"kind": "MLP"}, "attention.bias": True}, "1.mlp.ffn_hidden_size": 64}},
        {"layers.0": {"norm": {"kind": "RmsNorm"}}, "layers.1.norm": {"kind": "LayerNorm"}},
        {"layers.1.mlp.ffn_hidden_size": {"values": [32, 64], "when": "num_layers > 1"}, "mlp.kind": "default_space"},
    ],
)
def test_single_layers_are_accepted_nested_and_dotted(
    schema: jsonschema.Draft202012Validator, model: dict[str, Any]
) -> None:
    assert problems(schema, GOOD | {"model": GOOD["model"] | model}) == []
    assert problems(schema, GOOD | {"model": GOOD["model"] | {"layers.0.mlp.knid": "MLP"}}) != []


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_mistake_is_refused_that_a_schema_can_see(schema: jsonschema.Draft202012Validator, case: str) -> None:
    document = changed(REFUSED[case][0])
    assert bool(problems(schema, document)) is (case not in BEYOND_SCHEMAS)


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_malformed_document_is_refused_that_a_schema_can_see(
    schema: jsonschema.Draft202012Validator, case: str
) -> None:
    body, content_type, _, _ = CASES[case]
    try:
        document = documents.read(body, content_type)
    except ServiceError:
        return  # No JSON value at all: its reader has refused it.
    assert bool(problems(schema, document)) is (case not in BEYOND_SCHEMAS)


def test_each_parameter_says_what_it_means_what_it_takes_and_what_to_search(
    schema: jsonschema.Draft202012Validator,
) -> None:
    definitions = document_schema()["$defs"]
    assert isinstance(definitions, dict)
    heads = definitions["attention.num_attention_heads"]
    assert heads["description"]
    assert heads["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 1024}
    assert heads["examples"]
    assert all(problems(schema, GOOD | {"training": {"steps": value}}) for value in (0, 1.5, "many", {"min": 1}))


def test_the_command_prints_it_without_a_service_as_it_is_shipped() -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert printed.exit_code == 0, printed.output
    assert printed.stdout == as_json(), "run make docs"


def test_it_is_made_without_torch() -> None:
    script = "import sys, layers.document_schema.schema as s; s.as_json(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
