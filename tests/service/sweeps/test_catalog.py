from __future__ import annotations

from importlib.resources import files

from layers.declarations.inference.parameters import INFERENCE
from layers.declarations.model import DECLARATIONS
from layers.declarations.training import TRAINING
from layers.presets import PRESETS
from tests.service.sweep_rows import TARGET, add_worker


def test_every_declared_parameter_is_listed_once(client):
    sections = client.get("/v1/layers").json()["items"]
    paths = [parameter["path"] for section in sections for parameter in section["parameters"]]
    expected = [*DECLARATIONS, *(f"training.{name}" for name in TRAINING), *(f"inference.{name}" for name in INFERENCE)]
    assert sorted(paths) == sorted(expected)
    assert [section["section"] for section in sections][:2] == ["model", "attention"]


def test_a_parameter_says_what_it_takes_and_where_that_comes_from(client):
    sections = {section["section"]: section for section in client.get("/v1/layers").json()["items"]}
    assert sections["mlp"]["kinds"] == ["MLP", "GatedMLP", "FusedGatedMLP"]
    rate = next(each for each in sections["training"]["parameters"] if each["path"] == "training.learning_rate")
    assert rate["type"] == "number"
    assert rate["minimum"] > 0
    assert rate["search"]["log"] is True
    width = next(each for each in sections["model"]["parameters"] if each["path"] == "hidden_size")
    assert (width["required"], width["default"]) == (True, None)


def test_a_parameter_says_which_targets_support_it_and_whether_layers_may_differ(client):
    sections = client.get("/v1/layers").json()["items"]
    found = {each["path"]: each for section in sections for each in section["parameters"]}
    everywhere = {"supported": True, "note": "", "values": {}}
    for each in found.values():
        assert set(each["targets"]) == {"onnxruntime", "tensorrt", "tensorrt_rtx"}
    assert found["mlp.hidden_act"]["targets"] == dict.fromkeys(found["mlp.hidden_act"]["targets"], everywhere)
    dtype = found["dtype"]["targets"]
    assert dtype["onnxruntime"]["values"]["float16"] == "no: a CPU gains nothing from it"
    assert dtype["tensorrt"]["values"]["bfloat16"] == "needs version 9.0 and compute capability 8.0"
    assert found["attention.dtype"]["targets"]["tensorrt"]["note"] == "another than dtype needs version 10.0"
    assert found["inference.optimization_level"]["targets"]["onnxruntime"]["supported"] is False
    assert found["mlp.tp_size"]["targets"]["tensorrt"]["supported"] is True
    assert found["mlp.tp_size"]["targets"]["tensorrt_rtx"]["supported"] is False
    assert (found["mlp.kind"]["per_layer"], found["hidden_size"]["per_layer"]) == (True, False)


def test_presets_come_with_their_source_and_what_they_set(client):
    presets = client.get("/v1/presets").json()["items"]
    assert [preset["name"] for preset in presets] == list(PRESETS)
    for preset in presets:
        assert preset["source"]
        assert preset["document"]["model"]["hidden_size"] >= 1


def test_targets_are_those_of_the_workers(client, services):
    assert client.get("/v1/targets").json()["items"] == []

    def register(session):
        return [add_worker(session, name).id for name in ("a", "b")]

    ids = services.database.write(register)
    (target,) = client.get("/v1/targets").json()["items"]
    assert (target["key"], target["runtime"]) == (TARGET["key"], "onnxruntime")
    assert sorted(target["workers"]) == sorted(ids)
    assert target["capabilities"]["dtypes"] == ["float32"]
    assert "key" not in target["capabilities"]


def test_editors_fetch_the_schema_of_sweep_documents_as_the_client_ships_it(client):
    answer = client.get("/v1/schemas/sweep.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/schema+json"
    assert answer.text == files("layersweep").joinpath("sweep.schema.json").read_text(encoding="utf-8")
