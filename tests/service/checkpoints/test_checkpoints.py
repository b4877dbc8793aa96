"""Checkpoints over HTTP: what is taken, what is refused and why, and what sweeps begin with."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load, save

from service.common.states import SweepState
from service.datasets import content_folders, datasets
from service.errors import ConflictError
from service.http.dependencies import Services
from service.sweeps import drafts, sweeps
from tests.service.checkpoint_files import checkpoint_files
from tests.service.datasets.test_subwords import given_tokenizer

SWEEP: dict[str, Any] = {
    "name": "from a checkpoint",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"values": [1, 2]},
        "hidden_size": {"values": [16, 32]},
        "attention": {"num_attention_heads": 2, "position_embedding_type": "rope_gpt_neox", "bias": False},
        "mlp": {"kind": "GatedMLP", "ffn_hidden_size": {"values": [32, 64]}, "bias": False},
        "norm": {"kind": "RmsNorm"},
    },
    "inference": {"sequence_length": 64},
    "objectives": [{"metric": "validation_loss"}],
    "start_from": ["checkpoint:small"],
}


def upload(client: TestClient, files: dict[str, bytes], name: str = "small") -> httpx2.Response:
    return client.post("/v1/checkpoints", data={"name": name}, files=files)


def test_a_checkpoint_is_kept_by_its_content_until_it_is_deleted(client: TestClient, services: Services) -> None:
    made = upload(client, checkpoint_files())
    assert made.status_code == 201, made.text
    record = made.json()
    assert (record["architecture"], record["task"]) == ("Llama", "causal_lm")
    assert record["model"]["mlp.ffn_hidden_size"] == 32
    assert upload(client, checkpoint_files()).status_code == 200
    assert upload(client, checkpoint_files(seed=1)).status_code == 409
    assert upload(client, checkpoint_files(), "twin").json()["sha256"] == record["sha256"]
    assert [each["name"] for each in client.get("/v1/checkpoints").json()["items"]] == ["small", "twin"]

    weights = client.get("/v1/checkpoints/small/weights")
    assert weights.headers["etag"] == f'"{record["sha256"]}"'
    assert "stack.layers.0.attention.qkv.weight" in load(weights.content)
    assert client.delete(f"/v1/checkpoints/{record['id']}").status_code == 204
    assert client.get("/v1/checkpoints/small").status_code == 404
    assert client.get("/v1/checkpoints/twin/weights").status_code == 200
    assert client.delete("/v1/checkpoints/twin").status_code == 204
    folder = services.settings.data_dir / "checkpoints"
    assert list(folder.iterdir()) == []
    assert list(datasets.uploads_folder(services.settings).iterdir()) == []


def test_its_tokenizer_reads_a_text(client: TestClient) -> None:
    tokenizer = given_tokenizer()
    assert upload(client, {**checkpoint_files(), "tokenizer": tokenizer}).status_code == 201
    assert upload(client, checkpoint_files(seed=1), "without").status_code == 201

    def add(name: str, reference: str) -> httpx2.Response:
        fields = {"name": name, "tokenizer": reference}
        return client.post("/v1/datasets", data=fields, files={"file": b"to be or not to be\n" * 60})

    made = add("text", "checkpoint:small")
    assert made.status_code == 201, made.text
    assert made.json()["tokenizer"] == "file"
    assert client.get("/v1/datasets/text/tokenizer").content == tokenizer
    for reference, why in (("checkpoint:without", "has no tokenizer"), ("checkpoint:gone", "there is no checkpoint")):
        refused = add("other", reference)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/tokenizer"
        assert why in refused.text


def test_content_that_is_deleted_while_it_is_registered_again_keeps_its_files(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upload(client, checkpoint_files()).status_code == 201
    write = content_folders.retry_if_taken

    def write_after_a_deletion(insert: Callable[[], Any]) -> Any:
        assert client.delete("/v1/checkpoints/small").status_code == 204
        return write(insert)

    monkeypatch.setattr(content_folders, "retry_if_taken", write_after_a_deletion)
    assert upload(client, checkpoint_files(), "twin").status_code == 201
    assert client.get("/v1/checkpoints/twin/weights").status_code == 200


def test_weights_of_half_precision_are_kept_in_float32(client: TestClient) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert upload(client, checkpoint_files(dtype=dtype), str(dtype)[6:]).status_code == 201
    (halved, exact) = (
        load(client.get(f"/v1/checkpoints/{name}/weights").content)["embedding.table.weight"]
        for name in ("bfloat16", "float16")
    )
    assert halved.dtype == np.float32
    assert np.abs(halved - exact).max() < 1e-3


def _with_config(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return files | {"config": json.dumps({**json.loads(files["config"]), **changes}).encode()}


GOOD = checkpoint_files()
TENSORS = load(GOOD["weights"])
FEWER = save({name: tensor for name, tensor in TENSORS.items() if "down_proj" not in name})
BROKEN = save(TENSORS | {"model.norm.weight": np.full(16, np.nan, np.float32)})
WHOLE = save(TENSORS | {"model.norm.weight": np.ones(16, np.int64)})
REFUSED = {
    "another architecture": (_with_config(GOOD, architectures=["MixtralForCausalLM"]), "config", "MixtralForCausalLM"),
    "another size": (_with_config(GOOD, intermediate_size=33), "weights", "not 33 rows"),
    "another width": (_with_config(GOOD, hidden_size=24), "weights", "16"),
    "an unknown activation": (_with_config(GOOD, hidden_act="mish"), "config", "'mish' is not built"),
    "a rule that is broken": (_with_config(GOOD, num_key_value_heads=3), "config", "cannot share 3"),
    "text for a number": (_with_config(GOOD, num_hidden_layers="1"), "config", "not an integer"),
    "a number beyond all bounds": (_with_config(GOOD, num_hidden_layers=10**30), "config", "out of range"),
    "no number": (_with_config(GOOD, num_hidden_layers=None), "config", "missing"),
    "a list": (GOOD | {"config": b"[1]"}, "config", "not a mapping"),
    "no JSON": (GOOD | {"config": b"\xff{"}, "config", "not JSON"),
    "a pickle": (GOOD | {"weights": pickle.dumps({"a": 1})}, "weights", "never read"),
    "half a file": (GOOD | {"weights": GOOD["weights"][:-8]}, "weights", "not a whole safetensors file"),
    "whole numbers": (GOOD | {"weights": WHOLE}, "weights", "model.norm.weight in I64"),
    "a tensor too few": (GOOD | {"weights": FEWER}, "weights", "down_proj.weight is missing"),
    "what is not finite": (GOOD | {"weights": BROKEN}, "weights", "not finite"),
}


def test_what_is_no_checkpoint_is_refused_with_its_place(client: TestClient, services: Services) -> None:
    for case, (files, field, said) in REFUSED.items():
        answer = upload(client, files)
        assert answer.status_code == 422, (case, answer.text)
        (problem,) = answer.json()["errors"]
        assert problem["pointer"] == f"/{field}", case
        assert said in f"{problem['detail']} {problem['remedy']}", case
    assert list(datasets.uploads_folder(services.settings).iterdir()) == []


def test_an_upload_has_a_name_and_both_files(client: TestClient) -> None:
    assert upload(client, GOOD, "Größe").status_code == 422
    assert client.post("/v1/checkpoints", data={"name": "a"}, files={"config": b"{}"}).status_code == 422
    assert client.post("/v1/checkpoints", files=GOOD).status_code == 422
    assert upload(client, GOOD | {"tokenizer": b"{}"}).status_code == 422


def test_a_sweep_starts_at_its_configuration(client: TestClient) -> None:
    refused = client.post("/v1/sweeps", json=SWEEP)
    assert refused.status_code == 422
    assert "there is no checkpoint 'small'" in refused.json()["detail"]
    upload(client, GOOD)
    sweep = client.post("/v1/sweeps", json=SWEEP).json()
    preview = client.post("/v1/sweeps?validate_only=true", json=SWEEP).json()
    assert preview["valid"]
    assert client.get(f"/v1/sweeps/{sweep['id']}").status_code == 200
    # A start is kept by value: the sweep goes on without the checkpoint.
    assert client.delete("/v1/checkpoints/small").status_code == 204


def test_a_start_begins_with_the_weights_of_its_checkpoint_where_the_space_has_them(
    client: TestClient, services: Services
) -> None:
    upload(client, GOOD)
    upload(client, GOOD, "twin")

    def begun(*values: str) -> str:
        training = {"steps": 5, "initialize_from": {"values": ["none", *values]}}
        (start,) = drafts.prepare(services.database, {**SWEEP, "training": training}).document.starts
        return str(start.chosen["training.initialize_from"])

    assert begun("checkpoint:twin", "checkpoint:small").startswith("checkpoint:small@")
    assert begun("checkpoint:twin") == "none"


def test_a_checkpoint_outside_of_the_space_is_no_start(client: TestClient) -> None:
    upload(client, checkpoint_files(**{"mlp.ffn_hidden_size": 48}))
    answer = client.post("/v1/sweeps", json=SWEEP)
    assert answer.status_code == 422
    assert "mlp.ffn_hidden_size" in answer.json()["detail"]


def test_what_a_training_begins_with_is_named_by_its_content(client: TestClient, services: Services) -> None:
    def posted(initialize_from: object, **changes: Any) -> httpx2.Response:
        training = {"steps": 5, "initialize_from": initialize_from}
        return client.post("/v1/sweeps", json={**SWEEP, "start_from": [], "training": training, **changes})

    assert "there is no checkpoint 'small'" in posted("checkpoint:small").json()["detail"]
    assert "names no checkpoint" in posted("small").json()["detail"]
    digest = upload(client, GOOD).json()["sha256"]
    named = f"checkpoint:small@{digest}"
    assert client.get(f"/v1/checkpoints/{digest}/weights").status_code == 200
    for written, understood in (
        ("checkpoint:small", named),
        (named, named),
        ({"values": ["none", "checkpoint:small"]}, {"values": ["none", named]}),
    ):
        answer = client.post(
            "/v1/sweeps?validate_only=true",
            json={**SWEEP, "start_from": [], "training": {"steps": 5, "initialize_from": written}},
        )
        assert answer.json()["document"]["training"]["initialize_from"] == understood, answer.text
    other = f"checkpoint:small@{'0' * 64}"
    assert "has other content by now" in posted(other).json()["detail"]

    sweep = posted("checkpoint:small")
    assert sweep.status_code == 201, sweep.text
    assert client.delete("/v1/checkpoints/small").status_code == 409
    services.database.write(
        lambda session: sweeps.end(session, sweep.json()["id"], SweepState.COMPLETED, "budget_exhausted")
    )
    assert client.delete("/v1/checkpoints/small").status_code == 204
    longer = client.post(f"/v1/sweeps/{sweep.json()['id']}:extend", json={"trials": 5})
    assert (longer.status_code, "the checkpoint 'small'" in longer.json()["detail"]) == (409, True)
    upload(client, GOOD)
    assert client.post(f"/v1/sweeps/{sweep.json()['id']}:extend", json={"trials": 5}).status_code == 200


def test_a_sweep_whose_checkpoint_is_deleted_while_it_is_read_is_refused(
    client: TestClient, services: Services
) -> None:
    upload(client, GOOD)
    training = {"steps": 5, "initialize_from": {"values": ["none", "checkpoint:small"]}}
    prepared = drafts.prepare(services.database, {**SWEEP, "start_from": [], "training": training})
    assert client.delete("/v1/checkpoints/small").status_code == 204
    with pytest.raises(ConflictError, match=r"the checkpoint 'small'.* was deleted"):
        services.database.write(lambda session: sweeps.insert(session, prepared))
